//! What is printed.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use bulkman_core::store::{CircuitView, FleetState, HistoryEntry};

/// A line on standard output, at once. A reader that has gone away is no failure of ours.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// The error and its causes, on standard error.
pub(crate) fn complain(error: &(dyn Error + 'static)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Causes often repeat what they are the cause of.
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
            "{name:width$}  {:11}  since {:>8}{}",
            view.state,
            Span(view.age),
            Details(view)
        ));
    }
}

pub(crate) fn acted(view: &CircuitView) {
    line(format_args!(
        "{} is {}, epoch {}",
        view.circuit, view.state, view.epoch.0
    ));
}

pub(crate) fn history(entries: &[HistoryEntry]) {
    if entries.is_empty() {
        line(format_args!("no changes"));
    }
    for entry in entries {
        line(format_args!(
            "{:>8} ago  {}",
            Span(entry.age),
            Change(entry)
        ));
    }
}

/// `payments: closed -> open for 30s, by shop-1: 5 failures in a row`
pub(crate) struct Change<'a>(pub(crate) &'a HistoryEntry);

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.0;
        write!(f, "{}: {} -> {}", entry.circuit, entry.from, entry.to)?;
        if entry.to == FleetState::Open {
            write!(f, " for {}", Span(entry.wait))?;
        }
        author(f, &entry.by, &entry.reason)
    }
}

struct Details<'a>(&'a CircuitView);

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0;
        match view.state {
            FleetState::Open if view.isolation_elapsed() => f.write_str(", may be probed")?,
            FleetState::Open => write!(f, ", for another {}", Span(view.remaining))?,
            FleetState::HalfOpen => {
                write!(
                    f,
                    ", {} probes succeeded, {} failed",
                    view.probes_succeeded, view.probes_failed
                )?;
            }
            _ => {}
        }
        author(f, &view.changed_by, &view.reason)
    }
}

fn author(f: &mut fmt::Formatter<'_>, by: &str, reason: &str) -> fmt::Result {
    if !by.is_empty() {
        write!(f, ", by {}", Plain(by))?;
    }
    if !reason.is_empty() {
        write!(f, ": {}", Plain(reason))?;
    }
    Ok(())
}

/// Text that others wrote, without what would steer a terminal.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
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

/// The two largest units of a duration.
struct Span(Duration);

impl fmt::Display for Span {
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
    fn spans_are_short() {
        let text = |seconds| Span(Duration::from_secs(seconds)).to_string();
        assert_eq!(Span(Duration::from_millis(250)).to_string(), "250ms");
        assert_eq!(
            [text(59), text(61), text(3_700), text(90_000)],
            ["59s", "1m 1s", "1h 1m", "1d 1h"]
        );
        assert_eq!(format!("{:>8}|", Span(Duration::from_secs(5))), "      5s|");
    }

    #[test]
    fn a_reason_cannot_steer_the_terminal() {
        assert_eq!(Plain("a\x1b[31mb\n").to_string(), "a\\u{1b}[31mb\\n");
    }
}
