//! The messages between the supervisor and the processes: one line of JSON each, over pipes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command of the supervisor to a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Join the fleet; the first command.
    ///
    /// Not a command-line argument, since other users can read those and the URL has a password.
    Join { url: String, schema: String },
    /// Run failing calls until the circuit opens.
    Fail { circuit: String },
    /// Run calls one after another; the response is [`Report::Called`].
    Call { circuit: String, times: u32 },
    /// Request a probe `times` times, and keep the one that is admitted; the response is
    /// [`Report::ProbeRequested`].
    RequestProbe { times: u32 },
    /// Record that the probe has succeeded.
    Succeed,
    /// Open the circuit manually.
    Open,
    /// Close the circuit manually.
    Close,
    /// Run calls until [`StopTraffic`](Self::StopTraffic).
    StartTraffic,
    /// Stop the calls; the response is [`Report::TrafficStopped`].
    StopTraffic,
    /// Report the view of the fleet; the response is [`Report::View`].
    View,
}

/// A report of a process to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process has read the state from the database.
    Ready,
    /// A circuit changed its state.
    Transition { circuit: String, state: String },
    /// The connection to the database is lost.
    Disconnected,
    /// The calls of [`Command::Call`] have ended.
    Called { admitted: u32, rejected: u32 },
    /// The requests of [`Command::RequestProbe`] have ended.
    ProbeRequested { admitted: bool, rejected: u32 },
    /// The calls since [`Command::StartTraffic`] have ended.
    TrafficStopped(CallStats),
    /// The view of the fleet.
    View(View),
}

/// Statistics of the calls of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CallStats {
    pub(crate) calls: u32,
    pub(crate) rejected: u32,
    /// The sum of all durations.
    pub(crate) total: Duration,
    /// The longest duration.
    pub(crate) slowest: Duration,
}

/// A process's view of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) connected: bool,
    /// The number of decisions that are not resolved yet.
    pub(crate) pending: usize,
    /// The outcomes of the process's decisions since the connection was lost.
    pub(crate) outcomes: Vec<String>,
    pub(crate) circuits: Vec<Circuit>,
}

/// A process's view of a circuit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Circuit {
    pub(crate) name: String,
    /// The state of the local circuit.
    pub(crate) local: String,
    /// The state in the store, as far as the process knows.
    pub(crate) fleet: String,
    pub(crate) epoch: u64,
}
