//! Valid and invalid names.

use bulkman::manager::ManagerError;
use bulkman::runtime::ClockOnly;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager, ConfigError};

#[test]
fn invalid_names_are_rejected_with_the_reason() {
    for (name, value) in [
        (String::new(), "0 bytes"),
        ("x".repeat(256), "256 bytes"),
        ("ü".repeat(128), "256 bytes"),
    ] {
        let rejected = Bulkhead::new(BulkheadConfig::new(name.clone()), ClockOnly).unwrap_err();
        let ConfigError::OutOfRange {
            field: "name",
            value: shown,
            range,
        } = &rejected
        else {
            panic!("{rejected:?}")
        };
        assert_eq!((&**shown, *range), (value, "1 to 255 bytes"));
        assert_eq!(
            rejected.to_string(),
            format!("`name` is {value}, must be 1 to 255 bytes")
        );
        let rejected = BulkheadManager::new(ClockOnly)
            .create_bulkhead(BulkheadConfig::new(name))
            .unwrap_err();
        assert!(matches!(
            rejected,
            ManagerError::Config(ConfigError::OutOfRange { field: "name", .. })
        ));
    }
    for (name, shown) in [
        ("line\nbreak", r#""line\nbreak""#),
        ("nul\0", r#""nul\0""#),
        ("bell\u{7}", r#""bell\u{7}""#),
    ] {
        let rejected = Bulkhead::new(BulkheadConfig::new(name), ClockOnly).unwrap_err();
        let message = format!("`name` is {shown}, must be text without control characters");
        assert_eq!(rejected.to_string(), message);
    }
}

#[test]
fn valid_names_are_returned_unchanged() {
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
        let rejected = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
        assert_eq!(
            rejected.to_string(),
            format!("bulkhead {name:?} is shut down")
        );
        assert_eq!(manager.get_bulkhead(name).unwrap().name(), name);
    }
}
