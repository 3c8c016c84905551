//! Tools for tests: a runtime with a virtual clock.
//!
//! Requires the feature `test-util`.

pub use crate::runtime::manual::ManualRuntime;
