//! `ipfs pin remote` of an unmodified Kubo against `pinfold up`.

use std::fs;

use anyhow::{Result, ensure};
use pinfold_e2e::{
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    scenario::{FETCH, count, remote_add, remote_ls, served, survives_its_origin},
    test,
    wait::eventually,
};
use serde_json::json;

async fn both(place: &Place) -> Result<(Pinfold, Kubo)> {
    let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
    let kubo = Kubo::start(place, "kubo").await?;
    kubo.use_service(&pinfold).await?;
    Ok((pinfold, kubo))
}

#[test]
fn a_service_is_added_shown_with_its_counts_and_removed() {
    test(async |place| {
        let (pinfold, kubo) = both(place).await?;
        let slash = format!("{}/", pinfold.endpoint);
        kubo.ipfs(&["pin", "remote", "service", "add", "slash", &slash, &pinfold.token]).await?;
        let root = kubo.add(b"one block", &[]).await?;
        remote_add(&kubo, &root, &[]).await?;
        let listed = kubo.ipfs(&["pin", "remote", "service", "ls", "--stat"]).await?;
        for line in listed.lines() {
            assert!(line.ends_with("0/0/1/0"), "queued/pinning/pinned/failed are wrong in {listed}");
        }
        kubo.ipfs(&["pin", "remote", "service", "rm", "slash"]).await?;
        assert_eq!(kubo.ipfs(&["pin", "remote", "service", "ls"]).await?.lines().count(), 1);
        Ok(())
    });
}

#[test]
fn a_wrong_token_makes_the_service_invalid() {
    test(async |place| {
        let (pinfold, kubo) = both(place).await?;
        kubo.ipfs(&["pin", "remote", "service", "add", "wrong", &pinfold.endpoint, "nonsense"]).await?;
        let listed = kubo.ipfs(&["pin", "remote", "service", "ls", "--stat"]).await?;
        let wrong = listed.lines().find(|line| line.starts_with("wrong"));
        assert!(wrong.is_some_and(|line| line.ends_with("invalid")), "{listed}");
        Ok(())
    });
}

#[test]
fn add_waits_until_a_file_is_pinned_and_it_outlives_its_origin() {
    test(async |place| {
        let (pinfold, mut kubo) = both(place).await?;
        let file = data::bytes(1, 3_000_000);
        let root = kubo.add(&file, &[]).await?;
        let line = remote_add(&kubo, &root, &["--name=a file"]).await?;
        assert_eq!((line.status.as_str(), line.name.as_str()), ("pinned", "a file"));
        survives_its_origin(place, &pinfold, &mut kubo, std::slice::from_ref(&root)).await?;
        assert!(served(&pinfold.gateway, &root).await? == file, "the gateway serves other bytes");
        Ok(())
    });
}

#[test]
fn cids_of_version_0_and_1_megabyte_chunks_are_pinned() {
    test(async |place| {
        let (pinfold, mut kubo) = both(place).await?;
        let file = data::bytes(2, 5_000_000);
        let old = kubo.ipfs_with(&["add", "-Q", "--cid-version=0", "--chunker=size-262144"], &file).await?;
        assert!(old.starts_with("Qm"));
        let wide = kubo.add(&file, &["--chunker=size-1048576"]).await?;
        let trickle = kubo.add(&file, &["--trickle", "--raw-leaves=false"]).await?;
        for root in [&old, &wide, &trickle] {
            assert_eq!(remote_add(&kubo, root, &[]).await?.cid, *root);
        }
        survives_its_origin(place, &pinfold, &mut kubo, &[old.clone(), wide.clone(), trickle]).await?;
        assert!(served(&pinfold.gateway, &wide).await? == file, "the gateway serves other bytes");
        Ok(())
    });
}

#[test]
fn a_directory_comes_back_file_by_file() {
    test(async |place| {
        let (pinfold, mut kubo) = both(place).await?;
        let folder = place.folder("tree")?;
        data::folder(&folder, 3, 60, 10_000)?;
        // Kubo never sends the empty block, so every peer must know it.
        fs::write(folder.join("empty"), "")?;
        let root = kubo.add_folder(&folder, &[]).await?;
        remote_add(&kubo, &root, &[]).await?;
        let reader = survives_its_origin(place, &pinfold, &mut kubo, std::slice::from_ref(&root)).await?;
        let copy = place.path().join("copy");
        reader.ipfs(&["get", "-o", copy.to_str().unwrap(), &root]).await?;
        data::same_folder(&folder, &copy)?;
        let file = served(&pinfold.gateway, &format!("{root}/part-1/file%205")).await?;
        assert!(file == data::bytes(3 + 5, 10_000), "the gateway serves other bytes");
        Ok(())
    });
}

