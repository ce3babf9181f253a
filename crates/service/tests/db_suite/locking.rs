//! The order of locks, on a real PostgreSQL: new pins of many accounts beside a
//! node's reports about contents that these accounts share.
//!
//! A broken order does not fail a request: PostgreSQL ends one of the two
//! transactions after a second, and it is repeated. So the server's own counts
//! are asked for.

use pinfold_core::status::Reason;
use pinfold_node_api::Event;
use pinfold_service::db::{Account, Database, Location};

use crate::world::*;

const ACCOUNTS: u64 = 16;
/// Contents of the reports, more than one transaction notes.
const SHARED: u64 = 64;
const ROUNDS: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_transactions_wait_for_each_other() {
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
    assert_eq!(deadlocks_and_rollbacks(url).await, (0, 0));
}

/// Makes the accounts. Each content belongs to two of them, so that contents in
/// their order have accounts in none.
async fn share(db: &Database) -> Vec<Account> {
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        accounts.push(db.create_account(&format!("account-{number}"), Some(1 << 30)).await.unwrap());
    }
    for content in 0..SHARED {
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

/// What the server counted in this database, once its sessions have ended and
/// told what they counted.
async fn deadlocks_and_rollbacks(url: &str) -> (i64, i64) {
    let (client, connection) = crate::cluster::connect(url).await;
    let connection = tokio::spawn(connection);
    let others = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    let counted = "SELECT deadlocks, xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let row = client.query_one(counted, &[]).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    (row.get(0), row.get(1))
}
