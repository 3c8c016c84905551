//! Instruction counts of the paths that every call takes.
//!
//! On a busy machine, times vary by more than the cost of a careless change. Instruction counts
//! hardly vary. callgrind runs this program twice on each path, with different numbers of calls.
//! The difference is the cost of the calls, without that of starting. It is compared with the
//! counts in `instructions.toml`.

mod paths;
mod recorded;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::harness::table::Table;
use paths::PATHS;
use recorded::Recorded;

/// The command-line argument with which callgrind runs this program.
pub(crate) const WORKLOAD: &str = "instructions-workload";

/// The fraction by which a count may exceed the recorded one.
///
/// If it is lower by more than this fraction, a note suggests a new record.
const TOLERANCE: f64 = 0.05;

const FEW: u64 = 1_000;
const MANY: u64 = 11_000;

/// Counts the instructions, and compares them with the record or writes a new one.
///
/// # Errors
///
/// Returns an error if valgrind is missing or fails, or the record cannot be read or written.
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
        "instructions per call",
        ["path", "counted", "recorded", "change, %"],
    );
    let mut all_met = true;
    let mut results = Vec::new();
    for (name, count) in counted {
        let before = recorded.get(name).unwrap_or(f64::NAN);
        let change = count / before - 1.0;
        table.row(name, [count, before, 100.0 * change]);
        // Without a record, the change is NaN, the comparison is false, and the target is missed.
        let ok = change <= TOLERANCE;
        all_met &= ok;
        let limit = (before * (1.0 + TOLERANCE)).floor();
        let result = if ok { "ok" } else { "MISS" };
        results.push(format!(
            "target {name}: {count:.0} instructions (limit <= {limit:.0}) {result}"
        ));
        if change < -TOLERANCE {
            results.push(format!(
                "note: {name} needs fewer instructions now; record them with `instructions --record`"
            ));
        }
    }
    println!("{table}\n{}", results.join("\n"));
    Ok(if all_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs `calls` calls on one path. This is the program that callgrind runs.
///
/// # Errors
///
/// Returns an error if there is no such path.
pub(crate) fn workload(name: &str, calls: u64) -> Result<ExitCode, Box<dyn Error>> {
    let path = PATHS
        .iter()
        .find(|path| path.name == name)
        .ok_or("no such path")?;
    (path.run)(calls);
    Ok(ExitCode::SUCCESS)
}

fn require_valgrind() -> Result<(), Box<dyn Error>> {
    let found = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => Err("instruction counts need valgrind, which could not be run: install it".into()),
    }
}

/// Returns the number of instructions of a whole run.
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
