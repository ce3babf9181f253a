//! DAGs for tests: built from small blocks, random ones by a seed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libp2p::PeerId;
use parking_lot::Mutex;
use pinfold_core::content::{self, BlockCid, Cid, Multihash};
use pinfold_core::hash;
use pinfold_core::manifest::{self, BlockLeaf, Manifest};
use pinfold_core::status::Reason;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::exchange::{Exchange, Supply};
use super::manager::{Peers, Search};

pub(crate) const RAW: u64 = 0x55;
pub(crate) const PB: u64 = 0x70;
pub(crate) const CBOR: u64 = 0x71;

/// Blocks by multihash.
#[derive(Clone, Default)]
pub(crate) struct Dag {
    pub(crate) blocks: HashMap<Multihash, Vec<u8>>,
}

impl Dag {
    /// Adds a block.
    pub(crate) fn add(&mut self, codec: u64, bytes: Vec<u8>) -> Cid {
        let multihash = hash::multihash(hash::SHA2_256, &bytes).unwrap();
        self.blocks.insert(multihash, bytes);
        Cid::new_v1(codec, multihash)
    }

    pub(crate) fn leaf(&mut self, bytes: impl Into<Vec<u8>>) -> Cid {
        self.add(RAW, bytes.into())
    }

    /// A list of links in dag-cbor; `salt` tells nodes with equal links apart.
    pub(crate) fn node(&mut self, salt: u64, links: &[Cid]) -> Cid {
        self.add(CBOR, cbor(salt, links))
    }

    pub(crate) fn get(&self, cid: &Cid) -> Option<Vec<u8>> {
        self.blocks.get(cid.hash()).cloned()
    }

    /// What the walk of the reference says.
    pub(crate) fn reference(&self, root: &Cid) -> (Manifest, Vec<BlockLeaf>) {
        manifest::of_dag(root, &mut |cid| self.get(cid)).unwrap()
    }

    /// A DAG of about `size` blocks with shared subtrees, both codecs of some
    /// blocks, duplicate links and identity CIDs.
    pub(crate) fn random(&mut self, random: &mut Random, size: usize) -> Cid {
        let mut known: Vec<Cid> =
            (0..size / 2 + 1).map(|n| self.leaf(vec![n as u8; 1 + random.below(3_000)])).collect();
        let mut root = known[0];
        for salt in 0..size as u64 / 2 + 1 {
            let links: Vec<Cid> = (0..random.below(6) + 1)
                .map(|_| known[known.len() - 1 - random.below(known.len().min(20))])
                .collect();
            root = match random.below(8) {
                0 => inline(CBOR, &cbor(salt, &links[..1])),
                1 => Cid::new_v1(RAW, *self.node(salt, &links).hash()),
                _ => self.node(salt, &links),
            };
            known.push(root);
        }
        let all: Vec<_> = known.iter().rev().step_by(3).copied().chain([root]).collect();
        self.node(u64::MAX, &all)
    }
}

/// A dag-cbor list: a number, then links.
pub(crate) fn cbor(salt: u64, links: &[Cid]) -> Vec<u8> {
    let mut bytes = vec![0x99];
    bytes.extend(u16::try_from(links.len() + 1).unwrap().to_be_bytes());
    bytes.push(0x1b);
    bytes.extend(salt.to_be_bytes());
    for link in links {
        let cid = link.to_bytes();
        bytes.extend([0xd8, 42, 0x59]);
        bytes.extend(u16::try_from(cid.len() + 1).unwrap().to_be_bytes());
        bytes.push(0);
        bytes.extend(cid);
    }
    bytes
}

/// An identity CID.
pub(crate) fn inline(codec: u64, bytes: &[u8]) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(0, bytes).unwrap())
}

