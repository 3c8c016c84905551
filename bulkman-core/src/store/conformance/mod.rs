//! What every [`CircuitStore`] must do, as tests.
//!
//! A store is accepted when all [cases](CASES) pass. Each gets a namespace of its own through a
//! [`Harness`], which also makes the store's time pass, so that nothing waits: by a virtual clock,
//! or by shifting the clock that the store's statements read.
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
//!         Arc::new(self.store.in_namespace(namespace))
//!     }
//!     fn advance(&self, time: Duration) -> BoxFuture<'_, ()> {
//!         self.runtime.advance(time);
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
//! // In a test module: `bulkman::store_conformance!(run);` makes a `#[test]` of each case.
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

/// What a case needs.
pub trait Harness: Sync {
    /// The store, seen from a namespace (of 1 to 200 bytes); the same data at every call.
    ///
    /// Nothing may be in it when a case begins.
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore>;

    /// Makes the store's clock go on by `time`.
    fn advance(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// One requirement. It panics, saying what is wrong, when the store does not meet it.
pub type Case = for<'a> fn(&'a dyn Harness) -> BoxFuture<'a, ()>;

/// Makes the list of cases, and the macro that makes tests of them.
macro_rules! cases {
    ($($module:ident::$case:ident,)*) => {
        /// All cases with their names.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($case), $case),)*];

        $(
            #[doc = concat!("The case `", stringify!($case), "`.")]
            pub fn $case(harness: &dyn Harness) -> BoxFuture<'_, ()> {
                Box::pin($module::$case(harness))
            }
        )*
    };
}

cases! {
    state::a_registered_circuit_is_closed_at_epoch_zero,
    state::registering_again_changes_nothing,
    state::an_opening_is_seen_by_others,
    state::an_opening_ages_on_the_stores_clock,
    state::a_stale_base_is_refused_and_told_the_truth,
    state::a_repeated_operation_applies_once,
    state::a_transition_is_not_applied_after_its_time,
    state::half_open_needs_an_opening_that_is_over,
    state::half_open_by_hand_needs_none,
    state::the_same_state_is_entered_again_by_hand_only,
    state::closing_forgets_how_often_it_opened,
    state::an_unknown_circuit_is_said_to_be_unknown,
    state::revisions_order_all_changes,
    batch::several_are_changed_at_once_and_each_by_itself,
    batch::a_batch_that_is_sent_again_applies_once,
    state::namespaces_are_apart,
    fingerprint::it_follows_every_change_and_nothing_else,
    probes::never_more_leases_than_the_limit,
    probes::a_holder_has_one_lease,
    probes::a_lease_is_free_after_its_term,
    probes::a_renewed_lease_lasts,
    probes::a_released_lease_is_free_and_its_holder_without_a_say,
    probes::no_lease_unless_half_open_at_that_epoch,
    probes::enough_successes_close,
    probes::one_failure_reopens_a_streak,
    probes::a_sample_decides_when_it_is_complete,
    probes::a_sample_reopens_on_slow_calls,
    probes::a_verdict_counts_once,
    probes::a_verdict_renews_the_lease,
    probes::a_late_verdict_is_fenced,
    probes::a_deciding_verdict_is_recognised_when_repeated,
    probes::leases_of_an_earlier_stay_have_no_say,
    votes::a_quorum_opens,
    votes::a_process_has_one_vote,
    votes::a_vote_expires,
    votes::votes_end_with_the_state_they_were_for,
    votes::a_vote_is_refused_as_a_transition_is,
    counts::the_fleets_counts_add_up,
    counts::counts_leave_the_window,
    counts::counts_of_an_earlier_epoch_are_not_added_to,
    counts::circuits_and_windows_are_counted_apart,
    commands::an_operator_wins_over_every_state,
    commands::nothing_leaves_a_forced_state_but_a_command,
    commands::a_repeated_command_applies_once,
    commands::the_history_says_who_and_why,
    commands::the_history_is_bounded,
    names::hostile_names_are_names,
    names::long_texts_are_cut_between_characters,
    push::changes_are_announced,
    push::waiting_for_changes_can_be_given_up,
}

