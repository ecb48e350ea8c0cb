//! The socket of an unencrypted connection. Its task reads and writes it as any other; whoever hands over
//! events may write to it too, while the task has nothing to write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One end of the socket.
pub(super) struct Line {
    socket: Arc<TcpStream>,
    /// Read before the line was taken over.
    early: Bytes,
}

impl Line {
    pub(super) fn new(socket: TcpStream, early: Bytes) -> Self {
        Self { socket: Arc::new(socket), early }
    }

    /// The end for whoever hands over events.
    pub(super) fn other_end(&self) -> Arc<TcpStream> {
        Arc::clone(&self.socket)
    }
}

fn poll_io<T>(
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    mut done: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(ready())?;
        match done() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let most = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..most]);
            self.early.advance(most);
            return Poll::Ready(Ok(()));
        }
        let socket = &self.socket;
        poll_io(|| socket.poll_read_ready(cx), || socket.try_read_buf(buffer)).map_ok(drop)
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_io(|| self.socket.poll_write_ready(cx), || self.socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_io(|| self.socket.poll_write_ready(cx), || self.socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.socket, Shutdown::Write).map_err(Into::into))
    }
}
