//! Live pins: one reader for all subscribers of this process.
//!
//! A subscriber holds a [`watch::Receiver`] of one pin. Once a second, if the
//! database told of any change since, the pins of all subscribers are read in
//! one statement and those that differ are sent. A change that was missed
//! because the channel lagged is found by a full read every few seconds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::ApiError;
use crate::db::{AccountId, Changed, Database, PinRecord};

/// Streams of one process; what one read looks up at most.
const MAX_STREAMS: usize = 1_000;
/// Streams of one account: as many pins as a page of a web console shows.
const MAX_STREAMS_OF_ACCOUNT: usize = 100;
/// Between two reads.
const TICK: Duration = Duration::from_secs(1);
/// Ticks after which everything is read although no change was told.
const FULL_READ: u32 = 10;

/// What a stream shows: the pin, or none once it was removed.
pub(crate) type Latest = Option<PinRecord>;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<HashMap<Uuid, Watched>>>);

struct Watched {
    account: AccountId,
    content: i64,
    sender: watch::Sender<Latest>,
}

impl Hub {
    /// Watches a pin from this state of it on.
    ///
    /// # Errors
    /// `TooManyRequests` when the account or the process has too many streams.
    pub(crate) fn subscribe(&self, pin: &PinRecord) -> Result<watch::Receiver<Latest>, ApiError> {
        let mut watched = self.0.lock();
        watched.retain(|_, entry| entry.sender.receiver_count() > 0);
        let streams = |of: &dyn Fn(&Watched) -> bool| -> usize {
            watched.values().filter(|entry| of(entry)).map(|entry| entry.sender.receiver_count()).sum()
        };
        let own = |entry: &Watched| entry.account == pin.account;
        if streams(&|_| true) >= MAX_STREAMS || streams(&own) >= MAX_STREAMS_OF_ACCOUNT {
            return Err(ApiError::TooManyRequests {
                reason: "too many live streams are open; close some, or poll the pin".into(),
                retry_after: Duration::from_secs(60),
            });
        }
        let entry = watched.entry(pin.requestid).or_insert_with(|| Watched {
            account: pin.account,
            content: pin.content,
            sender: watch::channel(Some(pin.clone())).0,
        });
        Ok(entry.sender.subscribe())
    }

