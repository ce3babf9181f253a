//! What keeps the store healthy in the background: blocks that nothing refers
//! to are removed, all blocks are reread from time to time, and those found
//! damaged are fetched again.

use std::collections::HashSet;
use std::time::Duration;

use pinfold_blockstore::{Multihash, Store};
use pinfold_core::content::ContentKey;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assignments::{self, Assignments, Record, State};
use crate::fetch::{Command, Manager, Workers};

/// How often the store is asked whether blocks were found damaged.
const LOST_EVERY: Duration = Duration::from_secs(2);

/// Lost blocks looked after at a time; each costs memory while the lists of
/// the roots are read.
const MAX_LOST: usize = 4_096;

/// Records of contents read at a time.
const PAGE: usize = 256;

/// Why lost roots are not known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Assignments(#[from] assignments::Error),
    #[error(transparent)]
    Store(#[from] pinfold_blockstore::Error),
}

/// How often, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    pub(crate) reclaim_every: Duration,
    /// 0 for never.
    pub(crate) scrub_bytes_per_second: u64,
    pub(crate) scrub_pause: Duration,
}

/// Starts the background tasks; they end when `cancel` says so.
pub(crate) fn start(
    store: &Store,
    assignments: &Assignments,
    manager: &Manager,
    workers: &Workers,
    rhythm: Rhythm,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) {
    tasks.spawn(reclaim(store.clone(), rhythm.reclaim_every, cancel.clone()));
    if rhythm.scrub_bytes_per_second > 0 {
        tasks.spawn(scrub(store.clone(), rhythm, cancel.clone()));
    }
    let lost = mend(store.clone(), assignments.clone(), manager.clone(), workers.clone());
    let cancel = cancel.clone();
    tasks.spawn(async move { cancel.run_until_cancelled(lost).await });
}

async fn reclaim(store: Store, every: Duration, cancel: CancellationToken) {
    while pause(every, &cancel).await {
        let (store, stop) = (store.clone(), cancel.clone());
        let work = move || store.reclaim(|| stop.is_cancelled());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) if done.blocks > 0 || done.segments > 0 => {
                let (blocks, bytes, segments) = (done.blocks, done.block_bytes, done.segments);
                tracing::info!(blocks, bytes, segments, "unreferenced blocks were removed");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "unreferenced blocks cannot be removed; tried again later");
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

async fn scrub(store: Store, rhythm: Rhythm, cancel: CancellationToken) {
    while pause(rhythm.scrub_pause, &cancel).await {
        let (store, stop) = (store.clone(), cancel.clone());
        // A large store takes longer than a node often runs: each time it
        // begins somewhere among the SHA-256 blocks, which nearly all are.
        let mut from = vec![0x12, 0x20];
        from.extend(rand::random::<[u8; 8]>());
        let rate = rhythm.scrub_bytes_per_second;
        let work = move || store.scrub_from(&from, rate, || stop.is_cancelled());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => {
                tracing::info!(
                    blocks = done.blocks,
                    bytes = done.bytes,
                    lost = done.lost,
                    "blocks were reread"
                );
            }
            Ok(Err(error)) => tracing::error!(%error, "the blocks cannot be reread; tried again later"),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Waits, unless it is time to end.
async fn pause(time: Duration, cancel: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = cancel.cancelled() => false,
    }
}

/// Tells the manager whose blocks were lost, those of earlier runs included.
async fn mend(store: Store, assignments: Assignments, manager: Manager, workers: Workers) {
    let look = store.clone();
    match workers.run(move || lost_roots(&look, &assignments)).await {
        Ok(roots) => {
            for root in roots {
                manager.send(Command::Lost(root, 1)).await;
            }
        }
        Err(error) => tracing::error!(%error, "cannot tell which roots the store has lost"),
    }
    let mut seen = None;
    loop {
        let count = store.lost_count();
        if seen != Some(count) {
            let look = store.clone();
            match workers.run(move || lost_by_root(&look)).await {
                Ok(roots) => {
                    seen = Some(count);
                    for (root, blocks) in roots {
                        manager.send(Command::Lost(root, blocks)).await;
                    }
                }
                Err(error) => tracing::error!(%error, "cannot tell which roots lost blocks; tried again"),
            }
        }
        tokio::time::sleep(LOST_EVERY).await;
    }
}

/// Roots that are held by what was noted of them, and that the store does not
/// know as held any more: a disk has lost their records.
fn lost_roots(store: &Store, assignments: &Assignments) -> Result<Vec<ContentKey>, Unknown> {
    let (mut roots, mut after) = (Vec::new(), None);
    loop {
        let page = assignments.after(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(roots) };
        after = Some(last.content);
        for root in page.iter().filter(|record| record.state == State::Held).filter_map(Record::key) {
            if store.list(root.as_bytes())?.is_none() {
                roots.push(root);
            }
        }
    }
}

/// Each root that lost blocks, and how many.
fn lost_by_root(store: &Store) -> Result<Vec<(ContentKey, u64)>, pinfold_blockstore::Error> {
    let lost: HashSet<Multihash> = store.lost(MAX_LOST)?.into_iter().collect();
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let multihashes: Vec<_> = lost.iter().copied().collect();
    let mut roots = Vec::new();
    for key in store.roots_with(&multihashes)? {
        let mut blocks = 0;
        match store.list(&key)? {
            Some(list) => {
                for multihash in list {
                    blocks += u64::from(lost.contains(&multihash?));
                }
            }
            // Its list is damaged too: any of them may be its own.
            None => blocks = lost.len() as u64,
        }
        roots.extend(ContentKey::from_bytes(&key).ok().map(|key| (key, blocks)));
    }
    Ok(roots)
}
