//! A crash-safe store for content-addressed blocks, kept by root.
//!
//! Blocks live in append-only **segments**; an **index** says where each one
//! is. The segments are the truth: every record carries its checksums and a
//! sequence, and the index can be rolled back to an older state or deleted at
//! any time, because opening the store replays what the index lacks.
//!
//! A block is kept for as long as a **root** refers to it. A fetch opens a
//! [`Walk`] on its root, takes a reference on every multihash that it meets
//! *before* it skips or fetches the block, and completes the walk: the list of
//! the root's blocks and the root's state are then durable together. The
//! lists are what reference counts are recounted from ([`Store::check`]).
//!
//! # What is durable when
//! - After [`Store::put`] a block can be read; it survives the end of the
//!   process, and a power loss only after the next sync.
//! - After [`Walk::complete`], [`Walk::abandon`], [`Store::release`] and
//!   [`Store::sync`] return `Ok`, what they did survives a power loss.
//! - A block without a reference is removed by [`Store::reclaim`] once it has
//!   been without one for [`Options::reclaim_delay`].
//!
//! # When the disk is full
//! Blocks are refused, and a reserve that was set aside for this
//! ([`Options::reserve_bytes`]) is given up, so that roots can be released,
//! reclaim copies what it must, and the index can be written. A segment that
//! lives in too large a part to be copied is shortened from its end, piece by
//! piece, each of which is free before the next one is copied. Once there is
//! room the reserve is made again, and blocks are taken.
//!
//! # What is never served
//! Bytes whose checksum is wrong. Such a block is *lost*: it is gone for
//! [`Store::has`] and [`Store::get`], keeps its references, and is named by
//! [`Store::lost`] until it is put again.
//!
//! # Tasks
//! One thread per open store syncs in the background, so that
//! [`Walk::complete`] finds little left to sync, and moves the index's
//! changes to disk. It ends with the last handle. All calls are synchronous
//! and can block on the disk; callers that live in an async runtime use its
//! blocking threads.

mod apply;
mod background;
mod block;
mod check;
mod compact;
mod direct;
mod error;
mod format;
mod index;
mod inner;
pub mod io;
mod ledger;
mod list;
mod meter;
mod options;
mod overlay;
mod reclaim;
mod record;
mod recover;
mod report;
mod reserve;
mod roots;
mod scan;
mod scrub;
mod segments;
mod shrink;
mod state;
mod store;
mod sync;
mod walk;
mod writer;

pub use block::{Block, MAX_BLOCK_BYTES, Multihash};
pub use error::Error;
pub use list::{List, Roots};
pub use options::Options;
pub use report::{Check, Difference, Reclaimed, RootInfo, RootState, Scrubbed, Usage};
pub use store::Store;
pub use walk::Walk;

/// The longest root key, in bytes.
pub const MAX_ROOT_KEY_BYTES: usize = 256;

/// The longest `meta` of a root, in bytes.
pub const MAX_META_BYTES: usize = 64 << 10;
