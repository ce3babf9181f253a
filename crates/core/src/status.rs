//! The status of a pin and the word that explains it.

use serde::{Deserialize, Serialize};

/// The four states of the Pinning Service API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted; no node has begun.
    Queued,
    /// A node fetches or replicates.
    Pinning,
    /// The replication minimum holds every block durably.
    Pinned,
    /// Final for this request; a [`Reason`] says why.
    Failed,
}

impl Status {
    /// Every status, in the order in which columns and lists name them.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Pinning, Self::Pinned, Self::Failed];

    /// The word of the Pinning Service API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Pinning => "pinning",
            Self::Pinned => "pinned",
            Self::Failed => "failed",
        }
    }
}

/// Why a pin is where it is: the `reason` key of a pin's `info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Looking for a peer that has the root.
    Searching,
    /// None of the origins could be dialled; the search goes on elsewhere.
    OriginUnreachable,
    /// Nobody known has the root; it is tried again.
    NoProviders,
    /// Blocks are arriving.
    Retrieving,
    /// Held once, copied to further nodes.
    Replicating,
    /// A block cannot be decoded, or exceeds the size limit.
    InvalidBlock,
    /// A block has a codec whose links are unknown.
    UnsupportedCodec,
    /// The account's quota is used up.
    OverQuota,
    /// The DAG exceeds a named limit (blocks, depth, nesting).
    OverLimit,
    /// The CID, or one in its DAG, is on the denylist.
    Denied,
    /// Nothing arrived before the deadline.
    Expired,
    /// No node has room.
    NoCapacity,
}

impl Reason {
    /// The word of the `reason` key.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Searching => "searching",
            Self::OriginUnreachable => "origin_unreachable",
            Self::NoProviders => "no_providers",
            Self::Retrieving => "retrieving",
            Self::Replicating => "replicating",
            Self::InvalidBlock => "invalid_block",
            Self::UnsupportedCodec => "unsupported_codec",
            Self::OverQuota => "over_quota",
            Self::OverLimit => "over_limit",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::NoCapacity => "no_capacity",
        }
    }
}
