//! Finds who has a root, and gets its blocks from them.
//!
//! In this order: the pin's origins, dialled at once; peers that connected a
//! moment ago, or connect meanwhile; the other nodes that hold it; providers
//! that delegated routers and the DHT name; trustless HTTP gateways. Each
//! stage begins when the ones before have brought nothing for a while, or have
//! nothing left to try. All of them stay in use: a Bitswap session shares the
//! wants out among everybody who was found. An origin that is lost meanwhile
//! is dialled again ([`origins`]).

mod gateways;
mod origins;
mod peers;
mod reach;
mod stages;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use pinfold_bitswap as bitswap;
use pinfold_core::content::{self, BlockCid};
use pinfold_core::status::Reason;
use pinfold_node_api::MAX_ORIGINS;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use super::exchange::{Exchange, Supply};
use super::manager::Search;
use super::until;
use crate::net::{self, Network, Provider, Providers};
use gateways::ASKED;
use origins::Origins;
pub(crate) use peers::Net;
use reach::Reach;
use stages::{Stage, Stages};

/// Dials of origins in one attempt: all that an assignment names, lost and
/// found again, or named anew, a few times.
const MAX_ORIGIN_DIALS: usize = 4 * MAX_ORIGINS;

/// Dials of anybody else in one attempt, whom a session has room for. Counted
/// by itself, so that dead origins leave room for peers that have the content.
const MAX_OTHER_DIALS: usize = 32;

/// Peers of one attempt that merely happen to connect while it searches.
/// A session takes 32 peers, and those that are named come first.
const MAX_STRANGERS: usize = 8;

/// Blocks asked of gateways at a time.
const GATEWAY_REQUESTS: usize = 8;

/// What a task of a search found.
enum Found {
    Dialled { named: Option<PeerId>, peer: Option<PeerId>, is_origin: bool },
    Fetched { cid: BlockCid, gateway: usize, data: Option<Bytes> },
}

/// The exchange of one attempt. Dropping it ends its dials and wants.
pub(crate) struct Sources<R = Network> {
    network: R,
    private: bool,
    session: bitswap::Session,
    search: Search,
    stages: Stages,
    tasks: JoinSet<Found>,
    dialling: usize,
    origin_dials: usize,
    other_dials: usize,
    known: HashSet<PeerId>,
    /// Peers that origins name.
    origins: Origins,
    strangers: usize,
    providers: Option<Providers>,
    arrivals: broadcast::Receiver<PeerId>,
    more_origins: mpsc::Receiver<Vec<String>>,
    gateways: Vec<Url>,
    fetching: usize,
    /// Not delivered yet, with how many gateways were tried.
    wanted: HashMap<BlockCid, usize>,
    /// Not taken by the session, which was full.
    backlog: Vec<BlockCid>,
    /// Whether an origin could be reached, if there is any.
    origin_reached: bool,
    /// Nothing arrives: the session's peers lack it, or there are none.
    starved: bool,
    arrived: bool,
    /// A block that somebody said is too large.
    too_large: Option<BlockCid>,
    told: Option<Reason>,
    exhausted: bool,
}

impl<R: Reach> Sources<R> {
    fn new(net: &Net<R>, search: Search, more_origins: mpsc::Receiver<Vec<String>>) -> Self {
        let hinted = search.hints.iter().filter_map(|hint| Url::parse(hint.gateway.as_deref()?).ok());
        let gateways = hinted.chain(net.gateways.iter().cloned()).collect();
        let (recent, arrivals) = net.network.newcomers();
        let mut sources = Self {
            network: net.network.clone(),
            private: net.private.load(Ordering::Relaxed),
            session: net.network.bitswap().new_session(),
            stages: Stages::new(Instant::now()),
            tasks: JoinSet::new(),
            dialling: 0,
            origin_dials: 0,
            other_dials: 0,
            known: HashSet::new(),
            origins: Origins::default(),
            strangers: 0,
            providers: None,
            arrivals,
            more_origins,
            gateways,
            fetching: 0,
            wanted: HashMap::new(),
            backlog: Vec::new(),
            origin_reached: search.origins.is_empty(),
            starved: true,
            arrived: false,
            too_large: None,
            told: None,
            exhausted: false,
            search,
        };
        let origins = sources.search.origins.clone();
        sources.dial_origins(&origins);
        for peer in recent {
            sources.add_stranger(peer);
        }
        sources
    }

