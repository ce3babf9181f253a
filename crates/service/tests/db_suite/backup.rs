//! Opening, migrating, backing up, restoring.

use std::sync::{Arc, Mutex};

use pinfold_core::status::Status;
use pinfold_node_api::{AllocationId, Inventory};
use pinfold_service::db::{Database, Error, Location, Settings};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_restores_to_a_new_generation() {
    let world = World::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let kept = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &kept, 5_000).await;
    let told = Arc::new(Mutex::new((0, 0)));
    let tell = Arc::clone(&told);
    db.backup(&file, move |done, total| *tell.lock().unwrap() = (done, total)).await.unwrap();
    let (copied, pages) = *told.lock().unwrap();
    assert!(copied == pages && pages > 10, "{copied} of {pages} pages");
    assert!(
        matches!(db.backup(&file, |_, _| ()).await, Err(Error::Invalid(_))),
        "a backup is never written over"
    );
    let later = db.add_pin(pin(ann.id, 2)).await.unwrap();
    node.store(&db, &later, 5_000).await;
    let lost = node.assignments[&later.content].allocation;
    let same = node.assignments[&kept.content].allocation;
    let occupied = Database::restore(&file, &world.settings, |_, _| ()).await;
    assert!(matches!(occupied, Err(Error::Invalid(_))), "a database is never written over");
    db.close().await;
    assert!(matches!(db.add_pin(pin(ann.id, 3)).await, Err(Error::Closed)));

    let place = folder.path().join("restored.db");
    let settings = Settings { location: Location::Sqlite(place), ..world.settings.clone() };
    Database::restore(&file, &settings, |_, _| ()).await.unwrap();
    let db = Database::open(settings).await.unwrap();
    assert_eq!(db.database_generation().await.unwrap(), 2);
    assert_eq!(status(&db, &kept).await.0, Status::Pinned);
    assert_eq!(db.pin(ann.id, later.requestid).await.unwrap(), None);
    world.pass(SECOND);
    let mut node = FakeNode::join(&db, 1, world.now()).await;
    assert!(node.session > START, "sessions of before the restore stay behind");
    let request = node.request();
    let found = db.inventory(request, Inventory { after: 0, held: vec![same, lost] }).await.unwrap();
    assert_eq!(found.unknown, [lost]);
    node.pull(&db).await;
    assert!(node.releases.is_empty(), "nothing is deleted before the operator says so");
    let new = db.add_pin(pin(ann.id, 3)).await.unwrap();
    assert!(new.content > 1 << 41, "numbers that nodes know are not given again");
    assert_sound(&db).await;
}

#[tokio::test]
async fn damaged_and_foreign_files_are_refused() {
    let world = World::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    std::fs::write(&file, b"not a database, but long enough to be read as one").unwrap();
    assert!(Database::restore(&file, &world.settings, |_, _| ()).await.is_err());
    assert!(Database::restore(&folder.path().join("missing"), &world.settings, |_, _| ()).await.is_err());
    let empty = folder.path().join("empty");
    rusqlite::Connection::open(&empty).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(matches!(Database::restore(&empty, &world.settings, |_, _| ()).await, Err(Error::Schema(_))));
    world.open().await.close().await;
}

#[tokio::test]
async fn a_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::sqlite();
    let _db = world.open().await;
    let Location::Sqlite(file) = &world.settings.location else { unreachable!() };
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

crate::on_both!(
    a_restored_database_lets_go_what_the_operator_confirms,
    a_schema_is_migrated_once_and_a_newer_one_refused,
    unusable_replicas_are_refused,
);

/// The URL of a copy of a database that nobody is connected to.
async fn copy_database(url: &str) -> String {
    let (base, name) = url.rsplit_once('/').expect("a URL with a database");
    let copy = format!("{name}_copy");
    let (client, connection) = crate::cluster::connect(&format!("{base}/postgres")).await;
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}")).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    format!("{base}/{copy}")
}

/// Restores what the world's database, which is closed, is now, by the way of
/// each database; the copy is not open yet.
async fn restored(world: &World, folder: &std::path::Path) -> Settings {
    match &world.settings.location {
        Location::Sqlite(_) => {
            let (file, place) = (folder.join("backup"), folder.join("restored.db"));
            let db = world.open().await;
            db.backup(&file, |_, _| ()).await.unwrap();
            db.close().await;
            let settings = Settings { location: Location::Sqlite(place), ..world.settings.clone() };
            Database::restore(&file, &settings, |_, _| ()).await.unwrap();
            settings
        }
        Location::Postgres(url) => {
            let copy = copy_database(url).await;
            let settings = Settings { location: Location::Postgres(copy), ..world.settings.clone() };
            let db = Database::open(settings.clone()).await.unwrap();
            db.begin_generation().await.unwrap();
            db.close().await;
            settings
        }
    }
}

