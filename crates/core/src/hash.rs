//! Hash functions: which are accepted, what they are called, and whether some
//! bytes belong to a multihash.
//!
//! The accepted functions are those of boxo's `verifcid`, which every Kubo
//! applies: what it would not take from us we do not keep. All of them can be
//! computed here. A digest may be shorter than what its function gives (not
//! below 20 bytes): it is then compared with the beginning of the full one.

use sha2::Digest;
use sha3::digest::{ExtendableOutput, Update, XofReader};

use crate::content::{IDENTITY, Multihash};
use crate::policy::MAX_DIGEST;

/// SHA2-256, the function of nearly every CID.
pub const SHA2_256: u64 = 0x12;

const SHA1: u64 = 0x11;
const SHA2_512: u64 = 0x13;
const SHA3_512: u64 = 0x14;
const SHA3_384: u64 = 0x15;
const SHA3_256: u64 = 0x16;
const SHA3_224: u64 = 0x17;
const SHAKE_256: u64 = 0x19;
const KECCAK_224: u64 = 0x1a;
const KECCAK_256: u64 = 0x1b;
const KECCAK_384: u64 = 0x1c;
const KECCAK_512: u64 = 0x1d;
const BLAKE3: u64 = 0x1e;
const DBL_SHA2_256: u64 = 0x56;

/// BLAKE2b with n bytes has the code `BLAKE2B + n`, 1 <= n <= 64.
const BLAKE2B: u64 = 0xb200;
const BLAKE2B_MAX: u64 = BLAKE2B + 64;
/// BLAKE2s with n bytes has the code `BLAKE2S + n`, 1 <= n <= 32.
const BLAKE2S: u64 = 0xb240;
const BLAKE2S_MAX: u64 = BLAKE2S + 32;
/// The shortest BLAKE2 that is accepted, as every other digest: 20 bytes.
const BLAKE2_SHORTEST: u64 = 20;

/// Why bytes were not accepted for a multihash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The bytes are not those that the multihash names.
    #[error("the bytes do not have the digest that the CID names")]
    Mismatch,
    /// The function is not accepted.
    #[error("the hash function {0:#x} is not accepted")]
    Function(u64),
}

/// Whether blocks with this hash function are accepted.
#[must_use]
pub fn is_accepted(code: u64) -> bool {
    matches!(
        code,
        IDENTITY
            | SHA1
            | SHA2_256
            | SHA2_512
            | SHA3_224
            | SHA3_256
            | SHA3_384
            | SHA3_512
            | SHAKE_256
            | KECCAK_224
            | KECCAK_256
            | KECCAK_384
            | KECCAK_512
            | BLAKE3
            | DBL_SHA2_256
    ) || blake2b_length(code).is_some()
        || blake2s_length(code).is_some()
}

/// The name of a hash function in the multicodec table, where it is accepted.
#[must_use]
pub fn name(code: u64) -> Option<String> {
    let name = match code {
        IDENTITY => "identity",
        SHA1 => "sha1",
        SHA2_256 => "sha2-256",
        SHA2_512 => "sha2-512",
        SHA3_224 => "sha3-224",
        SHA3_256 => "sha3-256",
        SHA3_384 => "sha3-384",
        SHA3_512 => "sha3-512",
        SHAKE_256 => "shake-256",
        KECCAK_224 => "keccak-224",
        KECCAK_256 => "keccak-256",
        KECCAK_384 => "keccak-384",
        KECCAK_512 => "keccak-512",
        BLAKE3 => "blake3",
        DBL_SHA2_256 => "dbl-sha2-256",
        _ => {
            return blake2b_length(code)
                .map(|length| format!("blake2b-{}", length * 8))
                .or_else(|| blake2s_length(code).map(|length| format!("blake2s-{}", length * 8)));
        }
    };
    Some(name.to_owned())
}

/// Whether the bytes are those that the multihash names. An empty digest
/// proves nothing and is a mismatch, save for the identity function.
///
/// # Errors
/// [`HashError::Function`] where the function is not accepted,
/// [`HashError::Mismatch`] where the digest differs, or is longer than what
/// the function gives.
pub fn verify(multihash: &Multihash, bytes: &[u8]) -> Result<(), HashError> {
    let (code, digest) = (multihash.code(), multihash.digest());
    if code == IDENTITY {
        return matches(digest == bytes);
    }
    let mut buffer = [0; MAX_DIGEST];
    let full = compute(code, bytes, &mut buffer)?;
    matches(!digest.is_empty() && full.starts_with(digest))
}

