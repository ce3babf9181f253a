//! The end of the log: one writer at a time appends here.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::Error;
use crate::io::AppendFile;
use crate::ledger::Ledger;
use crate::record::{self, Head, Kind};
use crate::segments::Segments;
use crate::state::Location;

/// Payloads below this, in bytes, are copied next to their heads: cheaper than
/// one more slice for the system call.
const COPIED_BYTES: usize = 4096;

/// The staging buffer is given back above this, in bytes.
const STAGING_KEPT: usize = 1 << 20;

/// A record to be appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) payload_crc: u32,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(kind: Kind, key: &'a [u8], payload: &'a [u8]) -> Self {
        Self { kind, key, payload, payload_crc: crc32fast::hash(payload) }
    }

    /// Length of the record.
    pub(crate) fn len(&self) -> u64 {
        record::record_len(self.key.len() as u64, self.payload.len() as u64)
    }
}

/// The open segment and the sums; what has it locked may append.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) file: Arc<dyn AppendFile>,
    pub(crate) segment: u32,
    /// Length of the open segment.
    pub(crate) len: u64,
    /// Bytes appended since the store was opened, over all segments.
    pub(crate) written: u64,
    pub(crate) ledger: Ledger,
    staging: Vec<u8>,
}

/// A piece of what is to be written.
enum Part<'a> {
    Staged(Range<usize>),
    Payload(&'a [u8]),
}

impl Writer {
    pub(crate) fn new(file: Arc<dyn AppendFile>, segment: u32, len: u64, ledger: Ledger) -> Self {
        Self { file, segment, len, written: 0, ledger, staging: Vec::new() }
    }

    /// Appends `drafts` with one write; `synced` is the length up to which the
    /// open segment is durable. After an error nothing of them is in the file,
    /// or, where even that fails, the error says that the writer is `spoilt`.
    pub(crate) fn append(
        &mut self,
        segments: &Segments,
        drafts: &[Draft<'_>],
        synced: u32,
    ) -> Result<Vec<Location>, Failure> {
        let seed = segments.seed(self.segment);
        let mut staging = std::mem::take(&mut self.staging);
        let (parts, locations) = self.stage(drafts, seed, synced, &mut staging);
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .map(|part| match part {
                Part::Staged(range) => IoSlice::new(&staging[range.clone()]),
                Part::Payload(payload) => IoSlice::new(payload),
            })
            .collect();
        let result = self.file.append(&mut slices);
        staging.clear();
        if staging.capacity() <= STAGING_KEPT {
            self.staging = staging;
        }
        if let Err(source) = result {
            let error = segments.failed("append to", self.segment, source);
            let spoilt = self.file.truncate(self.len).is_err();
            return Err(Failure { error, spoilt });
        }
        let bytes: u64 = drafts.iter().map(Draft::len).sum();
        self.len += bytes;
        self.written += bytes;
        self.ledger.sequence += drafts.len() as u64;
        self.ledger.set_len(self.segment, self.len);
        Ok(locations)
    }

    /// Lays out heads, keys and small payloads in `staging`.
    fn stage<'a>(
        &self,
        drafts: &[Draft<'a>],
        seed: u32,
        synced: u32,
        staging: &mut Vec<u8>,
    ) -> (Vec<Part<'a>>, Vec<Location>) {
        let mut parts = Vec::new();
        let mut locations = Vec::with_capacity(drafts.len());
        let (mut staged, mut offset) = (0, self.len);
        for (draft, sequence) in drafts.iter().zip(self.ledger.sequence + 1..) {
            let head = Head {
                kind: draft.kind,
                key_len: u16::try_from(draft.key.len()).expect("keys have at most 256 bytes"),
                payload_len: u32::try_from(draft.payload.len()).expect("payloads have at most 4 MiB"),
                payload_crc: draft.payload_crc,
                sequence,
                synced,
            };
            head.encode(draft.key, seed, staging);
            locations.push(Location {
                segment: self.segment,
                offset: u32::try_from(offset).expect("segments are closed before 4 GiB"),
                len: head.payload_len,
            });
            offset += head.record_len();
            if draft.payload.len() < COPIED_BYTES {
                staging.extend_from_slice(draft.payload);
            } else {
                parts.push(Part::Staged(staged..staging.len()));
                parts.push(Part::Payload(draft.payload));
                staged = staging.len();
            }
        }
        if staged < staging.len() {
            parts.push(Part::Staged(staged..staging.len()));
        }
        (parts, locations)
    }
}

/// A failed append.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// What was half written could not be cut off.
    pub(crate) spoilt: bool,
}
