//! Several processes on one database.

use std::time::Duration;

use pinfold_core::status::Status;

use uuid::Uuid;

use crate::world::*;

crate::on_both!(services_that_live_are_counted);

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
