//! The history of a namespace, as far as this process has read it.
//!
//! A store can lose history: a backup is restored, or a lagging standby takes over. The revision
//! then goes backwards, but later changes may have reached or passed it by the time of the next
//! read. The revision alone therefore can't detect the loss. [`NamespaceHistory`] compares the
//! circuits themselves: the epoch and last operation of every circuit in a response, and for all
//! others the store's [`Fingerprint`] with the one that the changes in the response must lead to.

use std::collections::BTreeMap;

use crate::name::BulkheadName;
use crate::store::{CircuitView, Epoch, Fingerprint, OperationId, Revision, Snapshot};

/// Detects whether a store's state is a successor of everything that was read before.
#[derive(Debug, Default)]
pub(super) struct NamespaceHistory {
    /// The circuits at one revision; `None` before the first snapshot.
    baseline: Option<Baseline>,
    /// Circuits with changes after the baseline, known from responses to this process's requests.
    newer: BTreeMap<BulkheadName, (Revision, LastChange)>,
    /// Whether a response was not a successor of what was read before.
    diverged: bool,
}

#[derive(Debug)]
struct Baseline {
    revision: Revision,
    incarnation: u64,
    fingerprint: Fingerprint,
    circuits: BTreeMap<BulkheadName, LastChange>,
}

/// A circuit's last change. The default is that of a circuit that was never changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LastChange {
    epoch: Epoch,
    operation: OperationId,
}

impl NamespaceHistory {
    /// Replaces the baseline by a full snapshot.
    ///
    /// Returns `None` if no history was lost, or the circuits that lost changes.
    pub(super) fn reset(&mut self, snapshot: &Snapshot) -> Option<Vec<BulkheadName>> {
        let circuits = snapshot
            .circuits
            .iter()
            .map(|view| (view.circuit.clone(), LastChange::of(view)))
            .collect();
        let now = Baseline {
            revision: snapshot.revision,
            incarnation: snapshot.incarnation,
            fingerprint: snapshot.fingerprint,
            circuits,
        };
        let newer = std::mem::take(&mut self.newer);
        self.diverged = false;
        let before = self.baseline.replace(now)?;
        let now = self.baseline.as_ref()?;
        let read = before.circuits.iter().map(|(name, last)| (name, *last));
        let responded = newer.iter().map(|(name, (_, last))| (name, *last));
        let lost: Vec<_> = read
            .chain(responded)
            .filter(|(name, last)| !now.last_change(name).is_successor_of(*last))
            .map(|(name, _)| name.clone())
            .collect();
        let latest = newer.values().map(|(revision, _)| *revision).max();
        let went_back = now.revision < latest.unwrap_or_default().max(before.revision);
        // An empty namespace has no incarnation yet. One that was deleted has lost its revision,
        // or its circuits.
        let known = before.incarnation != 0 && now.incarnation != 0;
        let replaced = known && now.incarnation != before.incarnation;
        (went_back || replaced || !lost.is_empty()).then_some(lost)
    }

    /// Applies the changes since [`revision`](Self::revision).
    ///
    /// Returns whether there were any, or `None` if they don't follow from the baseline. The
    /// caller must then read a full snapshot.
    pub(super) fn apply_delta(&mut self, snapshot: &Snapshot) -> Option<bool> {
        let baseline = self.baseline.as_mut()?;
        let changed: BTreeMap<_, _> = snapshot
            .circuits
            .iter()
            .map(|view| (view.circuit.clone(), LastChange::of(view)))
            .collect();
        let mut fingerprint = baseline.fingerprint;
        for (name, new) in &changed {
            let old = baseline.last_change(name);
            fingerprint = fingerprint.with_replaced(old.operation, new.operation);
        }
        let current = |name: &BulkheadName| {
            changed
                .get(name)
                .copied()
                .unwrap_or_else(|| baseline.last_change(name))
        };
        let follows = snapshot.incarnation == baseline.incarnation
            && snapshot.revision >= baseline.revision
            && snapshot.fingerprint == fingerprint
            && changed
                .iter()
                .all(|(name, new)| new.epoch > baseline.last_change(name).epoch)
            && self.newer.iter().all(|(name, (revision, last))| {
                *revision <= snapshot.revision && current(name).is_successor_of(*last)
            });
        // On failure the state stays, so that `reset` can compare it with the full snapshot.
        follows.then(|| {
            let any = snapshot.revision > baseline.revision;
            baseline.revision = snapshot.revision;
            baseline.fingerprint = fingerprint;
            baseline.circuits.extend(changed);
            self.newer.clear();
            any
        })
    }

