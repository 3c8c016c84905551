//! Twenty processes share their circuits through PostgreSQL: one opens, all reject, one probes, and
//! the database is killed.
//!
//! `cargo run --example fleet` needs an installed PostgreSQL server and about ten seconds. It
//! starts a private server, unless `BULKMAN_TEST_DATABASE_URL` names one, and the processes, which
//! are this program in another role. `worker.rs` shows how a service joins a fleet.
//!
//! All times are readings of this process's clock: a report counts when it arrives here. Build with
//! `--release` for meaningful figures.

mod messages;
#[path = "../story_steps/page.rs"]
mod page;
mod processes;
mod server;
mod worker;

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use self::messages::{CallStats, Command, Report, View};
use self::page::Page;
use self::processes::Processes;
use self::server::Server;

const PROCESSES: usize = 20;
const FAILURES: u32 = 5;
const PROBES: u32 = 3;
const ISOLATION: Duration = Duration::from_secs(3);
/// The duration of the outage, after all processes have noticed it.
const OUTAGE: Duration = Duration::from_secs(1);
const PAYMENTS: &str = "payments";
/// Circuits that stay open for half a minute, the default, which is longer than the example.
const OTHERS: [&str; 5] = ["mail", "prices", "reviews", "search", "stock"];
/// The timeout of each wait for reports.
const TIMEOUT: Duration = Duration::from_secs(30);
const WORKER: &str = "worker";

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some(WORKER) {
        return Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(worker::run());
    }
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut page = Page::new();
    println!(
        "{PROCESSES} processes of a shop share the state of their circuits through PostgreSQL."
    );
    println!(
        "{FAILURES} consecutive failures in any of them open a circuit in all. After {ISOLATION:?} it admits"
    );
    println!("probes, one at a time in the whole fleet; {PROBES} have to succeed.");

    page.step("A database server and the processes start");
    let server = Server::start();
    server::store(&server.url, &server.schema)
        .build()?
        .migrate()
        .await?;
    let processes = Processes::start(PROCESSES, &server).await?;
    let mut demo = Demo { processes, server };
    demo.started(&page).await?;
    demo.one_opens(&mut page).await?;
    demo.all_reject(&mut page).await?;
    demo.one_probes(&mut page).await?;
    demo.all_adopt(&mut page).await?;
    if demo.server.is_private() {
        demo.server_is_killed(&mut page).await?;
        demo.server_is_back(&mut page).await?;
    } else {
        page.step("The database server is external, so it is not killed");
    }
    Ok(())
}

struct Demo {
    processes: Processes,
    server: Server,
}

type Outcome = Result<(), Box<dyn Error>>;

impl Demo {
    async fn started(&mut self, page: &Page) -> Outcome {
        let ids = self.processes.ids();
        let distinct: BTreeSet<_> = ids.iter().collect();
        page.line(format!(
            "processes {} to {}",
            distinct.first().unwrap(),
            distinct.last().unwrap()
        ));
        page.check(
            distinct.len() == PROCESSES,
            format!("{PROCESSES} processes run"),
        );
        let views = self.views().await?;
        page.check(
            views.iter().all(|view| view.connected && *view == views[0]),
            "each is connected to the database, and all views are equal",
        );
        page.check(
            views[0]
                .circuits
                .iter()
                .all(|circuit| circuit.local == "closed"),
            format!("all {} circuits are closed", views[0].circuits.len()),
        );
        Ok(())
    }

    async fn one_opens(&mut self, page: &mut Page) -> Outcome {
        page.step(format!("{FAILURES} calls of process 1 fail"));
        let started = Instant::now();
        self.processes
            .send(
                0,
                &Command::Fail {
                    circuit: PAYMENTS.into(),
                },
            )
            .await?;
        let adopted = self.processes.wait_all_in_state(PAYMENTS, "open").await;
        page.note(format!(
            "time until {PAYMENTS} is open in each process, from the command to process 1"
        ));
        let times: Vec<_> = adopted.iter().map(|at| *at - started).collect();
        for (row, times) in times.chunks(PER_ROW).enumerate() {
            let cells = (row * PER_ROW + 1..).zip(times);
            let cells: Vec<_> = cells
                .map(|(n, time)| format!("{n:2}: {:>5.1} ms", millis(*time)))
                .collect();
            page.line(cells.join("    "));
        }
        page.check(
            times.iter().all(|time| *time < ADOPTION_LIMIT),
            format!("process 1 opened it, and all {PROCESSES} processes have it open"),
        );
        Ok(())
    }

