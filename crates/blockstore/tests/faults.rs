//! A disk that is full, unreadable, or does not sync: clear errors, nothing
//! acknowledged is lost, and the store goes on or refuses to.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::sim::{Faults, SimIo};
use common::{assert_gone, assert_held, assert_sound, blocks, hold, keys, options, reclaim};
use pinfold_blockstore::{Block, Error, Options, RootState, Store};

struct Rig {
    dir: tempfile::TempDir,
    io: SimIo,
    all: Vec<Block>,
}

impl Rig {
    /// A store that holds the first ten of twenty blocks under `held`.
    fn new() -> (Self, Store) {
        let rig = Self { dir: tempfile::tempdir().unwrap(), io: SimIo::new(1), all: blocks(0..20, 1000) };
        let store = rig.open();
        hold(&store, b"held", &rig.all[..10]);
        (rig, store)
    }

    fn open(&self) -> Store {
        Store::open_on(Arc::new(self.io.clone()), self.dir.path(), options()).unwrap()
    }

    fn set(&self, faults: Faults) {
        self.io.set_faults(faults);
    }

    /// Ends and opens again after a power loss.
    fn survives(&self, store: Store) -> Store {
        drop(store);
        self.set(Faults::default());
        self.io.restart_machine();
        let store = self.open();
        assert_held(&store, &self.all[..10]);
        assert_eq!(store.root(b"held").unwrap().unwrap().state, RootState::Held);
        assert_sound(&store);
        store
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let (rig, store) = Rig::new();
    rig.set(Faults { space: Some(15_000), ..Faults::default() });
    let mut walk = store.begin(b"more").unwrap();
    walk.reference(&keys(&rig.all[10..])).unwrap();
    let error = store.put(&rig.all[10..]).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_gone(&store, &rig.all[10..]);
    assert_held(&store, &rig.all[..10]);
    assert!(walk.complete(b"").is_err());

    rig.set(Faults::default());
    store.put(&rig.all[10..]).unwrap();
    walk.complete(b"").unwrap();
    assert_sound(&store);
    drop(walk);
    let store = rig.survives(store);
    assert_held(&store, &rig.all);
}

#[test]
fn a_failed_append_leaves_nothing_behind() {
    let (rig, store) = Rig::new();
    rig.set(Faults { append: true, ..Faults::default() });
    let error = store.put(&rig.all[10..]).unwrap_err();
    assert!(matches!(error, Error::Io { action: "append to", .. }), "{error}");
    assert!(store.begin(b"more").is_err());
    assert!(store.release(b"held").is_err());
    rig.set(Faults::default());
    hold(&store, b"more", &rig.all[10..]);
    assert_sound(&store);
    let store = rig.survives(store);
    assert_held(&store, &rig.all);
}

#[test]
fn where_half_an_append_stays_nothing_follows_it() {
    let (rig, store) = Rig::new();
    rig.set(Faults { append: true, truncate: true, ..Faults::default() });
    store.put(&rig.all[10..]).unwrap_err();
    rig.set(Faults::default());
    let error = store.put(&rig.all[10..]).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert_held(&store, &rig.all[..10]);
    let store = rig.survives(store);
    hold(&store, b"more", &rig.all[10..]);
    assert_sound(&store);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let (rig, store) = Rig::new();
    let mut walk = store.begin(b"more").unwrap();
    walk.reference(&keys(&rig.all[10..])).unwrap();
    store.put(&rig.all[10..]).unwrap();
    rig.set(Faults { sync: true, ..Faults::default() });
    let error = walk.complete(b"").unwrap_err();
    assert!(matches!(error, Error::Io { action: "sync", .. }), "{error}");
    // The next sync would succeed without having written anything.
    rig.set(Faults::default());
    assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(store.put(&rig.all[10..]), Err(Error::Poisoned { .. })));
    assert!(matches!(store.release(b"held"), Err(Error::Poisoned { .. })));
    assert!(matches!(store.root(b"more"), Err(Error::Poisoned { .. })));
    assert_held(&store, &rig.all[..10]);
    assert_eq!(store.lost_count(), 0);
    drop(walk);
    // Even without a power loss, nothing is built on what is not on disk.
    drop(store);
    let store = rig.open();
    assert_ne!(store.root(b"more").unwrap().map(|info| info.state), Some(RootState::Held));
    hold(&store, b"more", &rig.all[10..]);
    let store = rig.survives(store);
    assert_held(&store, &rig.all);
}

#[test]
fn an_unreadable_disk_is_an_error_and_loses_nothing() {
    let (rig, store) = Rig::new();
    rig.set(Faults { read: true, ..Faults::default() });
    let error = store.get(rig.all[0].multihash()).unwrap_err();
    assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    assert!(store.has(rig.all[0].multihash()).unwrap());
    rig.set(Faults::default());
    assert_held(&store, &rig.all[..10]);
    assert_eq!(store.lost_count(), 0);
    rig.survives(store);
}

#[test]
fn an_unreadable_sector_loses_one_block_which_is_put_again() {
    for scrub in [false, true] {
        let (rig, store) = Rig::new();
        // Somewhere in the third of the blocks, each of 1,066 bytes.
        rig.set(Faults { sector: Some(2_500), ..Faults::default() });
        if scrub {
            assert_eq!(store.scrub(u64::MAX, || false).unwrap().lost, 1);
        } else {
            let read: Vec<_> =
                rig.all[..10].iter().map(|block| store.get(block.multihash()).unwrap()).collect();
            assert_eq!(read.iter().filter(|bytes| bytes.is_none()).count(), 1);
        }
        let lost = store.lost(10).unwrap();
        assert_eq!((lost.len(), store.lost_count()), (1, 1));
        assert!(!store.has(&lost[0]).unwrap());
        let block = rig.all.iter().find(|block| *block.multihash() == lost[0]).unwrap();
        store.put(std::slice::from_ref(block)).unwrap();
        // Elsewhere, where it can be read.
        assert_held(&store, &rig.all[..10]);
        assert!(store.lost(10).unwrap().is_empty());
        rig.survives(store);
    }
}

