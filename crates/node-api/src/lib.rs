//! The messages between a node and its service, version 1.
//!
//! A node dials its service, never the other way round, so that it works
//! behind NAT. It speaks two serial channels over HTTP: [`Pull`] brings work,
//! [`Report`] carries what became of it. [`Hello`] opens a session. Every
//! request is signed with the node's key ([`signature`]) and bound to the
//! service, the path, the body, the session and a sequence that only grows,
//! so that a replayed one is refused.
//!
//! Messages are idempotent: amounts are totals, never increments, and every
//! allocation has a generation, so that a message sent again, or one about an
//! allocation that has since been replaced, does no harm.
//!
//! Bodies are JSON. Unknown fields are ignored, so that either side can be
//! the newer one; [`VERSION`] grows when that is not enough.

pub mod signature;

mod message;

pub use message::{
    AllocationId, Answer, Assignment, Denylist, ErrorBody, Event, EventKind, Hello, HelloAck, Inventory,
    InventoryAck, ManifestSummary, PeerHint, Pull, Pulled, Release, Report, ReportAck,
};

/// The version of the node API spoken by this crate.
pub const VERSION: u32 = 1;

/// The most events that one [`Report`] carries.
pub const MAX_EVENTS: usize = 256;

/// The most assignments, releases or acknowledgements that one message carries.
pub const MAX_ALLOCATIONS: usize = 256;

/// The most origins that one [`Assignment`] names: those of three pins that
/// name as many as a pin can. The accounts that want the content share them.
pub const MAX_ORIGINS: usize = 64;

/// The longest that a service holds a [`Pull`] open, in milliseconds.
pub const MAX_PULL_WAIT_MS: u64 = 25_000;

/// The largest body of a node's request, in bytes.
pub const MAX_BODY: usize = 2 << 20;

/// Paths of the node API below the service's `--api` listener.
pub mod path {
    /// [`super::Hello`] to [`super::HelloAck`].
    pub const HELLO: &str = "/node/v1/hello";
    /// [`super::Pull`] to [`super::Pulled`].
    pub const PULL: &str = "/node/v1/pull";
    /// [`super::Report`] to [`super::ReportAck`].
    pub const REPORT: &str = "/node/v1/report";
    /// [`super::Inventory`] to [`super::InventoryAck`].
    pub const INVENTORY: &str = "/node/v1/inventory";
    /// Signed POST with an empty body to [`super::Denylist`].
    pub const DENYLIST: &str = "/node/v1/denylist";
    /// Unsigned GET: the service's id, a JSON string.
    pub const SERVICE: &str = "/node/v1/service";
}
