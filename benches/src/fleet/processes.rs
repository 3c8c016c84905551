//! The fleet's processes, as seen by the process that started them.

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

/// The processes of one namespace. They end with this value, or with this process.
pub(crate) struct Processes {
    processes: Vec<Process>,
    heard: Receiver<(usize, Report)>,
}

struct Process {
    child: Child,
    /// Closed to end it.
    orders: Option<ChildStdin>,
}

impl Processes {
    /// Starts a process for each role, and waits until all have loaded the fleet's state.
    pub(crate) fn start(
        server: &Server,
        namespace: &str,
        roles: impl IntoIterator<Item = Role>,
    ) -> Self {
        let program = env::current_exe().expect("this program has a path");
        let (tell, heard) = channel();
        let mut processes = Vec::new();
        for (index, role) in roles.into_iter().enumerate() {
            let mut child = Command::new(&program)
                .arg(worker::WORD)
                .args(role.words())
                .env(worker::SERVER, server.postgres.url())
                .env(worker::NAMESPACE, namespace)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("this program can be started again");
            let orders = child.stdin.take();
            let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
            let tell = tell.clone();
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let report =
                        Report::parse(&line).unwrap_or_else(|| panic!("what does {line:?} mean?"));
                    if tell.send((index, report)).is_err() {
                        return;
                    }
                }
            });
            processes.push(Process { child, orders });
        }
        let processes = Self { processes, heard };
        let mut ready = 0;
        processes.listen(Duration::from_secs(30), |_, report| {
            ready += usize::from(report == Report::Ready);
            ready < processes.len()
        });
        assert_eq!(
            ready,
            processes.len(),
            "every process of the fleet is ready in time"
        );
        processes
    }

    pub(crate) const fn len(&self) -> usize {
        self.processes.len()
    }

    /// Sends a command; see [`worker`].
    pub(crate) fn order(&mut self, process: usize, order: &str) {
        let orders = self.processes[process]
            .orders
            .as_mut()
            .expect("open until the end");
        writeln!(orders, "{order}").expect("a process of the fleet is there");
    }

    pub(crate) fn order_all(&mut self, order: &str) {
        for process in 0..self.len() {
            self.order(process, order);
        }
    }

    /// Receives reports until `more` returns `false` or `limit` has elapsed; returns `true` for the
    /// former.
    pub(crate) fn listen(
        &self,
        limit: Duration,
        mut more: impl FnMut(usize, Report) -> bool,
    ) -> bool {
        let until = Instant::now() + limit;
        while let Ok((process, report)) = self
            .heard
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if !more(process, report) {
                return true;
            }
        }
        false
    }

    /// Returns the view of each process; other reports go to `besides`.
    pub(crate) fn views(&mut self, mut besides: impl FnMut(usize, Report)) -> Vec<View> {
        self.order_all("view");
        let mut views = BTreeMap::new();
        let all = self.len();
        self.listen(Duration::from_secs(10), |process, report| {
            match report {
                Report::View(view) => drop(views.insert(process, view)),
                report => besides(process, report),
            }
            views.len() < all
        });
        assert_eq!(views.len(), all, "every process of the fleet answers");
        views.into_values().collect()
    }

    /// Returns a line for each view that differs from the table.
    pub(crate) fn differences(
        &mut self,
        server: &Server,
        namespace: &str,
        besides: impl FnMut(usize, Report),
    ) -> Vec<String> {
        let views = self.views(besides);
        let table = server.table(namespace);
        let mut differences = Vec::new();
        for (process, view) in views.iter().enumerate() {
            for (name, (state, epoch)) in &table {
                let seen = view.get(name);
                if !seen.is_some_and(|seen| seen.agrees(state, *epoch)) {
                    differences.push(format!(
                        "{name} is {state} {epoch}, process {process} sees {seen:?}"
                    ));
                }
            }
        }
        differences
    }

    /// Memory in use by each, in KiB.
    pub(crate) fn resident(&self) -> Vec<f64> {
        self.processes
            .iter()
            .map(|process| resident(process.child.id()))
            .collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.orders.take());
        }
        for process in &mut self.processes {
            let _ = process.child.wait();
        }
    }
}

fn resident(process: u32) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a process has memory");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
