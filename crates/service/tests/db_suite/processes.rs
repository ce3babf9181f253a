//! Several processes on one database.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::Answer;
use pinfold_service::db::{Location, PinRefusal};
use tokio_postgres::AsyncMessage;
use uuid::Uuid;

use crate::world::*;

crate::on_both!(
    services_that_live_are_counted,
    one_process_at_a_time_has_the_jobs,
    two_hundred_at_the_edge_of_a_quota_through_two_processes,
    of_replacements_through_two_processes_one_is_made,
    jobs_of_two_processes_do_each_pin_once,
);

/// Twice as many as fit, of contents whose size is known, so that each POST
/// charges its own.
async fn two_hundred_at_the_edge_of_a_quota_through_two_processes(mut world: World) {
    const SIZE: u64 = 1 << 20;
    world.settings.max_pinning = 1_000;
    let (one, mut node, ann) = world.with_node(1 << 30).await;
    let two = world.open().await;
    for number in 0..200 {
        one.add_pin(pin(ann.id, number)).await.unwrap();
    }
    node.pull(&one).await;
    let held = |content: &i64| node.event(*content, stored(SIZE));
    let held = node.assignments.keys().map(held).collect();
    assert!(node.report(&one, held).await.iter().all(|answer| *answer == Answer::Noted));
    let quota = 100 * SIZE + SIZE / 2;
    let bob = one.create_account("bob", Some(quota)).await.unwrap();
    let adding = (0..200).map(|n| if n % 2 == 0 { &one } else { &two }.add_pin(pin(bob.id, n)));
    let (made, refused): (Vec<_>, Vec<_>) =
        futures::future::join_all(adding).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (100, 100));
    for outcome in refused {
        assert_eq!(refusal(outcome), PinRefusal::OverQuota { used: 100 * SIZE, quota });
    }
    assert_eq!(usage(&two, &bob).await, (100 * SIZE, 0));
    assert_sound(&two).await;
}

async fn of_replacements_through_two_processes_one_is_made(world: World) {
    let (one, mut node, ann) = world.with_node(1 << 30).await;
    let two = world.open().await;
    for round in 0..8 {
        let old = one.add_pin(pin(ann.id, 100 * round)).await.unwrap();
        node.store(&one, &old, 10_000).await;
        let replace = |n: u64| {
            let db = if n.is_multiple_of(2) { &one } else { &two };
            db.replace_pin(old.requestid, pin(ann.id, 100 * round + n))
        };
        let outcomes = futures::future::join_all((1..5).map(replace)).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_eq!(refusal(outcome), PinRefusal::NotFound);
        }
    }
    assert_eq!(list(&two, &ann, query(&Status::ALL)).await.count, 8);
    assert_sound(&two).await;
}

/// Both are at it at once, as when the lease of one ends while it still works:
/// whichever finds a pin, it counts once.
async fn jobs_of_two_processes_do_each_pin_once(mut world: World) {
    const PINS: u64 = 250;
    world.settings.max_pinning = 1_000;
    let (one, mut node, ann) = world.with_node(1 << 30).await;
    let two = world.open().await;
    for content in 0..PINS {
        one.add_pin(pin(ann.id, content)).await.unwrap();
    }
    node.pull(&one).await;
    world.pass(25 * HOUR);
    node.report(&one, Vec::new()).await;
    let mut changed = 0;
    while changed < PINS {
        let (first, second) = tokio::join!(one.run_jobs(), two.run_jobs());
        let more = first.unwrap().changed + second.unwrap().changed;
        assert!(more > 0, "{changed} of {PINS} expired");
        changed += more;
    }
    assert_eq!(changed, PINS);
    let after = [one.run_jobs().await.unwrap().changed, two.run_jobs().await.unwrap().changed];
    assert_eq!(after, [0, 0], "nothing is left, and nothing is done again");
    assert_eq!(list(&two, &ann, query(&[Status::Failed])).await.count, PINS);
    assert_sound(&two).await;
}

