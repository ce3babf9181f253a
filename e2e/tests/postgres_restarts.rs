//! PostgreSQL is restarted in every way while clients keep sending: what was
//! acknowledged is there, and the service finds its database again by itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cid::{Cid, multihash::Multihash};
use pinfold_e2e::{
    crash::books,
    http::Connection,
    pinfold::Pinfold,
    place::Place,
    postgres::Postgres,
    recount::recount,
    scenario::FETCH,
    storm::{Book, Fate, compare},
    test_within,
    wait::eventually,
};
use serde_json::Value;
use tokio::task::JoinSet;

/// Connections that post without a pause.
const CONNECTIONS: u64 = 16;

/// Pins that are acknowledged before each restart, and after it.
const BETWEEN: u64 = 300;

/// Pins that each connection makes at most: many times what the restarts take,
/// and few enough to be listed.
const MOST: usize = 10_000;

/// Times that each way of stopping is gone through.
const TURNS: u32 = 2;

/// The longest that the test takes.
const LIMIT: Duration = Duration::from_secs(300);

/// What all connections share.
#[derive(Debug, Default)]
struct Load {
    done: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more pins were acknowledged.
    async fn move_on(&self, what: &str) -> Result<()> {
        let goal = self.acknowledged() + BETWEEN;
        eventually(what, FETCH, async || {
            let now = self.acknowledged();
            ensure!(
                now >= goal,
                "{now} of {goal} pins are acknowledged, {:?} requests refused",
                self.refused
            );
            Ok(Some(()))
        })
        .await
    }
}

/// Posts until it is told to end, and returns what was acknowledged. While
/// the database is away an answer is 503: try again; nothing else is right.
async fn post(endpoint: String, token: String, number: u64, load: Arc<Load>) -> Result<Book> {
    let mut book = Book::new();
    let mut connection = Connection::open(&endpoint, &token).await?;
    for turn in 0_u64.. {
        if load.done.load(Ordering::Relaxed) || book.len() >= MOST {
            break;
        }
        let cid = nowhere(number, turn);
        let answer = connection.send("POST", "/pins", Some(&format!("{{\"cid\":\"{cid}\"}}"))).await;
        let answer = answer.context("the service itself never went away")?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        if answer.status == 202 {
            let id = body["requestid"].as_str().context("a pin has a requestid")?.to_owned();
            ensure!(book.insert(id, (cid, Fate::Held)).is_none(), "a requestid was given twice");
            load.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            ensure!(answer.status == 503, "POST /pins answered {}: {body}", answer.status);
            load.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(book)
}

/// The CID of a block that nobody has.
fn nowhere(number: u64, turn: u64) -> String {
    let mut digest = [9; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    digest[8..16].copy_from_slice(&turn.to_be_bytes());
    Cid::new_v1(0x55, Multihash::<64>::wrap(0x12, &digest).expect("32 bytes fit")).to_string()
}

/// Every way of stopping, under load.
async fn restart(server: &mut Postgres, load: &Load) -> Result<()> {
    for turn in 0..TURNS {
        load.move_on("pins before a restart").await?;
        server.stop().await.with_context(|| format!("fast, turn {turn}"))?;
        server.resume().await?;
        load.move_on("pins after a fast restart").await?;
        server.stop_at_once().await.with_context(|| format!("immediate, turn {turn}"))?;
        server.resume().await?;
        load.move_on("pins after an immediate stop").await?;
        server.kill().await?;
        server.resume().await?;
        load.move_on("pins after a kill").await?;
    }
    Ok(())
}

async fn under_load(place: &Place, server: &mut Postgres) -> Result<(Pinfold, Book)> {
    let url = server.url();
    let pinfold = Pinfold::up(place, "pinfold", &["--database", &url]).await?;
    let load = Arc::new(Load::default());
    let mut posting = JoinSet::new();
    for number in 0..CONNECTIONS {
        posting.spawn(post(pinfold.endpoint.clone(), pinfold.token.clone(), number, load.clone()));
    }
    let mut book = Book::new();
    tokio::select! {
        restarted = restart(server, &load) => restarted?,
        // None ends before it is told, but by an error.
        Some(posted) = posting.join_next() => book.extend(posted.context("a client panicked")??),
    }
    load.done.store(true, Ordering::Relaxed);
    while let Some(posted) = posting.join_next().await {
        book.extend(posted.context("a client panicked")??);
    }
    println!("{} pins are acknowledged, {:?} requests were refused", book.len(), load.refused);
    Ok((pinfold, book))
}

#[test]
fn postgres_restarts_under_load_and_every_acknowledged_pin_is_there() {
    test_within(LIMIT, async |place| {
        let mut server = Postgres::start(place, "database").await?;
        let (mut pinfold, book) = under_load(place, &mut server).await?;
        compare(&pinfold.api()?, &book).await?;
        pinfold.stop().await?;
        recount(&books(place, &pinfold, Some(&server)).await?, &BTreeMap::new())
    });
}
