//! Rows about blocks: pinning from a Kubo, a CAR from the gateway, idling.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{api::client, data, kubo::Kubo, pinfold::Pinfold, place::Place};
use serde_json::json;

use crate::{
    meter::{Meter, Reading, resident_mib},
    table::{Side, Table},
};

/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(600);
/// How long an idle process is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Files of the directory, and their bytes.
const FILES: (usize, usize) = (50_000, 2_048);

/// One Kubo's file, pinned by Pinfold and by another Kubo.
pub(crate) async fn pin(place: &Place, mib: usize, rounds: u64, table: &mut Table) -> Result<()> {
    for chunk in ["size-262144", "size-1048576"] {
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        for round in 0..rounds {
            let origin = Kubo::start(place, &format!("origin-{chunk}-{round}")).await?;
            let chunker = format!("--chunker={chunk}");
            let root = origin.add(&data::bytes(round, mib << 20), &[&chunker, "--raw-leaves"]).await?;
            let name = format!("{chunk}-{round}");
            both(place, &name, &origin, &root, mib as f64, &mut ours, &mut theirs).await?;
        }
        table.compare(&format!("pin {mib} MiB, chunks {chunk}"), "MiB/s", &ours, "Kubo", &theirs);
    }
    Ok(())
}

/// A directory of many small files.
pub(crate) async fn directory(place: &Place, rounds: u64, table: &mut Table) -> Result<()> {
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for round in 0..rounds {
        let origin = Kubo::start(place, &format!("origin-{round}")).await?;
        let folder = place.folder(&format!("files-{round}"))?;
        data::folder(&folder, round, FILES.0, FILES.1)?;
        let root = origin.add_folder(&folder, &["--raw-leaves"]).await?;
        both(place, &round.to_string(), &origin, &root, FILES.0 as f64, &mut ours, &mut theirs).await?;
    }
    let work = format!("pin a directory of {} files of {} B", FILES.0, FILES.1);
    table.compare(&work, "files/s", &ours, "Kubo", &theirs);
    Ok(())
}

async fn both(
    place: &Place,
    name: &str,
    origin: &Kubo,
    root: &str,
    work: f64,
    ours: &mut Side,
    theirs: &mut Side,
) -> Result<()> {
    let pinfold = Pinfold::up(place, &format!("pinfold-{name}"), &["--capacity", "20GB"]).await?;
    let (reading, sender) = metered(pinfold.parts[0].process(), origin, async {
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        Ok(())
    })
    .await?;
    ours.note(work, reading, Some(sender));
    drop(pinfold);
    let receiver = Kubo::start(place, &format!("receiver-{name}")).await?;
    receiver.connect(origin.addresses().await?.first().context("a Kubo has an address")?).await?;
    let (reading, sender) = metered(receiver.process(), origin, async {
        receiver.ipfs(&["pin", "add", "--progress=false", root]).await.map(drop)
    })
    .await?;
    theirs.note(work, reading, Some(sender));
    Ok(())
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
pub(crate) async fn car(place: &Place, mib: usize, rounds: u64, table: &mut Table) -> Result<()> {
    let kubo = Kubo::start(place, "kubo").await?;
    let root = kubo.add(&data::bytes(1, mib << 20), &["--raw-leaves"]).await?;
    let pinfold = Pinfold::up(place, "pinfold", &["--capacity", "20GB"]).await?;
    let api = pinfold.api()?;
    let pin = api.add(json!({ "cid": root, "origins": kubo.addresses().await? })).await?;
    api.until(&pin.requestid, "pinned", FETCH).await?;
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for _ in 0..rounds {
        let meter = Meter::start(pinfold.parts[0].process())?;
        download(&pinfold.gateway, &root, mib).await?;
        ours.note(mib as f64, meter.read()?, None);
        let meter = Meter::start(kubo.process())?;
        download(&kubo.gateway, &root, mib).await?;
        theirs.note(mib as f64, meter.read()?, None);
    }
    table.compare(&format!("CAR of {mib} MiB from the gateway"), "MiB/s", &ours, "Kubo", &theirs);
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
    table.alone("idle `up`", &result);
    Ok(())
}
