//! `pinfold pin`: a client of any Pinning Service API endpoint.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::{
    cli::{PinArgs, PinCommand},
    output::{print, print_json, printable},
    progress::Progress,
    usage::wrong_usage,
};

/// How often a waiting `pin add` asks.
const POLL: Duration = Duration::from_millis(500);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest page that the specification allows.
const PAGE: usize = 1_000;
/// The longest answer read: a page of 1,000 pins with all that they may hold.
const MAX_ANSWER: usize = 256 << 20;
/// Characters of a refusal that are shown: the specification has sentences there.
const MAX_SAID: usize = 1_000;

pub(crate) async fn run(args: PinArgs) -> Result<ExitCode> {
    let endpoint = Endpoint::new(&args)?;
    match &args.command {
        PinCommand::Add { cid, name, origin, background } => {
            let mut pin = endpoint.add(cid, name.as_deref(), origin).await?;
            if !background {
                pin = endpoint.wait(pin).await?;
            }
            print_pin(&pin, args.json)?;
            Ok(if pin.status == "failed" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        PinCommand::Ls { status, name, cid } => {
            endpoint.list(status, name.as_deref(), cid, |pin| print_pin(pin, args.json)).await?;
            Ok(ExitCode::SUCCESS)
        }
        PinCommand::Rm { requestid } => {
            for id in requestid {
                endpoint.remove(id).await.with_context(|| format!("cannot remove pin {id}"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        PinCommand::Status { requestid } => {
            print_pin(&endpoint.get(requestid).await?, args.json)?;
            Ok(ExitCode::SUCCESS)
        }
        PinCommand::Import { file } => import(&endpoint, file, args.json).await,
    }
}

/// A `PinStatus`; `raw` is the whole of it as it came.
struct Pin {
    requestid: String,
    status: String,
    created: String,
    cid: String,
    name: String,
    details: String,
    raw: Value,
}

impl Pin {
    fn read(raw: Value) -> Result<Self> {
        let text =
            |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pin = Self {
            requestid: text("/requestid"),
            status: text("/status"),
            created: text("/created"),
            cid: text("/pin/cid"),
            name: text("/pin/name"),
            details: text("/info/status_details"),
            raw,
        };
        if pin.requestid.is_empty() || pin.status.is_empty() {
            bail!("the endpoint's answer is not a pin status; is this a Pinning Service API endpoint?");
        }
        Ok(pin)
    }
}

#[derive(Deserialize)]
struct Results {
    count: u64,
    results: Vec<Value>,
}

struct Endpoint {
    pins: Url,
    token: String,
    client: Client,
}

impl Endpoint {
    fn new(args: &PinArgs) -> Result<Self> {
        let mut pins: Url = format!("{}/pins", args.endpoint.trim_end_matches('/'))
            .parse()
            .with_context(|| format!("--endpoint {:?} is not a URL", args.endpoint))?;
        pins.set_query(None);
        let Some(path) = &args.token_file else {
            wrong_usage!("name the file that holds the access token with --token-file");
        };
        let token = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the access token {}", path.display()))?;
        let client = Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { pins, token: token.trim().to_owned(), client })
    }

    fn request(&self, method: Method, requestid: Option<&str>) -> Result<RequestBuilder> {
        let mut url = self.pins.clone();
        if let Some(id) = requestid {
            url.path_segments_mut().ok().context("--endpoint cannot be a base of paths")?.push(id);
        }
        Ok(self.client.request(method, url).bearer_auth(&self.token))
    }

    async fn add(&self, cid: &str, name: Option<&str>, origins: &[String]) -> Result<Pin> {
        let mut body = Map::from_iter([("cid".to_owned(), json!(cid))]);
        body.extend(name.map(|name| ("name".to_owned(), json!(name))));
        body.extend((!origins.is_empty()).then(|| ("origins".to_owned(), json!(origins))));
        Pin::read(answer(self.request(Method::POST, None)?.json(&body)).await?)
    }

    async fn get(&self, requestid: &str) -> Result<Pin> {
        Pin::read(answer(self.request(Method::GET, Some(requestid))?).await?)
    }

    async fn remove(&self, requestid: &str) -> Result<()> {
        answer(self.request(Method::DELETE, Some(requestid))?).await.map(drop)
    }

    async fn wait(&self, mut pin: Pin) -> Result<Pin> {
        let (mut shown, mut progress) = (String::new(), Progress::new());
        loop {
            let line = format!("{} {}", pin.status, pin.details);
            if pin.status != shown {
                progress.turn(line.trim_end());
                shown.clone_from(&pin.status);
            } else {
                progress.step(|| line);
            }
            if matches!(pin.status.as_str(), "pinned" | "failed") {
                return Ok(pin);
            }
            tokio::time::sleep(POLL).await;
            pin = self.get(&pin.requestid).await?;
        }
    }

    async fn list(
        &self,
        statuses: &[String],
        name: Option<&str>,
        cids: &[String],
        mut each: impl FnMut(&Pin) -> Result<()>,
    ) -> Result<()> {
        let mut before: Option<String> = None;
        loop {
            let mut query = vec![("status", statuses.join(",")), ("limit", PAGE.to_string())];
            query.extend(name.map(|name| ("name", name.to_owned())));
            query.extend((!cids.is_empty()).then(|| ("cid", cids.join(","))));
            query.extend(before.take().map(|before| ("before", before)));
            let mut request = self.request(Method::GET, None)?.build()?;
            request.url_mut().query_pairs_mut().extend_pairs(query);
            let page: Results = serde_json::from_value(execute(&self.client, request).await?)
                .context("the endpoint's answer is not a list of pins")?;
            let shown = page.results.len();
            for raw in page.results {
                let pin = Pin::read(raw)?;
                each(&pin)?;
                before = Some(pin.created);
            }
            if shown == 0 || shown as u64 >= page.count {
                return Ok(());
            }
        }
    }
}

async fn import(endpoint: &Endpoint, file: &Path, json: bool) -> Result<ExitCode> {
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
    };
    let (mut pinned, mut failed, mut progress) = (0_u64, 0_u64, Progress::beside_list());
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read line {} of {}", number + 1, file.display()))?;
        let (cid, name) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        if cid.is_empty() || cid.starts_with('#') {
            continue;
        }
        let name = Some(name.trim()).filter(|name| !name.is_empty());
        match endpoint.add(cid, name, &[]).await {
            Ok(pin) => {
                pinned += 1;
                print_pin(&pin, json)?;
            }
            Err(error) => {
                failed += 1;
                progress.note(&format!("line {}: {error:#}", number + 1));
            }
        }
        progress.step(|| format!("{pinned} accepted, {failed} refused"));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn answer(request: RequestBuilder) -> Result<Value> {
    let (client, request) = request.build_split();
    execute(&client, request?).await
}

async fn execute(client: &Client, request: reqwest::Request) -> Result<Value> {
    let mut response = client.execute(request).await.context("the endpoint does not answer")?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the endpoint's answer ended early")? {
        if body.len() + chunk.len() > MAX_ANSWER {
            bail!("the endpoint's answer is longer than {MAX_ANSWER} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(serde_json::from_slice(&body).unwrap_or(Value::Null));
    }
    bail!("{}", failure(status, &body))
}

fn failure(status: StatusCode, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |pointer| {
        let text = body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        printable(&text.chars().take(MAX_SAID).collect::<String>()).into_owned()
    };
    let (reason, details) = (text("/error/reason"), text("/error/details"));
    if reason.is_empty() && details.is_empty() {
        return format!(
            "{status}: no endpoint of the Pinning Service API answers there; --endpoint names it"
        );
    }
    format!("{status}: {reason} {details}")
}

fn print_pin(pin: &Pin, json: bool) -> Result<()> {
    if json {
        return print_json(&pin.raw);
    }
    let fields = [&pin.requestid, &pin.status, &pin.cid, &pin.name, &pin.details];
    print(fields.map(|field| printable(field)).join("\t").trim_end())
}
