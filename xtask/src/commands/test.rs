//! `cargo xtask test`: everything, in the order in which it fails soonest.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Result, ensure};

use super::{
    build, deny,
    e2e::{self, Run},
};
use crate::{
    cache::Cache,
    layers,
    peers::{Missing, Peers},
    process::{cargo, run as execute, watch},
    report::{Count, Report},
};

/// Names the official text of the Pinning Service API, a YAML file.
const SPECIFICATION: &str = "PINFOLD_SPEC";
/// In the name of the test that reads it.
const SPECIFICATION_TEST: &str = "the_official_specification";

pub(crate) fn run() -> Result<bool> {
    let mut report = Report::new();
    report.stage("format", |count| check(count, || execute(cargo().args(["fmt", "--all", "--check"]))));
    report.stage("layers", |count| check(count, layers::check));
    report.stage("licences, bans, sources", |count| check(count, deny::check));
    report.stage("clippy", |count| check(count, clippy));
    report.stage("documentation", |count| check(count, documentation));
    if let Some(binary) = report.stage("build", |_| build::workspace()) {
        let peers = report.stage("peers", |_| Ok(Peers::install(&Cache::open()?)));
        let peers = peers.unwrap_or_else(|| Peers::none("a cache that can be written"));
        let mut missing = peers.missing().to_vec();
        missing.extend(specification(std::env::var_os(SPECIFICATION)));
        report.stage("unit and integration tests", |count| units(&missing, count));
        let run = Run { peers: &peers, binary: &binary, arguments: &[], crash_rounds: None };
        report.stage("tests with real peers", |count| e2e::tests(run, &e2e::suites()?, count));
        report.leave_out(&missing);
    }
    Ok(report.close())
}

/// What is missing where the official text is not at hand: it is another
/// project's, and no package registry has it.
fn specification(path: Option<OsString>) -> Option<Missing> {
    if path.is_some_and(|path| Path::new(&path).is_file()) {
        return None;
    }
    let reason = format!("{SPECIFICATION} to name the official ipfs-pinning-service.yaml");
    Some(Missing::named(SPECIFICATION_TEST, &reason))
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

/// Every link in the documentation leads somewhere. It is read in the source:
/// what is private has it too, and URLs are as `--help` shows them.
const DOCUMENTATION: &str = "-D warnings -A rustdoc::private_intra_doc_links -A rustdoc::bare_urls";

fn documentation() -> Result<()> {
    let mut command = cargo();
    command.args(["doc", "--locked", "--workspace", "--no-deps", "--quiet", "--document-private-items"]);
    execute(command.env("RUSTDOCFLAGS", DOCUMENTATION))
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
    if let Some(path) = std::env::var_os(SPECIFICATION).and_then(|path| fs::canonicalize(path).ok()) {
        // Tests run in the folders of their crates.
        command.env(SPECIFICATION, path);
    }
    command.arg("--").args(missing.iter().filter_map(Missing::word).flat_map(|word| ["--skip", word]));
    watch(&mut command, |line| count.read_line(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_text_is_compared_where_it_is_at_hand() {
        assert_eq!(specification(None).and_then(|missing| missing.word()), Some(SPECIFICATION_TEST));
        assert!(specification(Some("/nowhere/at/all.yaml".into())).is_some());
        let file = std::env::current_exe().expect("this program is a file");
        assert!(specification(Some(file.into())).is_none());
    }
}
