//! Where the gateway's blocks come from, and why one cannot be served.

use bytes::Bytes;
use pinfold_core::{
    content::{self, Cid},
    links::BlockError,
    unixfs::{Node, UnixFsError},
};

use crate::serve::Held;

/// What is held here, save what is denied. Nothing is ever fetched. Reads
/// block: they belong on a blocking thread.
#[derive(Clone)]
pub(super) struct Source {
    held: Held,
}

/// Why content cannot be served. The text goes to the client. CIDs are boxed:
/// they are large, and errors rare.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unserved {
    /// The block is not held.
    #[error("the block {0} is not held here, and this gateway fetches nothing; pin its root first")]
    NotHeld(Box<Cid>),
    /// It is denied, whether it is held or not.
    #[error("{0} is on this node's denylist")]
    Denied(Box<Cid>),
    /// The path has a name that its parent does not.
    #[error("there is no link named {name:?} under {parent}")]
    NoLink {
        /// The name that is missing.
        name: String,
        /// The block without it.
        parent: Box<Cid>,
    },
    /// The path ends inside a document, at something that is no link.
    #[error(
        "the path ends inside the document {0}, at something that is no link; ask for the document itself"
    )]
    Inside(Box<Cid>),
    /// The block cannot be decoded.
    #[error("the block {cid} cannot be decoded: {reason}")]
    Undecodable {
        /// The block.
        cid: Box<Cid>,
        /// Why not.
        reason: String,
    },
    /// The content is of another kind than was asked for.
    #[error("{0}")]
    NotAcceptable(String),
    /// The request makes no sense for this content.
    #[error("{0}")]
    Bad(String),
    /// A bound of the gateway was reached.
    #[error("{0}")]
    Limit(&'static str),
    /// The block store failed. What exactly is for the log.
    #[error("the block store failed")]
    Store(#[from] pinfold_blockstore::Error),
    /// The thread that read has ended.
    #[error("the read was cancelled")]
    Cancelled,
}

impl Unserved {
    pub(super) fn link(cid: &Cid, error: BlockError) -> Self {
        Self::Undecodable { cid: Box::new(*cid), reason: error.to_string() }
    }

    pub(super) fn unixfs(cid: &Cid, error: UnixFsError) -> Self {
        Self::Undecodable { cid: Box::new(*cid), reason: error.to_string() }
    }

    /// A word for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::NotHeld(_) => "not_held",
            Self::Denied(_) => "denied",
            Self::NoLink { .. } | Self::Inside(_) => "no_link",
            Self::Undecodable { .. } => "undecodable",
            Self::NotAcceptable(_) | Self::Bad(_) => "bad_request",
            Self::Limit(_) => "limit",
            Self::Store(_) | Self::Cancelled => "failed",
        }
    }
}

impl Source {
    pub(super) fn new(held: Held) -> Self {
        Self { held }
    }

    /// A block's bytes. Those of an identity CID are its own.
    pub(super) fn block(&self, cid: &Cid) -> Result<Bytes, Unserved> {
        self.allow(cid, "")?;
        if let Some(data) = content::inline_data(cid) {
            return Ok(Bytes::copy_from_slice(data));
        }
        let block = content::block_cid(cid).ok_or(Unserved::NotHeld(Box::new(*cid)))?;
        self.held.store().get(block.hash())?.ok_or(Unserved::NotHeld(Box::new(*cid)))
    }

    /// A block's length in bytes, from the index alone.
    pub(super) fn size(&self, cid: &Cid) -> Result<u64, Unserved> {
        self.allow(cid, "")?;
        if let Some(data) = content::inline_data(cid) {
            return Ok(data.len() as u64);
        }
        let block = content::block_cid(cid).ok_or(Unserved::NotHeld(Box::new(*cid)))?;
        self.held.store().size(block.hash())?.ok_or(Unserved::NotHeld(Box::new(*cid)))
    }

    /// A block as a part of a file or directory.
    pub(super) fn node(&self, cid: &Cid) -> Result<Node, Unserved> {
        let block = self.block(cid)?;
        Node::decode(cid.codec(), &block).map_err(|error| Unserved::unixfs(cid, error))
    }

    /// The paths below a block that rules deny by name, and whether each
    /// stands for whatever begins so.
    pub(super) fn denied_paths(&self, cid: &Cid) -> Vec<(String, bool)> {
        let rules = self.held.rules();
        rules.denied_paths(cid).map(|(path, is_prefix)| (path.to_owned(), is_prefix)).collect()
    }

    /// Refuses what the denylist names, by CID or by path.
    pub(super) fn allow(&self, cid: &Cid, path: &str) -> Result<(), Unserved> {
        if self.held.is_denied(cid, path) {
            self.held.refused(cid, path, "gateway");
            return Err(Unserved::Denied(Box::new(*cid)));
        }
        Ok(())
    }
}
