//! Who is connected and who is expected: what the network's handle and the
//! behaviour share.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::Waker,
};

use futures::task::AtomicWaker;
use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::recent::Recent;

/// Arrivals that a slow receiver may lag behind before it loses the oldest.
/// Who lags asks for the connected peers.
const ARRIVALS: usize = 256;

#[derive(Default)]
struct State {
    expected: HashMap<PeerId, usize>,
    connected: HashMap<PeerId, usize>,
    /// Peers whose expectation changed since the behaviour last looked. No
    /// larger than the set of peers that have a connection.
    changed: HashSet<PeerId>,
    /// Peers to disconnect; all of them are connected.
    leave: HashSet<PeerId>,
    recent: Recent,
}

/// What the handle and the behaviour share.
pub(in crate::net) struct Shared {
    state: Mutex<State>,
    waker: AtomicWaker,
    arrivals: broadcast::Sender<PeerId>,
}

impl Shared {
    pub(in crate::net) fn new() -> Arc<Self> {
        let (arrivals, _) = broadcast::channel(ARRIVALS);
        Arc::new(Self { state: Mutex::default(), waker: AtomicWaker::new(), arrivals })
    }

    pub(in crate::net) fn arrivals(&self) -> broadcast::Receiver<PeerId> {
        self.arrivals.subscribe()
    }

    pub(in crate::net) fn newcomers(&self) -> (Vec<PeerId>, broadcast::Receiver<PeerId>) {
        let state = self.state.lock();
        (state.recent.peers(Instant::now()), self.arrivals.subscribe())
    }

    pub(in crate::net) fn is_connected(&self, peer: &PeerId) -> bool {
        self.state.lock().connected.contains_key(peer)
    }

    pub(in crate::net) fn connected(&self) -> Vec<PeerId> {
        self.state.lock().connected.keys().copied().collect()
    }

    pub(in crate::net) fn is_expected(&self, peer: &PeerId) -> bool {
        self.state.lock().expected.contains_key(peer)
    }

    pub(in crate::net) fn disconnect(&self, peer: PeerId) {
        let mut state = self.state.lock();
        if state.connected.contains_key(&peer) {
            state.leave.insert(peer);
            self.waker.wake();
        }
    }

    pub(in crate::net) fn expect(self: &Arc<Self>, peer: PeerId) -> Expectation {
        let mut state = self.state.lock();
        let count = state.expected.entry(peer).or_default();
        *count += 1;
        if *count == 1 {
            self.changed(&mut state, peer);
        }
        Expectation { shared: self.clone(), peer }
    }

    fn release(&self, peer: PeerId) {
        let mut state = self.state.lock();
        if let Some(count) = state.expected.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                state.expected.remove(&peer);
                self.changed(&mut state, peer);
            }
        }
    }

    /// Counts a connection; whether it is the peer's first.
    pub(super) fn opened(&self, peer: PeerId) -> bool {
        let mut state = self.state.lock();
        let count = state.connected.entry(peer).or_default();
        *count += 1;
        *count == 1
    }

    /// A connection is gone. Nothing is left to be done about a peer with its
    /// last one.
    pub(super) fn closed(&self, peer: PeerId) {
        let mut state = self.state.lock();
        if let Some(count) = state.connected.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                state.connected.remove(&peer);
                state.changed.remove(&peer);
                state.leave.remove(&peer);
            }
        }
    }

    /// Tells who asked for it that a peer has connected.
    pub(super) fn announce(&self, peer: PeerId) {
        let mut state = self.state.lock();
        state.recent.add(peer, Instant::now());
        // Nobody may be listening, which is no failure.
        let _ = self.arrivals.send(peer);
    }

    /// The peers whose expectation changed, and one peer to disconnect.
    pub(super) fn take_changes(&self) -> (HashSet<PeerId>, Option<PeerId>) {
        let mut state = self.state.lock();
        let leave = state.leave.iter().next().copied();
        if let Some(peer) = leave {
            state.leave.remove(&peer);
        }
        (std::mem::take(&mut state.changed), leave)
    }

    /// Who is woken when there is a change.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn changed(&self, state: &mut State, peer: PeerId) {
        if state.connected.contains_key(&peer) {
            state.changed.insert(peer);
            self.waker.wake();
        }
    }
}

/// While it lives, the connection with one peer is kept, or the next one that
/// the peer opens.
pub struct Expectation {
    shared: Arc<Shared>,
    peer: PeerId,
}

impl Expectation {
    /// Who is expected.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        self.shared.release(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn whoever_connects_is_recent_or_arrives() {
        let (shared, stop) = (Shared::new(), Arc::new(AtomicBool::new(false)));
        let peers: Vec<_> = (0..1_000).map(|_| PeerId::random()).collect();
        let (all, announcing, stopped) = (peers.clone(), shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let unending = all.into_iter().cycle().take_while(|_| !stopped.load(Ordering::Relaxed));
            unending.for_each(|peer| announcing.announce(peer));
        });
        for _ in 0..500 {
            let (recent, mut arrivals) = shared.newcomers();
            let Ok(next) = arrivals.blocking_recv() else { continue };
            let at = peers.iter().position(|peer| *peer == next).unwrap();
            let before = peers[(at + peers.len() - 1) % peers.len()];
            assert!(recent.is_empty() || recent[0] == before, "one was missed or told twice");
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
