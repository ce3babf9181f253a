//! The official conformance suite of IPFS gateways, gateway-conformance,
//! against a Pinfold that holds its fixtures because they were pinned.
//!
//! IPNS, DNSLink, `_redirects` and TAR are not offered, so that their specs are
//! not run. Of the others every case that fails is named here, with the
//! reason; a case that is named and passes fails this test too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use pinfold_e2e::{
    api, car,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    process::{command, finish_within, peer},
    scenario::FETCH,
    test_within,
    wait::eventually,
};
use serde_json::json;

/// The suite itself takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// What is run of the suite.
const SPECS: &str = "trustless-block-gateway,trustless-car-gateway,trustless-car-gateway-optional,\
    path-unixfs-gateway,path-dag-gateway,path-raw-gateway,path-range-gateway,subdomain-ipfs-gateway";

/// The domain whose subdomains are origins. Nothing looks it up: the suite
/// names it in `Host`.
const DOMAIN: &str = "example.com";

/// The least number of cases that pass: the suite ran, and ran whole.
const LEAST: usize = 150;

/// Fixtures that cannot be pinned, by what their names begin with: roots with
/// the codecs json and cbor, whose links nobody knows.
const NOT_PINNED: &str = "plain-";

/// A fixture that lacks a block: its pin never ends, and the blocks that are
/// there are fetched, held and served.
const LACKS_A_BLOCK: &str = "file-3k-and-3-blocks-missing-block.car";

const PLAIN: &str = "a root whose codec has unknown links cannot be pinned";
const AS_IT_IS: &str = "documents are sent as they are, not as a page about them";
const KUBO_PAGE: &str = "the suite says itself that it looks for the texts of Kubo's own page";

/// Cases that do not hold here, and why: those whose name begins so.
const SKIPPED: [(&str, &str); 6] = [
    ("TestPlainCodec/", PLAIN),
    ("TestNativeDag/GET_plain_JSON_codec_on_%2Fipfs_with_Accept:_text%2Fhtml_returns_HTML", AS_IT_IS),
    ("TestNativeDag/GET_plain_CBOR_codec_on_%2Fipfs_with_Accept:_text%2Fhtml_returns_HTML", AS_IT_IS),
    ("TestNativeDag/GET_DAG-CBOR_with_Accept:_text%2Fhtml_returns_HTML_preview", AS_IT_IS),
    ("TestUnixFSDirectoryListing/path_gw:_dir_listing_HTML_response_", KUBO_PAGE),
    ("TestUnixFSDirectoryListingOnSubdomainGateway/Regular_dir_listing_HTML_", KUBO_PAGE),
];

#[test]
fn the_gateway_conforms_save_where_it_says_so() {
    test_within(LIMIT + FETCH * 2, async |place| {
        let folder = peer("PINFOLD_E2E_CONFORMANCE")?;
        let pinfold = Pinfold::up(place, "pinfold", &["--gateway-domain", DOMAIN]).await?;
        hold_fixtures(place, &pinfold, &folder).await?;
        let output = run_suite(&pinfold, &folder).await?;
        let cases = cases(&output);
        let passed = cases.values().filter(|passed| **passed).count();
        println!("{passed} of {} cases pass", cases.len());
        let failed: BTreeSet<&str> =
            cases.iter().filter(|(_, passed)| !**passed).map(|(name, _)| *name).collect();
        let reason = |name: &str| SKIPPED.iter().find(|(start, _)| name.starts_with(start));
        let unexpected: Vec<_> = failed.iter().filter(|name| reason(name).is_none()).collect();
        ensure!(unexpected.is_empty(), "{unexpected:#?} fail:\n{}", errors(&output, &unexpected));
        for (start, why) in SKIPPED {
            ensure!(
                failed.iter().any(|name| name.starts_with(start)),
                "{start} passes; it is skipped because {why}"
            );
        }
        ensure!(passed >= LEAST, "only {passed} cases passed:\n{output}");
        Ok(())
    });
}

/// Gives the fixtures to a Kubo, and pins all of them from it.
async fn hold_fixtures(place: &Place, pinfold: &Pinfold, folder: &Path) -> Result<()> {
    let origin = Kubo::start(place, "origin").await?;
    let (api, addresses) = (pinfold.api()?, origin.addresses().await?);
    let mut pins = Vec::new();
    for fixture in fixtures(&folder.join("fixtures"))? {
        let path = fixture.to_str().context("a path in the cache is UTF-8")?;
        origin.ipfs(&["dag", "import", "--pin-roots=false", path]).await?;
        let bytes = std::fs::read(&fixture)?;
        for root in car::roots(&bytes)? {
            let pin = json!({ "cid": root.to_string(), "origins": addresses });
            let pin = api.add(pin).await.with_context(|| format!("the root {root} of {path}"))?;
            let partial = path.ends_with(LACKS_A_BLOCK);
            pins.push((pin.requestid, if partial { Some(car::read(&bytes)?) } else { None }));
        }
    }
    for (pin, partial) in pins {
        match partial {
            None => api.until(&pin, "pinned", FETCH).await.map(drop)?,
            Some(blocks) => until_held(pinfold, blocks.into_keys()).await?,
        }
    }
    Ok(())
}

/// Waits until blocks of a pin that never ends are served.
async fn until_held(pinfold: &Pinfold, blocks: impl Iterator<Item = Cid>) -> Result<()> {
    let http = api::client()?;
    for block in blocks {
        let url = format!("{}/ipfs/{block}?format=raw", pinfold.gateway);
        eventually("a block of an unfinished pin", FETCH, async || {
            let answer = http.get(&url).send().await?;
            Ok(answer.status().is_success().then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Every CAR below a folder that can be pinned.
fn fixtures(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut folders, mut cars) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".car") && !name.starts_with(NOT_PINNED) {
                cars.push(path);
            }
        }
    }
    cars.sort();
    Ok(cars)
}

/// Runs the suite; how it ended is in what it printed.
async fn run_suite(pinfold: &Pinfold, folder: &Path) -> Result<String> {
    let port = pinfold.gateway.rsplit(':').next().context("a gateway has a port")?;
    let mut suite = command(folder.join("gateway.test"));
    suite.args(["-test.v", &format!("-specs={SPECS}")]).current_dir(folder);
    suite.env("GATEWAY_CONFORMANCE_HOME", folder).env("GATEWAY_URL", &pinfold.gateway);
    suite.env("SUBDOMAIN_GATEWAY_URL", format!("http://{DOMAIN}:{port}"));
    let finished = finish_within(&mut suite, "gateway-conformance", LIMIT).await?;
    Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
}

/// The suite's cases by name, and whether each passed: the second level of
/// its tests, below which are the single checks.
fn cases(output: &str) -> BTreeMap<&str, bool> {
    let of_line = |line| {
        let (word, rest) = str::strip_prefix(line, "    --- ")?.split_once(": ")?;
        let (name, _) = rest.split_once(" (")?;
        (word != "SKIP").then_some((name, word == "PASS"))
    };
    output.lines().filter_map(of_line).collect()
}

/// What the suite said about some cases.
fn errors(output: &str, names: &[&&str]) -> String {
    let mut shown = Vec::new();
    let mut is_wanted = false;
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("=== RUN   ") {
            is_wanted = names.iter().any(|wanted| name.starts_with(**wanted));
        }
        if is_wanted && (line.starts_with("=== RUN") || line.contains("Error:")) {
            shown.push(line);
        }
    }
    shown.join("\n")
}
