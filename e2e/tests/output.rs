//! What commands print: what each says, and that no word of others reaches a
//! terminal as a command to it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::Api,
    data::nowhere,
    pinfold::{Pinfold, pin as pin_at},
    place::{Place, text},
    process::Finished,
    test,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A CID that holds its own data, the empty text.
const EMPTY: &str = "bafkqaaa";
/// ESC and C1 sequences, DEL, an override and an isolate of the direction.
const HOSTILE: &str = "n\u{1b}[31mo\u{9b}2Jp\u{7f}q\u{202e}r\u{2066}s";

/// An endpoint that answers each request with the next of what it is given.
async fn endpoint(answers: Vec<(u16, Value)>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let next = answers.lock().expect("no test panics with it").pop_front();
            if let Some((status, body)) = next {
                // A client that goes away sees that it has no answer.
                let _ = answer(stream, status, &body.to_string()).await;
            }
        }
    });
    Ok(format!("http://{address}"))
}

async fn answer(mut stream: TcpStream, status: u16, body: &str) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut request).await? > 0, "the request ended early");
    }
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    // Closed before a body is read, the answer would be lost with it.
    while stream.read_buf(&mut request).await? > 0 {}
    Ok(())
}

fn pin(status: &str, name: &str) -> Value {
    json!({
        "requestid": "a", "status": status, "created": "2026-01-02T03:04:05.678Z",
        "pin": { "cid": EMPTY, "name": name }, "delegates": [], "info": { "status_details": name },
    })
}

/// `pinfold pin …` against an endpoint that gives these answers.
async fn client(place: &Place, answers: Vec<(u16, Value)>, arguments: &[&str]) -> Result<Finished> {
    pin_at(place, &endpoint(answers).await?, "token", arguments).await
}

/// Demands that a terminal shows all that was printed, and does nothing else.
fn harmless(said: &Finished) -> Result<()> {
    for text in [String::from_utf8_lossy(&said.stdout), said.stderr.as_str().into()] {
        let acts = |c: char| {
            (c.is_control() && c != '\n' && c != '\t')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        ensure!(!text.contains(acts), "{text:?}");
    }
    Ok(())
}

#[test]
fn words_of_an_endpoint_do_nothing_to_a_terminal() {
    test(async |place| {
        let page = || vec![(200, json!({ "count": 1, "results": [pin("pinned", HOSTILE)] }))];
        let listed = client(place, page(), &["ls"]).await?.success("pin ls")?;
        harmless(&listed)?;
        ensure!(listed.text()?.contains("n\\u{1b}[31mo\\u{9b}2Jp\\u{7f}q\\u{202e}r\\u{2066}s"), "{listed:?}");
        let listed = client(place, page(), &["ls", "--json"]).await?.success("pin ls")?;
        harmless(&listed)?;
        let read: Value = serde_json::from_str(&listed.text()?)?;
        ensure!(read["pin"]["name"] == HOSTILE, "what is said is the same: {read}");
        let failure = json!({ "error": { "reason": HOSTILE, "details": HOSTILE.repeat(1_000) } });
        for arguments in [&["status", "a"][..], &["ls"], &["rm", "a"], &["add", EMPTY]] {
            let refused = client(place, vec![(400, failure.clone())], arguments).await?;
            harmless(&refused)?;
            ensure!(refused.status.code() == Some(1) && refused.stderr.contains("\\u{9b}2J"), "{refused:?}");
            ensure!(refused.stderr.len() < 10_000, "an endless refusal is cut");
        }
        let waited = vec![(202, pin("queued", HOSTILE)), (200, pin("failed", HOSTILE))];
        let waited = client(place, waited, &["add", EMPTY]).await?;
        harmless(&waited)?;
        ensure!(waited.status.code() == Some(1), "{waited:?}");
        Ok(())
    });
}

#[test]
fn a_pin_that_is_waited_for_has_a_line_for_each_status() {
    test(async |place| {
        let statuses = ["queued", "queued", "pinning", "pinning", "pinned"];
        let answers = statuses.iter().enumerate().map(|(number, status)| {
            let name = format!("word {number}");
            (if number == 0 { 202 } else { 200 }, pin(status, &name))
        });
        let said = client(place, answers.collect(), &["add", EMPTY]).await?.success("pin add")?;
        let lines: Vec<_> = said.stderr.lines().collect();
        assert_eq!(lines, ["queued word 0", "pinning word 2", "pinned word 4"]);
        ensure!(said.text()?.contains("pinned"), "{said:?}");
        Ok(())
    });
}

/// Runs a command on a service's data, which must succeed.
async fn said(pinfold: &Pinfold, arguments: &[&str]) -> Result<Finished> {
    let said = pinfold.run(arguments).await?.success(&arguments.join(" "))?;
    harmless(&said)?;
    Ok(said)
}

async fn rows(pinfold: &Pinfold, arguments: &[&str]) -> Result<Vec<Value>> {
    let text = said(pinfold, &[arguments, &["--json"]].concat()).await?.text()?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
}

#[test]
fn commands_on_accounts_say_what_they_did() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        ensure!(
            said(&pinfold, &["account", "create", "ann", "--quota", "1MB"]).await?.stderr.contains("1.0 MB")
        );
        let token = said(&pinfold, &["token", "create", "--name", "t", "--account", "ann"]).await?.text()?;
        let ann = Api::new(&pinfold.endpoint, &token)?;
        ann.add(json!({ "cid": EMPTY, "name": HOSTILE })).await?;
        ann.add_cid(&nowhere(1)).await?;
        said(&pinfold, &["account", "quota", "ann", "5GB"]).await?;
        said(&pinfold, &["account", "disable", "ann"]).await?;
        let row = |rows: Vec<Value>| rows.into_iter().find(|row| row["name"] == "ann").context("no ann");
        let ann = row(rows(&pinfold, &["account", "ls"]).await?)?;
        assert_eq!((&ann["quota"], &ann["disabled"]), (&json!(5_000_000_000_u64), &json!(true)));
        assert_eq!((&ann["pinned"], &ann["failed"]), (&json!(1), &json!(0)));
        let table = said(&pinfold, &["account", "ls"]).await?.text()?;
        ensure!(
            table.starts_with("name\tquota\tused") && table.contains("\nann\t5000000000\t0\t"),
            "{table}"
        );
        let exported = said(&pinfold, &["account", "export", "ann"]).await?.text()?;
        let pins: Vec<Value> = exported.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(pins.len() == 2 && pins[0]["name"] == HOSTILE && pins[1]["cid"] == nowhere(1), "{exported}");
        let waits = rows(&pinfold, &["queue", "ls"]).await?;
        ensure!(waits.len() == 1 && waits[0]["cid"] == nowhere(1), "{waits:?}");
        ensure!(said(&pinfold, &["queue", "retry"]).await?.stderr.contains("1 contents"));
        said(&pinfold, &["account", "rm", "ann", "--yes"]).await?;
        ensure!(row(rows(&pinfold, &["account", "ls"]).await?).is_err(), "ann is still there");
        ensure!(said(&pinfold, &["migrate"]).await?.stderr.contains("schema 1"));
        let deeds = rows(&pinfold, &["account", "audit"]).await?;
        let done: Vec<_> = deeds.iter().filter_map(|deed| deed["action"].as_str()).collect();
        assert_eq!(
            done[..6],
            [
                "account.rm",
                "queue.retry",
                "account.disable",
                "account.quota",
                "token.create",
                "account.create"
            ]
        );
        assert_eq!(done[6..], ["token.create", "account.create", "migrate"], "of the first start");
        Ok(())
    });
}

