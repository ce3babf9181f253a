//! `ipfs pin remote ls` and `rm` of an unmodified Kubo, and what it says of
//! pins that fail.

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::EVERY_STATUS,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    scenario::{count, remote_add, remote_ls},
    test,
};

/// Every status that `ls` can be asked for.
const ALL: &str = "--status=queued,pinning,pinned,failed";

/// A raw block's CID that nobody has.
const NOWHERE: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

/// `ipfs pin remote rm`, before what it is to remove.
const RM: [&str; 4] = ["pin", "remote", "rm", "--service=pinfold"];

async fn both(place: &Place, further: &[&str]) -> Result<(Pinfold, Kubo)> {
    let pinfold = Pinfold::up(place, "pinfold", further).await?;
    let kubo = Kubo::start(place, "kubo").await?;
    kubo.use_service(&pinfold).await?;
    Ok((pinfold, kubo))
}

/// A root that Kubo has, says to be DAG-CBOR, and is not: its pin fails as
/// soon as it is fetched.
async fn broken(kubo: &Kubo, text: &str) -> Result<String> {
    kubo.ipfs_with(&["block", "put", "--cid-codec=dag-cbor"], text.as_bytes()).await
}

/// A waiting `ipfs pin remote add` that must fail: what Kubo said.
async fn remote_add_fails(kubo: &Kubo, root: &str) -> Result<String> {
    let ended = kubo.try_ipfs(&["pin", "remote", "add", "--service=pinfold", root]).await?;
    ensure!(!ended.status.success(), "{root} was pinned");
    Ok(ended.stderr)
}

/// The CIDs that `ls` shows, in its order.
async fn cids(kubo: &Kubo, filter: &[&str]) -> Result<Vec<String>> {
    Ok(remote_ls(kubo, filter).await?.into_iter().map(|line| line.cid).collect())
}

