//! The fetch engine: brings assigned roots into the block store, whole.
//!
//! [`manager`] decides what is tried when; each try is a *transfer*
//! ([`transfer`]) over one DAG, whose order and limits the [`walk`] knows, and
//! whose blocks come from an *exchange*: in production [`sources`], which
//! finds peers and asks them by Bitswap.

mod derive;
mod exchange;
mod limits;
mod manager;
mod meta;
mod report;
mod slots;
mod sources;
#[cfg(test)]
pub(crate) mod testing;
mod transfer;
mod walk;
mod workers;

use tokio::time::Instant;

pub use limits::Limits;
pub use manager::Pauses;

pub(crate) use manager::{Command, Context, Manager};
pub(crate) use slots::Slots;
pub(crate) use sources::Net;
pub(crate) use workers::Workers;

/// Waits for a moment, for ever where there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
