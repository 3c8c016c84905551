//! What a circuit does differently while its state is a fleet's.
//!
//! Closed, it goes by its own rules, as ever; the synchroniser is told of every state that begins
//! and carries it out. Half-open, a [`Gate`] says who may probe: with the fleet's, only the holder
//! of a lease, and its outcomes are not judged here but handed on as [`Verdict`]s.

use std::time::{Duration, Instant};

use super::{Machine, Stage, open_for};
use crate::call::outcome::Outcome;
use crate::circuit_breaker::circuit_state::CircuitState;
use crate::circuit_breaker::counts::Sample;
use crate::circuit_breaker::probes::Probes;
use crate::circuit_breaker::settings::HalfOpenPolicy;
use crate::circuit_breaker::transition::TransitionCause;
use crate::error::{CircuitOpen, RejectionReason};
use crate::store::{ProbePolicy, ProbeRule};

/// Who may send probes while the circuit is half-open, and who judges them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// This circuit, as many as its trial takes.
    Own,
    /// The fleet: a lease admits one probe at a time, and the store judges.
    Fleet {
        /// Whether a lease is held that no probe has used up.
        leased: bool,
    },
    /// This circuit, while the store can't be reached: so many at a time.
    Outage { probes: u16 },
}

/// The end of a probe that ran under a lease, for the store to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Of the half-open stay.
    pub(crate) generation: u64,
    pub(crate) success: bool,
    pub(crate) slow: bool,
}

/// What the synchroniser has yet to see.
#[derive(Debug)]
pub(super) struct FleetPart {
    pub(super) gate: Gate,
    /// Why the current state was entered; `None`: the circuit was made with it.
    pub(super) cause: Option<TransitionCause>,
    /// A call, or a look after the dependency, was refused for want of a lease.
    wanted: bool,
    /// The synchroniser sees to the want, or looks for one by itself. Waking it takes longer than a
    /// call, so the calls that are refused meanwhile leave it alone.
    heeded: bool,
    /// It will look by itself when this opening is over.
    looked_after: bool,
    verdicts: Vec<Verdict>,
    /// The generation that was announced last.
    announced: u64,
    news: bool,
}

impl Default for FleetPart {
    fn default() -> Self {
        Self {
            gate: Gate::Own,
            cause: None,
            wanted: false,
            heeded: false,
            looked_after: false,
            verdicts: Vec::new(),
            announced: 0,
            news: false,
        }
    }
}

/// The circuit as the synchroniser sees it; reading it takes what is handed on only once.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) generation: u64,
    pub(crate) state: CircuitState,
    /// Why it is in that state; `None`: it was made with it.
    pub(crate) cause: Option<TransitionCause>,
    pub(crate) since: Instant,
    /// When the isolation is over; `None` while open: never.
    pub(crate) open_until: Option<Instant>,
    /// A lease is wanted.
    pub(crate) wanted: bool,
    pub(crate) verdicts: Vec<Verdict>,
}

/// A state that a circuit takes over from its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    Closed,
    Open {
        remaining: Duration,
        open_count: u32,
    },
    HalfOpen {
        open_count: u32,
    },
    ForcedOpen,
    Disabled,
}

impl Machine {
    /// Reads the circuit for the synchroniser, and takes what it hands on.
    pub(crate) fn observe(&mut self, now: Instant) -> Observation {
        self.advance(now);
        self.share.announced = self.generation;
        self.share.news = false;
        Observation {
            generation: self.generation,
            state: self.state(),
            cause: self.share.cause,
            since: self.since,
            open_until: self.open_until(),
            wanted: std::mem::take(&mut self.share.wanted),
            verdicts: std::mem::take(&mut self.share.verdicts),
        }
    }

    /// Takes over a state, unless something has happened since `expected`; the new generation.
    ///
    /// While it is half-open, or when the opening is over, the synchroniser looks by itself
    /// whether a lease is wanted, until it says [`heed_again`](Self::heed_again).
    pub(crate) fn adopt(&mut self, expected: u64, adopted: Adopted, now: Instant) -> Option<u64> {
        if self.generation != expected {
            return None;
        }
        let phase = match adopted {
            Adopted::Closed => Stage::Closed,
            Adopted::Open {
                remaining,
                open_count,
            } => {
                self.open_count = open_count;
                open_for(remaining, now)
            }
            Adopted::HalfOpen { open_count } => {
                self.open_count = open_count;
                Stage::HalfOpen(Probes::default())
            }
            Adopted::ForcedOpen => Stage::ForcedOpen,
            Adopted::Disabled => Stage::Disabled,
        };
        self.enter(phase, TransitionCause::Fleet, now);
        self.share.looked_after = matches!(adopted, Adopted::Open { .. });
        self.share.heeded = matches!(adopted, Adopted::HalfOpen { .. });
        Some(self.generation)
    }

    /// Says who may probe. When it is this circuit again, what its probes have shown so far counts.
    pub(crate) fn set_gate(&mut self, gate: Gate, now: Instant) {
        self.share.gate = gate;
        self.heed_again();
        self.judge(TransitionCause::ProbeFailed, now);
    }

