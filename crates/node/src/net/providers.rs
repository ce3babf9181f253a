//! Finding providers: delegated routers and the DHT at once.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use cid::Cid;
use futures::Stream;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;
use url::Url;

use super::{Inner, dht, swarm::Command};

/// Providers that one search yields at most; then it ends.
pub const MAX_PROVIDERS: usize = 64;

/// How long a search lasts at most.
pub const FIND_TIMEOUT: Duration = Duration::from_secs(60);

/// Searches at a time; further ones wait for their turn within their own
/// time-out.
pub(super) const MAX_SEARCHES: usize = 32;

/// Who said that a peer provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A delegated router.
    Router,
    /// The DHT.
    Dht,
}

/// A peer that is said to have a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who.
    pub peer: PeerId,
    /// Where, unfiltered: dialling judges them.
    pub addresses: Vec<Multiaddr>,
    /// Who said so.
    pub source: Source,
}

/// The providers that a search finds, in the order of discovery, possibly more
/// than once. Dropping it ends the search.
#[derive(Debug)]
pub struct Providers(pub(crate) mpsc::Receiver<Provider>);

impl Providers {
    /// The next one; `None` when the search is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<Provider> {
        self.0.recv().await
    }
}

impl Stream for Providers {
    type Item = Provider;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Provider>> {
        self.0.poll_recv(cx)
    }
}

/// Starts a search; see [`super::Network::find_providers`].
pub(super) fn find(inner: &Arc<Inner>, cid: Cid) -> Providers {
    let (found, providers) = mpsc::channel(MAX_PROVIDERS);
    let searching = inner.clone();
    inner.tasks.spawn(async move {
        let search = search(&searching, cid, found.clone());
        tokio::select! {
            () = searching.stop.cancelled() => {}
            () = found.closed() => {}
            _ = tokio::time::timeout(FIND_TIMEOUT, search) => {}
        }
    });
    Providers(providers)
}

async fn search(inner: &Inner, cid: Cid, found: mpsc::Sender<Provider>) {
    let Ok(_turn) = inner.searching.acquire().await else { return };
    let routers = futures::future::join_all(
        inner.routers.iter().map(|router| ask_router(inner, router, &cid, found.clone())),
    );
    futures::join!(routers, ask_dht(inner, &cid, &found));
}

async fn ask_router(inner: &Inner, router: &Url, cid: &Cid, found: mpsc::Sender<Provider>) {
    let private = inner.allow_private.load(Ordering::Relaxed);
    match inner.http.get_providers(router, cid, private).await {
        Ok(providers) => {
            for provider in providers {
                report(&found, provider);
            }
        }
        Err(error) => tracing::debug!(%router, %error, "a delegated router does not answer"),
    }
}

async fn ask_dht(inner: &Inner, cid: &Cid, found: &mpsc::Sender<Provider>) {
    if !inner.has_dht {
        return;
    }
    let (answers, mut incoming) = mpsc::channel(MAX_PROVIDERS);
    let command = dht::Command::Find { key: cid.hash().to_bytes(), found: answers };
    if inner.commands.send(Command::Dht(command)).await.is_err() {
        return;
    }
    while let Some(provider) = incoming.recv().await {
        report(found, provider);
    }
}

fn report(found: &mpsc::Sender<Provider>, provider: Provider) {
    let source = match provider.source {
        Source::Router => "router",
        Source::Dht => "dht",
    };
    metrics::counter!("pinfold_net_providers_found_total", "source" => source).increment(1);
    // A receiver that does not keep up has enough to dial.
    let _ = found.try_send(provider);
}
