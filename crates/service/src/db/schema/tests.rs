//! Migrations on both databases: from a database of schema 1 to one that this
//! version does not know yet, while this version goes on using it.

#[path = "../../../tests/support/cluster.rs"]
mod cluster;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pinfold_core::status::Status;
use uuid::Uuid;

use super::{run::follow, *};
use crate::db::{Database, ListQuery, Location, NameMatch, NewPin, NodeHello, Settings, engine::open_writer};

/// The first schema as it was released, with a few pins.
const FIXTURE: &str = include_str!("../../../tests/fixtures/schema1.sql");

/// A step that a later version may bring.
const NOTES: Migration = Migration {
    sql: "ALTER TABLE pin ADD COLUMN note TEXT NOT NULL DEFAULT ''; CREATE TABLE memo (id {id}, text TEXT NOT NULL);",
    indexes: &[Index {
        name: "pin_note",
        sql: "CREATE INDEX {concurrently} pin_note ON pin (account, note)",
    }],
};

/// One that fails after it has done something.
const BROKEN: Migration =
    Migration { sql: "ALTER TABLE pin ADD COLUMN half TEXT; INSERT INTO nowhere VALUES (1);", indexes: &[] };

/// One whose index cannot be built on the fixture, of which two pins have one
/// CID.
const UNIQUE: Migration = Migration {
    sql: "ALTER TABLE pin ADD COLUMN single TEXT;",
    indexes: &[Index { name: "pin_cid", sql: "CREATE UNIQUE INDEX {concurrently} pin_cid ON pin (cid)" }],
};

/// One more, that nothing keeps from being run.
const LATER: Migration = Migration { sql: "CREATE TABLE later (id {id});", indexes: &[] };

/// This version's migrations and further ones.
fn then(further: &[Migration]) -> Vec<Migration> {
    MIGRATIONS.iter().chain(further).copied().collect()
}

struct Place {
    settings: Arc<Settings>,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::at(Location::Sqlite(folder.path().join("pinfold.db")), folder).await
    }

    async fn postgres() -> Self {
        let url = cluster::new_database().await;
        Self::at(Location::Postgres(url), tempfile::tempdir().unwrap()).await
    }

    /// A database of schema 1.
    async fn at(location: Location, folder: tempfile::TempDir) -> Self {
        let one = Settings { replicas_min: 1, replicas_target: 1, pool: 4, ..Settings::new(location) };
        let place = Self { settings: Arc::new(one), _folder: folder };
        place.execute(FIXTURE).await;
        place
    }

    /// Runs statements in the words of migrations.
    async fn execute(&self, sql: &str) {
        match &self.settings.location {
            Location::Sqlite(file) => {
                let sql = text(sql, true).replace("--sqlite ", "");
                open_writer(file, &self.settings).unwrap().batch(&sql).await.unwrap();
            }
            Location::Postgres(url) => {
                let sql = text(sql, false).replace("--postgres ", "").replace("X'", "'\\x");
                let (client, connection) = cluster::connect(url).await;
                let connection = tokio::spawn(connection);
                client.batch_execute(&sql).await.unwrap();
                drop(client);
                connection.await.unwrap().unwrap();
            }
        }
    }

    /// This version of the program, which knows no later schema.
    async fn open(&self) -> Database {
        Database::open(Settings::clone(&self.settings)).await.unwrap()
    }
}

async fn pin(db: &Database, number: u64) {
    let key = [&[0x55, 0x12, 0x20][..], &(1_000 + number).to_be_bytes(), &[0; 24]].concat();
    let pin = NewPin {
        requestid: Uuid::now_v7(),
        account: 1,
        cid: format!("bafynew{number}"),
        content: key,
        inline: false,
        name: Some(format!("name {number}")),
        meta: BTreeMap::new(),
        origins: Vec::new(),
    };
    db.add_pin(pin).await.unwrap();
}

async fn count(db: &Database, name: Option<&str>) -> u64 {
    let name = name.map(|name| (name.to_owned(), NameMatch::Partial));
    let query = ListQuery { statuses: Status::ALL.to_vec(), limit: 10, name, ..ListQuery::default() };
    db.list(1, query).await.unwrap().count
}

async fn assert_sound(db: &Database) {
    assert_eq!(db.check().await.unwrap().differences, Vec::<String>::new());
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Place::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Place::postgres().await).await;
            })*
        }
    };
}

on_both!(
    a_database_of_the_first_schema_is_used,
    a_version_goes_on_writing_while_the_next_one_migrates,
    a_migration_that_fails_changes_nothing_and_is_run_again,
    an_index_that_cannot_be_built_is_built_later,
    two_that_migrate_at_once_do_it_once,
    a_newer_database_is_refused_in_words,
);

#[test]
fn a_released_migration_is_never_changed() {
    assert!(FIXTURE.starts_with(MIGRATIONS[0].sql), "write a further migration instead");
}

async fn a_database_of_the_first_schema_is_used(place: Place) {
    let db = place.open().await;
    assert_sound(&db).await;
    assert_eq!((count(&db, None).await, count(&db, Some("hoto")).await), (3, 1));
    pin(&db, 1).await;
    assert_eq!((count(&db, None).await, count(&db, Some("ame")).await), (4, 1));
    assert_sound(&db).await;
    db.close().await;
}

