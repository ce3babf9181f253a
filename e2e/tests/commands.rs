//! The command line against a Pinfold that runs.

use anyhow::{Context, Result};
use pinfold_e2e::{
    api::{Api, client},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::text,
    process::{command, finish, peer},
    scenario::{FETCH, held_whole, remote_add},
    test,
    wait::eventually,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A CID that holds its own data, the empty text.
const EMPTY: &str = "bafkqaaa";

/// Runs a command that prints JSON.
async fn json(pinfold: &Pinfold, arguments: &[&str]) -> Result<Value> {
    let text =
        pinfold.run(&[arguments, &["--json"]].concat()).await?.success(&arguments.join(" "))?.text()?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
}

async fn status(api: &Api) -> Result<StatusCode> {
    Ok(api.send(Method::GET, "/pins", None).await?.status)
}

#[test]
fn a_token_is_made_works_at_once_and_is_revoked_at_once() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let made = pinfold.run(&["token", "create", "--name", "second", "--scope", "pins:read"]).await?;
        let token = made.success("token create")?.text()?;
        assert_eq!(token.lines().count(), 1, "standard output is the token alone");
        let api = Api::new(&pinfold.endpoint, &token)?;
        assert_eq!(status(&api).await?, StatusCode::OK);
        let refused = api.send(Method::POST, "/pins", Some(json!({ "cid": EMPTY }))).await?;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "it may only read");
        let listed = json(&pinfold, &["token", "ls"]).await?;
        let row = listed.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "second"));
        let id = row.and_then(|row| row["id"].as_str()).context("it is not listed")?;
        assert!(!listed.to_string().contains(&token), "a list shows no token");
        pinfold.run(&["token", "revoke", id]).await?.success("token revoke")?;
        assert_eq!(status(&api).await?, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&pinfold.api()?).await?, StatusCode::OK, "the other token still works");
        Ok(())
    });
}

#[test]
fn a_start_tells_what_to_do_where_the_first_token_was_not_seen() {
    test(async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        pinfold.parts[0].kill().await?;
        let lines = pinfold.parts[0].start_until("token").await?;
        let told = lines.last().context("nothing was printed")?;
        assert!(told.contains("pinfold token create"), "{told}");
        Ok(())
    });
}

#[test]
fn accounts_see_their_own_pins_alone() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        pinfold.run(&["account", "create", "other"]).await?.success("account create")?;
        let made = pinfold.run(&["token", "create", "--name", "t", "--account", "other"]).await?;
        let other = Api::new(&pinfold.endpoint, &made.success("token create")?.text()?)?;
        let pin = other.add_cid(EMPTY).await?;
        let foreign = pinfold.api()?.send(Method::GET, &format!("/pins/{}", pin.requestid), None).await?;
        let nowhere = "01890000-0000-7000-8000-000000000000";
        let missing = pinfold.api()?.send(Method::GET, &format!("/pins/{nowhere}"), None).await?;
        assert_eq!((foreign.status, missing.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        assert_eq!(foreign.body["error"]["reason"], missing.body["error"]["reason"]);
        pinfold.run(&["account", "disable", "other"]).await?.success("account disable")?;
        assert!(!status(&other).await?.is_success(), "a disabled account's token works");
        pinfold.run(&["account", "enable", "other"]).await?.success("account enable")?;
        assert_eq!(other.list("limit=1").await?.count, 1);
        Ok(())
    });
}

#[test]
fn the_pin_command_is_a_client_of_the_endpoint() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(1, 500_000), &[]).await?;
        let pin = async |arguments: &[&str]| -> Result<String> {
            pinfold.pin(place, arguments).await?.success("pinfold pin")?.text()
        };
        let address = origin.addresses().await?.remove(0);
        pin(&["add", &root, "--name", "by command", "--origin", &address]).await?;
        let listed: Value = serde_json::from_str(&pin(&["ls", "--json"]).await?)?;
        assert_eq!(listed["pin"]["name"], "by command", "{listed}");
        let id = listed["requestid"].as_str().context("a pin has an id")?;
        pin(&["rm", id]).await?;
        assert_eq!(pinfold.api()?.list("limit=1").await?.count, 0);
        Ok(())
    });
}

