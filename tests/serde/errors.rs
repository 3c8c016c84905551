//! What errors of a file say.

use std::fmt::Debug;

use bulkman::adaptive::AdaptiveLimit;
use bulkman::manager::ManagerConfig;
use bulkman::store::{BucketedWindow, StoreSettings};
use bulkman::{BulkheadConfig, CircuitBreakerConfig};
use serde::de::DeserializeOwned;

use super::{JSON, TOML, YAML, settings, toml_error};

#[test]
fn toml_errors_name_the_line() {
    let cases = [
        // Errors of one field have its line.
        (
            "max_concurrent_calls = 20",
            "max_concurrent_calls = 0",
            3,
            "`max_concurrent_calls` is 0, must be 1 to",
        ),
        (
            "max_concurrent_calls = 20",
            "max_concurrent_calls = -1",
            3,
            "-1",
        ),
        (
            "max_concurrent_calls = 20",
            "max_concurent_calls = 20",
            3,
            "unknown field `max_concurent_calls`",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = 2.5",
            6,
            "a duration as text, such as \"250ms\"",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = \"soon\"",
            6,
            "string \"soon\", expected a duration as text",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = \"0s\"",
            6,
            "`timeout` is 0ns, must be more than zero",
        ),
        (
            "queue_order = \"lifo\"",
            "queue_order = \"random\"",
            5,
            "unknown variant `random`",
        ),
        (
            "failure_threshold = \"off\"",
            "failure_threshold = 0",
            9,
            "`failure_threshold` is 0",
        ),
        (
            "failure_threshold = \"off\"",
            "failure_threshold = \"of\"",
            9,
            "a number of failures, or \"off\"",
        ),
        (
            "failure_rate_threshold = 0.5",
            "failure_rate_threshold = 50.0",
            10,
            "a fraction within (0, 1]",
        ),
        (
            "buckets = 60 }",
            "buckets = 0 }",
            12,
            "`sliding_window.buckets` is 0",
        ),
        (
            "buckets = 60 }",
            "count = 60 }",
            12,
            "either `count`, or `length` and `buckets`",
        ),
        (
            "isolation_duration = \"10s\"",
            "isolation_duration = \"0ms\"",
            13,
            "`isolation_duration` is 0ns",
        ),
        ("factor = 2,", "faktor = 2,", 14, "unknown field `faktor`"),
        // Errors about several fields have the line of their table.
        (
            "max = \"5m\"",
            "max = \"5s\"",
            8,
            "`isolation_backoff.max` is 5s, must be at least `isolation_duration`",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.reports]\nname = \"report\"",
            16,
            "omit it, the key is the name",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.\"\"]",
            16,
            "`name` is 0 bytes, must be 1 to 255 bytes",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.\"a\\nb\"]",
            16,
            "text without control characters",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.payments]",
            16,
            "duplicate key",
        ),
        (
            "[bulkheads.reports]",
            "[bulkhead.reports]",
            16,
            "unknown field `bulkhead`",
        ),
    ];
    for (right, wrong, line, message) in cases {
        let text = TOML.replace(right, wrong);
        assert_ne!(text, TOML, "{right}");
        let (actual, error) = toml_error::<ManagerConfig>(&text);
        assert_eq!(actual, line, "{wrong}: {error}");
        assert!(error.contains(message), "{wrong}: {error}");
    }
}

#[test]
fn yaml_and_json_errors_name_the_line() {
    let yaml = YAML.replace("max_concurrent_calls: 20", "max_concurrent_calls: 0");
    let error = serde_yaml_ng::from_str::<ManagerConfig>(&yaml).unwrap_err();
    assert!(
        error.to_string().contains("`max_concurrent_calls` is 0"),
        "{error}"
    );
    assert_eq!(error.location().map(|at| at.line()), Some(4), "{error}");
    let yaml = YAML.replace("timeout: 2s 500ms", "timeoot: 2s");
    let error = serde_yaml_ng::from_str::<ManagerConfig>(&yaml).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `timeoot`"),
        "{error}"
    );
    assert_eq!(error.location().map(|at| at.line()), Some(7), "{error}");

    for (right, wrong, line, message) in [
        (
            "\"max_concurrent_calls\": 20",
            "\"max_concurrent_calls\": 0",
            4,
            "`max_concurrent_calls` is 0",
        ),
        (
            "\"timeout\": \"2500ms\"",
            "\"timeout\": \"soon\"",
            7,
            "expected a duration as text",
        ),
        ("\"queue_order\"", "\"order\"", 6, "unknown field `order`"),
        (
            "\"reports\": {",
            "\"payments\": {",
            18,
            "duplicate bulkhead \"payments\"",
        ),
    ] {
        let text = JSON.replace(right, wrong);
        let error = serde_json::from_str::<ManagerConfig>(&text).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.line(), line, "{error}");
    }
}