async fn stat(kubo: &Kubo) -> Result<String> {
    let listed = kubo.ipfs(&["pin", "remote", "service", "ls", "--stat"]).await?;
    Ok(listed.rsplit(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn ls_filters_by_status_name_and_cid() {
    test(async |place| {
        let (_pinfold, kubo) = both(place, &[]).await?;
        let (one, two) = (kubo.add(b"one", &[]).await?, kubo.add(b"two", &[]).await?);
        remote_add(&kubo, &one, &["--name=100%_a/b"]).await?;
        remote_add(&kubo, &two, &["--name=ünï code"]).await?;
        remote_add(&kubo, NOWHERE, &["--background", "--name=100%_a/b"]).await?;
        let newest_first = [two.clone(), one.clone()];
        assert_eq!(cids(&kubo, &[]).await?, newest_first, "ls shows what is pinned, newest first");
        assert_eq!(cids(&kubo, &[ALL]).await?, [NOWHERE, &two, &one]);
        assert_eq!(cids(&kubo, &[ALL, "--name=100%_a/b"]).await?, [NOWHERE, &one]);
        assert_eq!(cids(&kubo, &["--name=ünï code"]).await?, [two.as_str()]);
        assert_eq!(cids(&kubo, &[ALL, &format!("--cid={NOWHERE}")]).await?, [NOWHERE]);
        assert_eq!(cids(&kubo, &[&format!("--cid={NOWHERE},{one}")]).await?, [one.as_str()]);
        Ok(())
    });
}

#[test]
fn a_waiting_add_of_content_that_is_broken_ends_and_its_reason_is_told() {
    test(async |place| {
        let (pinfold, kubo) = both(place, &[]).await?;
        let root = broken(&kubo, "this is no DAG-CBOR").await?;
        let said = remote_add_fails(&kubo, &root).await?;
        let pins = pinfold.api()?.list("status=failed").await?.results;
        let [pin] = &pins[..] else { anyhow::bail!("failed pins are {pins:?}") };
        assert!(said.contains("failed to pin") && said.contains(&pin.requestid), "Kubo said {said}");
        assert_eq!(pin.info["reason"], "invalid_block");
        let why = pin.info.get("status_details").context("a failed pin says why")?;
        assert!(why.contains("cannot be decoded"), "the sentence is {why}");
        assert_eq!(cids(&kubo, &["--status=failed"]).await?, [root.as_str()]);
        assert!(cids(&kubo, &[]).await?.is_empty(), "a failed pin is among those that are pinned");
        assert_eq!(stat(&kubo).await?, "0/0/0/1", "queued/pinning/pinned/failed");
        Ok(())
    });
}

#[test]
fn a_waiting_add_that_finds_nobody_ends_at_the_deadline() {
    test(async |place| {
        let (pinfold, kubo) = both(place, &["--pin-deadline", "2s"]).await?;
        let said = remote_add_fails(&kubo, NOWHERE).await?;
        let pin = pinfold.api()?.list("status=failed").await?.results.remove(0);
        assert!(said.contains(&pin.requestid), "Kubo said {said}");
        assert_eq!(pin.info["reason"], "expired");
        assert_eq!(stat(&kubo).await?, "0/0/0/1", "queued/pinning/pinned/failed");
        kubo.ipfs(&[&RM[..], &["--status=failed"]].concat()).await?;
        assert_eq!(stat(&kubo).await?, "0/0/0/0");
        Ok(())
    });
}

#[test]
fn rm_takes_one_pin_and_more_only_by_force() {
    test(async |place| {
        let (pinfold, kubo) = both(place, &[]).await?;
        let (root, other) = (kubo.add(b"content", &[]).await?, kubo.add(b"other", &[]).await?);
        for (root, name) in [(&root, "twice"), (&root, "twice"), (&root, "once"), (&other, "other")] {
            remote_add(&kubo, root, &[&format!("--name={name}")]).await?;
        }
        let rm = async |filter: &[&str]| kubo.try_ipfs(&[&RM[..], filter].concat()).await;
        let by_cid = format!("--cid={root}");
        for filter in ["--name=twice", &by_cid, "--status=pinned,failed"] {
            let refused = rm(&[filter]).await?;
            assert!(!refused.status.success(), "several pins were removed by {filter} without --force");
            assert!(refused.stderr.contains("--force"), "Kubo said {}", refused.stderr);
        }
        count(&pinfold, "status=pinned", 4).await?;
        rm(&["--name=once"]).await?.success("rm of one name")?;
        count(&pinfold, "status=pinned", 3).await?;
        rm(&[&format!("--cid={other}")]).await?.success("rm of one CID")?;
        assert_eq!(cids(&kubo, &[ALL]).await?, [root.as_str(), &root]);
        rm(&["--name=twice", "--force"]).await?.success("rm of two by name")?;
        count(&pinfold, EVERY_STATUS, 0).await
    });
}

#[test]
fn rm_takes_what_its_statuses_and_cids_name_and_nothing_else() {
    test(async |place| {
        let (pinfold, kubo) = both(place, &[]).await?;
        let (one, two) = (kubo.add(b"one", &[]).await?, kubo.add(b"two", &[]).await?);
        let broken = broken(&kubo, "nor is this").await?;
        remote_add(&kubo, &one, &[]).await?;
        remote_add(&kubo, &two, &[]).await?;
        remote_add_fails(&kubo, &broken).await?;
        remote_add(&kubo, NOWHERE, &["--background"]).await?;
        let rm = async |filter: &[&str]| kubo.ipfs(&[&RM[..], filter].concat()).await;
        // Without a status only what is pinned is looked at.
        for nothing in [&["--name=nobody", "--force"][..], &[&format!("--cid={NOWHERE}")]] {
            assert_eq!(rm(nothing).await?, "", "nothing matches");
        }
        count(&pinfold, EVERY_STATUS, 4).await?;
        rm(&["--status=failed"]).await?;
        assert_eq!(cids(&kubo, &[ALL]).await?, [NOWHERE, &two, &one]);
        rm(&["--status=queued,pinning", &format!("--cid={NOWHERE}")]).await?;
        assert_eq!(cids(&kubo, &[ALL]).await?, [two.as_str(), &one]);
        rm(&[ALL, &format!("--cid={one},{NOWHERE},{two}"), "--force"]).await?;
        count(&pinfold, EVERY_STATUS, 0).await
    });
}
