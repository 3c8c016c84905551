//! Operations that do as they are told.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use bulkman::BulkheadError;
use tokio::sync::oneshot;

pub(crate) type Answer = Result<u32, &'static str>;
pub(crate) type Outcome = Result<u32, BulkheadError<&'static str>>;

/// The other end of an operation: sees it begin, and tells it how to end. Dropped, it leaves an
/// asynchronous operation pending for ever.
pub(crate) struct Work {
    begun: Arc<AtomicBool>,
    end: End,
}

enum End {
    Async(oneshot::Sender<Answer>),
    Blocking(mpsc::Sender<Answer>),
}

/// An asynchronous operation and its control.
pub(crate) fn work() -> (Work, impl Future<Output = Answer> + Send + 'static) {
    let begun = Arc::new(AtomicBool::new(false));
    let (end, told) = oneshot::channel();
    let control = Work {
        begun: Arc::clone(&begun),
        end: End::Async(end),
    };
    let operation = async move {
        begun.store(true, Ordering::SeqCst);
        match told.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    };
    (control, operation)
}

/// A blocking operation and its control; ends with an error when the control is dropped.
pub(crate) fn blocking_work() -> (Work, impl FnOnce() -> Answer + Send + 'static) {
    let begun = Arc::new(AtomicBool::new(false));
    let (end, told) = mpsc::channel();
    let control = Work {
        begun: Arc::clone(&begun),
        end: End::Blocking(end),
    };
    let operation = move || {
        begun.store(true, Ordering::SeqCst);
        told.recv().unwrap_or(Err("abandoned"))
    };
    (control, operation)
}

impl Work {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn succeed(self) {
        self.end(Ok(1));
    }

    pub(crate) fn fail(self) {
        self.end(Err("failed"));
    }

    fn end(self, answer: Answer) {
        // Nobody listens if the operation has been dropped.
        match self.end {
            End::Async(end) => drop(end.send(answer)),
            End::Blocking(end) => drop(end.send(answer)),
        }
    }
}

/// How many are in at once, and how many there were at most.
#[derive(Clone, Default)]
pub(crate) struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl Crowd {
    pub(crate) fn enter(&self) -> Inside<'_> {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    pub(crate) fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

pub(crate) struct Inside<'a>(&'a Crowd);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
