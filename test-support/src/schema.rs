//! A schema of one test's own.

use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::programs;

/// The name of a schema that nobody else uses. The schema itself is made by whoever needs it.
///
/// On a server that was given, it is dropped with this value.
#[derive(Debug)]
pub struct TestSchema {
    name: String,
    server: Option<String>,
}

impl TestSchema {
    pub(crate) fn new(server: Option<String>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bulkman_t{}_{number}", std::process::id());
        Self { name, server }
    }

    /// The name.
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
        let status = Command::new(programs::psql())
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
                "schema {} is left on the server: psql could not drop it",
                self.name
            );
        }
    }
}
