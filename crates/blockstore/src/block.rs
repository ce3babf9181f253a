//! A block whose bytes were shown to match its multihash.

use bytes::Bytes;
use multihash_codetable::{Code, MultihashDigest as _};

use crate::Error;

/// The key of a block: a multihash with a digest of up to 64 bytes.
pub type Multihash = cid::multihash::Multihash<64>;

/// The longest block that the store takes, in bytes: twice what Pinfold
/// accepts from the network, so that this is never the limit that is met.
pub const MAX_BLOCK_BYTES: usize = 4 << 20;

/// The multihash code of an identity "hash", whose digest is the bytes.
const IDENTITY: u64 = 0;

/// A block with its multihash. It can be made only by recomputing the
/// multihash, or by a caller who states that it did so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    multihash: Multihash,
    bytes: Bytes,
}

impl Block {
    /// Recomputes the multihash of `bytes` and compares.
    ///
    /// # Errors
    /// [`Error::WrongHash`], [`Error::UnknownHash`], [`Error::BlockTooLong`].
    pub fn verify(multihash: Multihash, bytes: Bytes) -> Result<Self, Error> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(Error::BlockTooLong { len: bytes.len() });
        }
        if !matches(&multihash, &bytes)? {
            return Err(Error::WrongHash { expected: multihash });
        }
        Ok(Self { multihash, bytes })
    }

    /// A block whose multihash the caller has computed from these very bytes,
    /// as a Bitswap receiver does, so that the hashing is done once.
    ///
    /// # Errors
    /// [`Error::BlockTooLong`].
    pub fn computed(multihash: Multihash, bytes: Bytes) -> Result<Self, Error> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(Error::BlockTooLong { len: bytes.len() });
        }
        Ok(Self { multihash, bytes })
    }

    /// The block's key.
    #[must_use]
    pub fn multihash(&self) -> &Multihash {
        &self.multihash
    }

    /// The block's bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Whether `bytes` hash to `multihash`.
pub(crate) fn matches(multihash: &Multihash, bytes: &[u8]) -> Result<bool, Error> {
    if multihash.code() == IDENTITY {
        return Ok(multihash.digest() == bytes);
    }
    let code = Code::try_from(multihash.code()).map_err(|_| Error::UnknownHash { code: multihash.code() })?;
    let digest = code.digest(bytes);
    // A truncated digest names the bytes by a prefix of the full one.
    Ok(digest.digest().starts_with(multihash.digest()) && multihash.size() > 0)
}

/// The bytes of the blocks that are always held and never stored: the empty
/// block under SHA-256, which peers ask for and some never send, and every
/// identity multihash, which carries its own bytes.
pub(crate) fn inherent(multihash: &Multihash) -> Option<Bytes> {
    if multihash.code() == IDENTITY {
        return Some(Bytes::copy_from_slice(multihash.digest()));
    }
    let is_sha256 = multihash.code() == u64::from(Code::Sha2_256);
    (is_sha256 && multihash.digest() == EMPTY_SHA256).then(Bytes::new)
}

/// SHA-256 of no bytes.
const EMPTY_SHA256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_recomputes() {
        let bytes = Bytes::from_static(b"a block");
        for code in [Code::Sha2_256, Code::Sha2_512, Code::Sha3_384, Code::Blake2b256, Code::Blake3_256] {
            let multihash = code.digest(&bytes);
            assert!(Block::verify(multihash, bytes.clone()).is_ok(), "{code:?}");
            let other = Block::verify(multihash, Bytes::from_static(b"another"));
            assert!(matches!(other, Err(Error::WrongHash { .. })), "{code:?}");
        }
    }

    #[test]
    fn unknown_functions_and_long_blocks_are_refused() {
        let unknown = Multihash::wrap(0x99_9999, &[1; 32]).unwrap();
        assert!(matches!(Block::verify(unknown, Bytes::new()), Err(Error::UnknownHash { code: 0x99_9999 })));
        let long = Bytes::from(vec![0; MAX_BLOCK_BYTES + 1]);
        let multihash = Code::Sha2_256.digest(&long);
        assert!(matches!(Block::verify(multihash, long.clone()), Err(Error::BlockTooLong { .. })));
        assert!(matches!(Block::computed(multihash, long), Err(Error::BlockTooLong { .. })));
    }

    #[test]
    fn truncated_digests_are_compared_by_their_length_and_empty_ones_never_match() {
        let bytes = Bytes::from_static(b"a block");
        let full = Code::Sha2_256.digest(&bytes);
        let short = Multihash::wrap(full.code(), &full.digest()[..20]).unwrap();
        assert!(Block::verify(short, bytes.clone()).is_ok());
        let none = Multihash::wrap(full.code(), &[]).unwrap();
        assert!(matches!(Block::verify(none, bytes), Err(Error::WrongHash { .. })));
    }

    #[test]
    fn the_empty_block_and_identity_are_inherent() {
        assert_eq!(inherent(&Code::Sha2_256.digest(b"")), Some(Bytes::new()));
        assert_eq!(inherent(&Multihash::wrap(0, b"inline").unwrap()), Some(Bytes::from_static(b"inline")));
        assert_eq!(inherent(&Code::Sha2_256.digest(b"x")), None);
        assert_eq!(inherent(&Code::Blake3_256.digest(b"")), None);
    }
}
