//! What several tests do in the same way: pin with `ipfs pin remote`, and
//! prove that a DAG is held whole.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use serde::Deserialize;

use crate::{api, car, kubo::Kubo, pinfold::Pinfold, place::Place, wait::eventually};

/// The longest that a small DAG takes from one peer on this machine.
pub const FETCH: Duration = Duration::from_secs(60);

/// A line of `ipfs pin remote add|ls --enc=json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Line {
    /// `queued`, `pinning`, `pinned` or `failed`.
    pub status: String,
    /// The root.
    pub cid: String,
    /// Empty when the pin has none.
    pub name: String,
}

/// `ipfs pin remote add`, waiting until it is pinned.
pub async fn remote_add(kubo: &Kubo, root: &str, flags: &[&str]) -> Result<Line> {
    let fixed = ["pin", "remote", "add", "--service=pinfold", "--enc=json"];
    let text = kubo.ipfs(&[&fixed, flags, &[root]].concat()).await?;
    serde_json::from_str(&text).with_context(|| format!("`ipfs pin remote add` printed {text}"))
}

/// `ipfs pin remote ls`, line by line.
pub async fn remote_ls(kubo: &Kubo, filter: &[&str]) -> Result<Vec<Line>> {
    let fixed = ["pin", "remote", "ls", "--service=pinfold", "--enc=json"];
    let text = kubo.ipfs(&[&fixed, filter].concat()).await?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The blocks of a DAG as the gateway serves them, every hash checked.
pub async fn held(pinfold: &Pinfold, root: &str) -> Result<BTreeSet<Cid>> {
    let url = format!("{}/ipfs/{root}?format=car", pinfold.gateway);
    let response = api::client()?.get(url).send().await?;
    ensure!(response.status().is_success(), "the gateway answers {} for {root}", response.status());
    let blocks = car::read(&response.bytes().await?).with_context(|| format!("the CAR of {root}"))?;
    Ok(blocks.into_keys().collect())
}

/// Checks that every one of `cids` is held and served under `root`.
pub async fn held_whole(pinfold: &Pinfold, root: &str, cids: &[String]) -> Result<()> {
    let found = held(pinfold, root).await?;
    for cid in cids {
        let cid: Cid = cid.parse()?;
        let inline = cid.hash().code() == 0;
        ensure!(inline || found.contains(&cid), "{root} is held without {cid}");
    }
    Ok(())
}

/// The bytes of a file as the path gateway serves it.
pub async fn served(gateway: &str, path: &str) -> Result<Vec<u8>> {
    let response = api::client()?.get(format!("{gateway}/ipfs/{path}")).send().await?;
    ensure!(response.status().is_success(), "the gateway answers {} for {path}", response.status());
    Ok(response.bytes().await?.to_vec())
}

/// Starts a Kubo that knows no peer but Pinfold.
pub async fn reader(place: &Place, pinfold: &Pinfold, delegates: &[String]) -> Result<Kubo> {
    let reader = Kubo::start(place, "reader").await?;
    let delegate = delegates.first().with_context(|| format!("{} names no delegate", pinfold.endpoint))?;
    reader.connect(delegate).await?;
    Ok(reader)
}

/// Stops the origin, lets a third Kubo fetch the whole DAG from Pinfold, and
/// compares it block by block with what the origin had.
pub async fn survives_its_origin(
    place: &Place,
    pinfold: &Pinfold,
    origin: &mut Kubo,
    roots: &[String],
) -> Result<Kubo> {
    let mut dags = Vec::new();
    for root in roots {
        dags.push(origin.dag(root).await?);
    }
    let page = pinfold.api()?.list("limit=1").await?;
    let delegates = page.results.into_iter().next().context("nothing is pinned")?.delegates;
    origin.stop().await?;
    let reader = reader(place, pinfold, &delegates).await?;
    for (root, dag) in roots.iter().zip(&dags) {
        reader.ipfs(&["pin", "add", "--progress=false", root]).await?;
        ensure!(reader.dag(root).await? == *dag, "{root} came back as another DAG");
        held_whole(pinfold, root, dag).await?;
    }
    Ok(reader)
}

/// Waits until an account's pins with a status are this many.
pub async fn count(pinfold: &Pinfold, filter: &str, wanted: u64) -> Result<()> {
    let api = pinfold.api()?;
    let what = format!("{wanted} pins with {filter}");
    eventually(&what, FETCH, async || {
        let count = api.list(&format!("{filter}&limit=1")).await?.count;
        ensure!(count == wanted, "there are {count}");
        Ok(Some(()))
    })
    .await
}
