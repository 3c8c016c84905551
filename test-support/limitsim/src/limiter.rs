//! What a rule must provide.

use std::fmt::Debug;

use crate::random::Random;

/// A rule that limits the calls in flight of one client.
pub trait Limiter: Debug {
    /// Returns the limit in force.
    fn limit(&self, now: f64) -> u64;

    /// Records an admitted call; `in_flight` includes it.
    fn start(&mut self, now: f64, in_flight: u64) {
        let _ = (now, in_flight);
    }

    /// Records a call that was rejected because of the limit.
    fn reject(&mut self, now: f64) {
        let _ = now;
    }

    /// Records the end of an admitted call.
    fn end(&mut self, call: &EndedCall, random: &mut Random) {
        let _ = (call, random);
    }
}

/// A limiter that the caller keeps, to read its state after a run.
impl<L: Limiter + ?Sized> Limiter for &mut L {
    fn limit(&self, now: f64) -> u64 {
        (**self).limit(now)
    }

    fn start(&mut self, now: f64, in_flight: u64) {
        (**self).start(now, in_flight);
    }

    fn reject(&mut self, now: f64) {
        (**self).reject(now);
    }

    fn end(&mut self, call: &EndedCall, random: &mut Random) {
        (**self).end(call, random);
    }
}

/// An admitted call that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndedCall {
    /// When it started.
    pub started_at: f64,
    /// When it ended.
    pub now: f64,
    /// The calls in flight of its client when it started, including it.
    pub in_flight: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl EndedCall {
    /// Returns how long the call ran.
    #[must_use]
    pub fn latency(&self) -> f64 {
        self.now - self.started_at
    }

    /// Returns `true` if the call ended by an overload.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        self.outcome == Outcome::Overload
    }
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server responded.
    Success,
    /// The call timed out, or the server rejected it.
    Overload,
}