async fn services_that_live_are_counted(world: World) {
    let (one, two) = (world.open().await, world.open().await);
    let [ann, bob, eve] = [(); 3].map(|()| Uuid::now_v7());
    assert_eq!(one.heartbeat(ann).await.unwrap(), 1);
    assert_eq!(two.heartbeat(bob).await.unwrap(), 2);
    assert_eq!(one.heartbeat(ann).await.unwrap(), 2, "one that is heard again is no other");
    two.leave(bob).await.unwrap();
    assert_eq!(one.heartbeat(ann).await.unwrap(), 1, "one that left counts no more");
    two.heartbeat(eve).await.unwrap();
    world.pass(19 * SECOND);
    assert_eq!(one.heartbeat(ann).await.unwrap(), 2, "a pause is no end");
    world.pass(2 * SECOND);
    assert_eq!(one.heartbeat(ann).await.unwrap(), 1, "one that is silent for long has ended");
    world.pass(-10 * HOUR);
    assert_eq!(two.heartbeat(eve).await.unwrap(), 1, "rows from a clock that jumped do not stay for ever");
    assert!(one.run_jobs().await.is_ok());
    assert_eq!(one.heartbeat(ann).await.unwrap(), 2, "the lease of the jobs is no service");
}

async fn one_process_at_a_time_has_the_jobs(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    world.pass(25 * HOUR);
    node.report(&db, Vec::new()).await;
    let taken = format!(
        "INSERT INTO lease (name, owner, until) VALUES ('jobs', 'another process', {})",
        world.now() + 30 * SECOND
    );
    world.execute(&taken).await;
    assert_eq!(db.run_jobs().await.unwrap().changed, 0);
    assert_eq!(status(&db, &made).await.0, Status::Queued, "another process has the jobs");
    world.pass(29 * SECOND);
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await.0, Status::Queued, "and may be about to do them");
    world.pass(2 * SECOND);
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::Expired)), "it died with them");
    assert_sound(&db).await;
}

/// The lease of the jobs ends while a slow process still works on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_works_on_in_postgres_is_left_to_it() {
    let mut world = World::postgres().await;
    world.settings.max_pinning = 1_000;
    let (one, mut node, ann) = world.with_node(1 << 30).await;
    let two = world.open().await;
    let mut made = Vec::new();
    for content in 0..120 {
        made.push(one.add_pin(pin(ann.id, content)).await.unwrap());
    }
    node.pull(&one).await;
    world.pass(25 * HOUR);
    node.report(&one, Vec::new()).await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("it is PostgreSQL") };
    let (other, connection) = crate::cluster::connect(url).await;
    let connection = tokio::spawn(connection);
    let hold = format!("BEGIN; SELECT * FROM content WHERE id = {} FOR UPDATE", made[0].content);
    other.batch_execute(&hold).await.unwrap();
    let both = async { tokio::join!(run_jobs(&one), run_jobs(&two)) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("the jobs wait for another process");
    assert_eq!(status(&one, &made[0]).await.0, Status::Queued);
    for pin in &made[1..] {
        assert_eq!(status(&two, pin).await, (Status::Failed, Some(Reason::Expired)));
    }
    drop(other);
    connection.await.unwrap().unwrap();
    run_jobs(&two).await;
    assert_eq!(status(&one, &made[0]).await.0, Status::Failed);
    node.release(&one).await;
    assert_eq!(usage(&two, &ann).await, (0, 0));
    assert_sound(&two).await;
}

