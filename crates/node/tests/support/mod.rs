//! What the tests of a whole node share.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod dag;
pub mod dht;
pub mod node;
pub mod service;
