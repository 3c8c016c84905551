//! The timer behind `automatic_half_open`: a task that sleeps until something is due.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::shell::Shell;
use crate::runtime::Runtime;
use crate::sync::unwind::catch;

/// One task. There is at most one that counts: an earlier deadline starts another, and the old
/// one ends when it notices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarm {
    pub(crate) number: u64,
    pub(crate) at: Instant,
}

/// Spawns the task. It holds the circuit weakly, and what it does when it wakes is what anybody
/// who looks at the state does: it performs what is due, whatever has happened meanwhile.
pub(crate) fn start(alarm: Alarm, shell: Weak<Shell>, runtime: &Arc<dyn Runtime>) {
    let clock = Arc::clone(runtime);
    let place = Place {
        shell,
        number: alarm.number,
    };
    let task = Box::pin(async move {
        let mut at = alarm.at;
        loop {
            clock.sleep_until(at).await;
            let Some(shell) = place.shell.upgrade() else {
                return;
            };
            match shell.alarm_rings(place.number) {
                Some(next) => at = next,
                None => return,
            }
        }
    });
    // A runtime that can't spawn (it is shut down, say) must not fail the call that is being
    // recorded. The circuit then leaves the open state when somebody looks, as without the alarm.
    catch(|| runtime.spawn(task));
}

/// Tells the circuit when the task is dropped, so that another may be started.
struct Place {
    shell: Weak<Shell>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shell) = self.shell.upgrade() {
            shell.alarm_lost(self.number);
        }
    }
}
