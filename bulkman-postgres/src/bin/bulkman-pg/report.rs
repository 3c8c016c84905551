//! Output.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use bulkman_core::store::{CircuitView, FleetState, HistoryEntry, StoreError};
use bulkman_postgres::{
    CheckRole, Diagnostic, LeaseHolder, NamespaceSummary, ProcessReport, ProcessSummary,
};

use crate::json::Json;
use crate::objects;

/// Prints a line and flushes standard output. A closed pipe is not an error.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Format {
    /// Prints a value as JSON, or by `print`.
    pub(crate) fn print(self, json: impl FnOnce() -> Json, print: impl FnOnce()) {
        match self {
            Self::Text => print(),
            Self::Json => line(format_args!("{}", json())),
        }
    }

    /// Prints a list as JSON, or an item per line, or `none`.
    pub(crate) fn list<T>(
        self,
        items: &[T],
        json: impl Fn(&T) -> Json,
        print: impl Fn(&T),
        none: &str,
    ) {
        self.print(
            || objects::list(items, json),
            || {
                if items.is_empty() {
                    line(format_args!("{none}"));
                }
                items.iter().for_each(print);
            },
        );
    }
}

/// Prints an error and its causes on standard error.
pub(crate) fn error(format: Format, error: &StoreError) {
    let text = match format {
        Format::Text => format!("bulkman-pg: {}", with_causes(error)),
        Format::Json => Json::Object(vec![("error", objects::error(error))]).to_string(),
    };
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if is_quoted_in(&text, &inner_text) {
            break;
        }
        // An error often contains the message of its cause.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// Returns whether `cause` repeats the database's error, which is quoted with its code.
fn is_quoted_in(text: &str, cause: &str) -> bool {
    cause.starts_with("error returned from database: ") && text.contains("(SQLSTATE ")
}

pub(crate) fn status(format: Format, circuits: &[CircuitView]) {
    let names = circuits.iter().map(|view| view.circuit.as_str());
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let print = |view: &CircuitView| {
        let name = view.circuit.as_str();
        line(format_args!(
            "{name:width$}  {:11}  for {:>8}{}",
            view.state,
            ShortDuration(view.age),
            DisplayDetails(view)
        ));
    };
    format.list(circuits, objects::circuit, print, "no circuits");
}

pub(crate) fn changed(format: Format, view: &CircuitView) {
    let print = || {
        line(format_args!(
            "{} is {}, epoch {}",
            view.circuit, view.state, view.epoch.0
        ));
    };
    format.print(|| objects::circuit(view), print);
}

pub(crate) fn history(format: Format, entries: &[HistoryEntry]) {
    let print = |entry: &HistoryEntry| {
        line(format_args!(
            "{:>8} ago  {}",
            ShortDuration(entry.age),
            DisplayEntry(entry)
        ));
    };
    format.list(entries, objects::change, print, "no history");
}

pub(crate) fn namespaces(format: Format, namespaces: &[NamespaceSummary]) {
    let print = |summary: &NamespaceSummary| {
        let last = summary.last_change;
        let last = last.map_or_else(
            || "never changed".to_owned(),
            |age| format!("changed {} ago", ShortDuration(age)),
        );
        line(format_args!(
            "{}: {}, {} open, {} forced, {last}",
            Escaped(&summary.namespace),
            Count(summary.circuits, "circuit"),
            summary.open,
            summary.forced
        ));
    };
    format.list(namespaces, objects::namespace, print, "no namespaces");
}

pub(crate) fn processes(format: Format, processes: &[ProcessSummary]) {
    let print = |process: &ProcessSummary| {
        let address = process.address.as_deref();
        let connected = process.connected_for;
        line(format_args!(
            "{}{}: {}{}, {}{}",
            Escaped(&process.instance),
            address.map_or_else(String::new, |address| format!(" at {address}")),
            Count(process.connections, "connection"),
            connected.map_or_else(String::new, |it| format!(" for {}", ShortDuration(it))),
            Count(process.leases, "lease"),
            DisplayReport(process.report.as_ref())
        ));
    };
    format.list(processes, objects::process, print, "no processes");
}

pub(crate) fn leases(format: Format, leases: &[LeaseHolder]) {
    let print = |lease: &LeaseHolder| {
        line(format_args!(
            "{}: slot {}, {} remaining, held by {}",
            lease.circuit,
            lease.slot,
            ShortDuration(lease.remaining),
            Escaped(&lease.instance)
        ));
    };
    format.list(leases, objects::lease, print, "no leases");
}

/// Prints the result of `check`.
pub(crate) fn diagnostics(
    format: Format,
    role: CheckRole,
    problems: &[Diagnostic],
    warnings: &[Diagnostic],
) {
    let json = || {
        Json::Object(vec![
            ("role", role.as_str().into()),
            ("problems", objects::diagnostics(problems)),
            ("warnings", objects::diagnostics(warnings)),
        ])
    };
    let print = || {
        let print = |kind: &str, it: &Diagnostic| {
            line(format_args!(
                "{kind}{}\n    {}",
                Escaped(&it.problem),
                Escaped(&it.fix)
            ));
        };
        problems.iter().for_each(|it| print("", it));
        if problems.is_empty() {
            line(format_args!("no problems as {}", role.as_str()));
        }
        warnings.iter().for_each(|it| print("warning: ", it));
    };
    format.print(json, print);
}

/// Formats an entry: `payments: closed -> open for 30s, by shop-1: consecutive_failures`.
pub(crate) struct DisplayEntry<'a>(pub(crate) &'a HistoryEntry);

