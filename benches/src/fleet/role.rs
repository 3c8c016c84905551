//! The role of a process of the fleet, as command line arguments.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::server::FOR_LONG;

/// The role of a process of the fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    pub(crate) executor: Executor,
    pub(crate) link: Link,
    /// Circuits, named `c0` and so on.
    pub(crate) circuits: usize,
    /// The isolation, in whole seconds.
    pub(crate) isolation: Duration,
    pub(crate) tells: Tells,
}

/// The runtime, with one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executor {
    Tokio,
    Smol,
}

/// How it receives changes of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Listening,
    Polling,
    /// Not at all: its circuits are local.
    Alone,
}

/// What it reports by itself, besides the state of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    Nothing,
    /// Every change of a circuit.
    Moves,
    /// The outcomes of its decisions.
    Endings,
}

impl Role {
    pub(crate) const fn new(circuits: usize, tells: Tells) -> Self {
        Self {
            executor: Executor::Tokio,
            link: Link::Listening,
            circuits,
            isolation: FOR_LONG,
            tells,
        }
    }

    pub(crate) const fn executor(self, executor: Executor) -> Self {
        Self { executor, ..self }
    }

    pub(crate) const fn link(self, link: Link) -> Self {
        Self { link, ..self }
    }

    pub(crate) const fn isolation(self, isolation: Duration) -> Self {
        Self { isolation, ..self }
    }

    /// Returns the command line arguments.
    pub(crate) fn words(self) -> [String; 5] {
        let Self {
            executor,
            link,
            circuits,
            isolation,
            tells,
        } = self;
        let isolation = isolation.as_secs().to_string();
        [
            executor.to_string(),
            link.to_string(),
            circuits.to_string(),
            isolation,
            tells.to_string(),
        ]
    }

    /// Parses the result of [`words`](Self::words).
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let [executor, link, circuits, isolation, tells] = words else {
            return Err("a role has five words".to_owned());
        };
        let number = |word: &str| word.parse().map_err(|_| format!("{word} is no number"));
        let isolation = Duration::from_secs(number(isolation)?);
        let circuits = circuits
            .parse()
            .map_err(|_| format!("{circuits} is no number"))?;
        Ok(Self {
            executor: executor.parse()?,
            link: link.parse()?,
            circuits,
            isolation,
            tells: tells.parse()?,
        })
    }
}

/// A word for each variant.
macro_rules! words {
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
                        _ => Err(format!("{word} is no {}", stringify!($type))),
                    }
                }
            }
        )*
    };
}

words! {
    Executor { Tokio = "tokio", Smol = "smol" }
    Link { Listening = "listening", Polling = "polling", Alone = "alone" }
    Tells { Nothing = "nothing", Moves = "moves", Endings = "endings" }
}
