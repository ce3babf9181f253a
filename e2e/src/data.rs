//! Files to pin: the same for the same seed, and never compressible.

use std::{fs, path::Path};

use anyhow::Result;
use cid::{Cid, multihash::Multihash};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;

/// Bytes that follow from a seed: the key stream of a cipher, which even in a
/// build without optimisation comes at hundreds of MiB a second.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key has 32 bytes"));
    let mut bytes = vec![0; length];
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let sealed = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut bytes);
    let _tag = sealed.expect("less than 256 GiB are asked for");
    bytes
}

/// The CID of a raw block by its digest of SHA-256.
pub fn raw_cid(digest: &[u8; 32]) -> String {
    let hash = Multihash::wrap(SHA2_256, digest).expect("32 bytes fit into a multihash");
    Cid::new_v1(RAW, hash).to_string()
}

/// The CID of a raw block that nobody has.
pub fn nowhere(number: u64) -> String {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    raw_cid(&digest)
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

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_follow_from_their_seed() {
        assert_eq!(bytes(1, 1_000), bytes(1, 2_000)[..1_000]);
        assert_ne!(bytes(1, 1_000), bytes(2, 1_000));
    }

    #[test]
    fn bytes_cannot_be_compressed() {
        let mut counts = [0_u32; 256];
        bytes(3, 256_000).into_iter().for_each(|byte| counts[usize::from(byte)] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