    /// Applies the change that a notification contains.
    ///
    /// Returns `false`, and changes nothing, if it is not the next change after the baseline.
    pub(super) fn apply_event(&mut self, after: &Snapshot) -> bool {
        let (Some(baseline), [view]) = (&mut self.baseline, &after.circuits[..]) else {
            return false;
        };
        let (old, new) = (baseline.last_change(&view.circuit), LastChange::of(view));
        let fingerprint = baseline
            .fingerprint
            .with_replaced(old.operation, new.operation);
        let response = self.newer.get(&view.circuit);
        let follows = after.incarnation == baseline.incarnation
            && after.revision.0 == baseline.revision.0 + 1
            && view.revision == after.revision
            && after.fingerprint == fingerprint
            && new.epoch > old.epoch
            && response.is_none_or(|(revision, last)| {
                if *revision == after.revision {
                    *last == new
                } else {
                    last.epoch > new.epoch
                }
            });
        if follows {
            if response.is_some_and(|(revision, _)| *revision == after.revision) {
                self.newer.remove(&view.circuit);
            }
            baseline.revision = after.revision;
            baseline.fingerprint = fingerprint;
            baseline.circuits.insert(view.circuit.clone(), new);
        }
        follows
    }

    /// Applies a circuit's state from the response to one of this process's requests.
    ///
    /// Returns `false` if it doesn't follow from what was read before. The history
    /// [has diverged](Self::has_diverged) then, until the next full snapshot.
    pub(super) fn apply_response(&mut self, view: &CircuitView) -> bool {
        let Some(baseline) = &mut self.baseline else {
            return true;
        };
        let (old, new) = (baseline.last_change(&view.circuit), LastChange::of(view));
        let follows = if view.revision <= baseline.revision {
            new == old
        } else if let Some((revision, last)) = self.newer.get(&view.circuit) {
            *revision <= view.revision && new.is_successor_of(*last)
        } else {
            new.epoch > old.epoch
        };
        if !follows {
            self.diverged = true;
            // The circuit has adopted this state, which may be lost before the next read, too.
            let latest = self
                .newer
                .entry(view.circuit.clone())
                .or_insert((view.revision, new));
            if new.epoch > latest.1.epoch {
                *latest = (view.revision, new);
            }
        } else if view.revision.0 == baseline.revision.0 + 1 {
            // Nothing happened in between, so there is nothing to read.
            baseline.revision = view.revision;
            baseline.fingerprint = baseline
                .fingerprint
                .with_replaced(old.operation, new.operation);
            baseline.circuits.insert(view.circuit.clone(), new);
            self.newer.remove(&view.circuit);
        } else if view.revision > baseline.revision {
            self.newer
                .insert(view.circuit.clone(), (view.revision, new));
        }
        follows
    }

    /// Returns the revision after which changes are to be read.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.baseline.as_ref().map(|baseline| baseline.revision)
    }

    /// Returns whether a snapshot is older than what was read before, as that of a standby may be.
    pub(super) fn is_newer_than(&self, snapshot: &Snapshot) -> bool {
        let responses = self.newer.values().map(|(revision, _)| *revision);
        let latest = responses.chain(self.revision()).max();
        latest.is_some_and(|latest| snapshot.revision < latest)
            && self
                .baseline
                .as_ref()
                .is_some_and(|baseline| baseline.incarnation == snapshot.incarnation)
    }

    /// Returns whether a full snapshot is needed, because a response did not follow.
    pub(super) const fn has_diverged(&self) -> bool {
        self.diverged
    }
}

impl Baseline {
    fn last_change(&self, circuit: &BulkheadName) -> LastChange {
        self.circuits.get(circuit).copied().unwrap_or_default()
    }
}

impl LastChange {
    const fn of(view: &CircuitView) -> Self {
        Self {
            epoch: view.epoch,
            operation: view.operation,
        }
    }

