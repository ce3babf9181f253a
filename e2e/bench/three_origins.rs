//! The row of three origins: one says that it has everything and sends
//! nothing, one sends what nobody asked for, one serves and resets every
//! stream that is idle. What the first two cost is told by the rate of the
//! third alone, which then resets nothing.
//!
//! All are peers of the tests' own Bitswap, in this process.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use pinfold_e2e::{api::client, car, data, kubo::Kubo, pinfold::Pinfold, place::Place};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    meter::Meter,
    peer::{
        origins::{BITSWAP, Blocks, lie, serve, stall},
        raw::Raw,
    },
    scale::Scale,
    table::{Side, Table, Work},
};

/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(600);

/// The largest file: this process holds it twice while it is prepared.
const MAX_MIB: usize = 256;

/// How long a stream is idle before it is reset.
const IDLE: Duration = Duration::from_millis(50);

/// Longer than any fetch.
const NEVER: Duration = Duration::from_secs(3_600);

/// Peers that run until this is dropped.
#[derive(Default)]
struct Origins {
    addresses: Vec<String>,
    tasks: JoinSet<()>,
}

impl Origins {
    async fn add<F>(&mut self, behave: impl FnOnce(Raw) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let peer = Raw::start(BITSWAP).await;
        self.addresses.push(format!("{}/p2p/{}", peer.address, peer.peer));
        self.tasks.spawn(behave(peer));
    }
}

/// Pins a file from the three, and from the good one alone.
pub(crate) async fn row(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let mib = scale.mib.min(MAX_MIB);
    let (mut three, mut one) = (Side::default(), Side::default());
    for round in 0..scale.rounds {
        let (root, blocks) = content(place, round, mib).await?;
        let first = round.is_multiple_of(2);
        for all in [first, !first] {
            let mut origins = Origins::default();
            if all {
                origins.add(|peer| stall(peer, |_| ())).await;
                origins.add(|peer| lie(peer, || ())).await;
            }
            let idle = if all { IDLE } else { NEVER };
            origins.add(|peer| serve(peer, blocks.clone(), idle)).await;
            let side = if all { &mut three } else { &mut one };
            fetch(place, &format!("{round}-{all}"), &root, mib, origins, side).await?;
        }
    }
    let name = format!("pin {mib} MiB from three origins: one stalls, one lies, one resets idle streams");
    let work = Work { name: &name, unit: "MiB/s", peer: "the third alone", floor: "", goal: "0.7x" };
    table.compare(&work, &three, &one);
    Ok(())
}

/// The root of a file and its blocks, as a Kubo makes them.
async fn content(place: &Place, round: u64, mib: usize) -> Result<(String, Arc<Blocks>)> {
    let mut kubo = Kubo::start(place, &format!("maker-{round}")).await?;
    let root = kubo.add(&data::bytes(round, mib << 20), &["--raw-leaves"]).await?;
    let url = format!("{}/ipfs/{root}?format=car", kubo.gateway);
    let car = client()?.get(url).send().await?.error_for_status()?.bytes().await?;
    kubo.stop().await?;
    let blocks = car::read(&car).context("the CAR of a Kubo")?;
    Ok((root, Arc::new(blocks.into_iter().map(|(cid, block)| (cid.to_bytes(), block)).collect())))
}

async fn fetch(
    place: &Place,
    name: &str,
    root: &str,
    mib: usize,
    origins: Origins,
    side: &mut Side,
) -> Result<()> {
    let pinfold = Pinfold::up(place, name, &["--capacity", "20GB"]).await?;
    let api = pinfold.api()?;
    let meter = Meter::start(pinfold.parts[0].process())?;
    let pin = api.add(json!({ "cid": root, "origins": origins.addresses })).await?;
    api.until(&pin.requestid, "pinned", FETCH).await?;
    side.note(mib as f64, meter.read()?, None);
    Ok(())
}
