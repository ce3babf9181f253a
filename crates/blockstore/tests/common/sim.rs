//! A disk that forgets: what was not synced survives a power loss in part, by
//! sectors and in any order, or not at all. It can also refuse to work.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use pinfold_blockstore::io::{AppendFile, DirChange, Io, SyncMoment};

/// A small generator, so that a seed names a run.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A kind of sync, to be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    File(SyncMoment),
    Dir(DirChange),
}

/// What a disk refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// No space for appends beyond so many bytes in all files.
    pub(crate) space: Option<u64>,
    /// Every append fails, after half of it.
    pub(crate) append: bool,
    /// Every sync of a file fails, and drops what was not durable.
    pub(crate) sync: bool,
    /// Every read fails.
    pub(crate) read: bool,
    /// Reads of this byte fail, in every file.
    pub(crate) sector: Option<u64>,
    /// Truncation fails.
    pub(crate) truncate: bool,
}

#[derive(Debug, Default)]
struct Inode {
    /// What the page cache shows.
    cache: Vec<u8>,
    /// What the disk has.
    disk: Vec<u8>,
    /// Sectors that differ, perhaps.
    dirty: BTreeSet<usize>,
    /// Those of them that went past the page cache: the disk has them, once
    /// the file is long enough there.
    placed: BTreeSet<usize>,
}

#[derive(Debug)]
struct Disk {
    inodes: Vec<Inode>,
    /// The directory as processes see it, and as the disk has it.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    random: Random,
    /// The power fails after so many operations.
    left: Option<u64>,
    /// The power fails at the first sync of this kind.
    fatal: Option<SyncMoment>,
    is_off: bool,
    ignored: Option<Sync>,
    faults: Faults,
    sector: usize,
    /// Appends from this length on go past the page cache, but for their ends.
    direct_from: usize,
}

/// What offsets and lengths of writes past the page cache are multiples of.
const ALIGNMENT: usize = 4096;

/// Appends that go past the page cache, where any do: long enough to have a
/// middle. The store's own are longer, for speed alone.
const DIRECT_FROM: usize = 3 * ALIGNMENT;

/// The disk; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimIo(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct SimFile {
    io: SimIo,
    inode: usize,
}

