//! The timer of a waiting call, which takes effect even if the call is not polled.
//!
//! A future that waits may be alive and not polled any more, when a permit is granted to it. The
//! waker that its timer wakes at the deadline therefore takes the permit back, if another call
//! needs it, before it wakes the task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use crate::bulkhead::{Bulkhead, WeakBulkhead};
use crate::queue::WaiterId;
use crate::runtime::Sleep;
use crate::sync::unwind::{catch, drop_catching};

/// Creates the timer of a call that waits until `deadline`.
pub(crate) fn queue_timer(bulkhead: &Bulkhead, waiter: WaiterId, deadline: Instant) -> Sleep {
    Box::pin(QueueTimer {
        sleep: bulkhead.inner().runtime.sleep_until(deadline),
        bulkhead: bulkhead.downgrade(),
        waiter,
        deadline,
        waker: None,
    })
}

struct QueueTimer {
    sleep: Sleep,
    bulkhead: WeakBulkhead,
    waiter: WaiterId,
    deadline: Instant,
    /// The waker of the task, and the one that the timer has.
    waker: Option<(Waker, Waker)>,
}

impl Future for QueueTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let waker = match &this.waker {
            Some((task, waker)) if task.will_wake(cx.waker()) => waker,
            _ => {
                let task = cx.waker().clone();
                let waker = Waker::from(Arc::new(TakeBack {
                    task: task.clone(),
                    bulkhead: this.bulkhead.clone(),
                    waiter: this.waiter,
                    deadline: this.deadline,
                }));
                &this.waker.insert((task, waker)).1
            }
        };
        this.sleep.as_mut().poll(&mut Context::from_waker(waker))
    }
}

/// Takes back a permit that is not collected, then wakes the task.
struct TakeBack {
    task: Waker,
    bulkhead: WeakBulkhead,
    waiter: WaiterId,
    deadline: Instant,
}

impl Wake for TakeBack {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(bulkhead) = self.bulkhead.upgrade() {
            // The clock may panic. The timer of the runtime must not.
            catch(|| bulkhead.inner().take_back(self.waiter, self.deadline));
            drop_catching(bulkhead);
        }
        self.task.wake_by_ref();
    }
}
