//! Snapshots as tables of text.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{BulkheadSnapshot, ManagerSnapshot};
use crate::circuit_breaker::CircuitSnapshot;
use crate::fleet::{FleetCircuit, FleetSnapshot};

const COLUMNS: usize = 11;
/// The number of running calls that are shown for a bulkhead.
const OLDEST_IN_TABLE: usize = 4;

/// The heading of each column, and whether the column is aligned to the right.
const HEADINGS: [(&str, bool); COLUMNS] = [
    ("BULKHEAD", false),
    ("STATE", false),
    ("CIRCUIT", false),
    ("SINCE", true),
    ("RUNNING", true),
    ("WAITING", true),
    ("OK", true),
    ("FAILED", true),
    ("REJECTED", true),
    ("FAILURE RATE", true),
    ("LAST CHANGE", false),
];

type Row = [String; COLUMNS];

impl fmt::Display for ManagerSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_table(f, &self.bulkheads)?;
        write_oldest(f, &self.bulkheads)?;
        self.fleet
            .as_ref()
            .map_or(Ok(()), |fleet| write_fleet(f, fleet))
    }
}

impl fmt::Display for BulkheadSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bulkheads = std::slice::from_ref(self);
        write_table(f, bulkheads)?;
        write_oldest(f, bulkheads)
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, bulkheads: &[BulkheadSnapshot]) -> fmt::Result {
    let mut rows = vec![HEADINGS.map(|(heading, _)| heading.into())];
    rows.extend(bulkheads.iter().map(row));
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            f.write_char('\n')?;
        }
        let mut line = String::new();
        for ((cell, width), (_, right)) in row.iter().zip(widths).zip(HEADINGS) {
            // Writing to a string can't fail.
            let _ = if right {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        f.write_str(line.trim_end())?;
    }
    Ok(())
}

/// Writes a line for each bulkhead that lists its running calls: the oldest ones.
fn write_oldest(f: &mut fmt::Formatter<'_>, bulkheads: &[BulkheadSnapshot]) -> fmt::Result {
    for bulkhead in bulkheads.iter().filter(|it| !it.oldest.is_empty()) {
        write!(f, "\nOLDEST    {}:", bulkhead.name)?;
        for (number, call) in bulkhead.oldest.iter().take(OLDEST_IN_TABLE).enumerate() {
            let separator = if number == 0 { " " } else { ", " };
            write!(f, "{separator}{}", Short(call.age))?;
            if let Some(label) = &call.label {
                write!(f, " {label}")?;
            }
        }
    }
    Ok(())
}

/// Writes the line below the bulkheads: how fresh the view of the fleet is.
fn write_fleet(f: &mut fmt::Formatter<'_>, fleet: &FleetSnapshot) -> fmt::Result {
    f.write_str("\nFLEET     ")?;
    match (fleet.connected, fleet.staleness) {
        (true, Some(age)) => write!(f, "synchronized {} ago", Short(age))?,
        (false, Some(age)) => write!(f, "local rules only, last response {} ago", Short(age))?,
        (_, None) => f.write_str("local rules only, no response yet")?,
    }
    if fleet.pending > 0 {
        write!(f, ", {} to publish", fleet.pending)?;
    }
    if let Some(error) = &fleet.error {
        write!(f, ": {error}")?;
    }
    for circuit in &fleet.circuits {
        write_forced(f, circuit)?;
    }
    Ok(())
}

/// Writes a line for a circuit that an operator has forced.
fn write_forced(f: &mut fmt::Formatter<'_>, circuit: &FleetCircuit) -> fmt::Result {
    let Some(state) = circuit.state.filter(|state| state.is_forced()) else {
        return Ok(());
    };
    write!(f, "\nFORCED    {}: {state}", circuit.name)?;
    if let Some(age) = circuit.age {
        write!(f, " for {}", Short(age))?;
    }
    if let Some(author) = &circuit.author {
        write!(f, " by {}", author.escape_debug())?;
    }
    if let Some(reason) = &circuit.reason {
        write!(f, ": {}", reason.escape_debug())?;
    }
    Ok(())
}

fn row(bulkhead: &BulkheadSnapshot) -> Row {
    let BulkheadSnapshot {
        name,
        state,
        stats,
        circuit,
        ..
    } = bulkhead;
    let none = || String::from("-");
    let circuit = circuit.as_ref();
    [
        name.to_string(),
        state.to_string(),
        circuit.map_or_else(none, |circuit| circuit.state.to_string()),
        circuit.map_or_else(none, |circuit| Short(circuit.age).to_string()),
        format!("{}/{}", stats.active, stats.max_concurrent_calls),
        format!("{}/{}", stats.waiting, stats.max_queue_size),
        stats.successful.to_string(),
        stats.failed.to_string(),
        stats.rejected.total().to_string(),
        circuit
            .and_then(|circuit| circuit.counts.failure_rate)
            .map_or_else(none, |rate| format!("{:.1} %", rate * 100.0)),
        circuit.and_then(last_change).unwrap_or_else(none),
    ]
}

fn last_change(circuit: &CircuitSnapshot) -> Option<String> {
    let last = circuit.recent.last()?;
    let mut text = format!("{} -> {}: {}", last.from, last.to, last.cause);
    if let Some(left) = circuit.retry_after {
        let _ = write!(text, ", {} left", Short(left));
    }
    Some(text)
}

/// Displays a duration in its two largest units, rounded down.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        match (days, hours, minutes, seconds) {
            (0, 0, 0, 0) => write!(f, "{}ms", self.0.as_millis()),
            (0, 0, 0, _) => write!(f, "{seconds}s"),
            (0, 0, _, _) => write!(f, "{minutes}m {}s", seconds % 60),
            (0, _, _, _) => write!(f, "{hours}h {}m", minutes % 60),
            _ => write!(f, "{days}d {}h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let short = |duration| Short(duration).to_string();
        assert_eq!(short(Duration::from_micros(999_999)), "999ms");
        assert_eq!(short(Duration::from_millis(59_999)), "59s");
        assert_eq!(short(Duration::from_secs(60)), "1m 0s");
        assert_eq!(short(Duration::from_secs(3_599)), "59m 59s");
        assert_eq!(short(Duration::from_secs(86_399)), "23h 59m");
        assert_eq!(short(Duration::from_secs(90_000)), "1d 1h");
        assert_eq!(short(Duration::MAX), "213503982334601d 7h");
    }
}
