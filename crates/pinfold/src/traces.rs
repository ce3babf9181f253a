//! Traces of requests, sent to an OpenTelemetry collector by OTLP over HTTP.
//!
//! A thread of the SDK gathers what ended and sends it in batches; requests
//! never wait for it. What the collector does not take in time is dropped. What
//! a trace holds is decided where its span is made, in the service's `trace`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
use url::Url;

use crate::usage::wrong_usage;

/// Where collectors take traces, below the URL that is given without a path.
const PATH: &str = "v1/traces";
/// Spans that wait to be sent; more are dropped. About 2 MiB.
const QUEUE: usize = 4_096;
/// Spans of one message; the SDK's own default.
const BATCH: usize = 512;
/// Between two messages while there is little to send.
const DELAY: Duration = Duration::from_secs(5);
/// How long a collector may take for a message.
const SEND_TIME: Duration = Duration::from_secs(5);
/// How long it may take for the last ones at the end: what is left of the ten
/// seconds in which the process stops.
const LAST_TIME: Duration = Duration::from_millis(1_500);
/// The longest answer of a collector that is read.
const MAX_ANSWER: usize = 64 << 10;

/// Sends traces until it is stopped.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Gets ready to send; nothing is sent before the first span has ended.
    ///
    /// # Errors
    /// When the URL is not one of a collector.
    pub(crate) fn new(collector: &Url, runtime: Handle) -> Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(runtime)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint(collector)?)
            .with_timeout(SEND_TIME)
            .build()
            .context("cannot send traces")?;
        let bounds = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(bounds).build();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("pinfold").with_attribute(version).build();
        let provider =
            SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Takes the spans of requests, and nothing else.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("pinfold"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|about| {
                about.is_span() && about.target() == pinfold_service::TRACE_TARGET
            }))
    }

    /// Sends what is left. Blocks, [`LAST_TIME`] at most.
    pub(crate) fn stop(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_TIME) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// The URL that messages are posted to.
fn endpoint(collector: &Url) -> Result<String> {
    if !matches!(collector.scheme(), "http" | "https") {
        wrong_usage!("--otlp {collector} is not the URL of a collector, such as http://127.0.0.1:4318");
    }
    let mut url = collector.clone();
    if url.path() == "/" {
        url.set_path(PATH);
    }
    Ok(url.into())
}

/// The HTTP client of the binary, for a thread outside the runtime.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    /// Whether the last message was not taken, so that an outage is logged once.
    failing: AtomicBool,
}

impl Client {
    fn new(runtime: Handle) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(SEND_TIME)
            .build()
            .context("cannot make an HTTP client for traces")?;
        Ok(Self { http, runtime, failing: AtomicBool::new(false) })
    }

    fn note(&self, outcome: &Result<Response<Bytes>, HttpError>) {
        let problem = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let failed_before = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed_before => {
                tracing::warn!(problem, "the collector does not take traces; they are dropped until it does");
            }
            None if failed_before => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = send(self.http.clone(), request);
        let outcome = self.runtime.spawn(sending).await.unwrap_or_else(|error| Err(error.into()));
        self.note(&outcome);
        outcome
    }
}

async fn send(http: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = http.execute(request.try_into()?).await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        std::mem::swap(headers, answer.headers_mut());
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await? {
        if body.len() + part.len() > MAX_ANSWER {
            return Err("the collector's answer is too long".into());
        }
        body.extend_from_slice(&part);
    }
    Ok(response.body(body.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_with_or_without_its_path() {
        for (given, used) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://a.example/otlp/v1/traces", "https://a.example/otlp/v1/traces"),
        ] {
            assert_eq!(endpoint(&given.parse().expect("a URL")).expect("a collector"), used);
        }
        assert!(endpoint(&"grpc://a.example".parse().expect("a URL")).is_err());
    }
}
