//! A stream whose client must read what it is sent.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes that must be written in time.
const SHARE: usize = 1 << 20;

/// A stream whose writes fail when the next mebibyte, or what is left, cannot be written in time.
/// So a client that reads a byte now and then does not keep its answer in memory for ever.
pub struct WriteDeadline<S> {
    stream: S,
    time: Duration,
    /// Runs from the first write that had to wait until everything is written.
    limit: Option<Pin<Box<Sleep>>>,
    /// Bytes written while the limit runs.
    written: usize,
}

impl<S> WriteDeadline<S> {
    /// Wraps `stream`, with this time for each mebibyte.
    pub fn new(stream: S, time: Duration) -> WriteDeadline<S> {
        WriteDeadline { stream, time, limit: None, written: 0 }
    }

    fn check(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        match wrote {
            Poll::Pending => {
                let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(self.time)));
                ready!(limit.as_mut().poll(context));
                Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client reads too slowly")))
            }
            Poll::Ready(Ok(bytes)) => {
                self.written += bytes;
                if self.written >= SHARE {
                    self.rest();
                }
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }

    fn rest(&mut self) {
        (self.limit, self.written) = (None, 0);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.check(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.rest(); // a flush follows the last write
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Accepts so many bytes at a time, with a pause after each time.
    struct Slow {
        most: usize,
        pause: Duration,
        wait: Option<Pin<Box<Sleep>>>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
            }
            self.wait = Some(Box::pin(sleep(self.pause)));
            Poll::Ready(Ok(bytes.len().min(self.most)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn stream(most: usize, pause: u64) -> WriteDeadline<Slow> {
        let slow = Slow { most, pause: Duration::from_millis(pause), wait: None };
        WriteDeadline::new(slow, Duration::from_secs(1))
    }

    async fn answer(stream: &mut WriteDeadline<Slow>, length: usize) -> Result<()> {
        let (bytes, mut done) = (vec![0; length], 0);
        while done < length {
            let write = |context: &mut Context<'_>| {
                Pin::new(&mut *stream).poll_write(context, &bytes[done..])
            };
            done += poll_fn(write).await?;
        }
        poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_too_little() {
        let wrote = answer(&mut stream(1, 50), 100).await;
        assert_eq!(wrote.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn every_mebibyte_has_its_time() {
        answer(&mut stream(SHARE / 4, 100), 4 * SHARE).await.expect("0.4 seconds each");
    }

    #[tokio::test(start_paused = true)]
    async fn between_answers_there_is_no_limit() {
        let mut stream = stream(100, 50);
        for _ in 0..2 {
            answer(&mut stream, 250).await.expect("in 0.1 seconds");
            sleep(Duration::from_millis(1100)).await;
        }
    }
}
