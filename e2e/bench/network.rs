//! The row of two nodes: a file from one Pinfold to another, beside the same
//! from one Kubo to another.

use std::time::Duration;

use anyhow::{Context, Result};
use pinfold_e2e::{data, kubo::Kubo, pinfold::Pinfold, place::Place};
use serde_json::json;

use crate::{
    floors::Floors,
    meter::{Meter, Reading},
    scale::Scale,
    table::{Side, Table, Work, median},
};

/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(600);
const CAPACITY: &[&str] = &["--capacity", "20GB"];

/// A side with what its sender needed.
#[derive(Default)]
struct Pair {
    side: Side,
    sender_peak_mib: Vec<f64>,
}

impl Pair {
    async fn measure(
        &mut self,
        mib: usize,
        receiver: Option<u32>,
        sender: Option<u32>,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let meters: [Meter; 2] = [Meter::start(receiver)?, Meter::start(sender)?];
        work.await?;
        let [received, sent]: [Reading; 2] = [meters[0].read()?, meters[1].read()?];
        self.sender_peak_mib.push(sent.peak_mib);
        self.side.note(mib as f64, received, Some(sent));
        Ok(())
    }
}

/// Moves a file of `scale.mib` over both.
pub(crate) async fn row(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let (mut ours, mut theirs) = (Pair::default(), Pair::default());
    for round in 0..scale.rounds {
        let origin = Kubo::start(place, &format!("origin-{round}")).await?;
        let root = origin.add(&data::bytes(round, scale.mib << 20), &["--raw-leaves"]).await?;
        let first = round.is_multiple_of(2);
        for pinfold in [first, !first] {
            if pinfold {
                pinfolds(place, round, &origin, &root, scale.mib, &mut ours).await?;
            } else {
                kubos(place, round, &origin, &root, scale.mib, &mut theirs).await?;
            }
        }
    }
    let name = format!("{} MiB from one Pinfold to another", scale.mib);
    let floor = Floors::measure(place, scale)?.to_keep(scale.mib);
    let work = Work { name: &name, unit: "MiB/s", peer: "Kubo to Kubo", floor: &floor, goal: "2x" };
    table.compare(&work, &ours.side, &theirs.side);
    let peaks = [&ours.sender_peak_mib, &theirs.sender_peak_mib].map(|peaks| median(peaks));
    table.versus(
        &format!("{name}: the sender's peak memory"),
        &format!("{:.0} MiB", peaks[0]),
        &format!("Kubo: {:.0} MiB", peaks[1]),
        peaks[0] / peaks[1],
        "",
    );
    Ok(())
}

async fn pinfolds(
    place: &Place,
    round: u64,
    origin: &Kubo,
    root: &str,
    mib: usize,
    pair: &mut Pair,
) -> Result<()> {
    let source = Pinfold::up(place, &format!("source-{round}"), CAPACITY).await?;
    let addresses = origin.addresses().await?;
    let held = source.api()?.add(json!({ "cid": root, "origins": addresses })).await?;
    let held = source.api()?.until(&held.requestid, "pinned", FETCH).await?;
    let fetching = Pinfold::up(place, &format!("fetching-{round}"), CAPACITY).await?;
    let api = fetching.api()?;
    let processes = (fetching.parts[0].process(), source.parts[0].process());
    pair.measure(mib, processes.0, processes.1, async {
        let pin = api.add(json!({ "cid": root, "origins": held.delegates })).await?;
        api.until(&pin.requestid, "pinned", FETCH).await.map(drop)
    })
    .await
}

async fn kubos(
    place: &Place,
    round: u64,
    origin: &Kubo,
    root: &str,
    mib: usize,
    pair: &mut Pair,
) -> Result<()> {
    let receiver = Kubo::start(place, &format!("receiver-{round}")).await?;
    let address = origin.addresses().await?.into_iter().next().context("a Kubo has an address")?;
    receiver.connect(&address).await?;
    pair.measure(mib, receiver.process(), origin.process(), async {
        receiver.ipfs(&["pin", "add", "--progress=false", root]).await.map(drop)
    })
    .await
}
