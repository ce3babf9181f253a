//! Large appends past the page cache.
//!
//! What a fetch appends is not read again soon, and a page cache charges for
//! it twice: a copy into pages that have to be found first, and their writing
//! back, which the next sync waits for. So the middle of a large append goes
//! to the disk at once (`O_DIRECT`). Its ends, which do not fill a disk's
//! sector, go through the page cache, which never holds any of the middle:
//! the two ways do not meet in a page. Where the file system cannot do this,
//! all goes through the page cache.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What offsets, lengths and memory of direct writes are multiples of: the
/// largest sector of today's disks, and a page.
const ALIGNMENT: usize = 4096;

/// Appends from this on, in bytes, go past the page cache: below, a wait for
/// the disk costs more than a copy.
pub(crate) const DIRECT_FROM: usize = 256 << 10;

/// Bytes of one direct write, and of the memory kept for it.
const BUFFER_BYTES: usize = 1 << 20;

/// Where the middles of large appends go.
#[derive(Debug)]
pub(crate) struct Direct {
    file: File,
    memory: Vec<u8>,
}

impl Direct {
    /// A second way into the file at `path`; `None` where there is none.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        Some(Self { file: open(path)?, memory: vec![0; BUFFER_BYTES + ALIGNMENT] })
    }

    /// Appends `parts` to `file`, which is `len` bytes long, writes at its end
    /// and is the same as this one. Answers whether a direct write was possible.
    pub(crate) fn append(&mut self, file: &File, len: u64, parts: &[IoSlice<'_>]) -> io::Result<bool> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let lead = total.min((ALIGNMENT - (len % ALIGNMENT as u64) as usize) % ALIGNMENT);
        let mut middle = (total - lead) / ALIGNMENT * ALIGNMENT;
        let tail = total - lead - middle;
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut self.memory[start..start + BUFFER_BYTES];
        let mut rest = Gather { parts, taken: 0 };
        let (mut file, mut at, mut possible) = (file, len + lead as u64, true);
        file.write_all(rest.take(buffer, lead))?;
        while middle > 0 {
            let chunk = rest.take(buffer, middle.min(BUFFER_BYTES));
            possible = possible && write(&self.file, chunk, at)?;
            if !possible {
                file.write_all(chunk)?;
            }
            (at, middle) = (at + chunk.len() as u64, middle - chunk.len());
        }
        file.write_all(rest.take(buffer, tail))?;
        Ok(possible)
    }
}

/// Whether it could be written directly; nothing is written where not.
fn write(direct: &File, chunk: &[u8], at: u64) -> io::Result<bool> {
    match direct.write_all_at(chunk, at) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

#[cfg(target_os = "linux")]
fn open(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open(_path: &Path) -> Option<File> {
    None
}

/// Many slices, read as one.
struct Gather<'a> {
    parts: &'a [IoSlice<'a>],
    /// Bytes taken from the first of them.
    taken: usize,
}

impl Gather<'_> {
    /// Copies the next `count` bytes to the start of `buffer`.
    fn take<'b>(&mut self, buffer: &'b mut [u8], count: usize) -> &'b [u8] {
        let mut filled = 0;
        while let Some(part) = self.parts.first().filter(|_| filled < count) {
            let some = (part.len() - self.taken).min(count - filled);
            buffer[filled..filled + some].copy_from_slice(&part[self.taken..self.taken + some]);
            (filled, self.taken) = (filled + some, self.taken + some);
            if self.taken == part.len() {
                (self.parts, self.taken) = (&self.parts[1..], 0);
            }
        }
        &buffer[..filled]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Appends, each of parts of these lengths, in turn; some past the page
    /// cache and some through it.
    fn check(appends: &[(bool, Vec<usize>)]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = File::options().append(true).create_new(true).open(&path).unwrap();
        let mut direct = Direct::open(&path);
        let mut want = Vec::new();
        for (number, (past, lengths)) in appends.iter().enumerate() {
            let bytes = |length: &usize| (0..*length).map(|at| (at * 7 + number) as u8).collect::<Vec<_>>();
            let parts: Vec<Vec<u8>> = lengths.iter().map(bytes).collect();
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            match direct.as_mut().filter(|_| *past) {
                Some(direct) => drop(direct.append(&file, want.len() as u64, &slices).unwrap()),
                None => parts.iter().for_each(|part| file.write_all(part).unwrap()),
            }
            want.extend(parts.concat());
            assert!(std::fs::read(&path).unwrap() == want, "after append {number}");
        }
    }

    #[test]
    fn sizes_at_the_edges_arrive_whole() {
        let sizes = [0, 1, ALIGNMENT - 1, ALIGNMENT, ALIGNMENT + 1, BUFFER_BYTES, 2 * BUFFER_BYTES + 5];
        for first in sizes {
            let appends: Vec<_> = sizes.iter().map(|&second| (true, vec![first, 1, second])).collect();
            check(&appends);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn appends_of_both_kinds_follow_each_other(
            appends in prop::collection::vec((any::<bool>(), prop::collection::vec(0_usize..20_000, 0..8)), 1..12)
        ) {
            check(&appends);
        }
    }
}
