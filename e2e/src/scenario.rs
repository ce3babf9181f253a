//! What several tests do in the same way: pin with `ipfs pin remote`, and
//! prove that a DAG is held whole.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use serde::Deserialize;

use crate::{api, car, copies::Copy, kubo::Kubo, pinfold::Pinfold, place::Place, wait::eventually};

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

/// A whole DAG as the CAR that the gateway serves.
pub async fn gateway_car(pinfold: &Pinfold, root: &str) -> Result<Vec<u8>> {
    let url = format!("{}/ipfs/{root}?format=car", pinfold.gateway);
    let response = api::client()?.get(url).send().await?;
    ensure!(response.status().is_success(), "the gateway answers {} for {root}", response.status());
    Ok(response.bytes().await?.to_vec())
}

/// The blocks of a DAG as the gateway serves them, every hash checked.
pub async fn held(pinfold: &Pinfold, root: &str) -> Result<BTreeSet<Cid>> {
    let blocks =
        car::read(&gateway_car(pinfold, root).await?).with_context(|| format!("the CAR of {root}"))?;
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
pub async fn reader(place: &Place, pinfold: &Pinfold) -> Result<Kubo> {
    meet(Kubo::start(place, "reader").await?, pinfold).await
}

/// The same for very many small blocks.
pub async fn reader_for_many_blocks(place: &Place, pinfold: &Pinfold) -> Result<Kubo> {
    meet(Kubo::start_for_many_blocks(place, "reader").await?, pinfold).await
}

async fn meet(reader: Kubo, pinfold: &Pinfold) -> Result<Kubo> {
    let page = pinfold.api()?.list("limit=1").await?;
    let delegates = page.results.into_iter().next().context("nothing is pinned")?.delegates;
    let delegate = delegates.first().with_context(|| format!("{} names no delegate", pinfold.endpoint))?;
    reader.connect(delegate).await?;
    Ok(reader)
}

/// Stops the origin, lets a third Kubo fetch the whole DAG from Pinfold by
/// Bitswap, and an offline one take it from the gateway's CAR; compares both
/// with what the origin had, byte for byte.
pub async fn survives_its_origin(
    place: &Place,
    pinfold: &Pinfold,
    origin: &mut Kubo,
    roots: &[String],
) -> Result<Kubo> {
    let mut originals = Vec::new();
    for root in roots {
        originals.push(Copy::of(place, origin, root).await?);
    }
    origin.stop().await?;
    let reader = reader(place, pinfold).await?;
    let offline = Kubo::offline(place, "offline").await?;
    for (root, original) in roots.iter().zip(&originals) {
        reader.ipfs(&["pin", "add", "--progress=false", root]).await?;
        original.same_as(&Copy::of(place, &reader, root).await?)?;
        import(&offline, &gateway_car(pinfold, root).await?).await?;
        original.same_as(&Copy::of(place, &offline, root).await?)?;
        held_whole(pinfold, root, original.dag()).await?;
    }
    Ok(reader)
}

/// Gives a CAR to a Kubo, which pins its root: so every block must be in it.
pub async fn import(kubo: &Kubo, car: &[u8]) -> Result<()> {
    let printed = kubo.ipfs_with(&["dag", "import", "--pin-roots=true", "--stats"], car).await?;
    ensure!(printed.contains("success"), "`ipfs dag import` printed {printed}");
    Ok(())
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
