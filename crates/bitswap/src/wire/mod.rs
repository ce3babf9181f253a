//! Bitswap messages on the wire.
//!
//! A message is a length-prefixed protobuf. It is written and read by hand,
//! for two reasons: a block must be refused as soon as its length is told and
//! must never be copied or pinned with a whole message, and nothing may be
//! allocated because a peer announces it.

pub(crate) mod decode;
mod element;
pub(crate) mod encode;
mod field;
mod growing;
mod hash;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

pub(crate) use self::hash::is_verifiable;

/// The largest message that is read or written, without its length prefix.
/// Other implementations reset a stream that carries a larger one.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;

/// The largest block, in bytes: what IPFS implementations agree to transfer.
pub(crate) const MAX_BLOCK: usize = 2 << 20;

/// The longest CID in a message, in bytes: longer ones are skipped, as in
/// boxo.
pub(crate) const MAX_CID: usize = 168;

/// The identity "hash function": the CID holds the content itself.
pub(crate) const IDENTITY: u64 = 0;

/// Wantlist entries read from one message; what is beyond is skipped. Kubo
/// keeps 1,024 of a peer.
pub(crate) const MAX_ENTRIES: usize = 4_096;

/// HAVE and DONT_HAVE read from one message. Each answers a want of ours, of
/// which one peer has far fewer.
pub(crate) const MAX_PRESENCES: usize = 8_192;

/// Blocks are wanted and awaited by multihash, so that the same bytes under two
/// codecs are one.
pub(crate) type Hash = Multihash<64>;

/// The version of Bitswap agreed on for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `/ipfs/bitswap` and `/ipfs/bitswap/1.0.0`: blocks without a prefix, so
    /// CIDv0 alone.
    V1_0,
    /// `/ipfs/bitswap/1.1.0`: blocks with a prefix.
    V1_1,
    /// `/ipfs/bitswap/1.2.0`: HAVE and DONT_HAVE.
    V1_2,
}

impl Version {
    /// Whether wants for HAVE, and HAVE and DONT_HAVE, can be said.
    pub(crate) fn has_presences(self) -> bool {
        self >= Self::V1_2
    }
}

/// What a want asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The block.
    Block,
    /// Whether the peer has it.
    Have,
}

/// An entry of a wantlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) cid: Cid,
    pub(crate) priority: i32,
    pub(crate) cancel: bool,
    pub(crate) kind: Kind,
    pub(crate) send_dont_have: bool,
}

/// What a block's hash is computed with: version, codec and multihash without
/// the digest, as the sender says. The codec does not matter for the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) hash: u64,
    pub(crate) length: usize,
}

impl Prefix {
    /// That of a block without one, from a peer of version 1.0: SHA-256.
    pub(crate) const V0: Self = Self { hash: hash::SHA2_256, length: 32 };

    /// The multihash of a block, or `None` for an unknown or identity hash
    /// function or an impossible length.
    pub(crate) fn multihash(&self, data: &[u8]) -> Option<Hash> {
        hash::multihash(self.hash, self.length, data)
    }
}

/// A part of a message, told as soon as it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A block, its hash not yet computed.
    Block { prefix: Prefix, data: Bytes },
    /// A block of so many bytes was skipped, because none is expected.
    Skipped(usize),
    /// The message has ended; this is what is only told in whole.
    End(Tail),
}

/// A message's wantlist and presences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) wants: Vec<Entry>,
    pub(crate) full: bool,
    /// CIDs with true for HAVE, false for DONT_HAVE.
    pub(crate) presences: Vec<(Cid, bool)>,
}

#[cfg(test)]
pub(crate) mod tests;
