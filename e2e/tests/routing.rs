//! Content that no origin is named for: found by other means. And the other
//! way round: Pinfold found as a provider.

use std::time::Duration;

use anyhow::{Result, ensure};
use pinfold_e2e::{
    api::client as http,
    data,
    kubo::Kubo,
    net::{Hosts, SERVERS, dht},
    pinfold::{Network, Pinfold},
    place::Place,
    scenario::{FETCH, held_whole, remote_add, remote_ls, served},
    test, test_within,
    wait::eventually,
};
use serde_json::json;

/// The host of Pinfold.
const PINFOLD: u8 = 5;

#[test]
fn a_trustless_gateway_is_asked_when_no_peer_has_a_block() {
    test(async |place| {
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(1, 900_000), &[]).await?;
        let pinfold = Pinfold::up(place, "pinfold", &["--http-gateway", &origin.gateway]).await?;
        let api = pinfold.api()?;
        let pin = api.add_cid(&root).await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        held_whole(&pinfold, &root, &origin.dag(&root).await?).await
    });
}

#[test]
fn a_kubo_finds_pinfold_by_its_delegated_routing() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let mut origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let root = origin.add(&data::bytes(2, 900_000), &[]).await?;
        remote_add(&origin, &root, &[]).await?;
        let dag = origin.dag(&root).await?;
        origin.stop().await?;
        let router = pinfold.endpoint.clone();
        let reader = Kubo::start_with(place, "reader", &[], |config| {
            config["Routing"] = json!({ "Type": "autoclient", "DelegatedRouters": [router] });
        })
        .await?;
        reader.ipfs(&["pin", "add", "--progress=false", &root]).await?;
        assert_eq!(reader.dag(&root).await?, dag);
        Ok(())
    });
}

#[test]
fn a_pinfold_finds_another_by_its_delegated_routing() {
    test(async |place| {
        let mut origin = Kubo::start(place, "origin").await?;
        let content = data::bytes(4, 900_000);
        let root = origin.add(&content, &[]).await?;
        let holder = Pinfold::up(place, "holder", &["--gateway-url", "http://127.0.0.1:1/"]).await?;
        let held = holder.api()?.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        holder.api()?.until(&held.requestid, "pinned", FETCH).await?;
        let dag = origin.dag(&root).await?;
        origin.stop().await?;
        let told = format!("{}/routing/v1/providers/{root}", holder.endpoint);
        let told = http()?.get(told).send().await?.text().await?;
        ensure!(told.contains("\"/ip4/127.0.0.1/tcp/1/http\""), "its gateway is not named: {told}");
        let finder = Pinfold::up(place, "finder", &["--router", &holder.endpoint]).await?;
        // No origin is named: the router alone knows who has it.
        let pin = finder.api()?.add_cid(&root).await?;
        finder.api()?.until(&pin.requestid, "pinned", FETCH).await?;
        held_whole(&finder, &root, &dag).await?;
        assert!(served(&finder.gateway, &root).await? == content, "the file came back with other bytes");
        Ok(())
    });
}

async fn pinfold(place: &Place, hosts: &Hosts, bootstrap: &str, further: &[&str]) -> Result<Pinfold> {
    let swarm = format!("/ip4/{}/tcp/4001", Hosts::address(PINFOLD));
    let network = Network {
        namespace: Some(hosts.name(PINFOLD)),
        swarm: Some(&swarm),
        bootstrap: Some(bootstrap),
        ..Network::default()
    };
    // Loopback and private addresses stay refused, as on the open network.
    let further = [&["--allow-private-addresses", "off"], further].concat();
    Pinfold::up_in(place, "pinfold", network, &further).await
}

/// A client on Pinfold's own host, which has nothing and finds nothing itself.
async fn client(place: &Place, hosts: &Hosts, pinfold: &Pinfold) -> Result<Kubo> {
    let client = Kubo::start_in(place, "client", Some(hosts.name(PINFOLD)), &[], |_| {}).await?;
    client.use_service(pinfold).await?;
    Ok(client)
}

#[test]
fn in_namespaces_content_is_found_through_the_dht_and_provided_there() {
    test_within(Duration::from_secs(300), async |place| {
        let hosts = Hosts::new(PINFOLD)?;
        let (servers, bootstrap) = dht(place, &hosts).await?;
        let origin = &servers[usize::from(SERVERS) - 1];
        let root = origin.add(&data::bytes(3, 700_000), &[]).await?;
        eventually("the origin to provide its content", FETCH, async || {
            origin.ipfs(&["routing", "provide", &root]).await.map(Some)
        })
        .await?;
        let announce = format!("/ip4/{}/tcp/4001", Hosts::address(PINFOLD));
        let pinfold = pinfold(place, &hosts, &bootstrap, &["--announce", &announce]).await?;
        let client = client(place, &hosts, &pinfold).await?;
        remote_add(&client, &root, &["--background"]).await?;
        eventually("the pin of content found through the DHT", FETCH * 2, async || {
            Ok((remote_ls(&client, &[]).await?.len() == 1).then_some(()))
        })
        .await?;
        let delegate = delegate(&client).await?;
        eventually("a provider record of Pinfold", FETCH * 2, async || {
            let found = servers[1].ipfs(&["routing", "findprovs", &root]).await?;
            Ok(found.lines().any(|peer| delegate.ends_with(peer)).then_some(()))
        })
        .await
    });
}

/// Pinfold's first delegate, asked for on its own host.
async fn delegate(client: &Kubo) -> Result<String> {
    let peers = client.ipfs(&["swarm", "peers"]).await?;
    let wanted = format!("/ip4/{}/tcp/4001/p2p/", Hosts::address(PINFOLD));
    let found = peers.lines().find(|peer| peer.starts_with(&wanted)).map(str::to_owned);
    found.ok_or_else(|| anyhow::anyhow!("the client has not dialled Pinfold: {peers}"))
}
