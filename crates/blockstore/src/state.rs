//! The facts that the index keeps and the log carries, as values and as bytes.
//!
//! Integers are little-endian in values and big-endian in keys, where their
//! order matters. Every decoder takes what may be damaged and answers `None`.

use bytes::{Buf, BufMut};

use crate::Multihash;

/// A walk of a root. Ids grow and are never used again in a store.
pub(crate) type WalkId = u64;

/// Where a record lies. `len` is that of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Location {
    pub(crate) fn encode(self, out: &mut impl BufMut) {
        out.put_u32_le(self.segment);
        out.put_u32_le(self.offset);
        out.put_u32_le(self.len);
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        Self::take(&mut bytes)
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { segment: take_u32(bytes)?, offset: take_u32(bytes)?, len: take_u32(bytes)? })
    }
}

/// Where a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Referred to, not put yet.
    #[default]
    Expected,
    /// Referred to, was held, was found damaged.
    Lost,
    /// Held.
    At(Location),
}

/// What is known of a block: how many list entries name it, and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) refs: u32,
    pub(crate) place: Place,
}

impl BlockEntry {
    /// Where the block is held.
    pub(crate) fn location(&self) -> Option<Location> {
        match self.place {
            Place::At(location) => Some(location),
            Place::Expected | Place::Lost => None,
        }
    }

    /// The length tells the places apart: 4, 5 or 16 bytes.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.put_u32_le(self.refs);
        match self.place {
            Place::Expected => {}
            Place::Lost => out.put_u8(0),
            Place::At(location) => location.encode(&mut out),
        }
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let refs = take_u32(&mut bytes)?;
        let place = match bytes.len() {
            0 => Place::Expected,
            1 => Place::Lost,
            _ => Place::At(Location::decode(bytes)?),
        };
        Some(Self { refs, place })
    }
}

/// The list that made a root held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldList {
    pub(crate) walk: WalkId,
    pub(crate) chunks: u32,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// The whole state of a root; the payload of its record. Of several records
/// the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// The list that it is held by.
    pub(crate) held: Option<HeldList>,
    /// The walk that goes on, or was going on when the process ended.
    pub(crate) current: Option<WalkId>,
    /// An earlier unfinished walk whose references are kept until the current
    /// one ends.
    pub(crate) kept: Option<WalkId>,
    /// For a released root: the newest segment in which something of it may
    /// still lie. The record is needed until all segments up to that one are
    /// gone, because a rebuilt index would bring the root back without it.
    pub(crate) horizon: u32,
    /// The caller's own bytes.
    pub(crate) meta: Vec<u8>,
}

impl Root {
    /// Whether nothing is left but the memory of its release.
    pub(crate) fn is_released(&self) -> bool {
        self.held.is_none() && self.current.is_none() && self.kept.is_none()
    }

    /// The walks whose lists count.
    pub(crate) fn walks(&self) -> impl Iterator<Item = WalkId> {
        self.held.map(|held| held.walk).into_iter().chain(self.current).chain(self.kept)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.held.is_some())
            | u8::from(self.current.is_some()) << 1
            | u8::from(self.kept.is_some()) << 2;
        out.put_u8(flags);
        out.put_u32_le(self.horizon);
        if let Some(held) = self.held {
            out.put_u64_le(held.walk);
            out.put_u32_le(held.chunks);
            out.put_u64_le(held.blocks);
            out.put_u64_le(held.bytes);
        }
        for walk in self.current.into_iter().chain(self.kept) {
            out.put_u64_le(walk);
        }
        out.extend_from_slice(&self.meta);
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let flags = take_u8(bytes).filter(|flags| *flags < 8)?;
        let horizon = take_u32(bytes)?;
        let held = match flags & 1 {
            0 => None,
            _ => Some(HeldList {
                walk: take_u64(bytes)?,
                chunks: take_u32(bytes)?,
                blocks: take_u64(bytes)?,
                bytes: take_u64(bytes)?,
            }),
        };
        let current = if flags & 2 == 0 { None } else { Some(take_u64(bytes)?) };
        let kept = if flags & 4 == 0 { None } else { Some(take_u64(bytes)?) };
        Some(Self { held, current, kept, horizon, meta: bytes.to_vec() })
    }
}

/// A root as the index keeps it: with the place of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootEntry {
    pub(crate) location: Location,
    pub(crate) root: Root,
}

impl RootEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.location.encode(&mut out);
        self.root.encode(&mut out);
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let location = Location::take(&mut bytes)?;
        Some(Self { location, root: Root::decode(bytes)? })
    }
}

/// What one segment occupies and how much of it is still referred to, in
/// bytes of whole records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentStat {
    pub(crate) len: u64,
    pub(crate) live: u64,
}

impl SegmentStat {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.put_u64_le(self.len);
        out.put_u64_le(self.live);
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self { len: take_u64(&mut bytes)?, live: take_u64(&mut bytes)? })
    }
}

/// Sums over the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Blocks that can be read.
    pub(crate) blocks: u64,
    /// The sum of their lengths.
    pub(crate) block_bytes: u64,
    /// Bytes of the records that remember released roots.
    pub(crate) released_bytes: u64,
}

/// Since when a block is held without a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    /// Seconds of Unix time.
    pub(crate) since: u64,
    /// It never had one: it was put then.
    pub(crate) is_new: bool,
}

