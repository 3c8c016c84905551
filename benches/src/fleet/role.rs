//! The role of a process, as command line arguments.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::server::ONE_HOUR;

/// The role of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    pub(crate) executor: Executor,
    pub(crate) updates: Updates,
    /// The number of circuits, which are named `c0` and so on.
    pub(crate) circuits: usize,
    /// The isolation of its circuits, in whole seconds.
    pub(crate) isolation: Duration,
    /// The successful probes that close a circuit.
    pub(crate) successes: u32,
    pub(crate) reporting: Reporting,
}

/// The executor of a process, with one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executor {
    Tokio,
    Smol,
}

/// How a process receives the changes of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Updates {
    Listening,
    Polling,
    /// Not at all: its circuits have no store.
    None,
}

/// What a process reports without a command, besides the state of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reporting {
    Nothing,
    /// Every transition of a circuit.
    Transitions,
    /// The outcome of each of its decisions.
    Decisions,
}

impl Role {
    pub(crate) const fn new(circuits: usize, reporting: Reporting) -> Self {
        Self {
            executor: Executor::Tokio,
            updates: Updates::Listening,
            circuits,
            isolation: ONE_HOUR,
            successes: 2,
            reporting,
        }
    }

    pub(crate) const fn executor(self, executor: Executor) -> Self {
        Self { executor, ..self }
    }

    pub(crate) const fn updates(self, updates: Updates) -> Self {
        Self { updates, ..self }
    }

    pub(crate) const fn isolation(self, isolation: Duration) -> Self {
        Self { isolation, ..self }
    }

    pub(crate) const fn successes(self, successes: u32) -> Self {
        Self { successes, ..self }
    }

    /// Returns the command line arguments.
    pub(crate) fn arguments(self) -> [String; 6] {
        let Self {
            executor,
            updates,
            circuits,
            isolation,
            successes,
            reporting,
        } = self;
        let isolation = isolation.as_secs().to_string();
        [
            executor.to_string(),
            updates.to_string(),
            circuits.to_string(),
            isolation,
            successes.to_string(),
            reporting.to_string(),
        ]
    }

    /// Parses the result of [`arguments`](Self::arguments).
    ///
    /// # Errors
    ///
    /// Returns a message that names the wrong argument.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, String> {
        let [executor, updates, circuits, isolation, successes, reporting] = arguments else {
            return Err("a role has six arguments".to_owned());
        };
        let number = |word: &str| word.parse().map_err(|_| format!("{word} is not a number"));
        let isolation = Duration::from_secs(number(isolation)?);
        let successes = successes
            .parse()
            .map_err(|_| format!("{successes} is not a number"))?;
        let circuits = circuits
            .parse()
            .map_err(|_| format!("{circuits} is not a number"))?;
        Ok(Self {
            executor: executor.parse()?,
            updates: updates.parse()?,
            circuits,
            isolation,
            successes,
            reporting: reporting.parse()?,
        })
    }
}

/// Implements `Display` and `FromStr` with a word for each variant.
macro_rules! argument_values {
    ($($type:ident { $($variant:ident = $word:literal),* })*) => {
        $(
            impl fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(match self {
                        $(Self::$variant => $word,)*
                    })
                }
            }

            impl FromStr for $type {
                type Err = String;

                fn from_str(word: &str) -> Result<Self, String> {
                    match word {
                        $($word => Ok(Self::$variant),)*
                        _ => Err(format!("{word} is not a value of {}", stringify!($type))),
                    }
                }
            }
        )*
    };
}

argument_values! {
    Executor { Tokio = "tokio", Smol = "smol" }
    Updates { Listening = "listening", Polling = "polling", None = "none" }
    Reporting { Nothing = "nothing", Transitions = "transitions", Decisions = "decisions" }
}
