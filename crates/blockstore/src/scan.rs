//! Walking a segment from record to record.
//!
//! Heads are checked, payloads are hopped over unless they are asked for.
//! Where a head is damaged, the scan looks for the next intact one, byte by
//! byte, and reports the hole.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::io::AppendFile;
use crate::record::{self, HEAD_BYTES, Head, MAGIC};

/// How much is read at a time while hopping, in bytes: enough for some hundred
/// heads of tiny blocks, little beside a block of 256 KiB.
const WINDOW: usize = 16 << 10;

/// How much is read at a time while looking for the next intact head.
const SEARCH_WINDOW: usize = 1 << 20;

/// What a scan meets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record whose head is intact and whose payload lies within the file.
    Record {
        /// Where it begins.
        offset: u64,
        /// Its head.
        head: Head,
        /// Its key.
        key: Vec<u8>,
    },
    /// Bytes that are no record.
    Hole {
        /// Where they begin.
        from: u64,
        /// Where the next intact record begins, or the file ends.
        to: u64,
    },
}

/// A walk over one segment.
#[derive(Debug)]
pub(crate) struct Scan {
    file: Arc<dyn AppendFile>,
    seed: u32,
    len: u64,
    at: u64,
    sequence: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    /// Scans `file` from `at` on; `seed` is that of its segment.
    pub(crate) fn new(file: Arc<dyn AppendFile>, seed: u32, at: u64) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, seed, len, at, sequence: 0, window: Vec::new(), window_at: 0 })
    }

    /// The next record or hole, or `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        if self.at >= self.len {
            return Ok(None);
        }
        let offset = self.at;
        if let Some((head, key)) = self.intact_at(offset)? {
            self.at = offset + head.record_len();
            self.sequence = head.sequence;
            return Ok(Some(Found::Record { offset, head, key }));
        }
        self.at = self.search(offset + 1)?;
        Ok(Some(Found::Hole { from: offset, to: self.at }))
    }

    /// Whether the payload of a record that was found has its checksum.
    pub(crate) fn payload_is_intact(&self, offset: u64, head: &Head) -> io::Result<bool> {
        Ok(crc32fast::hash(&self.payload(offset, head)?) == head.payload_crc)
    }

    /// The payload of a record that was found, unchecked.
    pub(crate) fn payload(&self, offset: u64, head: &Head) -> io::Result<Vec<u8>> {
        let mut payload = vec![0; head.payload_len as usize];
        self.file.read_exact_at(&mut payload, offset + head.payload_start() as u64)?;
        Ok(payload)
    }

    /// The head and key at `offset`, where they are intact, follow the last
    /// record in sequence, and the payload lies within the file.
    fn intact_at(&mut self, offset: u64) -> io::Result<Option<(Head, Vec<u8>)>> {
        let Some(fixed) =
            self.bytes(offset, HEAD_BYTES)?.and_then(<[u8]>::first_chunk::<HEAD_BYTES>).copied()
        else {
            return Ok(None);
        };
        let Some(head) = Head::decode(&fixed) else {
            return Ok(None);
        };
        let fits = offset + head.record_len() <= self.len && head.sequence > self.sequence;
        let seed = self.seed;
        let key = match self.bytes(offset + HEAD_BYTES as u64, head.key_len.into())? {
            Some(key) if fits && record::head_is_intact(&fixed, key, seed) => key.to_vec(),
            _ => return Ok(None),
        };
        Ok(Some((head, key)))
    }

    /// The offset of the next intact record at or after `from`, or the end.
    fn search(&mut self, from: u64) -> io::Result<u64> {
        let mut from = from;
        let mut buffer = Vec::new();
        while from + HEAD_BYTES as u64 <= self.len {
            let take = (self.len - from).min(SEARCH_WINDOW as u64) as usize;
            buffer.resize(take, 0);
            self.file.read_exact_at(&mut buffer, from)?;
            for (at, _) in buffer.windows(MAGIC.len()).enumerate().filter(|(_, bytes)| **bytes == MAGIC) {
                if self.intact_at(from + at as u64)?.is_some() {
                    return Ok(from + at as u64);
                }
            }
            // A magic can lie across two windows.
            from += (take - (MAGIC.len() - 1)) as u64;
        }
        Ok(self.len)
    }

    /// `len` bytes at `offset`, or `None` where the file ends before.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset + len as u64 > self.len {
            return Ok(None);
        }
        let covered =
            offset >= self.window_at && offset + len as u64 <= self.window_at + self.window.len() as u64;
        if !covered {
            let take = (self.len - offset).min(WINDOW.max(len) as u64) as usize;
            self.window.resize(take, 0);
            self.window_at = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.window, offset) {
                self.window.clear();
                return if error.kind() == ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
            }
        }
        let start = (offset - self.window_at) as usize;
        Ok(self.window.get(start..start + len))
    }
}
