//! `--otlp` against a collector of the test.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value as Any,
    trace::v1::{Span, span::SpanKind, status::StatusCode as Code},
};
use pinfold_e2e::{pinfold::Pinfold, process::free_port, test};
use prost::Message;
use reqwest::Method;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Longer than the pause between two batches.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message as it was posted.
struct Posted {
    head: String,
    body: Vec<u8>,
}

/// Takes every message that is posted to it.
struct Collector {
    url: String,
    posted: mpsc::Receiver<Posted>,
}

impl Collector {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (sender, posted) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move { while_open(stream, sender).await });
            }
        });
        Ok(Self { url, posted })
    }

    /// The next message.
    async fn next(&mut self) -> Result<Posted> {
        timeout(PATIENCE, self.posted.recv()).await?.context("nobody posts any more")
    }
}

async fn while_open(stream: TcpStream, sender: mpsc::Sender<Posted>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            (stream.read_line(&mut head).await.ok()? > 0).then_some(())?;
        }
        let lower = head.to_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
        sender.send(Posted { head, body }).await.ok()?;
    }
}

/// Attributes as text.
fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Any| match value {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref()).map(text);
        (attribute.key.clone(), value.unwrap_or_default())
    };
    span.attributes.iter().map(pair).collect()
}

#[test]
fn requests_are_traced_without_secrets_and_the_last_ones_are_sent_at_the_end() {
    test(async |place| {
        let mut collector = Collector::start().await?;
        let mut pinfold = Pinfold::up(place, "pinfold", &["--otlp", &collector.url]).await?;
        let api = pinfold.api()?;
        let first = api.send(Method::GET, "/pins?name=a-private-name&limit=1", None).await?;
        ensure!(first.status.is_success());
        // A first batch comes while the service runs.
        let mut messages = vec![collector.next().await?];
        let missing = api.send(Method::GET, "/pins/01890000-0000-7000-8000-000000000000", None).await?;
        ensure!(missing.status.as_u16() == 404);
        pinfold.stop().await?;
        while let Ok(posted) = collector.posted.try_recv() {
            messages.push(posted);
        }

        let mut spans = Vec::new();
        for Posted { head, body } in &messages {
            ensure!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            ensure!(head.to_lowercase().contains("content-type: application/x-protobuf\r\n"), "{head}");
            let bytes = String::from_utf8_lossy(body).into_owned();
            for secret in ["a-private", pinfold.token.as_str(), "01890000-0000"] {
                ensure!(!bytes.contains(secret), "{secret} is in a trace");
            }
            for resource in ExportTraceServiceRequest::decode(body.as_slice())?.resource_spans {
                let described = format!("{:?}", resource.resource);
                ensure!(described.contains("service.name") && described.contains("pinfold"), "{described}");
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        for (name, status) in [("GET /pins", "200"), ("GET /pins/{requestid}", "404")] {
            let span = spans.iter().find(|span| span.name == name);
            let span = span.with_context(|| format!("no {name} among {spans:?}"))?;
            let found = attributes(span);
            ensure!(span.kind == SpanKind::Server as i32, "{span:?}");
            ensure!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
            ensure!(span.status.as_ref().is_none_or(|status| status.code != Code::Error as i32), "{span:?}");
            ensure!(found["http.request.method"] == "GET", "{found:?}");
            ensure!(found["http.route"] == name["GET ".len()..], "{found:?}");
            ensure!(found["http.response.status_code"] == status, "{found:?}");
            ensure!(found["pinfold.account"].parse::<i64>()? > 0, "{found:?}");
            ensure!(found["pinfold.request_id"].len() == 36, "{found:?}");
        }
        Ok(())
    });
}

#[test]
fn without_its_collector_a_service_runs_and_stops_as_ever() {
    test(async |place| {
        let nobody = format!("http://127.0.0.1:{}", free_port()?);
        let mut pinfold = Pinfold::up(place, "pinfold", &["--otlp", &nobody]).await?;
        let api = pinfold.api()?;
        for _ in 0..20 {
            ensure!(api.send(Method::GET, "/pins", None).await?.status.is_success());
        }
        pinfold.stop().await
    });
}
