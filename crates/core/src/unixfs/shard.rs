//! Sharded directories: a hash array mapped trie of dag-pb nodes.
//!
//! A name's hash (murmur3 x64, its first 64 bits) is read from its highest
//! bit on, log2(fanout) bits a level. They name a bucket; a link's name begins
//! with its bucket in upper-case hexadecimal, padded to the width of the
//! last one. Nothing behind that: the next level is there; otherwise it is
//! the entry's name.

use super::{Data, Entry, UnixFsError};
use crate::content::Cid;

/// murmur3-x64-64 in the multicodec table, the one hash in use.
const HASH_TYPE: u64 = 0x22;

/// The largest fanout, as boxo has it.
const MAX_FANOUT: u64 = 1_024;

/// A part of a sharded directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Bits of the hash that a level takes.
    bits: u32,
    /// Hexadecimal digits before a name.
    width: usize,
    links: Vec<Entry>,
}

/// What a shard says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The entry.
    Entry(&'a Cid),
    /// Look further in this shard, one level deeper.
    Shard(&'a Cid),
    /// There is no such entry.
    Missing,
}

/// Why a name cannot be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The hash has no bits left for this level.
    #[error("the sharded directory is nested deeper than its hash reaches")]
    TooDeep,
}

impl Shard {
    pub(super) fn of(data: &Data<'_>, links: Vec<Entry>) -> Result<Self, UnixFsError> {
        if data.hash_type != Some(HASH_TYPE) {
            return Err(UnixFsError::Data("a shard with an unknown hash function"));
        }
        let fanout = data.fanout.unwrap_or_default();
        if !fanout.is_power_of_two() || !(8..=MAX_FANOUT).contains(&fanout) {
            return Err(UnixFsError::Data("a shard with a fanout that is not allowed"));
        }
        let shard = Self { bits: fanout.trailing_zeros(), width: format!("{:X}", fanout - 1).len(), links };
        if shard.links.iter().any(|link| shard.bucket(link).is_none_or(|bucket| bucket >= fanout)) {
            return Err(UnixFsError::Data("a shard with a link that names no bucket"));
        }
        Ok(shard)
    }

    fn bucket(&self, link: &Entry) -> Option<u64> {
        let digits = link.name.get(..self.width)?;
        let upper = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
        if !upper {
            return None;
        }
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    /// What this shard says of a name, `level` levels below the directory's
    /// root, which is level 0.
    ///
    /// # Errors
    /// When the hash does not reach that deep.
    pub fn find(&self, name: &str, level: u32) -> Result<Found<'_>, ShardError> {
        let prefix = self.prefix(name, level)?;
        let link = self.links.iter().find(|link| link.name.starts_with(prefix.as_bytes()));
        Ok(match link {
            Some(link) if link.name.len() == self.width => Found::Shard(&link.cid),
            Some(link) if &link.name[self.width..] == name.as_bytes() => Found::Entry(&link.cid),
            _ => Found::Missing,
        })
    }

    /// With what the link of a name begins at this level.
    fn prefix(&self, name: &str, level: u32) -> Result<String, ShardError> {
        let used = level.checked_mul(self.bits).ok_or(ShardError::TooDeep)?;
        if used + self.bits > u64::BITS {
            return Err(ShardError::TooDeep);
        }
        let hash = murmur3_x64_64(name.as_bytes());
        let bucket = (hash << used) >> (u64::BITS - self.bits);
        Ok(format!("{bucket:0width$X}", width = self.width))
    }

    /// The entries of this shard, with their names as users know them.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &Cid)> {
        let width = self.width;
        self.links
            .iter()
            .filter(move |link| link.name.len() > width)
            .map(move |link| (&link.name[width..], &link.cid))
    }

    /// The shards one level deeper.
    pub fn shards(&self) -> impl Iterator<Item = &Cid> {
        self.links.iter().filter(|link| link.name.len() == self.width).map(|link| &link.cid)
    }
}

/// The first 64 bits of murmur3's x64 variant with 128 bits and seed 0.
/// Source: Austin Appleby's MurmurHash3, in the public domain.
#[must_use]
pub fn murmur3_x64_64(bytes: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let (k1, k2) = halves(block);
        h1 = (h1 ^ mix1(k1)).rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix2(k2)).rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    // Zeros behind the tail change nothing: a part of zero mixes to zero.
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let (k1, k2) = halves(&last);
    let length = bytes.len() as u64;
    h1 ^= mix1(k1) ^ length;
    h2 ^= mix2(k2) ^ length;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}

fn halves(block: &[u8; 16]) -> (u64, u64) {
    let whole = u128::from_le_bytes(*block);
    (whole as u64, (whole >> 64) as u64)
}

fn finish(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}
