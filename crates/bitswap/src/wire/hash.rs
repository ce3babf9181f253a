//! Hash functions of blocks: those of boxo's `verifcid`, which every Kubo
//! accepts.

use cid::multihash::Multihash;
use sha2::Digest;
use sha3::digest::{ExtendableOutput, Update, XofReader};

use super::Hash;

/// The longest digest that a [`Hash`](type@Hash) holds.
const MAX_DIGEST: usize = 64;

/// The shortest digest, in bytes: below, collisions are within reach.
const MIN_DIGEST: usize = 20;

/// SHA2-256, which peers of version 1.0 mean when they say nothing.
pub(super) const SHA2_256: u64 = 0x12;

/// BLAKE2b with n bytes has the code `BLAKE2B + n`.
const BLAKE2B: u64 = 0xb200;

/// BLAKE2s with n bytes has the code `BLAKE2S + n`.
const BLAKE2S: u64 = 0xb240;

type Digested = ([u8; MAX_DIGEST], usize);

/// The multihash of a block with a digest of so many bytes, which may be fewer
/// than the function gives; `None` where the function is unknown or the
/// length impossible.
pub(super) fn multihash(code: u64, length: usize, data: &[u8]) -> Option<Hash> {
    let (digest, full) = digest(code, data)?;
    if length < MIN_DIGEST || length > full {
        return None;
    }
    Multihash::wrap(code, &digest[..length]).ok()
}

/// Whether blocks with this multihash can be verified.
pub(crate) fn is_verifiable(hash: &Hash) -> bool {
    let length = usize::from(hash.size());
    length >= MIN_DIGEST && digest(hash.code(), b"").is_some_and(|(_, full)| length <= full)
}

fn digest(code: u64, data: &[u8]) -> Option<Digested> {
    Some(match code {
        SHA2_256 => fixed(&sha2::Sha256::digest(data)),
        0x11 => fixed(&sha1::Sha1::digest(data)),
        0x13 => fixed(&sha2::Sha512::digest(data)),
        0x14 => fixed(&sha3::Sha3_512::digest(data)),
        0x15 => fixed(&sha3::Sha3_384::digest(data)),
        0x16 => fixed(&sha3::Sha3_256::digest(data)),
        0x17 => fixed(&sha3::Sha3_224::digest(data)),
        0x19 => shake_256(data),
        0x1a => fixed(&sha3::Keccak224::digest(data)),
        0x1b => fixed(&sha3::Keccak256::digest(data)),
        0x1c => fixed(&sha3::Keccak384::digest(data)),
        0x1d => fixed(&sha3::Keccak512::digest(data)),
        0x1e => blake3(data),
        0x56 => fixed(&sha2::Sha256::digest(sha2::Sha256::digest(data))),
        _ => return blake2(code, data),
    })
}

fn fixed(digest: &[u8]) -> Digested {
    let mut out = [0; MAX_DIGEST];
    out[..digest.len()].copy_from_slice(digest);
    (out, digest.len())
}

fn shake_256(data: &[u8]) -> Digested {
    let mut out = [0; MAX_DIGEST];
    let mut hasher = sha3::Shake256::default();
    Update::update(&mut hasher, data);
    hasher.finalize_xof().read(&mut out);
    (out, MAX_DIGEST)
}

fn blake3(data: &[u8]) -> Digested {
    let mut out = [0; MAX_DIGEST];
    blake3::Hasher::new().update(data).finalize_xof().fill(&mut out);
    (out, MAX_DIGEST)
}

fn blake2(code: u64, data: &[u8]) -> Option<Digested> {
    if (BLAKE2B + MIN_DIGEST as u64..=BLAKE2B + 64).contains(&code) {
        let length = (code - BLAKE2B) as usize;
        return Some(fixed(blake2b_simd::Params::new().hash_length(length).hash(data).as_bytes()));
    }
    if (BLAKE2S + MIN_DIGEST as u64..=BLAKE2S + 32).contains(&code) {
        let length = (code - BLAKE2S) as usize;
        return Some(fixed(blake2s_simd::Params::new().hash_length(length).hash(data).as_bytes()));
    }
    None
}

#[cfg(test)]
mod tests {
    use multihash_codetable::{Code, MultihashDigest};

    use super::*;

    #[test]
    fn digests_are_those_of_another_implementation() {
        let codes = [
            Code::Sha2_256,
            Code::Sha2_512,
            Code::Sha3_224,
            Code::Sha3_256,
            Code::Sha3_384,
            Code::Sha3_512,
            Code::Keccak224,
            Code::Keccak256,
            Code::Keccak384,
            Code::Keccak512,
            Code::Blake2b256,
            Code::Blake2b512,
            Code::Blake2s256,
            Code::Blake3_256,
        ];
        for code in codes {
            let theirs = code.digest(b"some bytes");
            assert!(is_verifiable(&theirs));
            assert_eq!(multihash(code.into(), theirs.size().into(), b"some bytes"), Some(theirs));
        }
    }

    #[test]
    fn other_functions_are_computed_too() {
        let cases: [(u64, &[u8]); 2] = [
            (0x11, &[0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a]),
            (0x56, &[0x4f, 0x8b, 0x42, 0xc2, 0x2d, 0xd3, 0x72, 0x9b]),
        ];
        for (code, begin) in cases {
            assert_eq!(&multihash(code, 20, b"abc").unwrap().digest()[..8], begin, "{code:#x}");
        }
        assert_eq!(multihash(0x19, 64, b"abc").unwrap().size(), 64);
        assert_eq!(multihash(BLAKE2B + 20, 20, b"abc").unwrap().size(), 20);
    }

    #[test]
    fn digests_may_be_cut_but_neither_too_short_nor_drawn_out() {
        let full = multihash(SHA2_256, 32, b"abc").unwrap();
        assert_eq!(multihash(SHA2_256, 20, b"abc").unwrap().digest(), &full.digest()[..20]);
        for (code, length) in [(SHA2_256, 19), (SHA2_256, 33), (0, 20), (0x9999, 32), (BLAKE2B + 19, 20)] {
            assert_eq!(multihash(code, length, b"abc"), None, "{code:#x} {length}");
        }
        assert!(!is_verifiable(&Multihash::wrap(0x9999, &[1; 32]).unwrap()));
    }
}
