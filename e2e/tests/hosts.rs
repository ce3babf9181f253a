//! Pinfold and Kubo on hosts of their own, where only what is meant to be
//! reached can be: an origin behind a router that translates addresses, and
//! origins that are known by their names alone. Private addresses are refused
//! here as on the open network.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    data,
    kubo::Kubo,
    nat::HIDDEN,
    net::Hosts,
    pinfold::{Network, Pinfold},
    place::Place,
    scenario::{FETCH, remote_add, remote_ls},
    test,
    wait::eventually,
};
use serde_json::json;

/// Who is on which host.
const PINFOLD: u8 = 1;
const OTHER: u8 = 2;
const READER: u8 = 3;

/// How long the one connection of an origin is silent: three times as long as
/// one that nobody needs is kept.
const SILENCE: Duration = Duration::from_secs(30);

/// A Pinfold on its host, whose API the other hosts reach.
async fn up(place: &Place, hosts: &Hosts, announce: &str) -> Result<Pinfold> {
    let address = Hosts::address(PINFOLD);
    let swarm = format!("/ip4/{address}/tcp/4001");
    let network = Network {
        namespace: Some(hosts.name(PINFOLD)),
        swarm: Some(&swarm),
        api: Some(&address),
        ..Network::default()
    };
    let further = ["--allow-private-addresses", "off", "--announce", announce];
    Pinfold::up_in(place, "pinfold", network, &further).await
}

/// A Kubo on a host, which tells others of `announced` where that is given.
async fn kubo(
    place: &Place,
    name: &str,
    namespace: &str,
    listen: &str,
    announced: Option<&str>,
) -> Result<Kubo> {
    Kubo::start_in(place, name, Some(namespace), &[], |config| {
        config["Addresses"]["Swarm"] = json!([listen]);
        config["Addresses"]["Announce"] = json!(announced.iter().collect::<Vec<_>>());
        // Peers at addresses that look public are not asked for what no
        // routing says they have; and there is no routing here.
        config["Internal"]["Bitswap"] = json!({ "BroadcastControl": { "Enable": false } });
    })
    .await
}

/// Where Pinfold is, as a Kubo sees it that is connected with it.
async fn pinfold_of(kubo: &Kubo) -> Result<String> {
    let peers = kubo.ipfs(&["swarm", "peers"]).await?;
    let host = format!("/ip4/{}/", Hosts::address(PINFOLD));
    let line = peers.lines().find(|line| line.starts_with(&host));
    let line = line.with_context(|| format!("{} is not connected with Pinfold: {peers}", kubo.name()))?;
    let (_, peer) = line.rsplit_once("/p2p/").context("a peer has an id")?;
    Ok(format!("{host}tcp/4001/p2p/{peer}"))
}

/// A Kubo that has nothing reads whole DAGs from Pinfold.
async fn read_back(place: &Place, hosts: &Hosts, from: &str, roots: &[(String, Vec<String>)]) -> Result<()> {
    let listen = format!("/ip4/{}/tcp/4001", Hosts::address(READER));
    let reader = kubo(place, "reader", hosts.name(READER), &listen, None).await?;
    reader.connect(from).await?;
    for (root, dag) in roots {
        reader.ipfs(&["pin", "add", "--progress=false", root]).await?;
        assert_eq!(reader.dag(root).await?, *dag);
    }
    Ok(())
}

/// Adds a file, and takes its last block away again; its DAG and that block.
async fn incomplete(kubo: &Kubo, file: &[u8]) -> Result<(String, Vec<String>)> {
    let root = kubo.add(file, &["--pin=false"]).await?;
    let dag = kubo.dag(&root).await?;
    let last = kubo.ipfs(&["refs", &root]).await?.lines().last().context("it has leaves")?.to_owned();
    kubo.ipfs(&["block", "rm", &last]).await?;
    Ok((root, dag))
}