#[test]
fn commands_on_rules_and_pins_say_what_they_did() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let rule = format!("/ipfs/{}", nowhere(1));
        said(&pinfold, &["denylist", "add", &rule]).await?;
        assert_eq!(said(&pinfold, &["denylist", "ls"]).await?.text()?, format!("rule\n{rule}"));
        assert_eq!(rows(&pinfold, &["denylist", "ls"]).await?, [json!({ "rule": rule })]);
        let list = place.path().join("cids");
        std::fs::write(&list, format!("# photos\n{EMPTY} a name\n\n{} \nnonsense\n", nowhere(2)))?;
        let list = text(&list)?;
        let imported = pinfold.pin(place, &["import", list]).await?;
        ensure!(imported.status.code() == Some(1), "a line is refused: {imported:?}");
        let refused: Vec<_> = imported.stderr.lines().map(|line| line.split(':').next()).collect();
        assert_eq!(refused, [Some("line 5")], "{}", imported.stderr);
        let text = imported.text()?;
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        ensure!(lines.len() == 2 && lines[0][1..4] == ["pinned", EMPTY, "a name"], "{text}");
        let shown = pinfold.pin(place, &["status", lines[0][0]]).await?.success("pin status")?.text()?;
        ensure!(shown.split('\t').take(4).eq(lines[0][..4].iter().copied()), "{shown}");
        let shown =
            pinfold.pin(place, &["status", lines[1][0], "--json"]).await?.success("pin status")?.text()?;
        let shown: Value = serde_json::from_str(&shown)?;
        ensure!(shown["pin"]["cid"] == nowhere(2) && shown["status"] != "pinned", "{shown}");
        let node = said(&pinfold, &["node", "id"]).await?.text()?;
        let as_json: Value = serde_json::from_str(&said(&pinfold, &["node", "id", "--json"]).await?.text()?)?;
        assert_eq!(as_json, json!({ "peer_id": node }));
        Ok(())
    });
}
