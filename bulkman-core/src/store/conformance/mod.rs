//! Conformance tests for implementations of [`CircuitStore`].
//!
//! A store conforms if all [cases](CASES) pass. Each case gets an empty store through a
//! [`Harness`]. The harness also advances the store's clock, so that no case waits: with a virtual
//! clock, or by shifting the clock that the store's statements read.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use bulkman::store::conformance::{Case, Harness};
//! use bulkman::testing::ManualRuntime;
//! use bulkman::runtime::BoxFuture;
//! use bulkman::store::{CircuitStore, MemoryStore};
//!
//! struct InMemory { runtime: ManualRuntime, store: MemoryStore }
//!
//! impl Harness for InMemory {
//!     fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
//!         Arc::new(self.store.in_namespace(namespace).unwrap())
//!     }
//!     fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
//!         self.runtime.advance(by);
//!         Box::pin(std::future::ready(()))
//!     }
//! }
//!
//! fn run(case: Case) {
//!     let runtime = ManualRuntime::new();
//!     let store = MemoryStore::new(runtime.clone());
//!     futures_lite::future::block_on(case(&InMemory { runtime, store }));
//! }
//!
//! // In a test module, `bulkman::store_conformance!(run);` creates a `#[test]` for each case.
//! for (name, case) in bulkman::store::conformance::CASES {
//!     println!("{name}");
//!     run(*case);
//! }
//! ```

mod batch;
mod commands;
mod counts;
mod fingerprint;
mod names;
mod probes;
mod processes;
mod push;
mod state;
mod votes;

use std::sync::Arc;
use std::time::Duration;

use super::{
    CircuitStore, CircuitView, Epoch, OperationId, ProbeLease, ProbePolicy, ProbeRequest,
    RejectReason, StoreChange, StoreSession, StoreTransition, TransitionResult,
};
use crate::name::BulkheadName;
use crate::runtime::BoxFuture;

/// The environment of a case, implemented for each store.
pub trait Harness: Sync {
    /// Returns the store, bound to `namespace` (1 to 200 bytes).
    ///
    /// All calls return the same data, which must be empty when a case begins.
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore>;

    /// Advances the store's clock.
    fn advance(&self, by: Duration) -> BoxFuture<'_, ()>;
}

/// A test of one requirement, which panics if the store does not meet it.
pub type Case = for<'a> fn(&'a dyn Harness) -> BoxFuture<'a, ()>;

/// Generates the list of cases and a public function for each.
macro_rules! cases {
    ($($module:ident::$case:ident,)*) => {
        /// All cases, with their names.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($case), $case),)*];

        $(
            #[doc = concat!("Runs the case `", stringify!($case), "`.")]
            pub fn $case(harness: &dyn Harness) -> BoxFuture<'_, ()> {
                Box::pin($module::$case(harness))
            }
        )*
    };
}

cases! {
    state::registered_circuit_is_closed_at_epoch_zero,
    state::registering_again_keeps_the_state,
    state::opening_is_visible_to_other_sessions,
    state::isolation_elapses_by_the_stores_clock,
    state::stale_transition_is_rejected_with_current_state,
    state::repeated_transition_applies_once,
    state::expired_transition_is_rejected,
    state::half_open_requires_elapsed_isolation,
    state::manual_half_open_ignores_isolation,
    state::only_manual_transition_reenters_a_state,
    state::closing_resets_the_open_count,
    state::unknown_circuit_is_reported,
    state::revisions_order_all_changes,
    batch::batch_applies_each_transition_independently,
    batch::repeated_batch_applies_once,
    batch::leases_of_a_batch_are_independent,
    batch::results_of_a_batch_are_independent,
    state::namespaces_are_independent,
    fingerprint::fingerprint_reflects_every_change,
    probes::leases_never_exceed_the_limit,
    probes::holder_has_one_lease,
    probes::expired_lease_is_available,
    probes::renewed_lease_stays_valid,
    probes::released_lease_is_available_and_fenced,
    probes::lease_requires_half_open_at_that_epoch,
    probes::enough_successes_close,
    probes::one_failure_reopens_consecutive_rule,
    probes::sample_decides_when_complete,
    probes::sample_reopens_on_slow_calls,
    probes::repeated_result_counts_once,
    probes::result_renews_the_lease,
    probes::late_result_is_fenced,
    probes::repeated_deciding_result_is_recognized,
    probes::leases_of_earlier_periods_are_fenced,
    votes::quorum_opens,
    votes::process_has_one_vote,
    votes::vote_expires,
    votes::state_change_clears_votes,
    votes::vote_is_rejected_like_a_transition,
    counts::counts_of_processes_are_summed,
    counts::counts_leave_the_window,
    counts::counts_of_earlier_epochs_are_skipped,
    counts::circuits_and_windows_count_separately,
    commands::command_overrides_every_state,
    commands::only_commands_leave_a_forced_state,
    commands::repeated_command_applies_once,
    commands::history_has_author_and_reason,
    commands::history_is_bounded,
    processes::live_processes_are_counted,
    names::hostile_names_are_stored_verbatim,
    names::long_texts_are_truncated,
    push::changes_are_notified,
    push::changed_is_cancel_safe,
}

