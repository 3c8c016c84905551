//! Traces recorded by a simulation, which the windows and the rule together reproduce.

use bulkman_limitsim::scenarios::{Drop, Hang};
use bulkman_limitsim::trace::record;

use crate::golden::{DROP, HANG};
use crate::trace::parse;

#[test]
fn windows_and_rule_reproduce_a_loss_of_capacity() {
    compare(&record(&Drop, 1), DROP);
}

#[test]
fn windows_and_rule_reproduce_a_hang() {
    compare(&record(&Hang, 1), HANG);
}

/// Compares row by row, so that a failure shows the first window that differs.
///
/// Service times are logarithms and exponentials of the platform. Others than that of the recording
/// may round them differently, and then the sequence of events differs as well.
fn compare(actual: &str, expected: &str) {
    let (actual, expected) = (parse(actual), parse(expected));
    if cfg!(not(all(
        target_os = "linux",
        target_env = "gnu",
        target_arch = "x86_64"
    ))) {
        assert!(actual.len().abs_diff(expected.len()) < 30);
        return;
    }
    for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        assert_eq!(actual, expected, "row {index}");
    }
    assert_eq!(actual.len(), expected.len());
}
