//! Whether all processes see what the table says.

use std::time::Duration;

use crate::fleet::clock;
use crate::fleet::crew::Crew;
use crate::fleet::server::Server;

/// Asks until all do; how long after `since` that was, in milliseconds, or `None` if it never was.
///
/// The moment before they were asked is given: the answer is as old as that.
pub(crate) fn wait(crew: &mut Crew, server: &Server, namespace: &str, since: Duration) -> Option<f64> {
    let until = clock::now() + PATIENCE;
    while clock::now() < until {
        let asked = clock::now();
        if crew.agrees(server, namespace, |_, _| {}) {
            return Some(clock::milliseconds(since, asked));
        }
    }
    None
}

const PATIENCE: Duration = Duration::from_secs(20);
