//! Agreement: the views of all processes equal the table.

use std::time::Duration;

use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::server::Server;

/// Polls until all views equal the table, and returns the milliseconds from `since` until then.
///
/// The time before the last request counts, since the views may be as old as that. Returns `None`
/// after a timeout, and writes the differences to standard error. Other reports are passed to
/// `others`.
pub(crate) fn wait(
    processes: &mut Processes,
    server: &Server,
    namespace: &str,
    since: Duration,
    mut others: impl FnMut(usize, Report),
) -> Option<f64> {
    let deadline = clock::now() + TIMEOUT;
    loop {
        let requested = clock::now();
        let differences = processes.differences(server, namespace, &mut others);
        if differences.is_empty() {
            return Some(clock::milliseconds(since, requested));
        }
        if requested > deadline {
            let first = differences
                .iter()
                .take(10)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("\n  ");
            eprintln!("{namespace}: {} differences:\n  {first}", differences.len());
            return None;
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(20);
