//! Which (codec, multihash) a walk has consumed, in sixteen bytes each.
//!
//! An entry is a 96-bit hash of the multihash under a key drawn for this walk
//! (nobody outside can aim for a collision; by chance one is a matter of 2^-45
//! in a walk of the largest allowed size), the codecs under which it was met,
//! and the index of its leaf.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use pinfold_core::content::Multihash;

/// As many as the largest allowed number of blocks needs.
const INDEX_BITS: u32 = 26;
const _: () = assert!(1 << INDEX_BITS == pinfold_core::policy::MAX_BLOCKS);
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

type Print = [u8; 12];

/// The set of visited blocks.
pub(crate) struct Visited {
    low: RandomState,
    high: RandomState,
    entries: HashMap<Print, [u8; 4], PrintHasher>,
}

/// What [`Visited::visit`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Never met: the index given is now its leaf's.
    New,
    /// Met under another codec only; its leaf has this index.
    OtherCodec(u32),
    /// Met under this codec.
    Seen,
}

impl Visited {
    pub(crate) fn new() -> Self {
        Self { low: RandomState::new(), high: RandomState::new(), entries: HashMap::default() }
    }

    /// How many multihashes.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it was met under this codec.
    pub(crate) fn contains(&self, codec: u64, hash: &Multihash) -> bool {
        self.entries.get(&self.print(hash)).is_some_and(|entry| unpack(*entry).0 & bit(codec) != 0)
    }

    /// Notes a visit; `index` becomes the leaf's if the multihash is new.
    pub(crate) fn visit(&mut self, codec: u64, hash: &Multihash, index: u32) -> Visit {
        let print = self.print(hash);
        match self.entries.get_mut(&print) {
            None => {
                self.entries.insert(print, pack(bit(codec), index));
                Visit::New
            }
            Some(entry) => {
                let (codecs, index) = unpack(*entry);
                *entry = pack(codecs | bit(codec), index);
                if codecs & bit(codec) == 0 { Visit::OtherCodec(index) } else { Visit::Seen }
            }
        }
    }

    fn print(&self, hash: &Multihash) -> Print {
        let mut print = [0; 12];
        print[..8].copy_from_slice(&keyed(&self.low, hash).to_ne_bytes());
        print[8..].copy_from_slice(&keyed(&self.high, hash).to_ne_bytes()[..4]);
        print
    }
}

fn keyed(key: &RandomState, hash: &Multihash) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write_u64(hash.code());
    hasher.write(hash.digest());
    hasher.finish()
}

/// One bit per codec that is followed. All the others share one: such blocks
/// are leaves, whichever of those codecs names them.
fn bit(codec: u64) -> u8 {
    match codec {
        0x55 => 1,
        0x70 => 2,
        0x71 => 4,
        0x0129 => 8,
        _ => 16,
    }
}

fn pack(codecs: u8, index: u32) -> [u8; 4] {
    (u32::from(codecs) << INDEX_BITS | index & INDEX_MASK).to_ne_bytes()
}

fn unpack(entry: [u8; 4]) -> (u8, u32) {
    let entry = u32::from_ne_bytes(entry);
    ((entry >> INDEX_BITS) as u8, entry & INDEX_MASK)
}

/// The print is a keyed hash already: its first eight bytes serve.
#[derive(Clone, Copy, Default)]
struct PrintHasher;

impl BuildHasher for PrintHasher {
    type Hasher = First8;

    fn build_hasher(&self) -> First8 {
        First8(0)
    }
}

struct First8(u64);

impl Hasher for First8 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    // An array is hashed as its length and its bytes; the length says nothing.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multihash_is_told_by_codec_and_keeps_its_first_index() {
        let hash = Multihash::wrap(0x12, &[7; 32]).expect("32 bytes fit");
        let mut visited = Visited::new();
        assert!(!visited.contains(0x55, &hash));
        assert_eq!(visited.visit(0x55, &hash, 41), Visit::New);
        assert!(visited.contains(0x55, &hash) && !visited.contains(0x70, &hash));
        assert_eq!(visited.visit(0x70, &hash, 99), Visit::OtherCodec(41));
        assert_eq!(visited.visit(0x70, &hash, 99), Visit::Seen);
        assert_eq!((visited.len(), size_of::<(Print, [u8; 4])>()), (1, 16));
    }
}
