//! Metrics: the recorder of the process and the listener that shows it, beside
//! a service or, as a [`Monitor`], alone.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    listener::{Terms, Timeouts},
    service::{GRACE, StartError, bind},
};
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

/// Shows the metrics of a process that runs no service. Dropping it ends it.
#[derive(Debug)]
pub struct Monitor {
    address: SocketAddr,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

impl Monitor {
    /// Binds, and counts from now on: what is to be seen starts after it.
    ///
    /// # Errors
    /// When the address is taken, or the process has another recorder.
    pub async fn start(address: SocketAddr) -> Result<Self, StartError> {
        let listener = bind(address, "--metrics").await?;
        let recorder = install_recorder().ok_or(StartError::Recorder)?;
        let (address, stopping, mut tasks) = (listener.address(), CancellationToken::new(), JoinSet::new());
        let terms = Terms { timeouts: Timeouts::default(), tls: None, grace: GRACE };
        tasks.spawn(listener.serve(router(recorder.clone()), stopping.clone(), terms));
        tasks.spawn(run(recorder, None, stopping.clone()));
        Ok(Self { address, stopping, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, after what is being asked was answered.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// `/metrics` and nothing else.
pub(crate) fn router(handle: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(show)).with_state(handle)
}

async fn show(State(handle): State<PrometheusHandle>) -> impl IntoResponse {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render())
}

/// Keeps histograms small and gauges of a database's totals fresh, until it is
/// cancelled.
pub(crate) async fn run(handle: PrometheusHandle, database: Option<Database>, stopping: CancellationToken) {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        handle.run_upkeep();
        let Some(database) = &database else { continue };
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
