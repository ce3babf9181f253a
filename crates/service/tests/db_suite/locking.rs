//! The order of locks, on a real PostgreSQL: new pins of many accounts beside a
//! node's reports about contents that these accounts share; and everything that
//! locks more than one row, at once.
//!
//! A broken order does not fail a request: PostgreSQL ends one of the two
//! transactions after a second, and it is repeated. So the server's own counts
//! are asked for.

use std::time::Duration;

use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, Event, EventKind, Inventory};
use pinfold_service::db::{Account, Database, Error, Location};

use crate::world::*;

const ACCOUNTS: u64 = 16;
/// Contents of the reports, more than one transaction notes.
const SHARED: u64 = 64;
const ROUNDS: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_transactions_on_postgres_wait_for_each_other() {
    let world = World::postgres().await;
    let (one, mut node, _) = world.with_node(1 << 30).await;
    let two = world.open().await;
    let accounts = share(&one).await;
    node.pull(&one).await;
    tokio::join!(post(&one, &accounts, 1), post(&two, &accounts, 2), pause_and_go_on(&two, &mut node));
    assert_sound(&one).await;
    one.close().await;
    two.close().await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("made on PostgreSQL") };
    let row = counted(url, DEADLOCKS).await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0));
}

/// Makes the accounts. Each content belongs to two of them, so that contents in
/// their order have accounts in none.
async fn share(db: &Database) -> Vec<Account> {
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        accounts.push(db.create_account(&format!("account-{number}"), Some(1 << 30)).await.unwrap());
    }
    // Their numbers in the database have another order than their keys.
    for content in (0..SHARED).map(|step| step * 37 % SHARED) {
        for number in [content * 7, content * 11 + 5] {
            db.add_pin(pin(accounts[(number % ACCOUNTS) as usize].id, content)).await.unwrap();
        }
    }
    accounts
}

/// Every account adds a pin at once, again and again.
async fn post(db: &Database, accounts: &[Account], process: u64) {
    for round in 0..ROUNDS {
        let content = |account: &Account| 1_000_000 * process + 1_000 * round + account.id.unsigned_abs();
        let adding = accounts.iter().map(|account| db.add_pin(pin(account.id, content(account))));
        for added in futures::future::join_all(adding).await {
            added.unwrap();
        }
    }
}