    /// Reads for all subscribers until it is cancelled.
    pub(crate) async fn run(self, database: Database, stopping: CancellationToken) {
        let mut changes = database.subscribe();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Some(open) = self.due(&mut changes, &mut quiet) else { continue };
            match database.pins(&open).await {
                Ok(pins) => self.publish(&open, pins),
                Err(error) => tracing::warn!(%error, "live pins cannot be read"),
            }
        }
    }

    /// What is to be read in this tick, for all streams together; nothing where
    /// no change was told for some ticks, which `quiet` counts.
    fn due(&self, changes: &mut broadcast::Receiver<Changed>, quiet: &mut u32) -> Option<Vec<Uuid>> {
        *quiet += 1;
        let (open, told) = (self.open_streams(), self.told(changes));
        let is_due = !open.is_empty() && (told || *quiet >= FULL_READ);
        is_due.then(|| {
            *quiet = 0;
            open
        })
    }

    fn open_streams(&self) -> Vec<Uuid> {
        let mut watched = self.0.lock();
        watched.retain(|_, entry| entry.sender.receiver_count() > 0);
        let streams: usize = watched.values().map(|entry| entry.sender.receiver_count()).sum();
        metrics::gauge!("pinfold_event_streams").set(u32::try_from(streams).unwrap_or(u32::MAX));
        watched.keys().copied().collect()
    }

    /// Whether a change of a watched content was told since the last look.
    fn told(&self, changes: &mut broadcast::Receiver<Changed>) -> bool {
        let mut told = false;
        loop {
            match changes.try_recv() {
                Ok(change) => {
                    told |= self.0.lock().values().any(|entry| change.concerns(entry.content));
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => told = true,
                Err(_) => return told,
            }
        }
    }

    fn publish(&self, read: &[Uuid], pins: Vec<PinRecord>) {
        let mut found: HashMap<Uuid, PinRecord> = pins.into_iter().map(|pin| (pin.requestid, pin)).collect();
        let watched = self.0.lock();
        for requestid in read {
            let Some(entry) = watched.get(requestid) else { continue };
            let latest = found.remove(requestid).filter(|pin| pin.account == entry.account);
            entry.sender.send_if_modified(|shown| {
                let differs = *shown != latest;
                *shown = latest;
                differs
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pinfold_core::status::Status;

    use super::*;
    use crate::db::PinInfo;

    fn pin(account: AccountId, id: u128) -> PinRecord {
        PinRecord {
            requestid: Uuid::from_u128(id),
            account,
            content: 1,
            created: 0,
            cid: "bafkqaaa".to_owned(),
            name: None,
            meta: BTreeMap::new(),
            origins: Vec::new(),
            status: Status::Queued,
            info: PinInfo::default(),
            delegates: Vec::new(),
        }
    }

    #[test]
    fn streams_are_bounded_and_freed() {
        let hub = Hub::default();
        let mut streams = Vec::new();
        for _ in 0..MAX_STREAMS_OF_ACCOUNT {
            streams.push(hub.subscribe(&pin(1, 1)).unwrap());
        }
        assert!(hub.subscribe(&pin(1, 2)).is_err(), "the account's bound");
        assert!(hub.subscribe(&pin(2, 3)).is_ok());
        drop(streams);
        assert!(hub.subscribe(&pin(1, 2)).is_ok(), "closed streams do not count");
    }

    #[test]
    fn a_change_of_what_is_watched_or_of_anything_is_heard() {
        let (hub, (sender, mut changes)) = (Hub::default(), broadcast::channel(4));
        let _stream = hub.subscribe(&pin(1, 1)).unwrap();
        for (content, heard) in [(1, true), (2, false), (Changed::ANY.content, true)] {
            sender.send(Changed { content, work: false }).unwrap();
            assert_eq!(hub.told(&mut changes), heard, "{content}");
        }
        assert!(!hub.told(&mut changes), "nothing since");
    }

    #[test]
    fn one_read_in_a_tick_serves_all_streams() {
        let (hub, (sender, mut changes), mut quiet) = (Hub::default(), broadcast::channel(4), 0);
        let mut due = |hub: &Hub| hub.due(&mut changes, &mut quiet).map(|open| open.len());
        assert_eq!(due(&hub), None, "nobody watches");
        let streams: Vec<_> = (0..60).map(|id| hub.subscribe(&pin(1, id % 30)).unwrap()).collect();
        (0..3).for_each(|_| drop(sender.send(Changed { content: 1, work: false })));
        assert_eq!([due(&hub), due(&hub)], [Some(30), None], "of many changes and streams");
        (0..100).for_each(|_| drop(sender.send(Changed { content: 2, work: false })));
        assert_eq!([due(&hub), due(&hub)], [Some(30), None], "of more than can be told");
        let unasked: Vec<_> = (2..=FULL_READ).filter_map(|_| due(&hub)).collect();
        assert_eq!(unasked, [30], "once while nothing is told");
        drop(streams);
        sender.send(Changed { content: 1, work: false }).unwrap();
        assert_eq!(due(&hub), None, "all have left");
    }

    #[test]
    fn only_what_differs_is_sent() {
        let hub = Hub::default();
        let mut stream = hub.subscribe(&pin(1, 1)).unwrap();
        let id = Uuid::from_u128(1);
        hub.publish(&[id], vec![pin(1, 1)]);
        assert!(!stream.has_changed().unwrap());
        hub.publish(&[id], vec![PinRecord { status: Status::Pinned, ..pin(1, 1) }]);
        assert!(stream.has_changed().unwrap());
        assert_eq!(stream.borrow_and_update().as_ref().unwrap().status, Status::Pinned);
        hub.publish(&[id], Vec::new());
        assert_eq!(*stream.borrow_and_update(), None, "removed");
    }
}
