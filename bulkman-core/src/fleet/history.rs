//! What this process has seen of a namespace, to tell whether the store still goes on from there.
//!
//! A store's history can be lost: a backup is restored, or a standby that lagged behind takes over.
//! Then the revision goes back; but by the time somebody looks, other changes may have brought it
//! to where it was, or further. So what is compared is what the circuits look like: each one's
//! epoch and last operation where they are told, and for all that are not, the store's
//! [`Fingerprint`] with what it must be after the changes that were told.

use std::collections::BTreeMap;

use crate::name::BulkheadName;
use crate::store::{CircuitView, Epoch, Fingerprint, OperationId, Revision, Snapshot};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What the circuits looked like at one moment; `None` before the first snapshot.
    base: Option<Base>,
    /// Circuits that were told about since, by the answers to this process's own changes.
    ahead: BTreeMap<BulkheadName, (Revision, Seen)>,
    /// An answer did not go on from here.
    doubted: bool,
}

#[derive(Debug)]
struct Base {
    revision: Revision,
    incarnation: u64,
    fingerprint: Fingerprint,
    circuits: BTreeMap<BulkheadName, Seen>,
}

/// A circuit's last change. The default is that of a circuit that never had one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    epoch: Epoch,
    operation: OperationId,
}

impl Ledger {
    /// Takes in a full snapshot. Circuits that are not what they were, nor went on from there; or
    /// `None` if no history was lost.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) -> Option<Vec<BulkheadName>> {
        let circuits = snapshot
            .circuits
            .iter()
            .map(|view| (view.circuit.clone(), Seen::of(view)))
            .collect();
        let now = Base {
            revision: snapshot.revision,
            incarnation: snapshot.incarnation,
            fingerprint: snapshot.fingerprint,
            circuits,
        };
        let ahead = std::mem::take(&mut self.ahead);
        self.doubted = false;
        let before = self.base.replace(now)?;
        let now = self.base.as_ref()?;
        let known = before.circuits.iter().map(|(name, seen)| (name, *seen));
        let heard = ahead.iter().map(|(name, (_, seen))| (name, *seen));
        let lost: Vec<_> = known
            .chain(heard)
            .filter(|(name, seen)| !now.seen(name).goes_on_from(*seen))
            .map(|(name, _)| name.clone())
            .collect();
        let furthest = ahead.values().map(|(revision, _)| *revision).max();
        let went_back = now.revision < furthest.unwrap_or_default().max(before.revision);
        (went_back || now.incarnation != before.incarnation || !lost.is_empty()).then_some(lost)
    }

    /// Takes in what has changed since [`revision`](Self::revision): whether anything had, or
    /// `None` if that does not go on from there. Then only a full snapshot tells.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) -> Option<bool> {
        let base = self.base.as_mut()?;
        let told: BTreeMap<_, _> = snapshot
            .circuits
            .iter()
            .map(|view| (view.circuit.clone(), Seen::of(view)))
            .collect();
        let mut fingerprint = base.fingerprint;
        for (name, is) in &told {
            fingerprint = fingerprint.with_replaced(base.seen(name).operation, is.operation);
        }
        let is_now =
            |name: &BulkheadName| told.get(name).copied().unwrap_or_else(|| base.seen(name));
        let goes_on = snapshot.incarnation == base.incarnation
            && snapshot.revision >= base.revision
            && snapshot.fingerprint == fingerprint
            && told
                .iter()
                .all(|(name, is)| is.epoch > base.seen(name).epoch)
            && self.ahead.iter().all(|(name, (revision, seen))| {
                *revision <= snapshot.revision && is_now(name).goes_on_from(*seen)
            });
        // If not, the full snapshot is compared with all that was known.
        goes_on.then(|| {
            let changed = snapshot.revision > base.revision;
            base.revision = snapshot.revision;
            base.fingerprint = fingerprint;
            base.circuits.extend(told);
            self.ahead.clear();
            changed
        })
    }

    /// Takes in one change that was announced. Whether it is the next, and goes on from what is known;
    /// if not, only a look tells.
    pub(super) fn advance(&mut self, after: &Snapshot) -> bool {
        let (Some(base), [view]) = (&mut self.base, &after.circuits[..]) else {
            return false;
        };
        let (was, is) = (base.seen(&view.circuit), Seen::of(view));
        let fingerprint = base.fingerprint.with_replaced(was.operation, is.operation);
        let answered = self.ahead.get(&view.circuit);
        let goes_on = after.incarnation == base.incarnation
            && after.revision.0 == base.revision.0 + 1
            && view.revision == after.revision
            && after.fingerprint == fingerprint
            && is.epoch > was.epoch
            && answered.is_none_or(|(revision, seen)| {
                if *revision == after.revision {
                    *seen == is
                } else {
                    seen.epoch > is.epoch
                }
            });
        if goes_on {
            if answered.is_some_and(|(revision, _)| *revision == after.revision) {
                self.ahead.remove(&view.circuit);
            }
            base.revision = after.revision;
            base.fingerprint = fingerprint;
            base.circuits.insert(view.circuit.clone(), is);
        }
        goes_on
    }

    /// Takes in how a circuit stands, by the answer to a change. Whether that goes on from what is
    /// known; if not, [`is_doubted`](Self::is_doubted) until the next full snapshot.
    pub(super) fn hear(&mut self, view: &CircuitView) -> bool {
        let Some(base) = &mut self.base else {
            return true;
        };
        let (was, is) = (base.seen(&view.circuit), Seen::of(view));
        let goes_on = if view.revision <= base.revision {
            is == was
        } else if let Some((revision, seen)) = self.ahead.get(&view.circuit) {
            *revision <= view.revision && is.goes_on_from(*seen)
        } else {
            is.epoch > was.epoch
        };
        if !goes_on {
            self.doubted = true;
            // The circuit has taken it over all the same, and it may be lost before the next look.
            let heard = self
                .ahead
                .entry(view.circuit.clone())
                .or_insert((view.revision, is));
            if is.epoch > heard.1.epoch {
                *heard = (view.revision, is);
            }
        } else if view.revision.0 == base.revision.0 + 1 {
            // Nothing else has happened since, so neither has anything to be looked for.
            base.revision = view.revision;
            base.fingerprint = base.fingerprint.with_replaced(was.operation, is.operation);
            base.circuits.insert(view.circuit.clone(), is);
            self.ahead.remove(&view.circuit);
        } else if view.revision > base.revision {
            self.ahead.insert(view.circuit.clone(), (view.revision, is));
        }
        goes_on
    }

    /// From where on changes are to be looked for.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.base.as_ref().map(|base| base.revision)
    }

    /// Whether only a full snapshot can tell how things are.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }
}

