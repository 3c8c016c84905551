//! The processes of the fleet, as seen by their supervisor.

use std::error::Error;
use std::process::Stdio;
use std::{env, io};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use super::TIMEOUT;
use super::messages::{Command, Report};
use super::server::Server;

/// The processes of the fleet. They end when this value is dropped.
pub(crate) struct Processes {
    children: Vec<Process>,
    reports: UnboundedReceiver<Received>,
}

struct Process {
    /// Killed when dropped. If the supervisor is killed, the pipe closes, which ends the process.
    child: Child,
    commands: ChildStdin,
}

/// A report, and its sender.
struct Received {
    process: usize,
    /// When it arrived, by this process's clock, so that times of different processes compare.
    at: Instant,
    /// `None` when the process has ended.
    report: Option<Report>,
}

impl Processes {
    /// Starts `count` processes, and waits until all have joined the fleet.
    pub(crate) async fn start(count: usize, server: &Server) -> Result<Self, Box<dyn Error>> {
        let (sender, reports) = unbounded_channel();
        let mut processes = Self {
            children: Vec::new(),
            reports,
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
            tokio::spawn(receive(number, lines, sender.clone()));
            processes.children.push(Process { child, commands });
        }
        let schema = server.schema.name().to_owned();
        processes
            .send_all(&Command::Join {
                url: server.url.clone(),
                schema,
            })
            .await?;
        processes
            .wait_all("became ready", |report| {
                matches!(report, Report::Ready).then_some(())
            })
            .await;
        Ok(processes)
    }

    /// Returns the process ids.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.children
            .iter()
            .filter_map(|process| process.child.id())
            .collect()
    }

    /// Sends a command to one process.
    pub(crate) async fn send(&mut self, number: usize, command: &Command) -> io::Result<()> {
        let line = serde_json::to_string(command)? + "\n";
        self.children[number]
            .commands
            .write_all(line.as_bytes())
            .await
    }

    /// Sends a command to all processes.
    pub(crate) async fn send_all(&mut self, command: &Command) -> io::Result<()> {
        for number in 0..self.children.len() {
            self.send(number, command).await?;
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
        let mut picked: Vec<Option<(Instant, T)>> = self.children.iter().map(|_| None).collect();
        let deadline = Instant::now() + TIMEOUT;
        while let Some(missing) = picked.iter().position(Option::is_none) {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let received = timeout(remaining, self.reports.recv()).await;
            let received =
                received.unwrap_or_else(|_| panic!("process {} never {what}", missing + 1));
            let Some(Received {
                process,
                at,
                report,
            }) = received
            else {
                panic!("all processes have ended")
            };
            let report = report.unwrap_or_else(|| panic!("process {} has ended", process + 1));
            if picked[process].is_none() {
                picked[process] = pick(&report).map(|value| (at, value));
            }
        }
        picked.into_iter().flatten().collect()
    }

    /// Waits until `circuit` is in `state` in every process, and returns the times.
    pub(crate) async fn wait_all_in_state(&mut self, circuit: &str, state: &str) -> Vec<Instant> {
        let in_state = |report: &Report| match report {
            Report::Transition {
                circuit: c,
                state: s,
            } if c == circuit && s == state => Some(()),
            _ => None,
        };
        let reports = self
            .wait_all(&format!("reported {circuit} as {state}"), in_state)
            .await;
        reports.into_iter().map(|(at, ())| at).collect()
    }
}

/// Forwards the reports of a process until it ends.
async fn receive(process: usize, lines: ChildStdout, sender: UnboundedSender<Received>) {
    let mut lines = BufReader::new(lines).lines();
    loop {
        let line = lines.next_line().await.ok().flatten();
        let at = Instant::now();
        let report = line.and_then(|line| serde_json::from_str(&line).ok());
        let ended = report.is_none();
        let received = Received {
            process,
            at,
            report,
        };
        if sender.send(received).is_err() || ended {
            return;
        }
    }
}
