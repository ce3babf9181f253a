//! The body of an answer.
//!
//! Long ones are read in batches on blocking threads, of which few work for
//! the gateway at once. While a batch is sent the next one is read, no
//! further: a slow client holds two of them. An error in mid-stream breaks the
//! connection, so that nobody takes a part for the whole.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{car::Pieces, source::Unserved};

/// Bytes that are read before they are handed to the connection: enough to
/// keep it busy, little enough that a slow client holds little. The last
/// block, of up to 2 MiB, comes on top.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// Blocks that are looked at in one batch, where they are tiny or were sent
/// before.
pub(super) const BATCH_VISITS: usize = 4_096;
/// Threads that read and decode for the gateway at once. Decoding a block made
/// for it may take some 30 MiB for a moment.
const READERS: usize = 8;

/// Something that is read in batches.
pub(super) trait Batches: Send + 'static {
    /// The next pieces. Blocks the thread.
    ///
    /// # Errors
    /// When a block is missing, denied or invalid: the answer ends there,
    /// incomplete.
    fn next(&mut self) -> Result<Batch, Unserved>;
}

/// Pieces in order. There may be none though more follow.
pub(super) struct Batch {
    pub(super) pieces: Vec<Bytes>,
    pub(super) is_last: bool,
}

impl Batch {
    /// What was gathered, and whether it was the last. An error is kept for
    /// the next turn where something was read before it: that is sent before
    /// the stream breaks.
    pub(super) fn of(
        pieces: Pieces,
        filled: Result<bool, Unserved>,
        failed: &mut Option<Unserved>,
    ) -> Result<Self, Unserved> {
        let pieces = pieces.finish();
        match filled {
            Ok(is_last) => Ok(Self { pieces, is_last }),
            Err(error) if pieces.is_empty() => Err(error),
            Err(error) => {
                *failed = Some(error);
                Ok(Self { pieces, is_last: false })
            }
        }
    }
}

/// The threads that read.
#[derive(Clone)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

impl Readers {
    /// Runs something that blocks, when its turn comes.
    ///
    /// # Errors
    /// [`Unserved::Cancelled`] when it panicked or the runtime ends.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unserved> {
        let permit = self.0.acquire_owned().await.map_err(|_| Unserved::Cancelled)?;
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Unserved::Cancelled)
    }
}

type Turn = (Box<dyn Batches>, Result<Batch, Unserved>);
type Reading = Pin<Box<dyn Future<Output = Result<Turn, Unserved>> + Send>>;

/// A place among the requests that are answered at once.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("pinfold_gateway_requests").increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("pinfold_gateway_requests").decrement(1.0);
    }
}

/// A body, and the place that it holds until it ends.
pub(super) struct Body {
    content: Content,
    _place: Option<Place>,
}

enum Content {
    Empty,
    Full(Bytes),
    Stream(Stream),
}

struct Stream {
    readers: Readers,
    pieces: VecDeque<Bytes>,
    ahead: Ahead,
    /// The exact number of bytes to come, where it is known.
    left: Option<u64>,
}

enum Ahead {
    Reading(Reading),
    Read(Result<Turn, Unserved>),
    Failed(Unserved),
    End,
}

impl Body {
    pub(super) fn empty() -> Self {
        Self { content: Content::Empty, _place: None }
    }

    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Full(bytes.into()), _place: None }
    }

    /// A body whose length is not known.
    pub(super) fn stream(readers: Readers, batches: Box<dyn Batches>) -> Self {
        let ahead = read(readers.clone(), batches);
        let stream = Stream { readers, pieces: VecDeque::new(), ahead, left: None };
        Self { content: Content::Stream(stream), _place: None }
    }

    /// A body of so many bytes whose first batch was read.
    pub(super) fn begun(readers: Readers, first: Batch, batches: Box<dyn Batches>, length: u64) -> Self {
        let ahead = Ahead::Read(Ok((batches, Ok(first))));
        let stream = Stream { readers, pieces: VecDeque::new(), ahead, left: Some(length) };
        Self { content: Content::Stream(stream), _place: None }
    }

    /// Holds a place among the requests until the body ends.
    pub(super) fn holding(mut self, place: Place) -> Self {
        self._place = Some(place);
        self
    }
}

fn read(readers: Readers, mut batches: Box<dyn Batches>) -> Ahead {
    Ahead::Reading(Box::pin(readers.run(move || {
        let batch = batches.next();
        (batches, batch)
    })))
}

impl Stream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Unserved>>> {
        loop {
            // Also while there are pieces: it makes the next batch begin.
            if let Ahead::Reading(reading) = &mut self.ahead
                && let Poll::Ready(turn) = reading.as_mut().poll(context)
            {
                self.ahead = Ahead::Read(turn);
            }
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(self.count(piece)));
            }
            match std::mem::replace(&mut self.ahead, Ahead::End) {
                Ahead::Reading(reading) => {
                    self.ahead = Ahead::Reading(reading);
                    return Poll::Pending;
                }
                Ahead::Read(Ok((batches, Ok(batch)))) => {
                    self.pieces.extend(batch.pieces);
                    if !batch.is_last {
                        self.ahead = read(self.readers.clone(), batches);
                    }
                }
                Ahead::Read(Ok((_, Err(error))) | Err(error)) => {
                    // The connection writes out what it has while it waits,
                    // and drops it when the body fails: it waits once.
                    self.ahead = Ahead::Failed(error);
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ahead::Failed(error) => return Poll::Ready(Some(Err(error))),
                Ahead::End => return Poll::Ready(None),
            }
        }
    }

    /// Nothing beyond the length that was announced leaves, whatever the
    /// blocks say.
    fn count(&mut self, piece: Bytes) -> Result<Bytes, Unserved> {
        let length = piece.len() as u64;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(length).ok_or(Unserved::Limit("the file is longer than it says"))?;
        }
        metrics::counter!("pinfold_gateway_bytes_total").increment(length);
        Ok(piece)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Unserved;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unserved>>> {
        let piece = match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                metrics::counter!("pinfold_gateway_bytes_total").increment(bytes.len() as u64);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Content::Stream(stream) => stream.poll(context),
        };
        if let Poll::Ready(Some(Err(error))) = &piece {
            broken(error);
            self.content = Content::Empty;
        }
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(stream) => stream.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

fn broken(error: &Unserved) {
    metrics::counter!("pinfold_gateway_streams_broken_total", "reason" => error.word()).increment(1);
    match error {
        Unserved::Store(source) => tracing::error!(error = %source, "a gateway's answer was broken off"),
        error => tracing::info!(%error, "a gateway's answer was broken off"),
    }
}
