//! Files: bytes of their own, then children in order.

use std::ops::Range;

use super::{Data, Entry, UnixFsError};
use crate::content::Cid;

/// A file, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    bytes: Vec<u8>,
    /// Each with the offset in this node at which it ends.
    children: Vec<(Cid, u64)>,
}

/// What of a file covers a range of its bytes, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover<'a> {
    /// Bytes in the node itself; they come first.
    pub inline: &'a [u8],
    /// Children that overlap the range.
    pub parts: Vec<Part>,
}

/// A child and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The child.
    pub cid: Cid,
    /// How many bytes it must have. When it has another size, the file is
    /// not valid, and reading ends there.
    pub size: u64,
    /// The wanted bytes, counted from the child's first.
    pub range: Range<u64>,
}

impl File {
    pub(super) fn leaf(bytes: Vec<u8>) -> Self {
        Self { bytes, children: Vec::new() }
    }

    pub(super) fn of(data: Data<'_>, links: Vec<Entry>) -> Result<Self, UnixFsError> {
        if data.block_sizes.len() != links.len() {
            return Err(UnixFsError::Data("not one size for each child"));
        }
        let mut end = data.bytes.len() as u64;
        let mut children = Vec::with_capacity(links.len());
        for (link, size) in links.into_iter().zip(data.block_sizes) {
            end = end.checked_add(size).ok_or(UnixFsError::Data("sizes beyond 64 bits"))?;
            children.push((link.cid, end));
        }
        if data.file_size.is_some_and(|size| size != end) {
            return Err(UnixFsError::Data("the file's size is not the sum of its parts"));
        }
        Ok(Self { bytes: data.bytes.to_vec(), children })
    }

    /// The size that the node says, in bytes. That of a file without children
    /// is a fact; otherwise it holds when every child has the size that it is
    /// said to have.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.children.last().map_or(self.bytes.len() as u64, |(_, end)| *end)
    }

    /// The bytes in the node itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The children in order.
    pub fn children(&self) -> impl Iterator<Item = &Cid> {
        self.children.iter().map(|(cid, _)| cid)
    }

    /// What covers a range, which is cut to the file's size. Children of no
    /// bytes are left out.
    #[must_use]
    pub fn cover(&self, range: Range<u64>) -> Cover<'_> {
        let inline = self.bytes.len() as u64;
        let (from, to) = (range.start.min(inline) as usize, range.end.min(inline) as usize);
        let first = self.children.partition_point(|(_, end)| *end <= range.start);
        let mut parts = Vec::new();
        for index in first..self.children.len() {
            let (cid, end) = &self.children[index];
            let start = index.checked_sub(1).map_or(inline, |before| self.children[before].1);
            if start >= range.end {
                break;
            }
            let wanted = range.start.max(start) - start..range.end.min(*end) - start;
            if !wanted.is_empty() {
                parts.push(Part { cid: *cid, size: end - start, range: wanted });
            }
        }
        Cover { inline: &self.bytes[from..to.max(from)], parts }
    }
}
