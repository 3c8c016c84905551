//! Runs the tables under `scenarios/` against the public API, on a virtual clock.
//!
//! `scenarios/README.md` describes their format. The environment variable `BULKMAN_SCENARIOS` adds
//! directories, separated by colons. Any unknown file, operation, key or expectation is a failure.

mod breaker;
mod bulkhead;
mod parse;
mod window;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use parse::{Scenario, Step};

#[test]
fn every_scenario_holds() {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")];
    if let Ok(more) = std::env::var("BULKMAN_SCENARIOS") {
        directories.extend(
            more.split(':')
                .filter(|directory| !directory.is_empty())
                .map(PathBuf::from),
        );
    }
    let mut summary = Summary::default();
    for directory in &directories {
        if let Err(problem) = run_directory(directory, &mut summary) {
            summary.failures.push(problem);
        }
    }
    let totals = format!(
        "played {} scenarios, {} steps",
        summary.scenarios, summary.steps
    );
    // Written directly, because the test harness captures `eprintln!`.
    writeln!(std::io::stderr(), "{totals}").unwrap();
    assert!(summary.scenarios > 0 && summary.steps > 0, "{totals}");
    assert!(
        summary.failures.is_empty(),
        "{totals}; failed:\n{}",
        summary.failures.join("\n")
    );
}

#[derive(Default)]
struct Summary {
    scenarios: usize,
    steps: usize,
    failures: Vec<String>,
}

fn run_directory(directory: &Path, summary: &mut Summary) -> Result<(), String> {
    let unreadable = |error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(format!("{}: no *.md file", directory.display()));
    }
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        // The description of the format needs no scenario.
        let may_be_empty = file.file_name().is_some_and(|name| name == "README.md");
        run_text(&file.display().to_string(), &text, may_be_empty, summary);
    }
    Ok(())
}

fn run_text(file: &str, text: &str, may_be_empty: bool, summary: &mut Summary) {
    let scenarios = match parse::parse(text) {
        Ok(scenarios) => scenarios,
        Err(problem) => return summary.failures.push(format!("{file}:{problem}")),
    };
    if scenarios.is_empty() && !may_be_empty {
        summary.failures.push(format!("{file}: no scenario"));
    }
    for scenario in scenarios {
        summary.scenarios += 1;
        match run_scenario(&scenario) {
            Ok(()) => summary.steps += scenario.steps.len(),
            Err((line, problem)) => {
                let (id, title) = (&scenario.id, &scenario.title);
                let mut failure = String::new();
                write!(failure, "{file}:{line}: {id} ({title}): {problem}").unwrap();
                summary.failures.push(failure);
            }
        }
    }
}

fn run_scenario(scenario: &Scenario) -> Result<(), (usize, String)> {
    match scenario.kind.as_str() {
        "breaker" => {
            // Once with the clock of the runtime, once with the time as an argument.
            for clock in [breaker::Clock::Runtime, breaker::Clock::Argument] {
                run(scenario, breaker::BreakerRunner::new(&scenario.cfg, clock))?;
            }
            Ok(())
        }
        "bulkhead" => run(scenario, bulkhead::BulkheadRunner::new(&scenario.cfg)),
        "window" => run(scenario, window::WindowRunner::new(&scenario.cfg)),
        kind => Err((scenario.line, format!("unknown kind {kind:?}"))),
    }
}

/// Runs one kind of scenario.
trait Runner {
    /// Performs the operation at its time and checks the expectations.
    fn step(&mut self, step: &Step) -> Result<(), String>;
}

fn run(scenario: &Scenario, runner: Result<impl Runner, String>) -> Result<(), (usize, String)> {
    let mut runner = runner.map_err(|problem| (scenario.line, format!("cfg: {problem}")))?;
    for step in &scenario.steps {
        runner.step(step).map_err(|problem| (step.line, problem))?;
    }
    Ok(())
}

/// Tests of the runner: unknown input and wrong expectations are failures.
mod runner {
    use super::*;

    fn failures(text: &str) -> Vec<String> {
        let mut summary = Summary::default();
        run_text("file.md", text, false, &mut summary);
        summary.failures
    }

    fn breaker(cfg: &str, steps: &str) -> Vec<String> {
        failures(&format!(
            "#### X1 — title\n```scn\nkind breaker\ncfg {cfg}\n{steps}\n```\n"
        ))
    }

    #[track_caller]
    fn fails_with(failures: &[String], parts: &[&str]) {
        assert_eq!(failures.len(), 1, "{failures:?}");
        for part in parts {
            assert!(
                failures[0].contains(part),
                "{:?} in {:?}",
                part,
                failures[0]
            );
        }
    }

    fn bulkhead(cfg: &str, steps: &str) -> Vec<String> {
        failures(&format!(
            "#### X1 — title\n```scn\nkind bulkhead\ncfg {cfg}\n{steps}\n```\n"
        ))
    }

