//! The reports of a process of the fleet, one line each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A report of a process. Circuits are identified by their number, times are readings of
/// [`clock::now`](super::clock::now).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// It has loaded the fleet's state, and accepts commands.
    Ready,
    /// It is about to open a circuit.
    Decides { at: Duration, circuit: usize },
    /// A circuit changed its state.
    Moved {
        at: Duration,
        circuit: usize,
        state: String,
    },
    /// A decision was resolved.
    Settled {
        at: Duration,
        circuit: usize,
        ending: String,
    },
    /// The store is unavailable.
    Degraded { at: Duration },
    /// The store is available.
    Synchronized { at: Duration },
    /// Its view of the fleet.
    View(View),
    /// The results of its calls.
    Calls(Calls),
}

/// The circuits of a process, by name.
pub(crate) type View = BTreeMap<String, Seen>;

/// A process's view of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The state in the store.
    pub(crate) state: String,
    pub(crate) epoch: u64,
    /// The local state.
    pub(crate) local: String,
}

/// The results of a process's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Calls {
    pub(crate) made: u64,
    pub(crate) rejected: u64,
    /// Nanoseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// The p99 of calls to circuits of the same process that have no store, measured in turns with
    /// these.
    pub(crate) beside: f64,
}

impl Seen {
    /// Returns `true` if it equals the table, and the local state matches.
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
            Self::Decides { at, circuit } => write!(f, "decides {} {circuit}", at.as_nanos()),
            Self::Moved { at, circuit, state } => {
                write!(f, "moved {} {circuit} {state}", at.as_nanos())
            }
            Self::Settled {
                at,
                circuit,
                ending,
            } => {
                write!(f, "settled {} {circuit} {ending}", at.as_nanos())
            }
            Self::Degraded { at } => write!(f, "degraded {}", at.as_nanos()),
            Self::Synchronized { at } => write!(f, "synchronised {}", at.as_nanos()),
            Self::View(view) => {
                write!(f, "view")?;
                for (
                    name,
                    Seen {
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
                made,
                rejected,
                p50,
                p99,
                p999,
                beside,
            }) => {
                write!(f, "calls {made} {rejected} {p50} {p99} {p999} {beside}")
            }
        }
    }
}

impl Report {
    /// Reads what its [`Display`](fmt::Display) wrote.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let moment = |word: &str| word.parse().ok().map(Duration::from_nanos);
        Some(match words[..] {
            ["ready"] => Self::Ready,
            ["decides", at, circuit] => Self::Decides {
                at: moment(at)?,
                circuit: circuit.parse().ok()?,
            },
            ["moved", at, circuit, state] => Self::Moved {
                at: moment(at)?,
                circuit: circuit.parse().ok()?,
                state: state.to_owned(),
            },
            ["settled", at, circuit, ending] => Self::Settled {
                at: moment(at)?,
                circuit: circuit.parse().ok()?,
                ending: ending.to_owned(),
            },
            ["degraded", at] => Self::Degraded { at: moment(at)? },
            ["synchronised", at] => Self::Synchronized { at: moment(at)? },
            ["view", ref circuits @ ..] => Self::View(
                circuits
                    .iter()
                    .map(|text| seen(text))
                    .collect::<Option<_>>()?,
            ),
            ["calls", made, rejected, p50, p99, p999, beside] => Self::Calls(Calls {
                made: made.parse().ok()?,
                rejected: rejected.parse().ok()?,
                p50: p50.parse().ok()?,
                p99: p99.parse().ok()?,
                p999: p999.parse().ok()?,
                beside: beside.parse().ok()?,
            }),
            _ => return None,
        })
    }
}

fn seen(text: &str) -> Option<(String, Seen)> {
    let fields: Vec<&str> = text.split(':').collect();
    let [name, state, epoch, local] = fields[..] else {
        return None;
    };
    let epoch = epoch.parse().ok()?;
    Some((
        name.to_owned(),
        Seen {
            state: state.to_owned(),
            epoch,
            local: local.to_owned(),
        },
    ))
}
