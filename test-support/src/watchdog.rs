//! Cleanup after this process, even if it is killed.

use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use std::os::unix::process::CommandExt;

use crate::os_user::OsUser;

/// A child process that reads from a pipe which only this process holds.
///
/// The pipe closes when this process exits by return, panic, abort or `kill -9`. Then the child
/// stops the server and removes its directory.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(crate) fn start(user: OsUser, binaries: &Path, directory: &Path) -> Result<Self, String> {
        let mut child = user
            .command("/bin/sh", Path::new("/"))
            .args(["-c", SCRIPT, "sh"])
            .arg(binaries.join("pg_ctl"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Outside the foreground process group, so that Ctrl-C does not stop it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("/bin/sh: {error}"))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Drop for Watchdog {
    /// Triggers the cleanup, and waits for it.
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// `$1` is pg_ctl, `$2` the directory. A frozen server handles no signal but SIGKILL, so it is
/// resumed first. It kills children that don't respond.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r _
pid=$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -CONT "$pid" 2>/dev/null
    "$1" -D "$2/data" -m immediate -w -t 20 stop || kill -KILL "$pid"
fi
rm -rf "$2"
"#;