/// Each handle stands for a process: it shares nothing with the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_postgres() {
    let world = World::postgres().await;
    let (one, mut node, ann) = world.with_node(1 << 30).await;
    let two = world.open().await;
    let mut changes = two.subscribe();
    let adding =
        (0..100).map(|content| if content % 2 == 0 { &one } else { &two }.add_pin(pin(ann.id, content)));
    let made: Vec<_> = futures::future::join_all(adding).await.into_iter().map(Result::unwrap).collect();
    let mut created: Vec<_> = made.iter().map(|pin| pin.created).collect();
    created.sort_unstable();
    created.dedup();
    assert_eq!(created.len(), 100, "created is unique in the account, whoever gives it");
    node.store(&one, &made[0], 100).await;
    let told = async { while !changes.recv().await.unwrap().concerns(made[0].content) {} };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the other process is told");
    assert_eq!(status(&two, &made[0]).await.0, Status::Pinned);
    let (first, second) = tokio::join!(one.run_jobs(), two.run_jobs());
    first.unwrap();
    second.unwrap();
    one.close().await;
    two.delete_pin(ann.id, made[1].requestid).await.unwrap();
    assert_sound(&two).await;
}

/// `pinfold token create` works while `up` runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_can_write_one_file() {
    let world = World::sqlite();
    let (one, _node, ann) = world.with_node(1 << 30).await;
    let two = world.open().await;
    let adding =
        (0..40).map(|content| if content % 2 == 0 { &one } else { &two }.add_pin(pin(ann.id, content)));
    assert!(futures::future::join_all(adding).await.iter().all(Result::is_ok));
    assert_eq!(list(&one, &ann, query(&Status::ALL)).await.count, 40);
    assert_sound(&two).await;
}

/// A commit waits for the server's disk, whatever the database is set to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_commits_are_durable_whatever_the_server_says() {
    for (setting, wanted) in
        [("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
    {
        let url = crate::cluster::new_database().await;
        let database = url.rsplit_once('/').unwrap().1.to_owned();
        let (admin, connection) = crate::cluster::connect(&url).await;
        let connection = tokio::spawn(connection);
        let set = format!("ALTER DATABASE {database} SET synchronous_commit = {setting}");
        admin.batch_execute(&set).await.unwrap();
        // Each connection of ours leaves a note of what it commits with.
        admin
            .batch_execute(
                "CREATE TABLE seen (setting text);
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL;
                 END $$",
            )
            .await
            .unwrap();
        let world = World::at(Location::Postgres(url), None);
        let (db, _node, ann) = world.with_node(1 << 30).await;
        admin
            .batch_execute(
                "CREATE TRIGGER note AFTER INSERT ON pin FOR EACH STATEMENT EXECUTE FUNCTION note()",
            )
            .await
            .unwrap();
        let adding = (0..20).map(|content| db.add_pin(pin(ann.id, content)));
        assert!(futures::future::join_all(adding).await.iter().all(Result::is_ok));
        let rows = admin.query("SELECT DISTINCT setting FROM seen", &[]).await.unwrap();
        let seen: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, [wanted], "where the database is set to {setting}");
        db.close().await;
        drop(admin);
        connection.await.unwrap().unwrap();
    }
}

/// NOTIFY lets one commit of the whole server pass at a time: however many pins
/// are added, other processes are told of all of them together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_told_of_many_changes_at_a_bounded_rate() {
    const PINS: u64 = 400;
    const A_SECOND: f64 = 20.0;
    let world = World::postgres().await;
    let (db, _node, ann) = world.with_node(1 << 30).await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("it is PostgreSQL") };
    let (listener, mut connection) = crate::cluster::connect(url).await;
    let told = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&told);
    let hearing = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    listener.batch_execute("LISTEN pinfold_changed").await.unwrap();
    let began = Instant::now();
    // One after the other: each is a commit of its own.
    for content in 0..PINS {
        db.add_pin(pin(ann.id, content)).await.unwrap();
    }
    let (told, seconds) = (told.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    assert!(told > 0 && f64::from(told) <= seconds * A_SECOND + 2.0, "{told} notices in {seconds} s");
    db.close().await;
    drop(listener);
    hearing.await.unwrap();
}
