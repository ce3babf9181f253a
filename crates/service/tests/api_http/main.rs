//! The service's HTTP through its public face: the router in process, and a
//! few cases over real sockets. Data is on SQLite in a temporary folder.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod contract;
mod cors;
mod denylist;
mod errors;
mod events;
mod fake_node;
mod limits;
mod listing;
mod node_api;
mod pinning;
mod routing;
mod server;
mod socket;
mod tokens;
