//! Kubo's policy that keeps its MFS root pinned.

use std::time::Duration;

use anyhow::{Result, ensure};
use pinfold_e2e::{
    api::{Api, EVERY_STATUS, PinStatus},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    scenario::{FETCH, held_whole},
    test,
    wait::eventually,
};
use serde_json::json;

/// Bytes of a file.
const FILE: usize = 400_000;

/// Files that are written one after the other.
const CHANGES: u64 = 4;

/// How often Kubo looks at its MFS root; by default it does every 30 s.
const POLL: &str = "200ms";

async fn both(place: &Place) -> Result<(Pinfold, Kubo)> {
    let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
    let service = json!({
        "API": { "Endpoint": pinfold.endpoint, "Key": pinfold.token },
        "Policies": { "MFS": { "Enable": true, "PinName": "", "RepinInterval": "1s" } },
    });
    let kubo = Kubo::start_with(place, "kubo", &[("MFS_PIN_POLL_INTERVAL", POLL)], |config| {
        config["Pinning"]["RemoteServices"]["pinfold"] = service;
    })
    .await?;
    Ok((pinfold, kubo))
}

async fn write(kubo: &Kubo, path: &str, seed: u64) -> Result<String> {
    kubo.ipfs_with(&["files", "write", "--create", "--parents", path], &data::bytes(seed, FILE)).await?;
    kubo.ipfs(&["files", "stat", "--hash", "/"]).await
}

/// Waits until the account's one pin is `root`, pinned.
async fn follows(api: &Api, root: &str) -> Result<PinStatus> {
    let what = format!("the MFS root {root} to be the one pin");
    eventually(&what, FETCH, async || {
        let page = api.list(EVERY_STATUS).await?;
        ensure!(page.count == 1, "there are {} pins", page.count);
        let pin = page.results.into_iter().next().filter(|pin| pin.status == "pinned" && pin.pin.cid == root);
        Ok(pin)
    })
    .await
}

#[test]
fn the_policy_replaces_its_pin_whenever_the_root_changes() {
    test(async |place| {
        let (pinfold, kubo) = both(place).await?;
        let api = pinfold.api()?;
        for change in 0..CHANGES {
            let root = write(&kubo, &format!("/folder/file {change}"), change).await?;
            let pin = follows(&api, &root).await?;
            assert_eq!(pin.pin.name, Some(format!("policy/{}/mfs", kubo.id)));
            held_whole(&pinfold, &root, &kubo.dag(&root).await?).await?;
        }
        // Each file once, and each time some folders.
        let (sent, files) = (kubo.sent().await?, CHANGES * FILE as u64);
        ensure!((files..files + FILE as u64).contains(&sent), "{sent} bytes were sent");
        Ok(())
    });
}

#[test]
fn the_old_root_is_kept_until_the_new_one_is_held() {
    test(async |place| {
        let (pinfold, kubo) = both(place).await?;
        let api = pinfold.api()?;
        let old = write(&kubo, "/file", 1).await?;
        let pin = follows(&api, &old).await?;
        let cids = kubo.dag(&old).await?;
        // Nobody has the new root: the old DAG stays.
        let nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
        let new = api.replace(&pin.requestid, json!({ "cid": nowhere, "name": "mine" })).await?;
        let again = eventually("the replacement to be searched for", Duration::from_secs(20), async || {
            let pin = api.get(&new.requestid).await?;
            Ok(pin.info.contains_key("reason").then_some(pin))
        });
        ensure!(again.await?.status != "pinned");
        held_whole(&pinfold, &old, &cids).await
    });
}
