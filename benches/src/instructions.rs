//! Instruction counts of the paths that every call takes.
//!
//! Times vary on a busy machine by more than a careless change costs; the number of instructions
//! hardly does. callgrind runs this program on one path twice, with different numbers of calls,
//! and the difference is what the calls took: start-up cancels. The figures are compared with
//! those recorded in `instructions.toml`.

mod paths;
mod recorded;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::harness::table::Table;
use paths::PATHS;
use recorded::Recorded;

/// The command-line word under which callgrind runs this program.
pub(crate) const WORKLOAD: &str = "instructions-workload";

/// The tolerance above the recorded count, in percent. As far below, a new record is requested.
const LEEWAY: f64 = 0.05;

const FEW: u64 = 1_000;
const MANY: u64 = 11_000;

/// Counts, and compares with the record or writes a new one.
///
/// # Errors
///
/// An error if valgrind is missing or fails, or the record cannot be read or written.
pub(crate) fn run(record: bool) -> Result<ExitCode, Box<dyn Error>> {
    require_valgrind()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml");
    let mut counted = Vec::new();
    for path in &PATHS {
        let calls = (MANY - FEW) as f64;
        let difference = count(path.name, MANY)? - count(path.name, FEW)?;
        counted.push((path.name, difference / calls));
    }
    if record {
        Recorded::write(&file, &counted)?;
    }
    let recorded = Recorded::read(&file)?;
    let mut table = Table::new(
        "instructions a call",
        ["path", "counted", "recorded", "change, %"],
    );
    let mut holds = true;
    let mut verdicts = Vec::new();
    for (name, count) in counted {
        let before = recorded.of(name).unwrap_or(f64::NAN);
        let change = count / before - 1.0;
        table.row(name, [count, before, 100.0 * change]);
        // A path without a record compares false, and fails.
        let ok = change <= LEEWAY;
        holds &= ok;
        let limit = (before * (1.0 + LEEWAY)).floor();
        let verdict = if ok { "ok" } else { "MISS" };
        verdicts.push(format!(
            "target {name}: {count:.0} instructions (limit <= {limit:.0}) {verdict}"
        ));
        if change < -LEEWAY {
            verdicts.push(format!(
                "note: {name} has become cheaper; `instructions --record` keeps it so"
            ));
        }
    }
    println!("{table}\n{}", verdicts.join("\n"));
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs `calls` calls on one path, under callgrind.
///
/// # Errors
///
/// An error if there is no such path.
pub(crate) fn workload(name: &str, calls: u64) -> Result<ExitCode, Box<dyn Error>> {
    let path = PATHS
        .iter()
        .find(|path| path.name == name)
        .ok_or("no such path")?;
    (path.walk)(calls);
    Ok(ExitCode::SUCCESS)
}

fn require_valgrind() -> Result<(), Box<dyn Error>> {
    let found = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => Err(
            "instruction counts need valgrind (callgrind), and it can't be run: install it".into(),
        ),
    }
}

/// The instructions of a whole run.
fn count(path: &str, calls: u64) -> Result<f64, Box<dyn Error>> {
    let profile = profile_file(path, calls);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args([WORKLOAD, path, &calls.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(format!(
            "callgrind failed on {path}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let text = std::fs::read_to_string(&profile)?;
    std::fs::remove_file(&profile)?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals:"));
    Ok(totals.ok_or("callgrind wrote no totals")?.trim().parse()?)
}

fn profile_file(path: &str, calls: u64) -> PathBuf {
    let name = format!(
        "bulkman-{}-{}-{calls}",
        std::process::id(),
        path.replace(' ', "-")
    );
    std::env::temp_dir().join(name)
}
