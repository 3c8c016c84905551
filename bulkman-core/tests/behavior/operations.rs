//! Operations that a test controls.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use bulkman::BulkheadError;
use tokio::sync::oneshot;

pub(crate) type Answer = Result<u32, &'static str>;
pub(crate) type Outcome = Result<u32, BulkheadError<&'static str>>;

/// Controls an operation: observes its start, and ends it with a result.
///
/// If the control is dropped, an asynchronous operation stays pending.
pub(crate) struct Work {
    started: Arc<AtomicBool>,
    end: End,
}

enum End {
    Async(oneshot::Sender<Answer>),
    Blocking(mpsc::Sender<Answer>),
}

/// Creates an asynchronous operation and its control.
pub(crate) fn work() -> (Work, impl Future<Output = Answer> + Send + 'static) {
    let started = Arc::new(AtomicBool::new(false));
    let (end, answer) = oneshot::channel();
    let control = Work {
        started: Arc::clone(&started),
        end: End::Async(end),
    };
    let operation = async move {
        started.store(true, Ordering::SeqCst);
        match answer.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    };
    (control, operation)
}

/// Creates a blocking operation and its control.
///
/// If the control is dropped, the operation ends with an error.
pub(crate) fn blocking_work() -> (Work, impl FnOnce() -> Answer + Send + 'static) {
    let started = Arc::new(AtomicBool::new(false));
    let (end, answer) = mpsc::channel();
    let control = Work {
        started: Arc::clone(&started),
        end: End::Blocking(end),
    };
    let operation = move || {
        started.store(true, Ordering::SeqCst);
        answer.recv().unwrap_or(Err("abandoned"))
    };
    (control, operation)
}

impl Work {
    pub(crate) fn has_started(&self) -> bool {
        self.started.load(Ordering::SeqCst)
    }

    pub(crate) fn succeed(self) {
        self.end(Ok(1));
    }

    pub(crate) fn fail(self) {
        self.end(Err("failed"));
    }

    fn end(self, answer: Answer) {
        // Sending fails if the operation was dropped.
        match self.end {
            End::Async(end) => drop(end.send(answer)),
            End::Blocking(end) => drop(end.send(answer)),
        }
    }
}

/// Counts the operations that run at once, and the largest number of them.
#[derive(Clone, Default)]
pub(crate) struct ConcurrencyCounter(Arc<(AtomicUsize, AtomicUsize)>);

impl ConcurrencyCounter {
    pub(crate) fn enter(&self) -> Inside<'_> {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    pub(crate) fn max(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

pub(crate) struct Inside<'a>(&'a ConcurrencyCounter);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
