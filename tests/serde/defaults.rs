//! Defaults for all bulkheads of a file.

use bulkman::circuit_breaker::SlidingWindow;
use bulkman::manager::ManagerConfig;
use bulkman::{BulkheadConfig, CircuitBreakerConfig};

use super::{SECOND, from_environment, round_trips, toml_error};

/// Fault GAP04.
#[test]
fn defaults_apply_to_every_bulkhead_of_the_file() {
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let file = r#"
[defaults]
max_concurrent_calls = 50
timeout = "2s"

[defaults.circuit_breaker]
failure_rate_threshold = 0.5
minimum_number_of_calls = 20
sliding_window = { count = 200 }

[bulkheads.payments]
max_concurrent_calls = 20

[bulkheads.payments.circuit_breaker]
minimum_number_of_calls = 5
sliding_window = { length = "60s", buckets = 60 }

[bulkheads.reports]
max_queue_size = 100
"#;
    let bulkhead = |name| BulkheadConfig::new(name).timeout(2 * SECOND);
    let circuit = CircuitBreakerConfig::new().failure_rate_threshold(0.5);
    let minute = SlidingWindow::Time {
        length: 60 * SECOND,
        buckets: 60,
    };
    let expected = ManagerConfig::new()
        .bulkhead(
            bulkhead("payments")
                .max_concurrent_calls(20)
                .circuit_breaker(
                    circuit
                        .clone()
                        .minimum_number_of_calls(5)
                        .sliding_window(minute),
                ),
        )
        .bulkhead(
            bulkhead("reports")
                .max_concurrent_calls(50)
                .circuit_breaker(
                    circuit
                        .minimum_number_of_calls(20)
                        .sliding_window(SlidingWindow::Count(200)),
                ),
        );
    assert_eq!(read(file), expected);
    round_trips(&read(file));
    // The same from environment variables, and with the defaults at the end.
    let json: serde_json::Value = toml::from_str(file).unwrap();
    let read_variables: ManagerConfig = from_environment(&json).unwrap();
    let mut bulkheads = read_variables.bulkheads().to_vec();
    bulkheads.sort_by(|a, b| a.name().cmp(b.name()));
    assert_eq!(bulkheads, expected.bulkheads(), "in any order");
    let (defaults, bulkheads) = file.split_at(file.find("[bulkheads").unwrap());
    assert_eq!(read(&format!("{bulkheads}{defaults}")), expected);
    let yaml =
        |first: &str, second: &str| format!("{first}: {}\n{second}: {}", json[first], json[second]);
    for text in [yaml("defaults", "bulkheads"), yaml("bulkheads", "defaults")] {
        assert_eq!(
            serde_yaml_ng::from_str::<ManagerConfig>(&text).unwrap(),
            expected
        );
    }
}

