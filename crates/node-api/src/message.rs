//! Requests and answers of the node API.

use pinfold_core::status::Reason;
use serde::{Deserialize, Serialize};

/// One content on one node, in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AllocationId {
    /// The service's number for the content (its root).
    pub content: i64,
    /// Grows each time the content is allocated to the node anew.
    pub generation: i64,
}

/// Opens a session. A later session voids the earlier ones of the same node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the node.
    pub version: u32,
    /// Milliseconds since 1970 by the node's clock; must exceed that of the
    /// node's last accepted hello, so that a recorded one cannot be replayed.
    pub sent_at_ms: i64,
    /// Multiaddrs, each ending in `/p2p/<peer id>`, that peers can dial.
    pub addresses: Vec<String>,
    /// The base URL of the node's gateway, if peers can reach it.
    pub gateway: Option<String>,
    /// Bytes that the owner offers.
    pub capacity_bytes: u64,
    /// Bytes in use on disk.
    pub used_bytes: u64,
    /// Name and version of the software, such as `pinfold/0.1.0`.
    pub agent: String,
}

/// The service's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// Put into the signature of every later request of this session.
    pub session: i64,
    /// Counts restores of the database from a backup. When it has grown, the
    /// node deletes nothing until a release names the content.
    pub database_generation: i64,
    /// How often the node reports at least, in milliseconds.
    pub heartbeat_ms: u64,
    /// Whether private addresses may be dialled for this service's pins.
    pub allow_private_addresses: bool,
}

/// Asks for work and acknowledges what earlier answers brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Assignments, changes and releases that the node has durably noted.
    pub acknowledged: Vec<AllocationId>,
    /// The [`Denylist::version`] that the node applies.
    pub denylist_version: i64,
    /// How long the service may wait for work before it answers with none.
    pub wait_ms: u64,
}

/// Work for the node. What is not acknowledged comes again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Contents to fetch and hold; one that is known already has new origins.
    pub assignments: Vec<Assignment>,
    /// Contents to let go.
    pub releases: Vec<Release>,
    /// The current version of the denylist; fetch it when it differs.
    pub denylist_version: i64,
}

/// A root to fetch and hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// What reports about it name.
    pub allocation: AllocationId,
    /// The root as text, CIDv1 or CIDv0.
    pub root: String,
    /// Multiaddrs of peers said to have it, from its pins' `origins`, at most
    /// [`crate::MAX_ORIGINS`]. Each account in turn adds one, so that nobody's
    /// are crowded out by another's.
    pub origins: Vec<String>,
    /// Nodes that hold or fetch it too.
    pub peers: Vec<PeerHint>,
    /// A root that the node holds and that this one replaces.
    pub predecessor: Option<String>,
    /// Stands for the accounts that want it: fetches with the same value
    /// share one turn in the node's fair queue.
    pub fairness: i64,
    /// Bytes of distinct blocks that may be fetched before the next grant.
    pub granted_bytes: u64,
    /// True when the content was held before and a copy was lost: such a
    /// fetch is a repair and comes before new ones.
    pub repair: bool,
}

/// Another node to fetch from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHint {
    /// Its multiaddrs, each with `/p2p/`.
    pub addresses: Vec<String>,
    /// Its gateway, if it has one that can be reached.
    pub gateway: Option<String>,
}

/// A content that the node may forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Which one.
    pub allocation: AllocationId,
    /// Its root.
    pub root: String,
}

/// What became of allocations. At most [`crate::MAX_EVENTS`]; an empty one is
/// a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// Bytes in use on disk.
    pub used_bytes: u64,
    /// Bytes that the owner offers.
    pub capacity_bytes: u64,
}

/// One event of one allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Which allocation.
    pub allocation: AllocationId,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened to an allocation. Amounts are totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The fetch goes on, or waits for its next attempt.
    Progress {
        /// Distinct blocks fetched or found held so far.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// Where it stands.
        reason: Reason,
        /// Attempts begun.
        attempts: u32,
        /// When the next one begins, in milliseconds since 1970.
        next_attempt_ms: Option<i64>,
    },
    /// Asks that the fetch may hold this many bytes in all. It is answered
    /// with the old total where there is no room for more, and refused where
    /// the fetch cannot go on with that.
    WantGrant {
        /// The new total that would do for a while.
        bytes: u64,
        /// The total without which the fetch stands still; 0 while it moves.
        #[serde(default)]
        least: u64,
    },
    /// Every block is held durably.
    Stored {
        /// What the walk computed.
        manifest: ManifestSummary,
    },
    /// This fetch cannot succeed, ever: the content is invalid or denied.
    Failed {
        /// Why.
        reason: Reason,
        /// A sentence for people.
        detail: String,
    },
    /// The node has no room for it.
    NoCapacity,
    /// A block that was held is gone or damaged; the node fetches it again.
    Lost {
        /// How many blocks.
        blocks: u64,
    },
    /// A content that is held was compared, block by block, with the denylist.
    /// Told when what was found differs from what the service was told since
    /// the content was last stored; nothing told means that nothing is denied.
    Compared {
        /// The [`Denylist::version`] that it was compared under.
        denylist: i64,
        /// Whether a block of it is denied.
        denied: bool,
    },
    /// The content was let go, as the release asked.
    Released,
}

/// The commitment to a root's blocks, 48 bytes of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSummary {
    /// Version of the manifest function.
    pub version: u32,
    /// Root of the tree, in lower-case hexadecimal when serialised.
    #[serde(with = "hex32")]
    pub root: [u8; 32],
    /// Sum of the lengths of the distinct blocks.
    pub bytes: u64,
    /// Number of distinct blocks.
    pub blocks: u64,
}

/// The answers to a [`Report`], one per event in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAck {
    /// One per event.
    pub answers: Vec<Answer>,
}

/// What the service made of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Noted, durably.
    Noted,
    /// The allocation is not this node's, or its generation is old: stop.
    Stale,
    /// The fetch may hold this many bytes in all.
    Granted {
        /// The total, which may be below what was asked.
        bytes: u64,
    },
    /// No account that wants the content has quota left: stop, keep nothing.
    Refused {
        /// Why.
        reason: Reason,
    },
}

/// A part of what the node holds, for the daily comparison. Parts are sent in
/// ascending order of content; `after` and the last entry bound the range in
/// which the service's and the node's lists must agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Contents above this number are covered.
    pub after: i64,
    /// What is held, ascending. Fewer than [`crate::MAX_ALLOCATIONS`]: the end.
    pub held: Vec<AllocationId>,
}

/// The differences that the service found in an [`Inventory`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryAck {
    /// Held, but not allocated to this node any more. Deleted after a
    /// [`Release`], never on this word alone.
    pub unknown: Vec<AllocationId>,
    /// Allocated as stored, but not held: they are assigned again.
    pub missing: Vec<AllocationId>,
}

/// The denylist in the compact format of IPIP-383.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denylist {
    /// Grows with each change.
    pub version: i64,
    /// The rules, one a line.
    pub rules: String,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A word for programs: `unknown_node`, `bad_signature`, `replayed`,
    /// `old_session`, `version`, `malformed`, `unavailable`.
    pub error: String,
    /// What happened and what to do.
    pub details: String,
}

mod hex32 {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("expected 64 hexadecimal digits"))
    }
}