    async fn all_reject(&mut self, page: &mut Page) -> Outcome {
        const CALLS: u32 = 100;
        page.step(format!("Every process runs {CALLS} calls"));
        self.processes
            .send_all(&Command::Call {
                circuit: PAYMENTS.into(),
                times: CALLS,
            })
            .await?;
        let called = |report: &Report| match report {
            Report::Called { admitted, rejected } => Some((*admitted, *rejected)),
            _ => None,
        };
        let called = self.processes.wait_all("responded", called).await;
        let admitted: u32 = called.iter().map(|(_, (admitted, _))| admitted).sum();
        let rejected: u32 = called.iter().map(|(_, (_, rejected))| rejected).sum();
        let all = CALLS * u32::try_from(PROCESSES)?;
        page.check(
            (admitted, rejected) == (0, all),
            format!("{rejected} are rejected, {admitted} admitted"),
        );
        Ok(())
    }

    async fn one_probes(&mut self, page: &mut Page) -> Outcome {
        page.step(format!(
            "After {ISOLATION:?} every process requests probes repeatedly"
        ));
        let mut holders = BTreeSet::new();
        for probe in 1..=PROBES {
            let (holder, before) = self.request_until_admitted().await?;
            // It keeps its probe, and all processes continue to request probes.
            let (more, rejected) = self.request_probes(20).await?;
            page.line(format!(
                "probe {probe}: admitted in process {}, {} calls rejected",
                holder + 1,
                before + rejected
            ));
            page.check(more.is_empty(), "no second probe is admitted meanwhile");
            holders.insert(holder);
            self.processes.send(holder, &Command::Succeed).await?;
        }
        page.check(
            holders.len() == 1,
            "one process held the fleet's probe lease throughout",
        );
        self.processes.wait_all_in_state(PAYMENTS, "closed").await;
        page.check(
            true,
            format!("{PROBES} probes succeeded: the circuit is closed in all processes"),
        );
        Ok(())
    }

