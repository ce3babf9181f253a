//! What Pinfold means by its words, as pure functions over plain data.
//!
//! Pins, contents, CID policy, links, manifests, status, quota, names and the
//! denylist live here. Nothing in this crate waits, reads a clock, draws a
//! random number or touches a file, a socket or a database: callers pass in
//! what they know and act on what comes back. `cargo xtask test` checks that
//! no runtime, SQL or HTTP crate is among its dependencies.
//!
//! | module | answers |
//! |---|---|
//! | [`content`] | which content does this CID text name? |
//! | [`policy`] | may it be pinned, fetched, kept? |
//! | [`hash`] | do these bytes belong to that multihash? |
//! | [`links`] | what does this block link to? |
//! | [`manifest`] | what is the commitment to a root's blocks, and does this proof open it? |
//! | [`status`] | what is the status of this pin, and what does a person read? |
//! | [`quota`] | what is charged, and how much may be fetched next? |
//! | [`names`] | is this name allowed, and does it match a filter? |
//! | [`address`] | may this IP address be dialled? |
//! | [`denylist`] | is this CID or path denied? |
//! | [`unixfs`] | which file or directory is this block a part of? |

pub mod address;
pub mod content;
pub mod denylist;
pub mod hash;
pub mod links;
pub mod manifest;
pub mod names;
pub mod policy;
mod protobuf;
pub mod quota;
pub mod status;
pub mod unixfs;
