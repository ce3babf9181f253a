//! `kill -9` of the two halves of `pinfold up` as processes of their own, in
//! turn, in storms of requests and in the middle of fetches.

use pinfold_e2e::crash::{Kind, kill_at_any_moment};

/// How often one of them, or both, are killed.
const ROUNDS: u32 = 20;

#[test]
fn split_in_two_nothing_acknowledged_is_lost_when_either_is_killed_at_any_moment() {
    kill_at_any_moment(ROUNDS, Kind::Split);
}
