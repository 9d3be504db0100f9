//! What every route shares, and the place for work that blocks: off the async threads, and only
//! so much of it at a time. A service that is profiled has other things to do.

use crate::{failure::Failure, links::Links};
use hsi_profiling::Handle;
use std::{sync::Arc, thread, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time,
};

/// What every route shares.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) handle: Handle,
    pub(crate) links: Links,
    jobs: Arc<Semaphore>,
    captures: Arc<Semaphore>,
}

impl Site {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            links: Links::new(handle.grafana_url(), handle.pyroscope_url()),
            handle,
            jobs: Arc::new(Semaphore::new(MOST_JOBS)),
            captures: Arc::new(Semaphore::new(MOST_CAPTURES)),
        }
    }

    /// Does work that blocks, in its turn, on a thread that lives for it.
    ///
    /// Not on the runtime's: C libraries keep what a thread has freed in an arena for it. The
    /// runtime has hundreds of such threads, of which each would keep some megabytes; ours are two
    /// at a time, and pass theirs on.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = time::timeout(PATIENCE, Arc::clone(&self.jobs).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Failure::Busy("too many profiles are being made; try again".to_owned()));
        };
        let site = Arc::clone(self);
        let (done, wait) = oneshot::channel();
        let work = move || {
            let result = job(&site);
            // What was made stands at the end of what this thread has allocated; all before it is
            // free now.
            site.handle.release_memory();
            // The turn ends with the work, not with the request: that may be gone long before.
            drop(turn);
            let _ = done.send(result);
        };
        let thread = thread::Builder::new().name("hsi-page".to_owned()).spawn(work);
        match (thread, wait.await) {
            (Ok(_), Ok(result)) => result,
            (Err(error), _) => {
                tracing::error!("making a profile failed: no thread: {error}");
                Err(Failure::Internal)
            }
            (_, Err(_)) => {
                tracing::error!("making a profile failed: its thread panicked");
                Err(Failure::Internal)
            }
        }
    }

    /// One of the few captures that may run at a time, until the permit is dropped.
    pub(crate) fn begin_capture(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.captures).try_acquire_owned().map_err(|_| {
            Failure::Busy(format!(
                "{MOST_CAPTURES} captures are running, which is as many as may; try again when \
                 one is over, or ask for the past with ?from=-1m&to=now, which needs no capture"
            ))
        })
    }
}

/// How many profiles are made at a time: one, and one that does not wait for a slow one.
const MOST_JOBS: usize = 2;
/// How many clients may wait for the coming seconds. A capture costs memory and no CPU.
const MOST_CAPTURES: usize = 4;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use hsi_profiling::Config;

    fn site() -> Arc<Site> {
        let session = Config::builder("idle").enabled(false).start().unwrap();
        Arc::new(Site::new(session.handle()))
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_gives_its_turn_back() {
        let site = site();
        for _ in 0..=MOST_JOBS {
            let done = site.blocking(|_| -> Result<(), _> { panic!("a fault in a job") }).await;
            assert_eq!(done, Err(Failure::Internal));
        }
        assert_eq!(site.blocking(|_| Ok(1)).await, Ok(1));
    }

    #[tokio::test]
    async fn work_of_clients_that_left_still_counts() {
        let site = site();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for _ in 0..MOST_JOBS {
            let wait = Arc::clone(&wait);
            let job = site.blocking(move |_| {
                let _ = wait.lock().unwrap().recv();
                Ok(())
            });
            // The client is gone at once, the job is not.
            assert!(time::timeout(Duration::ZERO, job).await.is_err());
        }
        assert_eq!(site.jobs.available_permits(), 0);
        drop(release);
        assert_eq!(site.blocking(|_| Ok(())).await, Ok(()));
    }
}
