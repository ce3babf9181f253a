//! Random histories with power losses and kills at random points, over a disk
//! that keeps any part of what was not synced, with an index that is kept,
//! rolled back or lost. What was acknowledged has to be there, byte for byte;
//! nothing damaged is served; the recount agrees. And with any one of the
//! syncs left out, this has to fail: otherwise it would prove nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::sim::{Random, SimIo, Sync};
use common::{block, keys};
use pinfold_blockstore::io::{DirChange, SyncMoment};
use pinfold_blockstore::{Block, Error, Options, RootState, Store, Walk};

/// Rounds of the test proper, each a life of a store with several crashes,
/// unless `PINFOLD_POWER_LOSS_ROUNDS` says otherwise.
const ROUNDS: u64 = 500;

/// The most rounds in which a missing sync has to be noticed.
const ROUNDS_TO_NOTICE: u64 = 100;

/// Crashes in a round, and operations before each.
const CRASHES: u64 = 4;
const OPERATIONS: u64 = 25;

/// A root's state as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Fetching,
    Held { list: Vec<usize>, meta: Vec<u8> },
}

/// What has to be true of the store, kept without any of the store's code.
struct Model {
    universe: Vec<Block>,
    /// For each root the states that it may be found in, the newest last: the
    /// last one that is durable, and those after it.
    roots: BTreeMap<Vec<u8>, Vec<State>>,
    /// Blocks that a root's unfinished walks may refer to.
    referred: BTreeMap<Vec<u8>, BTreeSet<usize>>,
}

impl Model {
    fn new(random: &mut Random) -> Self {
        let universe = (0..60).map(|seed| {
            let len = [8, 50, 300, 1500, 5000][random.below(5) as usize];
            block(seed, len)
        });
        let roots = (0..6u8).map(|root| (vec![b'r', root], vec![State::Absent]));
        Self { universe: universe.collect(), roots: roots.collect(), referred: BTreeMap::new() }
    }

    fn now(&self, root: &[u8]) -> &State {
        self.roots[root].last().unwrap()
    }

    fn add(&mut self, root: &[u8], state: State) {
        let states = self.roots.get_mut(root).unwrap();
        if states.last() != Some(&state) {
            states.push(state);
        }
    }

    /// Everything until now is durable: a sync covers what came before it.
    fn settle(&mut self) {
        for states in self.roots.values_mut() {
            states.drain(..states.len() - 1);
        }
    }
}

struct Round {
    random: Random,
    io: SimIo,
    dir: PathBuf,
    copies: PathBuf,
    copied: u64,
    model: Model,
    walks: Vec<(Walk, Vec<u8>, Vec<usize>)>,
}

/// An operation ended because the disk did.
struct Off;

impl From<Error> for Off {
    fn from(_: Error) -> Self {
        Self
    }
}

impl Round {
    fn run(seed: u64, dir: &Path, ignored: Option<Sync>) {
        let mut random = Random::new(seed);
        let io = SimIo::new(seed);
        if let Some(sync) = ignored {
            io.ignore(sync);
        }
        let model = Model::new(&mut random);
        let (store_dir, copies) = (dir.join("store"), dir.join("copies"));
        std::fs::create_dir_all(&store_dir).unwrap();
        let mut round = Self { random, io, dir: store_dir, copies, copied: 0, model, walks: Vec::new() };
        for _ in 0..CRASHES {
            round.live();
        }
        let store = round.open();
        round.verify(&store);
    }

    fn options(&mut self) -> Options {
        Options {
            segment_bytes: 8 << 10 << self.random.below(3),
            sync_bytes: 1 << 10 << self.random.below(6),
            index_memory_bytes: 1 << 10 << self.random.below(8),
            reclaim_delay: Duration::ZERO,
            background: false,
            reserve_bytes: 0,
            ..Options::default()
        }
    }

    fn open(&mut self) -> Store {
        let options = self.options();
        Store::open_on(Arc::new(self.io.clone()), &self.dir, options).expect("a store opens after any crash")
    }

