//! `kill -9` of `pinfold up` on PostgreSQL, in storms of requests.

use pinfold_e2e::crash::{Kind, kill_at_any_moment};

/// How often the product is killed.
const ROUNDS: u32 = 10;

#[test]
fn on_postgres_nothing_acknowledged_is_lost_when_it_is_killed_at_any_moment() {
    kill_at_any_moment(ROUNDS, Kind::Postgres);
}
