//! The nodes' side.

use std::sync::Arc;

use pinfold_node_api::{Event, Inventory, InventoryAck, MAX_EVENTS, Pull, Pulled, Report, ReportAck};

#[cfg(doc)]
use crate::db::{Changed, Error, NodeRefusal};
use crate::db::{
    Channel, Database, Node, NodeHello, NodeRequest, Provider, error::Result, events, nodes, property,
    validate,
};

impl Database {
    /// Opens a session for a node and makes the node known.
    ///
    /// # Errors
    /// [`NodeRefusal::Replayed`] when `sent_at` is not above the last hello's.
    pub async fn hello(&self, hello: NodeHello) -> Result<Node> {
        validate::hello(&hello)?;
        {
            let hello = Arc::new(hello);
            self.engine
                .write(move |tx| {
                    let hello = Arc::clone(&hello);
                    Box::pin(async move { nodes::hello(tx, &hello).await })
                })
                .await
        }
    }

    /// Accepts a request of a node on a channel and notes the heartbeat; for
    /// requests that have no method of their own.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn accept(&self, request: NodeRequest, channel: Channel) -> Result<Node> {
        self.engine.write(move |tx| Box::pin(nodes::accept(tx, request, channel))).await
    }

    /// Notes the acknowledgements and answers with work, up to
    /// [`pinfold_node_api::MAX_ALLOCATIONS`] each. An empty answer: wait for a
    /// [`Changed::work`], then ask with [`Self::pull_again`].
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn pull(&self, request: NodeRequest, pull: Pull) -> Result<Pulled> {
        let pull = Arc::new(pull);
        self.engine
            .write(move |tx| {
                let pull = Arc::clone(&pull);
                Box::pin(async move { nodes::pull(tx, request, &pull).await })
            })
            .await
    }

    /// Work for a pull that was accepted and waits; `request` is the same.
    ///
    /// # Errors
    /// [`NodeRefusal::OldSession`] when another session was opened meanwhile.
    pub async fn pull_again(&self, request: NodeRequest) -> Result<Pulled> {
        let (node, work) = self.engine.read(move |tx| Box::pin(nodes::waiting(tx, request))).await?;
        if !work {
            return Ok(Pulled {
                denylist_version: self
                    .engine
                    .look_up(|tx| Box::pin(property::number(tx, "denylist")))
                    .await?,
                ..Pulled::default()
            });
        }
        self.engine.write(move |tx| Box::pin(nodes::work(tx, node))).await
    }

    /// Notes what became of allocations, in a few transactions, and answers after
    /// the last has committed. A report that is broken off is sent again whole:
    /// events can be noted twice without harm.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn report(&self, request: NodeRequest, report: Report) -> Result<ReportAck> {
        let report = Arc::new(report);
        let whole = Arc::clone(&report);
        self.engine
            .write(move |tx| {
                let report = Arc::clone(&whole);
                Box::pin(async move { events::accept(tx, request, &report).await })
            })
            .await?;
        let events = &report.events[..report.events.len().min(MAX_EVENTS)];
        let mut answers = Vec::with_capacity(events.len());
        for part in events.chunks(events::PART) {
            let part = Arc::<[Event]>::from(part);
            let noted = self.engine.write(move |tx| {
                let part = Arc::clone(&part);
                Box::pin(async move { events::note(tx, request, &part).await })
            });
            answers.extend(noted.await?);
        }
        Ok(ReportAck { answers })
    }

    /// Compares a part of what the node holds with what is allocated to it.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn inventory(&self, request: NodeRequest, inventory: Inventory) -> Result<InventoryAck> {
        let inventory = Arc::new(inventory);
        self.engine
            .write(move |tx| {
                let inventory = Arc::clone(&inventory);
                Box::pin(async move { events::inventory(tx, request, &inventory).await })
            })
            .await
    }

    /// Every node, by number.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes = self.engine.read(move |tx| Box::pin(nodes::all(tx))).await?;
        Ok(nodes.to_vec())
    }

    /// Nodes that hold this content durably and were heard lately, at most 100;
    /// none when it is denied.
    pub async fn providers(&self, content: &[u8]) -> Result<Vec<Provider>> {
        let content = content.to_vec();
        {
            let content = Arc::new(content);
            self.engine
                .read(move |tx| {
                    let content = Arc::clone(&content);
                    Box::pin(async move { nodes::providers(tx, &content).await })
                })
                .await
        }
    }
}
