//! The counters of the open window, which calls update without a lock.
//!
//! Times are in nanoseconds since the limit was created.

use super::mark::{GENERATIONS, Mark};
use super::sample_mask::SampleMask;
use super::window_word::WindowWord;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The counters of the open window.
#[derive(Debug)]
pub(super) struct Sampler {
    marked: Marked,
    samples: Samples,
    rare: Rare,
}

/// What calls read that carry a mark of their generation, on its own cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Marked {
    /// The mask of the stride (48 bits) and the sampling generation (16 bits).
    sampling: AtomicU64,
}

/// What sampled calls read and write.
#[derive(Debug)]
#[repr(align(64))]
struct Samples {
    /// A [`WindowWord`].
    word: AtomicU64,
    /// The largest number of calls in flight, at the starts of sampled calls.
    peak: AtomicU64,
    /// Calls that ended before this time are not in the window.
    quiet_until: AtomicU64,
    /// Calls that started before this time are not in the window.
    generation_at: AtomicU64,
    /// The largest latency that a sample contributes.
    cap: AtomicU64,
    /// The end of a call from this time on may close the window.
    check_at: AtomicU64,
}

/// What few calls write.
#[derive(Debug)]
#[repr(align(64))]
struct Rare {
    overloads: AtomicU64,
    /// A call lacked a permit.
    reached: AtomicBool,
}

/// The counts of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) word: WindowWord,
    pub(super) overloads: u64,
    pub(super) reached: bool,
    pub(super) peak: u64,
}

/// How the next window begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Calls that started before this time are not counted, if it is set.
    pub(super) new_generation_at: Option<u64>,
    /// Calls that end before this time are not counted.
    pub(super) quiet_until: u64,
    /// The shortest end of the window.
    pub(super) check_at: u64,
    /// The baseline.
    pub(super) baseline: Option<u64>,
    /// The largest latency that a sample contributes.
    pub(super) cap: u64,
    /// Every call with this stride is sampled; `None`: none is.
    pub(super) stride: Option<u64>,
}

const GENERATION_BITS: u32 = 16;
const GENERATION: u64 = (1 << GENERATION_BITS) - 1;
const NEVER: u64 = u64::MAX;

impl Sampler {
    /// Creates the counters without an open window: nothing is sampled.
    pub(super) fn new() -> Self {
        Self {
            marked: Marked {
                sampling: AtomicU64::new(NEVER << GENERATION_BITS),
            },
            samples: Samples {
                word: AtomicU64::new(0),
                peak: AtomicU64::new(0),
                quiet_until: AtomicU64::new(0),
                generation_at: AtomicU64::new(0),
                cap: AtomicU64::new(u64::MAX),
                check_at: AtomicU64::new(NEVER),
            },
            rare: Rare {
                overloads: AtomicU64::new(0),
                reached: AtomicBool::new(false),
            },
        }
    }

    /// Copies the stride to where calls read it. The caller holds the lock of the rule.
    pub(super) fn publish_stride(&self, mask: &SampleMask) {
        mask.set(self.stride());
    }

    /// Returns the mark of a call that is no sample.
    pub(super) fn mark_unsampled(&self) -> Mark {
        Mark::of_generation(self.marked.sampling.load(Ordering::Relaxed) & GENERATION)
    }

