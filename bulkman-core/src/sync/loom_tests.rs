//! Model checks of a reader that waits, on both sides.
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::task::{Context, Poll};

use loom::sync::Arc;

use super::broadcast::{Broadcast, Next};
use super::sides::{Woken, both_ways};

/// Polls once while another thread acts. Returns what a later poll reads.
fn read_while(
    act: impl FnOnce(&Arc<Broadcast<u32>>) + Copy + Send + Sync + 'static,
    end: Option<u32>,
) {
    both_ways(move |sides| {
        let broadcast = Arc::new(Broadcast::new(2, 2));
        let mut reader = broadcast.subscribe();
        let (woken, waker) = Woken::new();
        let poll = move |broadcast: &Arc<Broadcast<u32>>| {
            let polled = broadcast.poll_next(&mut reader, &mut Context::from_waker(&waker));
            (polled, reader, waker)
        };
        let ((), (polled, mut reader, waker)) = sides.run(&broadcast, act, poll);
        let end = Poll::Ready(end.map(Next::Value));
        if polled.is_pending() {
            assert!(woken.is_woken());
            let again = broadcast.poll_next(&mut reader, &mut Context::from_waker(&waker));
            assert_eq!(again, end);
        } else {
            assert_eq!(polled, end);
        }
    });
}

#[test]
fn push_racing_a_poll_is_read_or_wakes_the_reader() {
    let push = |broadcast: &Arc<Broadcast<u32>>| {
        broadcast.push(7);
        broadcast.wake_readers();
    };
    read_while(push, Some(7));
}

#[test]
fn close_racing_a_poll_is_read_or_wakes_the_reader() {
    read_while(|broadcast| broadcast.close(), None);
}
