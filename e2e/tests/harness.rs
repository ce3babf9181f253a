//! The peers themselves, without the product: when these fail, the fault is
//! not the product's.

use pinfold_e2e::{
    car, data,
    kubo::Kubo,
    net::{Hosts, SERVERS, dht},
    postgres::Postgres,
    scenario::FETCH,
    test,
    wait::eventually,
};

#[test]
fn a_kubo_fetches_from_another_that_it_is_connected_to() {
    test(async |place| {
        let (origin, other) = (Kubo::start(place, "origin").await?, Kubo::start(place, "other").await?);
        let root = origin.add(&data::bytes(1, 700_000), &[]).await?;
        other.connect(&origin.addresses().await?[0]).await?;
        other.ipfs(&["pin", "add", &root]).await?;
        assert_eq!(other.dag(&root).await?.len(), 4, "three chunks and their root");
        assert!(origin.addresses().await?.iter().all(|address| address.starts_with("/ip4/127.0.0.1/")));
        Ok(())
    });
}

#[test]
fn a_car_of_kubos_gateway_is_read() {
    test(async |place| {
        let kubo = Kubo::start(place, "kubo").await?;
        let root = kubo.add(&data::bytes(2, 700_000), &[]).await?;
        let url = format!("{}/ipfs/{root}?format=car", kubo.gateway);
        let bytes = pinfold_e2e::api::client()?.get(url).send().await?.bytes().await?;
        let cids: Vec<_> = car::read(&bytes)?.keys().map(ToString::to_string).collect();
        let mut expected = kubo.dag(&root).await?;
        expected.sort();
        assert_eq!(sorted(cids), expected);
        Ok(())
    });
}

#[test]
fn a_postgres_survives_its_death() {
    test(async |place| {
        let mut server = Postgres::start(place, "database").await?;
        server.kill().await?;
        server.resume().await?;
        server.stop().await
    });
}

#[test]
fn in_namespaces_kubos_find_content_through_their_dht() {
    test(async |place| {
        let hosts = Hosts::new(SERVERS)?;
        let (servers, _) = dht(place, &hosts).await?;
        let (first, last) = (&servers[0], &servers[servers.len() - 1]);
        let root = last.add(&data::bytes(3, 300_000), &[]).await?;
        eventually("the last server to provide", FETCH, async || {
            last.ipfs(&["routing", "provide", &root]).await.map(Some)
        })
        .await?;
        eventually("a provider record", FETCH, async || {
            let found = first.ipfs(&["routing", "findprovs", &root]).await?;
            Ok(found.lines().any(|peer| peer == last.id).then_some(()))
        })
        .await
    });
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
