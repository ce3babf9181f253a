//! The loop that runs the service's own jobs: deadlines, turns, placement,
//! repair, retention. What is due, and that only one process does it, is the
//! database's to know; see [`Database::run_jobs`].

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::error::chain;
use crate::db::Database;

/// Between two turns with nothing left to do.
const TURN: Duration = Duration::from_secs(1);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs jobs until it is cancelled. A turn that has begun is a transaction or
/// several; being dropped between them does no harm.
pub(crate) async fn run(database: Database, stopping: CancellationToken) {
    let mut pause = TURN;
    while !stopping.is_cancelled() {
        pause = match database.run_jobs().await {
            Ok(done) => {
                metrics::counter!("pinfold_jobs_rows_total").increment(done.changed);
                if done.more { Duration::ZERO } else { TURN }
            }
            Err(error) => {
                metrics::counter!("pinfold_jobs_failures_total").increment(1);
                let next = (pause.max(TURN) * 2).min(LONGEST_PAUSE);
                tracing::error!(
                    error = chain(&error),
                    again_in_s = next.as_secs(),
                    "the service's jobs failed"
                );
                next
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}
