//! `pinfold check`: the configuration, the database, the block store and
//! reachability; says of each what is wrong and what to do.
//!
//! It reads; it changes nothing. It takes the settings of `up`, from the same
//! flags, environment and file, and works beside a running service as well as
//! without one: what can only be seen of a running one is a note then.

mod configuration;
mod reach;

use std::process::ExitCode;

use anyhow::{Context, Result};
use pinfold_service::db::{CheckReport, Database};
use serde_json::{Value, json};

use crate::{
    cli::{CheckArgs, DataArgs},
    output::{print, print_json, printable, say},
    progress::Meter,
};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// To be known; nothing has to be done.
    Note,
    /// To be mended: the exit status is 1.
    Wrong,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Wrong => "wrong",
        }
    }
}

/// What was found, and what to do about it.
#[derive(Debug)]
struct Finding {
    level: Level,
    section: &'static str,
    what: String,
}

/// Everything found so far in one section after the other.
#[derive(Debug, Default)]
struct Findings {
    section: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    fn add(&mut self, level: Level, what: impl Into<String>) {
        self.all.push(Finding { level, section: self.section, what: what.into() });
    }

    fn wrong(&self) -> usize {
        self.all.iter().filter(|finding| finding.level == Level::Wrong).count()
    }
}

/// The sections about what is kept.
const KEPT: [&str; 2] = ["database", "block store"];

/// Checks everything; the exit status is 1 when something is wrong.
pub(crate) async fn check(args: CheckArgs) -> Result<ExitCode> {
    let mut findings = Findings::default();
    findings.section("configuration");
    configuration::check(&args.up, &mut findings);
    findings.section(KEPT[0]);
    let counted = database(&args.up.data, &mut findings).await;
    findings.section(KEPT[1]);
    let blocks = store(&args, &mut findings).await;
    findings.section("reachability");
    reach::check(&args.up, &mut findings).await;
    show(&args, &findings, &counted, blocks)?;
    Ok(if findings.wrong() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a look into the database gave.
#[derive(Debug, Default)]
struct Counted {
    report: CheckReport,
    strays: u64,
}

async fn database(data: &DataArgs, findings: &mut Findings) -> Counted {
    match data.open().await {
        Ok(database) => {
            let counted = counted(data, &database, findings).await;
            database.close().await;
            counted.unwrap_or_else(|error| {
                findings.add(Level::Wrong, format!("{error:#}"));
                Counted::default()
            })
        }
        Err(error) => {
            findings.add(Level::Wrong, format!("{error:#}"));
            Counted::default()
        }
    }
}

async fn counted(data: &DataArgs, database: &Database, findings: &mut Findings) -> Result<Counted> {
    if !database.keys().await?.is_empty() {
        match data.keyring(database).await {
            Ok(_) => findings.add(Level::Ok, "the secret opens the token keys"),
            Err(error) => findings.add(Level::Wrong, format!("{error:#}")),
        }
    }
    let health = database.health().await?;
    if !health.ready {
        let behind = health.clock_behind_ms / 1_000;
        findings.add(
            Level::Wrong,
            format!("the clock is {behind} s behind the nodes' last heartbeats; set it, pins are refused until then"),
        );
    }
    let meter = Meter::new("recounting the database", "recounts");
    let recount = meter.watch(database.check_telling(meter.counts()));
    let report = recount.await.context("cannot recount the database")?;
    for difference in &report.differences {
        findings.add(
            Level::Wrong,
            format!(
                "{difference}; keep a copy of the database, report this line, or restore the last backup"
            ),
        );
    }
    if report.differences.is_empty() {
        findings.add(Level::Ok, format!("{} rows compared, schema {}", report.compared, health.schema));
    }
    let strays = database.strays().await?.contents;
    if strays > 0 {
        findings.add(
            Level::Note,
            format!(
                "nodes hold {strays} contents that this database does not know; `pinfold restore --confirm` lets \
                 them delete these"
            ),
        );
    }
    Ok(Counted { report, strays })
}

async fn store(args: &CheckArgs, findings: &mut Findings) -> u64 {
    if !args.blocks {
        findings.add(Level::Note, "not reread; --blocks does it, while `up` is stopped");
        return 0;
    }
    match super::up::check_blocks(&args.up.data.data).await {
        Ok(found) => {
            for difference in found.differences {
                findings.add(Level::Wrong, difference);
            }
            findings.add(Level::Ok, format!("{} blocks reread", found.blocks));
            found.blocks
        }
        Err(error) => {
            findings.add(Level::Wrong, format!("{error:#}"));
            0
        }
    }
}

fn show(args: &CheckArgs, findings: &Findings, counted: &Counted, blocks: u64) -> Result<()> {
    if args.json {
        let row = |finding: &Finding| json!({ "section": finding.section, "level": finding.level.word(), "what": finding.what });
        let all: Vec<Value> = findings.all.iter().map(row).collect();
        let differences: Vec<&str> = findings
            .all
            .iter()
            .filter(|finding| finding.level == Level::Wrong && KEPT.contains(&finding.section))
            .map(|finding| finding.what.as_str())
            .collect();
        let summary = json!({
            "findings": all,
            "differences": differences,
            "compared": counted.report.compared,
            "blocks": blocks,
            "strays": counted.strays,
        });
        return print_json(&summary);
    }
    for finding in &findings.all {
        let what = printable(&finding.what);
        print(&format!("{:<5}  {:<13}  {what}", finding.level.word(), finding.section))?;
    }
    say(&format!("{} found wrong", findings.wrong()));
    Ok(())
}