    /// Records the calls in flight when a sampled call starts.
    pub(super) fn record_peak(&self, in_flight: u64) {
        if in_flight > self.samples.peak.load(Ordering::Relaxed) {
            self.samples.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// Records that a call lacked a permit.
    #[inline]
    pub(super) fn record_lack_of_permit(&self) {
        if !self.rare.reached.load(Ordering::Relaxed) {
            // Not a store: only of two read-modify-writes does the model know the order.
            self.rare.reached.swap(true, Ordering::AcqRel);
        }
    }

    /// Adds a sample. Returns `true` if the window may be complete.
    pub(super) fn record_sample(&self, started_at: u64, now: u64) -> bool {
        if !self.counts_call(started_at, now) {
            return false;
        }
        let samples = &self.samples;
        let latency = (now - started_at).min(samples.cap.load(Ordering::Relaxed));
        let mut bits = samples.word.load(Ordering::Relaxed);
        loop {
            let word = WindowWord::from_bits(bits).with_sample(latency);
            match samples.word.compare_exchange_weak(
                bits,
                word.to_bits(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return self.is_due(now),
                Err(current) => bits = current,
            }
        }
    }

    /// Counts `calls` overloads. Returns `true` if the window may be complete.
    ///
    /// `started_at` is known of sampled calls; others are compared by their generation.
    pub(super) fn record_overloads(
        &self,
        mark: Mark,
        started_at: Option<u64>,
        now: u64,
        calls: u64,
    ) -> bool {
        let generation = self.marked.sampling.load(Ordering::Relaxed) & GENERATION;
        let counts = match started_at {
            Some(started_at) => self.counts_call(started_at, now),
            None if mark.is_sampled() => now >= self.quiet_until(),
            None => mark.is_of_generation(generation) && now >= self.quiet_until(),
        };
        if !counts {
            return false;
        }
        self.rare.overloads.fetch_add(calls, Ordering::AcqRel);
        self.is_due(now)
    }

    /// Counts an overload of a call whose start is not known. Returns `true` if the window may be
    /// complete.
    pub(super) fn record_unmarked_overload(&self, now: u64) -> bool {
        if now < self.quiet_until() || self.stride().is_none() {
            return false;
        }
        self.rare.overloads.fetch_add(1, Ordering::AcqRel);
        self.is_due(now)
    }

    /// Returns `true` if the window may be complete at this time.
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.samples.check_at.load(Ordering::Acquire)
    }

    /// Returns the stride; `None` if nothing is sampled.
    pub(super) fn stride(&self) -> Option<u64> {
        let mask = self.marked.sampling.load(Ordering::Relaxed) >> GENERATION_BITS;
        (mask != NEVER >> GENERATION_BITS).then_some(mask + 1)
    }

    pub(super) fn cap(&self) -> u64 {
        self.samples.cap.load(Ordering::Relaxed)
    }

    /// Returns the counts so far.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            word: WindowWord::from_bits(self.samples.word.load(Ordering::Acquire)),
            overloads: self.rare.overloads.load(Ordering::Acquire),
            reached: self.rare.reached.load(Ordering::Relaxed),
            peak: self.samples.peak.load(Ordering::Relaxed),
        }
    }

    /// Moves the next check. The caller holds the lock of the rule.
    pub(super) fn check_again_at(&self, at: u64) {
        self.samples.check_at.store(at, Ordering::Release);
    }

    /// Samples every call from now on; the window stays. The caller holds the lock of the rule.
    pub(super) fn sample_every_call(&self) {
        self.marked
            .sampling
            .fetch_and(GENERATION, Ordering::Relaxed);
    }

    /// Ends the window and returns its counts. No call checks again before [`open`](Self::open).
    ///
    /// The caller holds the lock of the rule.
    pub(super) fn close(&self) -> Counts {
        self.samples.check_at.store(NEVER, Ordering::Relaxed);
        Counts {
            word: WindowWord::from_bits(self.samples.word.swap(0, Ordering::AcqRel)),
            overloads: self.rare.overloads.swap(0, Ordering::AcqRel),
            reached: self.rare.reached.swap(false, Ordering::AcqRel),
            peak: self.samples.peak.swap(0, Ordering::AcqRel),
        }
    }

    /// Opens the next window. The caller holds the lock of the rule.
    ///
    /// What calls of an older generation added since [`close`](Self::close) is dropped. Without a
    /// new generation it is in the next window.
    pub(super) fn open(&self, opening: &Opening) {
        let Opening {
            new_generation_at,
            quiet_until,
            check_at,
            baseline,
            cap,
            stride,
        } = *opening;
        let samples = &self.samples;
        samples.quiet_until.store(quiet_until, Ordering::Relaxed);
        samples.cap.store(cap, Ordering::Relaxed);
        let mut sampling = self.marked.sampling.load(Ordering::Relaxed);
        let mut generation = sampling & GENERATION;
        if let Some(at) = new_generation_at {
            samples.generation_at.store(at, Ordering::Relaxed);
            generation = (generation + 1) % GENERATIONS;
            self.close();
        }
        // A word without a unit takes that of its first sample. One of the baseline is better,
        // unless a sample was added since.
        let empty = WindowWord::empty(baseline).to_bits();
        let _ = samples
            .word
            .compare_exchange(0, empty, Ordering::AcqRel, Ordering::Relaxed);
        let mask = stride.map_or(NEVER, |stride| stride - 1);
        sampling = mask << GENERATION_BITS | generation;
        self.marked.sampling.store(sampling, Ordering::Relaxed);
        samples.check_at.store(check_at, Ordering::Release);
    }

    fn counts_call(&self, started_at: u64, now: u64) -> bool {
        started_at >= self.samples.generation_at.load(Ordering::Relaxed)
            && now >= self.quiet_until()
    }

    fn quiet_until(&self) -> u64 {
        self.samples.quiet_until.load(Ordering::Relaxed)
    }
}