#[test]
fn a_backup_made_while_it_runs_is_restored() {
    test(async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &["--reclaim-after", "1s"]).await?;
        let origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let roots = [
            origin.add(&data::bytes(2, 500_000), &[]).await?,
            origin.add(&data::bytes(6, 300_000), &[]).await?,
        ];
        remote_add(&origin, &roots[0], &["--name=kept"]).await?;
        let file = place.path().join("backup");
        let name = text(&file)?;
        pinfold.run(&["backup", name]).await?.success("backup")?;
        remote_add(&origin, &roots[1], &["--name=later"]).await?;
        pinfold.stop().await?;
        for gone in ["pinfold.db", "pinfold.db-wal", "pinfold.db-shm"] {
            let _ = std::fs::remove_file(pinfold.data().join(gone));
        }
        pinfold.run(&["restore", name]).await?.success("restore")?;
        pinfold.start().await?;
        let page = pinfold.api()?.list("limit=10").await?;
        assert_eq!((page.count, page.results[0].pin.name.as_deref()), (1, Some("kept")));
        held_whole(&pinfold, &roots[0], &origin.dag(&roots[0]).await?).await?;
        held_whole(&pinfold, &roots[1], &origin.dag(&roots[1]).await?).await?;
        // Pinned again, it has another number here than at the node, which
        // keeps it for the new one when the old is let go.
        remote_add(&origin, &roots[1], &["--name=again"]).await?;
        let confirmed = eventually("the node's inventory", FETCH, async || {
            let said = pinfold.run(&["restore", "--confirm"]).await?;
            Ok(said.status.success().then_some(said.stderr))
        });
        let confirmed = confirmed.await?;
        assert!(confirmed.contains("1 contents"), "{confirmed}");
        eventually("the node to let it go", FETCH, async || {
            let log = std::fs::read_to_string(place.log("pinfold"))?;
            Ok(json(&pinfold, &["check"]).await?["strays"].eq(&0).then_some(log))
        })
        .await?;
        // What nobody wants is reclaimed then, and what is pinned stays.
        pinfold.api()?.delete(&page.results[0].requestid).await?;
        eventually("what was unpinned to be reclaimed", FETCH, async || {
            let answer = client()?.get(format!("{}/ipfs/{}", pinfold.gateway, roots[0])).send().await?;
            Ok((answer.status() == StatusCode::NOT_FOUND).then_some(()))
        })
        .await?;
        held_whole(&pinfold, &roots[1], &origin.dag(&roots[1]).await?).await
    });
}

#[test]
fn a_backup_restores_into_a_new_folder_with_its_tokens() {
    test(async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let api = pinfold.api()?;
        api.send(Method::POST, "/pins", Some(json!({ "cid": EMPTY, "name": "kept" }))).await?;
        let file = place.path().join("backup");
        let name = text(&file)?;
        pinfold.run(&["backup", name]).await?.success("backup")?;
        pinfold.stop().await?;
        pinfold.move_to(&place.path().join("new"))?;
        pinfold.run(&["restore", name]).await?.success("restore")?;
        pinfold.start().await?;
        let page = pinfold.api()?.list("limit=10").await?;
        assert_eq!((page.count, page.results[0].pin.name.as_deref()), (1, Some("kept")));
        pinfold.stop().await?;
        // Without its secret it does not start, says so, and makes no other.
        let secret = pinfold.data().join("secret");
        let kept = std::fs::read(&secret)?;
        std::fs::remove_file(&secret)?;
        let refused = pinfold.run(&["up", "--network", "none"]).await?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            refused.stderr.contains("FILE.secret") && refused.stderr.contains(&*secret.to_string_lossy())
        );
        assert!(!secret.exists());
        pinfold.run(&["token", "rotate", "--lost-secret"]).await?.success("token rotate")?;
        assert_ne!(std::fs::read(&secret)?, kept);
        pinfold.start().await?;
        assert_eq!(status(&pinfold.api()?).await?, StatusCode::UNAUTHORIZED);
        let token =
            pinfold.run(&["token", "create", "--name", "new"]).await?.success("token create")?.text()?;
        assert_eq!(status(&Api::new(&pinfold.endpoint, &token)?).await?, StatusCode::OK);
        Ok(())
    });
}

