//! Whether all processes see what the table says.

use std::time::Duration;

use crate::fleet::clock;
use crate::fleet::crew::Crew;
use crate::fleet::server::Server;
use crate::fleet::told::Told;

/// Asks until all do; how long after `since` that was, in milliseconds, or `None` if it never was.
///
/// The moment before they were asked is given: the answer is as old as that.
/// What differed then is written to standard error.
/// What is said meanwhile goes to `besides`.
pub(crate) fn wait(
    crew: &mut Crew,
    server: &Server,
    namespace: &str,
    since: Duration,
    mut besides: impl FnMut(usize, Told),
) -> Option<f64> {
    let until = clock::now() + PATIENCE;
    loop {
        let asked = clock::now();
        let differences = crew.differences(server, namespace, &mut besides);
        if differences.is_empty() {
            return Some(clock::milliseconds(since, asked));
        }
        if asked > until {
            let some = differences
                .iter()
                .take(10)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("\n  ");
            eprintln!("{namespace}: {} differences:\n  {some}", differences.len());
            return None;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