impl SimIo {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let sector = if random.one_in(2) { 512 } else { 4096 };
        let direct_from = if random.one_in(2) { DIRECT_FROM } else { usize::MAX };
        Self(Arc::new(Mutex::new(Disk {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            random,
            left: None,
            fatal: None,
            is_off: false,
            ignored: None,
            faults: Faults::default(),
            sector,
            direct_from,
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Leaves out one kind of sync from now on.
    pub(crate) fn ignore(&self, sync: Sync) {
        self.disk().ignored = Some(sync);
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// The power fails after `operations` more.
    pub(crate) fn fail_after(&self, operations: u64) {
        self.disk().left = Some(operations);
    }

    /// The power fails at the first sync of this kind.
    pub(crate) fn fail_at(&self, moment: SyncMoment) {
        self.disk().fatal = Some(moment);
    }

    /// Nothing works from now on.
    pub(crate) fn halt(&self) {
        self.disk().is_off = true;
    }

    /// Whether the power has failed.
    pub(crate) fn is_off(&self) -> bool {
        self.disk().is_off
    }

    /// The process was killed: the page cache is still there.
    pub(crate) fn restart_process(&self) {
        let mut disk = self.disk();
        disk.is_off = false;
        disk.left = None;
        disk.fatal = None;
    }

    /// The machine was without power: of what was not synced, any part is
    /// there, sector by sector.
    pub(crate) fn restart_machine(&self) {
        let mut disk = self.disk();
        disk.is_off = false;
        disk.left = None;
        disk.fatal = None;
        disk.lose_names();
        for inode in 0..disk.inodes.len() {
            disk.lose_sectors(inode);
        }
    }

    /// Names and lengths of the files.
    pub(crate) fn files(&self) -> Vec<(String, usize)> {
        let disk = self.disk();
        disk.names.iter().map(|(name, inode)| (name.clone(), disk.inodes[*inode].cache.len())).collect()
    }

    /// Changes the bytes of a file where it lies, as a failing disk does.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let inode = disk.names[name];
        change(&mut disk.inodes[inode].cache);
        disk.inodes[inode].disk = disk.inodes[inode].cache.clone();
        disk.inodes[inode].dirty.clear();
        disk.inodes[inode].placed.clear();
    }
}

impl Disk {
    fn step(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                self.is_off = true;
            }
            *left = left.saturating_sub(1);
        }
        if self.is_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    /// Each creation and removal that was not synced happened or did not.
    fn lose_names(&mut self) {
        let all: BTreeSet<String> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in all {
            let (seen, durable) = (self.names.get(&name).copied(), self.durable_names.get(&name).copied());
            let after = if self.random.one_in(2) { seen } else { durable };
            for names in [&mut self.names, &mut self.durable_names] {
                match after {
                    Some(inode) => names.insert(name.clone(), inode),
                    None => names.remove(&name),
                };
            }
        }
    }

    fn lose_sectors(&mut self, number: usize) {
        let (sector, mode) = (self.sector, self.random.below(4));
        let Self { inodes, random, .. } = self;
        let inode = &mut inodes[number];
        let placed = std::mem::take(&mut inode.placed);
        let (old, new) = (inode.disk.len(), inode.cache.len());
        // The length is that before, that after, or one between, by sectors.
        let len = match mode {
            0 => old,
            1 => new,
            _ => old.min(new) + (random.below((old.abs_diff(new) / sector + 1) as u64) as usize * sector),
        };
        let len = len.min(old.max(new));
        inode.disk.resize(len, 0);
        for sector_number in std::mem::take(&mut inode.dirty) {
            let survives = match mode {
                _ if placed.contains(&sector_number) => true,
                0 => false,
                1 => !random.one_in(8),
                _ => random.one_in(2),
            };
            let start = sector_number * sector;
            let end = (start + sector).min(len);
            if start >= end {
                continue;
            }
            for at in start..end {
                if survives && at < inode.cache.len() {
                    inode.disk[at] = inode.cache[at];
                }
            }
        }
        inode.cache = inode.disk.clone();
    }

    /// The middle of a long append is on the disk before any sync.
    fn place(&mut self, inode: usize, from: usize, to: usize) {
        let (start, end) = (from.next_multiple_of(ALIGNMENT), to / ALIGNMENT * ALIGNMENT);
        if to - from >= self.direct_from && start < end {
            let sector = self.sector;
            self.inodes[inode].placed.extend(start / sector..end / sector);
        }
    }

    fn mark(&mut self, inode: usize, from: usize, to: usize) {
        let sector = self.sector;
        self.inodes[inode].dirty.extend(from / sector..to.div_ceil(sector));
    }
}

impl Io for SimIo {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.step()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        let mut disk = self.disk();
        disk.step()?;
        if disk.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.names.insert(name.to_owned(), inode);
        Ok(Arc::new(SimFile { io: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        let mut disk = self.disk();
        disk.step()?;
        let inode = *disk.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { io: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.names.remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, change: DirChange) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        if disk.ignored != Some(Sync::Dir(change)) {
            disk.durable_names = disk.names.clone();
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }
}

impl AppendFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut disk = self.io.disk();
        disk.step()?;
        Ok(disk.inodes[self.inode].cache.len() as u64)
    }

    fn append(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut disk = self.io.disk();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let before = disk.inodes[self.inode].cache.len();
        let is_on = disk.step();
        let used: usize = disk.names.values().map(|inode| disk.inodes[*inode].cache.len()).sum();
        let room = disk.faults.space.map_or(usize::MAX, |space| (space as usize).saturating_sub(used));
        // Any part of what fails may have been written.
        let (written, result) = match is_on {
            Err(error) => (disk.random.below(bytes.len() as u64 + 1) as usize, Err(error)),
            Ok(()) if disk.faults.append => (bytes.len() / 2, Err(io::Error::other("bad sector"))),
            Ok(()) if room < bytes.len() => (room, Err(ErrorKind::StorageFull.into())),
            Ok(()) => (bytes.len(), Ok(())),
        };
        disk.inodes[self.inode].cache.extend_from_slice(&bytes[..written]);
        disk.mark(self.inode, before, before + written);
        disk.place(self.inode, before, before + written);
        result
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut disk = self.io.disk();
        disk.step()?;
        if disk.faults.read {
            return Err(io::Error::other("unreadable sector"));
        }
        let range = offset..offset + buffer.len() as u64;
        if disk.faults.sector.is_some_and(|sector| range.contains(&sector)) {
            const EIO: i32 = 5;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let start = offset as usize;
        let bytes = disk.inodes[self.inode].cache.get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self, moment: SyncMoment) -> io::Result<()> {
        let mut disk = self.io.disk();
        disk.is_off |= disk.fatal == Some(moment);
        disk.step()?;
        if disk.faults.sync {
            // As Linux does: the pages count as written and are not.
            let Inode { dirty, placed, .. } = &mut disk.inodes[self.inode];
            dirty.retain(|sector| placed.contains(sector));
            return Err(io::Error::other("sync failed"));
        }
        if disk.ignored != Some(Sync::File(moment)) {
            let inode = &mut disk.inodes[self.inode];
            inode.disk = inode.cache.clone();
            inode.dirty.clear();
            inode.placed.clear();
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.io.disk();
        disk.step()?;
        if disk.faults.truncate {
            return Err(io::Error::other("cannot truncate"));
        }
        let old = disk.inodes[self.inode].cache.len();
        let whole = len as usize / disk.sector;
        disk.inodes[self.inode].placed.retain(|sector| *sector < whole);
        disk.inodes[self.inode].cache.truncate(len as usize);
        disk.mark(self.inode, len as usize, old);
        Ok(())
    }
}
