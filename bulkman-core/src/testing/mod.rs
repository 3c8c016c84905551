//! Tools for testing one's own settings without waiting for real time.
//!
//! Enabled by the feature `test-util`.

mod manual_runtime;

pub use manual_runtime::ManualRuntime;