/// Every fetch pauses, and goes on: both change what the accounts have turns
/// for.
async fn pause_and_go_on(db: &Database, node: &mut FakeNode) {
    let contents: Vec<i64> = node.assignments.keys().copied().collect();
    assert_eq!(contents.len() as u64, SHARED);
    for round in 0..ROUNDS {
        let next_attempt = (round % 2 == 0).then_some(START + HOUR);
        let event = |&content: &i64| node.event(content, progress(round, Reason::NoProviders, next_attempt));
        let events: Vec<Event> = contents.iter().rev().map(event).collect();
        node.report(db, events).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_locks_rows_of_postgres_does_so_in_one_order() {
    let mut world = World::postgres().await;
    world.settings.max_pinning = 4;
    world.settings.replicas_target = 2;
    world.settings.repair_after = Duration::from_secs(3600);
    let (one, ann, _) = world.with_node(1 << 30).await;
    let bob = FakeNode::join(&one, 2, world.now()).await;
    let two = world.open().await;
    let accounts = share(&one).await;
    let removed = one.create_account("removed", Some(1 << 30)).await.unwrap();
    for content in (0..SHARED).rev() {
        one.add_pin(pin(removed.id, content)).await.unwrap();
    }
    tokio::join!(
        churn(&one, &accounts, 1),
        churn(&two, &accounts, 2),
        serve(&one, ann),
        serve(&two, bob),
        work(&world, &one),
        work(&world, &two),
        judge(&one, 1),
        judge(&two, 2),
        async { two.remove_account(removed.id).await.unwrap() },
    );
    run_jobs(&one).await;
    assert_sound(&one).await;
    one.close().await;
    two.close().await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("made on PostgreSQL") };
    assert_eq!(counted(url, DEADLOCKS).await.get::<_, i64>(0), 0);
}

/// Every account pins, replaces and removes what all of them share.
async fn churn(db: &Database, accounts: &[Account], seed: u64) {
    let each = accounts.iter().map(|account| churn_one(db, account, seed + account.id.unsigned_abs()));
    futures::future::join_all(each).await;
}

async fn churn_one(db: &Database, account: &Account, seed: u64) {
    let mut own = Vec::new();
    for round in 0..ROUNDS {
        let wanted = pin(account.id, (seed * 11 + round * 29) % SHARED);
        let done = match (round % 4, own.pop()) {
            (1 | 2, Some(old)) => db.replace_pin(old, wanted).await.map(Some),
            (3, Some(old)) => db.delete_pin(account.id, old).await.map(|()| None),
            _ => db.add_pin(wanted).await.map(Some),
        };
        match done {
            Ok(made) => own.extend(made.map(|made| made.requestid)),
            Err(Error::Pin(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Pulls, reports and compares at once, as a node does.
async fn serve(db: &Database, mut node: FakeNode) {
    let (mut reports, mut inventories) = (node.channel(), node.channel());
    for round in 0..ROUNDS {
        let events = events(&mut node, round);
        let mut held: Vec<AllocationId> =
            node.assignments.values().map(|assignment| assignment.allocation).collect();
        held.retain(|id| id.content % 5 != 0);
        // What the database does not know.
        held.extend((0..4).map(|n| AllocationId { content: (1 << 50) + n, generation: 1 }));
        let inventory = db.inventory(inventories.request(), Inventory { after: 0, held });
        let (_, _, compared) = tokio::join!(node.pull_once(db), reports.report(db, events), inventory);
        compared.unwrap();
    }
}

/// Something about everything that the node knows.
fn events(node: &mut FakeNode, round: u64) -> Vec<Event> {
    let kind = |content: i64| match (content.unsigned_abs() + round) % 8 {
        0 | 1 => stored(10_000 + content.unsigned_abs() % 1_000),
        2 => EventKind::Failed { reason: Reason::InvalidBlock, detail: "bad".into() },
        3 => EventKind::Lost { blocks: 1 },
        4 => EventKind::WantGrant { bytes: 5_000, least: 5_000 },
        5 => EventKind::NoCapacity,
        6 => progress(round, Reason::NoProviders, Some(START + HOUR)),
        _ => progress(round, Reason::Retrieving, None),
    };
    let strays = (0..4).map(|n| AllocationId { content: (1 << 50) + n, generation: 1 });
    let gone = std::mem::take(&mut node.releases).into_iter().chain(strays);
    let gone = gone.map(|allocation| Event { allocation, kind: EventKind::Released });
    let known = node.assignments.values().map(|assignment| assignment.allocation);
    let known = known.map(|allocation| Event { allocation, kind: kind(allocation.content) });
    // In no order of the database's.
    known.chain(gone).collect::<Vec<_>>().into_iter().rev().collect()
}

/// The jobs, while hours pass: deadlines, placement, repair, turns, removal.
async fn work(world: &World, db: &Database) {
    for _ in 0..ROUNDS {
        world.pass(HOUR);
        db.run_jobs().await.unwrap();
    }
}

/// Denies a half of the contents and allows them again, lets strays go, and
/// has the queue tried again.
async fn judge(db: &Database, seed: usize) {
    for round in 0..ROUNDS as usize {
        let held = db.held_contents(0, 1_000).await.unwrap();
        let some: Vec<i64> = held.iter().rev().skip(seed + round).step_by(2).map(|held| held.id).collect();
        db.deny(&some).await.unwrap();
        db.lift(&some).await.unwrap();
        match db.release_strays().await {
            Ok(_) | Err(Error::Invalid(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let waiting = db.queue(0, 4).await.unwrap();
        let mut waiting: Vec<i64> = waiting.iter().map(|entry| entry.allocation.content).collect();
        if seed.is_multiple_of(2) {
            waiting.reverse();
        }
        db.retry(&waiting).await.unwrap();
        let mut rules: Vec<String> = (0..8).map(|n| format!("/ipfs/bafyrule{round}x{n}")).collect();
        if seed.is_multiple_of(2) {
            rules.reverse();
        }
        db.add_denylist_rules(rules).await.unwrap();
    }
}

const DEADLOCKS: &str =
    "SELECT deadlocks, xact_rollback FROM pg_stat_database WHERE datname = current_database()";

/// What the server counted in this database, once its sessions have ended and
/// told what they counted.
pub(crate) async fn counted(url: &str, sql: &str) -> tokio_postgres::Row {
    let (client, connection) = crate::cluster::connect(url).await;
    let connection = tokio::spawn(connection);
    let others = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    let row = client.query_one(sql, &[]).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    row
}
