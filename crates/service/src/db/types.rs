//! What goes into the database and comes out of it.

use std::{collections::BTreeMap, fmt::Display};

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{AllocationId, ManifestSummary, PeerHint};
use uuid::Uuid;

pub use pinfold_core::names::Match as NameMatch;

pub use super::error::{AccountRefusal, NodeRefusal, PinRefusal};

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
    /// Its account.
    pub account: AccountId,
    /// The number of its content, as in [`Changed`].
    pub content: i64,
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
    /// Bytes that the account uses or has reserved, and its quota, where the
    /// quota is the reason.
    pub quota: Option<(u64, u64)>,
}

/// The most pins of one root in an account.
pub const MAX_PINS_OF_A_ROOT: u64 = 1_000;

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
}

impl Scope {
    const ALL: [Self; 2] = [Self::PinsRead, Self::PinsWrite];

    /// Its word, as the database, tokens and commands have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PinsRead => "pins:read",
            Self::PinsWrite => "pins:write",
        }
    }

    /// The scope with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
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
    /// Whether it was heard recently enough to be given work.
    pub live: bool,
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

/// The serial channels of a node, each with its own sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// [`pinfold_node_api::path::PULL`].
    Pull,
    /// [`pinfold_node_api::path::REPORT`].
    Report,
    /// [`pinfold_node_api::path::INVENTORY`].
    Inventory,
    /// [`pinfold_node_api::path::DENYLIST`].
    Denylist,
}

/// A change that subscribers of a pin's events may care for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The content whose pins may look different now.
    pub content: i64,
    /// Whether a node may find new work when it pulls again.
    pub work: bool,
}

impl Changed {
    /// Any content may look different, and any node may find new work.
    pub const ANY: Self = Self { content: -1, work: true };

    /// Whether this change concerns the content with this number.
    #[must_use]
    pub fn concerns(&self, content: i64) -> bool {
        self.content == content || self.content == Self::ANY.content
    }
}

/// What a recount found wrong; empty when all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// One sentence per difference, at most 1,000.
    pub differences: Vec<String>,
    /// Rows compared.
    pub compared: u64,
}

/// What nodes hold that the database does not know, after a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Contents that no operator has decided about, one for each node.
    pub contents: u64,
    /// Live nodes, by their numbers, whose inventories are not in yet.
    pub outstanding: Vec<i64>,
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

/// A token-signing key, sealed by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// Names it in a token's header.
    pub kid: String,
    /// Ciphertext; what it means is the caller's affair.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created: Millis,
    /// When it was replaced: it still verifies, but signs no more.
    pub retired: Option<Millis>,
}

/// A deed of an operator, for the audit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Grows with each deed; 0 when it is recorded.
    pub id: i64,
    /// When; set by the database when it is recorded.
    pub at: Millis,
    /// Who: a token as `token ID`, the command line, or a service's start.
    pub actor: String,
    /// What, such as `account.quota`.
    pub action: String,
    /// To what, such as the account's name.
    pub subject: String,
    /// With which values.
    pub detail: String,
}

impl Deed {
    /// A deed of this moment, as it is handed to the database.
    #[must_use]
    pub fn now(actor: &str, action: &str, subject: impl Display, detail: &str) -> Self {
        let (actor, action, detail) = (actor.to_owned(), action.to_owned(), detail.to_owned());
        Self { id: 0, at: 0, actor, action, subject: subject.to_string(), detail }
    }
}

/// A content that somebody pins, as the denylist is matched against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldContent {
    /// Its number.
    pub id: i64,
    /// Unsigned varint of the codec, then the multihash.
    pub key: Vec<u8>,
    /// Whether it is denied now because of its root.
    pub denied: bool,
}

/// A node that holds a content, for delegated routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The node's Ed25519 key.
    pub key: [u8; 32],
    /// Multiaddrs, each with `/p2p/`.
    pub addresses: Vec<String>,
    /// Its gateway, if it has one that can be reached.
    pub gateway: Option<String>,
}

/// Whether this process may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The schema's version.
    pub schema: i64,
    /// How far the database's clock is behind the newest heartbeat of a node,
    /// in milliseconds; 0 when it is not.
    pub clock_behind_ms: i64,
    /// Whether the process should take requests.
    pub ready: bool,
}

/// Totals for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pins by status, in the order of [`Status::ALL`].
    pub pins: [u64; 4],
    /// Accounts.
    pub accounts: u64,
    /// Bytes charged to accounts.
    pub used_bytes: u64,
    /// Bytes granted to running fetches.
    pub reserved_bytes: u64,
    /// Nodes known.
    pub nodes: u64,
    /// Nodes live.
    pub nodes_live: u64,
}

/// What one turn of the service's own jobs did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobsDone {
    /// Rows that changed.
    pub changed: u64,
    /// Whether more is waiting: run them again at once.
    pub more: bool,
}
