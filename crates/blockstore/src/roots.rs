//! Roots: their state, their lists, the release of references.
//!
//! A root's record holds its whole state, and of several the last one counts.
//! A list that no root has any more is *dead*; [`Inner::release_dead`] gives
//! its references back, chunk by chunk.

use crate::apply::Referred;
use crate::inner::Inner;
use crate::record::Kind;
use crate::segments::Read;
use crate::state::{HeldList, Location, Root, RootEntry, WalkId, chunk_key, parse_chunk};
use crate::writer::{Draft, Writer};
use crate::{Error, MAX_META_BYTES, MAX_ROOT_KEY_BYTES, Multihash};

impl Inner {
    /// Begins a walk: the root's record names it, and the list of an earlier
    /// unfinished one is kept until it ends.
    pub(crate) fn begin_walk(&self, key: &[u8]) -> Result<WalkId, Error> {
        let mut writer = self.lock_writer()?;
        let mut root = self.index.root(key)?.map(|entry| entry.root).unwrap_or_default();
        // Of two unfinished lists the longer one protects more; walks of the
        // same root go the same way, so that one is a prefix of the other.
        let longest =
            [root.kept, root.current].into_iter().flatten().map(|walk| Ok((self.index.chunks(walk)?, walk)));
        root.kept = longest.collect::<Result<Vec<_>, Error>>()?.into_iter().max().map(|(_, walk)| walk);
        let walk = writer.ledger.next_walk;
        writer.ledger.next_walk += 1;
        root.current = Some(walk);
        self.write_root(&mut writer, key, root)?;
        Ok(walk)
    }

    /// The root of a walk that goes on; the error where it was released.
    fn walked_root(&self, key: &[u8], walk: WalkId) -> Result<Root, Error> {
        match self.index.root(key)? {
            Some(entry) if entry.root.current == Some(walk) => Ok(entry.root),
            _ => Err(Error::Released),
        }
    }

    /// Appends one chunk of a walk's list.
    pub(crate) fn write_chunk(
        &self,
        root_key: &[u8],
        walk: WalkId,
        number: u32,
        payload: &[u8],
        list: &[Multihash],
    ) -> Result<Referred, Error> {
        let mut writer = self.lock_writer()?;
        self.walked_root(root_key, walk)?;
        let key = chunk_key(walk, number);
        let locations = self.append(&mut writer, &[Draft::new(Kind::Chunk, &key, payload)])?;
        let applied = self.apply(&mut writer).chunk(walk, number, locations[0], list);
        let referred = self.applied(applied)?;
        drop(writer);
        self.after_write()?;
        Ok(referred)
    }

    /// Makes the root held by the walk's list. Durable after a sync up to the
    /// returned position.
    pub(crate) fn hold(&self, key: &[u8], held: HeldList, meta: &[u8]) -> Result<u64, Error> {
        let mut writer = self.lock_writer()?;
        self.walked_root(key, held.walk)?;
        let root = Root { held: Some(held), meta: meta.to_vec(), ..Root::default() };
        self.write_root(&mut writer, key, root)
    }

    /// Ends a walk without holding its list. A root that was held before stays
    /// so; any other is released. A walk whose root was released has nothing
    /// to give up.
    pub(crate) fn give_up(&self, key: &[u8], walk: WalkId) -> Result<u64, Error> {
        let mut writer = self.lock_writer()?;
        let mut root = match self.walked_root(key, walk) {
            Err(Error::Released) => return Ok(writer.written),
            other => other?,
        };
        root.current = None;
        root.kept = None;
        root.horizon = if root.is_released() { writer.segment } else { 0 };
        self.write_root(&mut writer, key, root)
    }

    /// Releases a root, whatever its state. `None` where there is none.
    pub(crate) fn release_root(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let mut writer = self.lock_writer()?;
        if self.index.root(key)?.is_none_or(|entry| entry.root.is_released()) {
            return Ok(None);
        }
        let root = Root { horizon: writer.segment, ..Root::default() };
        self.write_root(&mut writer, key, root).map(Some)
    }

    /// Appends a root's record.
    fn write_root(&self, writer: &mut Writer, key: &[u8], root: Root) -> Result<u64, Error> {
        let mut payload = Vec::new();
        root.encode(&mut payload);
        let locations = self.append(writer, &[Draft::new(Kind::Root, key, &payload)])?;
        let applied = self.apply(writer).root(key, root, locations[0]);
        self.applied(applied)?;
        Ok(writer.written)
    }

