//! `kill -9` of `pinfold up`, in storms of requests and in the middle of
//! fetches.

use anyhow::ensure;
use pinfold_e2e::{
    api::EVERY_STATUS,
    crash::{FRAME, Kind, kill_at_any_moment},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    scenario::{FETCH, held},
    test_within,
    wait::eventually,
};

/// How often the product is killed.
const ROUNDS: u32 = 50;

/// Bytes of a file that takes some time; killed at each of its quarters, a
/// fetch that began anew each time would take 2.5 times as many.
const LARGE: u64 = 120_000_000;

#[test]
fn nothing_acknowledged_is_lost_when_it_is_killed_at_any_moment() {
    kill_at_any_moment(ROUNDS, Kind::Sqlite);
}

#[test]
fn a_large_fetch_goes_on_where_it_was_killed() {
    test_within(FRAME, async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(9, LARGE as usize), &[]).await?;
        let api = pinfold.api()?;
        let pin = api.add(serde_json::json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        for quarter in 1..=3 {
            eventually("the fetch to move on", FETCH, async || {
                let pin = api.get(&pin.requestid).await?;
                let bytes: u64 = pin.info.get("bytes").map_or(Ok(0), |bytes| bytes.parse())?;
                let is_over = pin.status == "pinned";
                ensure!(!is_over || quarter > 1, "it was over before it could be killed");
                ensure!(bytes >= quarter * LARGE / 4 || is_over, "it stands at {bytes}");
                Ok(Some(()))
            })
            .await?;
            pinfold.kill().await?;
            pinfold.start().await?;
        }
        api.until(&pin.requestid, "pinned", FETCH).await?;
        ensure!(api.list(EVERY_STATUS).await?.count == 1);
        let blocks = held(&pinfold, &root).await?.len();
        ensure!(blocks == origin.dag(&root).await?.len(), "{blocks} blocks are held");
        // What was under way at a kill comes again, and nothing that was held.
        let sent = origin.sent().await?;
        ensure!((LARGE..LARGE * 3 / 2).contains(&sent), "{sent} bytes were sent");
        Ok(())
    });
}
