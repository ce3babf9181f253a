//! CIDs as clients write them.

use pinfold_core::{
    content::{self, Cid, ContentKey},
    policy::{self, Root},
};

use super::error::ApiError;

/// A root that may be pinned.
pub(crate) struct PinnableRoot {
    /// The CID.
    pub(crate) cid: Cid,
    /// What contents are compared by.
    pub(crate) key: Vec<u8>,
    /// Whether the CID holds its own data, so that nothing is fetched.
    pub(crate) inline: bool,
}

/// Reads a root and judges whether it can be pinned at all.
///
/// # Errors
/// `BadRequest`, with what is wrong.
pub(crate) fn parse_root(text: &str) -> Result<PinnableRoot, ApiError> {
    let cid = parse(text)?;
    let root = policy::check_root(&cid).map_err(|error| refuse(&error))?;
    Ok(PinnableRoot { key: ContentKey::of(&cid).into(), inline: root == Root::Inline, cid })
}

/// Reads a CID of a filter: any CID; what cannot be pinned matches nothing.
///
/// # Errors
/// `BadRequest` when it is not a CID.
pub(crate) fn parse_filter(text: &str) -> Result<Vec<u8>, ApiError> {
    parse(text).map(|cid| ContentKey::of(&cid).into())
}

fn parse(text: &str) -> Result<Cid, ApiError> {
    content::parse(text).map_err(|error| refuse(&error))
}

fn refuse(error: &dyn std::error::Error) -> ApiError {
    ApiError::bad(format!("cid: {error}"))
}
