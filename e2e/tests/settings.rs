//! Settings through the binary: what each switches, and which one counts where
//! several are given.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::{self, Api},
    data,
    http::Connection,
    pinfold::Pinfold,
    place::{Place, text},
    process::{Finished, command, finish, free_port, peer},
    scenario::FETCH,
    test,
    wait::eventually,
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::net::UnixDatagram;

/// Nobody has it.
const NOWHERE: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
/// More requests than any limit of these tests lets pass.
const MANY: usize = 20_000;
/// Connections that ask at once, so that they outrun what a limit gives back.
const CONNECTIONS: usize = 8;

/// Asks until one is refused for coming too fast; answers its pause.
async fn until_limited(endpoint: &str, token: &str) -> Result<u64> {
    let asking = (0..CONNECTIONS).map(|_| async {
        let mut connection = Connection::open(endpoint, token).await?;
        for _ in 0..MANY / CONNECTIONS {
            let answer = connection.send("POST", "/pins", Some("{}")).await?;
            if answer.status == 429 {
                return answer.retry_after.context("a 429 without Retry-After");
            }
            ensure!(answer.status == 400, "answered {}", answer.status);
        }
        anyhow::bail!("{MANY} requests passed");
    });
    let (pause, _) = futures::future::select_ok(asking.map(Box::pin)).await?;
    Ok(pause)
}

/// A client whose requests come from this address of the machine, and one that
/// a proxy would name.
async fn status(client: &Client, endpoint: &str, forwarded: &str) -> Result<StatusCode> {
    let request = client.get(format!("{endpoint}/pins")).header("X-Forwarded-For", forwarded);
    Ok(request.send().await?.status())
}

fn from(address: &str) -> Result<Client> {
    let address: IpAddr = address.parse()?;
    Ok(api::builder().local_address(address).build()?)
}

/// Whether requests without a token end in 429 instead of 401, as a limit by
/// address makes them.
async fn is_limited(client: &Client, endpoint: &str, named: impl Fn(usize) -> String) -> Result<bool> {
    for number in 0..MANY {
        match status(client, endpoint, &named(number)).await? {
            StatusCode::UNAUTHORIZED => {}
            StatusCode::TOO_MANY_REQUESTS => return Ok(true),
            other => anyhow::bail!("answered {other}"),
        }
    }
    Ok(false)
}

/// What was logged, as JSON. What is on standard output, which goes to the same
/// file, begins with a word or a space.
fn logged(place: &Place) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(place.log("pinfold"))?;
    let own =
        |line: &&str| !line.is_empty() && !line.starts_with("Pinfold is up.") && !line.starts_with("  ");
    text.lines().filter(own).map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

#[test]
fn a_public_endpoint_limits_requests_and_dials_nothing_private() {
    test(async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &["--log-level", "off"]).await?;
        pinfold.stop().await?;
        pinfold.parts[0].add_arguments(&["--public-url", "https://pins.example.org/"]);
        let told = pinfold.start().await?;
        ensure!(told.iter().any(|line| line.ends_with("https://pins.example.org")), "{told:?}");
        let origin = format!(
            "/ip4/127.0.0.1/tcp/{}/p2p/12D3KooWF2eUkwTe1QHSW2eRRXTzmr5JWbsZhPZwCdYhxY822pHf",
            free_port()?
        );
        let pin = pinfold.api()?.add(json!({ "cid": NOWHERE, "origins": [origin] })).await?;
        let api = pinfold.api()?;
        let details = eventually("the origin to be given up", FETCH, async || {
            let pin = api.get(&pin.requestid).await?;
            let reason = pin.info.get("reason").is_some_and(|reason| reason == "origin_unreachable");
            Ok(pin.info.get("status_details").filter(|_| reason).cloned())
        });
        let details = details.await?;
        ensure!(details.contains("private addresses") && details.contains("delegates"), "{details}");
        ensure!(until_limited(&pinfold.endpoint, &pinfold.token).await? > 0);
        Ok(())
    });
}

