//! The executors under test, with a fixed number of worker threads.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;

use smol::Executor;
use tokio::runtime::{Builder, EnterGuard, Runtime};

/// Threads that run tasks.
pub(crate) enum Workers {
    Tokio(Runtime),
    Smol {
        executor: Arc<Executor<'static>>,
        /// Dropped to stop the threads.
        stop: Option<smol::channel::Sender<()>>,
        threads: Vec<JoinHandle<()>>,
    },
}

impl Workers {
    pub(crate) fn tokio(threads: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build();
        Self::Tokio(runtime.expect("a Tokio runtime"))
    }

    pub(crate) fn smol(threads: usize) -> Self {
        let executor = Arc::new(Executor::new());
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let start = |_| {
            let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
            std::thread::spawn(move || {
                let closed = smol::block_on(executor.run(stopped.recv()));
                assert!(closed.is_err(), "no message is ever sent");
            })
        };
        let threads = (0..threads).map(start).collect();
        Self::Smol {
            executor,
            stop: Some(stop),
            threads,
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Tokio(_) => "tokio",
            Self::Smol { .. } => "smol",
        }
    }

    /// Enters the context of the executor, which its timers need.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        match self {
            Self::Tokio(runtime) => Some(runtime.enter()),
            Self::Smol { .. } => None,
        }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Tokio(runtime) => drop(runtime.spawn(task)),
            Self::Smol { executor, .. } => executor.spawn(task).detach(),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Self::Smol { stop, threads, .. } = self {
            drop(stop.take());
            for thread in threads.drain(..) {
                thread.join().expect("a worker does not panic");
            }
        }
    }
}
