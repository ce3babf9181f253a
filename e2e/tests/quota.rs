//! What an account may store, enforced while bytes arrive.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use pinfold_e2e::{
    api::{Api, EVERY_STATUS},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    recount::recount,
    scenario::{FETCH, held_whole},
    test,
    wait::eventually,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Room for ten of the files below, not for eleven.
const QUOTA: u64 = 10_500_000;
const FILE: usize = 1_000_000;

/// Pins that are posted at one moment, of a file each; and how many of them
/// there is room for.
const AT_ONCE: usize = 200;
const ROOM: usize = 120;

/// A file that is one block.
const BLOCK: usize = 50_000;

/// What the account uses and has reserved, in bytes.
async fn used(pinfold: &Pinfold) -> Result<u64> {
    let text = pinfold.run(&["account", "ls", "--json"]).await?.success("account ls")?.text()?;
    let rows: Value = serde_json::from_str(&text)?;
    rows[0]["used"].as_u64().with_context(|| format!("`account ls` printed {text}"))
}

#[test]
fn fetches_at_the_edge_never_exceed_the_quota() {
    test(async |place| {
        let quota = QUOTA.to_string();
        let mut pinfold = Pinfold::up(place, "pinfold", &["--free-quota", &quota]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let origins = origin.addresses().await?;
        let api = pinfold.api()?;
        for file in 0..16 {
            let root = origin.add(&data::bytes(file, FILE), &[]).await?;
            let answer =
                api.send(Method::POST, "/pins", Some(json!({ "cid": root, "origins": origins }))).await?;
            ensure!([StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(&answer.status), "{answer:?}");
        }
        eventually("every pin to be settled", FETCH, async || {
            let waiting = api.list("status=queued,pinning").await?.count;
            ensure!(waiting == 0, "{waiting} wait");
            Ok(Some(()))
        })
        .await?;
        let used = used(&pinfold).await?;
        assert!(used <= QUOTA, "{used} bytes are used of {QUOTA}");
        // Fetches at the same time may leave some room unused, but not most of it.
        assert!(used >= QUOTA / 2, "only {used} bytes are used of {QUOTA}");
        for pin in api.all("status=failed", 100).await? {
            assert_eq!(pin.info["reason"], "over_quota");
        }
        // The last pin of a content frees what it was charged.
        for pin in api.all(EVERY_STATUS, 100).await? {
            api.delete(&pin.requestid).await?;
        }
        assert_eq!(self::used(&pinfold).await?, 0);
        pinfold.stop().await?;
        recount(pinfold.data(), &BTreeMap::new())
    });
}

/// Files in a folder of an origin that are one raw block each; their CIDs.
async fn blocks(place: &Place, origin: &Kubo) -> Result<Vec<String>> {
    let folder = place.folder("files")?;
    data::folder(&folder, 7, AT_ONCE, BLOCK)?;
    origin.add_folder(&folder, &["--raw-leaves"]).await?;
    let digest = |seed: usize| Sha256::digest(data::bytes(7 + seed as u64, BLOCK));
    Ok((0..AT_ONCE).map(|seed| data::raw_cid(&digest(seed).into())).collect())
}

/// Posts all pins at one moment. Who has no room is told so at once, or by
/// the pin; the first are never told so.
async fn post_at_once(api: &Api, roots: &[String], origins: &[String]) -> Result<usize> {
    let posts = roots
        .iter()
        .map(|root| api.send(Method::POST, "/pins", Some(json!({ "cid": root, "origins": origins }))));
    let answers = try_join_all(posts).await?;
    for answer in &answers {
        ensure!([StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(&answer.status), "{answer:?}");
    }
    Ok(answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count())
}

#[test]
fn two_hundred_pins_posted_at_once_stop_at_the_edge_of_the_quota() {
    test(async |place| {
        let limit = (ROOM * BLOCK) as u64;
        let mut pinfold = Pinfold::up(place, "pinfold", &["--free-quota", &limit.to_string()]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let (roots, api) = (blocks(place, &origin).await?, pinfold.api()?);
        let accepted = post_at_once(&api, &roots, &origin.addresses().await?).await?;
        eventually("every pin to be settled", FETCH, async || {
            let used = used(&pinfold).await?;
            assert!(used <= limit, "{used} bytes are used of {limit}");
            let waiting = api.list("status=queued,pinning").await?.count;
            ensure!(waiting == 0, "{waiting} wait");
            Ok(Some(()))
        })
        .await?;
        let (pinned, failed) = (api.all("status=pinned", 100).await?, api.all("status=failed", 100).await?);
        assert_eq!(pinned.len() + failed.len(), accepted, "none is lost");
        assert!((ROOM / 2..=ROOM).contains(&pinned.len()), "{} of {ROOM} have room", pinned.len());
        for pin in failed {
            assert_eq!(pin.info["reason"], "over_quota");
        }
        assert_eq!(used(&pinfold).await?, (pinned.len() * BLOCK) as u64);
        for pin in &pinned {
            held_whole(&pinfold, &pin.pin.cid, std::slice::from_ref(&pin.pin.cid)).await?;
        }
        pinfold.stop().await?;
        recount(pinfold.data(), &roots.into_iter().map(|root| (root, BLOCK as u64)).collect())
    });
}

#[test]
fn a_root_of_more_than_half_the_quota_is_replaced_for_ever() {
    test(async |place| {
        let quota = QUOTA.to_string();
        let pinfold = Pinfold::up(place, "pinfold", &["--free-quota", &quota]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let origins = origin.addresses().await?;
        let api = pinfold.api()?;
        let mut file = data::bytes(1, 6_000_000);
        let mut requestid: Option<String> = None;
        for change in 0..4_u8 {
            file[0] = change;
            let root = origin.add(&file, &[]).await?;
            let pin = json!({ "cid": root, "origins": origins });
            let pin = match requestid {
                None => api.add(pin).await?,
                Some(old) => api.replace(&old, pin).await?,
            };
            api.until(&pin.requestid, "pinned", FETCH).await.with_context(|| format!("change {change}"))?;
            held_whole(&pinfold, &root, &origin.dag(&root).await?).await?;
            requestid = Some(pin.requestid);
        }
        eventually("the predecessors to be let go", FETCH, async || {
            let used = used(&pinfold).await?;
            ensure!(used < 7_000_000, "{used} bytes are used");
            Ok(Some(()))
        })
        .await
    });
}
