//! Rows about pins: how fast they are accepted, and listed.

use std::time::Duration;

use anyhow::Result;
use pinfold_e2e::{pinfold::Pinfold, place::Place};

use crate::{
    load::{Content, Target, Times},
    meter::Meter,
    scale::Scale,
    table::{Side, Table},
};

/// Pins a round of `POST /pins` makes.
pub(crate) const POSTS: u64 = 20_000;
/// Connections at once, as the rows name them.
pub(crate) const CONNECTIONS: [usize; 2] = [8, 32];
/// Pins of the account that is listed.
pub(crate) const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Connections that fill an account before it is listed.
pub(crate) const FILLERS: usize = 32;
/// What is read of an account.
pub(crate) const PAGES: [&str; 3] =
    ["first page", "a page in the middle", "first page of the one in a hundred that is pinned"];
/// What a page is to take.
pub(crate) const LIST_GOAL: &str = "p50 2 ms; p99 of 1M twice that of 10,000, or 5 ms";
/// How often a page is read for each figure.
pub(crate) const TIMES: usize = 500;
/// No page is asked for after this time.
pub(crate) const TIMES_LIMIT: Duration = Duration::from_secs(60);
/// The page that is asked for.
pub(crate) const PAGE: &str = "limit=10&status=queued,pinning";
/// A page of a status that few have.
const RARE: &str = "limit=10&status=pinned";
/// How pins that nobody can fetch are kept from being refused.
pub(crate) const QUEUE: &[&str] = &["--max-queued", "2000000"];

/// Makes `count` pins and notes what that took.
pub(crate) async fn round(
    target: &Target,
    process: Option<u32>,
    count: u64,
    connections: usize,
    side: &mut Side,
) -> Result<()> {
    let meter = Meter::start(process)?;
    let seconds = target.post(count, connections).await?;
    let mut reading = meter.read()?;
    reading.seconds = seconds;
    side.note(count as f64, reading, None);
    Ok(())
}

/// Pages of an account of which one pin of a hundred is pinned.
pub(crate) async fn list(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let target = Target::of(&pinfold).with(Content::Mixed);
    for size in SIZES.map(|size| scale.of(size)) {
        for (page, times) in PAGES.iter().zip(pages(&target, size).await?) {
            let name = format!("`GET /pins?limit=10` of {size} pins, {page}, SQLite");
            table.alone(&name, &times.text(), LIST_GOAL);
        }
    }
    Ok(())
}

/// Brings an account to `size` pins, and times its [`PAGES`].
pub(crate) async fn pages(target: &Target, size: u64) -> Result<[Times; 3]> {
    target.post((size / 2).saturating_sub(target.made()), FILLERS).await?;
    let middle = format!("{PAGE}&before={}", target.newest().await?);
    target.post(size.saturating_sub(target.made()), FILLERS).await?;
    Ok([
        target.list(PAGE, TIMES, TIMES_LIMIT).await?,
        target.list(&middle, TIMES, TIMES_LIMIT).await?,
        target.list(RARE, TIMES, TIMES_LIMIT).await?,
    ])
}
