//! How many services live on the same database: each gives its share of the
//! rate limits. A service says that it lives every few seconds, and learns at
//! the same time how many do.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{error::chain, limits::Limits};
use crate::db::{self, Database};

/// How often a service says that it lives, unless a test says otherwise.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// One service among those that live.
pub(crate) struct Instance {
    id: Uuid,
    database: Database,
    limits: Arc<Limits>,
    live: watch::Sender<u32>,
}

impl Instance {
    /// Joins the others, before the first request is answered.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn join(database: Database, limits: Arc<Limits>) -> Result<Self, db::Error> {
        let instance = Self { id: Uuid::now_v7(), database, limits, live: watch::channel(1).0 };
        instance.beat().await?;
        Ok(instance)
    }

    /// How many live, as it changes.
    pub(crate) fn live(&self) -> watch::Receiver<u32> {
        self.live.subscribe()
    }

    /// Lives until it is cancelled, then leaves.
    pub(crate) async fn run(self, every: Duration, stopping: CancellationToken) {
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                _ = beats.tick() => {}
            }
            if let Err(error) = self.beat().await {
                tracing::warn!(
                    error = chain(&error),
                    "the other services cannot be counted; the share stays"
                );
            }
        }
        if let Err(error) = self.database.leave(self.id).await {
            tracing::debug!(error = chain(&error), "the other services learn of the end a little later");
        }
    }

    async fn beat(&self) -> Result<(), db::Error> {
        let live = self.database.heartbeat(self.id).await?;
        metrics::gauge!("pinfold_services_live").set(f64::from(live));
        self.limits.share_among(live);
        self.live.send_if_modified(|known| std::mem::replace(known, live) != live);
        Ok(())
    }
}
