//! Rows about blocks: pinning from a Kubo, a CAR from the gateway, idling.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{api::client, data, kubo::Kubo, pinfold::Pinfold, place::Place};
use serde_json::json;

use crate::{
    floors::Floors,
    meter::{Meter, Reading, resident_mib},
    scale::Scale,
    table::{Side, Table, Work},
};

/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(600);
/// How long an idle process is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Files of the directory, and their bytes.
const FILES: (u64, usize) = (50_000, 2_048);

/// Both sides of a row about one Kubo's content.
#[derive(Default)]
struct Sides {
    ours: Side,
    theirs: Side,
}

/// One Kubo's file, pinned by Pinfold and by another Kubo.
pub(crate) async fn pin(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let (mib, floor) = (scale.mib, Floors::measure(place, scale)?.to_keep(scale.mib));
    for (chunk, kib) in [("size-262144", 256), ("size-1048576", 1_024)] {
        let mut sides = Sides::default();
        for round in 0..scale.rounds {
            let origin = Kubo::start(place, &format!("origin-{chunk}-{round}")).await?;
            let chunker = format!("--chunker={chunk}");
            let root = origin.add(&data::bytes(round, mib << 20), &[&chunker, "--raw-leaves"]).await?;
            sides.round(place, round, chunk, &origin, &root, mib as f64).await?;
        }
        let name = format!("pin {mib} MiB from a Kubo, chunks of {kib} KiB");
        let goal = "rate 1.5x, CPU and memory 1/2";
        let work = Work { name: &name, unit: "MiB/s", peer: "Kubo to Kubo", floor: &floor, goal };
        table.compare(&work, &sides.ours, &sides.theirs);
    }
    Ok(())
}

/// A directory of many small files.
pub(crate) async fn directory(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let mut sides = Sides::default();
    let (files, length) = (usize::try_from(scale.of(FILES.0))?, FILES.1);
    for round in 0..scale.rounds {
        let origin = Kubo::start(place, &format!("origin-{round}")).await?;
        let folder = place.folder(&format!("files-{round}"))?;
        data::folder(&folder, round, files, length)?;
        let root = origin.add_folder(&folder, &["--raw-leaves"]).await?;
        sides.round(place, round, "files", &origin, &root, files as f64).await?;
    }
    let name = format!("pin a directory of {files} files of {length} B");
    let work = Work { name: &name, unit: "files/s", peer: "Kubo to Kubo", floor: "", goal: "6x" };
    table.compare(&work, &sides.ours, &sides.theirs);
    Ok(())
}

impl Sides {
    /// One round of both; who goes first changes from round to round.
    async fn round(
        &mut self,
        place: &Place,
        round: u64,
        name: &str,
        origin: &Kubo,
        root: &str,
        work: f64,
    ) -> Result<()> {
        let first = round.is_multiple_of(2);
        for ours in [first, !first] {
            if ours {
                let (reading, sender) = pinfold(place, &format!("{name}-{round}"), origin, root).await?;
                self.ours.note(work, reading, Some(sender));
            } else {
                let (reading, sender) = kubo(place, &format!("{name}-{round}"), origin, root).await?;
                self.theirs.note(work, reading, Some(sender));
            }
        }
        Ok(())
    }
}

async fn pinfold(place: &Place, name: &str, origin: &Kubo, root: &str) -> Result<(Reading, Reading)> {
    let pinfold = Pinfold::up(place, &format!("pinfold-{name}"), &["--capacity", "20GB"]).await?;
    metered(pinfold.parts[0].process(), origin, async {
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        Ok(())
    })
    .await
}

async fn kubo(place: &Place, name: &str, origin: &Kubo, root: &str) -> Result<(Reading, Reading)> {
    let receiver = Kubo::start(place, &format!("receiver-{name}")).await?;
    receiver.connect(origin.addresses().await?.first().context("a Kubo has an address")?).await?;
    metered(receiver.process(), origin, async {
        receiver.ipfs(&["pin", "add", "--progress=false", root]).await.map(drop)
    })
    .await
}

async fn metered(
    process: Option<u32>,
    sender: &Kubo,
    work: impl Future<Output = Result<()>>,
) -> Result<(Reading, Reading)> {
    let (meter, other) = (Meter::start(process)?, Meter::start(sender.process())?);
    work.await?;
    Ok((meter.read()?, other.read()?))
}

/// A CAR of a whole file from both gateways.
pub(crate) async fn car(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let mib = scale.mib;
    let kubo = Kubo::start(place, "kubo").await?;
    let root = kubo.add(&data::bytes(1, mib << 20), &["--raw-leaves"]).await?;
    let pinfold = Pinfold::up(place, "pinfold", &["--capacity", "20GB"]).await?;
    let api = pinfold.api()?;
    let pin = api.add(json!({ "cid": root, "origins": kubo.addresses().await? })).await?;
    api.until(&pin.requestid, "pinned", FETCH).await?;
    let mut sides = Sides::default();
    for round in 0..scale.rounds {
        let first = round.is_multiple_of(2);
        for ours in [first, !first] {
            let (process, gateway, side) = if ours {
                (pinfold.parts[0].process(), &pinfold.gateway, &mut sides.ours)
            } else {
                (kubo.process(), &kubo.gateway, &mut sides.theirs)
            };
            let meter = Meter::start(process)?;
            download(gateway, &root, mib).await?;
            side.note(mib as f64, meter.read()?, None);
        }
    }
    let name = format!("CAR of {mib} MiB from the gateway");
    let goal = "rate 4x, CPU 1/4";
    let work = Work { name: &name, unit: "MiB/s", peer: "Kubo's gateway", floor: "", goal };
    table.compare(&work, &sides.ours, &sides.theirs);
    Ok(())
}

async fn download(gateway: &str, root: &str, mib: usize) -> Result<()> {
    let mut answer = client()?.get(format!("{gateway}/ipfs/{root}?format=car")).send().await?;
    ensure!(answer.status().is_success(), "{gateway} answered {}", answer.status());
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await? {
        bytes += chunk.len();
    }
    ensure!(bytes > mib << 20, "{gateway} sent {bytes} bytes of a CAR of {mib} MiB");
    Ok(())
}

/// The time until it is ready, memory and CPU of a Pinfold that does nothing.
pub(crate) async fn idle(place: &Place, table: &mut Table) -> Result<()> {
    let begun = Instant::now();
    let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
    let first = begun.elapsed().as_secs_f64();
    pinfold.parts[0].stop().await?;
    let begun = Instant::now();
    pinfold.parts[0].start().await?;
    let again = begun.elapsed().as_secs_f64();
    let meter = Meter::start(pinfold.parts[0].process())?;
    tokio::time::sleep(IDLE).await;
    let (reading, resident) = (meter.read()?, resident_mib(pinfold.parts[0].process())?);
    let result = format!(
        "ready in {first:.2} s the first time, {again:.2} s later; {resident:.0} MiB resident; {:.2} % of a core",
        100.0 * reading.cpu / reading.seconds
    );
    table.alone("idle `up`", &result, "ready in 0.5 s, 40 MiB");
    Ok(())
}
