//! `cargo xtask test`: everything, in the order in which it fails soonest.

use anyhow::{Result, ensure};

use super::{
    build, deny,
    e2e::{self, Run},
};
use crate::{
    cache::Cache,
    layers,
    peers::Peers,
    process::{cargo, run as execute, watch},
    report::{Count, Report},
};

/// A word in the names of tests that cannot run here, and what they need.
type Missing = (&'static str, &'static str);

pub(crate) fn run() -> Result<bool> {
    let mut report = Report::new();
    report.stage("format", |count| check(count, || execute(cargo().args(["fmt", "--all", "--check"]))));
    report.stage("layers", |count| check(count, layers::check));
    report.stage("licences, bans, sources", |count| check(count, deny::check));
    report.stage("clippy", |count| check(count, clippy));
    if let Some(binary) = report.stage("build", |_| build::workspace()) {
        let peers = report.stage("peers", |_| Peers::install(&Cache::open()?));
        let missing = peers.as_ref().map(Peers::missing).unwrap_or_default();
        report.stage("unit and integration tests", |count| units(&missing, count));
        if let Some(peers) = peers {
            let run = Run { peers: &peers, binary: &binary, arguments: &[], crash_rounds: None };
            report.stage("tests with real peers", |count| e2e::tests(run, &e2e::suites()?, count));
        }
        for (word, needs) in missing {
            report.leave_out(format!("every test with `{word}` in its name: it needs {needs}"));
        }
    }
    Ok(report.close())
}

fn check(count: &mut Count, work: impl FnOnce() -> Result<()>) -> Result<()> {
    work()?;
    *count = Count::ONE;
    Ok(())
}

fn clippy() -> Result<()> {
    execute(cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Every test that needs no peer. Targets are named one by one instead of
/// leaving a package out, which would choose other features and build anew.
fn units(missing: &[Missing], count: &mut Count) -> Result<()> {
    let mut targets = vec!["--lib".to_owned(), "--bins".to_owned()];
    targets.extend(e2e::others()?.into_iter().flat_map(|name| ["--test".to_owned(), name]));
    let targets = cargo_test(&targets, missing, count)?;
    let examples = cargo_test(&["--doc".to_owned()], missing, count)?;
    ensure!(targets && examples, "unit and integration tests failed");
    Ok(())
}

fn cargo_test(targets: &[String], missing: &[Missing], count: &mut Count) -> Result<bool> {
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast", "--quiet"]).args(targets);
    command.arg("--").args(missing.iter().flat_map(|(word, _)| ["--skip", *word]));
    watch(&mut command, |line| count.read_line(line))
}