    /// One chunk of a list.
    pub(crate) fn read_chunk(&self, walk: WalkId, number: u32) -> Result<Chunk, Error> {
        let mut last = None;
        loop {
            let Some(location) = self.index.chunk(walk, number)? else {
                return Ok(Chunk::Missing);
            };
            if let Read::Intact(payload) =
                self.segments.read(Kind::Chunk, &chunk_key(walk, number), location)?
            {
                return Ok(parse_chunk(&payload)
                    .map_or(Chunk::Damaged(location), |list| Chunk::Read(location, list)));
            }
            // Compaction may have moved it between the two reads.
            if last == Some(location) {
                return Ok(Chunk::Damaged(location));
            }
            last = Some(location);
        }
    }

    /// One chunk of a list that has to be there.
    pub(crate) fn expect_chunk(&self, walk: WalkId, number: u32) -> Result<Vec<Multihash>, Error> {
        match self.read_chunk(walk, number)? {
            Chunk::Read(_, list) => Ok(list),
            Chunk::Damaged(_) | Chunk::Missing => Err(damaged_part(number)),
        }
    }

    /// Gives back the references of all dead lists. The caller holds
    /// `maintenance`, so that no chunk moves meanwhile.
    pub(crate) fn release_dead(&self, should_stop: &impl Fn() -> bool) -> Result<(), Error> {
        for pair in self.index.pairs(b"d") {
            let (key, _) = pair?;
            let walk = key.get(1..).and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
            let walk = walk.ok_or_else(crate::index::malformed)?;
            for number in (0..self.index.chunks(walk)?).rev() {
                if should_stop() {
                    return Ok(());
                }
                self.release_chunk(walk, number)?;
            }
            let _writer = self.lock_writer()?;
            self.index.remove_walk(walk);
        }
        Ok(())
    }

    fn release_chunk(&self, walk: WalkId, number: u32) -> Result<(), Error> {
        let (location, list) = match self.read_chunk(walk, number)? {
            Chunk::Missing => return Ok(()),
            Chunk::Read(location, list) => (location, list),
            Chunk::Damaged(location) => {
                // What it referred to cannot be known, so that these blocks
                // stay until counts are made anew from the lists that are.
                tracing::error!(walk, number, "a released list is damaged; the index will be rebuilt");
                self.index.mark_for_rebuild();
                (location, Vec::new())
            }
        };
        let mut writer = self.lock_writer()?;
        let applied = self.apply(&mut writer).drop_chunk(walk, number, location, &list);
        self.applied(applied)?;
        drop(writer);
        self.after_write()
    }

    /// Held roots whose list is damaged are to be fetched again. Returns
    /// whether the walk's root was one.
    pub(crate) fn unhold(&self, walk: WalkId) -> Result<bool, Error> {
        for pair in self.index.pairs(b"r") {
            let (key, value) = pair?;
            let entry = RootEntry::decode(&value).ok_or_else(crate::index::malformed)?;
            if entry.root.held.is_some_and(|held| held.walk == walk) {
                let mut writer = self.lock_writer()?;
                let Some(mut root) = self.index.root(&key[1..])?.map(|entry| entry.root) else {
                    return Ok(false);
                };
                root.held = None;
                root.kept = root.kept.or(Some(walk));
                self.write_root(&mut writer, &key[1..], root)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What reading a list's chunk gave.
pub(crate) enum Chunk {
    /// Where it lies and what it names.
    Read(Location, Vec<Multihash>),
    /// Where it should lie.
    Damaged(Location),
    /// The list has no such chunk.
    Missing,
}

/// A chunk of a root's list cannot be read.
pub(crate) fn damaged_part(number: u32) -> Error {
    Error::Damaged { what: format!("part {number} of the list of a root") }
}

/// Refuses a root key that cannot be stored.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        1..=MAX_ROOT_KEY_BYTES => Ok(()),
        len => Err(Error::BadRootKey { len }),
    }
}

/// Refuses a meta that cannot be stored.
pub(crate) fn check_meta(meta: &[u8]) -> Result<(), Error> {
    match meta.len() {
        0..=MAX_META_BYTES => Ok(()),
        len => Err(Error::MetaTooLong { len }),
    }
}
