//! Bitswap between swarms on loopback, and with peers that a test writes.

mod common;

mod exchange;
mod hostile;
mod three_origins;
