//! More pins than fit into one page, listed as Kubo does: by ten, asking for
//! the count of what remains each time.

use std::collections::BTreeSet;

use anyhow::Result;
use cid::{Cid, multihash::Multihash};
use pinfold_e2e::{
    api::{Api, EVERY_STATUS},
    kubo::Kubo,
    pinfold::Pinfold,
    scenario::remote_ls,
    test,
};
use serde_json::json;
use tokio::task::JoinSet;

const PINNED: usize = 1_040;
const SEARCHED: usize = 60;

/// Code of raw blocks.
const RAW: u64 = 0x55;

/// A CID that holds its own data, so that its pin needs no peer.
fn inline(number: usize) -> String {
    let digest = Multihash::wrap(0, format!("content {number}").as_bytes()).expect("a short text fits");
    Cid::new_v1(RAW, digest).to_string()
}

/// A CID of a block that nobody has.
fn nowhere(number: usize) -> String {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Cid::new_v1(RAW, Multihash::wrap(0x12, &digest).expect("32 bytes fit")).to_string()
}

async fn add_all(api: &Api) -> Result<()> {
    let mut tasks = JoinSet::new();
    let pinned = (0..PINNED).map(|number| (inline(number), format!("pin {}", number % 100)));
    let searched = (0..SEARCHED).map(|number| (nowhere(number), "searched".to_owned()));
    for (cid, name) in pinned.chain(searched) {
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

#[test]
fn kubo_lists_each_of_a_thousand_pins_once() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let kubo = Kubo::start(place, "kubo").await?;
        kubo.use_service(&pinfold).await?;
        add_all(&pinfold.api()?).await?;
        let pinned = remote_ls(&kubo, &[]).await?;
        assert_eq!(pinned.len(), PINNED);
        let distinct: BTreeSet<_> = pinned.into_iter().map(|line| line.cid).collect();
        assert_eq!(distinct, (0..PINNED).map(inline).collect());
        assert_eq!(remote_ls(&kubo, &["--status=queued,pinning"]).await?.len(), SEARCHED);
        assert_eq!(remote_ls(&kubo, &["--name=pin 7"]).await?.len(), 11);
        let stat = kubo.ipfs(&["pin", "remote", "service", "ls", "--stat"]).await?;
        let figures = stat.rsplit(' ').next().unwrap();
        let figures: Vec<usize> = figures.split('/').map(|figure| figure.parse().unwrap()).collect();
        assert_eq!((figures[0] + figures[1], &figures[2..]), (SEARCHED, &[PINNED, 0][..]));
        Ok(())
    });
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
