//! Requests by the ten thousand, from a client that costs little.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use cid::{Cid, multihash::Multihash};
use pinfold_e2e::{cluster::Cluster, http::Connection, pinfold::Pinfold};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::table::median;

/// Codes of raw blocks, of SHA-256, and of data that is its own name.
const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;
const IDENTITY: u64 = 0x00;

/// What is pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    /// Blocks that nobody has, so that nothing but the request costs time.
    Nowhere,
    /// Small data within the CID, pinned without any peer.
    Inline,
    /// Of a hundred one inline, the others nowhere: a filter for the rare
    /// status shows whether a list scans.
    Mixed,
}

/// Of how many pins with mixed content one is inline.
const MIXED: u64 = 100;

impl Content {
    fn cid(self, number: u64) -> String {
        let hash = match self {
            Self::Mixed if number.is_multiple_of(MIXED) => return Self::Inline.cid(number),
            Self::Nowhere | Self::Mixed => {
                Multihash::<64>::wrap(SHA2_256, &Sha256::digest(number.to_be_bytes()))
            }
            Self::Inline => Multihash::<64>::wrap(IDENTITY, format!("content {number}").as_bytes()),
        };
        Cid::new_v1(RAW, hash.expect("32 bytes fit into 64")).to_string()
    }
}

/// One side of a row: where requests go, as whom, and how many pins there are.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    endpoint: String,
    tokens: Vec<String>,
    content: Content,
    made: Arc<AtomicU64>,
}

/// Times of one request after another, in milliseconds, sorted.
#[derive(Debug)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn p50(&self) -> f64 {
        median(&self.0)
    }

    pub(crate) fn text(&self) -> String {
        let p99 = self.0[(self.0.len() * 99 / 100).min(self.0.len() - 1)];
        format!("p50 {:.2} ms, p99 {p99:.2} ms", self.p50())
    }
}

impl Target {
    /// A Pinfold, as the account of its first token.
    pub(crate) fn of(pinfold: &Pinfold) -> Self {
        Self::new(&pinfold.endpoint, vec![pinfold.token.clone()])
    }

    pub(crate) fn cluster(cluster: &Cluster) -> Self {
        Self::new(&cluster.endpoint, vec![cluster.token.clone()])
    }

    pub(crate) fn new(endpoint: &str, tokens: Vec<String>) -> Self {
        let made = Arc::new(AtomicU64::new(0));
        Self { endpoint: endpoint.to_owned(), tokens, content: Content::Nowhere, made }
    }

    pub(crate) fn with(self, content: Content) -> Self {
        Self { content, ..self }
    }

    /// Pins that were made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Makes `count` pins over so many connections, the accounts in turn.
    /// Returns the seconds from the first request to the last answer.
    pub(crate) async fn post(&self, count: u64, connections: usize) -> Result<f64> {
        let end = self.made() + count;
        let mut opened = Vec::with_capacity(connections);
        for _ in 0..connections {
            opened.push(Connection::open(&self.endpoint, &self.tokens[0]).await?);
        }
        let begun = Instant::now();
        let mut workers = JoinSet::new();
        for connection in opened {
            workers.spawn(self.clone().work(connection, end));
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        self.made.store(end, Ordering::Relaxed);
        Ok(begun.elapsed().as_secs_f64())
    }

    async fn work(self, mut connection: Connection, end: u64) -> Result<()> {
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Ok(());
            }
            connection.become_account(&self.tokens[number as usize % self.tokens.len()]);
            let body = format!("{{\"cid\":\"{}\"}}", self.content.cid(number));
            let answer = connection.send("POST", "/pins", Some(&body)).await?;
            ensure!(
                (200..300).contains(&answer.status),
                "POST /pins answered {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
    }

    /// Reads one page `times` times, one request after another, and at least
    /// one; no new one is begun after `limit`.
    pub(crate) async fn list(&self, query: &str, times: usize, limit: Duration) -> Result<Times> {
        let mut connection = Connection::open(&self.endpoint, &self.tokens[0]).await?;
        let path = format!("/pins?{query}");
        let mut taken = Vec::with_capacity(times);
        let all = Instant::now();
        while taken.is_empty() || (taken.len() < times && all.elapsed() < limit) {
            let begun = Instant::now();
            let answer = connection.send("GET", &path, None).await?;
            taken.push(begun.elapsed().as_secs_f64() * 1e3);
            ensure!(answer.status == 200, "GET {path} answered {}", answer.status);
        }
        taken.sort_by(f64::total_cmp);
        Ok(Times(taken))
    }

    /// When the newest pin was made, as the API writes it.
    pub(crate) async fn newest(&self) -> Result<String> {
        let mut connection = Connection::open(&self.endpoint, &self.tokens[0]).await?;
        let path = "/pins?limit=1&status=queued,pinning,pinned,failed";
        let page: serde_json::Value =
            serde_json::from_slice(&connection.send("GET", path, None).await?.body)?;
        Ok(page["results"][0]["created"].as_str().context("there is no pin")?.to_owned())
    }
}
