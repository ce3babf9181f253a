//! UnixFS: which file or directory a block is a part of.
//!
//! A gateway walks down a path: it decodes a block with [`Node::decode`],
//! looks a name up in a [`Directory`] or a [`Shard`], or asks a [`File`]
//! which of its children cover a range of bytes. What a node says of its
//! children's sizes is taken as the map of the file, never as the size of
//! something to allocate, and a child that turns out to be of another size is
//! an error where it is read. Modes and times are left aside.

mod file;
mod shard;

pub use file::{Cover, File, Part};
pub use shard::{Found, Shard, ShardError, murmur3_x64_64};

use crate::content::Cid;
use crate::links::{BlockError, Codec, dag_pb};
use crate::policy::{CodecName, MAX_BLOCK};
use crate::protobuf::{Reader, Value};

/// The most links of a node. A block of 2 MiB holds fewer than this many with
/// digests of 20 bytes or more; what exceeds it is made of tiny identity
/// CIDs, each of which would take twenty times its size in memory.
pub const MAX_LINKS: usize = 1 << 17;

/// Why a block is no part of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnixFsError {
    /// The block has another codec than raw or dag-pb.
    #[error("a block with {} is no file or directory", CodecName(*.0))]
    Codec(u64),
    /// The block is not valid in its codec.
    #[error("{0}")]
    Block(#[from] BlockError),
    /// The node has no UnixFS data.
    #[error("the dag-pb node holds no UnixFS data")]
    NotUnixFs,
    /// The UnixFS data cannot be read.
    #[error("the UnixFS data is not valid: {0}")]
    Data(&'static str),
    /// The type is unknown, or one that nobody writes.
    #[error("the UnixFS type {0} is not supported")]
    Type(u64),
    /// More than [`MAX_LINKS`] links.
    #[error("the node has more than {MAX_LINKS} links")]
    TooManyLinks,
}

/// A decoded block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file, or a part of one.
    File(File),
    /// A directory with all of its entries.
    Directory(Directory),
    /// A part of a directory that is spread over many blocks.
    Shard(Shard),
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    entries: Vec<Entry>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as a rule UTF-8.
    pub name: Box<[u8]>,
    /// What it names.
    pub cid: Cid,
}

impl Directory {
    /// The entries in the order of the block.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry with this name, the first of several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cid> {
        self.entries.iter().find(|entry| &*entry.name == name.as_bytes()).map(|entry| &entry.cid)
    }
}

impl Node {
    /// Decodes a block whose bytes were verified.
    ///
    /// # Errors
    /// When the block is not valid, or not a part of a file or directory.
    pub fn decode(codec: u64, block: &[u8]) -> Result<Self, UnixFsError> {
        if block.len() > MAX_BLOCK {
            return Err(BlockError::TooLarge(block.len()).into());
        }
        match Codec::of(codec) {
            Some(Codec::Raw) => Ok(Self::File(File::leaf(block.to_vec()))),
            Some(Codec::DagPb) => decode_pb(block),
            Some(Codec::DagCbor | Codec::DagJson) | None => Err(UnixFsError::Codec(codec)),
        }
    }
}

fn decode_pb(block: &[u8]) -> Result<Node, UnixFsError> {
    let mut data = None;
    let mut entries = Vec::new();
    let mut too_many = false;
    dag_pb::walk(block, &mut |part| match part {
        dag_pb::Part::Data(bytes) => data = Some(bytes),
        dag_pb::Part::Link(_) if entries.len() == MAX_LINKS => too_many = true,
        dag_pb::Part::Link(link) => {
            entries.push(Entry { name: link.name.unwrap_or_default().into(), cid: link.cid });
        }
    })?;
    if too_many {
        return Err(UnixFsError::TooManyLinks);
    }
    let data = Data::decode(data.ok_or(UnixFsError::NotUnixFs)?)?;
    match data.kind {
        TYPE_RAW | TYPE_FILE => File::of(data, entries).map(Node::File),
        TYPE_DIRECTORY => Ok(Node::Directory(Directory { entries })),
        TYPE_SYMLINK => Ok(Node::Symlink(data.bytes.to_vec())),
        TYPE_SHARD => Shard::of(&data, entries).map(Node::Shard),
        other => Err(UnixFsError::Type(other)),
    }
}

const TYPE_RAW: u64 = 0;
const TYPE_DIRECTORY: u64 = 1;
const TYPE_FILE: u64 = 2;
const TYPE_SYMLINK: u64 = 4;
const TYPE_SHARD: u64 = 5;

/// The UnixFS message in a node's data.
#[derive(Debug, Default)]
struct Data<'a> {
    kind: u64,
    bytes: &'a [u8],
    file_size: Option<u64>,
    block_sizes: Vec<u64>,
    hash_type: Option<u64>,
    fanout: Option<u64>,
}

impl<'a> Data<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, UnixFsError> {
        let mut data = Self::default();
        let mut kind = None;
        let mut reader = Reader::new(bytes, 0);
        while let Some(field) = reader.next().map_err(|_| UnixFsError::Data("malformed protobuf"))? {
            match (field.number, field.value) {
                (1, Value::Varint(number)) => kind = Some(number),
                (2, Value::Bytes(bytes, _)) => data.bytes = bytes,
                (3, Value::Varint(number)) => data.file_size = Some(number),
                (4, Value::Varint(number)) => data.push_size(number)?,
                (4, Value::Bytes(packed, _)) => data.push_sizes(packed)?,
                (5, Value::Varint(number)) => data.hash_type = Some(number),
                (6, Value::Varint(number)) => data.fanout = Some(number),
                (1..=6, _) => return Err(UnixFsError::Data("a field of the wrong type")),
                // Mode, time, and what later versions bring.
                _ => {}
            }
        }
        data.kind = kind.ok_or(UnixFsError::NotUnixFs)?;
        Ok(data)
    }

    fn push_sizes(&mut self, packed: &[u8]) -> Result<(), UnixFsError> {
        let mut at = 0;
        while at < packed.len() {
            let size = crate::protobuf::varint(packed, &mut at);
            self.push_size(size.map_err(|_| UnixFsError::Data("malformed block sizes"))?)?;
        }
        Ok(())
    }

    fn push_size(&mut self, size: u64) -> Result<(), UnixFsError> {
        if self.block_sizes.len() == MAX_LINKS {
            return Err(UnixFsError::TooManyLinks);
        }
        self.block_sizes.push(size);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
