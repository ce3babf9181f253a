//! The two halves of `up` as processes of their own, killed in turn.

use std::time::Duration;

use anyhow::{Result, ensure};
use pinfold_e2e::{
    api::client,
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    process::free_port,
    scenario::{FETCH, held_whole, remote_add, survives_its_origin},
    test, test_within,
};
use serde_json::json;

#[test]
fn a_kubo_pins_to_a_service_whose_node_is_another_process() {
    test(async |place| {
        let metrics = format!("127.0.0.1:{}", free_port()?);
        let pinfold = Pinfold::split_with(place, "service", &[], &["--metrics", &metrics]).await?;
        let mut kubo = Kubo::start(place, "kubo").await?;
        kubo.use_service(&pinfold).await?;
        let root = kubo.add(&data::bytes(1, 2_000_000), &[]).await?;
        assert_eq!(remote_add(&kubo, &root, &["--name=split"]).await?.status, "pinned");
        counted(&metrics).await?;
        survives_its_origin(place, &pinfold, &mut kubo, &[root]).await?;
        Ok(())
    });
}

/// A node shows what it counts, under the names of this product alone.
async fn counted(metrics: &str) -> Result<()> {
    let text = client()?.get(format!("http://{metrics}/metrics")).send().await?.text().await?;
    for name in ["pinfold_bitswap_received_blocks_total", "pinfold_fetch_blocks_total"] {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        ensure!(value.is_some_and(|value| value >= 8), "{name} is {value:?}: {text}");
    }
    let foreign = text.lines().find(|line| {
        !line.trim_start_matches("# TYPE ").trim_start_matches("# HELP ").starts_with("pinfold_")
            && !line.is_empty()
    });
    ensure!(foreign.is_none(), "{foreign:?} is no name of Pinfold's");
    Ok(())
}

#[test]
fn fetches_end_well_while_service_and_node_are_killed_in_turn() {
    test_within(Duration::from_secs(300), async |place| {
        let mut pinfold = Pinfold::split(place, "service", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let origins = origin.addresses().await?;
        let api = pinfold.api()?;
        let mut pins = Vec::new();
        for turn in 0..8 {
            let root = origin.add(&data::bytes(turn, 8_000_000), &[]).await?;
            let pin = api.add(json!({ "cid": root, "origins": origins })).await?;
            pins.push((pin.requestid, root));
            // The service, then the node, and so on, each while it works.
            let part = &mut pinfold.parts[usize::from(turn % 2 == 1)];
            part.kill().await?;
            part.start().await?;
        }
        for (requestid, root) in pins {
            api.until(&requestid, "pinned", FETCH).await?;
            held_whole(&pinfold, &root, &origin.dag(&root).await?).await?;
        }
        Ok(())
    });
}

#[test]
fn a_node_that_was_away_takes_what_was_pinned_meanwhile() {
    test(async |place| {
        let mut pinfold = Pinfold::split(place, "service", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(3, 1_000_000), &[]).await?;
        pinfold.parts[1].kill().await?;
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        assert_eq!(pin.status, "queued");
        assert!(!pin.delegates.is_empty(), "the last known delegate is named");
        pinfold.parts[1].start().await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        Ok(())
    });
}
