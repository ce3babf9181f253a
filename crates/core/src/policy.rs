//! Which CIDs are accepted, and the named limits of blocks and DAGs.
//!
//! The rules for hash functions and digests are boxo's `verifcid`. A CID that
//! breaks them is refused wherever it turns up: as a root, in a link, from a
//! peer.

use std::time::Duration;

use crate::content::{Cid, IDENTITY, inline_data};
use crate::hash;
use crate::links::{BlockError, Codec, links};

/// The largest block, in bytes: what Bitswap's specification lets a peer rely
/// on. Larger ones are cut off while they arrive.
pub const MAX_BLOCK: usize = 2 << 20;

/// The shortest digest, in bytes: below, collisions are within reach.
pub const MIN_DIGEST: usize = 20;

/// The longest digest, and the longest data in an identity CID, in bytes.
pub const MAX_DIGEST: usize = 128;

/// The most distinct blocks below one root.
pub const MAX_BLOCKS: u64 = 1 << 26;

/// The deepest block below a root; the root's depth is 0. Far beyond any
/// honest DAG, it bounds what a walk remembers of the way down.
pub const MAX_DEPTH: u32 = 1 << 20;

/// How deep identity CIDs may be nested in one another. Each costs at least
/// five bytes of the outermost one's 128, so that this is never the tighter
/// bound; it is named so that nothing depends on that.
pub const MAX_IDENTITY_NESTING: u32 = 32;

/// The slowest pace, in bytes per second, at which a fetch is waited for. Slower
/// is no modem, but a source that sends just enough to be kept on.
pub const LEAST_PACE: u64 = 1 << 10;

/// The longest that one attempt at a root takes. What it has fetched is kept,
/// and the next attempt goes on from there: at the pace of a good line this is
/// far more than any root has.
pub const MAX_ATTEMPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Why a CID is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The hash function is not on the list.
    #[error("the hash function {0:#x} is not accepted; use sha2-256 or blake3")]
    Function(u64),
    /// The digest has fewer than [`MIN_DIGEST`] bytes.
    #[error("the digest has {0} bytes; at least {MIN_DIGEST} are needed")]
    DigestTooShort(usize),
    /// The digest has more bytes than its function gives.
    #[error("the digest has {0} bytes, more than its hash function gives")]
    DigestTooLong(usize),
}

/// What pinning a root means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Its blocks are fetched and kept.
    Fetched,
    /// The CID, with the identity CIDs that it links to, holds all of its
    /// data itself: there is nothing to fetch, to keep or to charge.
    Inline,
}

/// Why a root cannot be pinned, whatever the network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The CID is not accepted.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// The codec's links are unknown, so that its DAG cannot be held whole.
    #[error("a root with {} cannot be pinned: its links are unknown; roots may be raw, dag-pb, dag-cbor or dag-json", CodecName(*.0))]
    Codec(u64),
    /// The data inside an identity CID is invalid.
    #[error("the data inside the identity CID is invalid: {0}")]
    Inline(BlockError),
}

/// Whether a CID may be fetched, kept or followed.
///
/// # Errors
/// When its hash function is not accepted, or its digest too short or long.
pub fn check(cid: &Cid) -> Result<(), PolicyError> {
    let (code, length) = (cid.hash().code(), cid.hash().digest().len());
    if !hash::is_accepted(code) {
        return Err(PolicyError::Function(code));
    }
    if code == IDENTITY {
        return Ok(());
    }
    if length < MIN_DIGEST {
        return Err(PolicyError::DigestTooShort(length));
    }
    if length > hash::longest_digest(code) {
        return Err(PolicyError::DigestTooLong(length));
    }
    Ok(())
}

/// Whether a root may be pinned, and whether anything has to be fetched.
///
/// # Errors
/// When the CID is not accepted, its codec is not followed, or it is an
/// identity CID whose data is invalid.
pub fn check_root(cid: &Cid) -> Result<Root, RootError> {
    check(cid)?;
    if Codec::of(cid.codec()).is_none() {
        return Err(RootError::Codec(cid.codec()));
    }
    inline_root(cid, 0).map(|inline| if inline { Root::Inline } else { Root::Fetched })
}

/// Whether nothing below this CID has to be fetched.
fn inline_root(cid: &Cid, nesting: u32) -> Result<bool, RootError> {
    let Some(data) = inline_data(cid) else { return Ok(false) };
    if nesting > MAX_IDENTITY_NESTING {
        return Err(RootError::Inline(BlockError::TooDeep));
    }
    let mut children = Vec::new();
    if Codec::of(cid.codec()).is_some() {
        links(cid.codec(), data, &mut |child| children.push(child)).map_err(RootError::Inline)?;
    }
    let mut inline = true;
    for child in &children {
        inline &= inline_root(child, nesting + 1)?;
    }
    Ok(inline)
}

