//! What rules and requests are compared by.

use cid::multibase::Base;

use crate::content::{self, Cid, Multihash};
use crate::hash;

/// The longest base58btc text that is decoded, which takes time by its
/// square. A multihash of 128 bytes has 180 characters.
const MAX_BASE58: usize = 200;

/// What has nothing in it: the empty UnixFS directory and the empty block,
/// each also inlined, the empty UnixFS file, CBOR map and JSON map.
const HARMLESS: [&str; 7] = [
    "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
    "bafyaabakaieac",
    "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    "bafkqaaa",
    "bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y",
    "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua",
    "baguqeeraiqjw7i2vwntyuekgvulpp2det2kpwt6cd7tx5ayqybqpmhfk76fa",
];

pub(super) fn is_harmless(cid: &Cid) -> bool {
    is_harmless_multihash(cid.hash())
}

pub(super) fn is_harmless_multihash(hash: &Multihash) -> bool {
    use std::sync::LazyLock;
    static HASHES: LazyLock<Vec<Multihash>> = LazyLock::new(|| {
        HARMLESS
            .iter()
            .map(|text| *content::parse(text).expect("a constant that a test reads").hash())
            .collect()
    });
    HASHES.contains(hash)
}

/// The multihash of a CID's text, or of a bare one in base58btc.
pub(super) fn multihash_of(text: &str) -> Option<Multihash> {
    match content::parse(text) {
        Ok(cid) => Some(*cid.hash()),
        Err(_) => Multihash::from_bytes(&base58(text)?).ok(),
    }
}

pub(super) fn base58(text: &str) -> Option<Vec<u8>> {
    if text.len() > MAX_BASE58 { None } else { Base::Base58Btc.decode(text).ok() }
}

pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    Base::Base16Lower.decode(text.to_ascii_lowercase()).ok()?.try_into().ok()
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// A hash function with the length of its digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DoubleHash {
    code: u64,
    length: usize,
}

impl DoubleHash {
    /// The function of a double hash; none where it cannot be computed, or is
    /// the identity function, which is no hash.
    pub(super) fn of(hash: &Multihash) -> Option<Self> {
        let kind = Self { code: hash.code(), length: hash.digest().len() };
        let usable = kind.code != content::IDENTITY && kind.length > 0;
        (usable && kind.hash(b"").is_some()).then_some(kind)
    }

    pub(super) fn hash(self, bytes: &[u8]) -> Option<Box<[u8]>> {
        Some(hash::longest(self.code, bytes)?.digest().get(..self.length)?.into())
    }
}

/// The texts of which a CID and a path are double-hashed.
pub(super) struct CidKeys<'a> {
    cid: &'a Cid,
    path: &'a str,
}

impl<'a> CidKeys<'a> {
    pub(super) fn new(cid: &'a Cid, path: &'a str) -> Self {
        Self { cid, path }
    }

    /// `CIDv1 in base32/path`, with the slash even where the path is empty.
    pub(super) fn legacy(&self) -> String {
        format!("{}/{}", Cid::new_v1(self.cid.codec(), *self.cid.hash()), self.path)
    }

    /// `base58btc multihash/path`, without the slash where it is empty.
    pub(super) fn modern(&self) -> String {
        let hash = Base::Base58Btc.encode(self.cid.hash().to_bytes());
        if self.path.is_empty() { hash } else { format!("{hash}/{}", self.path) }
    }
}
