//! A disk that fills, and one that forgets.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::Api,
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    process::{command, finish},
    recount::recount,
    scenario::{FETCH, held_whole, remote_add, served},
    segments, test, test_within,
    truth::{Truth, Truths, held_exactly, sizes},
    wait::eventually,
};
use serde_json::json;

/// The last segment of the block store.
fn segment(pinfold: &Pinfold) -> Result<PathBuf> {
    let found = segments::files(&segments::folder(pinfold.node_data())?)?;
    found.into_values().next_back().context("the block store has a segment")
}

/// Cuts half of the last segment off.
fn halve(pinfold: &Pinfold) -> Result<()> {
    let segment = segment(pinfold)?;
    let half = fs::metadata(&segment)?.len() / 2;
    Ok(fs::File::options().write(true).open(&segment)?.set_len(half)?)
}

/// Waits until a pin says that there is no room for it.
async fn lacks_room(api: &Api, pin: &str) -> Result<()> {
    eventually("the full disk to be told", FETCH, async || {
        let pin = api.get(pin).await?;
        ensure!(pin.status != "pinned", "more than there is room for is pinned");
        Ok((pin.info.get("reason").is_some_and(|reason| reason == "no_capacity")).then_some(()))
    })
    .await
}

async fn pinned(place: &Place) -> Result<(Pinfold, Kubo, String, Vec<u8>)> {
    let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
    let origin = Kubo::start(place, "origin").await?;
    origin.use_service(&pinfold).await?;
    let file = data::bytes(1, 4_000_000);
    let root = origin.add(&file, &[]).await?;
    remote_add(&origin, &root, &[]).await?;
    Ok((pinfold, origin, root, file))
}

/// Waits until the whole DAG is held again, never having served wrong bytes.
async fn heals(pinfold: &Pinfold, origin: &Kubo, root: &str, file: &[u8]) -> Result<()> {
    let dag = origin.dag(root).await?;
    eventually("the damage to be repaired", FETCH * 2, async || {
        if let Ok(bytes) = served(&pinfold.gateway, root).await
            && bytes != file
        {
            return Ok(Some(false));
        }
        held_whole(pinfold, root, &dag).await?;
        Ok(Some(true))
    })
    .await
    .and_then(|right| {
        ensure!(right, "wrong bytes were served");
        Ok(())
    })
}

/// Stops it and recounts its books: the root is charged what it is.
async fn counted(pinfold: &mut Pinfold, origin: &Kubo, root: &str) -> Result<()> {
    let truths = Truths::from([(root.to_owned(), Truth::of(origin, root).await?)]);
    held_exactly(pinfold, root, &truths[root]).await?;
    pinfold.stop().await?;
    recount(pinfold.data(), &sizes(&truths))
}

#[test]
fn a_flipped_byte_is_never_served_and_fetched_again() {
    test_within(Duration::from_secs(240), async |place| {
        let (mut pinfold, origin, root, file) = pinned(place).await?;
        pinfold.stop().await?;
        let segment = segment(&pinfold)?;
        let mut bytes = fs::read(&segment)?;
        let block = file.windows(64).nth(1_500_000).context("the file is that long")?;
        let at =
            bytes.windows(64).position(|window| window == block).context("the block is in the segment")?;
        bytes[at] ^= 0x40;
        fs::write(&segment, bytes)?;
        pinfold.start().await?;
        heals(&pinfold, &origin, &root, &file).await?;
        counted(&mut pinfold, &origin, &root).await
    });
}

#[test]
fn a_segment_cut_short_is_fetched_again() {
    test_within(Duration::from_secs(240), async |place| {
        let (mut pinfold, origin, root, file) = pinned(place).await?;
        pinfold.stop().await?;
        halve(&pinfold)?;
        pinfold.start().await?;
        heals(&pinfold, &origin, &root, &file).await?;
        counted(&mut pinfold, &origin, &root).await
    });
}

