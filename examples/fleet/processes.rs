//! The processes of the fleet, as the supervisor holds them.

use std::error::Error;
use std::process::Stdio;
use std::{env, io};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::messages::{Command, Report};
use super::server::Server;

pub(crate) struct Processes {
    processes: Vec<Process>,
    received: UnboundedReceiver<Received>,
}

struct Process {
    /// Killed when dropped. If the supervisor itself is killed, its end of the pipe closes.
    child: Child,
    commands: ChildStdin,
}

struct Received {
    by: usize,
    /// A reading of this process's clock, so that the times of all can be compared.
    at: Instant,
    /// `None` at the end.
    line: Option<Report>,
}

impl Processes {
    pub(crate) async fn start(count: usize, server: &Server) -> Result<Self, Box<dyn Error>> {
        let (tell, received) = unbounded_channel();
        let mut processes = Self {
            processes: Vec::new(),
            received,
        };
        for number in 0..count {
            let mut child = tokio::process::Command::new(env::current_exe()?)
                .arg(super::WORKER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let commands = child.stdin.take().expect("it is piped");
            let lines = child.stdout.take().expect("it is piped");
            tokio::spawn(listen(number, lines, tell.clone()));
            processes.processes.push(Process { child, commands });
        }
        let schema = server.schema.name().to_owned();
        processes
            .send_all(&Command::Join {
                url: server.url.clone(),
                schema,
            })
            .await?;
        processes
            .wait_all("is ready", |line| {
                matches!(line, Report::Ready).then_some(())
            })
            .await;
        Ok(processes)
    }

    /// Returns the process ids.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes
            .iter()
            .filter_map(|process| process.child.id())
            .collect()
    }

    pub(crate) async fn send(&mut self, number: usize, order: &Command) -> io::Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.processes[number]
            .commands
            .write_all(line.as_bytes())
            .await
    }

    pub(crate) async fn send_all(&mut self, order: &Command) -> io::Result<()> {
        for number in 0..self.processes.len() {
            self.send(number, order).await?;
        }
        Ok(())
    }

    /// Waits until every process has sent a report that `pick` accepts, and returns the times.
    /// Other reports are skipped.
    ///
    /// # Panics
    ///
    /// Panics if a process never sends one, or ends.
    pub(crate) async fn wait_all<T>(
        &mut self,
        what: &str,
        pick: impl Fn(&Report) -> Option<T>,
    ) -> Vec<(Instant, T)> {
        let mut said: Vec<Option<(Instant, T)>> = self.processes.iter().map(|_| None).collect();
        let deadline = Instant::now() + PATIENCE;
        while let Some(silent) = said.iter().position(Option::is_none) {
            let rest = deadline.saturating_duration_since(Instant::now());
            let received = timeout(rest, self.received.recv()).await;
            let received =
                received.unwrap_or_else(|_| panic!("process {} never {what}", silent + 1));
            let Some(Received { by, at, line }) = received else {
                panic!("no process is left")
            };
            let line = line.unwrap_or_else(|| panic!("process {} has ended", by + 1));
            if said[by].is_none() {
                said[by] = pick(&line).map(|picked| (at, picked));
            }
        }
        said.into_iter().flatten().collect()
    }

    /// Waits until `circuit` is in `state` in every process, and returns the times.
    pub(crate) async fn wait_all_in_state(&mut self, circuit: &str, state: &str) -> Vec<Instant> {
        let turned = |line: &Report| match line {
            Report::Transition {
                circuit: c,
                state: s,
            } if c == circuit && s == state => Some(()),
            _ => None,
        };
        let turned = self
            .wait_all(&format!("gets {circuit} {state}"), turned)
            .await;
        turned.into_iter().map(|(at, ())| at).collect()
    }
}

async fn listen(by: usize, lines: ChildStdout, tell: UnboundedSender<Received>) {
    let mut lines = BufReader::new(lines).lines();
    loop {
        let line = lines.next_line().await.ok().flatten();
        let at = Instant::now();
        let line = line.and_then(|line| serde_json::from_str(&line).ok());
        let ended = line.is_none();
        if tell.send(Received { by, at, line }).is_err() || ended {
            return;
        }
    }
}
