//! Real peers against a real Pinfold: what the tests in `tests/` share.
//!
//! A test runs in a [`place::Place`], a folder of its own in which it starts
//! processes: [`pinfold::Pinfold`], [`kubo::Kubo`], [`postgres::Postgres`],
//! [`pebble::Pebble`].
//! Each listens on loopback alone, knows no peer that the test does not name,
//! and is killed when its guard is dropped. When a test fails, the ends of
//! their logs are printed.
//!
//! Nothing here uses the product's crates: what is checked from outside must
//! not share the code that it checks.
//!
//! `cargo xtask e2e [FILE]` installs the peers and says where they are.

pub mod api;
pub mod books;
pub mod car;
pub mod clock;
pub mod cluster;
pub mod copies;
pub mod crash;
pub mod data;
pub mod http;
pub mod kubo;
pub mod load;
pub mod names;
pub mod nat;
pub mod net;
pub mod pebble;
pub mod pinfold;
pub mod place;
pub mod postgres;
pub mod process;
pub mod recount;
pub mod scenario;
pub mod script;
pub mod segments;
pub mod storm;
pub mod truth;
pub mod wait;
pub mod witness;

pub use place::{test, test_within};
