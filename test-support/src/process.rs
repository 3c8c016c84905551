//! Running programs, and finding child processes.

use std::fs;
use std::process::{Command, Stdio};

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
        .filter_map(|entry| {
            let process: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The program name is in parentheses and may contain any character.
            let (_, after_name) = stat.rsplit_once(')')?;
            let parent_id: u32 = after_name.split_whitespace().nth(1)?.parse().ok()?;
            (parent_id == parent).then_some(process)
        })
        .collect()
}
