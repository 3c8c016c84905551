//! Sharing circuits with other processes: the synchroniser.
//!
//! A [`Fleet`] connects circuits of this process to a [`CircuitStore`](crate::store::CircuitStore). No call ever waits for the
//! store: admission and recording touch local memory, and one task carries what this process
//! decides out, and what the others decided in.
//!
//! ```text
//! start -> connecting --connect, listen, full snapshot--> synchronised
//!              ^                                             |
//!              |    degraded: local rules, jittered backoff  |  an error, a timeout: drop the link
//!              +---------------------------------------------+
//!
//! closed --a rule, or the quorum, or the fleet's counts--> open
//! open --over, and a call was refused since--> half-open, probed by the holders of leases
//! half-open --enough probes succeeded--> closed;  --one failed--> open, longer
//! ```
//!
//! * Every change is a compare-and-swap on an epoch: a process that missed something is refused,
//!   and takes over what it missed.
//! * What this process decided while the store was away is *pending*, one slot for each circuit. On
//!   return it is published, or superseded by something newer, or over. See [`DecisionOutcome`].
//! * An opening that is over reads as half-open in every process, so that health is right without
//!   traffic. But only the holder of a lease probes, one call at a time; others are refused with
//!   [`RejectionReason::NoProbeLease`](crate::error::RejectionReason::NoProbeLease). A lease stays with its holder until the
//!   half-open stay ends, so that a process with few calls gets through.
//! * What is forced or disabled through a bulkhead of this process stays its own; through an
//!   operator's command it is the fleet's, and wins over everything but that.
//! * Reconfiguring writes nothing until the next change.
//! * A store that has lost history (a backup was restored, a standby that lagged behind took over)
//!   is noticed at the next look, also when other changes have made up for the revisions that were
//!   lost. Its word is taken, and openings that were lost and have time left are told again.
//!
//! `member/` is the protocol, pure; `driver/` is the task.

mod counted;
mod driver;
mod event;
mod handle;
mod hub;
mod ledger;
mod member;
mod pace;
mod probe_policy;
mod snapshot;

pub use event::{DecisionOutcome, FleetEvent, FleetEvents};
pub use handle::Fleet;
#[cfg(feature = "metrics")]
pub(crate) use handle::WeakFleet;
pub use snapshot::{FleetCircuit, FleetSnapshot};
