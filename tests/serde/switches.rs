//! Settings that are a switch or a table.

use std::time::Duration;

use bulkman::BulkheadConfig;
use bulkman::adaptive::{AdaptiveLimit, Enforcement};
use bulkman::bulkhead::Fairness;
use bulkman::manager::ManagerConfig;

use super::{SECOND, every_fairness_setting};

#[test]
fn fairness_is_a_switch_or_a_table() {
    let read = |text: &str| {
        let read = toml::from_str::<BulkheadConfig>(&format!("name = 'a'\n{text}"));
        read.map(|config| config.resolve().fairness)
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(""), Ok(None));
    assert_eq!(read("fairness = false"), Ok(None));
    assert_eq!(read("fairness = true"), Ok(Some(Fairness::new())));
    assert_eq!(read("fairness = {}"), Ok(Some(Fairness::new())));
    let table = "fairness = { min_per_key = 2, max_per_key = '5', max_queue_per_key = 0, \
                 evict_longest = 'off' }";
    assert_eq!(read(table), Ok(Some(every_fairness_setting())));
    for (text, message) in [
        ("fairness = 7", "true, false, or a table"),
        (
            "fairness = { min_per_key = 10 }",
            "`fairness.min_per_key` is 10, must be 0 to less than",
        ),
        (
            "fairness = { max_per_key = 11 }",
            "`fairness.max_per_key` is 11, must be",
        ),
        (
            "fairness = { max_queue_per_key = 101 }",
            "`fairness.max_queue_per_key` is 101, must be",
        ),
        (
            "fairness = { max_per_tenant = 1 }",
            "unknown field `max_per_tenant`",
        ),
        (
            "max_queue_weight = 0",
            "`max_queue_weight` is 0, must be 1 to 2,147,483,647",
        ),
        (
            "overtaking = 1001",
            "`overtaking` is 1001, must be 0 to 1,000",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn fairness_takes_each_default_of_the_file() {
    let file: ManagerConfig = toml::from_str(
        "
        [defaults]
        fairness = { max_per_key = 4, evict_longest = false }
        max_queue_weight = 50
        overtaking = 8
        [bulkheads.own]
        fairness = { min_per_key = 1, max_per_key = 6 }
        [bulkheads.same]
        [bulkheads.on]
        fairness = true
        [bulkheads.off]
        fairness = false
        max_queue_weight = 7
        overtaking = 0
        ",
    )
    .unwrap();
    let defaults = Fairness::new().max_per_key(4).evict_longest(false);
    let own = defaults.min_per_key(1).max_per_key(6);
    for (name, fairness, weight, overtaking) in [
        ("own", Some(own), 50, 8),
        ("same", Some(defaults), 50, 8),
        ("on", Some(defaults), 50, 8),
        ("off", None, 7, 0),
    ] {
        let bulkheads = file.bulkheads();
        let config = bulkheads
            .iter()
            .find(|it| it.resolve().name == name)
            .unwrap();
        let resolved = config.resolve();
        assert_eq!(resolved.fairness, fairness, "{name}");
        assert_eq!(resolved.max_queue_weight, Some(weight), "{name}");
        assert_eq!(resolved.overtaking, overtaking, "{name}");
    }
    let null = "defaults: {fairness: {max_per_key: 3}}\nbulkheads: {a: {fairness: null}}";
    let config: ManagerConfig = serde_yaml_ng::from_str(null).unwrap();
    assert_eq!(config.bulkheads()[0].resolve().fairness, None);
}

#[test]
fn adaptive_limit_is_a_switch_or_a_table() {
    let read = |text: &str| {
        let read = toml::from_str::<BulkheadConfig>(&format!("name = 'a'\n{text}"));
        read.map(|config| config.resolve().adaptive_limit)
            .map_err(|error| error.to_string())
    };
    assert_eq!(read("adaptive_limit = false"), Ok(None));
    assert_eq!(
        read("adaptive_limit = true"),
        Ok(Some(AdaptiveLimit::new()))
    );
    let table = "adaptive_limit = { min = 2, max_latency = '500ms', baseline_interval = 'off' }";
    let expected = AdaptiveLimit::new()
        .min(2)
        .max_latency(Duration::from_millis(500))
        .baseline_interval(None);
    assert_eq!(read(table), Ok(Some(expected)));
    for (text, message) in [
        ("adaptive_limit = 7", "true, false, or a table"),
        (
            "adaptive_limit = { tolerance = 0.5 }",
            "`adaptive_limit.tolerance` is 0.5, must be 1.05 to 10",
        ),
        (
            "adaptive_limit = { min = 50 }",
            "`adaptive_limit.min` is 50, must be 1 to the maximum",
        ),
        ("enforcement = 'maybe'", "unknown variant `maybe`"),
        ("adaptive_limit = 'maybe'", "true, false, or a table"),
        (
            "adaptive_limit = { baseline_interval = true }",
            r#"a duration as text, such as "10s", or "off""#,
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    let yaml = "name: a\nadaptive_limit: true\nenforcement: observe";
    let config: BulkheadConfig = serde_yaml_ng::from_str(yaml).unwrap();
    let resolved = config.resolve();
    assert_eq!(resolved.adaptive_limit, Some(AdaptiveLimit::new()));
    assert_eq!(resolved.enforcement, Enforcement::Observe);
}

#[test]
fn adaptive_limit_takes_each_default_of_the_file() {
    const FILE: &str = "
        [defaults]
        enforcement = 'observe'
        adaptive_limit = { min = 3, samples = 100, max_latency = '1s' }
        [bulkheads.own]
        enforcement = 'enforce'
        adaptive_limit = { initial = 5, samples = '20' }
        [bulkheads.same]
        adaptive_limit = 'true'
        [bulkheads.fixed]
        adaptive_limit = false
    ";
    let config: ManagerConfig = toml::from_str(FILE).unwrap();
    let defaults = AdaptiveLimit::new().min(3).samples(100).max_latency(SECOND);
    let own = defaults.clone().initial(5).samples(20);
    for (name, adaptive, enforcement) in [
        ("own", Some(own), Enforcement::Enforce),
        ("same", Some(defaults), Enforcement::Observe),
        ("fixed", None, Enforcement::Observe),
    ] {
        let bulkhead = config.bulkheads().iter().find(|it| it.name() == name);
        let resolved = bulkhead.unwrap().resolve();
        assert_eq!(resolved.adaptive_limit, adaptive, "{name}");
        assert_eq!(resolved.enforcement, enforcement, "{name}");
    }
    let null = "defaults: {adaptive_limit: {min: 3}}\nbulkheads: {a: {adaptive_limit: null}}";
    let config: ManagerConfig = serde_yaml_ng::from_str(null).unwrap();
    assert_eq!(config.bulkheads()[0].resolve().adaptive_limit, None);
    let error = toml::from_str::<ManagerConfig>(&FILE.replace("initial = 5", "initial = 2"));
    let error = error.unwrap_err().to_string();
    let expected = "bulkhead \"own\": `adaptive_limit.initial` is 2, must be the minimum";
    assert!(error.contains(expected), "{error}");
}
