//! What goes into the database and comes out of it.

use std::collections::BTreeMap;

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{AllocationId, ManifestSummary, PeerHint};
use uuid::Uuid;

/// Milliseconds since 1970, UTC.
pub type Millis = i64;
/// An account's number.
pub type AccountId = i64;

/// What `POST /pins` stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPin {
    /// Chosen by the caller: a UUIDv7.
    pub requestid: Uuid,
    /// The account that pins.
    pub account: AccountId,
    /// The CID as it was submitted, echoed in this version and base.
    pub cid: String,
    /// The content's key: unsigned varint of the codec, then the multihash.
    pub content: Vec<u8>,
    /// A content that is held by its own CID (an identity CID that links to
    /// nothing): no node is asked, nothing is charged, `pinned` at once.
    pub inline: bool,
    /// At most 255 code points.
    pub name: Option<String>,
    /// Key-value pairs, both text.
    pub meta: BTreeMap<String, String>,
    /// Multiaddrs as submitted, at most 20.
    pub origins: Vec<String>,
}

/// A pin as it is stored, with what its content and holding tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// Its request id.
    pub requestid: Uuid,
    /// Unique in the account, to the millisecond.
    pub created: Millis,
    /// The CID as submitted.
    pub cid: String,
    /// The name, if one was given.
    pub name: Option<String>,
    /// The metadata as submitted.
    pub meta: BTreeMap<String, String>,
    /// The origins as submitted.
    pub origins: Vec<String>,
    /// The derived status.
    pub status: Status,
    /// What `info` tells.
    pub info: PinInfo,
    /// Multiaddrs of the nodes that will receive the data: 1 to 3, or those
    /// last known. Empty only when no node was ever known, or the pin is
    /// inline; the API then answers with every known node's address.
    pub delegates: Vec<String>,
}

/// The facts behind a pin's `info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinInfo {
    /// Why it is where it is.
    pub reason: Option<Reason>,
    /// A sentence from the node or the service about a failure.
    pub detail: Option<String>,
    /// Distinct blocks so far.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the whole DAG, once known.
    pub total_bytes: Option<u64>,
    /// Durable copies now.
    pub replicas: u32,
    /// Copies wanted.
    pub replicas_wanted: u32,
    /// Attempts begun.
    pub attempts: u32,
    /// When the next attempt begins.
    pub next_attempt: Option<Millis>,
    /// The content that a replacing pin keeps until it is pinned itself.
    pub replaces: Option<String>,
    /// Pins of other requests that wait before this one, where it is queued
    /// for a turn in its account.
    pub queued_ahead: Option<u64>,
}

/// Why a pin was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinRefusal {
    /// The account is over its quota.
    #[error("the account uses {used} of its {quota} bytes")]
    OverQuota {
        /// Charged and reserved.
        used: u64,
        /// The limit.
        quota: u64,
    },
    /// The CID is on the denylist.
    #[error("the CID is on the denylist")]
    Denied,
    /// The pin to replace does not exist in this account.
    #[error("no such pin")]
    NotFound,
    /// [`MAX_PINS_OF_A_ROOT`] reached.
    #[error("the account has {MAX_PINS_OF_A_ROOT} pins of this root already")]
    TooManyOfRoot,
    /// The account's queue is full.
    #[error("the account has {queued} queued pins, the limit")]
    QueueFull {
        /// Its queued pins.
        queued: u64,
    },
    /// `created` would run more than an hour ahead of the clock.
    #[error("pins arrive faster than one a millisecond for more than an hour")]
    TooFast,
    /// No node was ever known.
    #[error("no storage node is known yet")]
    NoNode,
    /// The account is disabled or removed.
    #[error("the account is disabled")]
    AccountDisabled,
}

/// The most pins of one root in an account.
pub const MAX_PINS_OF_A_ROOT: u64 = 1_000;

/// How a name filter compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameMatch {
    /// Full match, case-sensitive.
    #[default]
    Exact,
    /// Full match, ignoring case.
    Iexact,
    /// Anywhere in the name, case-sensitive.
    Partial,
    /// Anywhere in the name, ignoring case.
    Ipartial,
}

