//! Sharing circuits with other processes.
//!
//! A [`Fleet`] connects circuits of this process to a
//! [`CircuitStore`](crate::store::CircuitStore). No call ever waits for the store: admission and
//! recording use local memory only. One background task, the *driver*, publishes local decisions
//! and adopts remote ones.
//!
//! ```text
//! start -> connecting --connect, listen, full snapshot--> synchronized
//!              ^                                               |
//!              |  degraded: local rules, backoff with jitter   |  error or timeout: drop the session
//!              +-----------------------------------------------+
//!
//! closed    --a local rule, the quorum, or the fleet's counts--> open
//! open      --isolation elapsed, and a call was rejected since--> half-open
//! half-open --enough probes under leases succeeded--> closed
//! half-open --a probe failed--> open, for longer
//! ```
//!
//! * Every change is a compare-and-swap on an epoch. A process with a stale epoch is rejected and
//!   adopts the stored state.
//! * A decision of this process is *pending* while the store is unavailable, at most one per
//!   circuit. Afterwards it is published, superseded by a newer one, or expired. See
//!   [`DecisionOutcome`].
//! * After its isolation has elapsed, a circuit reads as half-open in every process, so its state
//!   is correct without traffic. Only the holder of a lease sends probes, one at a time. Other
//!   calls are rejected with
//!   [`RejectionReason::NoProbeLease`](crate::error::RejectionReason::NoProbeLease). A lease that
//!   is not used, or rarely, is released for a while, so that processes with calls can acquire it.
//! * A store that can only be read, such as a standby, is polled: states are adopted, decisions
//!   stay pending, and half-open circuits behave as in an outage.
//! * A circuit that is forced open or disabled through a bulkhead is so in this process only. An
//!   operator's command applies to the whole fleet, and wins over everything but such a local
//!   change.
//! * Reconfiguring writes nothing until the next change.
//! * A store can lose history: a backup is restored, or a lagging standby takes over. The driver
//!   detects this at the next read, even if later changes have reached the lost revision again.
//!   It then adopts the stored state and republishes lost openings that have time left.

// `member/` is the protocol without I/O, `driver/` the task that executes it.

mod backoff;
mod counters;
mod driver;
mod events;
mod handle;
mod history;
mod jitter;
mod member;
mod probe_policy;
mod shared;
mod snapshot;

pub use events::{DecisionOutcome, FleetEvent, FleetEvents};
pub use handle::Fleet;
#[cfg(feature = "metrics")]
pub(crate) use handle::WeakFleet;
pub use snapshot::{FleetCircuit, FleetSnapshot};
