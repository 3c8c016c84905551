//! A bounded broadcast: who publishes never waits, who reads too slowly is told what it missed.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use crate::sync::waker_set::{WakerKey, WakerSet};
use crate::sync::{Mutex, lock};

/// The newest values, in order, for any number of readers at their own pace.
///
/// Publishing is two steps, so that it may happen under a caller's lock (which fixes the order)
/// while wakers run outside it: [`push`](Self::push), then [`wake_readers`](Self::wake_readers).
#[derive(Debug)]
pub(crate) struct Broadcast<T> {
    ring: Mutex<Ring<T>>,
    wakers: WakerSet,
}

impl<T: Clone> Broadcast<T> {
    /// Keeps `capacity` values for readers, and `history` when there are none.
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

    /// Appends a value; nobody is woken yet.
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

    /// Wakes the readers; call it without any lock held.
    pub(crate) fn wake_readers(&self) {
        self.wakers.wake_all();
    }

    /// Nothing more will come: readers get what is left, then the end.
    pub(crate) fn close(&self) {
        lock(&self.ring).closed = true;
        self.wakers.wake_all();
    }

    /// The newest `count` values, oldest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<T> {
        let ring = lock(&self.ring);
        ring.values
            .iter()
            .skip(ring.values.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    /// A reader of everything pushed from now on; to be given back by [`leave`](Self::leave).
    pub(crate) fn join(&self) -> Reader {
        let mut ring = lock(&self.ring);
        ring.readers += 1;
        Reader {
            next: ring.next,
            key: None,
        }
    }

    pub(crate) fn leave(&self, reader: &mut Reader) {
        self.wakers.remove(&mut reader.key);
        lock(&self.ring).readers -= 1;
    }

    /// The reader's next value, or how many it has missed.
    pub(crate) fn poll_next(
        &self,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Next<T>>> {
        if let ready @ Poll::Ready(_) = self.take_next(reader) {
            return ready;
        }
        self.wakers.register(&mut reader.key, cx.waker());
        // A value pushed before the waker was in place woke nobody.
        self.take_next(reader)
    }

    fn take_next(&self, reader: &mut Reader) -> Poll<Option<Next<T>>> {
        let ring = lock(&self.ring);
        let oldest = ring.next - ring.values.len() as u64;
        if reader.next < oldest {
            let missed = oldest - reader.next;
            reader.next = oldest;
            return Poll::Ready(Some(Next::Missed(missed)));
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "less than the ring's length, a usize"
        )]
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

/// One reader's place.
#[derive(Debug)]
pub(crate) struct Reader {
    next: u64,
    key: Option<WakerKey>,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    Value(T),
    Missed(u64),
}

#[derive(Debug)]
struct Ring<T> {
    values: VecDeque<T>,
    /// The number of the next value; the newest one kept has the number before it.
    next: u64,
    readers: usize,
    closed: bool,
    capacity: usize,
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
    fn a_slow_reader_is_told_how_many_it_missed_and_reads_on() {
        let broadcast = Broadcast::new(4, 2);
        let (mut slow, mut quick) = (broadcast.join(), broadcast.join());
        for value in 0..10 {
            broadcast.push(value);
            assert_eq!(read(&broadcast, &mut quick), Some(Next::Value(value)));
        }
        assert_eq!(read(&broadcast, &mut slow), Some(Next::Missed(6)));
        for value in 6..10 {
            assert_eq!(read(&broadcast, &mut slow), Some(Next::Value(value)));
        }
        assert_eq!(read(&broadcast, &mut slow), None);
    }

    #[test]
    fn without_readers_only_the_history_is_kept() {
        let broadcast = Broadcast::new(100, 3);
        let mut reader = broadcast.join();
        (0..50).for_each(|value| broadcast.push(value));
        broadcast.leave(&mut reader);
        (50..150).for_each(|value| broadcast.push(value));
        assert_eq!(broadcast.newest(10), [147, 148, 149]);
    }

    #[test]
    fn nothing_need_be_kept_for_nobody() {
        let broadcast = Broadcast::new(2, 0);
        (0..3).for_each(|value| broadcast.push(value));
        assert!(broadcast.newest(1).is_empty());
        let mut reader = broadcast.join();
        broadcast.push(3);
        assert_eq!(read(&broadcast, &mut reader), Some(Next::Value(3)));
    }

    #[test]
    fn a_reader_joins_at_the_end_and_reads_what_is_left_after_the_close() {
        let broadcast = Broadcast::new(4, 4);
        broadcast.push(1);
        let mut reader = broadcast.join();
        broadcast.push(2);
        broadcast.close();
        assert_eq!(read(&broadcast, &mut reader), Some(Next::Value(2)));
        let end = broadcast.poll_next(&mut reader, &mut Context::from_waker(Waker::noop()));
        assert_eq!(end, Poll::Ready(None));
    }
}
