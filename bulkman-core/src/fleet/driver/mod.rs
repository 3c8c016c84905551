//! The task: connects, listens, asks and answers, one operation at a time, each within its time.
//!
//! `circuits.rs` looks at this process's circuits and tells them what follows; `asking.rs` talks to
//! the store, `publishing.rs` where that is about decisions; `link.rs` looks after the link's condition,
//! and waits.

mod asking;
mod circuits;
mod hints;
mod link;
mod publishing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use self::hints::Hints;
use super::hub::{End, Hub, MemberId, Tallies};
use super::ledger::Ledger;
use super::member::Member;
use super::pace::Pace;
use crate::circuit_breaker::WeakCircuit;
use crate::name::BulkheadName;
use crate::store::{
    CircuitStore, Epoch, OperationId, Push, StoreError, StoreEvent, StoreSession, StoreSettings,
    StoreTime,
};

pub(super) struct Driver {
    hub: Arc<Hub>,
    store: Arc<dyn CircuitStore>,
    settings: StoreSettings,
    members: BTreeMap<MemberId, Slot>,
    /// Whose step was the last.
    turn: MemberId,
    /// Attached, and not registered in the store by the link that is there.
    unregistered: bool,
    pace: Pace,
    /// How the history calls this process.
    author: Arc<str>,
    /// How leases and votes do: no two processes alike.
    identity: Arc<str>,
    ledger: Ledger,
    /// A reading of the store's clock, and when it was taken.
    clock: Option<(StoreTime, Instant)>,
    push: PushState,
    degraded_since: Option<Instant>,
    /// The outage's reason was told, and whether it was one that mends itself.
    told_transient: Option<bool>,
    ever_synchronised: bool,
    linked: bool,
}

struct Slot {
    name: BulkheadName,
    circuit: WeakCircuit,
    member: Member,
    tallies: Option<Tallies>,
    /// The decision of which it was told that it waits.
    told_pending: Option<OperationId>,
    /// What was counted up to now, and in which epoch.
    counted: (u64, u64, Epoch),
}

/// Whether announcements can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PushState {
    Off,
    /// On; so many looks in a row found what no announcement had brought.
    On {
        missed: u8,
    },
}

/// Why a link was left.
enum Left {
    Ended,
    Failed(StoreError),
}

impl From<StoreError> for Left {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What ended a wait.
enum Woken {
    Inbox,
    Heard(Result<StoreEvent, StoreError>),
    Timer,
}

impl Driver {
    pub(super) fn new(
        hub: Arc<Hub>,
        store: Arc<dyn CircuitStore>,
        settings: StoreSettings,
    ) -> Self {
        let mut pace = Pace::new(settings.backoff_min, settings.backoff_max);
        let author = settings
            .instance
            .clone()
            .unwrap_or_else(|| Arc::from(format!("pid {}", std::process::id())));
        let identity = Arc::from(format!("{author} {:016x}", pace.operation().0));
        let push = match settings.push {
            Push::Auto if store.capabilities().push => PushState::On { missed: 0 },
            _ => PushState::Off,
        };
        hub.tell(|status| status.polling = push == PushState::Off);
        Self {
            hub,
            store,
            settings,
            members: BTreeMap::new(),
            turn: 0,
            unregistered: false,
            pace,
            author,
            identity,
            ledger: Ledger::default(),
            clock: None,
            push,
            degraded_since: None,
            told_transient: None,
            ever_synchronised: false,
            linked: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.live().await {
                Left::Ended => break,
                Left::Failed(error) => self.degrade(error),
            }
            if !self.back_off().await {
                break;
            }
        }
        self.end();
    }

    /// One link, from connecting until it is left.
    async fn live(&mut self) -> Left {
        let error = match self.connect().await {
            Ok(mut session) => match self.serve(&mut *session).await {
                Ok(()) => return Left::Ended,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if self.hub.ending() == Some(End::Now) {
            Left::Ended
        } else {
            Left::Failed(error)
        }
    }

    async fn connect(&mut self) -> Result<Box<dyn StoreSession>, StoreError> {
        self.take_inbox();
        let names = self.names();
        self.unregistered = false;
        let limit = self.settings.connect_timeout;
        let store = Arc::clone(&self.store);
        let mut session = self.within(limit, store.open_session(&names)).await?;
        let snapshot = self.ask(session.snapshot(None)).await?;
        self.take_full(snapshot, &mut *session).await?;
        self.recover();
        Ok(session)
    }

    /// Works until it is to end (`Ok`), or the link is of no more use.
    async fn serve(&mut self, session: &mut dyn StoreSession) -> Result<(), StoreError> {
        let mut look_at = self.next_look();
        let mut flush_at = self.next_flush();
        let mut hints = Hints::default();
        // A step is put off for one look, not for ever.
        let mut looked = false;
        loop {
            self.take_inbox();
            if std::mem::take(&mut self.unregistered) || self.ledger.is_doubted() {
                self.register(session).await?;
            }
            self.give_orders();
            let now = self.now();
            if let Some((id, step)) = self.next_step(now) {
                // When many open many at once, one look tells what most steps would be refused for.
                self.listen_in_passing(session, &mut hints).await?;
                if !looked && hints.is_due(now) {
                    self.look_at_hint(session, &mut hints).await?;
                    looked = true;
                    continue;
                }
                self.perform(session, id, step).await?;
                self.publish_status();
                looked = false;
                continue;
            }
            self.publish_status();
            match self.hub.ending() {
                Some(End::Now) => return Ok(()),
                // What was decided before the end was asked for may have come in meanwhile.
                Some(End::Flush) if self.hub.has_news() => continue,
                Some(End::Flush) => return self.give_leases_back(session).await,
                None => {}
            }
            if hints.is_due(now) {
                self.look_at_hint(session, &mut hints).await?;
                continue;
            }
            if now >= look_at {
                let found = self.look(session).await?;
                self.judge_push(found);
                look_at = self.next_look();
                continue;
            }
            if flush_at.is_some_and(|at| now >= at) {
                self.flush_counts(session).await?;
                flush_at = self.next_flush();
                continue;
            }
            let mut wake_at = look_at;
            for at in [flush_at, hints.deadline(), self.next_deadline(now)]
                .into_iter()
                .flatten()
            {
                wake_at = wake_at.min(at);
            }
            match self.wait(Some(session), wake_at).await {
                Woken::Inbox | Woken::Timer => {}
                Woken::Heard(event) => {
                    self.take_event(&event?, &mut hints);
                    self.listen_in_passing(session, &mut hints).await?;
                }
            }
        }
    }
}