#[test]
fn proxies_are_believed_logs_and_metrics_are_written_and_the_manager_is_told() {
    test(async |place| {
        let manager = UnixDatagram::bind(place.path().join("notify"))?;
        let metrics = format!("127.0.0.1:{}", free_port()?);
        let mut pinfold = Pinfold::up(place, "pinfold", &["--log-level", "off"]).await?;
        pinfold.stop().await?;
        let figures = ["--rate-limits", "address=20/40", "--trusted-proxy", "127.0.0.2"];
        pinfold.parts[0].add_arguments(&figures);
        pinfold.parts[0].add_arguments(&["--metrics", &metrics, "--max-queued", "3"]);
        let level = pinfold.parts[0].arguments().iter().position(|argument| argument == "--log-level");
        let level = level.context("it was given")?;
        pinfold.parts[0].arguments().splice(level..level + 2, ["--log-format".into(), "json".into()]);
        let socket = place.path().join("notify");
        pinfold.parts[0].set_variable("NOTIFY_SOCKET", text(&socket)?);
        std::fs::write(place.log("pinfold"), "")?;
        pinfold.start().await?;
        ensure!(next(&manager).await?.contains("READY=1"));
        queue_is_bounded(&pinfold.api()?).await?;
        let (proxy, direct) = (from("127.0.0.2")?, from("127.0.0.3")?);
        let endpoint = &pinfold.endpoint;
        ensure!(is_limited(&proxy, endpoint, |_| "203.0.113.1".into()).await?, "one client is limited");
        let other = status(&proxy, endpoint, "203.0.113.2").await?;
        ensure!(other == StatusCode::UNAUTHORIZED, "another client behind the proxy is answered {other}");
        let invents = |number: usize| format!("198.51.100.{}", number % 200);
        ensure!(is_limited(&direct, endpoint, invents).await?, "who is no proxy is believed");
        let text = api::client()?.get(format!("http://{metrics}/metrics")).send().await?.text().await?;
        for name in ["pinfold_http_requests_total", "pinfold_http_rate_limited_total"] {
            ensure!(text.contains(name), "{name} is missing: {text}");
        }
        pinfold.stop().await?;
        ensure!(next(&manager).await?.contains("STOPPING=1"));
        let lines = logged(place)?;
        let refused = |line: &&Value| line["status"] == 429 && line["client"] == "203.0.113.1";
        let line = lines.iter().find(refused).context("no line of the request that was refused")?;
        ensure!(
            line["route"] == "/pins" && line["method"] == "GET" && line["request_id"].is_string(),
            "{line}"
        );
        let all = Value::from(lines).to_string();
        ensure!(!all.contains(&pinfold.token), "the log has a token");
        without_access_log(place, &mut pinfold).await
    });
}

/// The same with `--access-log off`: no request is in the log.
async fn without_access_log(place: &Place, pinfold: &mut Pinfold) -> Result<()> {
    std::fs::write(place.log("pinfold"), "")?;
    pinfold.parts[0].add_arguments(&["--access-log", "off"]);
    pinfold.start().await?;
    pinfold.api()?.list("limit=1").await?;
    pinfold.stop().await?;
    let text = std::fs::read_to_string(place.log("pinfold"))?;
    ensure!(text.contains("stopping") && !text.contains("\"/pins\""), "{text}");
    Ok(())
}

/// The next thing that the service manager is told.
async fn next(manager: &UnixDatagram) -> Result<String> {
    let mut told = [0; 1_024];
    let length = tokio::time::timeout(FETCH, manager.recv(&mut told)).await.context("nothing is told")??;
    Ok(String::from_utf8_lossy(&told[..length]).into_owned())
}

/// With `--max-queued 3`: the fourth pin that waits is refused.
async fn queue_is_bounded(api: &Api) -> Result<()> {
    for number in 0..4_u64 {
        let cid = data::nowhere(number);
        let answer = api.send(reqwest::Method::POST, "/pins", Some(json!({ "cid": cid }))).await?;
        let wanted = if number < 3 { StatusCode::ACCEPTED } else { StatusCode::TOO_MANY_REQUESTS };
        ensure!(answer.status == wanted, "pin {number}: {} {}", answer.status, answer.body);
    }
    Ok(())
}

/// Runs a command with an environment, and nothing else of the test's.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Finished> {
    let mut command = command(peer("PINFOLD_BIN")?);
    command.args(arguments).envs(environment.iter().copied()).env("PINFOLD_LOG_LEVEL", "off");
    finish(&mut command, &format!("pinfold {}", arguments.join(" "))).await
}

