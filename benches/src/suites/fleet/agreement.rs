//! Whether the views of all processes equal the table.

use std::time::Duration;

use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::server::Server;

/// Polls until they do. Returns the milliseconds since `since`, or `None` if they never do.
///
/// The time before the query counts: the response is as old as that.
/// What differed then is written to standard error.
/// Other reports go to `besides`.
pub(crate) fn wait(
    processes: &mut Processes,
    server: &Server,
    namespace: &str,
    since: Duration,
    mut besides: impl FnMut(usize, Report),
) -> Option<f64> {
    let until = clock::now() + PATIENCE;
    loop {
        let asked = clock::now();
        let differences = processes.differences(server, namespace, &mut besides);
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
