//! A separate schema for each test.

use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::binaries;

/// A unique schema name. The schema itself is created by the test.
///
/// On an external server the schema is dropped with this value.
#[derive(Debug)]
pub struct TestSchema {
    name: String,
    server: Option<String>,
}

impl TestSchema {
    pub(crate) fn new(server: Option<String>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // No name is a part of another, since tests search statements for theirs.
        let name = format!("bulkman_t{}_{number:03}", std::process::id());
        Self { name, server }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for TestSchema {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for TestSchema {
    fn drop(&mut self) {
        let Some(url) = &self.server else { return };
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        let status = Command::new(binaries::psql())
            .args([
                "--quiet",
                "--no-psqlrc",
                "--command",
                &statement,
                "--dbname",
                url,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!(
                "psql could not drop schema {}, which is left on the server",
                self.name
            );
        }
    }
}
