//! A storage node: a real IPFS peer with a block store.
//!
//! [`Node::start`] opens the data folder and starts everything. The node dials
//! its service, never the other way round ([`mod@agent`]); what it is assigned
//! it notes on disk ([`mod@assignments`]), fetches whole ([`mod@fetch`]) from
//! wherever the [`net`]work has it, holds durably, reports, and serves to
//! anyone ([`Held`]).
//!
//! What survives `kill -9` at any moment: the key, the blocks and roots (the
//! block store), the assignments, the denylist. Everything else is derived
//! again from these when the node starts.

mod agent;
pub mod assignments;
mod check;
mod compare;
mod denied;
mod fetch;
mod gateway;
pub mod identity;
mod maintain;
pub mod net;
mod node;
mod serve;
mod settings;

pub use check::{Checked, check};
pub use fetch::{Limits, Pauses};
pub use gateway::{BindError, Gateway, Settings as GatewaySettings};
pub use identity::peer_key;
pub use node::{Node, StartError};
pub use serve::Held;
pub use settings::Settings;
