//! What the story and its processes say to each other: one line of JSON each, over pipes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// From the story to a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// First of all. Not an argument: others can read those, and a URL has a password.
    Join {
        url: String,
        schema: String,
    },
    /// Make as many failing calls as open the circuit.
    Fail {
        circuit: String,
    },
    /// Make calls one after another; answered by [`Line::Called`].
    Call {
        circuit: String,
        times: u32,
    },
    /// Ask again and again for a probe, and keep the one that is granted; answered by
    /// [`Line::Asked`].
    Ask {
        times: u32,
    },
    /// The probe's call has succeeded.
    Succeed,
    /// Open or close the circuit by hand.
    Open,
    Close,
    /// Go on making calls, until `Rest`, which is answered by [`Line::Carried`].
    Traffic,
    Rest,
    /// Answered by [`Line::Seen`].
    Look,
}

/// From a process to the story.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// What the database says is known here.
    Ready,
    /// A circuit changed its state here.
    Turned {
        circuit: String,
        state: String,
    },
    /// The link to the database is lost.
    Cut,
    Called {
        passed: u32,
        refused: u32,
    },
    Asked {
        granted: bool,
        refused: u32,
    },
    Carried(Carried),
    Seen(View),
}

/// How the calls of a process fared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) calls: u32,
    pub(crate) refused: u32,
    pub(crate) total: Duration,
    pub(crate) slowest: Duration,
}

/// A process's view of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) connected: bool,
    pub(crate) pending: usize,
    /// How its decisions ended that it took since the link was lost.
    pub(crate) endings: Vec<String>,
    pub(crate) circuits: Vec<Circuit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Circuit {
    pub(crate) name: String,
    /// As it acts.
    pub(crate) here: String,
    /// As it knows the fleet's.
    pub(crate) fleet: String,
    pub(crate) epoch: u64,
}
