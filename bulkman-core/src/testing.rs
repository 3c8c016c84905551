//! Tools for tests: a runtime with a virtual clock.
//!
//! Enabled by the feature `test-util`.

pub use crate::runtime::manual::ManualRuntime;
