//! The cost of the hooks for `tracing` and `metrics` without a subscriber.
//!
//! One program contains the library only once, with or without the hooks. So a small program,
//! `listeners/`, is built each way, and all of them run side by side. Each runs a round of calls in
//! its turn, and measures it in its own `S`. A disturbance or a change of the processor's frequency
//! then affects all builds alike.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;

/// How often each program is started: the layout of its data differs each time.
const STARTS: usize = 6;
/// The rounds of each start.
const ROUNDS: usize = 40;
/// The limit for the extra cost of a call with hooks, in `S`.
const CALL: f64 = 0.15;
/// The same for a rejection, which emits an event besides the span.
const REJECTION: f64 = 0.15;

/// The features and arguments of a program.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    features: &'static str,
    arguments: &'static [&'static str],
}

const VARIANTS: [Variant; 4] = [
    Variant {
        name: "without hooks",
        features: "",
        arguments: &[],
    },
    Variant {
        name: "tracing, no subscriber",
        features: "tracing",
        arguments: &[],
    },
    Variant {
        name: "tracing, subscriber at INFO",
        features: "tracing",
        arguments: &["info"],
    },
    Variant {
        name: "metrics, not timed",
        features: "metrics",
        arguments: &[],
    },
];

pub(crate) fn run() -> Findings {
    let programs = VARIANTS.map(|variant| build(variant.features));
    let mut names = Vec::new();
    // For each variant and round, the time of each case in `S`, and `S` itself in nanoseconds.
    let mut rounds: [Vec<Vec<f64>>; VARIANTS.len()] = Default::default();
    for _ in 0..STARTS {
        let start =
            |(variant, program): (&Variant, &PathBuf)| Program::start(program, variant.arguments);
        let mut running: Vec<_> = VARIANTS.iter().zip(&programs).map(start).collect();
        names.clone_from(&running[0].cases);
        for round in 0..ROUNDS {
            for turn in 0..VARIANTS.len() {
                // The order alternates from round to round.
                let variant = if round % 2 == 0 {
                    turn
                } else {
                    VARIANTS.len() - 1 - turn
                };
                let mut figures = running[variant].round();
                let reference = figures[0];
                figures[1..]
                    .iter_mut()
                    .for_each(|figure| *figure /= reference);
                rounds[variant].push(figures);
            }
        }
    }
    findings(&names, &rounds)
}

fn findings(names: &[String], rounds: &[Vec<Vec<f64>>; VARIANTS.len()]) -> Findings {
    let mut findings = Findings::default();
    for (case, name) in names.iter().enumerate().skip(1) {
        let mut table = Table::new(
            format!("{name}: in S"),
            [
                "built",
                "median",
                "p10",
                "p90",
                "more than without",
                "S, ns",
            ],
        );
        for (variant, rounds_of) in VARIANTS.iter().zip(rounds) {
            let of = |index: usize| {
                Distribution::of(rounds_of.iter().map(|round| round[index]).collect())
            };
            let time = of(case);
            // Subtracted round by round, from figures that are milliseconds apart.
            let more = rounds_of
                .iter()
                .zip(&rounds[0])
                .map(|(with, without)| with[case] - without[case]);
            let more = Distribution::of(more.collect()).median;
            table.row(
                variant.name,
                [time.median, time.p10, time.p90, more, of(0).median],
            );
            if !variant.features.is_empty() {
                let target = format!("{name}, {}: more than without", variant.name);
                let limit = if name.contains("closed") {
                    CALL
                } else {
                    REJECTION
                };
                findings
                    .targets
                    .push(Target::at_most(target, more, limit, " S"));
            }
        }
        findings.tables.push(table);
    }
    findings
}

/// Builds the program with these features, and returns its path.
fn build(features: &str) -> PathBuf {
    let target = std::env::current_exe().expect("this program has a path");
    let target = target
        .ancestors()
        .nth(2)
        .expect("target/release/<program>")
        .join("listeners");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--features",
            features,
        ])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("listeners/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_INCREMENTAL", "0")
        .status()
        .expect("cargo runs");
    assert!(
        status.success(),
        "the program could not be built with the features {features:?}"
    );
    let program = format!("bulkman-bench-listeners{}", std::env::consts::EXE_SUFFIX);
    // Copied, since the next build overwrites it.
    let kept = target.join(format!("{features}-{program}"));
    std::fs::copy(target.join("release").join(program), &kept).expect("the program was built");
    kept
}

struct Program {
    child: Child,
    /// Closed to end it.
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    cases: Vec<String>,
}

impl Program {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let mut program = Self {
            child,
            input,
            output,
            cases: Vec::new(),
        };
        program.cases = program.read_line().split('\t').map(str::to_owned).collect();
        program
    }

    /// Runs a round and returns the nanoseconds per call of each case.
    fn round(&mut self) -> Vec<f64> {
        writeln!(self.input.as_mut().expect("open until the end")).expect("it reads its input");
        let figures = self.read_line();
        figures
            .split('\t')
            .map(|figure| figure.parse().expect("a number"))
            .collect()
    }

    fn read_line(&mut self) -> String {
        self.output
            .next()
            .expect("it runs until its input ends")
            .expect("valid UTF-8")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
