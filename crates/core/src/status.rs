//! The status of a pin and the word that explains it.
//!
//! A status is never set: it is derived by [`derive()`] from the facts (the
//! content's state, the holding's verdict, the pin's own end), and stored for
//! listing in the transaction that changed a fact. A recount derives it again.

use serde::{Deserialize, Serialize};

mod sentence;

pub use sentence::{Progress, sentence};

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

    /// The status with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
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
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Searching,
        Self::OriginUnreachable,
        Self::NoProviders,
        Self::Retrieving,
        Self::Replicating,
        Self::InvalidBlock,
        Self::UnsupportedCodec,
        Self::OverQuota,
        Self::OverLimit,
        Self::Denied,
        Self::Expired,
        Self::NoCapacity,
    ];

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

    /// The reason with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Whether a content or a pin can fail for this reason. The others explain
    /// a pin that is still on its way.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::InvalidBlock
            | Self::UnsupportedCodec
            | Self::OverQuota
            | Self::OverLimit
            | Self::Denied
            | Self::Expired => true,
            Self::Searching
            | Self::OriginUnreachable
            | Self::NoProviders
            | Self::Retrieving
            | Self::Replicating
            | Self::NoCapacity => false,
        }
    }
}

/// Where a content stands in the network, for every account alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentState {
    /// No node has begun.
    Waiting,
    /// A node fetches it, or it is held by fewer nodes than the minimum and
    /// was never held by enough.
    Fetching,
    /// The replication minimum was reached, and one copy at least is held.
    Held,
    /// It was held, and every copy is lost; a node looks for it again.
    Lost,
    /// It can never be held.
    Failed(Reason),
}

/// What the service decided about one account's holding of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing stands against it.
    #[default]
    None,
    /// The account's quota did not suffice for it.
    OverQuota,
    /// It is on the denylist. Lifting the entry lifts the verdict.
    Denied,
}

/// How a pin itself ended, whatever becomes of its content later. Recorded
/// once and never undone: a failed pin keeps no content, and a later success
/// of somebody else's does not revive it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It has not ended.
    #[default]
    None,
    /// It failed for this reason.
    Failed(Reason),
}

/// The facts from which a pin's status follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Where the content stands.
    pub content: ContentState,
    /// What was decided about the account's holding of it.
    pub verdict: Verdict,
    /// How the pin itself ended.
    pub ending: Ending,
    /// Its deadline has passed without progress.
    pub deadline_passed: bool,
    /// It was pinned before: a deadline does not apply to it any more.
    pub was_pinned: bool,
    /// It has its turn among the account's pins in flight.
    pub has_turn: bool,
}

impl Facts {
    /// A pin that has just been accepted for a content in this state, with
    /// nothing against it and its turn at once.
    #[must_use]
    pub fn of(content: ContentState) -> Self {
        Self {
            content,
            verdict: Verdict::None,
            ending: Ending::None,
            deadline_passed: false,
            was_pinned: false,
            has_turn: true,
        }
    }
}

/// The status of a pin, and why it failed where it did.
///
/// In this order: what ended the pin stays; then what the service decided
/// about the holding; then what is known of the content. What is held is
/// `pinned` whatever the deadline says, and what was `pinned` once is
/// `pinning` again when every copy is lost, without a deadline.
#[must_use]
pub fn derive(facts: &Facts) -> (Status, Option<Reason>) {
    if let Ending::Failed(reason) = facts.ending {
        return failed(reason);
    }
    match facts.verdict {
        Verdict::Denied => return failed(Reason::Denied),
        Verdict::OverQuota => return failed(Reason::OverQuota),
        Verdict::None => {}
    }
    match facts.content {
        ContentState::Failed(reason) => failed(reason),
        ContentState::Held => (Status::Pinned, None),
        _ if facts.was_pinned => (Status::Pinning, None),
        _ if facts.deadline_passed => failed(Reason::Expired),
        ContentState::Fetching | ContentState::Lost if facts.has_turn => (Status::Pinning, None),
        ContentState::Waiting | ContentState::Fetching | ContentState::Lost => (Status::Queued, None),
    }
}

fn failed(reason: Reason) -> (Status, Option<Reason>) {
    (Status::Failed, Some(reason))
}

#[cfg(test)]
mod tests;
