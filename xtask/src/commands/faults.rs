//! `cargo xtask faults`: the crash tests, many times longer than in `test`.

use anyhow::Result;

use super::{
    build,
    e2e::{self, Run},
};
use crate::{cache::Cache, peers::Peers, report::Report};

/// The tests that kill the product.
const SUITES: &[&str] = &["crash", "crash_postgres", "two_processes"];

pub(crate) fn run(rounds: u32) -> Result<bool> {
    let mut report = Report::new();
    let Some(peers) = report.stage("peers", |_| Ok(Peers::install(&Cache::open()?))) else {
        return Ok(report.close());
    };
    let Some(binary) = report.stage("build", |_| build::workspace()) else { return Ok(report.close()) };
    for suite in SUITES {
        let run = Run { peers: &peers, binary: &binary, arguments: &[], crash_rounds: Some(rounds) };
        report.stage(suite, |count| e2e::tests(run, &[(*suite).to_owned()], count));
    }
    report.leave_out(peers.missing());
    Ok(report.close())
}
