//! The nodes' side.

use std::sync::Arc;

use pinfold_node_api::{Inventory, InventoryAck, MAX_EVENTS, Pull, Pulled, Report, ReportAck};

#[cfg(doc)]
use crate::db::{Changed, Error, NodeRefusal};
use crate::db::{
    Channel, Database, Node, NodeHello, NodeRequest, Provider, error::Result, events, nodes, tx::with,
    validate,
};

impl Database {
    /// Opens a session for a node and makes the node known.
    ///
    /// # Errors
    /// [`NodeRefusal::Replayed`] when `sent_at` is not above the last hello's.
    pub async fn hello(&self, hello: NodeHello) -> Result<Node> {
        validate::hello(&hello)?;
        self.engine.write(with(hello, |tx, hello| Box::pin(nodes::hello(tx, hello)))).await
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
        self.engine.write(with(pull, move |tx, pull| Box::pin(nodes::pull(tx, request, pull)))).await
    }

    /// Work for a pull that was accepted and waits; `request` is the same.
    ///
    /// # Errors
    /// [`NodeRefusal::OldSession`] when another session was opened meanwhile.
    pub async fn pull_again(&self, request: NodeRequest) -> Result<Pulled> {
        let (node, work) = self.engine.read(move |tx| Box::pin(nodes::waiting(tx, request))).await?;
        if !work {
            return Ok(Pulled { denylist_version: self.newest_denylist().await?, ..Pulled::default() });
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
        let accept = with(whole, move |tx, report| Box::pin(events::accept(tx, request, report)));
        self.engine.write(accept).await?;
        let events = &report.events[..report.events.len().min(MAX_EVENTS)];
        let mut answers = Vec::with_capacity(events.len());
        for part in events.chunks(events::PART) {
            let note = with(part.to_vec(), move |tx, part| Box::pin(events::note(tx, request, part)));
            answers.extend(self.engine.write(note).await?);
        }
        Ok(ReportAck { answers })
    }

    /// Compares a part of what the node holds with what is allocated to it.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn inventory(&self, request: NodeRequest, inventory: Inventory) -> Result<InventoryAck> {
        let compare =
            with(inventory, move |tx, inventory| Box::pin(events::inventory(tx, request, inventory)));
        self.engine.write(compare).await
    }

    /// Every node, by number.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes = self.engine.read(move |tx| Box::pin(nodes::all(tx))).await?;
        Ok(nodes.to_vec())
    }

    /// Nodes that hold this content durably and were heard lately, at most 100;
    /// none when it is denied.
    pub async fn providers(&self, content: &[u8]) -> Result<Vec<Provider>> {
        let providers = with(content.to_vec(), |tx, content| Box::pin(nodes::providers(tx, content)));
        self.engine.read(providers).await
    }
}
