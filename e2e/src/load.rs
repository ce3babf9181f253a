//! Connections that post pins without a pause while a test takes something
//! away from the service, and a count of what was acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    data::raw_cid,
    http::Connection,
    pinfold::Pinfold,
    storm::{Book, Fate},
    wait::eventually,
};

/// Pins that each connection makes at most: many times what a test takes, and
/// few enough to be listed.
const MOST: usize = 10_000;

/// The longest that a wait takes.
const MOVES: Duration = Duration::from_secs(60);

/// What all connections share.
#[derive(Debug, Default)]
pub struct Load {
    done: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    /// Waits until so many more pins were acknowledged.
    ///
    /// # Errors
    /// When they are not.
    pub async fn move_on(&self, pins: u64, what: &str) -> Result<()> {
        Self::reach(&self.acknowledged, pins, what).await
    }

    /// Waits until so many more requests were refused.
    ///
    /// # Errors
    /// When they are not.
    pub async fn refused(&self, requests: u64, what: &str) -> Result<()> {
        Self::reach(&self.refused, requests, what).await
    }

    async fn reach(count: &AtomicU64, more: u64, what: &str) -> Result<()> {
        let goal = count.load(Ordering::Relaxed) + more;
        eventually(what, MOVES, async || {
            let now = count.load(Ordering::Relaxed);
            ensure!(now >= goal, "{now} of {goal} requests are counted");
            Ok(Some(()))
        })
        .await
    }
}

/// Posts on so many connections while `work` goes on, and answers what was
/// acknowledged.
///
/// # Errors
/// That of `work`, or of an answer that is neither 202 nor 503.
pub async fn under_load(
    pinfold: &Pinfold,
    connections: u64,
    work: impl AsyncFnOnce(&Load) -> Result<()>,
) -> Result<Book> {
    let load = Arc::new(Load::default());
    let mut posting = JoinSet::new();
    for number in 0..connections {
        posting.spawn(post(pinfold.endpoint.clone(), pinfold.token.clone(), number, load.clone()));
    }
    let mut book = Book::new();
    tokio::select! {
        worked = work(&load) => worked?,
        // None ends before it is told, but by an error.
        Some(posted) = posting.join_next() => book.extend(posted.context("a client panicked")??),
    }
    load.done.store(true, Ordering::Relaxed);
    while let Some(posted) = posting.join_next().await {
        book.extend(posted.context("a client panicked")??);
    }
    println!("{} pins are acknowledged, {:?} requests were refused", book.len(), load.refused);
    Ok(book)
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
    raw_cid(&digest)
}
