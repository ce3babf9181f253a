//! Threads for what blocks or computes: the store's disk, hashes, decoding.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs closures on the runtime's blocking threads, a few at a time, so that
/// many fetches neither start hundreds of threads nor hold as many blocks in
/// memory.
#[derive(Clone)]
pub(crate) struct Workers {
    permits: Arc<Semaphore>,
}

impl Workers {
    /// One more than there are processors: while one waits for the disk the
    /// others compute.
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { permits: Arc::new(Semaphore::new(processors + 1)) }
    }

    /// Runs `work` to its end, even when the future is dropped.
    ///
    /// # Panics
    /// When `work` does.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match done.await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down and takes no more work; this
                // future is about to be dropped.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