/// Creates a `#[test]` for every conformance case.
///
/// The argument is a function that runs one [`Case`](crate::store::conformance::Case). It creates a
/// [`Harness`](crate::store::conformance::Harness) with an empty store, and blocks on the case.
#[macro_export]
macro_rules! store_conformance {
    ($run:path) => {
        $crate::store_conformance! { @tests $run:
            registered_circuit_is_closed_at_epoch_zero
            registering_again_keeps_the_state
            opening_is_visible_to_other_sessions
            isolation_elapses_by_the_stores_clock
            stale_transition_is_rejected_with_current_state
            repeated_transition_applies_once
            expired_transition_is_rejected
            half_open_requires_elapsed_isolation
            manual_half_open_ignores_isolation
            only_manual_transition_reenters_a_state
            closing_resets_the_open_count
            unknown_circuit_is_reported
            revisions_order_all_changes
            batch_applies_each_transition_independently
            repeated_batch_applies_once
            leases_of_a_batch_are_independent
            results_of_a_batch_are_independent
            namespaces_are_independent
            fingerprint_reflects_every_change
            leases_never_exceed_the_limit
            holder_has_one_lease
            expired_lease_is_available
            renewed_lease_stays_valid
            released_lease_is_available_and_fenced
            lease_requires_half_open_at_that_epoch
            enough_successes_close
            one_failure_reopens_consecutive_rule
            sample_decides_when_complete
            sample_reopens_on_slow_calls
            repeated_result_counts_once
            result_renews_the_lease
            late_result_is_fenced
            repeated_deciding_result_is_recognized
            leases_of_earlier_periods_are_fenced
            quorum_opens
            process_has_one_vote
            vote_expires
            state_change_clears_votes
            vote_is_rejected_like_a_transition
            counts_of_processes_are_summed
            counts_leave_the_window
            counts_of_earlier_epochs_are_skipped
            circuits_and_windows_count_separately
            command_overrides_every_state
            only_commands_leave_a_forced_state
            repeated_command_applies_once
            history_has_author_and_reason
            history_is_bounded
            live_processes_are_counted
            hostile_names_are_stored_verbatim
            long_texts_are_truncated
            changes_are_notified
            changed_is_cancel_safe
        }
    };
    (@tests $run:path: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $run($crate::store::conformance::$case);
            }
        )*

        #[test]
        fn every_case_has_a_test() {
            let tests = [$(stringify!($case)),*];
            let cases = $crate::store::conformance::CASES.iter().map(|(name, _)| *name);
            assert!(cases.eq(tests), "the list of the macro differs from the list of cases");
        }
    };
}

/// A session with circuit `a` registered, and the operations that most cases use.
struct Client {
    session: Box<dyn StoreSession>,
    operations: u64,
}

impl Client {
    /// Opens a session in namespace `main`.
    async fn new(harness: &dyn Harness, salt: u64) -> Self {
        Self::on(&*harness.store("main"), salt).await
    }

    /// Opens a session; `salt` keeps the operation ids of several clients distinct.
    async fn on(store: &dyn CircuitStore, salt: u64) -> Self {
        let session = store
            .open_session(&[circuit()])
            .await
            .expect("the store connects");
        Self {
            session,
            operations: salt << 32,
        }
    }

    fn operation(&mut self) -> OperationId {
        self.operations += 1;
        OperationId(self.operations)
    }

    /// Returns the circuit from a full snapshot.
    async fn view(&mut self) -> CircuitView {
        let snapshot = self
            .session
            .snapshot(None)
            .await
            .expect("the store returns a snapshot");
        let found = snapshot
            .circuits
            .into_iter()
            .find(|view| view.circuit == circuit());
        found.expect("the registered circuit is in a full snapshot")
    }

    fn transition(&mut self, base: Epoch, change: StoreChange) -> StoreTransition {
        StoreTransition::new(circuit(), base, change, self.operation())
    }

    async fn send(&mut self, transition: &StoreTransition) -> TransitionResult {
        self.session
            .transition(transition)
            .await
            .expect("the store responds")
    }

    /// Requests a change at the current epoch, and expects it to be applied.
    async fn apply(&mut self, change: StoreChange) -> CircuitView {
        let base = self.view().await.epoch;
        let transition = self.transition(base, change);
        applied(self.send(&transition).await)
    }

    /// Opens the circuit, lets its isolation elapse, and enters half-open.
    async fn enter_half_open(
        &mut self,
        harness: &dyn Harness,
        open_for: Duration,
        probe_policy: ProbePolicy,
    ) -> Epoch {
        self.apply(open(open_for)).await;
        harness.advance(open_for).await;
        self.apply(StoreChange::HalfOpen { probe_policy })
            .await
            .epoch
    }

    async fn acquire(&mut self, request: &ProbeRequest) -> Option<ProbeLease> {
        self.session
            .acquire_probe(request)
            .await
            .expect("the store responds")
    }
}

fn circuit() -> BulkheadName {
    BulkheadName::new("a").expect("a valid name")
}

const fn open(open_for: Duration) -> StoreChange {
    StoreChange::Open { open_for }
}

fn request(epoch: Epoch, holder: &str) -> ProbeRequest {
    ProbeRequest::new(circuit(), epoch, Arc::from(holder), TTL)
}

#[track_caller]
fn applied(answer: TransitionResult) -> CircuitView {
    match answer {
        TransitionResult::Applied(view) => view,
        other => panic!("should be applied, is {other:?}"),
    }
}

#[track_caller]
fn rejected(answer: TransitionResult) -> (RejectReason, CircuitView) {
    match answer {
        TransitionResult::Rejected { reason, current } => (reason, current),
        other => panic!("should be rejected, is {other:?}"),
    }
}

/// Far longer than any case takes in real time, even on a slow machine.
const ISOLATION: Duration = Duration::from_secs(600);
const TTL: Duration = Duration::from_secs(300);
/// An upper bound of the real time that one case takes on a slow machine.
const SLACK: Duration = Duration::from_secs(120);