impl fmt::Display for DisplayEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.0;
        write!(f, "{}: {} -> {}", entry.circuit, entry.from, entry.to)?;
        if entry.to == FleetState::Open {
            write!(f, " for {}", ShortDuration(entry.open_for))?;
        }
        write_author(f, &entry.author, &entry.reason)
    }
}

struct DisplayDetails<'a>(&'a CircuitView);

impl fmt::Display for DisplayDetails<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0;
        match view.state {
            FleetState::Open if view.isolation_elapsed() => f.write_str(", isolation elapsed")?,
            FleetState::Open => write!(f, ", {} remaining", ShortDuration(view.remaining))?,
            FleetState::HalfOpen => {
                write!(
                    f,
                    ", {} probes succeeded, {} failed",
                    view.probes_succeeded, view.probes_failed
                )?;
            }
            _ => {}
        }
        write_author(f, &view.author, &view.reason)
    }
}

/// Formats a report: `, version 1.4 (bulkman 0.1.0), read 3s ago, 2 pending, degraded for 7s`.
struct DisplayReport<'a>(Option<&'a ProcessReport>);

impl fmt::Display for DisplayReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(report) = self.0 else {
            return f.write_str(", no report");
        };
        let library = Escaped(&report.library_version);
        match &report.application_version {
            Some(version) => write!(f, ", version {} (bulkman {library})", Escaped(version))?,
            None => write!(f, ", bulkman {library}")?,
        }
        write!(f, ", read {} ago", ShortDuration(report.age))?;
        if report.read_only {
            f.write_str(", was read-only")?;
        }
        if report.pending > 0 {
            write!(f, ", {} pending", report.pending)?;
        }
        if let Some(degraded) = report.degraded_for {
            write!(f, ", degraded for {}", ShortDuration(degraded))?;
        }
        Ok(())
    }
}

fn write_author(f: &mut fmt::Formatter<'_>, author: &str, reason: &str) -> fmt::Result {
    if !author.is_empty() {
        write!(f, ", by {}", Escaped(author))?;
    }
    if !reason.is_empty() {
        write!(f, ": {}", Escaped(reason))?;
    }
    Ok(())
}

/// A number of things: `1 lease`, `2 leases`.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// Stored text with control characters escaped, which could otherwise control the terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() {
                write!(f, "{}", c.escape_default())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

/// Formats the two largest units of a duration.
struct ShortDuration(Duration);

impl fmt::Display for ShortDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0 => format!("{}ms", self.0.as_millis()),
            1..60 => format!("{seconds}s"),
            60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
            3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
            _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let text = |seconds| ShortDuration(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            ShortDuration(Duration::from_millis(250)).to_string(),
            "250ms"
        );
        assert_eq!(
            [text(59), text(61), text(3_700), text(90_000)],
            ["59s", "1m 1s", "1h 1m", "1d 1h"]
        );
        assert_eq!(
            format!("{:>8}|", ShortDuration(Duration::from_secs(5))),
            "      5s|"
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(Count(1, "lease").to_string(), "1 lease");
        assert_eq!(Escaped("a\x1b[31mb\n").to_string(), "a\\u{1b}[31mb\\n");
    }
}