#[test]
fn what_misses_a_block_is_not_pinned_until_it_is_back() {
    test_within(Duration::from_secs(240), async |place| {
        let (mut pinfold, mut origin, root, file) = pinned(place).await?;
        let api = pinfold.api()?;
        let pin = api.list("limit=1").await?.results.pop().context("a pin is listed")?;
        pinfold.stop().await?;
        halve(&pinfold)?;
        origin.stop().await?;
        pinfold.start().await?;
        eventually("the loss to be told", FETCH, async || {
            Ok(["queued", "pinning"].contains(&api.get(&pin.requestid).await?.status.as_str()).then_some(()))
        })
        .await?;
        // Nothing that would make it whole again is there.
        let whole = served(&pinfold.gateway, &root).await.is_ok_and(|bytes| bytes == file);
        ensure!(!whole, "half of a segment is gone, and the file is served");
        pinfold.kill().await?;
        pinfold.start().await?;
        let status = api.get(&pin.requestid).await?.status;
        ensure!(status != "pinned", "it is pinned after a kill, with blocks missing");
        origin.resume().await?;
        // It has another port now: a second pin says so.
        api.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        api.until(&pin.requestid, "pinned", FETCH * 2).await?;
        counted(&mut pinfold, &origin, &root).await
    });
}

#[test]
fn a_capacity_that_is_reached_is_a_reason_and_not_the_end() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &["--capacity", "20MB"]).await?;
        let origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let small = origin.add(&data::bytes(1, 1_000_000), &[]).await?;
        remote_add(&origin, &small, &[]).await?;
        let large = origin.add(&data::bytes(2, 60_000_000), &[]).await?;
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": large, "origins": origin.addresses().await? })).await?;
        lacks_room(&api, &pin.requestid).await?;
        held_whole(&pinfold, &small, &origin.dag(&small).await?).await
    });
}

/// A small disk in memory, mounted for a test.
struct Disk {
    path: PathBuf,
}

impl Disk {
    async fn mount(path: PathBuf, size: &str) -> Result<Self> {
        let mut mount = command("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        finish(&mut mount, "mount").await?.success("mount")?;
        Ok(Self { path })
    }

    async fn resize(&self, size: &str) -> Result<()> {
        let mut mount = command("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.path);
        finish(&mut mount, "mount").await?.success("mount").map(|_| ())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still be ending.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[test]
fn as_root_a_full_disk_is_survived_and_made_good() {
    test_within(Duration::from_secs(240), async |place| {
        // Before Pinfold, so that it is unmounted after it.
        let disk = Disk::mount(place.folder("disk")?, "48m").await?;
        let pinfold = Pinfold::up_at(place, "pinfold", &disk.path.join("data"), &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let small = origin.add(&data::bytes(1, 1_000_000), &[]).await?;
        remote_add(&origin, &small, &[]).await?;
        let large = origin.add(&data::bytes(2, 70_000_000), &[]).await?;
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": large, "origins": origin.addresses().await? })).await?;
        lacks_room(&api, &pin.requestid).await?;
        held_whole(&pinfold, &small, &origin.dag(&small).await?).await?;
        disk.resize("300m").await?;
        pinfold.run(&["queue", "retry"]).await?.success("queue retry")?;
        api.until(&pin.requestid, "pinned", FETCH * 2).await?;
        held_whole(&pinfold, &large, &origin.dag(&large).await?).await
    });
}

#[test]
fn as_root_a_full_disk_gives_back_what_is_unpinned() {
    test_within(Duration::from_secs(60), async |place| {
        let disk = Disk::mount(place.folder("disk")?, "64m").await?;
        let soon = ["--reclaim-after", "1s"];
        let pinfold = Pinfold::up_at(place, "pinfold", &disk.path.join("data"), &soon).await?;
        let origin = Kubo::start(place, "origin").await?;
        let origins = origin.addresses().await?;
        let api = pinfold.api()?;
        let held = origin.add(&data::bytes(1, 20_000_000), &[]).await?;
        let held = api.add(json!({ "cid": held, "origins": origins })).await?;
        api.until(&held.requestid, "pinned", FETCH).await?;
        let large = origin.add(&data::bytes(2, 70_000_000), &[]).await?;
        let large = api.add(json!({ "cid": large, "origins": origins })).await?;
        lacks_room(&api, &large.requestid).await?;
        for pin in [&held, &large] {
            pinfold.pin(place, &["rm", &pin.requestid]).await?.success("pinfold pin rm")?;
        }
        let blocks = segments::folder(pinfold.node_data())?;
        eventually("the space to be given back", FETCH, async || {
            Ok((segments::size(&blocks)? < 1_000_000).then_some(()))
        })
        .await?;
        let next = origin.add(&data::bytes(3, 30_000_000), &[]).await?;
        let pin = api.add(json!({ "cid": next, "origins": origins })).await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        held_whole(&pinfold, &next, &origin.dag(&next).await?).await
    });
}
