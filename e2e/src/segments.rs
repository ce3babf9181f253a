//! An own reader of a node's block store, as it lies on disk: by the format's
//! description, with nothing of the code that writes it.
//!
//! The segments are the truth of a store; its index is not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use crc32fast::Hasher;
use sha2::{Digest, Sha256};

use crate::truth::Truth;

/// Bytes of a record before its key.
const HEAD: usize = 32;

/// What a record begins with.
const MAGIC: &[u8] = b"pfb1";

/// The folder beside it that the segments are in.
const SEGMENTS: &str = "segments";

/// What the file `VERSION` of a store begins with.
const TITLE: &str = "pinfold blockstore\nformat 1\nstore ";

/// Kinds of records.
const BLOCK: u8 = 1;
const CHUNK: u8 = 2;
const ROOT: u8 = 3;

/// Whether a root's record names the list that it is held by.
const HELD: u8 = 1;

/// A multihash as bytes.
type Hash = Vec<u8>;

/// A list that holds a root: its walk, and what it sums up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    walk: u64,
    chunks: u32,
    blocks: u64,
    bytes: u64,
}

/// What is in the segments of one store.
#[derive(Debug, Default)]
pub struct Store {
    /// The length of each block.
    blocks: BTreeMap<Hash, u64>,
    /// Chunks of lists, by walk and number.
    chunks: BTreeMap<(u64, u32), Vec<Hash>>,
    /// The last record of each root: its sequence, and the list that holds it.
    roots: BTreeMap<Vec<u8>, (u64, Option<Held>)>,
    /// The number of the first segment; those before it were reclaimed.
    pub first: u32,
}

/// How much of what is read is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Heads alone, up to where the last segment may have been torn.
    Heads,
    /// The checksum of every record and the hash of every block; not a byte
    /// may be anything else.
    Everything,
}

/// The folder of a block store below a data folder.
///
/// # Errors
/// When there is none.
pub fn folder(data: &Path) -> Result<PathBuf> {
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        if fs::read_to_string(folder.join("VERSION")).is_ok_and(|text| text.starts_with(TITLE)) {
            return Ok(folder);
        }
        for entry in fs::read_dir(&folder)? {
            folders.extend(Some(entry?.path()).filter(|path| path.is_dir()));
        }
    }
    anyhow::bail!("there is no block store in {}", data.display())
}

/// Where a segment of this number lies in the folder of a store.
pub fn file(folder: &Path, number: u32) -> PathBuf {
    folder.join(SEGMENTS).join(format!("{number:08}.seg"))
}

/// The segments of a store with their numbers, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder.join(SEGMENTS))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).context("a segment has a number")?;
            files.insert(stem.parse()?, path);
        }
    }
    Ok(files)
}

/// Bytes of all segments.
///
/// # Errors
/// When the folder cannot be read.
pub fn size(folder: &Path) -> Result<u64> {
    // One may be reclaimed right now.
    Ok(files(folder)?.values().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum())
}

impl Store {
    /// Reads a store that nobody has open.
    ///
    /// # Errors
    /// Names the first record that is not as it has to be.
    pub fn read(folder: &Path, depth: Depth) -> Result<Self> {
        let version = fs::read_to_string(folder.join("VERSION"))?;
        let id = version.strip_prefix(TITLE).context("another VERSION")?.trim_end();
        let id = u64::from_str_radix(id, 16)?;
        let files = files(folder)?;
        let mut store = Self { first: files.keys().next().copied().unwrap_or_default(), ..Self::default() };
        let last = files.keys().last().copied();
        ensure!(last.is_some(), "there is no segment in {}", folder.display());
        for (number, path) in &files {
            let bytes = fs::read(path)?;
            let end = store.segment(&bytes, seed(id, *number), depth);
            let end = end.with_context(|| path.display().to_string())?;
            let may_be_torn = depth == Depth::Heads && Some(*number) == last;
            ensure!(may_be_torn || end == bytes.len(), "{} is damaged at {end}", path.display());
        }
        Ok(store)
    }

    /// Reads records up to one that is none, and answers where that is.
    fn segment(&mut self, bytes: &[u8], seed: u32, depth: Depth) -> Result<usize> {
        let (mut at, mut last) = (0, 0);
        while let Some(record) = Record::read(&bytes[at..], seed) {
            ensure!(record.sequence > last, "a record at {at} is out of order");
            if depth == Depth::Everything {
                record.verify().with_context(|| format!("the record at {at}"))?;
            }
            last = record.sequence;
            at += record.length();
            self.keep(&record)?;
        }
        Ok(at)
    }

    fn keep(&mut self, record: &Record<'_>) -> Result<()> {
        match record.kind {
            BLOCK => drop(self.blocks.insert(record.key.to_vec(), record.payload.len() as u64)),
            CHUNK => {
                let (walk, number) = record.key.split_at_checked(8).context("a chunk's key is too short")?;
                let key = (u64::from_be_bytes(walk.try_into()?), u32::from_be_bytes(number.try_into()?));
                self.chunks.insert(key, list(record.payload)?);
            }
            _ => {
                let root = self.roots.entry(record.key.to_vec()).or_default();
                if record.sequence > root.0 {
                    *root = (record.sequence, held(record.payload)?);
                }
            }
        }
        Ok(())
    }

    /// How many of these blocks are there.
    pub fn count(&self, cids: &BTreeSet<Cid>) -> usize {
        cids.iter().filter(|cid| self.blocks.contains_key(&cid.hash().to_bytes())).count()
    }

