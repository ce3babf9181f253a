//! What a walk needs to know of a block, computed from its bytes.

use pinfold_core::links::{self, BlockError, Codec};
use pinfold_core::manifest;
use pinfold_core::policy::MAX_BLOCK;

use super::walk::{Derived, Links};

/// Why a block is refused though its hash is right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    /// Too large.
    #[error("it has {0} bytes; blocks have at most {MAX_BLOCK}")]
    TooLarge(usize),
    /// Not what its codec says.
    #[error("it cannot be decoded: {0}")]
    Undecodable(#[from] BlockError),
}

/// Length, chunk root and links of a block. A block of a codec whose links
/// are unknown is a leaf.
pub(crate) fn derive(codec: u64, bytes: &[u8]) -> Result<Derived, Invalid> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if bytes.len() > MAX_BLOCK {
        return Err(Invalid::TooLarge(bytes.len()));
    }
    let links = links_of(codec, bytes)?;
    Ok(Derived { length, chunk_root: manifest::chunk_root(bytes), links })
}

/// The links of a block alone.
pub(crate) fn links_of(codec: u64, bytes: &[u8]) -> Result<Links, BlockError> {
    let mut found = Links::default();
    if Codec::of(codec).is_some() {
        links::links(codec, bytes, &mut |cid| found.push(&cid))?;
        found.shrink();
    }
    Ok(found)
}

/// The links inside an identity CID, none where its data is invalid.
pub(crate) fn inline(codec: u64, data: &[u8]) -> Option<Links> {
    links_of(codec, data).ok()
}
