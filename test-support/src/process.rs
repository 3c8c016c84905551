//! Running programs, and finding child processes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command to completion; the error contains its output.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} failed ({}):\n{}{}",
        command.get_program().to_string_lossy(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    ))
}

/// Returns the child processes of `parent`.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| status(*process).is_some_and(|status| status.parent == parent))
        .collect()
}

/// Waits until `process` is stopped, or until it is not; returns whether it was in time.
///
/// A signal is delivered some time after it was sent. A process that exited is in neither state
/// any more, so there is nothing to wait for.
#[allow(clippy::disallowed_methods, reason = "the kernel keeps real time")]
pub(crate) fn wait_until_stopped(process: u32, stopped: bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while status(process).is_some_and(|status| (status.state == 'T') != stopped) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// What the kernel reports of a process.
struct Status {
    state: char,
    parent: u32,
}

/// Returns the status of a process; `None` if it has exited.
fn status(process: u32) -> Option<Status> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program name is in parentheses and may contain any character.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != 'Z').then_some(Status { state, parent })
}
