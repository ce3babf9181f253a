//! Space set aside, so that a full disk can still give some back.
//!
//! Releasing roots, reclaim and the index have to write before anything
//! becomes free. So a small file lies beside the segments, and is removed when
//! the disk is full: its space is then theirs, and that of whatever else keeps
//! its books on the same disk. Blocks are refused from then on, until there is
//! room for the file and some more.
//!
//! The file says nothing. A store without it, or with one that a power loss
//! has cut short, is whole, so that nothing about it is synced.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Error;
use crate::io::{AppendFile, Io};

/// The file's name. It is no segment's.
const NAME: &str = "reserve";

/// The file has this fraction of what the store occupies: 1/256, which is
/// little beside what compaction leaves, and more than a release writes.
const FRACTION: u64 = 256;

/// The least that it has, in bytes: what the index has in memory when it goes
/// to disk, some 2 MiB, a part of a segment, and some pages of a database
/// beside it.
const MIN_BYTES: u64 = 4 << 20;

/// The room there has to be besides, as a fraction of the file: 1/4. Otherwise
/// the next block would only fill the disk again.
const SLACK_FRACTION: u64 = 4;

/// How much is written at a time, in bytes: so little goes through the page
/// cache, where what does not fit is taken back before it reaches the disk.
const PIECE_BYTES: u64 = 64 << 10;

/// The pause between two attempts by those who want to put blocks. An attempt
/// writes until the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// The reserve of one store.
#[derive(Debug)]
pub(crate) struct Reserve {
    io: Arc<dyn Io>,
    /// [`Options::reserve_bytes`](crate::Options::reserve_bytes).
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file's length in bytes; 0 where there is none.
    len: u64,
    /// The last attempt of [`Reserve::retry`] since it was given up.
    tried: Option<Instant>,
}

impl Reserve {
    /// Finds the file, if there is one; [`Reserve::restore`] makes it.
    pub(crate) fn open(io: Arc<dyn Io>, max_bytes: u64) -> Result<Self, Error> {
        let len = if max_bytes == 0 { Ok(0) } else { io.open(NAME).and_then(|file| file.len()) };
        let len = match len {
            Err(source) if source.kind() == ErrorKind::NotFound => 0,
            other => other.map_err(|source| failed(&*io, "open", source))?,
        };
        Ok(Self { io, max_bytes, state: Mutex::new(State { len, tried: None }) })
    }

    /// Whether it is there, as far as there is to be one.
    pub(crate) fn is_made(&self) -> bool {
        self.max_bytes == 0 || self.state.lock().len > 0
    }

    /// Refuses what must not use the space of a reserve that was given up.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_made() { Ok(()) } else { Err(Error::DiskFull { path: self.io.path(NAME) }) }
    }

    /// Gives the space to whoever writes next. Returns whether there was any.
    pub(crate) fn give_up(&self) -> bool {
        let mut state = self.state.lock();
        if state.len == 0 {
            return false;
        }
        if let Err(error) = self.io.remove(NAME)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::error!(%error, "the disk is full, and its reserve cannot be removed");
            return false;
        }
        tracing::warn!(bytes = state.len, "the disk is full: its reserve is used, and blocks are refused");
        *state = State::default();
        true
    }

    /// Makes the file where it is missing or too small for a store of `stored`
    /// bytes, and leaves things as they are where there is no room for it.
    pub(crate) fn restore(&self, stored: u64) -> Result<(), Error> {
        self.fill(&mut self.state.lock(), stored)
    }

    /// Like [`Reserve::restore`], for whoever is refused meanwhile: not often.
    pub(crate) fn retry(&self, stored: u64) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return Ok(());
        }
        state.tried = Some(Instant::now());
        self.fill(&mut state, stored)
    }

    fn fill(&self, state: &mut State, stored: u64) -> Result<(), Error> {
        let wanted = (stored / FRACTION).max(MIN_BYTES).min(self.max_bytes);
        // It grows with the store, but not with each block.
        if wanted == 0 || (state.len > 0 && state.len >= wanted / 2) {
            return Ok(());
        }
        match self.lengthen(state.len, wanted) {
            Ok(()) => {
                if state.len == 0 {
                    tracing::info!(bytes = wanted, "the block store has a reserve for when the disk is full");
                }
                *state = State { len: wanted, tried: None };
                Ok(())
            }
            Err(error) if is_full(&error) => Ok(()),
            Err(source) => Err(failed(&*self.io, "lengthen", source)),
        }
    }

    /// Lengthens the file from `len` bytes, or makes it where that is 0. After
    /// an error it is as it was.
    fn lengthen(&self, len: u64, wanted: u64) -> io::Result<()> {
        if len > 0 {
            let file = self.io.open(NAME)?;
            // Best effort: too long is no worse.
            return write(&*file, len, wanted).inspect_err(|_| drop(file.truncate(len)));
        }
        if let Err(error) = self.io.remove(NAME)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let file = self.io.create(NAME)?;
        // Best effort: what is left is removed by the next attempt.
        write(&*file, 0, wanted).inspect_err(|_| drop(self.io.remove(NAME)))
    }
}

/// Writes until there are `wanted` bytes, and the slack, which is cut off
/// again.
fn write(file: &dyn AppendFile, len: u64, wanted: u64) -> io::Result<()> {
    let mut noise = Noise(wanted | 1);
    let mut piece = Vec::new();
    let mut left = wanted + wanted / SLACK_FRACTION - len;
    while left > 0 {
        let bytes = left.min(PIECE_BYTES);
        noise.fill(&mut piece, bytes);
        file.append(&mut [IoSlice::new(&piece)])?;
        left -= bytes;
    }
    file.truncate(wanted)
}

/// Bytes that a file system cannot store in less space: xorshift.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, piece: &mut Vec<u8>, bytes: u64) {
        piece.clear();
        for _ in 0..bytes.div_ceil(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            piece.extend_from_slice(&self.0.to_le_bytes());
        }
        piece.truncate(usize::try_from(bytes).unwrap_or(piece.len()));
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn failed(io: &dyn Io, action: &'static str, source: io::Error) -> Error {
    Error::Io { action, path: io.path(NAME), source }
}