    fn dial_origins(&mut self, origins: &[String]) {
        for (peer, addresses) in net::origins(origins) {
            peer.into_iter().for_each(|peer| self.origins.add(peer, &addresses));
            self.dial_origin(peer, addresses);
        }
    }

    fn dial_origin(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>) {
        if self.dial(peer, addresses, self.private, true, self.origin_dials < MAX_ORIGIN_DIALS) {
            self.origin_dials += 1;
        }
    }

    /// Dials somebody whom no pin names. `private`: whether whoever named the
    /// addresses may send us into a private network.
    fn dial_other(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, private: bool) {
        if self.dial(peer, addresses, private, false, self.other_dials < MAX_OTHER_DIALS) {
            self.other_dials += 1;
        }
    }

    /// Whether a dial was begun.
    fn dial(
        &mut self,
        named: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        private: bool,
        is_origin: bool,
        may: bool,
    ) -> bool {
        if let Some(peer) = named.filter(|peer| self.network.is_connected(peer)) {
            self.origin_reached |= is_origin;
            self.add_peer(peer);
            return false;
        }
        if !may || addresses.is_empty() {
            return false;
        }
        self.dialling += 1;
        let network = self.network.clone();
        self.tasks.spawn(async move {
            let dialled = network.dial(named, addresses, private).await;
            if let Err(error) = &dialled {
                tracing::debug!(peer = ?named, %error, "a source cannot be dialled");
            }
            Found::Dialled { named, peer: dialled.ok(), is_origin }
        });
        true
    }

    /// Dials again the lost origins whose time has come. One that has come
    /// back by itself is asked by the session already.
    fn dial_lost(&mut self) {
        for (peer, addresses) in self.origins.take_due(Instant::now()) {
            if !self.network.is_connected(&peer) {
                self.known.remove(&peer);
                self.dial_origin(Some(peer), addresses);
            }
        }
    }

    fn add_peer(&mut self, peer: PeerId) {
        if self.known.insert(peer) && self.session.add_peer(peer) {
            // It has not been asked: what was exhausted is so no longer.
            self.starved = false;
            self.exhausted = false;
        }
    }

    fn add_stranger(&mut self, peer: PeerId) {
        if self.strangers < MAX_STRANGERS && self.network.is_connected(&peer) {
            self.strangers += 1;
            self.add_peer(peer);
        }
    }

    /// Begins the next stages as far as it is time.
    fn advance(&mut self) {
        // What the store holds already needs no sources.
        while self.starved && !self.wanted.is_empty() {
            let idle = !self.is_dialling() && self.providers.is_none() && self.fetching == 0;
            let Some(stage) = self.stages.advance(idle, Instant::now()) else { return };
            self.enter(stage);
        }
    }

    fn is_dialling(&self) -> bool {
        self.dialling > 0 || self.origins.is_waiting()
    }

    fn enter(&mut self, stage: Stage) {
        match stage {
            Stage::Origins | Stage::Nothing => {}
            Stage::Nodes => {
                for hint in std::mem::take(&mut self.search.hints) {
                    for (peer, addresses) in net::origins(&hint.addresses) {
                        self.dial_other(peer, addresses, self.private);
                    }
                }
            }
            Stage::Providers => {
                let root = content::block_cid(&self.search.root).filter(|_| self.network.has_routing());
                self.providers = root.map(|root| self.network.find_providers(root));
            }
            Stage::Gateways => self.ask_gateways(),
        }
    }

