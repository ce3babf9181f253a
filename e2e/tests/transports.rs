//! How a real Kubo and Pinfold reach each other: over each transport, by
//! names, and over the one connection that an origin opens when it cannot be
//! dialled.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::Api,
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    process::free_port,
    scenario::{FETCH, held_whole, remote_add},
    test,
};
use serde_json::{Value, json};

/// Longer than a connection that nobody uses is kept open (10 s): what is
/// silent for so long is still there only when something keeps it.
const SILENCE: Duration = Duration::from_secs(13);

/// A CID that holds its own data, whose pin names the delegates.
const INLINE: &str = "bafkqaaa";

async fn delegates(pinfold: &Pinfold) -> Result<Vec<String>> {
    Ok(pinfold.api()?.add_cid(INLINE).await?.delegates)
}

/// A Kubo that tells everyone addresses where nobody listens, as one behind a
/// router does.
async fn undiallable(place: &Place, name: &str) -> Result<Kubo> {
    let dead = format!("/ip4/127.0.0.1/tcp/{}", free_port()?);
    let announced = dead.clone();
    let kubo = Kubo::start_with(place, name, &[], |config| {
        config["Addresses"]["Announce"] = json!([announced]);
    })
    .await?;
    let told = kubo.addresses().await?;
    ensure!(told == [format!("{dead}/p2p/{}", kubo.id)], "{name} tells its addresses: {told:?}");
    Ok(kubo)
}

#[test]
fn an_origin_that_cannot_be_dialled_is_fetched_from_over_its_own_connection() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let kubo = undiallable(place, "kubo").await?;
        kubo.use_service(&pinfold).await?;
        let root = kubo.add(&data::bytes(1, 3_000_000), &[]).await?;
        assert_eq!(remote_add(&kubo, &root, &[]).await?.status, "pinned");
        held_whole(&pinfold, &root, &kubo.dag(&root).await?).await
    });
}

/// Posts a pin whose origin is a Kubo, which is not told of it.
async fn post(api: &Api, kubo: &Kubo, root: &str) -> Result<String> {
    Ok(api.add(json!({ "cid": root, "origins": kubo.addresses().await? })).await?.requestid)
}

#[test]
fn the_connection_of_an_origin_that_cannot_be_dialled_outlives_a_silence() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let (api, delegates) = (pinfold.api()?, delegates(&pinfold).await?);
        let (named, new) = (undiallable(place, "named").await?, undiallable(place, "new").await?);
        let (first, second) = (data::bytes(2, 700_000), data::bytes(3, 700_000));
        // One is named by a pin whose content it does not have yet; nobody
        // has heard of the other.
        let root = named.add(&first, &["--only-hash"]).await?;
        let early = post(&api, &named, &root).await?;
        for kubo in [&named, &new] {
            kubo.connect(&delegates[0]).await?;
        }
        tokio::time::sleep(SILENCE).await;
        let late = post(&api, &new, &new.add(&second, &[]).await?).await?;
        named.add(&first, &[]).await?;
        for pin in [&late, &early] {
            api.until(pin, "pinned", FETCH).await?;
        }
        Ok(())
    });
}

/// A Kubo with one transport alone.
async fn over(place: &Place, transport: &str, listen: &str) -> Result<Kubo> {
    let only = transport.to_owned();
    let listen = listen.to_owned();
    let others = ["QUIC", "TCP", "Websocket", "WebTransport", "WebRTCDirect"];
    Kubo::start_with(place, transport, &[], |config| {
        config["Addresses"]["Swarm"] = json!([listen]);
        for other in others {
            config["Swarm"]["Transports"]["Network"][other] = Value::from(other == only);
        }
    })
    .await
}

#[test]
fn content_comes_over_quic_and_goes_over_websocket_and_the_other_way_round() {
    test(async |place| {
        let quic = format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port()?);
        let ws = format!("/ip4/127.0.0.1/tcp/{}/ws", free_port()?);
        let pinfold = Pinfold::up(place, "pinfold", &["--swarm", &quic, "--swarm", &ws]).await?;
        let by_quic = over(place, "QUIC", "/ip4/127.0.0.1/udp/0/quic-v1").await?;
        let by_ws = over(place, "Websocket", "/ip4/127.0.0.1/tcp/0/ws").await?;
        let delegates = delegates(&pinfold).await?;
        let (_, id) = delegates[0].rsplit_once('/').context("a delegate has a peer id")?;
        let mut roots = Vec::new();
        for (kubo, seed) in [(&by_quic, 4), (&by_ws, 5)] {
            kubo.use_service(&pinfold).await?;
            let root = kubo.add(&data::bytes(seed, 1_500_000), &[]).await?;
            // Posted by the test, so that Pinfold itself must dial.
            let pin = post(&pinfold.api()?, kubo, &root).await?;
            pinfold.api()?.until(&pin, "pinned", FETCH).await?;
            roots.push((root.clone(), kubo.dag(&root).await?));
        }
        by_ws.connect(&format!("{ws}/p2p/{id}")).await?;
        by_quic.connect(&format!("{quic}/p2p/{id}")).await?;
        for (kubo, (root, dag)) in [&by_ws, &by_quic].into_iter().zip(&roots) {
            kubo.ipfs(&["pin", "add", "--progress=false", root]).await?;
            assert_eq!(kubo.dag(root).await?, *dag);
        }
        Ok(())
    });
}

#[test]
fn an_origin_is_dialled_by_its_name() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let kubo = Kubo::start(place, "kubo").await?;
        let root = kubo.add(&data::bytes(6, 700_000), &[]).await?;
        let address = kubo.addresses().await?.remove(0);
        let origin = address.replace("/ip4/127.0.0.1/", "/dns4/localhost/");
        ensure!(origin != address, "Kubo is at {address}");
        let pin = pinfold.api()?.add(json!({ "cid": root, "origins": [origin] })).await?;
        pinfold.api()?.until(&pin.requestid, "pinned", FETCH).await?;
        held_whole(&pinfold, &root, &kubo.dag(&root).await?).await
    });
}
