//! Cleans up after this process, however it ends.

use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use std::os::unix::process::CommandExt;

use crate::account::Account;

/// A child that reads from a pipe which only this process holds. The read ends when the process
/// does, by return, panic, abort or `kill -9`; then the child stops the server and removes its
/// directory.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(crate) fn start(
        account: Account,
        programs: &Path,
        directory: &Path,
    ) -> Result<Self, String> {
        let mut child = account
            .command("/bin/sh", Path::new("/"))
            .args(["-c", SCRIPT, "sh"])
            .arg(programs.join("pg_ctl"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the terminal's foreground group: Ctrl-C must not reach it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("/bin/sh: {error}"))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Drop for Watchdog {
    /// Lets it do its work now, and waits until it is done.
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// `$1` is pg_ctl, `$2` the directory. A frozen server takes no signal but the last one, so it is
/// thawed first; its own children are killed by it when they don't answer.
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
