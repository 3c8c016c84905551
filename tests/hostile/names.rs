//! Names of every kind.

use bulkman::manager::ManagerError;
use bulkman::runtime::ClockOnly;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager, ConfigError};

#[test]
fn a_name_that_can_not_be_used_is_refused_with_its_length() {
    for (name, value) in [
        (String::new(), "0 bytes"),
        ("x".repeat(256), "256 bytes"),
        ("ü".repeat(128), "256 bytes"),
    ] {
        let refused = Bulkhead::new(BulkheadConfig::new(name.clone()), ClockOnly).unwrap_err();
        let ConfigError::OutOfRange {
            field: "name",
            value: shown,
            range,
        } = &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!((&**shown, *range), (value, "1 to 255 bytes"));
        assert_eq!(
            refused.to_string(),
            format!("`name` is {value}, must be 1 to 255 bytes")
        );
        let refused = BulkheadManager::new(ClockOnly)
            .create_bulkhead(BulkheadConfig::new(name))
            .unwrap_err();
        assert!(matches!(
            refused,
            ManagerError::Config(ConfigError::OutOfRange { field: "name", .. })
        ));
    }
    for (name, shown) in [
        ("line\nbreak", r#""line\nbreak""#),
        ("nul\0", r#""nul\0""#),
        ("bell\u{7}", r#""bell\u{7}""#),
    ] {
        let refused = Bulkhead::new(BulkheadConfig::new(name), ClockOnly).unwrap_err();
        let told = format!("`name` is {shown}, must be text without control characters");
        assert_eq!(refused.to_string(), told);
    }
}

#[test]
fn every_other_name_reads_back() {
    let manager = BulkheadManager::new(ClockOnly);
    for name in [
        "x",
        "zahlungsgebühr-日本",
        " ",
        "🚢🚢",
        &"x".repeat(255),
        &"日".repeat(85),
    ] {
        let bulkhead = manager.create_bulkhead(BulkheadConfig::new(name)).unwrap();
        assert_eq!(bulkhead.name(), name);
        bulkhead.shutdown();
        let refused = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("bulkhead {name:?} is shut down")
        );
        assert_eq!(manager.get_bulkhead(name).unwrap().name(), name);
    }
}
