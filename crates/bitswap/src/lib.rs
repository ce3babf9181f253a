//! Bitswap 1.2 for rust-libp2p: sessions over several peers, a server, and a
//! bound on everything.
//!
//! A [`Behaviour`] goes into the swarm; the [`Handle`] that comes with it
//! opens [`Session`]s. A session wants CIDs from the peers that it was given
//! and hands out verified blocks:
//!
//! ```no_run
//! # async fn example(peer: libp2p::PeerId, root: cid::Cid) {
//! use pinfold_bitswap::{Behaviour, Config, Event, NoBlocks};
//!
//! let (behaviour, handle) = Behaviour::new(Config::default(), std::sync::Arc::new(NoBlocks));
//! // … `behaviour` goes into a swarm that is polled elsewhere …
//! let mut session = handle.new_session();
//! session.add_peer(peer);
//! session.want([root]);
//! while let Some(event) = session.next().await {
//!     if let Event::Block { cid, data, .. } = event {
//!         println!("{cid}: {} bytes", data.len());
//!     }
//! }
//! # }
//! ```

mod behaviour;
mod blocks;
mod client;
mod config;
mod handle;
mod handler;
mod link;
mod metrics;
mod server;
mod session;
mod shared;
mod wire;

pub use behaviour::Behaviour;
pub use blocks::{Blocks, NoBlocks};
pub use config::Config;
pub use handle::{Handle, Stats};
pub use session::{BanReason, Event, Refused, Session};
