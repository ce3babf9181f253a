//! A socket whose writes must get ahead.
//!
//! A client that takes nothing, or a byte now and then, would hold a place
//! among the requests for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// What has to be taken in [`PATIENCE`], in bytes, as long as there is more.
const PROGRESS: usize = 64 << 10;
/// Together about 1 KiB a second: the slowest line that anyone uses.
const PATIENCE: Duration = Duration::from_secs(60);

/// The socket.
pub(super) struct Watched {
    socket: TcpStream,
    deadline: Pin<Box<Sleep>>,
    patience: Duration,
    /// Bytes taken since a write had to wait, while one has.
    taken: Option<usize>,
}

impl Watched {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self::with_patience(socket, PATIENCE)
    }

    fn with_patience(socket: TcpStream, patience: Duration) -> Self {
        Self { socket, deadline: Box::pin(tokio::time::sleep(patience)), patience, taken: None }
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.taken = self.taken.map(|taken| taken + bytes).filter(|taken| *taken < PROGRESS);
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                if self.taken.is_none() {
                    self.taken = Some(0);
                    self.deadline.as_mut().reset(Instant::now() + self.patience);
                }
                ready!(self.deadline.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Everything was taken: nobody waits.
        self.taken = None;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair(patience: Duration) -> (Watched, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        (Watched::with_patience(listener.accept().await.expect("a connection").0, patience), client)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_left() {
        let (mut server, _client) = pair(Duration::from_millis(20)).await;
        let error = server.write_all(&vec![0; 64 << 20]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_on_is_served() {
        let (mut server, mut client) = pair(Duration::from_secs(20)).await;
        let total = 32 << 20;
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; 32 << 20];
            client.read_exact(&mut bytes).await.map(|_| ())
        });
        server.write_all(&vec![0; total]).await.expect("it reads");
        server.flush().await.expect("it reads");
        assert_eq!(server.taken, None);
        reading.await.expect("no panic").expect("all bytes");
    }
}
