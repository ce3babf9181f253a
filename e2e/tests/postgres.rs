//! The heart of the clients' tests on PostgreSQL. Every test here has
//! `postgres` in its name: it is left out where there is none.

use std::time::Duration;

use anyhow::Result;
use pinfold_e2e::{
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    postgres::Postgres,
    scenario::{FETCH, count, held_whole, remote_add, remote_ls, survives_its_origin},
    test, test_within,
    wait::eventually,
};
use serde_json::json;

async fn up(place: &Place) -> Result<(Postgres, Pinfold)> {
    let server = Postgres::start(place, "database").await?;
    let pinfold = Pinfold::up(place, "pinfold", &["--database", &server.url()]).await?;
    Ok((server, pinfold))
}

#[test]
fn on_postgres_a_kubo_pins_lists_and_removes() {
    test(async |place| {
        let (_server, mut pinfold) = up(place).await?;
        let mut kubo = Kubo::start(place, "kubo").await?;
        kubo.use_service(&pinfold).await?;
        let folder = place.folder("tree")?;
        data::folder(&folder, 1, 40, 20_000)?;
        let file = kubo.add(&data::bytes(2, 3_000_000), &[]).await?;
        let tree = kubo.add_folder(&folder, &[]).await?;
        for (root, name) in [(&file, "--name=a file"), (&tree, "--name=a tree")] {
            assert_eq!(remote_add(&kubo, root, &[name]).await?.status, "pinned");
        }
        let names: Vec<_> = remote_ls(&kubo, &[]).await?.into_iter().map(|line| line.name).collect();
        assert_eq!(names, ["a tree", "a file"]);
        kubo.ipfs(&["pin", "remote", "rm", "--service=pinfold", "--name=a file"]).await?;
        count(&pinfold, "status=pinned", 1).await?;
        pinfold.kill().await?;
        pinfold.start().await?;
        survives_its_origin(place, &pinfold, &mut kubo, &[tree]).await?;
        Ok(())
    });
}

#[test]
fn on_postgres_two_services_are_one() {
    test(async |place| {
        let server = Postgres::start(place, "database").await?;
        let mut pinfold = Pinfold::split(place, "service", &["--database", &server.url()]).await?;
        let (_second, other) = pinfold.second_service(place, "second").await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(3, 1_000_000), &[]).await?;
        let pin = other.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        pinfold.api()?.until(&pin.requestid, "pinned", FETCH).await?;
        // The first dies; what it answered is the other's to answer.
        pinfold.parts[0].kill().await?;
        assert_eq!(other.get(&pin.requestid).await?.status, "pinned");
        other.delete(&pin.requestid).await?;
        pinfold.parts[0].start().await?;
        let gone = pinfold.api()?.get(&pin.requestid).await;
        assert!(gone.is_err(), "a removed pin is found at the first service");
        Ok(())
    });
}

#[test]
fn on_postgres_a_restarted_server_loses_nothing() {
    test_within(Duration::from_secs(240), async |place| {
        let (mut server, pinfold) = up(place).await?;
        let origin = Kubo::start(place, "origin").await?;
        let origins = origin.addresses().await?;
        let api = pinfold.api()?;
        let mut pins = Vec::new();
        for turn in 0..3 {
            let root = origin.add(&data::bytes(10 + turn, 6_000_000), &[]).await?;
            pins.push((api.add(json!({ "cid": root, "origins": origins })).await?, root));
            server.kill().await?;
            server.resume().await?;
            eventually("the service to find its database again", FETCH, async || {
                Ok(Some(api.list("limit=1").await?))
            })
            .await?;
        }
        for (pin, root) in pins {
            api.until(&pin.requestid, "pinned", FETCH).await?;
            held_whole(&pinfold, &root, &origin.dag(&root).await?).await?;
        }
        Ok(())
    });
}
