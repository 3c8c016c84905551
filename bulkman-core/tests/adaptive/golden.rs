//! Recorded traces, which the rule reproduces window by window.
//!
//! Each row is one closed window and the state of the rule after it. In `drop-seed1.csv` a
//! dependency with 20 workers has 5 of them between 20 s and 40 s. In `hang-seed1.csv` its calls
//! hang between 20 s and 30 s.

use bulkman_core::adaptive::{AdaptiveLimit, LimitRule, LimitSettings};

use crate::trace::{Row, parse};

pub(crate) const DROP: &str = include_str!("traces/drop-seed1.csv");
pub(crate) const HANG: &str = include_str!("traces/hang-seed1.csv");

#[test]
fn rule_reproduces_a_loss_of_capacity_exactly() {
    replay(
        DROP,
        290,
        &["growth", "no_gain", "queueing", "measuring", "measured"],
    );
}

#[test]
fn rule_reproduces_a_hang_exactly() {
    replay(
        HANG,
        250,
        &[
            "growth",
            "no_gain",
            "no_reply",
            "overload",
            "latency_shift",
            "measured",
        ],
    );
}

/// Feeds the windows of a trace to a new rule, and compares every column.
fn replay(trace: &str, windows: usize, causes: &[&str]) {
    let rows = parse(trace);
    assert_eq!(rows.len(), windows);
    for cause in causes {
        assert!(
            rows.iter().any(|row| row.cause == *cause),
            "no window has the cause {cause}"
        );
    }
    let mut rule = LimitRule::new(LimitSettings::new(&AdaptiveLimit::new(), 1000));
    for (index, expected) in rows.iter().enumerate() {
        let limit_before = rule.limit();
        let discarded = expected.cause == "discarded";
        let adjustment = if discarded {
            rule.on_discarded_window()
        } else {
            rule.on_window(&expected.window, expected.time)
        };
        let actual = Row {
            time: expected.time,
            window: expected.window,
            limit_before,
            limit_after: rule.limit(),
            cause: match adjustment {
                _ if discarded => "discarded".into(),
                Some(adjustment) => adjustment.cause.to_string(),
                None => "none".into(),
            },
            baseline: rule.baseline().unwrap_or(0.0),
            threshold: rule.threshold(),
            hold: rule.hold(),
        };
        assert_eq!(&actual, expected, "row {index}");
        if let Some(adjustment) = adjustment {
            assert_eq!(
                (adjustment.from, adjustment.to),
                (expected.limit_before, expected.limit_after)
            );
        }
    }
}