/// The multihash of some bytes with the full digest of a function: 32 bytes
/// for BLAKE3, 64 for SHAKE-256, as in the multicodec table.
///
/// # Errors
/// When the function is not accepted, or is the identity one and the bytes
/// exceed 128.
pub fn multihash(code: u64, bytes: &[u8]) -> Result<Multihash, HashError> {
    let mut buffer = [0; MAX_DIGEST];
    let digest = match code {
        IDENTITY => bytes,
        BLAKE3 => &compute(code, bytes, &mut buffer)?[..32],
        SHAKE_256 => &compute(code, bytes, &mut buffer)?[..64],
        _ => compute(code, bytes, &mut buffer)?,
    };
    Multihash::wrap(code, digest).map_err(|_| HashError::Function(code))
}

/// The longest digest of some bytes; none where the function is not accepted
/// or is the identity one.
pub(crate) fn longest(code: u64, bytes: &[u8]) -> Option<Multihash> {
    let mut buffer = [0; MAX_DIGEST];
    Multihash::wrap(code, compute(code, bytes, &mut buffer).ok()?).ok()
}

fn matches(equal: bool) -> Result<(), HashError> {
    if equal { Ok(()) } else { Err(HashError::Mismatch) }
}

/// The longest digest that the function gives, at most 128 bytes.
fn compute<'a>(code: u64, bytes: &[u8], to: &'a mut [u8; MAX_DIGEST]) -> Result<&'a [u8], HashError> {
    let length = match code {
        SHA2_256 => put(to, &sha2::Sha256::digest(bytes)),
        SHA2_512 => put(to, &sha2::Sha512::digest(bytes)),
        DBL_SHA2_256 => put(to, &sha2::Sha256::digest(sha2::Sha256::digest(bytes))),
        SHA1 => put(to, &sha1::Sha1::digest(bytes)),
        SHA3_224 => put(to, &sha3::Sha3_224::digest(bytes)),
        SHA3_256 => put(to, &sha3::Sha3_256::digest(bytes)),
        SHA3_384 => put(to, &sha3::Sha3_384::digest(bytes)),
        SHA3_512 => put(to, &sha3::Sha3_512::digest(bytes)),
        KECCAK_224 => put(to, &sha3::Keccak224::digest(bytes)),
        KECCAK_256 => put(to, &sha3::Keccak256::digest(bytes)),
        KECCAK_384 => put(to, &sha3::Keccak384::digest(bytes)),
        KECCAK_512 => put(to, &sha3::Keccak512::digest(bytes)),
        SHAKE_256 => shake_256(bytes, to),
        BLAKE3 => blake3(bytes, to),
        _ => blake2(code, bytes, to).ok_or(HashError::Function(code))?,
    };
    Ok(&to[..length])
}

/// The longest digest that an accepted function gives, in bytes.
pub(crate) fn longest_digest(code: u64) -> usize {
    match code {
        SHA1 => 20,
        SHA3_224 | KECCAK_224 => 28,
        SHA2_256 | DBL_SHA2_256 | SHA3_256 | KECCAK_256 => 32,
        SHA3_384 | KECCAK_384 => 48,
        SHA2_512 | SHA3_512 | KECCAK_512 => 64,
        _ => blake2b_length(code).or_else(|| blake2s_length(code)).unwrap_or(MAX_DIGEST),
    }
}

fn put(to: &mut [u8; MAX_DIGEST], digest: &[u8]) -> usize {
    to[..digest.len()].copy_from_slice(digest);
    digest.len()
}

fn shake_256(bytes: &[u8], to: &mut [u8; MAX_DIGEST]) -> usize {
    let mut hasher = sha3::Shake256::default();
    Update::update(&mut hasher, bytes);
    hasher.finalize_xof().read(to);
    to.len()
}

fn blake3(bytes: &[u8], to: &mut [u8; MAX_DIGEST]) -> usize {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    hasher.finalize_xof().fill(to);
    to.len()
}

