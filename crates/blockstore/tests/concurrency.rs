//! Many walks, readers and reclaims at once, on a real disk, with the
//! background thread.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{assert_held, assert_sound, block, blocks, hold, keys};
use pinfold_blockstore::{Block, Options, Store};

fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        sync_bytes: 64 << 10,
        index_memory_bytes: 32 << 10,
        reclaim_delay: Duration::ZERO,
        ..Options::default()
    }
}

const WALKERS: u64 = 4;
/// Of each walker; every second one is released again.
const ROOTS: u64 = 12;

/// The blocks that a root has alone.
fn own(walker: u64, root: u64) -> Vec<Block> {
    let first = 1000 * (walker + 1) + root * 50;
    blocks(first..first + 30, 900)
}

/// Walks roots that have the shared blocks among their own.
fn walk(store: &Store, walker: u64, shared: &[Block]) {
    for root in 0..ROOTS {
        let own = own(walker, root);
        let mut walk = store.begin(&[walker as u8, root as u8]).unwrap();
        for (own, shared) in own.chunks(5).zip(shared.chunks(5)) {
            walk.reference(&keys(own)).unwrap();
            walk.reference(&keys(shared)).unwrap();
            store.put(own).unwrap();
            assert_held(store, own);
        }
        walk.complete(b"").unwrap();
        if root % 2 == 0 {
            assert!(store.release(&[walker as u8, root as u8]).unwrap());
        }
    }
}

#[test]
fn walks_readers_and_reclaim_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    let shared = blocks(0..40, 700);
    hold(&store, b"shared", &shared);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        assert_held(&store, &shared);
                        store.lost(1).unwrap();
                        assert!(store.usage().blocks >= 40);
                    }
                })
            })
            .collect();
        let reclaimer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                store.reclaim(|| false).unwrap();
            }
        });
        // A recount sees one moment, whatever goes on.
        let checker = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_sound(&store);
            }
        });
        let walkers: Vec<_> = (0..WALKERS)
            .map(|walker| {
                let (store, shared) = (&store, &shared);
                scope.spawn(move || walk(store, walker, shared))
            })
            .collect();
        let walked: Vec<_> = walkers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        walked.into_iter().for_each(|result| result.unwrap());
        readers.into_iter().chain([reclaimer, checker]).for_each(|thread| thread.join().unwrap());
    });
    store.reclaim(|| false).unwrap();
    let check = assert_sound(&store);
    assert_eq!(check.roots, 1 + WALKERS * ROOTS / 2);
    assert_eq!(store.usage().blocks, 40 + WALKERS * ROOTS / 2 * 30);
    assert_eq!(store.lost_count(), 0);
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_held(&store, &shared);
    for walker in 0..WALKERS {
        for root in (1..ROOTS).step_by(2) {
            assert_held(&store, &own(walker, root));
        }
    }
    assert_sound(&store);
}

#[test]
fn what_nobody_syncs_is_synced_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { index_memory_bytes: 8 << 10, ..options() }).unwrap();
    for seed in 0..500 {
        store.put(&[block(seed, 1000)]).unwrap();
    }
    // The index moves to disk only after a sync.
    let tables = dir.path().join("index/tables");
    let begun = std::time::Instant::now();
    while std::fs::read_dir(&tables).unwrap().count() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the background does nothing");
        std::thread::yield_now();
    }
}

#[test]
fn a_store_is_opened_once_and_again_after_its_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    let walk = store.begin(b"root").unwrap();
    drop(store);
    // A walk keeps it open.
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(walk);
    Store::open(dir.path(), options()).unwrap();
}
