//! What Pinfold means by its words, as pure functions over plain data.
//!
//! Pins, contents, CID policy, links, manifests, status, quota, names and the
//! denylist live here. Nothing in this crate waits, reads a clock, draws a
//! random number or touches a file, a socket or a database: callers pass in
//! what they know and act on what comes back. `cargo xtask test` checks that
//! no runtime, SQL or HTTP crate is among its dependencies.

pub mod status;
