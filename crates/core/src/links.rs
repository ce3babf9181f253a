//! What a block links to.
//!
//! Blocks come from strangers: decoding is streaming and iterative, allocates
//! nothing from a declared length, and ends with an error at the first byte
//! that the codec does not allow. Only what is needed for the links is looked
//! at: sizes, names and numbers are skipped, map keys are not compared.

mod dag_cbor;
mod dag_json;
pub(crate) mod dag_pb;

use crate::content::{self, Cid};
use crate::policy::{self, CodecName, PolicyError};
use crate::status::Reason;

/// How deep lists and maps may be nested in one block, and in a JSON one.
pub const MAX_NESTING: usize = 1_024;

/// The codecs whose links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Bytes without links.
    Raw,
    /// Protobuf nodes: UnixFS files and directories.
    DagPb,
    /// CBOR with links as tag 42.
    DagCbor,
    /// JSON with links as `{"/": "cid"}`.
    DagJson,
}

impl Codec {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::DagPb, Self::DagCbor, Self::DagJson];

    /// The codec with this number, none where its links are unknown.
    #[must_use]
    pub fn of(code: u64) -> Option<Self> {
        match code {
            0x55 => Some(Self::Raw),
            0x70 => Some(Self::DagPb),
            0x71 => Some(Self::DagCbor),
            0x0129 => Some(Self::DagJson),
            _ => None,
        }
    }

    /// Its number in the multicodec table.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::Raw => 0x55,
            Self::DagPb => 0x70,
            Self::DagCbor => 0x71,
            Self::DagJson => 0x0129,
        }
    }
}

/// Why a block's links cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The codec is not followed. A leaf where something else links to it,
    /// an error as a root.
    #[error("the links of {} are unknown", CodecName(*.0))]
    Codec(u64),
    /// The block exceeds [`policy::MAX_BLOCK`].
    #[error("the block has {0} bytes; at most {max} are allowed", max = policy::MAX_BLOCK)]
    TooLarge(usize),
    /// The block ends in the middle of a value.
    #[error("the block ends early")]
    Truncated,
    /// Something follows the value.
    #[error("the block goes on after its end, at byte {0}")]
    Trailing(usize),
    /// Lists and maps are nested deeper than [`MAX_NESTING`], or identity
    /// CIDs deeper than [`policy::MAX_IDENTITY_NESTING`].
    #[error("the block is nested too deeply")]
    TooDeep,
    /// A byte that the codec does not allow.
    #[error("the block is not valid: {what} at byte {at}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Where, counted from 0.
        at: usize,
    },
    /// A link holds no CID.
    #[error("a link of the block holds no valid CID, at byte {0}")]
    NotACid(usize),
    /// A link holds a CID that is not accepted.
    #[error("a link of the block is not accepted: {0}")]
    Link(PolicyError),
}

impl BlockError {
    /// The reason with which a pin of such a DAG fails.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Codec(_) => Reason::UnsupportedCodec,
            Self::TooDeep => Reason::OverLimit,
            Self::TooLarge(_)
            | Self::Truncated
            | Self::Trailing(_)
            | Self::Invalid { .. }
            | Self::NotACid(_)
            | Self::Link(_) => Reason::InvalidBlock,
        }
    }
}

/// Gives the links of a block to `sink`, in the order in which they appear in
/// its bytes, with repetitions. What was given before an error counts for
/// nothing.
///
/// # Errors
/// When the codec is not followed, the block is too large or not valid, or
/// one of its links is not a CID that [`policy::check`] accepts.
pub fn links(codec: u64, block: &[u8], sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
    let codec = Codec::of(codec).ok_or(BlockError::Codec(codec))?;
    if block.len() > policy::MAX_BLOCK {
        return Err(BlockError::TooLarge(block.len()));
    }
    match codec {
        Codec::Raw => Ok(()),
        Codec::DagPb => dag_pb::links(block, sink),
        Codec::DagCbor => dag_cbor::links(block, sink),
        Codec::DagJson => dag_json::links(block, sink),
    }
}

/// The links of a block, as [`links`] gives them, in a list.
///
/// # Errors
/// As [`links`].
pub fn list(codec: u64, block: &[u8]) -> Result<Vec<Cid>, BlockError> {
    let mut found = Vec::new();
    links(codec, block, &mut |cid| found.push(cid))?;
    Ok(found)
}

/// Reads the binary CID of a link that begins at byte `at` of its block.
fn binary_link(bytes: &[u8], at: usize) -> Result<Cid, BlockError> {
    accepted(content::from_bytes(bytes).map_err(|_| BlockError::NotACid(at))?)
}

fn accepted(cid: Cid) -> Result<Cid, BlockError> {
    policy::check(&cid).map_err(BlockError::Link)?;
    Ok(cid)
}

#[cfg(test)]
mod tests;
