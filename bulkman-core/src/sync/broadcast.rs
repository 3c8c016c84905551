//! A bounded broadcast channel.
//!
//! Publishing never waits. A reader that falls behind skips values, and learns how many.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use crate::sync::waker_set::{WakerKey, WakerSet};
use crate::sync::{Mutex, lock};

/// A ring of the newest values, which any number of readers read at their own pace.
///
/// Publishing has two steps. [`push`](Self::push) may run under a lock of the caller, which
/// determines the order of values. [`wake_readers`](Self::wake_readers) runs outside it, since
/// wakers are user code.
#[derive(Debug)]
pub(crate) struct Broadcast<T> {
    ring: Mutex<Ring<T>>,
    wakers: WakerSet,
}

impl<T: Clone> Broadcast<T> {
    /// Creates a channel that keeps `capacity` values, or `history` while it has no readers.
    pub(crate) fn new(capacity: usize, history: usize) -> Self {
        let ring = Ring {
            values: VecDeque::new(),
            next: 0,
            readers: 0,
            closed: false,
            capacity,
            history,
        };
        Self {
            ring: Mutex::new(ring),
            wakers: WakerSet::new(),
        }
    }

    /// Appends a value, without waking the readers.
    pub(crate) fn push(&self, value: T) {
        let mut ring = lock(&self.ring);
        let keep = if ring.readers == 0 {
            ring.history
        } else {
            ring.capacity
        };
        ring.values.push_back(value);
        ring.next += 1;
        while ring.values.len() > keep {
            ring.values.pop_front();
        }
    }

    /// Wakes the readers. The caller holds no lock.
    pub(crate) fn wake_readers(&self) {
        self.wakers.wake_all();
    }

    /// Closes the channel: readers receive the remaining values, and then the end.
    pub(crate) fn close(&self) {
        lock(&self.ring).closed = true;
        self.wakers.wake_all();
    }

    /// Returns the newest `count` values, oldest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<T> {
        let ring = lock(&self.ring);
        ring.values
            .iter()
            .skip(ring.values.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    /// Adds a reader of all later values.
    ///
    /// The caller removes it with [`unsubscribe`](Self::unsubscribe).
    pub(crate) fn subscribe(&self) -> Reader {
        let mut ring = lock(&self.ring);
        ring.readers += 1;
        Reader {
            next: ring.next,
            key: None,
        }
    }

    /// Removes a reader.
    pub(crate) fn unsubscribe(&self, reader: &mut Reader) {
        self.wakers.remove(&mut reader.key);
        lock(&self.ring).readers -= 1;
    }

    /// Polls for the next value of a reader, or the number of values that it skipped.
    pub(crate) fn poll_next(
        &self,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Next<T>>> {
        if let ready @ Poll::Ready(_) = self.take_next(reader) {
            return ready;
        }
        self.wakers.register(&mut reader.key, cx.waker());
        // A value that was pushed before the waker was registered did not wake it.
        self.take_next(reader)
    }

    fn take_next(&self, reader: &mut Reader) -> Poll<Option<Next<T>>> {
        let ring = lock(&self.ring);
        let oldest = ring.next - ring.values.len() as u64;
        if reader.next < oldest {
            let skipped = oldest - reader.next;
            reader.next = oldest;
            return Poll::Ready(Some(Next::Lagged(skipped)));
        }
        match ring.values.get((reader.next - oldest) as usize) {
            Some(value) => {
                reader.next += 1;
                Poll::Ready(Some(Next::Value(value.clone())))
            }
            None if ring.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// The position of a reader.
#[derive(Debug)]
pub(crate) struct Reader {
    next: u64,
    key: Option<WakerKey>,
}

/// The next item for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// A value.
    Value(T),
    /// The reader fell behind and skipped this many values.
    Lagged(u64),
}

#[derive(Debug)]
struct Ring<T> {
    values: VecDeque<T>,
    /// The number of the next value. The newest value in the ring has the number before it.
    next: u64,
    readers: usize,
    closed: bool,
    /// The number of values to keep for readers.
    capacity: usize,
    /// The number of values to keep without readers.
    history: usize,
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use std::task::Waker;

    use super::*;

    fn read(broadcast: &Broadcast<u32>, reader: &mut Reader) -> Option<Next<u32>> {
        match broadcast.poll_next(reader, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(next)) => Some(next),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }

    /// Hazard H81.
    #[test]
    fn slow_reader_learns_how_many_values_it_skipped() {
        let broadcast = Broadcast::new(4, 2);
        let (mut slow, mut fast) = (broadcast.subscribe(), broadcast.subscribe());
        for value in 0..10 {
            broadcast.push(value);
            assert_eq!(read(&broadcast, &mut fast), Some(Next::Value(value)));
        }
        assert_eq!(read(&broadcast, &mut slow), Some(Next::Lagged(6)));
        for value in 6..10 {
            assert_eq!(read(&broadcast, &mut slow), Some(Next::Value(value)));
        }
        assert_eq!(read(&broadcast, &mut slow), None);
    }

    #[test]
    fn only_the_history_is_kept_without_readers() {
        let broadcast = Broadcast::new(100, 3);
        let mut reader = broadcast.subscribe();
        (0..50).for_each(|value| broadcast.push(value));
        broadcast.unsubscribe(&mut reader);
        (50..150).for_each(|value| broadcast.push(value));
        assert_eq!(broadcast.newest(10), [147, 148, 149]);
    }

    #[test]
    fn history_may_be_empty() {
        let broadcast = Broadcast::new(2, 0);
        (0..3).for_each(|value| broadcast.push(value));
        assert!(broadcast.newest(1).is_empty());
        let mut reader = broadcast.subscribe();
        broadcast.push(3);
        assert_eq!(read(&broadcast, &mut reader), Some(Next::Value(3)));
    }

    #[test]
    fn reader_starts_at_the_end_and_drains_after_close() {
        let broadcast = Broadcast::new(4, 4);
        broadcast.push(1);
        let mut reader = broadcast.subscribe();
        broadcast.push(2);
        broadcast.close();
        assert_eq!(read(&broadcast, &mut reader), Some(Next::Value(2)));
        let end = broadcast.poll_next(&mut reader, &mut Context::from_waker(Waker::noop()));
        assert_eq!(end, Poll::Ready(None));
    }
}
