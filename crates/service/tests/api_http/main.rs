//! The service's HTTP through its public face: the router in process, and a
//! few cases over real sockets; on SQLite in a temporary folder and on
//! PostgreSQL: the same tests, twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/cluster.rs"]
mod cluster;

mod access_log;
mod auth;
mod contract;
mod cors;
mod denylist;
mod errors;
mod events;
mod fake_node;
mod instances;
mod limits;
mod listing;
mod node_api;
mod pinning;
mod reasons;
mod refusals;
mod routing;
mod server;
mod slow;
mod socket;
mod tls;
mod tokens;

/// Makes a test of each function for each database. One thread runs each, so
/// that what it logs can be told from what others log.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::server::Backend::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::server::Backend::Postgres).await;
            })*
        }
    };
}
pub(crate) use on_both;