/// The filters of `GET /pins`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Content keys; empty means any.
    pub contents: Vec<Vec<u8>>,
    /// The name and how it is compared.
    pub name: Option<(String, NameMatch)>,
    /// Wanted statuses; never empty.
    pub statuses: Vec<Status>,
    /// Created strictly before.
    pub before: Option<Millis>,
    /// Created strictly after.
    pub after: Option<Millis>,
    /// Pairs that must all be present.
    pub meta: BTreeMap<String, String>,
    /// 1 to 1,000.
    pub limit: u32,
}

/// A page of a list, newest first, in one snapshot with its count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Pins that match, with the cursors applied.
    pub count: u64,
    /// The newest of them.
    pub pins: Vec<PinRecord>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Unique name.
    pub name: String,
    /// When it was made.
    pub created: Millis,
    /// Bytes that it may use.
    pub quota: u64,
    /// Bytes charged.
    pub used: u64,
    /// Bytes granted to running fetches and not yet settled.
    pub reserved: u64,
    /// Whether its tokens are refused.
    pub disabled: bool,
    /// Pins by status, in the order of [`Status::ALL`].
    pub pins: [u64; 4],
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `GET /pins…`.
    PinsRead,
    /// `POST` and `DELETE /pins…`.
    PinsWrite,
    /// Everything of the operator.
    Admin,
}

/// A token, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The `jti`.
    pub id: Uuid,
    /// The account that it acts for.
    pub account: AccountId,
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// SHA-256 of the token's text.
    pub hash: [u8; 32],
    /// When it was made.
    pub created: Millis,
    /// When it ends by itself.
    pub expires: Option<Millis>,
    /// When it was last used, at a minute's precision.
    pub last_used: Option<Millis>,
    /// When it was revoked.
    pub revoked: Option<Millis>,
}

/// What a request's token resolves to; read on every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The token.
    pub token: Token,
    /// Whether its account is disabled.
    pub account_disabled: bool,
}

/// A node as its hello described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHello {
    /// Ed25519 public key, 32 bytes.
    pub key: [u8; 32],
    /// Whether the operator runs it: its word settles a content.
    pub operated: bool,
    /// Multiaddrs that peers can dial.
    pub addresses: Vec<String>,
    /// Its gateway, if peers can reach it.
    pub gateway: Option<String>,
    /// Bytes offered.
    pub capacity_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Its software.
    pub agent: String,
    /// The hello's sequence; must exceed the last one.
    pub sent_at: Millis,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: i64,
    /// What it last said of itself.
    pub hello: NodeHello,
    /// Its open session.
    pub session: i64,
    /// When it was last heard.
    pub last_seen: Millis,
}

/// Which request of a node this is; refused when it was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRequest {
    /// The node's key.
    pub key: [u8; 32],
    /// Its session.
    pub session: i64,
    /// The request's number on its channel.
    pub sequence: i64,
}

/// Why a node's request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefusal {
    /// No node has this key.
    #[error("no node with this key is known; the operator adds it with --operator-node")]
    Unknown,
    /// A later hello opened another session.
    #[error("the session has ended; send a hello")]
    OldSession,
    /// The sequence was used before.
    #[error("the request was seen before")]
    Replayed,
}

/// A change that subscribers of a pin's events may care for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The content whose pins may look different now.
    pub content: i64,
}

/// What a recount found wrong; empty when all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// One sentence per difference, at most 1,000.
    pub differences: Vec<String>,
    /// Rows compared.
    pub compared: u64,
}

/// An allocation in the operator's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The allocation.
    pub allocation: AllocationId,
    /// The root, as one of its pins has it.
    pub cid: String,
    /// The node's number, none while it waits for one.
    pub node: Option<i64>,
    /// Where it stands.
    pub info: PinInfo,
    /// Since when.
    pub since: Millis,
    /// Other nodes of the same content.
    pub peers: Vec<PeerHint>,
    /// The manifest, once settled.
    pub manifest: Option<ManifestSummary>,
}
