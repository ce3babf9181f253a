//! How it stops: in time with work and clients that hang, at once when it is
//! asked twice, and cleanly as soon as anyone can know that it is ready.

use std::{
    fs::File,
    io::{Read, Write, pipe},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use pinfold_e2e::{
    api::client,
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    process::{ask_to_end, command, peer, status},
    scenario::{FETCH, remote_add},
    test,
    wait::eventually,
};

/// How long a clean stop takes at most, as the product promises.
const PROMISED: Duration = Duration::from_secs(10);
/// More than the buffers between a gateway and a client that does not read.
const STUCK: usize = 24 << 20;
/// What a pipe of Linux holds, where pages have 4 KiB.
const PIPE: usize = 64 << 10;
/// SIGTERM among the signals of `/proc/PID/status`.
const TERMINATE: u64 = 1 << 14;
/// Takes longer to fetch than a test waits to see it begun.
const LARGE: usize = 96 << 20;

/// A client that asked for a CAR and reads no more than its first bytes.
async fn stuck(pinfold: &Pinfold, root: &str) -> Result<reqwest::Response> {
    let url = format!("{}/ipfs/{root}?format=car", pinfold.gateway);
    let mut answer = client()?.get(url).send().await?.error_for_status()?;
    answer.chunk().await?.context("a CAR begins with its header")?;
    Ok(answer)
}

async fn held(place: &Place) -> Result<(Pinfold, Kubo, String)> {
    let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
    let origin = Kubo::start(place, "origin").await?;
    origin.use_service(&pinfold).await?;
    let root = origin.add(&data::bytes(1, STUCK), &[]).await?;
    remote_add(&origin, &root, &[]).await?;
    Ok((pinfold, origin, root))
}

#[test]
fn it_stops_in_time_with_a_fetch_a_watcher_and_a_client_that_hangs() {
    test(async |place| {
        let (mut pinfold, origin, root) = held(place).await?;
        let large = origin.add(&data::bytes(2, LARGE), &["--chunker=size-16384"]).await?;
        remote_add(&origin, &large, &["--background"]).await?;
        let api = pinfold.api()?;
        let pin = api.list(&format!("cid={large}&status=queued,pinning")).await?.results.remove(0);
        let url = format!("{}/api/v1/pins/{}/events", pinfold.endpoint, pin.requestid);
        let watch = client()?.get(url).bearer_auth(&pinfold.token).send().await?.error_for_status()?;
        let mut watch = watch.bytes_stream();
        watch.next().await.context("the watcher is told how the pin is")??;
        let _hanging = stuck(&pinfold, &root).await?;
        let seen = eventually("the fetch to have begun", FETCH, async || {
            let pin = api.get(&pin.requestid).await?;
            let begun = pin.info.get("blocks").is_some_and(|blocks| blocks != "0");
            Ok(begun.then_some(pin.status))
        });
        ensure!(seen.await? == "pinning", "the fetch was over before it could be stopped");
        pinfold.parts[0].stop_within(PROMISED).await
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    test(async |place| {
        let (mut pinfold, _origin, root) = held(place).await?;
        let _hanging = stuck(&pinfold, &root).await?;
        let ended = pinfold.parts[0].stop_twice().await?;
        ensure!(ended.code() == Some(1), "it ended with {ended}");
        Ok(())
    });
}

/// It is held where it says that it is ready: nobody reads what it prints.
#[test]
fn a_signal_is_heard_before_it_says_that_it_is_ready() {
    test(async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        pinfold.stop().await?;
        let (mut said, mut full) = pipe()?;
        full.write_all(&[0; PIPE])?;
        let mut started = command(peer("PINFOLD_BIN")?);
        started.args(&*pinfold.parts[0].arguments()).stdout(full);
        let mut running = started.stderr(File::create(place.log("held"))?).spawn()?;
        // It keeps this side of the pipe open, and with it what is read below.
        drop(started);
        let id = running.id().context("it runs")?;
        eventually("SIGTERM to be listened for", FETCH, async || {
            let caught = u64::from_str_radix(&status(id, "SigCgt")?, 16)?;
            Ok((caught & TERMINATE != 0).then_some(()))
        })
        .await?;
        ask_to_end(id).await?;
        let said = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            said.read_to_end(&mut all).map(|_| all)
        });
        let ended = tokio::time::timeout(PROMISED, running.wait()).await.context("it does not stop")??;
        ensure!(ended.success(), "it ended with {ended}");
        ensure!(String::from_utf8_lossy(&said.await??[PIPE..]).contains(" is up."), "it was never ready");
        Ok(())
    });
}