async fn a_version_goes_on_writing_while_the_next_one_migrates(place: Place) {
    let db = place.open().await;
    let migrated = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (db, migrated) = (db.clone(), Arc::clone(&migrated));
        async move {
            let mut made = 0;
            // At least a few beside the migration, and some on its schema.
            for last in [false, true] {
                while migrated.load(Ordering::SeqCst) == last && made < 100_000 {
                    pin(&db, made).await;
                    made += 1;
                    assert_eq!(count(&db, Some("ame")).await, made);
                    if last && made % 8 == 0 {
                        break;
                    }
                }
            }
            made
        }
    });
    while count(&db, None).await < 20 {
        tokio::task::yield_now().await;
    }
    let next = then(&[NOTES]);
    assert_eq!(follow(&place.settings, &next, true).await.unwrap(), CURRENT + 1);
    migrated.store(true, Ordering::SeqCst);
    let made = writer.await.unwrap();
    // A process of this version that starts now does so on the next schema.
    let late = place.open().await;
    pin(&late, made).await;
    assert_eq!(count(&db, None).await, 3 + made + 1);
    assert_sound(&late).await;
    place.execute("UPDATE pin SET note = 'kept'; INSERT INTO memo (text) VALUES ('there');").await;
    db.close().await;
    late.close().await;
}

async fn a_migration_that_fails_changes_nothing_and_is_run_again(place: Place) {
    let db = place.open().await;
    follow(&place.settings, &then(&[NOTES, BROKEN]), true).await.unwrap_err();
    pin(&db, 1).await;
    assert_eq!(follow(&place.settings, MIGRATIONS, false).await.unwrap(), CURRENT);
    // Neither of the two was kept, so that both can be run again.
    place.execute("ALTER TABLE pin ADD COLUMN note TEXT; ALTER TABLE pin DROP COLUMN note;").await;
    assert_eq!(follow(&place.settings, &then(&[NOTES]), true).await.unwrap(), CURRENT + 1);
    pin(&db, 2).await;
    assert_sound(&db).await;
    db.close().await;
}

async fn an_index_that_cannot_be_built_is_built_later(place: Place) {
    let db = place.open().await;
    let next = then(&[UNIQUE]);
    for _ in 0..2 {
        follow(&place.settings, &next, true).await.unwrap_err();
        pin(&db, 1).await;
        db.delete_pin(1, newest(&db).await).await.unwrap();
    }
    db.delete_pin(1, newest(&db).await).await.unwrap();
    assert_eq!(follow(&place.settings, &next, true).await.unwrap(), CURRENT + 1);
    pin(&db, 2).await;
    place.execute("DROP INDEX pin_cid;").await;
    db.close().await;
}

async fn newest(db: &Database) -> Uuid {
    let query = ListQuery { statuses: Status::ALL.to_vec(), limit: 1, ..ListQuery::default() };
    db.list(1, query).await.unwrap().pins[0].requestid
}

async fn two_that_migrate_at_once_do_it_once(place: Place) {
    let db = place.open().await;
    let next = then(&[NOTES]);
    let both = tokio::join!(follow(&place.settings, &next, true), follow(&place.settings, &next, true));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (CURRENT + 1, CURRENT + 1));
    pin(&db, 1).await;
    db.close().await;
}

async fn a_newer_database_is_refused_in_words(place: Place) {
    assert_eq!(follow(&place.settings, &then(&[NOTES, LATER]), true).await.unwrap(), CURRENT + 2);
    let refused = Database::open(Settings::clone(&place.settings)).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        format!(
            "the database has schema {}, this version of Pinfold knows {CURRENT}; run the newer version",
            CURRENT + 2
        )
    );
}

/// What the role may not install is done without, and had when it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_trigrams_postgres_reads_all_names() {
    let url = cluster::new_database().await;
    let (admin, connection) = cluster::connect(&url).await;
    let connection = tokio::spawn(connection);
    let database = url.rsplit_once('/').unwrap().1.to_owned();
    admin
        .batch_execute(&format!(
            "CREATE ROLE plain_{database} LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO plain_{database}"
        ))
        .await
        .unwrap();
    let plain = url.replacen("//pinfold@", &format!("//plain_{database}@"), 1);
    let settings =
        Settings { replicas_min: 1, replicas_target: 1, pool: 4, ..Settings::new(Location::Postgres(plain)) };
    let has_index = async || {
        let sql = "SELECT to_regclass('pin_trigrams') IS NOT NULL";
        admin.query_one(sql, &[]).await.unwrap().get::<_, bool>(0)
    };
    let db = Database::open(settings.clone()).await.unwrap();
    assert!(!has_index().await);
    db.create_account("ann", None).await.unwrap();
    db.hello(node()).await.unwrap();
    db.add_pin(inline_pin()).await.unwrap();
    assert_eq!((count(&db, Some("me o")).await, count(&db, Some("zzzz")).await), (1, 0));
    db.close().await;
    admin.batch_execute("CREATE EXTENSION pg_trgm").await.unwrap();
    let db = Database::open(settings).await.unwrap();
    assert!(has_index().await, "built as soon as the extension is there");
    assert_eq!((count(&db, Some("me o")).await, count(&db, Some("zzzz")).await), (1, 0));
    db.close().await;
    drop(admin);
    connection.await.unwrap().unwrap();
}

fn node() -> NodeHello {
    NodeHello {
        key: [1; 32],
        operated: true,
        addresses: vec!["/ip4/127.0.0.1/tcp/4001/p2p/node".to_owned()],
        gateway: None,
        capacity_bytes: 1 << 40,
        used_bytes: 0,
        agent: "test/1".to_owned(),
        sent_at: jiff::Timestamp::now().as_millisecond(),
    }
}

fn inline_pin() -> NewPin {
    NewPin {
        requestid: Uuid::now_v7(),
        account: 1,
        cid: "bafkqaaa".to_owned(),
        content: vec![0x55, 0, 0],
        inline: true,
        name: Some("name of it".to_owned()),
        meta: BTreeMap::new(),
        origins: Vec::new(),
    }
}
