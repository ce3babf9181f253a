//! Lists that are read piece by piece: the blocks of a root, and the roots.

use std::sync::Arc;

use crate::index::{Pairs, malformed};
use crate::inner::Inner;
use crate::state::{HeldList, RootEntry, WalkId};
use crate::{Error, Multihash, RootInfo};

/// The multihashes of a root in the order of its walk. Ends with an error
/// where the root is released or fetched anew meanwhile.
#[derive(Debug)]
pub struct List {
    inner: Arc<Inner>,
    walk: WalkId,
    chunks: std::ops::Range<u32>,
    chunk: std::vec::IntoIter<Multihash>,
}

impl List {
    pub(crate) fn new(inner: Arc<Inner>, held: HeldList) -> Self {
        Self { inner, walk: held.walk, chunks: 0..held.chunks, chunk: Vec::new().into_iter() }
    }
}

impl Iterator for List {
    type Item = Result<Multihash, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(multihash) = self.chunk.next() {
                return Some(Ok(multihash));
            }
            match self.inner.expect_chunk(self.walk, self.chunks.next()?) {
                Ok(chunk) => self.chunk = chunk.into_iter(),
                Err(error) => {
                    self.chunks = 0..0;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// All roots by key, with their state.
pub struct Roots(Pairs);

impl Roots {
    /// The roots of these pairs of the index.
    pub(crate) fn new(pairs: Pairs) -> Self {
        Self(pairs)
    }
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

impl Iterator for Roots {
    type Item = Result<(Vec<u8>, RootInfo), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, value) = match self.0.next()? {
                Ok(pair) => pair,
                Err(error) => return Some(Err(error)),
            };
            match RootEntry::decode(&value) {
                None => return Some(Err(malformed())),
                Some(entry) if entry.root.is_released() => {}
                Some(entry) => {
                    let info = RootInfo::of(entry.root.held, &entry.root.meta);
                    return Some(Ok((key[1..].to_vec(), info)));
                }
            }
        }
    }
}