    /// Asks gateways for what nobody brought.
    fn ask_gateways(&mut self) {
        if self.stages.stage() < Stage::Gateways || self.gateways.is_empty() {
            return;
        }
        let room = GATEWAY_REQUESTS - self.fetching.min(GATEWAY_REQUESTS);
        let gateways = self.gateways.len();
        let open = self.wanted.iter_mut().filter(|(_, tried)| **tried & ASKED == 0 && **tried < gateways);
        let mut next = Vec::with_capacity(room);
        for (cid, tried) in open.take(room) {
            next.push((*cid, *tried));
            *tried |= ASKED;
        }
        for (cid, gateway) in next {
            self.fetching += 1;
            let (network, url, private) =
                (self.network.clone(), self.gateways[gateway].clone(), self.private);
            self.tasks.spawn(async move {
                let data = gateways::fetch(&network, &url, cid, private).await;
                Found::Fetched { cid, gateway, data }
            });
        }
    }

    fn on_found(&mut self, found: Found) -> Option<Supply> {
        match found {
            Found::Dialled { named, peer, is_origin } => {
                self.dialling -= 1;
                self.origin_reached |= is_origin && peer.is_some();
                match (peer, named) {
                    (Some(peer), _) => self.add_peer(peer),
                    (None, Some(named)) => self.origins.unreachable(&named, Instant::now()),
                    (None, None) => {}
                }
                None
            }
            Found::Fetched { cid, gateway, data } => {
                self.fetching -= 1;
                let Some(data) = data else {
                    self.wanted.entry(cid).and_modify(|tried| *tried = gateway + 1);
                    return None;
                };
                self.wanted.remove(&cid)?;
                self.session.cancel(&[cid]);
                Some(self.deliver(cid, data))
            }
        }
    }

    fn deliver(&mut self, cid: BlockCid, data: Bytes) -> Supply {
        self.arrived = true;
        self.exhausted = false;
        Supply::Block { cid, data }
    }

    fn on_session(&mut self, event: bitswap::Event) -> Option<Supply> {
        match event {
            bitswap::Event::Block { cid, data, from } => {
                self.origins.delivered(&from);
                self.starved = false;
                self.stages.renew(Instant::now());
                self.wanted.remove(&cid);
                self.refill();
                return Some(self.deliver(cid, data));
            }
            bitswap::Event::Stalled { .. } | bitswap::Event::NoPeers => self.starved = true,
            bitswap::Event::PeerBanned { peer, reason } => {
                tracing::info!(%peer, ?reason, root = %self.search.root, "a source was banned");
                let ban = self.network.bitswap().banned(&peer).unwrap_or_default();
                self.origins.banned(&peer, Instant::now() + ban);
            }
            bitswap::Event::TooLarge { cid, from } => self.on_too_large(cid, from),
            bitswap::Event::PeerGone(peer) => self.origins.lost(&peer, Instant::now()),
            bitswap::Event::DontHave { .. } => {}
        }
        None
    }

    /// Nobody can verify that a block is too large without reading it, and
    /// whoever says so may lie: any account can name an origin of a content
    /// that others want, and anybody can connect. So who says it is asked
    /// nothing more in this attempt, and the block is asked of others.
    fn on_too_large(&mut self, cid: BlockCid, from: PeerId) {
        tracing::info!(%cid, peer = %from, root = %self.search.root, "a source sends too large a block");
        self.too_large = Some(cid);
        self.origins.forget(&from);
        self.session.remove_peer(&from);
        self.hand_over(&[cid]);
    }

    /// Gives the session what it had no room for.
    fn refill(&mut self) {
        if !self.backlog.is_empty() {
            let backlog = std::mem::take(&mut self.backlog);
            self.hand_over(&backlog);
        }
    }