/// A small generator of repeatable numbers (SplitMix64).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// An exchange that delivers a DAG's blocks in an order of its own.
pub(crate) struct Script {
    pub(crate) dag: Dag,
    pub(crate) random: Random,
    /// Never delivered.
    pub(crate) withheld: HashSet<BlockCid>,
    /// Called once when nothing but withheld blocks is wanted; what it returns
    /// is still withheld afterwards.
    pub(crate) idle: Option<Box<dyn FnOnce() -> HashSet<BlockCid> + Send>>,
    /// Not before so many blocks were stored.
    pub(crate) idle_after: usize,
    pub(crate) wanted: Vec<BlockCid>,
    pub(crate) delivered: Vec<BlockCid>,
    pub(crate) stored: usize,
    /// The most that was wanted at a time.
    pub(crate) most_wanted: usize,
    exhausted: bool,
    /// The pause before each block.
    pub(crate) every: Duration,
    next_at: Option<Instant>,
    /// Counts every block that it delivers.
    pub(crate) deliveries: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) fn new(dag: &Dag, seed: u64) -> Self {
        Self {
            dag: dag.clone(),
            random: Random(seed),
            withheld: HashSet::new(),
            idle: None,
            idle_after: 0,
            wanted: Vec::new(),
            delivered: Vec::new(),
            stored: 0,
            most_wanted: 0,
            exhausted: false,
            every: Duration::ZERO,
            next_at: None,
            deliveries: Arc::default(),
        }
    }

    pub(crate) fn withhold(mut self, cids: impl IntoIterator<Item = Cid>) -> Self {
        self.withheld.extend(cids.into_iter().filter_map(|cid| content::block_cid(&cid)));
        self
    }

    fn deliver(&mut self) -> Option<Supply> {
        let ready: Vec<_> = (0..self.wanted.len())
            .filter(|index| !self.withheld.contains(&self.wanted[*index]))
            .filter(|index| self.dag.get(&content::of_block_cid(&self.wanted[*index])).is_some())
            .collect();
        if ready.is_empty() {
            return None;
        }
        let cid = self.wanted.swap_remove(ready[self.random.below(ready.len())]);
        self.delivered.push(cid);
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        let data = self.dag.get(&content::of_block_cid(&cid)).unwrap_or_default().into();
        Some(Supply::Block { cid, data })
    }
}

impl Exchange for Script {
    fn want(&mut self, cids: &[BlockCid]) {
        self.exhausted = false;
        self.wanted.extend(cids);
        self.most_wanted = self.most_wanted.max(self.wanted.len());
    }

    fn stored(&mut self, cids: &[BlockCid]) {
        self.stored += cids.len();
    }

    async fn next(&mut self) -> Supply {
        loop {
            if !self.every.is_zero() {
                // Kept, so that it is cancel-safe.
                tokio::time::sleep_until(*self.next_at.get_or_insert(Instant::now() + self.every)).await;
                self.next_at = None;
            }
            if let Some(block) = self.deliver() {
                return block;
            }
            if self.wanted.is_empty() || self.exhausted {
                return std::future::pending().await;
            }
            match self.idle.take() {
                Some(idle) if self.stored < self.idle_after => {
                    self.idle = Some(idle);
                    return std::future::pending().await;
                }
                Some(idle) => {
                    self.withheld = idle();
                    // What it still withholds, it withholds in silence.
                    self.exhausted = true;
                    if let Some(block) = self.deliver() {
                        return block;
                    }
                }
                None => {
                    self.exhausted = true;
                    return Supply::Exhausted(Reason::NoProviders);
                }
            }
        }
    }
}

/// A network in which some blocks can be had and others cannot.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) dag: Mutex<Dag>,
    pub(crate) opened: Mutex<Vec<Search>>,
    /// Roots that the peer that is asked next has.
    pub(crate) has: Mutex<Vec<BlockCid>>,
    pub(crate) provided: Mutex<Vec<BlockCid>>,
    pub(crate) expected: Arc<()>,
    pub(crate) deliveries: Arc<AtomicUsize>,
}

impl Peers for Fake {
    type Exchange = Script;
    type Guard = Arc<()>;

    fn open(&self, search: Search, _: mpsc::Receiver<Vec<String>>) -> Script {
        self.shared.opened.lock().push(search);
        let mut script = Script::new(&self.shared.dag.lock(), 1);
        script.deliveries = self.shared.deliveries.clone();
        script
    }

    fn expect(&self, _: PeerId) -> Arc<()> {
        self.shared.expected.clone()
    }

    async fn ask(&self, _: PeerId, roots: Vec<BlockCid>) -> Vec<BlockCid> {
        let has = self.shared.has.lock();
        roots.into_iter().filter(|root| has.contains(root)).collect()
    }

    fn provide(&self, root: &BlockCid) {
        self.shared.provided.lock().push(*root);
    }

    fn peers_of(origins: &[String]) -> Vec<PeerId> {
        origins.iter().filter_map(|origin| origin.parse().ok()).collect()
    }
}
