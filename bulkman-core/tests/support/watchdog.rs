//! No test may hang: a body that takes longer than a minute fails.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Runs `body` on a separate thread and waits for it, up to a limit.
pub(crate) fn watchdog(body: impl FnOnce() + Send + 'static) {
    let (alive, ended) = channel::<()>();
    let running = thread::spawn(move || {
        let _alive = alive;
        body();
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Err(RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => running.join().unwrap_or_else(|panic| resume_unwind(panic)),
    }
}
