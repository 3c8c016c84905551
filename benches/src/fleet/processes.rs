//! The processes of a fleet, and their supervisor.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::report::{Report, View};
use super::role::Role;
use super::server::Server;
use super::worker;

/// The processes of one namespace. They end when this value is dropped, or this process ends.
pub(crate) struct Processes {
    children: Vec<Process>,
    reports: Receiver<(usize, Report)>,
}

struct Process {
    child: Child,
    /// Closed to end the process.
    commands: Option<ChildStdin>,
}

impl Processes {
    /// Starts a process for each role, and waits until all have loaded the fleet's state.
    pub(crate) fn start(
        server: &Server,
        namespace: &str,
        roles: impl IntoIterator<Item = Role>,
    ) -> Self {
        let program = env::current_exe().expect("this program has a path");
        let (sender, reports) = channel();
        let mut children = Vec::new();
        for (index, role) in roles.into_iter().enumerate() {
            let mut child = Command::new(&program)
                .arg(worker::ARGUMENT)
                .args(role.arguments())
                .env(worker::SERVER, server.postgres.url())
                .env(worker::NAMESPACE, namespace)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("this program can be started again");
            let commands = child.stdin.take();
            let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
            let sender = sender.clone();
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let report =
                        Report::parse(&line).unwrap_or_else(|| panic!("unknown report: {line:?}"));
                    if sender.send((index, report)).is_err() {
                        return;
                    }
                }
            });
            children.push(Process { child, commands });
        }
        let processes = Self { children, reports };
        let mut ready = 0;
        processes.receive_while(Duration::from_secs(30), |_, report| {
            ready += usize::from(report == Report::Ready);
            ready < processes.len()
        });
        assert_eq!(ready, processes.len(), "not every process is ready in time");
        processes
    }

    /// Returns the number of processes.
    pub(crate) const fn len(&self) -> usize {
        self.children.len()
    }

    /// Sends a command to a process. [`worker`] lists the commands.
    pub(crate) fn send(&mut self, process: usize, command: &str) {
        let commands = self.children[process]
            .commands
            .as_mut()
            .expect("open until the end");
        writeln!(commands, "{command}").expect("the process has not ended");
    }

    /// Sends a command to all processes.
    pub(crate) fn send_all(&mut self, command: &str) {
        for process in 0..self.len() {
            self.send(process, command);
        }
    }

    /// Receives reports until `more` returns `false`, and returns `true`.
    ///
    /// Returns `false` if `timeout` elapses first.
    pub(crate) fn receive_while(
        &self,
        timeout: Duration,
        mut more: impl FnMut(usize, Report) -> bool,
    ) -> bool {
        let deadline = Instant::now() + timeout;
        while let Ok((process, report)) = self
            .reports
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if !more(process, report) {
                return true;
            }
        }
        false
    }

    /// Requests and returns the view of each process. Other reports are passed to `others`.
    pub(crate) fn views(&mut self, mut others: impl FnMut(usize, Report)) -> Vec<View> {
        self.send_all("view");
        let mut views = BTreeMap::new();
        let all = self.len();
        self.receive_while(Duration::from_secs(10), |process, report| {
            match report {
                Report::View(view) => drop(views.insert(process, view)),
                report => others(process, report),
            }
            views.len() < all
        });
        assert_eq!(views.len(), all, "not every process has sent its view");
        views.into_values().collect()
    }

    /// Returns a line for each view that differs from the table.
    pub(crate) fn differences(
        &mut self,
        server: &Server,
        namespace: &str,
        others: impl FnMut(usize, Report),
    ) -> Vec<String> {
        let views = self.views(others);
        let table = server.circuits(namespace);
        let mut differences = Vec::new();
        for (process, view) in views.iter().enumerate() {
            for (name, (state, epoch)) in &table {
                let circuit = view.get(name);
                if !circuit.is_some_and(|circuit| circuit.agrees(state, *epoch)) {
                    differences.push(format!(
                        "{name} is {state} {epoch}, process {process} has {circuit:?}"
                    ));
                }
            }
        }
        differences
    }

    /// Returns the processor time of all processes so far, in seconds.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let processes = self.children.iter().map(|process| process.child.id());
        processes.map(processor_seconds).sum()
    }

    /// Returns the resident memory of each process, in KiB.
    pub(crate) fn resident_memory(&self) -> Vec<f64> {
        self.children
            .iter()
            .map(|process| resident_memory(process.child.id()))
            .collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.children {
            drop(process.commands.take());
        }
        for process in &mut self.children {
            let _ = process.child.wait();
        }
    }
}

/// Returns the processor time of a process in seconds; zero if it has ended.
pub(crate) fn processor_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The program name is in parentheses and may contain any character.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |field: usize| -> f64 {
        let field = fields.split_whitespace().nth(field);
        field.and_then(|field| field.parse().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// The unit of processor times on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn resident_memory(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .expect("the process has not ended");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line with the resident memory");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