/// A codec for people: its name where it is known, and its number.
pub struct CodecName(pub u64);

impl std::fmt::Display for CodecName {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match codec_name(self.0) {
            Some(name) => write!(to, "the codec {name} ({:#x})", self.0),
            None => write!(to, "the codec {:#x}", self.0),
        }
    }
}

/// The names of codecs that turn up in practice, from the multicodec table.
fn codec_name(code: u64) -> Option<&'static str> {
    Some(match code {
        0x50 => "protobuf",
        0x51 => "cbor",
        0x55 => "raw",
        0x60 => "rlp",
        0x70 => "dag-pb",
        0x71 => "dag-cbor",
        0x72 => "libp2p-key",
        0x78 => "git-raw",
        0x7b => "torrent-info",
        0x85 => "dag-jose",
        0x86 => "dag-cose",
        0x90 => "eth-block",
        0x93 => "eth-tx-trie",
        0x97 => "eth-account-snapshot",
        0xb0 => "bitcoin-block",
        0xb1 => "bitcoin-tx",
        0x0129 => "dag-json",
        0x0200 => "json",
        0x0202 => "car",
        0xf101 => "fil-commitment-unsealed",
        0xf102 => "fil-commitment-sealed",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Multihash, parse};

    fn cid(codec: u64, code: u64, length: usize) -> Cid {
        Cid::new_v1(codec, Multihash::wrap(code, &vec![1; length]).unwrap())
    }

    #[test]
    fn digests_are_bounded_by_what_their_function_gives() {
        let check =
            |code, length, want| assert_eq!(check(&cid(0x55, code, length)), want, "{code:#x} {length}");
        check(0x12, 32, Ok(()));
        check(0x12, 20, Ok(()));
        check(0x12, 19, Err(PolicyError::DigestTooShort(19)));
        check(0x12, 33, Err(PolicyError::DigestTooLong(33)));
        check(0x11, 20, Ok(()));
        check(0x1e, 128, Ok(()));
        check(0x19, 64, Ok(()));
        check(0xb220, 32, Ok(()));
        check(0xb220, 33, Err(PolicyError::DigestTooLong(33)));
        check(0x00, 0, Ok(()));
        check(0x00, 128, Ok(()));
        check(0xd5, 16, Err(PolicyError::Function(0xd5)));
        check(0x22, 32, Err(PolicyError::Function(0x22)));
    }

    #[test]
    fn a_root_of_an_unknown_codec_is_named() {
        assert_eq!(check_root(&cid(0x72, 0x12, 32)), Err(RootError::Codec(0x72)));
        let text = RootError::Codec(0x72).to_string();
        assert!(text.contains("libp2p-key (0x72)"), "{text}");
        let text = RootError::Codec(0x9999).to_string();
        assert!(text.contains("the codec 0x9999 "), "{text}");
        for codec in [0x55, 0x70, 0x71, 0x0129] {
            assert_eq!(check_root(&cid(codec, 0x12, 32)), Ok(Root::Fetched));
        }
    }

    #[test]
    fn an_identity_root_without_foreign_links_is_inline() {
        let inline = |text: &str| check_root(&parse(text).unwrap());
        assert_eq!(inline("bafkqaaa"), Ok(Root::Inline));
        // The empty UnixFS directory, inlined.
        assert_eq!(inline("bafyaabakaieac"), Ok(Root::Inline));
    }

    #[test]
    fn inline_data_is_decoded_and_its_links_decide() {
        let wrap = |data: &[u8]| Cid::new_v1(0x71, Multihash::wrap(0, data).unwrap());
        let link = |cid: &Cid| {
            let bytes = cid.to_bytes();
            let mut data = vec![0xd8, 42, 0x58, u8::try_from(bytes.len() + 1).unwrap(), 0];
            data.extend(bytes);
            data
        };
        let empty = parse("bafkqaaa").unwrap();
        let block = cid(0x55, 0x12, 32);
        assert_eq!(check_root(&wrap(&link(&wrap(&link(&empty))))), Ok(Root::Inline));
        assert_eq!(check_root(&wrap(&link(&wrap(&link(&block))))), Ok(Root::Fetched));
        assert_eq!(check_root(&wrap(&[0x83])), Err(RootError::Inline(BlockError::Truncated)));
        // A foreign codec inside is a leaf; a forbidden hash is not.
        assert_eq!(check_root(&wrap(&link(&Cid::new_v1(0x72, *empty.hash())))), Ok(Root::Inline));
        let weak = cid(0x55, 0x12, 4);
        assert_eq!(
            check_root(&wrap(&link(&weak))),
            Err(RootError::Inline(BlockError::Link(PolicyError::DigestTooShort(4))))
        );
    }
}