#[test]
fn every_type_rejects_unknown_fields() {
    fn rejects_unknown<T: DeserializeOwned + Debug>(right: &str, unknown: &str) {
        toml::from_str::<T>(right).unwrap_or_else(|error| panic!("{error}\n{right}"));
        let error = toml::from_str::<T>(unknown).expect_err(unknown).to_string();
        assert!(error.contains("unkown"), "{unknown}: {error}");
    }
    rejects_unknown::<ManagerConfig>("[bulkheads]", "unkown = 1\n[bulkheads]");
    rejects_unknown::<ManagerConfig>("[bulkheads.a]", "[bulkheads.a]\nunkown = 1");
    rejects_unknown::<BulkheadConfig>("name = 'a'", "name = 'a'\nunkown = 1");
    rejects_unknown::<BulkheadConfig>(
        "name = 'a'\n[circuit_breaker]",
        "name = 'a'\n[circuit_breaker]\nunkown = 1",
    );
    rejects_unknown::<BulkheadConfig>(
        "name = 'a'\n[adaptive_limit]",
        "name = 'a'\n[adaptive_limit]\nunkown = 1",
    );
    rejects_unknown::<AdaptiveLimit>("", "unkown = 1");
    rejects_unknown::<CircuitBreakerConfig>("", "unkown = 1");
    for (setting, fields) in [
        ("sliding_window", "count = 10"),
        ("sliding_window", "length = '10s', buckets = 10"),
        ("isolation_backoff", "factor = 2, max = '5m'"),
        ("max_half_open_duration", "duration = '1m', then = 'open'"),
    ] {
        let text = |fields: &str| format!("{setting} = {{ {fields} }}");
        rejects_unknown::<CircuitBreakerConfig>(
            &text(fields),
            &text(&format!("{fields}, unkown = 1")),
        );
    }
    rejects_unknown::<StoreSettings>("", "unkown = 1");
    for (setting, fields) in [
        ("share", "quorum = 2, window = '10s'"),
        // Within the sharing mode and, below, within its window.
        (
            "share",
            "counts = { sliding_window = { length = '10s', buckets = 10 }, failure_count_threshold = 5 }",
        ),
        ("on_outage", "probe_locally = 2"),
    ] {
        let text = |fields: &str| format!("{setting} = {{ {fields} }}");
        rejects_unknown::<StoreSettings>(&text(fields), &text(&format!("{fields}, unkown = 1")));
    }
    let inside = |more: &str| {
        format!(
            "share = {{ counts = {{ sliding_window = {{ length = '10s', buckets = 10{more} }}, failure_count_threshold = 5 }} }}"
        )
    };
    rejects_unknown::<StoreSettings>(&inside(""), &inside(", unkown = 1"));
    rejects_unknown::<BucketedWindow>(
        "length = '10s'\nbuckets = 10",
        "length = '10s'\nbuckets = 10\nunkown = 1",
    );
}

