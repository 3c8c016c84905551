//! Output.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use bulkman_core::store::{CircuitView, FleetState, HistoryEntry};

/// Prints a line and flushes standard output. A closed pipe is not an error.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// Prints an error and its causes on standard error.
pub(crate) fn error(error: &(dyn Error + 'static)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // An error often contains the message of its cause.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    let _ = writeln!(std::io::stderr(), "bulkman-pg: {text}");
}

pub(crate) fn status(circuits: &[CircuitView]) {
    if circuits.is_empty() {
        line(format_args!("no circuits"));
    }
    let width = circuits
        .iter()
        .map(|view| view.circuit.as_str().chars().count())
        .max()
        .unwrap_or(0);
    for view in circuits {
        let name = view.circuit.as_str();
        line(format_args!(
            "{name:width$}  {:11}  for {:>8}{}",
            view.state,
            ShortDuration(view.age),
            DisplayDetails(view)
        ));
    }
}

pub(crate) fn changed(view: &CircuitView) {
    line(format_args!(
        "{} is {}, epoch {}",
        view.circuit, view.state, view.epoch.0
    ));
}

pub(crate) fn history(entries: &[HistoryEntry]) {
    if entries.is_empty() {
        line(format_args!("no history"));
    }
    for entry in entries {
        line(format_args!(
            "{:>8} ago  {}",
            ShortDuration(entry.age),
            DisplayEntry(entry)
        ));
    }
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

fn write_author(f: &mut fmt::Formatter<'_>, author: &str, reason: &str) -> fmt::Result {
    if !author.is_empty() {
        write!(f, ", by {}", Escaped(author))?;
    }
    if !reason.is_empty() {
        write!(f, ": {}", Escaped(reason))?;
    }
    Ok(())
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
        assert_eq!(Escaped("a\x1b[31mb\n").to_string(), "a\\u{1b}[31mb\\n");
    }
}
