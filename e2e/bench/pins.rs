//! Rows about pins: how fast they are accepted, and listed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Result;
use cid::{Cid, multihash::Multihash};
use pinfold_e2e::{api::Api, pinfold::Pinfold, place::Place};
use sha2::{Digest, Sha256};

use crate::{
    meter::Meter,
    table::{Side, Table, median},
};

/// Pins a round of `POST /pins` makes.
const POSTS: u64 = 20_000;
/// Connections at once, as the rows name them.
const CONNECTIONS: [u64; 2] = [8, 32];
/// Pins of the account that is listed.
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Pages read for each figure.
const PAGES: usize = 500;
/// How pins that nobody can fetch are kept from being refused.
const QUEUE: &[&str] = &["--max-queued", "2000000"];

/// `POST /pins`, durable before the answer, in one account.
pub(crate) async fn post(place: &Place, rounds: u64, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let next = Arc::new(AtomicU64::new(0));
    for connections in CONNECTIONS {
        let mut side = Side::default();
        for _ in 0..rounds {
            let meter = Meter::start(pinfold.parts[0].process())?;
            fill(&pinfold.api()?, &next, POSTS, connections).await?;
            side.note(POSTS as f64, meter.read()?, None);
        }
        let result = format!(
            "{:.0}/s (median of {rounds}), {:.1} CPU s per 10,000",
            median(&side.rates),
            median(&side.cpu) * 10_000.0 / POSTS as f64
        );
        table.alone(&format!("`POST /pins`, {connections} connections, SQLite"), &result);
    }
    Ok(())
}

/// `GET /pins?limit=10&status=…`, the first page and one in the middle.
pub(crate) async fn list(place: &Place, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let api = pinfold.api()?;
    let next = Arc::new(AtomicU64::new(0));
    for size in SIZES {
        let missing = size - next.load(Ordering::Relaxed);
        fill(&api, &next, missing / 2, 32).await?;
        let middle = format!("&before={}", newest(&api).await?);
        fill(&api, &next, missing - missing / 2, 32).await?;
        for (page, filter) in [("first page", ""), ("a page in the middle", middle.as_str())] {
            let mut times = Vec::with_capacity(PAGES);
            for _ in 0..PAGES {
                let begun = Instant::now();
                api.list(&format!("limit=10&status=queued,pinning{filter}")).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            let p99 = times[PAGES * 99 / 100];
            let result = format!("p50 {:.2} ms, p99 {p99:.2} ms", median(&times));
            table.alone(&format!("`GET /pins?limit=10` of {size} pins, {page}, SQLite"), &result);
        }
    }
    Ok(())
}

/// When the newest pin was made, as the API writes it.
async fn newest(api: &Api) -> Result<String> {
    Ok(api.add_cid("bafkqaaa").await?.created)
}

/// Makes `count` pins of CIDs that nobody has.
async fn fill(api: &Api, next: &Arc<AtomicU64>, count: u64, connections: u64) -> Result<()> {
    let end = next.load(Ordering::Relaxed) + count;
    let workers = (0..connections).map(|_| {
        let (api, next) = (api.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok(());
                }
                api.add_cid(&cid(number)).await?;
            }
        })
    });
    let workers: Vec<tokio::task::JoinHandle<Result<()>>> = workers.collect();
    for worker in workers {
        worker.await??;
    }
    next.store(end, Ordering::Relaxed);
    Ok(())
}

/// The CID of a block that nobody has.
fn cid(number: u64) -> String {
    let digest = Sha256::digest(number.to_be_bytes());
    let hash = Multihash::<64>::wrap(0x12, &digest).expect("32 bytes fit into 64");
    Cid::new_v1(0x55, hash).to_string()
}