    /// Opens, verifies, works, and ends in some way.
    fn live(&mut self) {
        let store = self.open();
        self.verify(&store);
        let is_power_loss = self.random.one_in(2);
        let is_clean = !is_power_loss && self.random.one_in(4);
        if is_power_loss {
            // Mostly in the midst of some operation.
            self.io.fail_after(self.random.below(150));
        }
        for _ in 0..self.random.below(OPERATIONS) {
            if self.operate(&store).is_err() {
                assert!(self.io.is_off(), "an operation failed on a disk that works");
                break;
            }
            if self.random.one_in(8) {
                self.copy_index();
            }
        }
        if !is_clean {
            self.io.halt();
        }
        self.walks.clear();
        drop(store);
        match is_power_loss {
            true => self.io.restart_machine(),
            false => self.io.restart_process(),
        }
        if !is_clean || self.random.one_in(4) {
            self.disturb_index();
        }
    }

    fn operate(&mut self, store: &Store) -> Result<(), Off> {
        match self.random.below(20) {
            0..5 => self.put(store),
            5..8 => self.begin(store),
            8..12 => self.reference(store),
            12..15 => self.complete(store),
            15 => self.abandon(),
            16 | 17 => self.release(store),
            18 => self.reclaim(store),
            _ => {
                store.sync()?;
                self.model.settle();
                Ok(())
            }
        }
    }

    fn some_blocks(&mut self) -> Vec<usize> {
        let count = 1 + self.random.below(12);
        let all = self.model.universe.len() as u64;
        let some: BTreeSet<usize> = (0..count).map(|_| self.random.below(all) as usize).collect();
        some.into_iter().collect()
    }

    fn blocks(&self, numbers: &[usize]) -> Vec<Block> {
        numbers.iter().map(|number| self.model.universe[*number].clone()).collect()
    }

    fn some_root(&mut self) -> Vec<u8> {
        vec![b'r', self.random.below(6) as u8]
    }

    fn put(&mut self, store: &Store) -> Result<(), Off> {
        let numbers = self.some_blocks();
        Ok(store.put(&self.blocks(&numbers))?)
    }

    fn begin(&mut self, store: &Store) -> Result<(), Off> {
        let root = self.some_root();
        let walk = match store.begin(&root) {
            Err(Error::WalkInProgress) => return Ok(()),
            other => {
                // Even where it fails, its record may have got through.
                if *self.model.now(&root) == State::Absent {
                    self.model.add(&root, State::Fetching);
                }
                other?
            }
        };
        self.walks.push((walk, root, Vec::new()));
        Ok(())
    }

    fn reference(&mut self, store: &Store) -> Result<(), Off> {
        let numbers = self.some_blocks();
        let blocks = self.blocks(&numbers);
        let Some(at) = self.some_walk() else {
            return Ok(());
        };
        let (walk, root, list) = &mut self.walks[at];
        list.extend(&numbers);
        self.model.referred.entry(root.clone()).or_default().extend(&numbers);
        match walk.reference(&keys(&blocks)) {
            Err(Error::Released) => return Ok(()),
            other => other?,
        }
        Ok(store.put(&blocks)?)
    }

    fn some_walk(&mut self) -> Option<usize> {
        (!self.walks.is_empty()).then(|| self.random.below(self.walks.len() as u64) as usize)
    }

