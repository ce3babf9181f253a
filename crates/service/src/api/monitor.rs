//! Metrics: the recorder of the process and the listener that shows it.

use std::{sync::OnceLock, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::db::Database;

/// Bounds of the histogram of request times, in seconds.
const BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Between two drains of the histograms, and two reads of totals.
const UPKEEP: Duration = Duration::from_secs(15);

/// Installs the recorder of this process, once; further calls give the same.
/// Whatever any crate counts is shown by the handle.
///
/// None when the process has a recorder of somebody else's.
pub fn install_recorder() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let times = Matcher::Suffix("_duration_seconds".to_owned());
            let builder = PrometheusBuilder::new().set_buckets_for_metric(times, &BUCKETS).ok()?;
            builder.install_recorder().ok()
        })
        .clone()
}

/// `/metrics` and nothing else.
pub(crate) fn router(handle: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(show)).with_state(handle)
}

async fn show(State(handle): State<PrometheusHandle>) -> impl IntoResponse {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render())
}

/// Keeps gauges of totals fresh and histograms small, until it is cancelled.
pub(crate) async fn run(handle: PrometheusHandle, database: Database, stopping: CancellationToken) {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        handle.run_upkeep();
        match database.totals().await {
            Ok(totals) => publish(&totals),
            Err(error) => tracing::warn!(%error, "totals for metrics cannot be read"),
        }
    }
}

fn publish(totals: &crate::db::Totals) {
    // Gauges are floating point; totals below 2^53 are exact.
    #[expect(clippy::cast_precision_loss, reason = "totals below 2^53 are exact")]
    let gauge = |name: &'static str, value: u64| metrics::gauge!(name).set(value as f64);
    for (status, count) in pinfold_core::status::Status::ALL.into_iter().zip(totals.pins) {
        #[expect(clippy::cast_precision_loss, reason = "totals below 2^53 are exact")]
        metrics::gauge!("pinfold_pins", "status" => status.as_str()).set(count as f64);
    }
    gauge("pinfold_accounts", totals.accounts);
    gauge("pinfold_used_bytes", totals.used_bytes);
    gauge("pinfold_reserved_bytes", totals.reserved_bytes);
    gauge("pinfold_nodes", totals.nodes);
    gauge("pinfold_nodes_live", totals.nodes_live);
}
