//! The row of what a store occupies after half of its pins are gone.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use pinfold_e2e::{
    api::PinStatus,
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::{Place, text},
    wait::eventually,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{scale::Scale, table::Table};

/// Chunk sizes in bytes, the bytes of each file, how many files there are,
/// and the most that the store may occupy over its live bytes.
const CASES: [(usize, usize, u64, f64); 2] =
    [(256 << 10, 4 << 20, 400, 1.10), (2 << 10, 256 << 10, 2_000, 1.20)];

/// Unpinned blocks are removed soon, where an hour is the default; not at once,
/// since a fetch that pauses would lose what it has.
const SOON: &[&str] = &["--reclaim-after", "5s"];

/// Pins that a page of the list has.
const PAGE: u32 = 1_000;

/// Requests at a time.
const CLIENTS: usize = 16;

/// How long fetching may take, and reclaiming.
const LIMIT: Duration = Duration::from_secs(600);

/// The bytes on disk over those of the blocks that are pinned.
pub(crate) async fn row(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    for (chunk, length, files, target) in CASES {
        case(place, chunk, length, scale.of(files).max(8), target, table).await?;
    }
    Ok(())
}

async fn case(
    place: &Place,
    chunk: usize,
    length: usize,
    files: u64,
    target: f64,
    table: &mut Table,
) -> Result<()> {
    let pinfold = Pinfold::up(place, &format!("pinfold-{chunk}"), SOON).await?;
    let api = pinfold.api()?;
    let pins = fill(place, &pinfold, chunk, length, files).await?;
    let store = pinfold.data().join("node/blocks");
    let before = occupied(&store)?;
    // Every second one, so that what lives and what dies lie side by side.
    let (gone, kept): (Vec<_>, Vec<_>) = pins.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let gone = gone.into_iter().map(|(_, pin)| pin.requestid).collect();
    each(gone, |id: String| {
        let api = api.clone();
        async move { api.delete(&id).await }
    })
    .await?;
    let live = kept.iter().map(|(_, pin)| bytes(pin)).sum::<Result<u64>>()?;
    let ratio = |occupied: u64| occupied as f64 / live as f64;
    let after = settled(&store, live, target).await?;
    let kib = chunk >> 10;
    table.alone(
        &format!("store after half of {files} roots of {kib} KiB blocks is unpinned"),
        &format!(
            "{:.3}x the live bytes on disk ({:.1} of {:.1} MiB; {:.1} MiB before)",
            ratio(after),
            mebibytes(after),
            mebibytes(live),
            mebibytes(before)
        ),
        &format!("{target:.2}x"),
    );
    Ok(())
}

/// Pins files of their own blocks, in a random order on disk as they arrive.
async fn fill(
    place: &Place,
    pinfold: &Pinfold,
    chunk: usize,
    length: usize,
    files: u64,
) -> Result<Vec<PinStatus>> {
    let origin = Kubo::start(place, &format!("origin-{chunk}")).await?;
    let folder = place.folder(&format!("files-{chunk}"))?;
    data::folder(&folder, chunk as u64, usize::try_from(files)?, length)?;
    let chunker = format!("--chunker=size-{chunk}");
    let folder = text(&folder)?;
    let added = ["add", "-r", "--cid-version=1", "--raw-leaves", &chunker, folder];
    let added = origin.ipfs_within(&added, LIMIT).await?;
    let origins = origin.addresses().await?;
    let roots = added.lines().filter_map(file).map(|root| json!({ "cid": root, "origins": origins }));
    let api = pinfold.api()?;
    let roots: Vec<_> = roots.collect();
    ensure!(roots.len() as u64 == files, "Kubo added {} files of {files}", roots.len());
    each(roots, |root| {
        let api = api.clone();
        async move { api.add(root).await.map(drop) }
    })
    .await?;
    eventually("every file to be pinned", LIMIT, async || {
        let pinned = api.list("status=pinned&limit=1").await?.count;
        ensure!(pinned == files, "{pinned} of {files} are");
        Ok(Some(()))
    })
    .await?;
    api.all("status=pinned", PAGE).await
}

/// The CID in a line of `ipfs add` that is about a file.
fn file(line: &str) -> Option<&str> {
    let (cid, path) = line.strip_prefix("added ")?.split_once(' ')?;
    path.contains("/file ").then_some(cid)
}

/// Sends one request for each item, [`CLIENTS`] at a time.
async fn each<T, F>(items: Vec<T>, work: impl Fn(T) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for item in items {
        if tasks.len() >= CLIENTS {
            tasks.join_next().await.context("a task runs")???;
        }
        tasks.spawn(work(item));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn bytes(pin: &PinStatus) -> Result<u64> {
    let bytes = pin.info.get("bytes").with_context(|| format!("a pinned pin tells no bytes: {pin:?}"))?;
    Ok(bytes.parse()?)
}

/// What the store occupies once reclaiming has done its work: as soon as the
/// target is met, or after [`SETTLED`] without a change.
async fn settled(store: &Path, live: u64, target: f64) -> Result<u64> {
    let mut last = (occupied(store)?, 0);
    eventually("the store to be reclaimed", LIMIT, async || {
        let now = occupied(store)?;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        let met = now as f64 <= live as f64 * target;
        Ok((last.1 >= if met { SETTLED / 4 } else { SETTLED }).then_some(now))
    })
    .await
}

/// Looks without a change after which nothing more is expected; 20 a second.
const SETTLED: u32 = 600;

/// Bytes on disk of everything below a folder.
fn occupied(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    let Ok(entries) = fs::read_dir(folder) else { return Ok(0) };
    for entry in entries.flatten() {
        // Files come and go while this looks.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += occupied(&entry.path())?;
        }
    }
    Ok(sum)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
