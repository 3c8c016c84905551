//! The processes of the fleet, as the story holds them.

use std::error::Error;
use std::process::Stdio;
use std::{env, io};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::server::Server;
use super::wire::{Line, Order};

pub(crate) struct Crew {
    processes: Vec<Process>,
    heard: UnboundedReceiver<Heard>,
}

struct Process {
    /// Killed when dropped; and should the story be killed itself, its end of the pipe is gone.
    child: Child,
    orders: ChildStdin,
}

struct Heard {
    by: usize,
    /// By this process's clock, so that the times of all can be compared.
    at: Instant,
    /// `None` at the end.
    line: Option<Line>,
}

impl Crew {
    pub(crate) async fn start(count: usize, server: &Server) -> Result<Self, Box<dyn Error>> {
        let (tell, heard) = unbounded_channel();
        let mut crew = Self {
            processes: Vec::new(),
            heard,
        };
        for number in 0..count {
            let mut child = Command::new(env::current_exe()?)
                .arg(super::WORKER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let orders = child.stdin.take().expect("it is piped");
            let lines = child.stdout.take().expect("it is piped");
            tokio::spawn(listen(number, lines, tell.clone()));
            crew.processes.push(Process { child, orders });
        }
        let schema = server.schema.name().to_owned();
        crew.order_all(&Order::Join {
            url: server.url.clone(),
            schema,
        })
        .await?;
        crew.hear_all("is ready", |line| matches!(line, Line::Ready).then_some(()))
            .await;
        Ok(crew)
    }

    /// The numbers by which the system knows them.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes
            .iter()
            .filter_map(|process| process.child.id())
            .collect()
    }

    pub(crate) async fn order(&mut self, number: usize, order: &Order) -> io::Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.processes[number]
            .orders
            .write_all(line.as_bytes())
            .await
    }

    pub(crate) async fn order_all(&mut self, order: &Order) -> io::Result<()> {
        for number in 0..self.processes.len() {
            self.order(number, order).await?;
        }
        Ok(())
    }

    /// Waits until every process has said something that `pick` takes, and when it did. What else
    /// they say is passed over.
    ///
    /// # Panics
    ///
    /// If one never says it, or ends.
    pub(crate) async fn hear_all<T>(
        &mut self,
        what: &str,
        pick: impl Fn(&Line) -> Option<T>,
    ) -> Vec<(Instant, T)> {
        let mut said: Vec<Option<(Instant, T)>> = self.processes.iter().map(|_| None).collect();
        let deadline = Instant::now() + PATIENCE;
        while let Some(silent) = said.iter().position(Option::is_none) {
            let rest = deadline.saturating_duration_since(Instant::now());
            let heard = timeout(rest, self.heard.recv()).await;
            let heard = heard.unwrap_or_else(|_| panic!("process {} never {what}", silent + 1));
            let Some(Heard { by, at, line }) = heard else {
                panic!("no process is left")
            };
            let line = line.unwrap_or_else(|| panic!("process {} has ended", by + 1));
            if said[by].is_none() {
                said[by] = pick(&line).map(|picked| (at, picked));
            }
        }
        said.into_iter().flatten().collect()
    }

    /// Waits until `circuit` is in `state` in every process, and says when it got there.
    pub(crate) async fn all_turn(&mut self, circuit: &str, state: &str) -> Vec<Instant> {
        let turned = |line: &Line| match line {
            Line::Turned {
                circuit: c,
                state: s,
            } if c == circuit && s == state => Some(()),
            _ => None,
        };
        let turned = self
            .hear_all(&format!("gets {circuit} {state}"), turned)
            .await;
        turned.into_iter().map(|(at, ())| at).collect()
    }
}

async fn listen(by: usize, lines: ChildStdout, tell: UnboundedSender<Heard>) {
    let mut lines = BufReader::new(lines).lines();
    loop {
        let line = lines.next_line().await.ok().flatten();
        let at = Instant::now();
        let line = line.and_then(|line| serde_json::from_str(&line).ok());
        let ended = line.is_none();
        if tell.send(Heard { by, at, line }).is_err() || ended {
            return;
        }
    }
}