#[test]
fn tokens_of_a_rotated_key_stay_valid() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        pinfold.run(&["token", "rotate"]).await?.success("token rotate")?;
        let token =
            pinfold.run(&["token", "create", "--name", "new"]).await?.success("token create")?.text()?;
        assert_eq!(status(&pinfold.api()?).await?, StatusCode::OK);
        let new = Api::new(&pinfold.endpoint, &token)?;
        // Keys that others made are looked for at most once a second.
        eventually("the new key to be known", FETCH, async || {
            Ok((status(&new).await? == StatusCode::OK).then_some(()))
        })
        .await?;
        let deeds = json(&pinfold, &["account", "audit"]).await?;
        assert_eq!(
            (&deeds[0]["action"], &deeds[1]["action"]),
            (&"token.create".into(), &"token.rotate".into())
        );
        Ok(())
    });
}

#[test]
fn what_the_denylist_names_is_refused_and_no_longer_served() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let root = origin.add(&data::bytes(3, 500_000), &[]).await?;
        remote_add(&origin, &root, &[]).await?;
        let api = pinfold.api()?;
        let pin = api.list("limit=1").await?.results.remove(0);
        pinfold.run(&["denylist", "add", &format!("/ipfs/{root}")]).await?.success("denylist add")?;
        let denied = eventually("the pin to be denied", FETCH, async || {
            let pin = api.get(&pin.requestid).await?;
            Ok((pin.status == "failed").then_some(pin))
        });
        assert_eq!(denied.await?.info["reason"], "denied");
        eventually("the gateway to answer 410", FETCH, async || {
            let answer = client()?.get(format!("{}/ipfs/{root}", pinfold.gateway)).send().await?;
            Ok((answer.status() == StatusCode::GONE).then_some(()))
        })
        .await?;
        let again = api.send(Method::POST, "/pins", Some(json!({ "cid": root }))).await?;
        assert_eq!(again.status, StatusCode::FORBIDDEN);
        pinfold.run(&["denylist", "rm", &format!("/ipfs/{root}")]).await?.success("denylist rm")?;
        eventually("the content to be served again", FETCH, async || {
            held_whole(&pinfold, &root, &origin.dag(&root).await?).await.map(Some)
        })
        .await
    });
}

#[test]
fn one_denied_block_denies_every_pin_of_a_dag_that_has_it() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let root = origin.add(&data::bytes(4, 2_000_000), &[]).await?;
        let other = origin.add(&data::bytes(5, 300_000), &[]).await?;
        for cid in [&root, &other] {
            remote_add(&origin, cid, &[]).await?;
        }
        let dag = origin.dag(&root).await?;
        let block = dag.iter().find(|cid| **cid != root).context("a file of several blocks")?;
        let api = pinfold.api()?;
        let pin = api.list(&format!("cid={root}")).await?.results.remove(0);
        let becomes = async |status: &str| {
            eventually(&format!("the pin to be {status}"), FETCH, async || {
                let pin = api.get(&pin.requestid).await?;
                Ok((pin.status == status).then_some(pin))
            })
            .await
        };
        pinfold.run(&["denylist", "add", &format!("/ipfs/{block}")]).await?.success("denylist add")?;
        assert_eq!(becomes("failed").await?.info["reason"], "denied");
        for path in [&root, block] {
            let answer = client()?.get(format!("{}/ipfs/{path}?format=car", pinfold.gateway)).send().await?;
            assert_eq!(answer.status(), StatusCode::GONE, "{path}");
        }
        held_whole(&pinfold, &other, &origin.dag(&other).await?).await?;
        assert_eq!(api.list("status=pinned").await?.count, 1);
        pinfold.run(&["denylist", "rm", &format!("/ipfs/{block}")]).await?.success("denylist rm")?;
        becomes("pinned").await?;
        held_whole(&pinfold, &root, &dag).await?;
        let checked = json(&pinfold, &["check"]).await?;
        assert_eq!(checked["differences"], json!([]));
        Ok(())
    });
}

