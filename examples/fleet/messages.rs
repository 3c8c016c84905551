//! The messages between supervisor and processes: one line of JSON each, over pipes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command of the supervisor to a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Sent first. Not an argument, because other users can read those and a URL has a password.
    Join {
        url: String,
        schema: String,
    },
    /// Run failing calls until the circuit opens.
    Fail {
        circuit: String,
    },
    /// Run calls one after another; the response is [`Report::Called`].
    Call {
        circuit: String,
        times: u32,
    },
    /// Ask repeatedly for a probe, and keep the one that is granted; the response is
    /// [`Report::Asked`].
    Ask {
        times: u32,
    },
    /// Record a success of the probe.
    Succeed,
    /// Open or close the circuit manually.
    Open,
    Close,
    /// Run calls until `Rest`; its response is [`Report::Carried`].
    Traffic,
    Rest,
    /// The response is [`Report::Seen`].
    View,
}

/// A report of a process to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The state in the database is loaded.
    Ready,
    /// A circuit changed its state.
    Transition {
        circuit: String,
        state: String,
    },
    /// The connection to the database is lost.
    Disconnected,
    Called {
        passed: u32,
        rejected: u32,
    },
    Asked {
        granted: bool,
        rejected: u32,
    },
    Carried(Carried),
    Seen(View),
}

/// The results of the calls of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) calls: u32,
    pub(crate) rejected: u32,
    pub(crate) total: Duration,
    pub(crate) slowest: Duration,
}

/// A process's view of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) connected: bool,
    pub(crate) pending: usize,
    /// The outcomes of its decisions since the connection was lost.
    pub(crate) outcomes: Vec<String>,
    pub(crate) circuits: Vec<Circuit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Circuit {
    pub(crate) name: String,
    /// The local state.
    pub(crate) here: String,
    /// The fleet's state.
    pub(crate) fleet: String,
    pub(crate) epoch: u64,
}
