//! The service's HTTP: the Pinning Service API, accounts and tokens, delegated
//! routing, and the node API's server side.
//!
//! | module | answers |
//! |---|---|
//! | [`service`] | how does the whole start and stop? |
//! | [`listener`], [`tls`] | who may connect, how, and for how long? |
//! | [`access`], [`trace`], [`cors`], [`limits`], [`auth`] | what does every request pass? |
//! | [`pins`], [`query`], [`pin_input`], [`wire`] | the specification |
//! | [`events`], [`hub`] | live status |
//! | [`tokens`], [`accounts`], [`routing`], [`node`], [`health`] | the other paths |
//! | [`denylist`], [`instances`], [`jobs`], [`monitor`] | tasks beside the requests |
//!
//! A request passes, from the outside in: its id, log and metrics; CORS; the
//! limit by address; its token; the limit by account; its handler. Handlers are
//! thin: they read the wire's types, call the database, write the wire's types.
//! Nothing is durable here but what the database has committed before it
//! answers. Every error becomes HTTP in [`error`] alone.

pub(crate) mod access;
pub(crate) mod accounts;
pub mod address;
pub(crate) mod auth;
pub(crate) mod cids;
pub(crate) mod cors;
pub mod denylist;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod extract;
pub(crate) mod health;
pub(crate) mod hub;
pub(crate) mod instances;
pub(crate) mod jobs;
pub(crate) mod landing;
pub mod limits;
pub mod listener;
pub mod monitor;
pub(crate) mod node;
pub(crate) mod node_auth;
pub mod openapi;
pub(crate) mod peers;
pub(crate) mod pin_input;
pub(crate) mod pins;
pub(crate) mod query;
pub(crate) mod router;
pub(crate) mod routing;
pub mod service;
pub(crate) mod state;
pub(crate) mod time;
pub mod tls;
pub(crate) mod tokens;
pub(crate) mod trace;
pub(crate) mod wire;