async fn a_restored_database_lets_go_what_the_operator_confirms(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let kept = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &kept, 5_000).await;
    db.close().await;
    let settings = restored(&world, folder.path()).await;
    let db = world.open().await;
    let later = db.add_pin(pin(ann.id, 2)).await.unwrap();
    node.store(&db, &later, 5_000).await;
    let (same, lost) =
        (node.assignments[&kept.content].allocation, node.assignments[&later.content].allocation);
    db.close().await;

    let db = Database::open(settings).await.unwrap();
    assert_eq!(db.database_generation().await.unwrap(), 2);
    let request = node.request();
    let pull = pinfold_node_api::Pull { acknowledged: Vec::new(), denylist_version: 0, wait_ms: 0 };
    let refused = db.pull(request, pull).await;
    assert!(matches!(refused, Err(Error::Node(_))), "a session of before learns of it: {refused:?}");
    world.pass(SECOND);
    let mut node = FakeNode::join(&db, 1, world.now()).await;
    assert!(matches!(db.release_strays().await, Err(Error::Invalid(_))), "no inventory is in");
    let full = (0..pinfold_node_api::MAX_ALLOCATIONS as i64 - 1)
        .map(|n| AllocationId { content: n - 10_000, generation: 1 });
    let part: Vec<AllocationId> = full.chain([same]).collect();
    let request = node.request();
    db.inventory(request, Inventory { after: i64::MIN, held: part }).await.unwrap();
    let strays = db.strays().await.unwrap();
    assert_eq!(strays.outstanding.len(), 1, "half an inventory is none");
    assert!(matches!(db.release_strays().await, Err(Error::Invalid(_))));
    let request = node.request();
    db.inventory(request, Inventory { after: lost.content, held: Vec::new() }).await.unwrap();
    assert!(db.release_strays().await.is_err(), "a part is missing between the two");
    let request = node.request();
    let found = db.inventory(request, Inventory { after: same.content, held: vec![lost] }).await.unwrap();
    assert_eq!(found.unknown, [lost]);
    let removed = db.add_pin(pin(ann.id, 4)).await.unwrap();
    node.store(&db, &removed, 10).await;
    db.delete_pin(ann.id, removed.requestid).await.unwrap();
    node.pull(&db).await;
    assert!(node.releases.is_empty(), "nothing is deleted before the operator says so");
    assert!(db.release_strays().await.unwrap() > 0);
    assert_eq!(db.release_strays().await.unwrap(), 0);
    node.pull(&db).await;
    assert!(node.releases.contains(&lost) && !node.releases.contains(&same));
    assert!(node.releases.iter().any(|id| id.content == removed.content));
    node.release(&db).await;
    let new = db.add_pin(pin(ann.id, 3)).await.unwrap();
    assert!(new.content > 1 << 41, "numbers that nodes know are not given again");
    assert_eq!(status(&db, &kept).await.0, Status::Pinned);
    assert_sound(&db).await;
    db.close().await;
}

async fn a_schema_is_migrated_once_and_a_newer_one_refused(world: World) {
    let unmigrated = Settings { migrate: false, ..world.settings.clone() };
    assert!(matches!(Database::open(unmigrated.clone()).await, Err(Error::Schema(_))));
    let racing = (0..3).map(|_| Database::migrate(&world.settings));
    for outcome in futures::future::join_all(racing).await {
        assert_eq!(outcome.unwrap(), 1);
    }
    let db = Database::open(unmigrated.clone()).await.unwrap();
    assert_eq!(db.health().await.unwrap().schema, 1);
    db.close().await;
    // The next version's schema only adds: this version runs on it.
    set_version(&world, 2).await;
    Database::open(unmigrated.clone()).await.unwrap().close().await;
    set_version(&world, 3).await;
    assert!(matches!(Database::open(unmigrated).await, Err(Error::Schema(_))));
    assert!(matches!(Database::migrate(&world.settings).await, Err(Error::Schema(_))));
}

async fn set_version(world: &World, version: i64) {
    world.execute(&format!("UPDATE schema_version SET version = {version}")).await;
}

async fn unusable_replicas_are_refused(world: World) {
    for (replicas_min, replicas_target) in [(0, 1), (2, 1)] {
        let settings = Settings { replicas_min, replicas_target, ..world.settings.clone() };
        assert!(matches!(Database::open(settings).await, Err(Error::Invalid(_))));
    }
}
