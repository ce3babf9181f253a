//! The data layer through its public face, on SQLite and on PostgreSQL: the
//! same tests, twice. What one of the two alone can do is in its own module.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/cluster.rs"]
mod cluster;
mod world;

mod accounts;
mod backup;
mod check;
mod concurrency;
mod jobs;
mod listing;
mod locking;
mod model;
mod nodes;
mod pins;
mod processes;
mod quota;
mod replacing;
mod tls;

/// Makes a test of each function for each database.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::World::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::World::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both;