    /// Nobody looks any more: the next call that wants a lease is to say so.
    pub(crate) fn heed_again(&mut self) {
        self.share.looked_after = false;
        self.share.heeded = self.share.wanted;
        if self.share.wanted {
            self.tell();
        }
    }

    /// How long an opening would be that followed now.
    pub(crate) fn next_isolation(&mut self) -> Duration {
        self.isolation(self.open_count)
    }

    /// How a fleet decides what this circuit's rules would.
    ///
    /// Failures in a row among a sample's probes can't be told from failures of several processes:
    /// there, `failure_threshold` failures of the sample reopen.
    pub(crate) fn probe_plan(&self, limit: u16) -> ProbePolicy {
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let rules = &self.settings;
        let decision = match rules.half_open_policy {
            HalfOpenPolicy::Consecutive { successes } => ProbeRule::Consecutive {
                successes: small(successes),
            },
            HalfOpenPolicy::Sample { calls } => {
                let reaching =
                    |rate: f64| (1..=calls).find(|n| f64::from(*n) / f64::from(calls) >= rate);
                let failures = [
                    rules.failure_threshold.map(|n| n.min(calls)),
                    rules.failure_count_threshold.map(|n| n.min(calls)),
                    rules.failure_rate_threshold.and_then(reaching),
                ];
                ProbeRule::SampleSize {
                    calls: small(calls),
                    failures: failures.into_iter().flatten().min().map(small),
                    slow: rules.slow_call_rate_threshold.and_then(reaching).map(small),
                }
            }
        };
        ProbePolicy::new(limit, decision)
    }

    /// Whether looking after the dependency would tell the fleet something: it is half-open, and
    /// only lease holders may say so.
    pub(crate) fn awaits_fleet(&self) -> bool {
        matches!(
            (&self.phase, self.share.gate),
            (Stage::HalfOpen(_), Gate::Fleet { .. })
        )
    }

    /// A success that was found without a call: a probe's, if there is a lease for it.
    pub(super) fn probe_from_outside(&mut self, now: Instant) {
        if !self.awaits_fleet() {
            return;
        }
        // Refused for want of a lease, it has made the want known.
        if let Ok(probe) = self.admit(now) {
            let settled = self.settle(self.generation, probe, Outcome::Success, None, Some(now));
            debug_assert_eq!(settled, super::Settled::Done);
        }
    }

    /// Whether the synchroniser should look. Says so once for each thing that happens.
    pub(crate) fn take_news(&mut self) -> bool {
        let begun = self.share.announced != self.generation;
        self.share.announced = self.generation;
        std::mem::take(&mut self.share.news) || begun
    }

    /// Probes that may go out now.
    pub(super) fn free_probes(&self, probes: &Probes) -> u32 {
        let own = probes.slots(self.settings.half_open_policy.probes());
        let out = probes.out();
        match self.share.gate {
            Gate::Own => own,
            Gate::Fleet { leased } => u32::from(leased && out == 0),
            Gate::Outage { probes } => own.min(u32::from(probes).saturating_sub(out)),
        }
    }

    /// The refusal of a call that finds no probe free.
    pub(super) fn refuse_probe(&mut self) -> CircuitOpen {
        match self.share.gate {
            Gate::Fleet { leased: false } => {
                self.share.wanted = true;
                if !std::mem::replace(&mut self.share.heeded, true) {
                    self.tell();
                }
                CircuitOpen::new(RejectionReason::NoProbeLease, Some(RETRY_WITHOUT_LEASE))
            }
            Gate::Outage { probes: 0 } => CircuitOpen::new(RejectionReason::NoProbeLease, None),
            _ => CircuitOpen::new(RejectionReason::ProbeLimit, None),
        }
    }

    /// Hands a probe's outcome on if the fleet is to judge it; says whether it is.
    pub(super) fn hand_on(&mut self, sample: Sample) -> bool {
        let Gate::Fleet { .. } = self.share.gate else {
            return false;
        };
        self.share.gate = Gate::Fleet { leased: false };
        self.share.heeded = false;
        self.tell();
        self.share.verdicts.push(Verdict {
            generation: self.generation,
            success: !sample.failed,
            slow: sample.slow,
        });
        true
    }

    /// Makes the shell call the link.
    fn tell(&mut self) {
        self.share.news = true;
        self.dirty = true;
    }

    /// A state has begun: leases and verdicts were of the one before.
    pub(super) fn begin_share(&mut self, cause: TransitionCause) {
        self.share.cause = Some(cause);
        // What comes from the synchroniser is no news to it; nor is it that an isolation is over,
        // until a call wants a lease. Waking it would cost the call that happens to see it.
        let news = !matches!(
            cause,
            TransitionCause::Fleet | TransitionCause::IsolationElapsed
        );
        if !news && self.share.announced + 1 == self.generation {
            self.share.announced = self.generation;
        }
        self.share.wanted = false;
        let looked_after = std::mem::take(&mut self.share.looked_after);
        self.share.heeded = looked_after && cause == TransitionCause::IsolationElapsed;
        self.share.verdicts.clear();
        if let Gate::Fleet { .. } = self.share.gate {
            self.share.gate = Gate::Fleet { leased: false };
        }
    }
}

/// A lease takes a jitter and two round trips to get.
const RETRY_WITHOUT_LEASE: Duration = Duration::from_millis(250);
