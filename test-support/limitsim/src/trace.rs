//! Records traces of this project's rule.

use std::fmt::Write as _;

use bulkman_core::adaptive::ClosedWindow;

use crate::bulkman::Bulkman;
use crate::scenario::Scenario;
use crate::simulation::Simulation;

/// The columns of a trace.
pub const HEADER: &str = "time,successes,latency,overloads,throughput,reached,peak,limit_before,limit_after,cause,\
                          baseline,threshold,hold";

/// Simulates one client, and returns one line for each closed window and the state after it.
///
/// Numbers are formatted so that parsing them returns equal ones. A baseline of zero is none.
#[must_use]
pub fn record(scenario: &dyn Scenario, seed: u64) -> String {
    let mut bulkman = Bulkman::default().recording();
    let _ = Simulation::new(scenario, seed).run(vec![Box::new(&mut bulkman)]);
    let mut text = format!("{HEADER}\n");
    for (time, decision, rule) in bulkman.decisions() {
        let ClosedWindow {
            successes,
            latency,
            overloads,
            throughput,
            reached,
            peak,
        } = decision.window;
        let cause = match decision.adjustment {
            _ if decision.discarded => "discarded",
            Some(adjustment) => adjustment.cause.as_str(),
            None => "none",
        };
        let _ = writeln!(
            text,
            "{time:?},{successes},{latency:?},{overloads},{throughput:?},{},{peak},{:?},{:?},{cause},{:?},{:?},{}",
            u8::from(reached),
            decision.limit_before,
            rule.limit(),
            rule.baseline().unwrap_or(0.0),
            rule.threshold(),
            rule.hold(),
        );
    }
    text
}
