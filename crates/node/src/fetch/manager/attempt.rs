//! What the manager's tasks do: one try at a content, or letting one go.

use std::sync::Arc;
use std::time::Duration;

use pinfold_core::content;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::report::Reporter;
use super::super::transfer::{self, Input, Outcome, Setup};
use super::actor::Ended;
use super::{Context, Peers, Search};
use crate::assignments::Record;

/// The pause before a release is tried again that the store refused.
const RELEASE_PAUSE: Duration = Duration::from_secs(10);

/// Lets a root go, however often the store has to be asked, unless another
/// content has the same.
pub(super) async fn let_go(context: Arc<Context>, record: Record, cancel: CancellationToken) -> Ended {
    let mut is_kept = false;
    while let Some(key) = record.key() {
        let (store, assignments, of) = (context.store.clone(), context.assignments.clone(), record.clone());
        let release = move || match assignments.unless_shared(&of, || store.release(key.as_bytes())) {
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(released) => Ok(released.is_none()),
            Err(error) => Err(error.to_string()),
        };
        match context.workers.run(release).await {
            Ok(kept) => {
                is_kept = kept;
                break;
            }
            Err(error) => {
                tracing::error!(root = record.root, error, "cannot let a root go; it is tried again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RELEASE_PAUSE) => {}
            // The next start takes it up again.
            () = cancel.cancelled() => return Ended::Stopped,
        }
    }
    Ended::Released { record: Box::new(record), is_kept }
}

/// One try at one content.
pub(super) struct Attempt {
    pub(super) content: i64,
    pub(super) context: Arc<Context>,
    pub(super) input: watch::Receiver<Input>,
    pub(super) origins: mpsc::Receiver<Vec<String>>,
    pub(super) report: Reporter,
    pub(super) fairness: i64,
    pub(super) repair: bool,
    pub(super) cancel: CancellationToken,
}

impl Attempt {
    pub(super) async fn run<P: Peers>(self, network: P) -> Ended {
        let content = self.content;
        let assignments = self.context.assignments.clone();
        let record = match self.context.workers.run(move || assignments.get(content)).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ended::Attempt(content, Outcome::Broken("its record is gone".into())),
            Err(error) => return Ended::Attempt(content, Outcome::Broken(error.to_string())),
        };
        Ended::Attempt(content, self.transfer(network, record).await)
    }

    async fn transfer<P: Peers>(self, network: P, record: Record) -> Outcome {
        let Some(root) = record.key().map(|key| key.to_cid()) else {
            return Outcome::Broken("its root is not a CID".into());
        };
        let search = Search { root, origins: record.origins, hints: record.peers };
        let mut exchange = network.open(search, self.origins);
        let context = &self.context;
        let setup = Setup {
            root,
            limits: context.limits,
            store: context.store.clone(),
            workers: context.workers.clone(),
            denied: context.denied.clone(),
            input: self.input,
            report: self.report,
            slots: context.slots.clone(),
            fairness: self.fairness,
            repair: self.repair,
            cancel: self.cancel,
        };
        let outcome = transfer::run(setup, &mut exchange).await;
        if let (Outcome::Stored(_), Some(root)) = (&outcome, content::block_cid(&root)) {
            network.provide(&root);
        }
        outcome
    }
}
