//! More pins than fit into one page, listed as Kubo does: by ten, asking for
//! the count of what remains each time.

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Result, ensure};
use cid::{Cid, multihash::Multihash};
use pinfold_e2e::{
    api::{Api, EVERY_STATUS},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    scenario::{count, remote_ls},
    test,
};
use serde_json::json;
use tokio::task::JoinSet;

const PINNED: usize = 1_040;

/// Pins of content that nobody has.
const SEARCHED: usize = 60;

/// Pins that are asked for while there is no node to begin with them.
const WAITING: usize = 35;

/// Names that pins have in turn.
const NAMES: usize = 100;

/// Code of raw blocks.
const RAW: u64 = 0x55;

/// Every status that `ls` can be asked for.
const ALL: &str = "--status=queued,pinning,pinned,failed";

/// A CID that holds its own data, so that its pin needs no peer.
fn inline(number: usize) -> String {
    let digest = Multihash::wrap(0, format!("content {number}").as_bytes()).expect("a short text fits");
    Cid::new_v1(RAW, digest).to_string()
}

/// A CID of a block that nobody has.
fn nowhere(number: usize) -> String {
    data::nowhere(number as u64)
}

async fn add_all(api: &Api) -> Result<()> {
    let pinned = (0..PINNED).map(|number| (inline(number), format!("pin {}", number % NAMES)));
    add(api, pinned.chain(nowhere_named(0..SEARCHED))).await
}

fn nowhere_named(numbers: Range<usize>) -> impl Iterator<Item = (String, String)> {
    numbers.map(|number| (nowhere(number), "searched".to_owned()))
}

async fn add(api: &Api, pins: impl Iterator<Item = (String, String)>) -> Result<()> {
    let mut tasks = JoinSet::new();
    for (cid, name) in pins {
        while tasks.len() >= 32 {
            tasks.join_next().await.expect("32 tasks run")??;
        }
        let api = api.clone();
        tasks.spawn(async move { api.add(json!({ "cid": cid, "name": name })).await.map(|_| ()) });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Two roots that Kubo says to be DAG-CBOR, and that are not.
async fn add_failing(kubo: &Kubo) -> Result<BTreeSet<String>> {
    let mut roots = BTreeSet::new();
    for text in ["no DAG-CBOR", "neither"] {
        let root = kubo.ipfs_with(&["block", "put", "--cid-codec=dag-cbor"], text.as_bytes()).await?;
        let add = ["pin", "remote", "add", "--service=pinfold", "--name=pin 7", &root];
        ensure!(!kubo.try_ipfs(&add).await?.status.success(), "{root} was pinned");
        roots.insert(root);
    }
    Ok(roots)
}

/// What `ls` shows: each once, or the test ends.
async fn listed(kubo: &Kubo, filter: &[&str]) -> Result<BTreeSet<String>> {
    let lines = remote_ls(kubo, filter).await?;
    let distinct: BTreeSet<_> = lines.iter().map(|line| line.cid.clone()).collect();
    ensure!(lines.len() == distinct.len(), "a pin is listed twice by {filter:?}");
    Ok(distinct)
}

#[test]
fn kubo_lists_each_of_a_thousand_pins_once() {
    test(async |place| {
        // A service and its node, so that the node can be away.
        let mut pinfold = Pinfold::split(place, "pinfold", &[]).await?;
        let kubo = Kubo::start(place, "kubo").await?;
        kubo.use_service(&pinfold).await?;
        let failed = add_failing(&kubo).await?;
        add_all(&pinfold.api()?).await?;
        count(&pinfold, "status=pinning", SEARCHED as u64).await?;
        pinfold.parts[1].kill().await?;
        add(&pinfold.api()?, nowhere_named(SEARCHED..SEARCHED + WAITING)).await?;
        each_status(&kubo, &failed).await?;
        names_and_cids(&kubo, &failed).await
    });
}

/// Each status alone, and together.
async fn each_status(kubo: &Kubo, failed: &BTreeSet<String>) -> Result<()> {
    let pinned: BTreeSet<_> = (0..PINNED).map(inline).collect();
    let pinning: BTreeSet<_> = (0..SEARCHED).map(nowhere).collect();
    let queued: BTreeSet<_> = (SEARCHED..SEARCHED + WAITING).map(nowhere).collect();
    assert_eq!(listed(kubo, &[]).await?, pinned);
    assert_eq!(listed(kubo, &["--status=failed"]).await?, *failed);
    assert_eq!(listed(kubo, &["--status=pinning"]).await?, pinning);
    assert_eq!(listed(kubo, &["--status=queued"]).await?, queued);
    let unfinished = &queued | &pinning;
    assert_eq!(listed(kubo, &["--status=queued,pinning"]).await?, unfinished);
    assert_eq!(listed(kubo, &["--status=pinned,failed"]).await?, &pinned | failed);
    assert_eq!(listed(kubo, &[ALL]).await?, &(&pinned | failed) | &unfinished);
    let stat = kubo.ipfs(&["pin", "remote", "service", "ls", "--stat"]).await?;
    let figures = format!(" {WAITING}/{SEARCHED}/{PINNED}/{}", failed.len());
    assert!(stat.ends_with(&figures), "queued/pinning/pinned/failed are wrong in {stat}");
    Ok(())
}

/// Filters that find a few of many pins, far apart.
async fn names_and_cids(kubo: &Kubo, failed: &BTreeSet<String>) -> Result<()> {
    let seven: BTreeSet<_> = (7..PINNED).step_by(NAMES).map(inline).collect();
    assert_eq!(listed(kubo, &["--name=pin 7"]).await?, seven);
    assert_eq!(listed(kubo, &["--name=pin 7", ALL]).await?, &seven | failed);
    assert_eq!(listed(kubo, &["--name=pin 7", "--status=failed"]).await?, *failed);
    assert_eq!(listed(kubo, &["--name=searched", ALL]).await?.len(), SEARCHED + WAITING);
    assert!(listed(kubo, &["--name=searched"]).await?.is_empty());
    let some: BTreeSet<_> = [0, 1, 500, PINNED - 1].into_iter().map(inline).collect();
    let others: BTreeSet<_> = [nowhere(0), nowhere(SEARCHED + WAITING - 1)].into();
    let wanted = &(&some | &others) | failed;
    let cids = format!("--cid={}", wanted.iter().cloned().collect::<Vec<_>>().join(","));
    assert_eq!(listed(kubo, &[&cids, ALL]).await?, wanted);
    assert_eq!(listed(kubo, &[&cids]).await?, some);
    assert_eq!(listed(kubo, &[&cids, "--status=failed"]).await?, *failed);
    assert_eq!(listed(kubo, &[&cids, "--status=queued,pinning"]).await?, others);
    assert_eq!(listed(kubo, &[&cids, ALL, "--name=pin 7"]).await?, *failed);
    Ok(())
}

#[test]
fn pages_of_every_size_hold_the_same_pins_in_the_same_order() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let api = pinfold.api()?;
        add_all(&api).await?;
        let whole: Vec<_> =
            api.all(EVERY_STATUS, 1_000).await?.into_iter().map(|pin| pin.requestid).collect();
        let small: Vec<_> = api.all(EVERY_STATUS, 37).await?.into_iter().map(|pin| pin.requestid).collect();
        assert_eq!(whole.len(), PINNED + SEARCHED);
        assert_eq!(whole, small);
        Ok(())
    });
}
