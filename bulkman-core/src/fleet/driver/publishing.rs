//! Telling the fleet what was decided here: by compare-and-swap, or by vote.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Driver, Slot};
use crate::fleet::hub::MemberId;
use crate::fleet::member::{Pending, Step};
use crate::store::{
    CircuitView, Epoch, FleetState, OperationId, RejectReason, Revision, SharingMode, StoreChange,
    StoreError, StoreSession, StoreTransition, StoreVote, TransitionResult, VoteResult,
};

impl Driver {
    /// What is to be published, from `first` on, in one operation: when something fails that many
    /// circuits depend on, they open together.
    pub(super) async fn publish(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        now: Instant,
    ) -> Result<(), StoreError> {
        let mut batch: Vec<(MemberId, StoreTransition)> = Vec::new();
        for (id, slot) in self
            .members
            .range(first..)
            .chain(self.members.range(..first))
        {
            let Some(Step::Publish {
                base,
                pending,
                vote: false,
            }) = slot.member.step(now)
            else {
                continue;
            };
            // Of circuits of one name, the second waits to hear of the first.
            if batch
                .iter()
                .all(|(_, transition)| transition.circuit != slot.name)
            {
                batch.push((*id, self.publication(slot, base, &pending, now)));
            }
            if batch.len() == PUBLISHED_AT_ONCE {
                break;
            }
        }
        self.transition(session, batch).await
    }

    pub(super) fn publication(
        &self,
        slot: &Slot,
        base: Epoch,
        pending: &Pending,
        now: Instant,
    ) -> StoreTransition {
        let change = match pending.target {
            FleetState::Open => {
                let open_for = pending
                    .until
                    .map_or(Duration::MAX, |until| until.saturating_duration_since(now));
                StoreChange::Open { open_for }
            }
            FleetState::HalfOpen => StoreChange::HalfOpen {
                probe_policy: self.plan(&slot.circuit),
            },
            _ => StoreChange::Close,
        };
        StoreTransition {
            manual: pending.by_hand,
            not_after: self.not_after(now),
            author: Arc::clone(&self.author),
            reason: Arc::from(pending.cause.as_str()),
            ..StoreTransition::new(slot.name.clone(), base, change, pending.operation)
        }
    }

    pub(super) async fn transition(
        &mut self,
        session: &mut dyn StoreSession,
        batch: Vec<(MemberId, StoreTransition)>,
    ) -> Result<(), StoreError> {
        let (ids, transitions): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let answers = self.ask(session.transitions(&transitions)).await?;
        let now = self.now();
        let mut answers: Vec<_> = ids.into_iter().zip(&transitions).zip(answers).collect();
        // Those that were made, one after the other as they became visible.
        answers.sort_by_key(|(_, answer)| match answer {
            TransitionResult::Applied(view) => view.revision,
            _ => Revision::default(),
        });
        let (mut too_late, mut unknown) = (false, false);
        for ((id, transition), answer) in answers {
            match answer {
                TransitionResult::Applied(view) => self.applied(id, transition, &view, now),
                TransitionResult::Rejected { reason, current } => {
                    too_late |= self.refused(id, transition.operation, reason, &current, now);
                }
                TransitionResult::UnknownCircuit => unknown = true,
            }
        }
        if unknown {
            return self.register(session).await;
        }
        if too_late {
            self.look(session).await.map(drop)
        } else {
            Ok(())
        }
    }

    fn applied(
        &mut self,
        id: MemberId,
        transition: &StoreTransition,
        view: &CircuitView,
        now: Instant,
    ) {
        self.ledger.hear(view);
        self.spread(id, view);
        let ask_now =
            matches!(transition.change, StoreChange::HalfOpen { .. }) && !transition.manual;
        self.with_member(id, |member| {
            let ending = member.made(transition.operation, view, now);
            if ask_now {
                member.ask(now);
            }
            ending
        });
    }

    /// Whether it came too late by the store's clock, which has to be read anew.
    fn refused(
        &mut self,
        id: MemberId,
        operation: OperationId,
        why: RejectReason,
        current: &CircuitView,
        now: Instant,
    ) -> bool {
        self.hub.tell(|status| status.counted.count_refusal(why));
        // By a store that has lost history, what was decided is judged by all of it.
        let goes_on = self.ledger.hear(current);
        if goes_on {
            self.with_member(id, |member| member.refused(operation, why, current, now));
        }
        goes_on && why == RejectReason::Expired
    }

    pub(super) async fn vote(
        &mut self,
        session: &mut dyn StoreSession,
        id: MemberId,
        opening: StoreTransition,
    ) -> Result<(), StoreError> {
        let SharingMode::State { quorum, window } = self.settings.share else {
            return Ok(());
        };
        let operation = opening.operation;
        let vote = StoreVote::new(opening, self.holder(id), quorum, window);
        let voted = self.ask(session.vote(&vote)).await?;
        let now = self.now();
        match voted {
            VoteResult::Opened(view) => {
                self.ledger.hear(&view);
                self.spread(id, &view);
                self.with_member(id, |member| member.made(operation, &view, now));
                Ok(())
            }
            VoteResult::Counted { .. } => {
                self.with_member(id, |member| member.counted(operation));
                Ok(())
            }
            VoteResult::Rejected { reason, current } => {
                let too_late = self.refused(id, operation, reason, &current, now);
                if too_late {
                    self.look(session).await.map(drop)
                } else {
                    Ok(())
                }
            }
            VoteResult::UnknownCircuit => self.register(session).await,
        }
    }
}

/// Decisions in one operation: enough for one outage to be told at once, and few enough for an answer
/// in a few milliseconds.
const PUBLISHED_AT_ONCE: usize = 200;
