//! Running migrations, one process at a time, while others use the database.
//!
//! On PostgreSQL indexes come after the transaction: building one takes long
//! and must not keep anybody from writing. One whose building was broken off is
//! left behind invalid; the next run removes it and begins anew.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;

use super::{FIRST_GENERATION, Index, MIGRATIONS, Migration, check, number_contents, text, version};
use crate::db::{
    engine::open_writer,
    error::{Error, Result},
    operator,
    postgres::{self, Mode, Session},
    property,
    settings::{Location, Settings},
    sql::values,
    tx::{Driver, Tx},
};

/// The key of the advisory lock under which PostgreSQL is migrated: "pinfold"
/// in ASCII.
const LOCK: i64 = 0x0070_696e_666f_6c64;

/// Between two attempts to take the lock. It is not waited for in the server:
/// an index that is built concurrently waits for every statement that began
/// before, and so for those that wait for its builder.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How long another process is waited for: an index on a hundred million pins
/// is built within it.
const LOCK_PATIENCE: Duration = Duration::from_secs(3_600);

/// What a migration is given: as long as it takes, but to wait for a table no
/// longer than requests can, which wait behind it.
const LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 10000";

/// The index by which parts of names are found on PostgreSQL. It needs an
/// extension, which an administrator may have to install.
const TRIGRAMS: Index = Index {
    name: "pin_trigrams",
    sql: "CREATE INDEX {concurrently} pin_trigrams ON pin USING gin (folded gin_trgm_ops)",
};

/// Brings the schema to [`super::CURRENT`] or, without `migrate`, checks that it
/// can be used. Answers its version.
pub(crate) async fn prepare(settings: &Arc<Settings>, migrate: bool) -> Result<i64> {
    follow(settings, MIGRATIONS, migrate).await
}

/// Brings the schema to the end of a list of migrations.
pub(super) async fn follow(settings: &Arc<Settings>, plan: &[Migration], migrate: bool) -> Result<i64> {
    match &settings.location {
        Location::Sqlite(file) => {
            private(file)?;
            let mut tx = open_writer(file, settings)?;
            tx.batch("BEGIN IMMEDIATE").await?;
            let version = upgrade(&mut tx, plan, migrate).await?;
            tx.batch("COMMIT").await?;
            Ok(version)
        }
        Location::Postgres(url) => {
            let pool = postgres::pool(&postgres::Target::new(url)?, 2)?;
            // Held by its connection, which ends with the pool.
            let (alone, _) = Session::begin(&pool, Mode::Single).await?;
            lock(&alone).await?;
            let version = on_postgres(&pool, settings, plan, migrate).await?;
            if migrate {
                alone.batch("SET statement_timeout = 0").await?;
                build(&alone, plan).await?;
            }
            trigrams(&alone, migrate).await?;
            alone.query("SELECT pg_advisory_unlock($1)", &values![LOCK]).await?;
            drop(alone);
            pool.close();
            Ok(version)
        }
    }
}

/// Makes the file readable by its owner alone, before anything is in it.
fn private(file: &std::path::Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(file);
    opened.map(drop).map_err(|source| Error::File { what: format!("opening {}", file.display()), source })
}

async fn on_postgres(
    pool: &Pool,
    settings: &Arc<Settings>,
    plan: &[Migration],
    migrate: bool,
) -> Result<i64> {
    let (session, now) = Session::begin(pool, Mode::Write).await?;
    let mut tx = Tx::new(Driver::Postgres(session), Arc::clone(settings));
    tx.start(now);
    let version = upgrade(&mut tx, plan, migrate).await?;
    if let Driver::Postgres(session) = &mut tx.driver {
        session.commit().await?;
    }
    Ok(version)
}

/// Waits until no other process migrates.
async fn lock(session: &Session) -> Result<()> {
    let end = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        let rows = session.query("SELECT pg_try_advisory_lock($1)", &values![LOCK]).await?;
        if rows.first().map_or(Ok(false), |row| row.flag(0))? {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            return Err(Error::Schema(format!(
                "another process has been migrating the database for {} minutes; see what it waits for in \
                 pg_stat_activity, or end it and try again",
                LOCK_PATIENCE.as_secs() / 60
            )));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Runs the migrations that are missing, all or none of them, and notes who did.
async fn upgrade(tx: &mut Tx, plan: &[Migration], migrate: bool) -> Result<i64> {
    let version = version(tx).await?;
    let (current, sqlite) = (plan.len() as i64, tx.is_sqlite());
    check(version, current, migrate)?;
    if !migrate || version >= current {
        return Ok(version);
    }
    if !sqlite {
        tx.batch(LIMITS).await?;
    }
    for (migration, number) in plan.iter().zip(1_i64..).filter(|(_, number)| *number > version) {
        tx.batch(&text(migration.sql, sqlite)).await?;
        for index in migration.indexes.iter().filter(|_| sqlite) {
            tx.batch(&text(index.sql, sqlite)).await?;
        }
        tracing::info!(schema = number, "the database's schema was migrated");
    }
    tx.batch(&format!("DELETE FROM schema_version; INSERT INTO schema_version VALUES ({current})")).await?;
    if version == 0 {
        property::set(tx, "generation", FIRST_GENERATION, "").await?;
        number_contents(tx, FIRST_GENERATION).await?;
    }
    let (to, from) = (format!("schema {current}"), format!("from schema {version}"));
    operator::note_deed(tx, "migrate", to, &from).await?;
    Ok(current)
}

/// Builds the indexes on PostgreSQL that are not there, or not whole.
async fn build(session: &Session, plan: &[Migration]) -> Result<()> {
    for index in plan.iter().flat_map(|migration| migration.indexes) {
        build_one(session, index).await?;
    }
    Ok(())
}

async fn build_one(session: &Session, index: &Index) -> Result<()> {
    match is_valid(session, index).await? {
        Some(true) => return Ok(()),
        Some(false) => session.batch(&format!("DROP INDEX CONCURRENTLY {}", index.name)).await?,
        None => {}
    }
    session.batch(&text(index.sql, false)).await?;
    tracing::info!(index = index.name, "an index was built");
    Ok(())
}

/// Whether an index is whole; `None` where there is none.
async fn is_valid(session: &Session, index: &Index) -> Result<Option<bool>> {
    let sql = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let rows = session.query(sql, &values![index.name]).await?;
    rows.first().map(|row| row.flag(0)).transpose()
}

/// Builds the index of parts of names where it can be built: without it they
/// are found by reading all names of an account.
async fn trigrams(session: &Session, migrate: bool) -> Result<()> {
    if is_valid(session, &TRIGRAMS).await? == Some(true) {
        return Ok(());
    }
    let reason = if migrate {
        let Err(error) = build_trigrams(session).await else { return Ok(()) };
        error.to_string()
    } else {
        "the database was opened without --migrate".to_owned()
    };
    tracing::warn!(
        %reason,
        "lists by a part of a name read all names of an account: have the extension pg_trgm installed in \
         this database (CREATE EXTENSION pg_trgm), and run `pinfold migrate`"
    );
    Ok(())
}

async fn build_trigrams(session: &Session) -> Result<()> {
    session.batch("CREATE EXTENSION IF NOT EXISTS pg_trgm").await?;
    build_one(session, &TRIGRAMS).await
}