impl Idle {
    /// The bit of the seconds that stands for [`Idle::is_new`].
    const NEW: u64 = 1 << 63;

    pub(crate) fn encode(self) -> [u8; 8] {
        let flag = if self.is_new { Self::NEW } else { 0 };
        ((self.since & !Self::NEW) | flag).to_le_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let value = u64::from_le_bytes(bytes.try_into().ok()?);
        Some(Self { since: value & !Self::NEW, is_new: value & Self::NEW != 0 })
    }
}

/// What the index knows of itself: up to where it has seen the segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) store: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) sequence: u64,
    pub(crate) next_walk: WalkId,
    pub(crate) sums: Sums,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56);
        out.put_u64_le(self.store);
        out.put_u32_le(self.segment);
        out.put_u32_le(self.offset);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.next_walk);
        out.put_u64_le(self.sums.blocks);
        out.put_u64_le(self.sums.block_bytes);
        out.put_u64_le(self.sums.released_bytes);
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        Some(Self {
            store: take_u64(bytes)?,
            segment: take_u32(bytes)?,
            offset: take_u32(bytes)?,
            sequence: take_u64(bytes)?,
            next_walk: take_u64(bytes)?,
            sums: Sums {
                blocks: take_u64(bytes)?,
                block_bytes: take_u64(bytes)?,
                released_bytes: take_u64(bytes)?,
            },
        })
    }
}

/// The key of a list chunk's record.
pub(crate) fn chunk_key(walk: WalkId, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&walk.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The walk and number of a list chunk's key.
pub(crate) fn parse_chunk_key(mut key: &[u8]) -> Option<(WalkId, u32)> {
    (key.len() == 12).then(|| (key.get_u64(), key.get_u32()))
}

/// Appends a multihash to the payload of a list chunk.
pub(crate) fn push_multihash(out: &mut Vec<u8>, multihash: &[u8]) {
    out.put_u8(
        u8::try_from(multihash.len()).expect("a multihash of 64 bytes of digest has at most 84 bytes"),
    );
    out.extend_from_slice(multihash);
}

/// The multihashes of a list chunk's payload, or `None` where it is malformed.
pub(crate) fn parse_chunk(mut payload: &[u8]) -> Option<Vec<Multihash>> {
    let mut multihashes = Vec::with_capacity(payload.len() / 35 + 1);
    while let Some((len, rest)) = payload.split_first() {
        let (bytes, rest) = rest.split_at_checked(usize::from(*len))?;
        multihashes.push(Multihash::from_bytes(bytes).ok()?);
        payload = rest;
    }
    Some(multihashes)
}

fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    bytes.try_get_u8().ok()
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    bytes.try_get_u32_le().ok()
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    bytes.try_get_u64_le().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: HeldList = HeldList { walk: 7, chunks: 2, blocks: 1025, bytes: 1 << 33 };

    #[test]
    fn roots_come_back() {
        let roots = [
            Root::default(),
            Root { held: Some(HELD), meta: b"meta".to_vec(), ..Root::default() },
            Root { current: Some(9), kept: Some(8), horizon: 4, ..Root::default() },
            Root { held: Some(HELD), current: Some(9), kept: Some(8), horizon: 1, meta: vec![0; 9] },
        ];
        for root in roots {
            let mut bytes = Vec::new();
            root.encode(&mut bytes);
            assert_eq!(Root::decode(&bytes), Some(root.clone()));
            let entry = RootEntry { location: Location { segment: 1, offset: 2, len: 3 }, root };
            assert_eq!(RootEntry::decode(&entry.encode()), Some(entry));
        }
    }

    #[test]
    fn truncated_values_are_refused() {
        let mut bytes = Vec::new();
        Root { held: Some(HELD), current: Some(9), ..Root::default() }.encode(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Root::decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(BlockEntry::decode(&[1, 0, 0]), None);
        assert_eq!(BlockEntry::decode(&[1, 0, 0, 0, 5, 0]), None);
        assert_eq!(Checkpoint::decode(&[0; 20]), None);
        assert_eq!(parse_chunk_key(&[0; 11]), None);
        assert_eq!(parse_chunk(&[5, 0x12, 0x20]), None);
    }

    #[test]
    fn idle_blocks_come_back() {
        for is_new in [false, true] {
            let idle = Idle { since: 1_800_000_000, is_new };
            assert_eq!(Idle::decode(&idle.encode()), Some(idle));
        }
        // As the index had it before it told new ones apart.
        let plain = 1_800_000_000u64.to_le_bytes();
        assert_eq!(Idle::decode(&plain), Some(Idle { since: 1_800_000_000, is_new: false }));
        assert_eq!(Idle::decode(&plain[1..]), None);
    }

    #[test]
    fn chunks_keep_order() {
        let list: Vec<_> = (0..3u8).map(|i| Multihash::wrap(0x12, &[i; 32]).unwrap()).collect();
        let mut payload = Vec::new();
        list.iter().for_each(|multihash| push_multihash(&mut payload, &multihash.to_bytes()));
        assert_eq!(parse_chunk(&payload), Some(list));
        assert_eq!(parse_chunk_key(&chunk_key(3, 4)), Some((3, 4)));
    }
}
