//! Streams that a peer has opened.
//!
//! Peers keep one stream for their wantlists and open another for each answer;
//! boxo does, others keep one for all. So many are accepted, each is read as
//! its bytes come, and when there are too many the one that matters least is
//! dropped: first those that never carried a message, then the one that has
//! been idle longest.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::SelectAll;
use futures::task::AtomicWaker;
use futures::{AsyncRead, Stream as _};

use crate::link::Link;
use crate::shared::Shared;
use crate::wire::Item;
use crate::wire::decode::{DecodeError, Decoder};

/// Inbound streams of one connection. Kubo has eight answers under way.
const MAX_STREAMS: usize = 256;

/// Bytes of blocks in part, of one connection: eight of the largest.
const MAX_PARTIAL: usize = 16 << 20;

/// The same of all connections.
const MAX_ALL_PARTIAL: usize = 48 << 20;

/// How long a stream may be silent within a message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a stream may be silent between messages.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Why an inbound stream is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InboundError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("too many bytes of blocks have arrived in part")]
    Memory,
}

/// Closes a stream from outside.
#[derive(Debug, Default)]
struct Control {
    closed: AtomicBool,
    waker: AtomicWaker,
}

impl Control {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// One stream.
struct Inbound {
    id: u64,
    stream: libp2p::Stream,
    decoder: Decoder,
    link: Arc<Link>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    /// What is accounted for of the decoder's memory.
    accounted: usize,
    failed: bool,
}

impl Inbound {
    /// Brings the counts of partial bytes up to date; false when they exceed
    /// their bounds.
    fn account(&mut self) -> bool {
        let held = self.decoder.held();
        let partial = self.link.partial();
        if held >= self.accounted {
            let more = held - self.accounted;
            self.accounted = held;
            let ours = partial.fetch_add(more, Ordering::Relaxed) + more;
            let all = self.shared.partial.fetch_add(more, Ordering::Relaxed) + more;
            more == 0 || (ours <= MAX_PARTIAL && all <= MAX_ALL_PARTIAL)
        } else {
            let less = self.accounted - held;
            self.accounted = held;
            partial.fetch_sub(less, Ordering::Relaxed);
            self.shared.partial.fetch_sub(less, Ordering::Relaxed);
            true
        }
    }

    fn fail(&mut self, error: impl Into<InboundError>) -> Poll<Option<Received>> {
        self.failed = true;
        Poll::Ready(Some((self.id, Err(error.into()))))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.link.partial().fetch_sub(self.accounted, Ordering::Relaxed);
        self.shared.partial.fetch_sub(self.accounted, Ordering::Relaxed);
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream's number, and what it gave.
type Received = (u64, Result<Item, InboundError>);

impl futures::Stream for Inbound {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let this = self.get_mut();
        this.control.waker.register(cx.waker());
        if this.failed || this.control.closed.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        loop {
            match this.decoder.next(this.link.expects_blocks()) {
                Err(error) => return this.fail(error),
                Ok(Some(item)) => {
                    this.account();
                    return Poll::Ready(Some((this.id, Ok(item))));
                }
                Ok(None) => {}
            }
            let room = this.decoder.room();
            match Pin::new(&mut this.stream).poll_read(cx, room) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(count)) => this.decoder.filled(count),
                Poll::Pending => return Poll::Pending,
            }
            if !this.account() {
                return this.fail(InboundError::Memory);
            }
        }
    }
}

/// What is known of an open stream from outside.
struct Slot {
    control: Arc<Control>,
    last: Instant,
    messages: usize,
    /// Something came since the last message.
    within_message: bool,
}

/// The inbound streams of one connection.
pub(crate) struct Streams {
    link: Arc<Link>,
    shared: Arc<Shared>,
    streams: SelectAll<Inbound>,
    slots: HashMap<u64, Slot>,
    next: u64,
}

impl Streams {
    pub(crate) fn new(link: Arc<Link>, shared: Arc<Shared>) -> Self {
        Self { link, shared, streams: SelectAll::new(), slots: HashMap::new(), next: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Reads from one more stream.
    pub(crate) fn push(&mut self, mut stream: libp2p::Stream, now: Instant) {
        stream.ignore_for_keep_alive();
        self.forget_ended();
        if self.slots.len() >= MAX_STREAMS {
            self.drop_least();
        }
        let id = self.next;
        self.next += 1;
        let control = Arc::new(Control::default());
        self.slots
            .insert(id, Slot { control: control.clone(), last: now, messages: 0, within_message: false });
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        self.streams.push(Inbound {
            id,
            stream,
            decoder: Decoder::default(),
            link: self.link.clone(),
            shared: self.shared.clone(),
            control,
            accounted: 0,
            failed: false,
        });
    }

    /// Drops the slots of streams that have ended.
    fn forget_ended(&mut self) {
        if self.slots.len() > self.streams.len() {
            self.slots.retain(|_, slot| Arc::strong_count(&slot.control) > 1);
        }
    }

    fn drop_least(&mut self) {
        let least =
            self.slots.iter().min_by_key(|(_, slot)| (slot.messages > 0, slot.last)).map(|(id, _)| *id);
        if let Some(slot) = least.and_then(|id| self.slots.remove(&id)) {
            slot.control.close();
            self.shared.metrics.dropped_streams.increment(1);
        }
    }

    /// The next part of a message on any stream.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<Item, InboundError>> {
        match Pin::new(&mut self.streams).poll_next(cx) {
            Poll::Ready(Some((id, received))) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    let ended = matches!(received, Ok(Item::End(_)));
                    slot.last = now;
                    slot.messages += usize::from(ended);
                    slot.within_message = !ended;
                }
                Poll::Ready(received)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Closes streams that were silent for too long.
    pub(crate) fn close_idle(&mut self, now: Instant) {
        self.forget_ended();
        self.slots.retain(|_, slot| {
            let silent = now.saturating_duration_since(slot.last);
            let limit = if slot.within_message { MESSAGE_TIMEOUT } else { IDLE_TIMEOUT };
            if silent >= limit {
                slot.control.close();
            }
            silent < limit
        });
    }
}