    /// The roots that are held, as their keys.
    pub fn held(&self) -> BTreeSet<Vec<u8>> {
        let held = self.roots.iter().filter(|(_, (_, held))| held.is_some());
        held.map(|(key, _)| key.clone()).collect()
    }

    /// Checks that every root that is held has a list of the length that it
    /// says, of blocks that are all there.
    ///
    /// # Errors
    /// Names the first root of which something is missing.
    pub fn whole(&self) -> Result<()> {
        for (key, (_, held)) in &self.roots {
            let Some(held) = held else { continue };
            let list = self.list(*held).with_context(|| format!("the list of root {key:02x?}"))?;
            let lengths: Option<Vec<u64>> = list.iter().map(|hash| self.blocks.get(hash).copied()).collect();
            let lengths = lengths.with_context(|| format!("root {key:02x?} lacks a block of its list"))?;
            ensure!(lengths.len() as u64 == held.blocks, "root {key:02x?} has {} blocks", lengths.len());
            ensure!(lengths.iter().sum::<u64>() == held.bytes, "root {key:02x?} has other bytes");
        }
        Ok(())
    }

    /// Checks that a root is held by exactly the blocks that its origin has.
    ///
    /// # Errors
    /// When it is not.
    pub fn holds(&self, root: &str, truth: &Truth) -> Result<()> {
        let held = self.roots.get(&key(root)?).and_then(|(_, held)| *held);
        let held = held.with_context(|| {
            let (known, held) = (self.roots.len(), self.held().len());
            format!("{root} is not held on disk, where {held} of {known} roots are")
        })?;
        let found: BTreeSet<Hash> = self.list(held)?.into_iter().collect();
        let wanted: BTreeSet<Hash> = truth.cids.iter().map(|cid| cid.hash().to_bytes()).collect();
        ensure!(found == wanted, "the list of {root} has {} blocks of {}", found.len(), wanted.len());
        ensure!(held.bytes == truth.bytes, "{root} is held with {} bytes of {}", held.bytes, truth.bytes);
        Ok(())
    }

    fn list(&self, held: Held) -> Result<Vec<Hash>> {
        let mut list = Vec::new();
        for number in 0..held.chunks {
            let chunk = self.chunks.get(&(held.walk, number));
            list.extend_from_slice(chunk.with_context(|| format!("chunk {number} is missing"))?);
        }
        Ok(list)
    }
}

/// What a store calls a root: its CID of version 1 without the version.
///
/// # Errors
/// When it is no CID.
pub fn key(root: &str) -> Result<Vec<u8>> {
    let cid: Cid = root.parse()?;
    Ok(Cid::new_v1(cid.codec(), *cid.hash()).to_bytes()[1..].to_vec())
}

/// One record of a segment.
struct Record<'b> {
    kind: u8,
    sequence: u64,
    sum: u32,
    key: &'b [u8],
    payload: &'b [u8],
}

impl<'b> Record<'b> {
    /// The record that `bytes` begin with; none where the head is not intact
    /// or the payload does not end.
    fn read(bytes: &'b [u8], seed: u32) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (kind, key_length) = (head[4], usize::from(u16::from_le_bytes([head[6], head[7]])));
        if !head.starts_with(MAGIC) || !(BLOCK..=ROOT).contains(&kind) || head[5] != 0 {
            return None;
        }
        let (key, rest) = rest.split_at_checked(key_length)?;
        let mut sum = Hasher::new_with_initial(seed);
        sum.update(&head[..28]);
        sum.update(key);
        if sum.finalize() != number(head, 28) {
            return None;
        }
        let payload = rest.get(..number(head, 8) as usize)?;
        let sequence = u64::from(number(head, 16)) | u64::from(number(head, 20)) << 32;
        Some(Self { kind, sequence, sum: number(head, 12), key, payload })
    }

    fn length(&self) -> usize {
        HEAD + self.key.len() + self.payload.len()
    }

    fn verify(&self) -> Result<()> {
        ensure!(crc32fast::hash(self.payload) == self.sum, "its payload has another checksum");
        if self.kind == BLOCK {
            let digest = self.key.strip_prefix(&[0x12, 0x20]).context("tests use SHA2-256 alone")?;
            ensure!(Sha256::digest(self.payload)[..] == *digest, "it is a block with another hash");
        }
        Ok(())
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What the sums of a segment's heads begin with.
fn seed(store: u64, segment: u32) -> u32 {
    let mut sum = Hasher::new();
    sum.update(&store.to_le_bytes());
    sum.update(&segment.to_le_bytes());
    sum.finalize()
}

/// The multihashes of a chunk, each after its length.
fn list(mut payload: &[u8]) -> Result<Vec<Hash>> {
    let mut list = Vec::new();
    while let Some((length, rest)) = payload.split_first() {
        let (hash, rest) = rest.split_at_checked(usize::from(*length)).context("a chunk ends early")?;
        list.push(hash.to_vec());
        payload = rest;
    }
    Ok(list)
}

/// The list that a root's record says it is held by.
fn held(payload: &[u8]) -> Result<Option<Held>> {
    let flags = payload.first().context("a root's record is empty")?;
    if flags & HELD == 0 {
        return Ok(None);
    }
    // One byte of flags, four that tell when the record may go.
    let rest = payload.get(5..33).context("a root's record ends early")?;
    let long = |at: usize| u64::from(number(rest, at)) | u64::from(number(rest, at + 4)) << 32;
    Ok(Some(Held { walk: long(0), chunks: number(rest, 8), blocks: long(12), bytes: long(20) }))
}
