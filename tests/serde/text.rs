//! Settings as text, as from an environment, and null.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bulkman::adaptive::AdaptiveLimit;
use bulkman::bulkhead::Fairness;
use bulkman::circuit_breaker::{CircuitState, IsolationBackoff, SlidingWindow};
use bulkman::manager::ManagerConfig;
use bulkman::store::{FleetCountPolicy, SharingMode, StoreSettings};
use bulkman::{BulkheadConfig, CircuitBreakerConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use super::{
    SECOND, circuits, every_adaptive_setting, every_fairness_setting, from_environment, settings,
    stores,
};

/// Fault F06.
#[test]
fn every_setting_accepts_text_from_an_environment() {
    let mut covered = BTreeSet::new();
    let mut cover = |value: &serde_json::Value| {
        covered.extend(value.as_object().unwrap().keys().cloned());
    };
    for circuit in circuits() {
        let circuit = serde_json::to_value(circuit).unwrap();
        cover(&circuit);
        let document = serde_json::json!({ "bulkheads": { "payments": {
            "name": "payments",
            "max_concurrent_calls": 20,
            "max_queue_size": 0,
            "max_queue_weight": 30,
            "queue_order": "lifo",
            "overtaking": 8,
            "timeout": "2s",
            "max_wait": "0s",
            "run_timeout": "1s",
            "adaptive_limit": serde_json::to_value(every_adaptive_setting()).unwrap(),
            "enforcement": "observe",
            "fairness": serde_json::to_value(every_fairness_setting()).unwrap(),
            "track_running_calls": true,
            "circuit_breaker_enabled": false,
            "circuit_breaker": circuit,
        } } });
        cover(&document["bulkheads"]["payments"]);
        cover(&document["bulkheads"]["payments"]["adaptive_limit"]);
        cover(&document["bulkheads"]["payments"]["fairness"]);
        let typed: ManagerConfig = serde_json::from_value(document.clone()).unwrap();
        let text: ManagerConfig =
            from_environment(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
        assert_eq!(text, typed);
    }
    for settings in stores() {
        let document = serde_json::to_value(&settings).unwrap();
        cover(&document);
        let text: StoreSettings =
            from_environment(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
        assert_eq!(text, settings);
    }
    for all in [
        settings::<BulkheadConfig>(),
        settings::<AdaptiveLimit>(),
        settings::<Fairness>(),
        settings::<CircuitBreakerConfig>(),
        settings::<StoreSettings>(),
    ] {
        for setting in all {
            assert!(covered.contains(&setting), "{setting} was not set");
        }
    }
}

/// Fault F06.
#[test]
fn text_is_accepted_in_every_format() {
    let expected = BulkheadConfig::new("api")
        .max_concurrent_calls(7)
        .circuit_breaker_enabled(false)
        .circuit_breaker(CircuitBreakerConfig::new().failure_rate_threshold(0.5));
    let toml = "name = 'api'\nmax_concurrent_calls = '7'\ncircuit_breaker_enabled = 'false'\n\
        [circuit_breaker]\nfailure_rate_threshold = '0.5'";
    assert_eq!(toml::from_str::<BulkheadConfig>(toml).unwrap(), expected);
    let yaml = "name: api\nmax_concurrent_calls: '7'\ncircuit_breaker_enabled: 'off'\n\
        circuit_breaker: { failure_rate_threshold: '0.5' }";
    assert_eq!(
        serde_yaml_ng::from_str::<BulkheadConfig>(yaml).unwrap(),
        expected
    );

    // A source without null and without types, such as the variables of a process.
    let variables = [
        ("failure_threshold", "off"),
        ("failure_rate_threshold", "0.5"),
        ("minimum_number_of_calls", "20"),
        ("isolation_schedule", "1s, 5s"),
        ("automatic_half_open", "true"),
        ("initial_state", "half_open"),
    ];
    let source = MapDeserializer::<_, serde::de::value::Error>::new(variables.into_iter());
    let expected = CircuitBreakerConfig::new()
        .failure_threshold(None)
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(20)
        .isolation_schedule([SECOND, 5 * SECOND])
        .automatic_half_open(true)
        .initial_state(CircuitState::HalfOpen);
    assert_eq!(CircuitBreakerConfig::deserialize(source), Ok(expected));
}

/// Fault F06.
#[test]
fn text_in_another_spelling_is_an_error() {
    for (setting, text, message) in [
        (
            "queue_order",
            "LIFO",
            "unknown variant `LIFO`, expected `fifo` or `lifo`",
        ),
        ("queue_order", "", "unknown variant ``"),
        ("timeout", "", "a duration as text"),
        ("max_concurrent_calls", "", "a whole number"),
        ("max_concurrent_calls", "1_000", "a whole number"),
        ("max_concurrent_calls", "-1", "a whole number"),
        ("circuit_breaker_enabled", "", "true or false"),
        ("circuit_breaker", "", "a table of settings"),
    ] {
        let text = serde_json::json!({ "name": "api", setting: text });
        let error = serde_json::from_value::<BulkheadConfig>(text.clone()).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
    for (setting, text, message) in [
        ("failure_rate_threshold", "50%", "a number, such as 0.5"),
        ("failure_threshold", "", "a number of failures, or \"off\""),
        ("isolation_schedule", "", "a duration as text"),
        ("isolation_schedule", "5s,,1m", "a duration as text"),
    ] {
        let text = serde_json::json!({ setting: text });
        let error = serde_json::from_value::<CircuitBreakerConfig>(text.clone()).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

/// Fault F10.
#[test]
fn null_means_the_default_for_every_setting() {
    #[derive(Deserialize)]
    struct Service {
        #[serde(flatten)]
        bulkhead: BulkheadConfig,
    }
    fn check<T: DeserializeOwned + Debug + PartialEq>(fields: &str, default: &T) {
        for setting in settings::<T>().iter().filter(|setting| *setting != "name") {
            let json = format!("{{{fields}\"{setting}\":null}}");
            let read =
                serde_json::from_str::<T>(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(read, *default, "{json}");
            let yaml = json.replace("null", "");
            let read = serde_yaml_ng::from_str::<T>(&yaml)
                .unwrap_or_else(|error| panic!("{yaml}: {error}"));
            assert_eq!(read, *default, "{yaml}");
        }
    }
    check("\"name\":\"db\",", &BulkheadConfig::new("db"));
    check("", &CircuitBreakerConfig::new());
    check("", &StoreSettings::new());
    // Within a struct that is flattened, a null is a unit.
    let json = r#"{"name":"db","max_wait":null,"circuit_breaker":null}"#;
    let read = serde_json::from_str::<Service>(json).unwrap();
    assert_eq!(read.bulkhead, BulkheadConfig::new("db"));
    // Within tables: null is the default, or as if the field were missing.
    for (json, expected) in [
        (
            r#"{"isolation_backoff":{"factor":2,"max":"5m","jitter":null}}"#,
            CircuitBreakerConfig::new().isolation_backoff(IsolationBackoff::new(2.0, 300 * SECOND)),
        ),
        (
            r#"{"sliding_window":{"count":9,"length":null,"buckets":null}}"#,
            CircuitBreakerConfig::new().sliding_window(SlidingWindow::Count(9)),
        ),
    ] {
        assert_eq!(
            serde_json::from_str::<CircuitBreakerConfig>(json).unwrap(),
            expected
        );
    }
    for (json, missing) in [
        (
            r#"{"isolation_backoff":{"factor":null,"max":"5m"}}"#,
            "factor",
        ),
        (
            r#"{"max_half_open_duration":{"duration":"1m","then":null}}"#,
            "then",
        ),
        (
            r#"{"max_half_open_duration":{"duration":null,"then":"open"}}"#,
            "duration",
        ),
    ] {
        let error = serde_json::from_str::<CircuitBreakerConfig>(json).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("missing field `{missing}`")),
            "{error}"
        );
    }
    let counts = r#"{"share":{"quorum":null,"window":null,"counts":{"sliding_window":{"length":"10s","buckets":10},
        "failure_count_threshold":5,"failure_rate_threshold":null,"minimum_number_of_calls":null}}}"#;
    let policy = FleetCountPolicy::new(10 * SECOND, 10).failure_count_threshold(5);
    assert_eq!(
        serde_json::from_str::<StoreSettings>(counts).unwrap(),
        StoreSettings::new().share(SharingMode::Counts(policy))
    );
    // The tables of a file.
    let one = ManagerConfig::new().bulkhead(BulkheadConfig::new("db"));
    for (yaml, expected) in [
        ("bulkheads: { db: }", &one),
        ("bulkheads: { db: { name: } }", &one),
        ("bulkheads: { db: }\ndefaults:", &one),
        ("bulkheads:", &ManagerConfig::new()),
    ] {
        assert_eq!(
            &serde_yaml_ng::from_str::<ManagerConfig>(yaml).unwrap(),
            expected,
            "{yaml}"
        );
    }
}
