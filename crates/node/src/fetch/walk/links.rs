//! The links of one block, in order of appearance, in the least memory.
//!
//! A parsed CID takes 160 bytes, its binary form about 36. A block of 2 MiB can
//! hold fifty thousand links, and hundreds of blocks wait in a walk at once,
//! so that the binary form is what is kept.

use pinfold_core::content::Cid;

/// Links of one block, in order of appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Links {
    /// Appends a link. Version and base do not matter to a walk: it goes by
    /// codec and multihash, so that every link is kept as a CIDv1.
    pub(crate) fn push(&mut self, cid: &Cid) {
        let normal = normal(cid);
        normal.write_bytes(&mut self.bytes).expect("writing to a vector cannot fail");
        // A block is at most 2 MiB, and no link grows by more than a byte.
        self.ends.push(u32::try_from(self.bytes.len()).expect("links of one block exceed 4 GiB"));
    }

    /// How many.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).expect("push counts in u32")
    }

    /// The link at a position below [`len`](Self::len).
    pub(crate) fn get(&self, index: u32) -> Cid {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let end = self.ends[index] as usize;
        Cid::read_bytes(&self.bytes[start..end]).expect("written by push")
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Gives back what growing took too much.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl FromIterator<Cid> for Links {
    fn from_iter<I: IntoIterator<Item = Cid>>(cids: I) -> Self {
        let mut links = Self::default();
        cids.into_iter().for_each(|cid| links.push(&cid));
        links
    }
}

/// The same content as a CIDv1: what walks, wants and sets compare by.
pub(crate) fn normal(cid: &Cid) -> Cid {
    Cid::new_v1(cid.codec(), *cid.hash())
}