/// Fault F11.
#[test]
fn type_errors_describe_the_expected_shape() {
    fn check<T: DeserializeOwned + Debug>(document: impl Fn(&str) -> String) {
        // None of these is a value of any setting, except where it is listed.
        for value in [
            "5",
            "-5",
            "0.25",
            "true",
            "\"?\"",
            "[[1]]",
            "[]",
            "{\"?\":1}",
            "{}",
        ] {
            let json = document(value);
            let Err(error) = serde_json::from_str::<T>(&json) else {
                continue;
            };
            let yaml = serde_yaml_ng::from_str::<T>(&json).unwrap_err().to_string();
            for error in [error.to_string(), yaml] {
                // Fields and words are in lower case, so a capital letter belongs to a type.
                let shape = error.split_once("expected").map_or("", |(_, shape)| shape);
                let shape = shape.replace("YAML", "");
                assert!(!shape.contains(char::is_uppercase), "{json}: {error}");
                assert!(
                    !error.contains("struct") && !error.contains("enum"),
                    "{json}: {error}"
                );
            }
        }
    }
    for setting in settings::<BulkheadConfig>() {
        check::<BulkheadConfig>(|value| format!("{{\"name\":\"db\",\"{setting}\":{value}}}"));
        check::<ManagerConfig>(|value| {
            format!("{{\"defaults\":{{\"{setting}\":{value}}},\"bulkheads\":{{}}}}")
        });
    }
    for setting in settings::<CircuitBreakerConfig>() {
        check::<CircuitBreakerConfig>(|value| format!("{{\"{setting}\":{value}}}"));
    }
    for setting in settings::<StoreSettings>() {
        check::<StoreSettings>(|value| format!("{{\"{setting}\":{value}}}"));
    }
    for json in [
        "?",
        "{\"bulkheads\":?}",
        "{\"bulkheads\":{\"a\":?}}",
        "{\"bulkheads\":{},\"defaults\":?}",
    ] {
        check::<ManagerConfig>(|value| json.replacen('?', value, 1));
    }

    for (toml, message) in [
        (
            "sliding_window = 100",
            r#"expected `{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#,
        ),
        (
            "sliding_window = '60s'",
            r#"expected `{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#,
        ),
        (
            "sliding_window = [100]",
            r#"expected `{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#,
        ),
        (
            "isolation_backoff = 2",
            r#"expected `{ factor = 2, max = "5m" }`"#,
        ),
        (
            "isolation_schedule = 2",
            r#"expected a list of durations, such as ["5s", "1m"]"#,
        ),
        (
            "max_half_open_duration = '1m'",
            r#"expected `{ duration = "5m", then = "open" }`"#,
        ),
        (
            "initial_state = 1",
            r#"expected "closed", "open", "half_open""#,
        ),
        ("automatic_half_open = 1", "expected true or false"),
        (
            "failure_rate_threshold = []",
            "expected a number, such as 0.5",
        ),
        (
            "failure_threshold = 5000000000",
            "expected a number of failures, or \"off\"",
        ),
        (
            "success_threshold = 5000000000",
            "expected a whole number up to 4,294,967,295",
        ),
    ] {
        let text = format!("[bulkheads.a.circuit_breaker]\n{toml}\n");
        let (line, error) = toml_error::<ManagerConfig>(&text);
        assert!(line == 2 && error.contains(message), "{toml}: {error}");
    }
    for (toml, message) in [
        ("bulkheads = 5", "expected a table from names to bulkheads"),
        (
            "[bulkheads]\na = 5",
            "expected a table of settings, such as `{ max_concurrent_calls = 20 }`",
        ),
        ("[bulkheads]\na = []", "expected a table of settings"),
        (
            "[bulkheads.a]\nqueue_order = 1",
            r#"expected "fifo" or "lifo""#,
        ),
        (
            "[bulkheads.a]\ncircuit_breaker = []",
            "expected a table of settings",
        ),
        ("defaults = 5\n[bulkheads]", "expected a table of settings"),
    ] {
        let (_, error) = toml_error::<ManagerConfig>(toml);
        assert!(error.contains(message), "{toml}: {error}");
    }
    for (toml, message) in [
        ("push = 1", r#"expected "auto" or "off""#),
        (
            "on_outage = 1",
            r#"expected "hold_open" or `{ probe_locally = 1 }`"#,
        ),
        (
            "share = 'all'",
            r#"expected `{ quorum = 3, window = "10s" }` or `{ counts = { .. } }`"#,
        ),
        (
            "share = { counts = 5 }",
            "expected a table with `sliding_window`",
        ),
        (
            "probe_limit = 70000",
            "expected a whole number up to 65,535",
        ),
    ] {
        let (_, error) = toml_error::<StoreSettings>(toml);
        assert!(error.contains(message), "{toml}: {error}");
    }
}
