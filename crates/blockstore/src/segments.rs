//! The segment files: their names, their open handles, reading a record.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::Error;
use crate::io::{AppendFile, DirChange, Io};
use crate::record::{self, HEAD_BYTES, Head, Kind};
use crate::state::Location;

/// The most segments that are kept open for reading. A terabyte has 4,096;
/// the usual limit of a process is 1,024 descriptors, most of them for peers.
const MAX_OPEN: usize = 64;

/// The files of one store's segments.
#[derive(Debug)]
pub(crate) struct Segments {
    io: Arc<dyn Io>,
    store: u64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<u32, (Arc<dyn AppendFile>, u64)>,
    uses: u64,
}

/// What reading a record gave.
#[derive(Debug)]
pub(crate) enum Read {
    /// The record's payload, its checksums right.
    Intact(Bytes),
    /// There is no such record at that place, or not any more.
    Damaged(&'static str),
}

impl Segments {
    pub(crate) fn new(io: Arc<dyn Io>, store: u64) -> Self {
        Self { io, store, open: Mutex::default() }
    }

    /// What the heads in a segment are seeded with.
    pub(crate) fn seed(&self, segment: u32) -> u32 {
        record::seed(self.store, segment)
    }

    /// The numbers of the segments that exist, ascending.
    pub(crate) fn list(&self) -> Result<Vec<u32>, Error> {
        let names = self.io.list().map_err(|source| self.error("list", "", source))?;
        let mut segments: Vec<u32> = names.iter().filter_map(|name| parse_name(name)).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    /// Creates a segment; it exists durably when this returns.
    pub(crate) fn create(&self, segment: u32) -> Result<Arc<dyn AppendFile>, Error> {
        let file = self.io.create(&name(segment)).map_err(|source| self.failed("create", segment, source))?;
        if let Err(error) = self.sync_dir(DirChange::Created) {
            // Best effort: an empty segment left behind does no harm.
            let _ = self.io.remove(&name(segment));
            return Err(error);
        }
        self.remember(segment, &file);
        Ok(file)
    }

    /// The segment's file, opened if it is not.
    pub(crate) fn file(&self, segment: u32) -> Result<Arc<dyn AppendFile>, Error> {
        if let Some(file) = self.remembered(segment) {
            return Ok(file);
        }
        let file = self.io.open(&name(segment)).map_err(|source| self.failed("open", segment, source))?;
        self.remember(segment, &file);
        Ok(file)
    }

    /// Deletes a segment, durably.
    pub(crate) fn delete(&self, segment: u32) -> Result<(), Error> {
        self.open.lock().files.remove(&segment);
        match self.io.remove(&name(segment)) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(self.failed("delete", segment, source))
            }
            _ => self.sync_dir(DirChange::Removed),
        }
    }

    /// Reads the record of `kind` and `key` at `location`, all checksums
    /// checked: one read of exactly its length.
    pub(crate) fn read(&self, kind: Kind, key: &[u8], location: Location) -> Result<Read, Error> {
        let file = match self.file(location.segment) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(Read::Damaged("its segment is gone"));
            }
            other => other?,
        };
        let start = HEAD_BYTES + key.len();
        let mut buffer = vec![0; start + location.len as usize];
        match file.read_exact_at(&mut buffer, location.offset.into()) {
            Err(source) if source.kind() == ErrorKind::UnexpectedEof => {
                return Ok(Read::Damaged("its segment ends before it does"));
            }
            other => other.map_err(|source| self.failed("read", location.segment, source))?,
        }
        Ok(match self.defect(kind, key, location, &buffer) {
            Some(defect) => Read::Damaged(defect),
            None => Read::Intact(Bytes::from(buffer).slice(start..)),
        })
    }

    /// What a record is that the system cannot read: damaged, where another
    /// part of its segment can be read. Where nothing can, the disk is gone,
    /// and what it holds may come back with it.
    ///
    /// # Errors
    /// The one given, in that case, and where it is no failure to read.
    pub(crate) fn unreadable(&self, segment: u32, error: Error) -> Result<&'static str, Error> {
        let is_read = matches!(error, Error::Io { action: "read", .. });
        if is_read && self.has_readable_end(segment) { Ok("it cannot be read") } else { Err(error) }
    }

    fn has_readable_end(&self, segment: u32) -> bool {
        let Ok(file) = self.file(segment) else { return false };
        let last = file.len().unwrap_or_default().saturating_sub(1);
        [0, last].iter().any(|at| file.read_exact_at(&mut [0], *at).is_ok())
    }

    /// What is wrong with a record's bytes.
    fn defect(&self, kind: Kind, key: &[u8], location: Location, bytes: &[u8]) -> Option<&'static str> {
        let (fixed, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let (stored_key, payload) = rest.split_at(key.len());
        let Some(head) = Head::decode(fixed) else {
            return Some("its head is damaged");
        };
        let is_ours = head.kind == kind
            && usize::from(head.key_len) == key.len()
            && head.payload_len == location.len
            && stored_key == key;
        if !is_ours || !record::head_is_intact(fixed, key, self.seed(location.segment)) {
            return Some("its head is damaged");
        }
        (crc32fast::hash(payload) != head.payload_crc).then_some("its checksum is wrong")
    }

    /// An error of an operation on a segment.
    pub(crate) fn failed(&self, action: &'static str, segment: u32, source: std::io::Error) -> Error {
        self.error(action, &name(segment), source)
    }

    fn error(&self, action: &'static str, name: &str, source: std::io::Error) -> Error {
        let path = self.io.path(name);
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull { path },
            _ => Error::Io { action, path, source },
        }
    }

    fn sync_dir(&self, change: DirChange) -> Result<(), Error> {
        self.io.sync_dir(change).map_err(|source| self.error("sync", "", source))
    }

    fn remembered(&self, segment: u32) -> Option<Arc<dyn AppendFile>> {
        let mut open = self.open.lock();
        open.uses += 1;
        let uses = open.uses;
        let (file, used) = open.files.get_mut(&segment)?;
        *used = uses;
        Some(Arc::clone(file))
    }

    fn remember(&self, segment: u32, file: &Arc<dyn AppendFile>) {
        let mut open = self.open.lock();
        open.uses += 1;
        let uses = open.uses;
        open.files.insert(segment, (Arc::clone(file), uses));
        if open.files.len() > MAX_OPEN {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(segment, _)| *segment);
            oldest.and_then(|oldest| open.files.remove(&oldest));
        }
    }
}

/// A segment's file name.
fn name(segment: u32) -> String {
    format!("{segment:08}.seg")
}

fn parse_name(name: &str) -> Option<u32> {
    name.strip_suffix(".seg")?.parse().ok()
}
