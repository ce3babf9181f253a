//! A record of a segment, as bytes.
//!
//! ```text
//! offset  bytes  field, integers little-endian
//!      0      4  magic "pfb1"
//!      4      1  kind: 1 block, 2 list chunk, 3 root
//!      5      1  0
//!      6      2  length of the key
//!      8      4  length of the payload
//!     12      4  CRC-32 of the payload
//!     16      8  sequence: grows from record to record
//!     24      4  synced: the segment was durable up to this offset when the
//!                record was written
//!     28      4  CRC-32 of bytes 0 to 28 and of the key, seeded with the
//!                store's id and the segment's number
//!     32         key, payload
//! ```
//!
//! The head has a checksum of its own, so that a scan can trust the lengths
//! and hop over payloads that it need not read. The seed keeps a record that
//! belongs elsewhere (another store's, a deleted segment's in a reused extent)
//! from being taken for one of this segment.

use crc32fast::Hasher;

/// Length of the fixed part of a record's head.
pub(crate) const HEAD_BYTES: usize = 32;

/// What a record begins with.
pub(crate) const MAGIC: [u8; 4] = *b"pfb1";

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Key: multihash. Payload: the block.
    Block,
    /// Key: walk and chunk number. Payload: multihashes.
    Chunk,
    /// Key: root key. Payload: the root's whole state.
    Root,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::Chunk => 2,
            Self::Root => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Block),
            2 => Some(Self::Chunk),
            3 => Some(Self::Root),
            _ => None,
        }
    }
}

/// The fixed part of a record's head, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) key_len: u16,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) sequence: u64,
    pub(crate) synced: u32,
}

impl Head {
    /// Length of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.key_len.into(), self.payload_len.into())
    }

    /// Offset of the payload within the record.
    pub(crate) fn payload_start(&self) -> usize {
        HEAD_BYTES + usize::from(self.key_len)
    }

    /// Appends head and key to `buffer`.
    pub(crate) fn encode(&self, key: &[u8], seed: u32, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&[self.kind.code(), 0]);
        buffer.extend_from_slice(&self.key_len.to_le_bytes());
        buffer.extend_from_slice(&self.payload_len.to_le_bytes());
        buffer.extend_from_slice(&self.payload_crc.to_le_bytes());
        buffer.extend_from_slice(&self.sequence.to_le_bytes());
        buffer.extend_from_slice(&self.synced.to_le_bytes());
        let crc = head_crc(&buffer[start..], key, seed);
        buffer.extend_from_slice(&crc.to_le_bytes());
        buffer.extend_from_slice(key);
    }

    /// Decodes the fixed part; the checksum is not looked at yet, because the
    /// length of the key has to be known first.
    pub(crate) fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        if bytes[..4] != MAGIC || bytes[5] != 0 {
            return None;
        }
        Some(Self {
            kind: Kind::from_code(bytes[4])?,
            key_len: u16::from_le_bytes([bytes[6], bytes[7]]),
            payload_len: le_u32(bytes, 8),
            payload_crc: le_u32(bytes, 12),
            sequence: u64::from(le_u32(bytes, 16)) | u64::from(le_u32(bytes, 20)) << 32,
            synced: le_u32(bytes, 24),
        })
    }
}

/// Whether the checksum of a head and its key is right.
pub(crate) fn head_is_intact(head: &[u8; HEAD_BYTES], key: &[u8], seed: u32) -> bool {
    head_crc(&head[..28], key, seed) == le_u32(head, 28)
}

/// Length of a record with a key and a payload of these lengths.
pub(crate) fn record_len(key_len: u64, payload_len: u64) -> u64 {
    HEAD_BYTES as u64 + key_len + payload_len
}

/// What the heads of one segment are seeded with.
pub(crate) fn seed(store: u64, segment: u32) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&store.to_le_bytes());
    hasher.update(&segment.to_le_bytes());
    hasher.finalize()
}

fn head_crc(fixed: &[u8], key: &[u8], seed: u32) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(fixed);
    hasher.update(key);
    hasher.finalize()
}

fn le_u32(bytes: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            kind: Kind::Chunk,
            key_len: 3,
            payload_len: 70_000,
            payload_crc: 7,
            sequence: 1 << 40,
            synced: 9,
        }
    }

    fn encoded(seed: u32) -> Vec<u8> {
        let mut buffer = Vec::new();
        head().encode(b"key", seed, &mut buffer);
        buffer
    }

    #[test]
    fn a_head_comes_back() {
        let bytes = encoded(5);
        let (fixed, key) = bytes.split_first_chunk::<HEAD_BYTES>().unwrap();
        assert_eq!(Head::decode(fixed), Some(head()));
        assert!(head_is_intact(fixed, key, 5));
        assert_eq!(head().record_len(), 32 + 3 + 70_000);
    }

    #[test]
    fn any_flipped_bit_and_any_other_segment_is_noticed() {
        let bytes = encoded(5);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (fixed, key) = flipped.split_first_chunk::<HEAD_BYTES>().unwrap();
            assert!(Head::decode(fixed).is_none() || !head_is_intact(fixed, key, 5), "bit {bit}");
        }
        let (fixed, key) = bytes.split_first_chunk::<HEAD_BYTES>().unwrap();
        assert!(!head_is_intact(fixed, key, 6));
        assert_ne!(seed(1, 2), seed(1, 3));
        assert_ne!(seed(1, 2), seed(2, 2));
    }
}
