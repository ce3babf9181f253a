//! Bounds on the streams that peers open.
//!
//! A stream costs up to its receive window (256 KiB) while nobody reads it, so
//! what a peer, and all peers together, may have open is capped below the
//! protocols. A stream beyond a cap is reset at once; nothing else of the
//! connection suffers.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::io::{AsyncRead, AsyncWrite, IoSlice, IoSliceMut};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

use super::Limits;

/// Streams reset in one go before other work gets its turn.
const RESETS_AT_ONCE: usize = 32;

/// Counts the open inbound streams of all connections.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    open: Arc<AtomicUsize>,
    limit: usize,
    limit_per_connection: usize,
}

impl Streams {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            open: Arc::default(),
            limit: limits.streams,
            limit_per_connection: limits.streams_per_connection,
        }
    }

    /// Puts the caps on one connection.
    pub(super) fn limit<M>(&self, muxer: M) -> Limited<M> {
        Limited { muxer, streams: self.clone(), open: Arc::default() }
    }

    /// Open inbound streams.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A connection whose inbound streams are counted.
pub(super) struct Limited<M> {
    muxer: M,
    streams: Streams,
    open: Arc<AtomicUsize>,
}

impl<M> Limited<M> {
    fn admit(&self) -> Option<Slot> {
        let slot = Slot([self.streams.open.clone(), self.open.clone()]);
        let total = slot.0[0].fetch_add(1, Ordering::Relaxed);
        let here = slot.0[1].fetch_add(1, Ordering::Relaxed);
        // Dropping the slot takes the counts back.
        (total < self.streams.limit && here < self.streams.limit_per_connection).then_some(slot)
    }
}

/// The place that a stream takes in both counts.
#[derive(Debug)]
struct Slot([Arc<AtomicUsize>; 2]);

impl Drop for Slot {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<M> StreamMuxer for Limited<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = Counted<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        for _ in 0..RESETS_AT_ONCE {
            let stream = futures::ready!(Pin::new(&mut self.muxer).poll_inbound(cx))?;
            if let Some(slot) = self.admit() {
                return Poll::Ready(Ok(Counted { stream, _slot: Some(slot) }));
            }
            metrics::counter!("pinfold_net_streams_refused_total").increment(1);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        // Our own protocols bound what they open.
        Pin::new(&mut self.muxer).poll_outbound(cx).map_ok(|stream| Counted { stream, _slot: None })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

/// A stream that gives its place back when it is dropped.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    _slot: Option<Slot>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read_vectored(cx, buffers)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::io::Cursor;

    use super::*;

    /// A peer that opens streams without end.
    struct Flood;

    impl StreamMuxer for Flood {
        type Substream = Cursor<Vec<u8>>;
        type Error = Infallible;

        fn poll_inbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<Self::Substream, Infallible>> {
            Poll::Ready(Ok(Cursor::default()))
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<Self::Substream, Infallible>> {
            Poll::Ready(Ok(Cursor::default()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Infallible>> {
            Poll::Pending
        }
    }

    type Accepted = Poll<Result<Counted<Cursor<Vec<u8>>>, Infallible>>;

    fn accept(connection: &mut Limited<Flood>) -> Accepted {
        Pin::new(connection).poll_inbound(&mut Context::from_waker(futures::task::noop_waker_ref()))
    }

    fn fill(connection: &mut Limited<Flood>) -> Vec<Accepted> {
        std::iter::from_fn(|| Some(accept(connection)).filter(Poll::is_ready)).collect()
    }

    #[test]
    fn streams_beyond_a_cap_are_reset_until_one_is_closed() {
        let limits = Limits { streams: 8, streams_per_connection: 5, ..Limits::default() };
        let streams = Streams::new(&limits);
        let (mut first, mut second) = (streams.limit(Flood), streams.limit(Flood));
        let mut open = fill(&mut first);
        assert_eq!(open.len(), 5);
        let others = fill(&mut second);
        assert_eq!((others.len(), streams.open()), (3, 8));
        open.pop();
        assert_eq!(streams.open(), 7);
        assert!(accept(&mut second).is_ready());
        drop((open, others));
        assert_eq!(streams.open(), 0);
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        let _own = Pin::new(&mut first).poll_outbound(&mut cx);
        assert_eq!(streams.open(), 0, "what this node opens is not counted");
    }
}
