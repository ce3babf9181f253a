//! The service: the Pinning Service API, accounts, tokens and quota, the node
//! API, and the database behind them. Any number of processes may run side by
//! side on one PostgreSQL; nothing that another one needs is kept in memory.
//!
//! [`db`] is the data, [`api`] the HTTP, [`tokens`] what opens it. A service is
//! started with [`Service::start`].

pub mod api;
pub mod db;
mod roots;
pub mod tokens;

pub use api::{
    address::TrustedProxies,
    limits::{Rate, RateLimits},
    listener::Timeouts,
    monitor::Monitor,
    service::{Service, Settings, StartError},
    tls::Tls,
    trace::TARGET as TRACE_TARGET,
};
