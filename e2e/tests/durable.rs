//! What is acknowledged is on disk: a witness between Pinfold and the system
//! sees every write, sync and answer in their order.
//!
//! A kill leaves the page cache as it is, so that no kill shows a sync that is
//! missing. This does.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use pinfold_e2e::{
    api::Api,
    data,
    kubo::Kubo,
    load::{Load, under_load},
    pinfold::Pinfold,
    place::Place,
    recount::recount,
    scenario::{FETCH, held_whole},
    storm::compare,
    test_within,
    truth::{Truth, Truths, held_exactly, sizes},
    witness::{EIO, ENOSPC, Event, Fault, Kind, Operation, Witness, acknowledged, renamed, stored},
};
use serde_json::json;

/// The longest that a test takes.
const LIMIT: Duration = Duration::from_secs(240);

/// Pins of which each is asked for when the one before was answered.
const PINS: usize = 40;

/// Files that are fetched one after the other; each report of one as stored
/// is looked at.
const FILES: usize = 3;

/// Pins that are asked for at one moment.
const AT_ONCE: usize = 200;

/// Connections that post without a pause while the disk fails.
const CONNECTIONS: u64 = 6;

/// Requests that are acknowledged between two kinds of failure, and that are
/// refused in each.
const BETWEEN: u64 = 30;

/// Pins, replacements and fetches, one at a time, before a witness.
async fn witnessed(place: &Place) -> Result<Vec<Event>> {
    let witness = Witness::of(place, place.folder("pinfold")?).await?;
    let mut pinfold = Pinfold::up_before(place, "pinfold-up", &witness, &[]).await?;
    let origin = Kubo::start(place, "origin").await?;
    let api = pinfold.api()?;
    pins(&api).await?;
    for seed in 0..FILES as u64 {
        let root = origin.add(&data::bytes(seed, 3_000_000), &[]).await?;
        let pin = api.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        held_whole(&pinfold, &root, &origin.dag(&root).await?).await?;
    }
    pinfold.stop().await?;
    witness.events()
}

async fn pins(api: &Api) -> Result<()> {
    let mut last = api.add_cid("bafkqaaa").await?;
    for turn in 1..PINS {
        last = match turn % 2 {
            0 => api.add_cid("bafkqaaa").await?,
            _ => api.replace(&last.requestid, json!({ "cid": "bafkqaaa", "name": turn.to_string() })).await?,
        };
    }
    Ok(())
}

/// The same without the syncs whose file's name ends so: as if the product
/// had left them out.
fn without(events: &[Event], end: &str) -> Vec<Event> {
    let is_left =
        |event: &&Event| !matches!(event.kind, Kind::Syncs | Kind::Synced) || !event.name.ends_with(end);
    events.iter().filter(is_left).cloned().collect()
}

/// The folder of the first segment.
fn folder_of_segments(events: &[Event]) -> Result<String> {
    let segment = events.iter().find(|event| event.name.ends_with(".seg"));
    let folder = segment.and_then(|event| event.name.rsplit_once('/')).map(|(folder, _)| folder.to_owned());
    folder.ok_or_else(|| anyhow::anyhow!("no segment was written"))
}

#[test]
fn with_a_witness_nothing_is_acknowledged_before_it_is_synced() {
    test_within(LIMIT, async |place| {
        let events = witnessed(place).await?;
        let answers = acknowledged(&events)?;
        ensure!(answers >= PINS + FILES, "only {answers} answers were seen");
        let reports = stored(&events)?;
        ensure!(reports >= FILES, "only {reports} reports were seen");
        println!("{answers} answers, {reports} reports, {} files took another name", renamed(&events)?);
        // The checks themselves: without any one of the syncs they have to fail.
        ensure!(acknowledged(&without(&events, "pinfold.db-wal")).is_err(), "the log's sync is not missed");
        ensure!(acknowledged(&without(&events, ".")).is_err(), "the data folder's sync is not missed");
        ensure!(stored(&without(&events, ".seg")).is_err(), "a segment's sync is not missed");
        let folder = folder_of_segments(&events)?;
        ensure!(stored(&without(&events, &folder)).is_err(), "the sync of {folder} is not missed");
        Ok(())
    });
}

#[test]
fn with_a_witness_one_sync_serves_many_requests() {
    test_within(LIMIT, async |place| {
        let witness = Witness::of(place, place.folder("pinfold")?).await?;
        let pinfold = Pinfold::up_before(place, "pinfold-up", &witness, &[]).await?;
        let api = pinfold.api()?;
        let syncs = || -> Result<usize> {
            let of_log =
                |event: &&Event| event.kind == Kind::Synced && event.name.ends_with("pinfold.db-wal");
            Ok(witness.events()?.iter().filter(of_log).count())
        };
        let before = syncs()?;
        try_join_all((0..AT_ONCE).map(|_| api.add_cid("bafkqaaa"))).await?;
        let needed = syncs()? - before;
        ensure!((1..=AT_ONCE / 2).contains(&needed), "{AT_ONCE} pins took {needed} syncs");
        Ok(())
    });
}

/// Every way in which the database's files fail here. Of a sync that fails
/// now and then, and of a write that does, the next one goes well.
fn faults() -> Vec<Fault> {
    let mut faults = Vec::new();
    for (operation, error) in [
        (Operation::Sync, EIO),
        (Operation::Write, EIO),
        (Operation::Write, ENOSPC),
        (Operation::Sync, ENOSPC),
    ] {
        for every in [1, 3] {
            faults.push(Fault { operation, error, every, file: "pinfold.db-wal" });
        }
    }
    faults
}

/// Lets the disk fail in every way, one after the other, and be well between.
async fn fail(witness: &Witness, load: &Load) -> Result<()> {
    for fault in faults() {
        load.move_on(BETWEEN, "pins on a good disk").await?;
        witness.fail(Some(fault))?;
        load.refused(BETWEEN, &format!("requests refused with {fault:?}")).await?;
        witness.fail(None)?;
        load.move_on(BETWEEN, &format!("pins after {fault:?}")).await?;
    }
    Ok(())
}

/// All that was acknowledged is there after a kill while the disk fails, and
/// all is counted right.
#[test]
fn with_a_witness_a_database_on_a_bad_disk_loses_nothing_acknowledged() {
    test_within(LIMIT, async |place| {
        let witness = Witness::of(place, place.folder("pinfold")?).await?;
        let mut pinfold = Pinfold::up_before(place, "pinfold-up", &witness, &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(1, 3_000_000), &[]).await?;
        let truths = Truths::from([(root.clone(), Truth::of(&origin, &root).await?)]);
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        let book = under_load(&pinfold, CONNECTIONS, async |load| {
            fail(&witness, load).await?;
            // It dies while its disk is bad.
            witness.fail(Some(faults()[1]))?;
            load.refused(BETWEEN, "requests refused at the end").await
        })
        .await?;
        let seen = witness.events()?.iter().filter(|event| event.kind == Kind::Fault).count();
        ensure!(seen > 0, "no call failed");
        pinfold.kill().await?;
        witness.fail(None)?;
        pinfold.start().await?;
        compare(&api, &book).await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        held_exactly(&pinfold, &root, &truths[&root]).await?;
        pinfold.stop().await?;
        recount(pinfold.data(), &sizes(&truths))
    });
}
