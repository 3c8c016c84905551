//! The reports of a process, one line each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A report of a process.
///
/// Circuits are identified by their number. Times are readings of
/// [`clock::now`](super::clock::now).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// The process has read the fleet's state, and accepts commands.
    Ready,
    /// The process is about to open a circuit.
    Opening { at: Duration, circuit: usize },
    /// A circuit changed its state.
    Transition {
        at: Duration,
        circuit: usize,
        state: String,
    },
    /// A decision was resolved.
    DecisionResolved {
        at: Duration,
        circuit: usize,
        outcome: String,
    },
    /// The store is unavailable.
    Degraded { at: Duration },
    /// The store is available.
    Synchronized { at: Duration },
    /// The view of all circuits.
    View(View),
    /// The results of calls.
    Calls(Calls),
}

/// The circuits of a process, by name.
pub(crate) type View = BTreeMap<String, CircuitView>;

/// A process's view of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CircuitView {
    /// The state in the store, as far as the process knows.
    pub(crate) state: String,
    pub(crate) epoch: u64,
    /// The state of the local circuit.
    pub(crate) local: String,
}

/// The results of a process's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Calls {
    pub(crate) count: u64,
    pub(crate) rejected: u64,
    /// Percentiles of the duration, in nanoseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// The p99 of calls through circuits without a store, in turns with the others.
    pub(crate) p99_without_store: f64,
}

impl CircuitView {
    /// Returns `true` if it equals the row in the table, and the local state matches.
    pub(crate) fn agrees(&self, state: &str, epoch: u64) -> bool {
        let local = match state {
            // The isolation may have elapsed.
            "open" => self.local == "open" || self.local == "half_open",
            state => self.local == state,
        };
        self.state == state && self.epoch == epoch && local
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(f, "ready"),
            Self::Opening { at, circuit } => write!(f, "opening {} {circuit}", at.as_nanos()),
            Self::Transition { at, circuit, state } => {
                write!(f, "transition {} {circuit} {state}", at.as_nanos())
            }
            Self::DecisionResolved {
                at,
                circuit,
                outcome,
            } => {
                write!(f, "decision-resolved {} {circuit} {outcome}", at.as_nanos())
            }
            Self::Degraded { at } => write!(f, "degraded {}", at.as_nanos()),
            Self::Synchronized { at } => write!(f, "synchronized {}", at.as_nanos()),
            Self::View(view) => {
                write!(f, "view")?;
                for (
                    name,
                    CircuitView {
                        state,
                        epoch,
                        local,
                    },
                ) in view
                {
                    write!(f, " {name}:{state}:{epoch}:{local}")?;
                }
                Ok(())
            }
            Self::Calls(Calls {
                count,
                rejected,
                p50,
                p99,
                p999,
                p99_without_store,
            }) => {
                write!(
                    f,
                    "calls {count} {rejected} {p50} {p99} {p999} {p99_without_store}"
                )
            }
        }
    }
}

impl Report {
    /// Parses a line that [`Display`](fmt::Display) wrote.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let time = |word: &str| word.parse().ok().map(Duration::from_nanos);
        Some(match words[..] {
            ["ready"] => Self::Ready,
            ["opening", at, circuit] => Self::Opening {
                at: time(at)?,
                circuit: circuit.parse().ok()?,
            },
            ["transition", at, circuit, state] => Self::Transition {
                at: time(at)?,
                circuit: circuit.parse().ok()?,
                state: state.to_owned(),
            },
            ["decision-resolved", at, circuit, outcome] => Self::DecisionResolved {
                at: time(at)?,
                circuit: circuit.parse().ok()?,
                outcome: outcome.to_owned(),
            },
            ["degraded", at] => Self::Degraded { at: time(at)? },
            ["synchronized", at] => Self::Synchronized { at: time(at)? },
            ["view", ref circuits @ ..] => Self::View(
                circuits
                    .iter()
                    .map(|text| parse_circuit(text))
                    .collect::<Option<_>>()?,
            ),
            ["calls", count, rejected, p50, p99, p999, p99_without_store] => Self::Calls(Calls {
                count: count.parse().ok()?,
                rejected: rejected.parse().ok()?,
                p50: p50.parse().ok()?,
                p99: p99.parse().ok()?,
                p999: p999.parse().ok()?,
                p99_without_store: p99_without_store.parse().ok()?,
            }),
            _ => return None,
        })
    }
}

fn parse_circuit(text: &str) -> Option<(String, CircuitView)> {
    let fields: Vec<&str> = text.split(':').collect();
    let [name, state, epoch, local] = fields[..] else {
        return None;
    };
    let epoch = epoch.parse().ok()?;
    Some((
        name.to_owned(),
        CircuitView {
            state: state.to_owned(),
            epoch,
            local: local.to_owned(),
        },
    ))
}
