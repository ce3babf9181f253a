//! Files to pin: the same for the same seed, and never compressible.

use std::{fs, path::Path};

use anyhow::Result;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Bytes that follow from a seed.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Fills a folder with files of `length` bytes each, some in folders below.
pub fn folder(path: &Path, seed: u64, files: usize, length: usize) -> Result<()> {
    for file in 0..files {
        let below = path.join(format!("part-{}", file % 4));
        fs::create_dir_all(&below)?;
        fs::write(below.join(format!("file {file}")), bytes(seed + file as u64, length))?;
    }
    Ok(())
}

/// Checks that two folders hold the same files with the same bytes; an error
/// names the first difference.
pub fn same_folder(expected: &Path, found: &Path) -> Result<()> {
    let (names, others) = (names(expected)?, names(found)?);
    anyhow::ensure!(names == others, "{} holds {others:?} instead of {names:?}", found.display());
    for name in names {
        let (left, right) = (expected.join(&name), found.join(&name));
        if left.is_dir() {
            same_folder(&left, &right)?;
        } else {
            anyhow::ensure!(
                fs::read(&left)? == fs::read(&right)?,
                "{} differs from {}",
                right.display(),
                left.display()
            );
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
