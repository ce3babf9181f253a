//! Rows about pins: how fast they are accepted, and listed.

use std::time::Duration;

use anyhow::Result;
use pinfold_e2e::{pinfold::Pinfold, place::Place};

use crate::{
    load::{Target, Times},
    meter::{Meter, client_cpu},
    scale::Scale,
    table::{Side, Table, median},
};

/// Pins a round of `POST /pins` makes.
pub(crate) const POSTS: u64 = 20_000;
/// Connections at once, as the rows name them.
pub(crate) const CONNECTIONS: [usize; 2] = [8, 32];
/// Pins of the account that is listed.
pub(crate) const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Connections that fill an account before it is listed.
pub(crate) const FILLERS: usize = 32;
/// Pages read for each figure.
pub(crate) const PAGES: usize = 500;
/// No page is asked for after this time.
pub(crate) const PAGES_LIMIT: Duration = Duration::from_secs(60);
/// The page that is asked for.
pub(crate) const PAGE: &str = "limit=10&status=queued,pinning";
/// How pins that nobody can fetch are kept from being refused.
pub(crate) const QUEUE: &[&str] = &["--max-queued", "2000000"];

/// `POST /pins`, durable before the answer, in one account.
pub(crate) async fn post(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let target = Target::of(&pinfold);
    for connections in CONNECTIONS {
        let (mut side, client) = (Side::default(), client_cpu()?);
        for _ in 0..scale.rounds {
            round(&target, pinfold.parts[0].process(), scale.of(POSTS), connections, &mut side).await?;
        }
        let client = (client_cpu()? - client) / scale.rounds as f64;
        let per = 10_000.0 / scale.of(POSTS) as f64;
        let result = format!(
            "{:.0}/s (median of {}), {:.1} CPU s per 10,000 (the client's: {:.1})",
            median(&side.rates),
            scale.rounds,
            median(&side.cpu) * per,
            client * per
        );
        table.alone(&format!("`POST /pins`, {connections} connections, SQLite"), &result);
    }
    Ok(())
}

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

/// The first page of an account, and one in the middle.
pub(crate) async fn list(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let target = Target::of(&pinfold);
    for size in SIZES.map(|size| scale.of(size)) {
        let [first, middle] = pages(&target, size).await?;
        for (page, times) in [("first page", first), ("a page in the middle", middle)] {
            table.alone(&format!("`GET /pins?limit=10` of {size} pins, {page}, SQLite"), &times.text());
        }
    }
    Ok(())
}

/// Brings an account to `size` pins, and times its first page and one behind
/// as many pins as before it.
pub(crate) async fn pages(target: &Target, size: u64) -> Result<[Times; 2]> {
    target.post((size / 2).saturating_sub(target.made()), FILLERS).await?;
    let middle = format!("{PAGE}&before={}", target.newest().await?);
    target.post(size.saturating_sub(target.made()), FILLERS).await?;
    Ok([target.list(PAGE, PAGES, PAGES_LIMIT).await?, target.list(&middle, PAGES, PAGES_LIMIT).await?])
}