#[test]
fn a_sharded_directory_comes_back_whole() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let mut kubo = Kubo::start_with(place, "kubo", &[], |config| {
            config["Import"]["UnixFSHAMTDirectorySizeThreshold"] = json!("1KiB");
        })
        .await?;
        kubo.use_service(&pinfold).await?;
        let folder = place.folder("tree")?;
        for file in 0..1_500 {
            fs::write(folder.join(format!("entry number {file}")), data::bytes(file, 40))?;
        }
        let root = kubo.add_folder(&folder, &[]).await?;
        let node = kubo.ipfs(&["dag", "get", &root]).await?;
        ensure!(node.contains("\"bytes\":\"CAU"), "the directory is not sharded: {}", &node[..200]);
        remote_add(&kubo, &root, &[]).await?;
        survives_its_origin(place, &pinfold, &mut kubo, std::slice::from_ref(&root)).await?;
        let file = served(&pinfold.gateway, &format!("{root}/entry%20number%20777")).await?;
        assert!(file == data::bytes(777, 40), "the gateway serves other bytes");
        Ok(())
    });
}

#[test]
fn dag_cbor_and_dag_json_roots_are_pinned_with_what_they_link_to() {
    test(async |place| {
        let (pinfold, mut kubo) = both(place).await?;
        let file = kubo.add(&data::bytes(4, 600_000), &[]).await?;
        let node = json!({ "list": [1, { "/": file }], "text": "é" }).to_string();
        let mut roots = Vec::new();
        for codec in ["dag-cbor", "dag-json"] {
            let store = format!("--store-codec={codec}");
            let root =
                kubo.ipfs_with(&["dag", "put", &store, "--input-codec=dag-json"], node.as_bytes()).await?;
            remote_add(&kubo, &root, &[]).await?;
            roots.push(root);
        }
        survives_its_origin(place, &pinfold, &mut kubo, &roots).await?;
        Ok(())
    });
}

#[test]
fn a_background_pin_waits_until_someone_has_the_content() {
    test(async |place| {
        let (pinfold, searcher) = both(place).await?;
        let origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let root = origin.add(&data::bytes(5, 500_000), &[]).await?;
        // The searcher has nothing of it, so it names no origin.
        let line = remote_add(&searcher, &root, &["--background", "--name=early"]).await?;
        ensure!(["queued", "pinning"].contains(&line.status.as_str()), "it is {}", line.status);
        assert_eq!(remote_add(&origin, &root, &["--name=late"]).await?.status, "pinned");
        count(&pinfold, "status=pinned", 2).await?;
        let names: Vec<_> = remote_ls(&searcher, &[]).await?.into_iter().map(|line| line.name).collect();
        assert_eq!(names, ["late", "early"], "both requests are pinned, newest first");
        Ok(())
    });
}

#[test]
fn progress_is_seen_while_a_large_dag_is_fetched() {
    test(async |place| {
        let (pinfold, kubo) = both(place).await?;
        let root = kubo.add(&data::bytes(6, 150_000_000), &[]).await?;
        let origins = kubo.addresses().await?;
        let api = pinfold.api()?;
        let pin = api.add(json!({ "cid": root, "origins": origins })).await?;
        let seen = eventually("bytes in a pin's info", FETCH, async || {
            let pin = api.get(&pin.requestid).await?;
            ensure!(pin.status != "pinned", "it was pinned before its progress was seen");
            let bytes = pin.info.get("bytes").and_then(|bytes| bytes.parse::<u64>().ok());
            Ok(bytes.filter(|bytes| *bytes > 0))
        });
        let first = seen.await?;
        api.until(&pin.requestid, "pinned", FETCH).await?;
        let last: u64 = api.get(&pin.requestid).await?.info["bytes"].parse()?;
        assert!(first < last && last > 150_000_000, "progress went from {first} to {last}");
        Ok(())
    });
}

#[test]
fn what_is_pinned_survives_a_kill_and_a_clean_stop() {
    test(async |place| {
        let (mut pinfold, mut kubo) = both(place).await?;
        let root = kubo.add(&data::bytes(7, 2_000_000), &[]).await?;
        remote_add(&kubo, &root, &[]).await?;
        pinfold.kill().await?;
        pinfold.start().await?;
        assert_eq!(remote_ls(&kubo, &[]).await?.len(), 1);
        pinfold.stop().await?;
        let printed = pinfold.start().await?.concat();
        assert!(!printed.contains(&pinfold.token), "a token is shown once");
        survives_its_origin(place, &pinfold, &mut kubo, &[root]).await?;
        Ok(())
    });
}