#[test]
fn in_namespaces_an_origin_behind_nat_is_fetched_from_over_the_one_connection_that_it_opens() {
    test(async |place| {
        let mut hosts = Hosts::new(READER)?;
        let hidden = hosts.hide_behind(OTHER)?;
        let pinfold = up(place, &hosts, &format!("/ip4/{}/tcp/4001", Hosts::address(PINFOLD))).await?;
        let mut origin = kubo(place, "origin", &hidden, &format!("/ip4/{HIDDEN}/tcp/4001"), None).await?;
        origin.use_service(&pinfold).await?;
        let first = origin.add(&data::bytes(1, 3_000_000), &[]).await?;
        assert_eq!(remote_add(&origin, &first, &[]).await?.status, "pinned");
        // Its end comes after the silence, to a fetch that began before it.
        let file = data::bytes(2, 700_000);
        let (late, late_dag) = incomplete(&origin, &file).await?;
        remote_add(&origin, &late, &["--background"]).await?;
        tokio::time::sleep(SILENCE).await;
        origin.add(&file, &[]).await?;
        let third = origin.add(&data::bytes(3, 700_000), &[]).await?;
        assert_eq!(remote_add(&origin, &third, &[]).await?.status, "pinned");
        eventually("the end of what was begun before the silence", FETCH * 2, async || {
            Ok((remote_ls(&origin, &[]).await?.len() == 3).then_some(()))
        })
        .await?;
        assert_eq!(hosts.opened_from_behind(OTHER)?, 1, "connections with the delegate");
        let from = pinfold_of(&origin).await?;
        let dags = [
            (first.clone(), origin.dag(&first).await?),
            (late, late_dag),
            (third.clone(), origin.dag(&third).await?),
        ];
        origin.stop().await?;
        read_back(place, &hosts, &from, &dags).await
    });
}

#[test]
fn in_namespaces_origins_are_dialled_by_their_names() {
    test(async |place| {
        let hosts = Hosts::new(READER)?;
        hosts.ask_for_names(PINFOLD, READER)?;
        // Nobody is there: whoever is connected with Pinfold was dialled by it.
        let nowhere = format!("/ip4/{}/tcp/9", Hosts::address(PINFOLD));
        let pinfold = up(place, &hosts, &nowhere).await?;
        let (host, namespace) = (Hosts::address(OTHER), hosts.name(OTHER));
        let names = [("4001", "/dnsaddr/start.test"), ("4002", "/dns4/origin.test/tcp/4002")];
        let mut origins = Vec::new();
        for (port, announced) in names {
            let listen = format!("/ip4/{host}/tcp/{port}");
            let origin = kubo(place, &format!("origin{port}"), namespace, &listen, Some(announced)).await?;
            let told = origin.addresses().await?;
            ensure!(told == [format!("{announced}/p2p/{}", origin.id)], "it tells its addresses: {told:?}");
            origins.push(origin);
        }
        let peer = &origins[0].id;
        let records = [
            format!("_dnsaddr.start.test=TXT:dnsaddr=/dnsaddr/origin.test/p2p/{peer}"),
            format!("_dnsaddr.origin.test=TXT:dnsaddr=/ip4/10.9.9.9/tcp/4001/p2p/{peer}"),
            format!("_dnsaddr.origin.test=TXT:dnsaddr=/ip4/{host}/tcp/4001/p2p/{peer}"),
            "origin.test=A:127.0.0.1".to_owned(),
            format!("origin.test=A:{host}"),
        ];
        let program = env!("CARGO_BIN_EXE_nameserver");
        let _names = hosts.serve_names(place, READER, program, &records).await?;
        let (mut dags, mut from) = (Vec::new(), String::new());
        for (seed, origin) in origins.iter_mut().enumerate() {
            origin.use_service(&pinfold).await?;
            let root = origin.add(&data::bytes(seed as u64, 900_000), &[]).await?;
            assert_eq!(remote_add(origin, &root, &[]).await?.status, "pinned");
            from = pinfold_of(origin).await?;
            dags.push((root.clone(), origin.dag(&root).await?));
            origin.stop().await?;
        }
        read_back(place, &hosts, &from, &dags).await
    });
}