    /// Returns whether a circuit with this last change may have had the last change `before`.
    fn is_successor_of(self, before: Self) -> bool {
        self == before || self.epoch > before.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreTime;

    #[test]
    fn a_delta_that_follows_is_applied() {
        let mut history = history_of(&[("a", 3, 30), ("b", 1, 10)], 4);
        assert_eq!(
            history.apply_delta(&after(4, &[("a", 3, 30), ("b", 1, 10)], &[])),
            Some(false)
        );
        let next = after(6, &[("a", 5, 50), ("b", 1, 10)], &[("a", 5, 50)]);
        assert_eq!(history.apply_delta(&next), Some(true));
        // A circuit that was registered and changed in between.
        let all = [("a", 5, 50), ("b", 1, 10), ("c", 1, 11)];
        assert_eq!(history.apply_delta(&after(7, &all, &all[2..])), Some(true));
        assert_eq!(history.reset(&after(7, &all, &all)), None);
    }

    #[test]
    fn a_delta_of_another_history_is_rejected() {
        // The store has lost the changes of both circuits, and made other ones since.
        for changed in [vec![], vec![("b", 2, 99)], vec![("b", 1, 99)]] {
            let mut history = history_of(&[("a", 3, 30), ("b", 1, 10)], 4);
            let b = changed.first().copied().unwrap_or(("b", 2, 98));
            let now = [("a", 2, 20), b];
            assert_eq!(
                history.apply_delta(&after(4 + changed.len() as u64, &now, &changed)),
                None,
                "{changed:?}"
            );
            assert_eq!(
                history.reset(&after(9, &now, &now)).unwrap()[0].as_str(),
                "a"
            );
        }
    }

    #[test]
    fn a_response_with_a_gap_keeps_the_revision() {
        let mut history = history_of(&[("a", 3, 30), ("b", 1, 10)], 4);
        // The next revision: nothing happened in between.
        assert!(history.apply_response(&view(5, ("a", 4, 40))));
        assert_eq!(history.revision(), Some(Revision(5)));
        // A gap: the changes in between are still unknown.
        assert!(history.apply_response(&view(9, ("a", 7, 70))));
        assert!(
            history.apply_response(&view(9, ("a", 7, 70))),
            "the same response again"
        );
        assert_eq!(history.revision(), Some(Revision(5)));
        let without = after(9, &[("a", 4, 40), ("b", 5, 50)], &[("b", 5, 50)]);
        assert_eq!(
            history.apply_delta(&without),
            None,
            "the earlier response had a change that is missing here"
        );
        assert_eq!(history.reset(&without).unwrap()[0].as_str(), "a");
    }

    #[test]
    fn an_event_is_applied_only_if_it_is_the_next() {
        let mut history = history_of(&[("a", 3, 30), ("b", 1, 10)], 4);
        let next = [("a", 4, 40), ("b", 1, 10)];
        assert!(history.apply_event(&after(5, &next, &next[..1])));
        assert_eq!(history.revision(), Some(Revision(5)));
        assert!(
            !history.apply_event(&after(5, &next, &next[..1])),
            "the same event again"
        );
        let later = [("a", 4, 40), ("b", 2, 20)];
        assert!(
            !history.apply_event(&after(7, &later, &later[1..])),
            "a gap in the revisions"
        );
        let others = [("a", 4, 41), ("b", 2, 20)];
        assert!(
            !history.apply_event(&after(6, &others, &others[1..])),
            "another history"
        );
        let back = [("a", 4, 40), ("b", 1, 20)];
        assert!(
            !history.apply_event(&after(6, &back, &back[1..])),
            "the epoch did not increase"
        );
        assert!(
            !history.apply_event(&after(6, &later, &later)),
            "two circuits in one event"
        );
        assert!(!history.apply_event(&Snapshot {
            incarnation: 2,
            ..after(6, &later, &later[1..])
        }));
        assert!(!history.apply_event(&Snapshot {
            revision: Revision(6),
            ..after(7, &later, &later[1..])
        }));
        assert!(
            history.apply_event(&after(6, &later, &later[1..])),
            "rejected events changed nothing"
        );
        assert_eq!(history.apply_delta(&after(6, &later, &[])), Some(false));
    }

    #[test]
    fn events_catch_up_with_an_earlier_response() {
        let mut history = history_of(&[("a", 3, 30), ("b", 1, 10)], 4);
        assert!(history.apply_response(&view(7, ("a", 5, 50))));
        let first = [("a", 4, 40), ("b", 1, 10)];
        assert!(
            history.apply_event(&after(5, &first, &first[..1])),
            "an earlier change of the same circuit"
        );
        let second = [("a", 4, 40), ("b", 2, 20)];
        assert!(history.apply_event(&after(6, &second, &second[1..])));
        let other = [("a", 5, 51), ("b", 2, 20)];
        assert!(
            !history.apply_event(&after(7, &other, &other[..1])),
            "another operation than in the response"
        );
        let third = [("a", 5, 50), ("b", 2, 20)];
        assert!(history.apply_event(&after(7, &third, &third[..1])));
        // This event contradicts the response.
        assert!(history.apply_response(&view(9, ("b", 3, 30))));
        let taken = [("a", 5, 50), ("b", 3, 31)];
        assert!(!history.apply_event(&after(8, &taken, &taken[1..])));
    }

    #[test]
    fn a_response_of_another_history_diverges() {
        for response in [
            view(4, ("a", 3, 31)),
            view(2, ("a", 2, 20)),
            view(6, ("a", 3, 33)),
        ] {
            let mut history = history_of(&[("a", 3, 30)], 4);
            assert!(!history.apply_response(&response), "{response:?}");
            assert!(history.has_diverged());
            history.reset(&after(4, &[("a", 3, 30)], &[("a", 3, 30)]));
            assert!(!history.has_diverged());
        }
    }

    #[test]
    fn a_diverging_response_can_be_lost_as_well() {
        // The store was restored to a state in which `b` had never changed, responded with a change
        // to `b`, and was restored again before the next read.
        let mut history = history_of(&[("a", 2, 20), ("b", 0, 0)], 2);
        assert!(!history.apply_response(&view(1, ("b", 1, 11))));
        let lost = history.reset(&after(
            0,
            &[("a", 0, 0), ("b", 0, 0)],
            &[("a", 0, 0), ("b", 0, 0)],
        ));
        assert_eq!(
            lost,
            Some(vec![
                BulkheadName::new("a").unwrap(),
                BulkheadName::new("b").unwrap()
            ])
        );
        // The same, without the second restore.
        let mut history = history_of(&[("a", 2, 20), ("b", 0, 0)], 2);
        assert!(!history.apply_response(&view(1, ("b", 1, 11))));
        let lost = history.reset(&after(
            1,
            &[("a", 0, 0), ("b", 1, 11)],
            &[("a", 0, 0), ("b", 1, 11)],
        ));
        assert_eq!(lost, Some(vec![BulkheadName::new("a").unwrap()]));
    }

    #[test]
    fn a_missing_circuit_is_lost_unless_never_changed() {
        let mut history = history_of(&[("a", 3, 30), ("b", 0, 0)], 4);
        assert_eq!(
            history.reset(&after(4, &[], &[])),
            Some(vec![BulkheadName::new("a").unwrap()])
        );
    }

    /// Fault C14.
    #[test]
    fn an_unknown_incarnation_is_not_compared() {
        let empty = Snapshot {
            incarnation: 0,
            ..after(0, &[], &[])
        };
        let registered = after(0, &[("a", 0, 0)], &[("a", 0, 0)]);
        let mut history = NamespaceHistory::default();
        assert_eq!(history.reset(&empty), None);
        assert_eq!(history.reset(&registered), None, "a circuit was registered");
        // The namespace is deleted: one report, although it is registered again.
        let mut history = history_of(&[("a", 3, 30)], 4);
        assert_eq!(history.reset(&empty).map(|lost| lost.len()), Some(1));
        assert_eq!(history.reset(&registered), None);
        // Another schema of the same content.
        let other = Snapshot {
            incarnation: 2,
            ..registered.clone()
        };
        assert!(history.reset(&other).is_some());
    }

    type Change = (&'static str, u64, u64);

    fn history_of(circuits: &[Change], revision: u64) -> NamespaceHistory {
        let mut history = NamespaceHistory::default();
        assert_eq!(history.reset(&after(revision, circuits, circuits)), None);
        history
    }

    /// Returns a snapshot of a namespace with `circuits` that contains only `changed`.
    fn after(revision: u64, circuits: &[Change], changed: &[Change]) -> Snapshot {
        let operations = circuits
            .iter()
            .map(|(.., operation)| OperationId(*operation));
        let fingerprint = operations.fold(Fingerprint::default(), |all, one| {
            all.with_replaced(OperationId(0), one)
        });
        let changed = changed
            .iter()
            .map(|change| view(revision, *change))
            .collect();
        Snapshot::new(Revision(revision), 1, fingerprint, StoreTime(0), changed)
    }

    fn view(revision: u64, (name, epoch, operation): Change) -> CircuitView {
        let mut view = CircuitView::new(BulkheadName::new(name).unwrap());
        view.revision = Revision(revision);
        view.epoch = Epoch(epoch);
        view.operation = OperationId(operation);
        view
    }
}
