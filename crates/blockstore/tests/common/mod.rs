//! Blocks and stores for the tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod sim;
pub(crate) mod watched;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use multihash_codetable::{Code, MultihashDigest as _};
use pinfold_blockstore::{Block, Check, Multihash, Options, Store};

/// A block of `len` bytes that only `seed` gives.
pub(crate) fn block(seed: u64, len: usize) -> Block {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&seed.to_le_bytes());
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len.max(8));
    let bytes = Bytes::from(bytes);
    Block::computed(Code::Sha2_256.digest(&bytes), bytes).unwrap()
}

/// Blocks with the seeds of a range.
pub(crate) fn blocks(seeds: std::ops::Range<u64>, len: usize) -> Vec<Block> {
    seeds.map(|seed| block(seed, len)).collect()
}

pub(crate) fn keys(blocks: &[Block]) -> Vec<Multihash> {
    blocks.iter().map(|block| *block.multihash()).collect()
}

/// Everything in its order, nothing delayed, small segments.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        reserve_bytes: 0,
        reclaim_delay: Duration::ZERO,
        background: false,
        ..Options::default()
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, options()).unwrap()
}

/// Fetches a root of these blocks.
pub(crate) fn hold(store: &Store, root: &[u8], blocks: &[Block]) {
    let mut walk = store.begin(root).unwrap();
    walk.reference(&keys(blocks)).unwrap();
    blocks.chunks(10).for_each(|batch| store.put(batch).unwrap());
    walk.complete(b"meta").unwrap();
}

/// Reclaims everything there is to reclaim.
pub(crate) fn reclaim(store: &Store) -> pinfold_blockstore::Reclaimed {
    store.reclaim(|| false).unwrap()
}

/// All of `blocks` are served, byte for byte.
pub(crate) fn assert_held(store: &Store, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(store.get(block.multihash()).unwrap().as_ref(), Some(block.bytes()));
        assert!(store.has(block.multihash()).unwrap());
        assert_eq!(store.size(block.multihash()).unwrap(), Some(block.bytes().len() as u64));
    }
}

/// None of `blocks` is there.
pub(crate) fn assert_gone(store: &Store, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(store.get(block.multihash()).unwrap(), None);
        assert!(!store.has(block.multihash()).unwrap());
    }
}

/// The recount finds nothing.
pub(crate) fn assert_sound(store: &Store) -> Check {
    let check = store.check().unwrap();
    assert_eq!(check.differences, 0, "{:?}", check.examples);
    check
}

/// The files of the store's segments, by number.
pub(crate) fn segment_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.join("segments")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Flips a bit of a file.
pub(crate) fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}
