//! Many at once: whatever the order, a recount finds the same.

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{Answer, EventKind};
use pinfold_service::db::{Account, Database, Error};

use crate::world::*;

crate::on_both!(concurrent_writers_leave_everything_sound, lists_are_one_snapshot);

/// Pins, replaces and removes a few shared contents.
async fn churn(db: Database, account: Account, seed: u64) {
    let mut own = Vec::new();
    for round in 0..25_u64 {
        let content = (seed * 7 + round * 3) % 11;
        match (round % 4, own.pop()) {
            (1, Some(old)) => match db.replace_pin(old, pin(account.id, content)).await {
                Ok(made) => own.push(made.requestid),
                Err(Error::Pin(_)) => own.push(old),
                Err(error) => panic!("{error}"),
            },
            (3, Some(old)) => db.delete_pin(account.id, old).await.unwrap(),
            (_, popped) => {
                own.extend(popped);
                match db.add_pin(pin(account.id, content)).await {
                    Ok(made) => own.push(made.requestid),
                    Err(Error::Pin(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// Fetches, fails and loses what it is given.
async fn serve(db: Database, mut node: FakeNode, rounds: u64) {
    for round in 0..rounds {
        node.pull(&db).await;
        node.release(&db).await;
        let contents: Vec<i64> = node.assignments.keys().copied().collect();
        for (n, content) in (round..).zip(contents) {
            let kind = match n % 9 {
                0..=4 => stored(10_000 + content.unsigned_abs() % 1_000),
                5 => EventKind::Failed { reason: Reason::InvalidBlock, detail: "bad".into() },
                6 => EventKind::Lost { blocks: 1 },
                7 => EventKind::WantGrant { bytes: 5_000, least: 5_000 },
                _ => progress(n, Reason::Retrieving, None),
            };
            if node.say(&db, content, kind).await == Answer::Stale {
                node.assignments.remove(&content);
            }
        }
        db.run_jobs().await.unwrap();
    }
}

async fn concurrent_writers_leave_everything_sound(mut world: World) {
    world.settings.replicas_target = 2;
    let (db, one, ann) = world.with_node(200_000).await;
    let two = FakeNode::join(&db, 2, world.now()).await;
    let bob = db.create_account("bob", Some(60_000)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..6 {
        let account = if seed % 2 == 0 { ann.clone() } else { bob.clone() };
        tasks.spawn(churn(db.clone(), account, seed));
    }
    tasks.spawn(serve(db.clone(), one, 12));
    tasks.spawn(serve(db.clone(), two, 12));
    for _ in 0..5 {
        assert_sound(&db).await;
        tasks.join_next().await.unwrap().unwrap();
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    run_jobs(&db).await;
    assert_sound(&db).await;
}

/// Kubo ends with an error at an empty page with a count.
async fn lists_are_one_snapshot(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = futures::future::join_all((0..60).map(|content| db.add_pin(pin(ann.id, content)))).await;
    node.pull(&db).await;
    let reader = tokio::spawn({
        let (db, ann) = (db.clone(), ann.clone());
        async move {
            for _ in 0..100 {
                let mut filter = query(&[Status::Pinned]);
                filter.limit = 1_000;
                let page = list(&db, &ann, filter).await;
                assert_eq!(page.count, page.pins.len() as u64);
                assert!(page.pins.iter().all(|pin| pin.status == Status::Pinned));
            }
        }
    });
    for made in made.into_iter().map(Result::unwrap) {
        node.say(&db, made.content, stored(100)).await;
    }
    reader.await.unwrap();
}
