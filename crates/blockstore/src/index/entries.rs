//! What the index has under which key.

use super::Index;
use crate::Error;
use crate::state::{BlockEntry, Checkpoint, Idle, Location, RootEntry, SegmentStat, WalkId, chunk_key};

/// Typed access.
impl Index {
    pub(crate) fn block(&self, multihash: &[u8]) -> Result<Option<BlockEntry>, Error> {
        self.get_as(&Key::new(b'b', multihash), BlockEntry::decode)
    }

    /// `old` is what [`Index::block`] has answered.
    pub(crate) fn set_block(&self, multihash: &[u8], old: Option<BlockEntry>, entry: BlockEntry) {
        let key = Key::new(b'b', multihash);
        if old.is_none() { self.add(&key, &entry.encode()) } else { self.set(&key, &entry.encode()) }
    }

    pub(crate) fn remove_block(&self, multihash: &[u8]) {
        self.remove(&Key::new(b'b', multihash));
    }

    /// Notes that a held block has no reference. It had one until now, or did
    /// not exist.
    pub(crate) fn add_idle(&self, multihash: &[u8], idle: Idle) {
        self.add(&Key::new(b'i', multihash), &idle.encode());
    }

    pub(crate) fn remove_idle(&self, multihash: &[u8]) {
        self.remove(&Key::new(b'i', multihash));
    }

    pub(crate) fn set_lost(&self, multihash: &[u8]) {
        self.set(&Key::new(b'x', multihash), &[]);
    }

    pub(crate) fn remove_lost(&self, multihash: &[u8]) {
        self.remove(&Key::new(b'x', multihash));
    }

    pub(crate) fn root(&self, key: &[u8]) -> Result<Option<RootEntry>, Error> {
        self.get_as(&Key::new(b'r', key), RootEntry::decode)
    }

    pub(crate) fn set_root(&self, key: &[u8], entry: &RootEntry) {
        self.set(&Key::new(b'r', key), &entry.encode());
    }

    pub(crate) fn remove_root(&self, key: &[u8]) {
        self.remove(&Key::new(b'r', key));
    }

    /// How many chunks a walk's list has.
    pub(crate) fn chunks(&self, walk: WalkId) -> Result<u32, Error> {
        let decode = |value: &[u8]| value.try_into().ok().map(u32::from_le_bytes);
        Ok(self.get_as(&Key::new(b'w', &walk.to_be_bytes()), decode)?.unwrap_or(0))
    }

    pub(crate) fn set_chunks(&self, walk: WalkId, chunks: u32) {
        self.set(&Key::new(b'w', &walk.to_be_bytes()), &chunks.to_le_bytes());
    }

    pub(crate) fn remove_walk(&self, walk: WalkId) {
        self.remove(&Key::new(b'w', &walk.to_be_bytes()));
        self.remove(&Key::new(b'd', &walk.to_be_bytes()));
    }

    /// Notes that a walk's list is to be released.
    pub(crate) fn set_dead(&self, walk: WalkId) {
        self.set(&Key::new(b'd', &walk.to_be_bytes()), &[]);
    }

    pub(crate) fn chunk(&self, walk: WalkId, number: u32) -> Result<Option<Location>, Error> {
        self.get_as(&Key::new(b'l', &chunk_key(walk, number)), Location::decode)
    }

    pub(crate) fn set_chunk(&self, walk: WalkId, number: u32, location: Location) {
        let mut value = Vec::with_capacity(12);
        location.encode(&mut value);
        self.set(&Key::new(b'l', &chunk_key(walk, number)), &value);
    }

    pub(crate) fn remove_chunk(&self, walk: WalkId, number: u32) {
        self.remove(&Key::new(b'l', &chunk_key(walk, number)));
    }

    pub(crate) fn set_segment(&self, segment: u32, stat: SegmentStat) {
        self.set(&Key::new(b's', &segment.to_be_bytes()), &stat.encode());
    }

    pub(crate) fn remove_segment(&self, segment: u32) {
        self.remove(&Key::new(b's', &segment.to_be_bytes()));
    }

    /// Notes that a segment may be shorter than its entry says.
    pub(crate) fn set_cut(&self, segment: u32) {
        self.set(&Key::new(b't', &segment.to_be_bytes()), &[]);
    }

    pub(crate) fn remove_cut(&self, segment: u32) {
        self.remove(&Key::new(b't', &segment.to_be_bytes()));
    }

    pub(crate) fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.get_as(&Key::new(b'm', &[]), Checkpoint::decode)
    }

    pub(crate) fn set_checkpoint(&self, checkpoint: &Checkpoint) {
        self.set(&Key::new(b'm', &[]), &checkpoint.encode());
    }
}

/// A key on the stack: a letter and what follows it.
pub(super) struct Key {
    bytes: [u8; 1 + crate::MAX_ROOT_KEY_BYTES],
    len: usize,
}

impl Key {
    /// `rest` is cut to the length of the longest key there is, a root's,
    /// which is checked where it enters.
    pub(super) fn new(letter: u8, rest: &[u8]) -> Self {
        let mut bytes = [0; 1 + crate::MAX_ROOT_KEY_BYTES];
        bytes[0] = letter;
        let len = rest.len().min(crate::MAX_ROOT_KEY_BYTES);
        bytes[1..=len].copy_from_slice(&rest[..len]);
        Self { bytes, len: len + 1 }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