#[test]
fn the_queue_shows_what_waits_and_why() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let cid = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
        pinfold.api()?.add_cid(cid).await?;
        eventually("the queue to name a reason", FETCH, async || {
            let queue = json(&pinfold, &["queue", "ls"]).await?;
            Ok((queue[0]["cid"] == cid && queue[0]["reason"].is_string()).then_some(()))
        })
        .await?;
        pinfold.run(&["queue", "retry", cid]).await?.success("queue retry")?;
        let checked = json(&pinfold, &["check"]).await?;
        assert_eq!(checked["differences"], json!([]));
        Ok(())
    });
}

/// Calls that are wrong whatever the data are, and a word of what is said.
const WRONG: &[(&[&str], &str)] = &[
    (&["up", "--no-such-flag"], "--no-such-flag"),
    (&["up", "--swarm", "nonsense"], "--swarm"),
    (&["up", "--announce", "/ip4/"], "--announce"),
    (&["up", "--router", "nonsense"], "--router"),
    (&["up", "--public-url", "nonsense"], "--public-url"),
    (&["up", "--public-url", "ftp://a.example"], "--public-url"),
    (&["up", "--trusted-proxy", "zz"], "--trusted-proxy"),
    (&["up", "--operator-node", "zz"], "--operator-node"),
    (&["up", "--otlp", "grpc://a.example"], "--otlp"),
    (&["up", "--tls-cert", "x"], "--tls-key"),
    (&["up", "--replicas", "3/2"], "MIN/TARGET"),
    (&["up", "--capacity", "lots"], "20GB"),
    (&["up", "--database", "mysql://a.example"], "postgres://"),
    (&["up", "--log-level", "pinfold=nonsense"], "--log-level"),
    (&["up", "--database", "postgres://a", "--database-file", "b"], "twice"),
    (&["token", "ls", "--database", "postgres://a:secret@b/c"], "PINFOLD_DATABASE"),
    (&["node", "run", "--service", "nonsense"], "--service"),
    (&["node", "run"], "--service"),
    (&["pin", "ls"], "--token-file"),
    (&["pin", "ls", "--endpoint", "nonsense", "--token-file", "x"], "--endpoint"),
    (&["token", "create", "--name", "a", "--scope", "admin"], "--scope"),
    (&["account", "rm", "a"], "--yes"),
    (&["restore"], "--confirm"),
];

#[test]
fn wrong_usage_and_failures_have_their_exit_statuses() {
    test(async |place| {
        let nothing = place.folder("nothing")?;
        let nothing = text(&nothing)?;
        let said = async |arguments: &[&str]| -> Result<(Option<i32>, String)> {
            let mut command = command(peer("PINFOLD_BIN")?);
            let said = finish(command.args(arguments).env("PINFOLD_DATA", nothing), "pinfold").await?;
            Ok((said.status.code(), said.stderr))
        };
        for (wrong, word) in WRONG {
            let (code, text) = said(wrong).await?;
            assert!(code == Some(2) && text.contains(word), "{wrong:?} ended with {code:?}: {text}");
        }
        let file = place.path().join("pinfold.toml");
        std::fs::write(&file, "apy = 1")?;
        let file = text(&file)?;
        assert_eq!(said(&["up", "--config", file]).await?.0, Some(2));
        assert_eq!(said(&["--help"]).await?.0, Some(0));
        assert_eq!(said(&["token", "ls"]).await?.0, Some(1));
        Ok(())
    });
}

#[test]
fn a_new_account_may_store_what_free_quota_says() {
    test(async |place| {
        let file = place.path().join("pinfold.toml");
        std::fs::write(&file, "free-quota = \"50GB\"")?;
        let file = text(&file)?;
        let pinfold = Pinfold::up(place, "pinfold", &["--migrate"]).await?;
        let said =
            pinfold.run(&["account", "create", "ann", "--config", file]).await?.success("account create")?;
        assert!(said.stderr.contains("50.0 GB"), "{}", said.stderr);
        pinfold.run(&["account", "create", "bob", "--quota", "1MB"]).await?.success("account create")?;
        let accounts = json(&pinfold, &["account", "ls"]).await?;
        let quotas: Vec<_> = accounts.as_array().context("a list")?.iter().map(|row| &row["quota"]).collect();
        assert_eq!(quotas, [&json!(20_000_000_000_u64), &json!(50_000_000_000_u64), &json!(1_000_000)]);
        Ok(())
    });
}
