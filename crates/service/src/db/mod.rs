//! The database: see `types` for what goes in and comes out.

mod types;

pub use types::*;
