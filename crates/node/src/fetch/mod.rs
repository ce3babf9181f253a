//! The fetch engine: brings assigned roots into the block store, whole.
//!
//! [`manager`] decides what is tried when; each try is a *transfer*
//! ([`transfer`]) over one DAG, whose order and limits the [`walk`] knows, and
//! whose blocks come from an *exchange*: in production [`sources`], which
//! finds peers and asks them by Bitswap.

mod derive;
mod exchange;
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

pub use manager::Pauses;
pub use walk::Limits;

pub(crate) use manager::{Command, Context, Manager};
pub(crate) use slots::Slots;
pub(crate) use sources::Net;
pub(crate) use workers::Workers;