fn blake2(code: u64, bytes: &[u8], to: &mut [u8; MAX_DIGEST]) -> Option<usize> {
    if let Some(length) = blake2b_length(code) {
        return Some(put(to, blake2b_simd::Params::new().hash_length(length).hash(bytes).as_bytes()));
    }
    let length = blake2s_length(code)?;
    Some(put(to, blake2s_simd::Params::new().hash_length(length).hash(bytes).as_bytes()))
}

fn blake2b_length(code: u64) -> Option<usize> {
    (BLAKE2B + BLAKE2_SHORTEST..=BLAKE2B_MAX).contains(&code).then(|| (code - BLAKE2B) as usize)
}

fn blake2s_length(code: u64) -> Option<usize> {
    (BLAKE2S + BLAKE2_SHORTEST..=BLAKE2S_MAX).contains(&code).then(|| (code - BLAKE2S) as usize)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// Digests of "abc" from the functions' own publications.
    const ABC: [(u64, &str); 12] = [
        (SHA1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (SHA2_256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (DBL_SHA2_256, "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358"),
        (SHA3_224, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        (SHA3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (KECCAK_256, "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (BLAKE3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        (BLAKE2B + 20, "384264f676f39536840523f284921cdc68b6846b"),
        (BLAKE2B + 32, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"),
        (
            BLAKE2B + 64,
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
        ),
        (BLAKE2S + 32, "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"),
        (
            SHAKE_256,
            "483366601360a8771c6863080cc4114d8db44530f8f1e1ee4f94ea37e78b5739d5a15bef186a5386c75744c0527e1faa9f8726e462a12a4feb06bd8801e751e4",
        ),
    ];

    fn accepted() -> impl Iterator<Item = u64> {
        (0..0x1_0000).filter(|&code| is_accepted(code))
    }

    #[test]
    fn digests_are_those_of_the_functions() {
        for (code, hex) in ABC {
            let want = Multihash::wrap(code, &HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap();
            assert_eq!(multihash(code, b"abc"), Ok(want), "{code:#x}");
        }
    }

    #[test]
    fn every_accepted_function_has_a_name_and_is_computed() {
        assert_eq!(accepted().count(), 15 + 45 + 13);
        for code in accepted() {
            assert!(name(code).is_some());
            let multihash = multihash(code, b"some bytes").unwrap();
            let mut buffer = [0; MAX_DIGEST];
            if code != IDENTITY {
                assert_eq!(compute(code, b"", &mut buffer).unwrap().len(), longest_digest(code));
            }
            assert_eq!(verify(&multihash, b"some bytes"), Ok(()), "{code:#x}");
            assert_eq!(verify(&multihash, b"Some bytes"), Err(HashError::Mismatch), "{code:#x}");
        }
        for code in [0xd5, 0x1053, BLAKE2B + 19, BLAKE2S + 19, BLAKE2S + 33, 0x18, u64::MAX] {
            let other = Multihash::wrap(code, &[0; 32]).unwrap();
            assert_eq!((name(code), verify(&other, b"")), (None, Err(HashError::Function(code))));
        }
    }

    #[test]
    fn a_digest_may_be_cut_short_but_not_drawn_out() {
        let full = multihash(SHA2_256, b"abc").unwrap();
        assert_eq!(verify(&full.truncate(20), b"abc"), Ok(()));
        assert_eq!(verify(&full.truncate(20), b"abd"), Err(HashError::Mismatch));
        assert_eq!(verify(&full.truncate(0), b"abc"), Err(HashError::Mismatch));
        let mut longer = full.digest().to_vec();
        longer.push(0);
        assert_eq!(verify(&Multihash::wrap(SHA2_256, &longer).unwrap(), b"abc"), Err(HashError::Mismatch));
    }

    #[test]
    fn an_identity_multihash_holds_the_bytes_themselves() {
        let empty = multihash(IDENTITY, b"").unwrap();
        assert_eq!((verify(&empty, b""), verify(&empty, b"a")), (Ok(()), Err(HashError::Mismatch)));
        assert_eq!(multihash(IDENTITY, &[0; 129]), Err(HashError::Function(IDENTITY)));
    }
}