    async fn all_adopt(&mut self, page: &mut Page) -> Outcome {
        const ROUNDS: usize = 25;
        page.step(format!(
            "{ROUNDS} times, a process opens the circuit manually and closes it again"
        ));
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let process = (round * 7) % PROCESSES;
            for (command, state) in [(Command::Open, "open"), (Command::Close, "closed")] {
                let started = Instant::now();
                self.processes.send(process, &command).await?;
                let adopted = self.processes.wait_all_in_state(PAYMENTS, state).await;
                let others = adopted
                    .iter()
                    .enumerate()
                    .filter(|(number, _)| *number != process);
                times.extend(others.map(|(_, at)| *at - started));
            }
        }
        times.sort_unstable();
        let at = |percent: usize| millis(times[(times.len() * percent).div_ceil(100) - 1]);
        page.note("time from the command to the report, through two pipes and the database");
        page.line(format!(
            "p50 {:.1} ms   p99 {:.1} ms   max {:.1} ms",
            at(50),
            at(99),
            at(100)
        ));
        page.check(
            times.len() == 2 * ROUNDS * (PROCESSES - 1)
                && times.iter().all(|time| *time < ADOPTION_LIMIT),
            format!(
                "the {} other processes adopted each change: {} in total",
                PROCESSES - 1,
                times.len()
            ),
        );
        Ok(())
    }

    async fn server_is_killed(&mut self, page: &mut Page) -> Outcome {
        page.step("The database server is killed, and calls continue");
        self.processes.send_all(&Command::StartTraffic).await?;
        block_in_place(|| self.server.kill());
        self.processes
            .wait_all("reported the outage", |report| {
                matches!(report, Report::Disconnected).then_some(())
            })
            .await;
        page.check(true, "every process has reported the lost connection");
        for number in 0..PROCESSES {
            let circuit = OTHERS[number % OTHERS.len()].into();
            self.processes
                .send(number, &Command::Fail { circuit })
                .await?;
        }
        let opened = |report: &Report| match report {
            Report::Transition { circuit, state } if state == "open" => Some(circuit.clone()),
            _ => None,
        };
        let opened = self.processes.wait_all("opened a circuit", opened).await;
        let as_expected = (0..)
            .zip(&opened)
            .all(|(number, (_, circuit))| circuit == OTHERS[number % OTHERS.len()]);
        page.check(
            as_expected,
            format!(
                "each process opens one of {} other circuits locally",
                OTHERS.len()
            ),
        );

        sleep(OUTAGE).await;
        self.processes.send_all(&Command::StopTraffic).await?;
        let stats = |report: &Report| match report {
            Report::TrafficStopped(stats) => Some(*stats),
            _ => None,
        };
        let stats: Vec<CallStats> = self
            .processes
            .wait_all("responded", stats)
            .await
            .into_iter()
            .map(|(_, stats)| stats)
            .collect();
        let calls: u32 = stats.iter().map(|stats| stats.calls).sum();
        let rejected: u32 = stats.iter().map(|stats| stats.rejected).sum();
        let mean = stats.iter().map(|stats| stats.total).sum::<Duration>() / calls;
        let slowest = stats
            .iter()
            .map(|stats| stats.slowest)
            .max()
            .unwrap_or_default();
        page.check(
            stats.iter().all(|stats| stats.calls > 0) && rejected == 0,
            format!("{calls} calls ran through {PAYMENTS} meanwhile, {rejected} were rejected"),
        );
        page.check(
            slowest < CALL_LIMIT,
            format!(
                "no call waited for the database: {mean:.1?} on average, {slowest:.1?} at most"
            ),
        );
        Ok(())
    }

    async fn server_is_back(&mut self, page: &mut Page) -> Outcome {
        page.step("The database server is restarted");
        block_in_place(|| self.server.restart());
        let started = Instant::now();
        let views = loop {
            let views = self.views().await?;
            let outcomes: usize = views.iter().map(|view| view.outcomes.len()).sum();
            let resolved = views.iter().all(|view| view.connected && view.pending == 0);
            if resolved
                && outcomes == PROCESSES
                && views.iter().all(|view| view.circuits == views[0].circuits)
            {
                break views;
            }
            assert!(
                started.elapsed() < TIMEOUT,
                "the views did not become equal: {views:#?}"
            );
            sleep(Duration::from_millis(20)).await;
        };
        let took = started.elapsed();
        let count = |outcome| {
            views
                .iter()
                .flat_map(|view| &view.outcomes)
                .filter(|resolved| *resolved == outcome)
                .count()
        };
        // After a long outage, the decision of one process is a vote that a second one has to join.
        let (published, voted) = (count("Published"), count("Voted"));
        let superseded = count("Superseded");
        page.check(
            published >= OTHERS.len()
                && voted <= OTHERS.len()
                && published + voted + superseded == PROCESSES,
            format!(
                "no decision is lost: {published} are published, {voted} joined one of these as a vote, {superseded} found the circuit open already"
            ),
        );
        page.check(
            true,
            format!("after {took:.1?} all {PROCESSES} views are equal"),
        );

        let store = server::store(&self.server.url, &self.server.schema).build()?;
        let table = store.admin().status().await?;
        for (circuit, row) in views[0].circuits.iter().zip(&table) {
            page.line(format!(
                "{:<9} {:<7} changes: {:>2}",
                row.circuit,
                row.state.as_str(),
                row.epoch.0
            ));
            let expected = if circuit.name == PAYMENTS {
                "closed"
            } else {
                "open"
            };
            assert_eq!(
                (circuit.local.as_str(), circuit.fleet.as_str()),
                (expected, expected)
            );
        }
        let equal = views[0].circuits.iter().zip(&table).all(|(circuit, row)| {
            (circuit.name.as_str(), circuit.fleet.as_str(), circuit.epoch)
                == (row.circuit.as_ref(), row.state.as_str(), row.epoch.0)
        });
        page.check(
            equal && table.len() == views[0].circuits.len(),
            "they equal the table in the database",
        );
        Ok(())
    }

    /// Requests probes until one is admitted.
    ///
    /// Returns the number of its process, and how many calls were rejected before.
    async fn request_until_admitted(&mut self) -> Result<(usize, u32), Box<dyn Error>> {
        let started = Instant::now();
        let mut all_rejected = 0;
        loop {
            let (holders, rejected) = self.request_probes(10).await?;
            all_rejected += rejected;
            match holders[..] {
                [] => assert!(started.elapsed() < TIMEOUT, "no probe was admitted"),
                [holder] => return Ok((holder, all_rejected)),
                _ => {
                    panic!(
                        "more than one probe in the fleet: {} processes have one",
                        holders.len()
                    )
                }
            }
        }
    }

    /// Requests `times` probes in each process.
    ///
    /// Returns the numbers of the processes in which one was admitted, and how many calls were
    /// rejected.
    async fn request_probes(&mut self, times: u32) -> Result<(Vec<usize>, u32), Box<dyn Error>> {
        self.processes
            .send_all(&Command::RequestProbe { times })
            .await?;
        let requested = |report: &Report| match report {
            Report::ProbeRequested { admitted, rejected } => Some((*admitted, *rejected)),
            _ => None,
        };
        let responses = self.processes.wait_all("responded", requested).await;
        let admitted = responses
            .iter()
            .enumerate()
            .filter(|(_, (_, (admitted, _)))| *admitted);
        let rejected = responses.iter().map(|(_, (_, rejected))| rejected).sum();
        Ok((admitted.map(|(number, _)| number).collect(), rejected))
    }

    /// Returns the view of each process.
    async fn views(&mut self) -> Result<Vec<View>, Box<dyn Error>> {
        self.processes.send_all(&Command::View).await?;
        let view = |report: &Report| match report {
            Report::View(view) => Some(view.clone()),
            _ => None,
        };
        Ok(self
            .processes
            .wait_all("responded", view)
            .await
            .into_iter()
            .map(|(_, view)| view)
            .collect())
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

const PER_ROW: usize = 5;
/// Generous for a busy machine, and far below the minute after which a process polls the database
/// without a notification.
const ADOPTION_LIMIT: Duration = Duration::from_secs(5);
/// Less than any timeout of the store.
const CALL_LIMIT: Duration = Duration::from_secs(1);