impl Base {
    fn seen(&self, circuit: &BulkheadName) -> Seen {
        self.circuits.get(circuit).copied().unwrap_or_default()
    }
}

impl Seen {
    fn of(view: &CircuitView) -> Self {
        Self {
            epoch: view.epoch,
            operation: view.operation,
        }
    }

    /// Whether this is, or may be, what became of `before`.
    fn goes_on_from(self, before: Self) -> bool {
        self == before || self.epoch > before.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreTime;

    #[test]
    fn what_goes_on_is_followed() {
        let mut ledger = begun(&[("a", 3, 30), ("b", 1, 10)], 4);
        assert_eq!(
            ledger.follow(&after(4, &[("a", 3, 30), ("b", 1, 10)], &[])),
            Some(false)
        );
        let next = after(6, &[("a", 5, 50), ("b", 1, 10)], &[("a", 5, 50)]);
        assert_eq!(ledger.follow(&next), Some(true));
        // One that was registered meanwhile, and has changed.
        let all = [("a", 5, 50), ("b", 1, 10), ("c", 1, 11)];
        assert_eq!(ledger.follow(&after(7, &all, &all[2..])), Some(true));
        assert_eq!(ledger.begin(&after(7, &all, &all)), None);
    }

    #[test]
    fn another_history_of_the_same_length_is_not() {
        // Both circuits had changed; the store has lost that, and something else happened.
        for told in [vec![], vec![("b", 2, 99)], vec![("b", 1, 99)]] {
            let mut ledger = begun(&[("a", 3, 30), ("b", 1, 10)], 4);
            let b = told.first().copied().unwrap_or(("b", 2, 98));
            let now = [("a", 2, 20), b];
            assert_eq!(
                ledger.follow(&after(4 + told.len() as u64, &now, &told)),
                None,
                "{told:?}"
            );
            assert_eq!(
                ledger.begin(&after(9, &now, &now)).unwrap()[0].as_str(),
                "a"
            );
        }
    }

    #[test]
    fn what_answers_tell_is_looked_for() {
        let mut ledger = begun(&[("a", 3, 30), ("b", 1, 10)], 4);
        // The next revision: nothing else has happened.
        assert!(ledger.hear(&view(5, ("a", 4, 40))));
        assert_eq!(ledger.revision(), Some(Revision(5)));
        // Not the next: what lies between is yet to be seen.
        assert!(ledger.hear(&view(9, ("a", 7, 70))));
        assert!(
            ledger.hear(&view(9, ("a", 7, 70))),
            "also when it is said again"
        );
        assert_eq!(ledger.revision(), Some(Revision(5)));
        let without = after(9, &[("a", 4, 40), ("b", 5, 50)], &[("b", 5, 50)]);
        assert_eq!(ledger.follow(&without), None, "it was there already");
        assert_eq!(ledger.begin(&without).unwrap()[0].as_str(), "a");
    }

    #[test]
    fn an_announcement_is_followed_if_it_is_the_next() {
        let mut ledger = begun(&[("a", 3, 30), ("b", 1, 10)], 4);
        let next = [("a", 4, 40), ("b", 1, 10)];
        assert!(ledger.advance(&after(5, &next, &next[..1])));
        assert_eq!(ledger.revision(), Some(Revision(5)));
        assert!(!ledger.advance(&after(5, &next, &next[..1])), "not twice");
        let later = [("a", 4, 40), ("b", 2, 20)];
        assert!(
            !ledger.advance(&after(7, &later, &later[1..])),
            "one is missing"
        );
        let others = [("a", 4, 41), ("b", 2, 20)];
        assert!(
            !ledger.advance(&after(6, &others, &others[1..])),
            "another history"
        );
        let back = [("a", 4, 40), ("b", 1, 20)];
        assert!(
            !ledger.advance(&after(6, &back, &back[1..])),
            "no new epoch"
        );
        assert!(!ledger.advance(&after(6, &later, &later)), "two at once");
        assert!(!ledger.advance(&Snapshot {
            incarnation: 2,
            ..after(6, &later, &later[1..])
        }));
        assert!(!ledger.advance(&Snapshot {
            revision: Revision(6),
            ..after(7, &later, &later[1..])
        }));
        assert!(
            ledger.advance(&after(6, &later, &later[1..])),
            "none of these left a trace"
        );
        assert_eq!(ledger.follow(&after(6, &later, &[])), Some(false));
    }

    #[test]
    fn announcements_lead_up_to_an_answer() {
        let mut ledger = begun(&[("a", 3, 30), ("b", 1, 10)], 4);
        assert!(ledger.hear(&view(7, ("a", 5, 50))));
        let first = [("a", 4, 40), ("b", 1, 10)];
        assert!(
            ledger.advance(&after(5, &first, &first[..1])),
            "an earlier one of the same circuit"
        );
        let second = [("a", 4, 40), ("b", 2, 20)];
        assert!(ledger.advance(&after(6, &second, &second[1..])));
        let other = [("a", 5, 51), ("b", 2, 20)];
        assert!(
            !ledger.advance(&after(7, &other, &other[..1])),
            "not what was answered"
        );
        let third = [("a", 5, 50), ("b", 2, 20)];
        assert!(ledger.advance(&after(7, &third, &third[..1])));
        // One that would take back what was answered.
        assert!(ledger.hear(&view(9, ("b", 3, 30))));
        let taken = [("a", 5, 50), ("b", 3, 31)];
        assert!(!ledger.advance(&after(8, &taken, &taken[1..])));
    }

    #[test]
    fn an_answer_from_another_history_is_doubted() {
        for heard in [
            view(4, ("a", 3, 31)),
            view(2, ("a", 2, 20)),
            view(6, ("a", 3, 33)),
        ] {
            let mut ledger = begun(&[("a", 3, 30)], 4);
            assert!(!ledger.hear(&heard), "{heard:?}");
            assert!(ledger.is_doubted());
            ledger.begin(&after(4, &[("a", 3, 30)], &[("a", 3, 30)]));
            assert!(!ledger.is_doubted());
        }
    }

    #[test]
    fn what_was_told_in_doubt_can_be_lost_as_well() {
        // The store was restored to where `b` had never changed, told of a change to it, and was
        // restored again before anybody looked.
        let mut ledger = begun(&[("a", 2, 20), ("b", 0, 0)], 2);
        assert!(!ledger.hear(&view(1, ("b", 1, 11))));
        let lost = ledger.begin(&after(
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
        // Or was not.
        let mut ledger = begun(&[("a", 2, 20), ("b", 0, 0)], 2);
        assert!(!ledger.hear(&view(1, ("b", 1, 11))));
        let lost = ledger.begin(&after(
            1,
            &[("a", 0, 0), ("b", 1, 11)],
            &[("a", 0, 0), ("b", 1, 11)],
        ));
        assert_eq!(lost, Some(vec![BulkheadName::new("a").unwrap()]));
    }

    #[test]
    fn a_circuit_that_is_gone_is_lost_unless_it_never_changed() {
        let mut ledger = begun(&[("a", 3, 30), ("b", 0, 0)], 4);
        assert_eq!(
            ledger.begin(&after(4, &[], &[])),
            Some(vec![BulkheadName::new("a").unwrap()])
        );
    }

    type Last = (&'static str, u64, u64);

    fn begun(circuits: &[Last], revision: u64) -> Ledger {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(&after(revision, circuits, circuits)), None);
        ledger
    }

    /// A snapshot of a namespace with `circuits`, that tells of `told`.
    fn after(revision: u64, circuits: &[Last], told: &[Last]) -> Snapshot {
        let operations = circuits
            .iter()
            .map(|(.., operation)| OperationId(*operation));
        let fingerprint = operations.fold(Fingerprint::default(), |all, one| {
            all.with_replaced(OperationId(0), one)
        });
        let told = told.iter().map(|last| view(revision, *last)).collect();
        Snapshot::new(Revision(revision), 1, fingerprint, StoreTime(0), told)
    }

    fn view(revision: u64, (name, epoch, operation): Last) -> CircuitView {
        let mut view = CircuitView::new(BulkheadName::new(name).unwrap());
        view.revision = Revision(revision);
        view.epoch = Epoch(epoch);
        view.operation = OperationId(operation);
        view
    }
}