    fn complete(&mut self, store: &Store) -> Result<(), Off> {
        let Some(at) = self.some_walk() else {
            return Ok(());
        };
        let (mut walk, root, list) = self.walks.swap_remove(at);
        if self.random.one_in(4) {
            // A fetch in which everything is there already, or not.
            let needed = self.blocks(&list);
            store.put(&needed)?;
        }
        let meta = self.random.next().to_le_bytes().to_vec();
        let is_complete =
            list.iter().all(|number| store.has(self.model.universe[*number].multihash()).unwrap());
        let is_released = *self.model.now(&root) == State::Absent;
        match walk.complete(&meta) {
            Ok(info) => {
                assert!(is_complete && !is_released, "completed what is not there");
                assert_eq!(info.blocks, list.len() as u64);
                self.model.referred.remove(&root);
                self.model.add(&root, State::Held { list, meta });
                self.model.settle();
            }
            Err(Error::Incomplete { .. }) => assert!(!is_complete && !is_released),
            Err(Error::Released) => assert!(is_released),
            Err(error) => {
                self.model.add(&root, State::Held { list, meta });
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn abandon(&mut self) -> Result<(), Off> {
        let Some(at) = self.some_walk() else {
            return Ok(());
        };
        let (walk, root, _) = self.walks.swap_remove(at);
        if *self.model.now(&root) == State::Fetching {
            self.model.add(&root, State::Absent);
        }
        walk.abandon()?;
        self.model.referred.remove(&root);
        self.model.settle();
        Ok(())
    }

    fn release(&mut self, store: &Store) -> Result<(), Off> {
        let root = self.some_root();
        let existed = *self.model.now(&root) != State::Absent;
        self.model.add(&root, State::Absent);
        assert_eq!(store.release(&root)?, existed);
        if existed {
            // The walk, if there is one, learns of it when it asks.
            self.model.referred.remove(&root);
            self.model.settle();
        }
        Ok(())
    }

    fn reclaim(&mut self, store: &Store) -> Result<(), Off> {
        if self.random.one_in(2) {
            // Broken off; what they referred to stays.
            self.walks.clear();
        }
        store.reclaim(|| false)?;
        if self.walks.is_empty() {
            self.assert_tidy(store);
        }
        Ok(())
    }

    /// After reclaiming, only what something refers to is left, unless it may
    /// have come ahead of a walk that goes on.
    fn assert_tidy(&self, store: &Store) {
        let mut wanted: BTreeSet<usize> = self.model.referred.values().flatten().copied().collect();
        wanted.extend(self.walks.iter().flat_map(|(_, _, list)| list));
        for states in self.model.roots.values() {
            if let State::Held { list, .. } = states.last().unwrap() {
                wanted.extend(list);
            }
        }
        for (number, block) in self.model.universe.iter().enumerate() {
            let is_held = store.has(block.multihash()).unwrap();
            assert!(!is_held || wanted.contains(&number), "block {number} was not reclaimed");
        }
        let usage = store.usage();
        assert!(usage.block_bytes > 0 || usage.blocks == 0);
    }

    /// The promises.
    fn verify(&mut self, store: &Store) {
        for (number, block) in self.model.universe.iter().enumerate() {
            let bytes = store.get(block.multihash()).unwrap();
            assert!(bytes.as_ref().is_none_or(|bytes| bytes == block.bytes()), "block {number} is wrong");
            assert_eq!(store.has(block.multihash()).unwrap(), bytes.is_some());
        }
        let roots: Vec<Vec<u8>> = self.model.roots.keys().cloned().collect();
        for root in roots {
            let found = self.observe(store, &root);
            let states = self.model.roots.get_mut(&root).unwrap();
            assert!(states.contains(&found), "root {root:?} is {found:?}, may be {states:?}");
            // What was seen is as good as acknowledged.
            *states = vec![found.clone()];
            if found == State::Absent {
                self.model.referred.remove(&root);
            }
            if let State::Held { list, .. } = found {
                for number in list {
                    let block = &self.model.universe[number];
                    let bytes = store.get(block.multihash()).unwrap();
                    assert_eq!(bytes.as_ref(), Some(block.bytes()), "block {number} of {root:?} is missing");
                }
            }
        }
        assert!(store.lost(10).unwrap().is_empty(), "a power loss damages nothing that was acknowledged");
        assert_eq!(store.lost_count(), 0);
        let check = store.check().unwrap();
        assert_eq!(check.differences, 0, "{:?}", check.examples);
    }

    fn observe(&self, store: &Store, root: &[u8]) -> State {
        match store.root(root).unwrap() {
            None => State::Absent,
            Some(info) if info.state == RootState::Fetching => State::Fetching,
            Some(info) => {
                let list = store.list(root).unwrap().unwrap().map(|multihash| {
                    let multihash = multihash.unwrap();
                    self.model.universe.iter().position(|block| *block.multihash() == multihash).unwrap()
                });
                State::Held { list: list.collect(), meta: info.meta.to_vec() }
            }
        }
    }

    /// Remembers the index on disk as it is now.
    fn copy_index(&mut self) {
        let to = self.copies.join(self.copied.to_string());
        copy_dir(&self.dir.join("index"), &to);
        self.copied += 1;
    }

    /// Keeps the index, puts an older one in its place, or loses it.
    fn disturb_index(&mut self) {
        let index = self.dir.join("index");
        match self.random.below(4) {
            0 => std::fs::remove_dir_all(&index).unwrap(),
            1 if self.copied > 0 => {
                std::fs::remove_dir_all(&index).unwrap();
                let copy = self.random.below(self.copied);
                copy_dir(&self.copies.join(copy.to_string()), &index);
            }
            _ => {}
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Where syncs of the index cost nothing, if there is such a place.
fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn what_was_acknowledged_survives() {
    let rounds = std::env::var("PINFOLD_POWER_LOSS_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for seed in 0..rounds {
        let dir = fast_dir();
        let result = catch_unwind(AssertUnwindSafe(|| Round::run(seed, dir.path(), None)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// With one kind of sync left out, some round notices.
fn assert_noticed(sync: Sync) {
    let noticed = (0..ROUNDS_TO_NOTICE).find_map(|seed| {
        let dir = fast_dir();
        let result = catch_unwind(AssertUnwindSafe(|| Round::run(seed, dir.path(), Some(sync))));
        Some((seed, result.err()?))
    });
    let (seed, panic) = noticed.unwrap_or_else(|| panic!("nothing notices that {sync:?} is left out"));
    let words = panic.downcast_ref::<String>().map_or("", String::as_str);
    println!("{sync:?} left out: noticed in round {seed}: {words}");
}

#[test]
fn a_missing_sync_of_a_file_or_a_creation_is_noticed() {
    for moment in [SyncMoment::Commit, SyncMoment::Close, SyncMoment::Open] {
        assert_noticed(Sync::File(moment));
    }
    assert_noticed(Sync::Dir(DirChange::Created));
}

/// The memory of a released root goes once nothing of the root is left. If a
/// deleted segment came back after that, so would the root. Returns whether it
/// does.
fn released_root_returns(seed: u64, ignored: Option<Sync>) -> bool {
    let (dir, io) = (fast_dir(), SimIo::new(seed));
    if let Some(sync) = ignored {
        io.ignore(sync);
    }
    let options = Options { segment_bytes: 4 << 10, ..common::options() };
    let open = || Store::open_on(Arc::new(io.clone()), dir.path(), options.clone()).unwrap();
    let store = open();
    // Its state and blocks in one segment, its release in another that is
    // closed by what comes then: both are deleted, and no segment is created
    // after that.
    common::hold(&store, b"released", &common::blocks(0..10, 1000));
    common::hold(&store, b"too", &common::blocks(10..13, 1000));
    store.release(b"released").unwrap();
    store.release(b"too").unwrap();
    common::hold(&store, b"kept", &common::blocks(20..30, 1000));
    common::reclaim(&store);
    io.halt();
    drop(store);
    io.restart_machine();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    open().root(b"released").unwrap().is_some()
}

#[test]
fn a_missing_sync_of_a_deletion_is_noticed() {
    assert!((0..20).all(|seed| !released_root_returns(seed, None)));
    let removed = Some(Sync::Dir(DirChange::Removed));
    assert!((0..20).any(|seed| released_root_returns(seed, removed)), "nothing notices");
}

#[test]
fn only_the_last_segment_can_be_torn() {
    for seed in 0..20 {
        let (dir, io) = (fast_dir(), SimIo::new(seed));
        let options = Options { segment_bytes: 40_000, ..common::options() };
        let open = || Store::open_on(Arc::new(io.clone()), dir.path(), options.clone()).unwrap();
        let store = open();
        let all = common::blocks(0..60, 1000);
        io.fail_at(SyncMoment::Close);
        assert!(all.chunks(5).any(|batch| store.put(batch).is_err()));
        drop(store);
        io.restart_machine();
        // What was never synced may be gone, but nothing is taken for damage.
        let store = open();
        for block in &all {
            let bytes = store.get(block.multihash()).unwrap();
            assert!(bytes.is_none_or(|bytes| bytes == block.bytes()));
        }
        assert_eq!(store.lost_count(), 0, "seed {seed}");
        common::assert_sound(&store);
    }
}