    #[test]
    fn bulkhead_scenarios_reject_wrong_and_unknown_input() {
        assert_eq!(
            bulkhead("max=1", "@0 acquire a => ok used=1 avail=0 queued=0"),
            [""; 0]
        );
        for (cfg, step) in [
            ("max=1", "@0 acquire a => used=0"),
            ("max=1", "@0 acquire a => queued"),
            ("max=1", "@0 acquire a => grant=a"),
            ("max=1", "@0 get => ok"),
            ("max=1", "@0 acquire a => ok\n@0 acquire a => reject:full"),
            ("max=1", "@0 release a => used=0"),
            ("max=1", "@0 cancel a => used=0"),
            ("max=1", "@0 acquire a pre=tired => ok"),
            ("max=1", "@0 acquire a => maybe"),
            ("max=1", "@0 acquire a => size=1"),
            ("max=1", "@0 set order=lifo => used=0"),
            ("max=1", "@0 set => used=0"),
            ("max=0", "@0 get => used=0"),
            ("max=1 order=random", "@0 get => used=0"),
            ("max=1 color=red", "@0 get => used=0"),
        ] {
            assert_eq!(bulkhead(cfg, step).len(), 1, "cfg {cfg}, {step}");
        }
    }

    const CFG: &str = "window=count:4 trip=consec_fail>=2 open_wait=1000 half_open=one";

    #[test]
    fn a_correct_scenario_passes_and_is_counted() {
        let mut summary = Summary::default();
        let text = format!(
            "#### X1 — t\n```scn\nkind breaker\ncfg {CFG}\n@0 get => n=0\n@1 get => n=0\n```\n"
        );
        run_text("file.md", &text, false, &mut summary);
        assert_eq!(
            (summary.scenarios, summary.steps, summary.failures),
            (1, 2, vec![])
        );
    }

    #[test]
    fn a_wrong_expectation_fails_with_line_and_values() {
        let failed = breaker(
            CFG,
            "@0 call err => ok cf=1\n@0 call err => ok state=closed",
        );
        fails_with(&failed, &["file.md:6", "X1", "state=closed", "got open"]);
        for wrong in [
            "@0 get => n=1",
            "@0 get => rate=50",
            "@0 get => slow=50",
            "@0 get => cf=1",
            "@0 get => np=1",
            "@0 get => retry_after=1",
            "@0 get => permits=1",
            "@0 get => ev=state:closed->open",
            "@0 force open => ev=none",
            "@0 acquire a => reject:open",
            "@0 get => ok",
        ] {
            assert_eq!(breaker(CFG, wrong).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn unknown_input_fails() {
        for (cfg, step) in [
            (CFG, "@0 fetch => n=0"),
            (CFG, "@0 get => size=0"),
            (CFG, "@0 get => maybe"),
            (CFG, "@0 get => n=zero"),
            (CFG, "@0 get => state=ajar"),
            (CFG, "@0 get =>"),
            (CFG, "@0 get"),
            (CFG, "@x get => n=0"),
            (CFG, "get => n=0"),
            (CFG, "@1 get => n=0\n@0 get => n=0"),
            (CFG, "@0 ok missing => n=0"),
            (CFG, "@0 acquire a b => ok"),
            (CFG, "@0 acquire a d=1 => ok"),
            (CFG, "@0 rec ok slow => n=1"),
            (CFG, "@0 rec ign => n=0"),
            (CFG, "@0 rec ok x0 => n=0"),
            (CFG, "@0 force closed for=10 => n=0"),
            (CFG, "@0 force => n=0"),
            ("window=count:4 color=red", "@0 get => n=0"),
            ("window=ring:4", "@0 get => n=0"),
            ("window=count:0", "@0 get => n=0"),
            ("window=count:4 trip=luck>=2", "@0 get => n=0"),
            ("window=count:4 trip=fails>2", "@0 get => n=0"),
            ("window=count:4 half_open=some:2", "@0 get => n=0"),
            ("window=count:4 half_open_max=10->ajar", "@0 get => n=0"),
            ("window=count:4 open_wait=twice:1", "@0 get => n=0"),
            ("window=count:4 window=count:5", "@0 get => n=0"),
            ("auto=maybe", "@0 get => n=0"),
        ] {
            assert_eq!(breaker(cfg, step).len(), 1, "cfg {cfg}, {step}");
        }
        fails_with(&failures("# Only prose\n"), &["no scenario"]);
        fails_with(&failures("#### X1 — t\nno block\n"), &["file.md:1"]);
        fails_with(
            &failures("```scn\nkind breaker\ncfg\n@0 get => n=0\n```\n"),
            &["file.md:1"],
        );
        fails_with(
            &failures("#### X1 — t\n```scn\nkind breaker\ncfg\n@0 get => n=0\n"),
            &["not closed"],
        );
        fails_with(
            &failures("#### X1 — t\n```scn\nkind breaker\ncfg\n```\n"),
            &["no step"],
        );
        fails_with(
            &failures("#### X1 — t\n```scn\ncfg\n@0 get => n=0\n```\n"),
            &["kind"],
        );
        fails_with(
            &failures("#### X1 — t\n```scm\nkind breaker\n```\n"),
            &["scm"],
        );
        fails_with(
            &failures("#### X1 — t\n```scn\nkind toaster\ncfg\n@0 get => n=0\n```\n"),
            &["toaster"],
        );
        let mut summary = Summary::default();
        assert!(run_directory(Path::new("tests/no-such-directory"), &mut summary).is_err());
        assert!(run_directory(Path::new("src"), &mut summary).is_err());
    }
}
