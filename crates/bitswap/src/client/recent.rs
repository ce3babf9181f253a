//! Blocks that were wanted a short while ago.
//!
//! A copy of such a block is late, not wrong: it was asked of two peers, or
//! cancelled while it was on its way.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::want::Hash;

/// Hashes remembered in each of two generations: some seconds of tiny blocks
/// at full speed, half a megabyte of memory.
const GENERATION: usize = 32_768;

/// A set of keyed 64-bit hashes that forgets the older half when it is full.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    key: RandomState,
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Recent {
    pub(crate) fn insert(&mut self, hash: &Hash) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(self.key.hash_one(hash));
    }

    pub(crate) fn contains(&self, hash: &Hash) -> bool {
        let short = self.key.hash_one(hash);
        self.young.contains(&short) || self.old.contains(&short)
    }
}
