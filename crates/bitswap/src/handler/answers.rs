//! Answers to a peer's wants: while a batch of them is written, the blocks of
//! the next are read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use tokio::task::JoinHandle;

use super::writer::{Progress, Writer};
use crate::Blocks;
use crate::link::Link;
use crate::server::Batch;
use crate::shared::Shared;
use crate::wire::{Version, encode};

/// The next batch is taken while one of so many bytes or more is written.
/// Beside a smaller one nothing is won, and answers that come meanwhile share
/// a message.
const AHEAD_OF: usize = 256 << 10;

/// The batch after the one that is written.
struct Next {
    read: Read,
    /// What it weighs.
    bytes: usize,
}

enum Read {
    Reading(JoinHandle<Answered>),
    Done(Answered),
}

/// Answers whose blocks have been read.
#[derive(Default)]
struct Answered {
    blocks: Vec<(Cid, Bytes)>,
    presences: Vec<(Cid, bool)>,
}

/// The answers that go over one connection.
pub(super) struct Answers {
    link: Arc<Link>,
    shared: Arc<Shared>,
    pub(super) writer: Writer,
    /// The version of the last stream.
    version: Version,
    /// What the batch that is written weighs.
    writing: usize,
    next: Option<Next>,
}

impl Answers {
    pub(super) fn new(link: Arc<Link>, shared: Arc<Shared>) -> Self {
        let (writer, version) = (Writer::default(), Version::V1_2);
        Self { link, shared, writer, version, writing: 0, next: None }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.writer.is_busy() || self.next.is_some()
    }

    /// Reads and writes; true when a stream is to be opened.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        loop {
            if self.writing >= AHEAD_OF && self.writer.has_stream() {
                self.take_next();
            }
            self.poll_next(cx);
            let Poll::Ready(progress) = self.writer.poll(cx) else { return false };
            match progress {
                Progress::NoStream => {
                    let mut server = self.shared.server.lock();
                    server.leave_queue(&self.link);
                    let wanted = self.is_busy() || server.has_answers(&self.link.peer);
                    return wanted && self.writer.request(now);
                }
                Progress::Idle(version) => {
                    self.version = version;
                    self.take_next();
                    self.poll_next(cx);
                    if !self.write_next(now) {
                        return false;
                    }
                }
                Progress::Written => {
                    self.shared.metrics.sent_messages.increment(1);
                    self.shared.server.lock().sent(std::mem::take(&mut self.writing));
                }
                Progress::Closed => {}
                Progress::GivenUp => {
                    self.shared.server.lock().give_up(&self.link.peer);
                    self.give_back();
                }
            }
        }
    }

    /// Takes the next batch, if there is none yet, and has its blocks read on
    /// a thread that may wait for a disk.
    fn take_next(&mut self) {
        if self.next.is_some() {
            return;
        }
        let Some(batch) = self.shared.server.lock().take_batch(&self.link, self.version) else { return };
        let bytes = batch.bytes;
        let read = if batch.blocks.is_empty() {
            Read::Done(Answered { presences: batch.presences, ..Answered::default() })
        } else {
            let (blocks, peer) = (self.shared.blocks.clone(), self.link.peer);
            Read::Reading(tokio::task::spawn_blocking(move || read(&*blocks, &peer, batch)))
        };
        self.next = Some(Next { read, bytes });
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) {
        let Some(next) = &mut self.next else { return };
        let Read::Reading(reading) = &mut next.read else { return };
        let Poll::Ready(answered) = Pin::new(reading).poll(cx) else { return };
        // Else the runtime shuts down, or the block store panicked.
        next.read = Read::Done(answered.unwrap_or_default());
    }

    /// Begins to write the next batch; false when there is none, or it is
    /// still read.
    fn write_next(&mut self, now: Instant) -> bool {
        match self.next.take() {
            Some(Next { read: Read::Done(answered), bytes }) => {
                self.writing = bytes;
                self.write(&answered, now);
                true
            }
            other => {
                self.next = other;
                false
            }
        }
    }

    fn write(&mut self, answered: &Answered, now: Instant) {
        let presences: &[_] = if self.version.has_presences() { &answered.presences } else { &[] };
        if answered.blocks.is_empty() && presences.is_empty() {
            self.shared.server.lock().sent(std::mem::take(&mut self.writing));
            return;
        }
        let bytes: usize = answered.blocks.iter().map(|(_, data)| data.len()).sum();
        self.shared.metrics.sent_blocks.increment(answered.blocks.len() as u64);
        self.shared.metrics.sent_bytes.increment(bytes as u64);
        self.shared.metrics.sent_presences.increment(presences.len() as u64);
        self.writer.start(encode::response(&answered.blocks, presences, self.version), now);
    }

    /// Gives back what is taken of the memory for answers; nothing more is
    /// sent of them.
    pub(super) fn give_back(&mut self) {
        let ahead = self.next.take().map_or(0, |next| next.bytes);
        self.shared.server.lock().sent(std::mem::take(&mut self.writing) + ahead);
    }
}

fn read(blocks: &dyn Blocks, peer: &PeerId, batch: Batch) -> Answered {
    let mut answered =
        Answered { blocks: Vec::with_capacity(batch.blocks.len()), presences: batch.presences };
    for (cid, send_dont_have) in batch.blocks {
        match blocks.get(peer, &cid) {
            Some(data) => answered.blocks.push((cid, data)),
            None if send_dont_have => answered.presences.push((cid, false)),
            None => {}
        }
    }
    answered
}