/// Fault GAP04.
#[test]
fn settings_override_defaults_that_exclude_them() {
    let circuit = |defaults: &str, own: &str| {
        let json = format!(
            r#"{{"bulkheads":{{"a":{{"circuit_breaker":{own}}}}},"defaults":{{"circuit_breaker":{defaults}}}}}"#
        );
        let config = serde_json::from_str::<ManagerConfig>(&json);
        let config = config.unwrap_or_else(|error| panic!("{json}: {error}"));
        serde_json::to_value(&config.bulkheads()[0]).unwrap()["circuit_breaker"].to_string()
    };
    for (defaults, own, merged) in [
        (
            r#"{"isolation_duration":"5s"}"#,
            r#"{"isolation_schedule":["1s"]}"#,
            r#"{"isolation_schedule":["1s"]}"#,
        ),
        (
            r#"{"isolation_backoff":{"factor":2,"max":"5m"}}"#,
            r#"{"isolation_schedule":["1s"]}"#,
            r#"{"isolation_schedule":["1s"]}"#,
        ),
        (
            r#"{"isolation_schedule":["1s"]}"#,
            r#"{"isolation_duration":"5s"}"#,
            r#"{"isolation_duration":"5s"}"#,
        ),
        (
            r#"{"success_threshold":2}"#,
            r#"{"permitted_calls_in_half_open":4}"#,
            r#"{"permitted_calls_in_half_open":4}"#,
        ),
        (
            r#"{"permitted_calls_in_half_open":4}"#,
            r#"{"success_threshold":2}"#,
            r#"{"success_threshold":2}"#,
        ),
        // Two rules do not exclude each other: both are set.
        (
            r#"{"failure_threshold":7}"#,
            r#"{"failure_rate_threshold":0.5}"#,
            r#"{"failure_rate_threshold":0.5,"failure_threshold":7}"#,
        ),
        // Null is the default of the library.
        (
            r#"{"failure_threshold":7}"#,
            r#"{"failure_threshold":null}"#,
            "null",
        ),
        (r#"{"failure_threshold":7}"#, "null", "null"),
        (
            "null",
            r#"{"failure_threshold":7}"#,
            r#"{"failure_threshold":7}"#,
        ),
        (
            r#"{"failure_threshold":null}"#,
            r#"{"failure_threshold":7}"#,
            r#"{"failure_threshold":7}"#,
        ),
    ] {
        assert_eq!(circuit(defaults, own), merged, "{defaults} {own}");
    }
    let json =
        r#"{"defaults":{"timeout":"2s","max_wait":"1s"},"bulkheads":{"a":{"timeout":null}}}"#;
    let expected = ManagerConfig::new().bulkhead(BulkheadConfig::new("a").max_wait(SECOND));
    assert_eq!(
        serde_json::from_str::<ManagerConfig>(json).unwrap(),
        expected
    );
}

/// Fault GAP04.
#[test]
fn merged_settings_are_validated_together() {
    let read = |defaults: &str, own: &str| {
        toml::from_str::<ManagerConfig>(&format!(
            "[defaults.circuit_breaker]\n{defaults}\n[bulkheads.a.circuit_breaker]\n{own}\n"
        ))
    };
    // Each half is incomplete.
    for (one, other) in [
        (
            "slow_call_rate_threshold = 0.5",
            "slow_call_duration_threshold = '1s'",
        ),
        (
            "failure_count_threshold = 500",
            "sliding_window = { count = 500 }",
        ),
        (
            "isolation_backoff = { factor = 2, max = '10s' }",
            "isolation_duration = '1s'",
        ),
    ] {
        for (defaults, own) in [(one, other), (other, one)] {
            read(defaults, own).unwrap_or_else(|error| panic!("{defaults}\n{own}\n{error}"));
        }
        for (defaults, own) in [(one, ""), ("", one)] {
            let error = read(defaults, own).unwrap_err().to_string();
            assert!(
                error.contains("bulkhead \"a\": `"),
                "{defaults}\n{own}\n{error}"
            );
        }
    }
    // What nothing else can correct is an error of its table.
    for (wrong, message) in [
        (
            "success_threshold = 2\npermitted_calls_in_half_open = 4",
            "left out when",
        ),
        (
            "isolation_duration = '30s'\nisolation_backoff = { factor = 2, max = '10s' }",
            "isolation_backoff.max",
        ),
        (
            "failure_count_threshold = 500\nsliding_window = { count = 499 }",
            "failure_count_threshold",
        ),
    ] {
        let text = |table: &str| format!("[bulkheads.b]\n\n[{table}.circuit_breaker]\n{wrong}\n");
        for table in ["bulkheads.a", "defaults"] {
            let (line, error) = toml_error::<ManagerConfig>(&text(table));
            assert!(line == 3 && error.contains(message), "{line}: {error}");
        }
    }
    for (toml, line, message) in [
        (
            "[bulkheads]\n[defaults]\nname = 'a'",
            2,
            "`defaults` has the field `name`",
        ),
        (
            "[bulkheads]\n[defaults]\nunkown = 1",
            3,
            "unknown field `unkown`",
        ),
        (
            "[bulkheads]\n[defaults]\nmax_concurrent_calls = 0",
            3,
            "`max_concurrent_calls` is 0",
        ),
    ] {
        let (found, error) = toml_error::<ManagerConfig>(toml);
        assert!(found == line && error.contains(message), "{found}: {error}");
    }
}