#[test]
fn reclaim_that_fails_loses_nothing() {
    for faults in [
        Faults { read: true, ..Faults::default() },
        Faults { append: true, ..Faults::default() },
        Faults { space: Some(0), ..Faults::default() },
        Faults { sync: true, ..Faults::default() },
    ] {
        let (rig, store) = Rig::new();
        hold(&store, b"more", &rig.all[5..]);
        store.release(b"more").unwrap();
        rig.set(faults);
        assert!(store.reclaim(|| false).is_err(), "{faults:?}");
        let store = rig.survives(store);
        reclaim(&store);
        assert_held(&store, &rig.all[..10]);
        assert_gone(&store, &rig.all[10..]);
        assert_sound(&store);
    }
}

/// What a store with a reserve is on: its blocks, its disk and its options.
struct Full {
    dir: tempfile::TempDir,
    io: SimIo,
    all: Vec<Block>,
}

/// The quarter that has to be free besides is longer than a block, so that
/// blocks do not stop short of it.
const RESERVE: usize = 8_000;

impl Full {
    /// A disk of `space` bytes with two roots of ten blocks each.
    fn new(space: u64) -> (Self, Store) {
        let full = Self { dir: tempfile::tempdir().unwrap(), io: SimIo::new(1), all: blocks(0..40, 1000) };
        full.io.set_faults(Faults { space: Some(space), ..Faults::default() });
        let store = full.open(RESERVE as u64);
        assert_eq!(full.reserve(), Some(RESERVE));
        hold(&store, b"gone", &full.all[..10]);
        hold(&store, b"kept", &full.all[10..20]);
        (full, store)
    }

    fn open(&self, reserve_bytes: u64) -> Store {
        let options = Options { segment_bytes: 10_000, reserve_bytes, ..options() };
        Store::open_on(Arc::new(self.io.clone()), self.dir.path(), options).unwrap()
    }

    fn reserve(&self) -> Option<usize> {
        self.io.files().into_iter().find(|(name, _)| name == "reserve").map(|(_, len)| len)
    }

    /// No block is taken, whatever room there is.
    fn assert_refused(&self, store: &Store) {
        let error = store.put(&self.all[39..]).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(self.reserve(), None);
    }
}

#[test]
fn a_disk_that_others_filled_still_releases_space() {
    let (full, store) = Full::new(u64::MAX);
    let used: usize = full.io.files().iter().map(|(_, len)| len).sum();
    full.io.set_faults(Faults { space: Some(used as u64), ..Faults::default() });
    assert!(store.release(b"gone").unwrap());
    // There is room now, which is not for blocks.
    full.assert_refused(&store);
    assert_eq!(reclaim(&store).blocks, 10);
    assert_eq!(full.reserve(), Some(RESERVE));
    store.put(&full.all[20..21]).unwrap();
    assert_held(&store, &full.all[10..21]);
    assert_gone(&store, &full.all[..10]);
    assert_sound(&store);
    // The file is no part of the format.
    drop(store);
    assert_held(&full.open(0), &full.all[10..21]);
}

#[test]
fn a_disk_that_blocks_filled_still_releases_space() {
    let (full, store) = Full::new(36_000);
    let mut walk = store.begin(b"more").unwrap();
    walk.reference(&keys(&full.all[20..30])).unwrap();
    let refused = full.all[20..30].iter().find_map(|block| store.put(std::slice::from_ref(block)).err());
    assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
    full.assert_refused(&store);
    // What is held counts for nothing.
    store.put(&full.all[..20]).unwrap();
    drop((walk, store));
    let store = full.open(RESERVE as u64);
    full.assert_refused(&store);
    assert!(store.release(b"gone").unwrap());
    assert!(reclaim(&store).blocks >= 10);
    assert_eq!(full.reserve(), Some(RESERVE));
    hold(&store, b"new", &full.all[30..36]);
    assert_held(&store, &full.all[10..20]);
    assert_sound(&store);
}

#[test]
fn room_that_others_make_is_found_by_the_next_block() {
    let (full, store) = Full::new(36_000);
    let refused = full.all[20..30].iter().find_map(|block| store.put(std::slice::from_ref(block)).err());
    assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
    assert_eq!(full.reserve(), None);
    full.io.set_faults(Faults::default());
    store.put(&full.all[20..]).unwrap();
    assert_eq!(full.reserve(), Some(RESERVE));
    assert_held(&store, &full.all);
}

#[test]
fn the_capacity_is_kept_and_released_space_counts_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..30, 1000);
    let options = Options { capacity_bytes: 30_000, ..options() };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    hold(&store, b"root", &all[..20]);
    let error = store.put(&all[20..]).unwrap_err();
    let Error::Full { needed, used, capacity: 30_000 } = error else { panic!("{error}") };
    assert_eq!(needed, 10 * (1000 + 32 + 34));
    assert_eq!(used, store.usage().disk_bytes);
    assert!(error.to_string().contains("release roots, reclaim, or raise the capacity"));
    assert_gone(&store, &all[20..]);
    // What is held counts for nothing; releasing works on a full store.
    store.put(&all[..20]).unwrap();
    assert!(store.release(b"root").unwrap());
    reclaim(&store);
    hold(&store, b"other", &all[10..]);
    assert_sound(&store);
    drop(store);
    let store = Store::open(dir.path(), Options { capacity_bytes: 1, ..options }).unwrap();
    assert_held(&store, &all[10..]);
}