#[test]
fn a_flag_counts_before_the_environment_and_that_before_the_file() {
    test(async |place| {
        let folder = place.folder("data")?;
        let (folder, file) = (text(&folder)?, place.path().join("pinfold.toml"));
        std::fs::write(&file, "free-quota = \"3GB\"\nmigrate = true\n")?;
        let file = text(&file)?;
        run(&["migrate", "--data", folder], &[]).await?.success("migrate")?;
        let (named, other) = (["--config", file], ("PINFOLD_CONFIG", file));
        let (flag, variable) = (["--free-quota", "1GB"], ("PINFOLD_FREE_QUOTA", "2GB"));
        for (number, (arguments, environment, quota)) in [
            (vec![], vec![], "20.0 GB"),
            (named.to_vec(), vec![], "3.0 GB"),
            (vec![], vec![other], "3.0 GB"),
            (named.to_vec(), vec![variable], "2.0 GB"),
            (vec![], vec![other, variable], "2.0 GB"),
            ([&named[..], &flag].concat(), vec![variable], "1.0 GB"),
            (flag.to_vec(), vec![other], "1.0 GB"),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("account-{number}");
            let all = [&["account", "create", &name, "--data", folder], &arguments[..]].concat();
            let said = run(&all, &environment).await?.success("account create")?.stderr;
            ensure!(said.contains(quota), "{arguments:?} {environment:?}: {said}");
        }
        Ok(())
    });
}

#[test]
fn a_key_that_is_on_or_off_gives_way_as_the_others_do() {
    test(async |place| {
        let file = place.path().join("pinfold.toml");
        // No machine has that address: where the database is not refused, the
        // start ends there.
        let migrates = async |content: &str, environment: &[(&str, &str)], flag: &[&str]| -> Result<bool> {
            std::fs::write(&file, content)?;
            let folder = place.folder(&format!("data-{}", free_port()?))?;
            let all = ["service", "--data", text(&folder)?, "--api", "192.0.2.1:1", "--config", text(&file)?];
            let said = run(&[&all, flag].concat(), environment).await?;
            ensure!(said.status.code() == Some(1), "{}", said.stderr);
            Ok(!said.stderr.contains("pinfold migrate"))
        };
        ensure!(!migrates("", &[], &[]).await?);
        ensure!(migrates("migrate = true", &[], &[]).await?);
        ensure!(!migrates("migrate = true", &[("PINFOLD_MIGRATE", "false")], &[]).await?);
        ensure!(migrates("migrate = false", &[("PINFOLD_MIGRATE", "true")], &[]).await?);
        ensure!(migrates("migrate = false", &[("PINFOLD_MIGRATE", "false")], &["--migrate"]).await?);
        Ok(())
    });
}

#[test]
fn the_database_is_named_by_a_file() {
    test(async |place| {
        let (folder, file) = (place.folder("data")?, place.path().join("database"));
        let port = free_port()?;
        std::fs::write(&file, format!("postgres://nobody:secret@127.0.0.1:{port}/x\n"))?;
        let said =
            run(&["token", "ls", "--data", text(&folder)?, "--database-file", text(&file)?], &[]).await?;
        ensure!(said.status.code() == Some(1), "{}", said.stderr);
        ensure!(said.stderr.contains("PostgreSQL") && !said.stderr.contains("secret"), "{}", said.stderr);
        std::fs::write(&file, "/var/lib/pinfold.db")?;
        let said =
            run(&["token", "ls", "--data", text(&folder)?, "--database-file", text(&file)?], &[]).await?;
        ensure!(said.status.code() == Some(2) && said.stderr.contains("postgres://"), "{}", said.stderr);
        Ok(())
    });
}

#[test]
fn there_are_manual_pages_and_completions() {
    test(async |place| {
        let folder = place.path().join("man");
        run(&["man", text(&folder)?], &[]).await?.success("man")?;
        for (page, word) in [
            ("pinfold.1", "pinning service"),
            ("pinfold-up.1", "as users reach it"),
            ("pinfold-token-create.1", "scope"),
            ("pinfold-pin-import.1", "one a line"),
        ] {
            let page = std::fs::read_to_string(folder.join(page)).with_context(|| page.to_owned())?;
            ensure!(page.starts_with(".ie") && page.contains(word), "{word}");
        }
        // What does not exist yet is not promised.
        for later in ["nodes", "epoch", "verify", "chain", "console"] {
            ensure!(!folder.join(format!("pinfold-{later}.1")).exists(), "{later}");
        }
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = run(&["completions", shell], &[]).await?.success(shell)?.text()?;
            ensure!(script.contains("rate-limits") && script.contains("denylist"), "{shell}");
        }
        Ok(())
    });
}