    fn hand_over(&mut self, cids: &[BlockCid]) {
        for (cid, refused) in self.session.want(cids.iter().copied()) {
            match refused {
                bitswap::Refused::TooMany => self.backlog.push(cid),
                other => tracing::debug!(%cid, ?other, "peers cannot be asked for a block"),
            }
        }
    }

    fn on_arrival(&mut self, arrival: &Result<PeerId, broadcast::error::RecvError>) {
        match *arrival {
            Ok(peer) if self.origins.contains(&peer) => {
                self.origin_reached = true;
                self.add_peer(peer);
            }
            // Whoever else connects is asked while even the root is searched.
            Ok(peer) if !self.arrived => self.add_stranger(peer),
            Ok(_) | Err(_) => {}
        }
    }

    fn on_provider(&mut self, provider: Option<Provider>) {
        match provider {
            // Anybody can publish a provider record for any root.
            Some(Provider { peer, addresses, .. }) => {
                let private = self.private && !self.network.is_public();
                self.dial_other(Some(peer), addresses, private);
            }
            None => self.providers = None,
        }
    }

    /// What there is to say about the search itself.
    fn news(&mut self) -> Option<Supply> {
        let over = self.stages.stage() == Stage::Nothing && !self.is_dialling() && self.providers.is_none();
        if over && self.starved && self.fetching == 0 && !self.wanted.is_empty() && !self.exhausted {
            self.exhausted = true;
            return Some(Supply::Exhausted(self.reason()));
        }
        let reason = if self.stages.stage() > Stage::Nodes && !self.origin_reached {
            Reason::OriginUnreachable
        } else {
            Reason::Searching
        };
        let news = !self.arrived && self.told != Some(reason);
        news.then(|| {
            self.told = Some(reason);
            Supply::Reason(reason)
        })
    }

    fn reason(&self) -> Reason {
        if self.too_large.is_some_and(|cid| self.wanted.contains_key(&cid)) {
            Reason::InvalidBlock
        } else if self.arrived {
            Reason::Retrieving
        } else if self.origin_reached {
            Reason::NoProviders
        } else {
            Reason::OriginUnreachable
        }
    }
}

impl<R: Reach> Exchange for Sources<R> {
    fn want(&mut self, cids: &[BlockCid]) {
        self.exhausted = false;
        if self.wanted.is_empty() {
            self.stages.renew(Instant::now());
        }
        self.wanted.extend(cids.iter().map(|cid| (*cid, 0)));
        self.hand_over(cids);
        // Without a peer nobody tells that there is none.
        self.starved |= self.known.is_empty();
    }

    fn stored(&mut self, cids: &[BlockCid]) {
        self.network.bitswap().notify_new(cids.iter().copied());
    }

    async fn next(&mut self) -> Supply {
        loop {
            self.advance();
            self.ask_gateways();
            if let Some(news) = self.news() {
                return news;
            }
            let stage_ends = self.stages.ends().filter(|_| self.starved);
            tokio::select! {
                event = self.session.next() => match event {
                    Some(event) => if let Some(supply) = self.on_session(event) { return supply; },
                    // The network is being shut down, and this attempt with it.
                    None => std::future::pending().await,
                },
                Some(found) = self.tasks.join_next() => {
                    if let Ok(Some(supply)) = found.map(|found| self.on_found(found)) { return supply; }
                }
                provider = next_provider(&mut self.providers) => self.on_provider(provider),
                arrival = self.arrivals.recv() => self.on_arrival(&arrival),
                Some(origins) = self.more_origins.recv() => {
                    self.dial_origins(&origins);
                }
                () = until(self.origins.next()) => self.dial_lost(),
                () = until(stage_ends) => {}
            }
        }
    }
}

async fn next_provider(providers: &mut Option<Providers>) -> Option<Provider> {
    match providers {
        Some(providers) => providers.next().await,
        None => std::future::pending().await,
    }
}