/// Makes a `#[test]` of every conformance case.
///
/// Its argument is a function that runs one [`Case`](crate::store::conformance::Case): it makes a
/// [`Harness`](crate::store::conformance::Harness) over a fresh store and blocks on the case.
#[macro_export]
macro_rules! store_conformance {
    ($run:path) => {
        $crate::store_conformance! { @tests $run:
            a_registered_circuit_is_closed_at_epoch_zero
            registering_again_changes_nothing
            an_opening_is_seen_by_others
            an_opening_ages_on_the_stores_clock
            a_stale_base_is_refused_and_told_the_truth
            a_repeated_operation_applies_once
            a_transition_is_not_applied_after_its_time
            half_open_needs_an_opening_that_is_over
            half_open_by_hand_needs_none
            the_same_state_is_entered_again_by_hand_only
            closing_forgets_how_often_it_opened
            an_unknown_circuit_is_said_to_be_unknown
            revisions_order_all_changes
            several_are_changed_at_once_and_each_by_itself
            a_batch_that_is_sent_again_applies_once
            namespaces_are_apart
            it_follows_every_change_and_nothing_else
            never_more_leases_than_the_limit
            a_holder_has_one_lease
            a_lease_is_free_after_its_term
            a_renewed_lease_lasts
            a_released_lease_is_free_and_its_holder_without_a_say
            no_lease_unless_half_open_at_that_epoch
            enough_successes_close
            one_failure_reopens_a_streak
            a_sample_decides_when_it_is_complete
            a_sample_reopens_on_slow_calls
            a_verdict_counts_once
            a_verdict_renews_the_lease
            a_late_verdict_is_fenced
            a_deciding_verdict_is_recognised_when_repeated
            leases_of_an_earlier_stay_have_no_say
            a_quorum_opens
            a_process_has_one_vote
            a_vote_expires
            votes_end_with_the_state_they_were_for
            a_vote_is_refused_as_a_transition_is
            the_fleets_counts_add_up
            counts_leave_the_window
            counts_of_an_earlier_epoch_are_not_added_to
            circuits_and_windows_are_counted_apart
            an_operator_wins_over_every_state
            nothing_leaves_a_forced_state_but_a_command
            a_repeated_command_applies_once
            the_history_says_who_and_why
            the_history_is_bounded
            hostile_names_are_names
            long_texts_are_cut_between_characters
            changes_are_announced
            waiting_for_changes_can_be_given_up
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
        fn every_case_is_a_test() {
            let tests = [$(stringify!($case)),*];
            let cases = $crate::store::conformance::CASES.iter().map(|(name, _)| *name);
            assert!(cases.eq(tests), "the macro's list is not the list of cases");
        }
    };
}

/// A session on circuit `a`, and what the cases do with it again and again.
struct Client {
    session: Box<dyn StoreSession>,
    operations: u64,
}

impl Client {
    /// In namespace `main`.
    async fn new(harness: &dyn Harness, salt: u64) -> Self {
        Self::on(&*harness.store("main"), salt).await
    }

    /// `salt` tells the operations of several clients apart.
    async fn on(store: &dyn CircuitStore, salt: u64) -> Self {
        let session = store.open_session(&[circuit()]).await.expect("connects");
        Self {
            session,
            operations: salt << 32,
        }
    }

    fn operation(&mut self) -> OperationId {
        self.operations += 1;
        OperationId(self.operations)
    }

    /// The circuit as a full snapshot shows it.
    async fn view(&mut self) -> CircuitView {
        let snapshot = self.session.snapshot(None).await.expect("snapshot");
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
            .expect("an answer")
    }

    /// Makes a change on the current epoch, and expects it to be made.
    async fn make(&mut self, change: StoreChange) -> CircuitView {
        let base = self.view().await.epoch;
        let transition = self.transition(base, change);
        applied(self.send(&transition).await)
    }

    /// Opens for `wait`, lets that pass, and starts probing by `plan`.
    async fn probe_after(
        &mut self,
        harness: &dyn Harness,
        wait: Duration,
        plan: ProbePolicy,
    ) -> Epoch {
        self.make(open(wait)).await;
        harness.advance(wait).await;
        self.make(StoreChange::HalfOpen { plan }).await.epoch
    }

    async fn acquire(&mut self, request: &ProbeRequest) -> Option<ProbeLease> {
        self.session
            .acquire_probe(request)
            .await
            .expect("an answer")
    }
}

fn circuit() -> BulkheadName {
    BulkheadName::new("a").expect("a valid name")
}

const fn open(wait: Duration) -> StoreChange {
    StoreChange::Open { wait }
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
fn refused(answer: TransitionResult) -> (RejectReason, CircuitView) {
    match answer {
        TransitionResult::Rejected { why, current } => (why, current),
        other => panic!("should be refused, is {other:?}"),
    }
}

/// Long enough that a slow machine can't be mistaken for the passing of store time.
const WAIT: Duration = Duration::from_secs(600);
const TTL: Duration = Duration::from_secs(300);
/// What the statements of one case may take on a slow machine.
const SLACK: Duration = Duration::from_secs(120);
