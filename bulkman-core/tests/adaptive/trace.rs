//! Reads recorded traces of the rule.

use bulkman_core::adaptive::ClosedWindow;
use bulkman_limitsim::trace::HEADER;

/// A closed window and the state of the rule after it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) time: f64,
    pub(crate) window: ClosedWindow,
    pub(crate) limit_before: f64,
    pub(crate) limit_after: f64,
    /// The cause of the change, `none`, or `discarded` for a discarded window.
    pub(crate) cause: String,
    /// Zero is none.
    pub(crate) baseline: f64,
    pub(crate) threshold: f64,
    pub(crate) hold: u32,
}

/// Parses a trace.
pub(crate) fn parse(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(HEADER));
    lines.map(parse_row).collect()
}

fn parse_row(line: &str) -> Row {
    let columns: Vec<&str> = line.split(',').collect();
    let [
        time,
        successes,
        latency,
        overloads,
        throughput,
        reached,
        peak,
        limit_before,
        limit_after,
        cause,
        baseline,
        threshold,
        hold,
    ] = columns[..]
    else {
        panic!("not thirteen columns: {line}")
    };
    let real = |column: &str| column.parse::<f64>().unwrap();
    let whole = |column: &str| column.parse::<u64>().unwrap();
    Row {
        time: real(time),
        window: ClosedWindow {
            successes: whole(successes),
            latency: real(latency),
            overloads: whole(overloads),
            throughput: real(throughput),
            reached: reached == "1",
            peak: whole(peak),
        },
        limit_before: real(limit_before),
        limit_after: real(limit_after),
        cause: cause.into(),
        baseline: real(baseline),
        threshold: real(threshold),
        hold: hold.parse().unwrap(),
    }
}
