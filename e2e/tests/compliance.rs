//! The official compliance suite of the Pinning Service API.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use pinfold_e2e::{
    pinfold::Pinfold,
    place::Place,
    process::{finish_within, peer},
    script::{checkout, node},
    test_within,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The suite sends one request a second.
const LIMIT: Duration = Duration::from_secs(300);

/// The suite's entry, below its folder of packages.
const SUITE: &str = "node_modules/@ipfs-shipyard/pinning-service-compliance/dist/src/index.js";

/// The specification's schemas, as this project wrote them down.
const CONTRACT: &str = "crates/service/tests/contract/pinning-service-1.0.0.json";

/// What the suite writes before the title of a check that failed, and that it
/// links to: the lines below the summary have no link.
const FAILED: &str = "\u{274c} [";

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Score {
    total: u32,
    passed: u32,
    failed: u32,
}

#[test]
fn eight_of_nine_checks_pass_as_the_suite_is() {
    test_within(LIMIT + Duration::from_secs(30), async |place| {
        let (score, report, failed) = score(place, "random").await?;
        assert_eq!(score, Score { total: 9, passed: 8, failed: 1 }, "{report}");
        // The one that looks for a pin by its name, and names no status.
        let [failed] = &failed[..] else { anyhow::bail!("{failed:?} failed") };
        assert!(failed.starts_with("Can create a pin with name="), "another check failed: {failed}");
        Ok(())
    });
}

#[test]
fn all_nine_checks_pass_with_cids_that_can_be_pinned() {
    test_within(LIMIT + Duration::from_secs(30), async |place| {
        let (score, report, failed) = score(place, "identity").await?;
        assert_eq!(score, Score { total: 9, passed: 9, failed: 0 }, "{report}");
        assert_eq!(failed, Vec::<String>::new());
        Ok(())
    });
}

/// The score, what was printed, and the titles of the checks that failed.
async fn score(place: &Place, cids: &str) -> Result<(Score, String, Vec<String>)> {
    let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
    let report = place.folder("report")?;
    let folder = peer("PINFOLD_E2E_COMPLIANCE")?;
    let mut suite = node(&folder, SUITE)?;
    suite.args(["-s", &pinfold.endpoint, &pinfold.token]);
    let environment: BTreeMap<_, _> = [
        ("COMPLIANCE_CIDS", cids.into()),
        ("COMPLIANCE_REPORT", report.clone()),
        ("COMPLIANCE_SPEC", specification(place)?),
    ]
    .into();
    let finished = finish_within(suite.envs(environment), "the compliance suite", LIMIT).await?;
    let printed = finished.text()?;
    let json = report.join("127.0.0.1.json");
    let text = fs::read(&json).with_context(|| format!("the suite wrote no score; it printed {printed}"))?;
    let failed = failed(&fs::read_to_string(report.join("127.0.0.1.md"))?);
    Ok((serde_json::from_slice(&text)?, printed, failed))
}

/// The titles in a report's summary, where they are links, of what failed.
fn failed(report: &str) -> Vec<String> {
    let titles = report.lines().filter_map(|line| line.trim().strip_prefix(FAILED));
    titles.map(str::to_owned).collect()
}

/// The contract's schemas as the OpenAPI document that the suite reads.
fn specification(place: &Place) -> Result<PathBuf> {
    let contract: Value = serde_json::from_slice(&fs::read(checkout().join(CONTRACT))?)?;
    let document = json!({
        "openapi": "3.0.3",
        "info": { "title": "contract", "version": "1.0.0" },
        "paths": {},
        "components": { "schemas": with_references(contract["schemas"].clone()) },
    });
    let path = place.folder("specification")?.join("openapi.json");
    fs::write(&path, document.to_string())?;
    Ok(path)
}

/// The contract names another schema as `{"schema": NAME}`.
fn with_references(value: Value) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.get("schema").is_some_and(Value::is_string) => {
            let name = fields["schema"].as_str().unwrap_or_default();
            json!({ "$ref": format!("#/components/schemas/{name}") })
        }
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, with_references(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(with_references).collect(),
        plain => plain,
    }
}
