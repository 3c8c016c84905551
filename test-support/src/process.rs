//! Running programs, and finding processes.

use std::fs;
use std::process::{Command, Stdio};

/// Runs to the end; an error has what the program wrote.
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

/// The processes whose parent is `parent`.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let process: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The program's name is in parentheses and may contain anything.
            let (_, after_name) = stat.rsplit_once(')')?;
            let its_parent: u32 = after_name.split_whitespace().nth(1)?.parse().ok()?;
            (its_parent == parent).then_some(process)
        })
        .collect()
}
