//! Twenty processes share their circuits through PostgreSQL; one opens, all refuse, one probes, and
//! the database is killed under them.
//!
//! `cargo run --example fleet`: no set-up but an installed PostgreSQL server, about ten seconds. It
//! starts a server of its own, unless `BULKMAN_TEST_DATABASE_URL` names one, and the processes:
//! this program again, in another role. `worker.rs` shows how a service joins a fleet.
//!
//! All times are this process's: a line that a process writes counts when it arrives here. Build
//! with `--release` for figures that mean something.

mod crew;
#[path = "../story_steps/page.rs"]
mod page;
mod server;
mod wire;
mod worker;

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use self::crew::Crew;
use self::page::Page;
use self::server::Server;
use self::wire::{Carried, Line, Order, View};

const PROCESSES: usize = 20;
const FAILURES: u32 = 5;
const PROBES: u32 = 3;
const ISOLATION: Duration = Duration::from_secs(3);
/// Of the database, once all have noticed.
const OUTAGE: Duration = Duration::from_secs(1);
const PAYMENTS: &str = "payments";
/// These stay open for half a minute, the default, which is longer than the story.
const OTHERS: [&str; 5] = ["mail", "prices", "reviews", "search", "stock"];
/// Of whoever waits for something that has to come.
const PATIENCE: Duration = Duration::from_secs(30);
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
        .block_on(tell())
}

async fn tell() -> Result<(), Box<dyn Error>> {
    let mut page = Page::new();
    println!(
        "{PROCESSES} processes of a shop share the state of their circuits through PostgreSQL."
    );
    println!(
        "{FAILURES} failures in a row in any of them open a circuit in all. {ISOLATION:?} later it lets"
    );
    println!("probes through, one at a time in the whole fleet; {PROBES} have to succeed.");

    page.step("A database server and the processes start");
    let server = Server::start();
    server::store(&server.url, &server.schema)
        .build()?
        .migrate()
        .await?;
    let crew = Crew::start(PROCESSES, &server).await?;
    let mut story = Story { crew, server };
    story.started(&page).await?;
    story.one_opens(&mut page).await?;
    story.all_refuse(&mut page).await?;
    story.one_probes(&mut page).await?;
    story.all_learn(&mut page).await?;
    if story.server.is_own() {
        story.server_is_killed(&mut page).await?;
        story.server_is_back(&mut page).await?;
    } else {
        page.step("The database server was given, so it is not killed");
    }
    Ok(())
}

struct Story {
    crew: Crew,
    server: Server,
}

type Outcome = Result<(), Box<dyn Error>>;

impl Story {
    async fn started(&mut self, page: &Page) -> Outcome {
        let ids = self.crew.ids();
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
        let views = self.look().await?;
        page.check(
            views.iter().all(|view| view.connected && *view == views[0]),
            "each is connected to the database, and all see the same",
        );
        page.check(
            views[0]
                .circuits
                .iter()
                .all(|circuit| circuit.here == "closed"),
            format!("all {} circuits are closed", views[0].circuits.len()),
        );
        Ok(())
    }

    async fn one_opens(&mut self, page: &mut Page) -> Outcome {
        page.step(format!("{FAILURES} calls of process 1 fail"));
        let begun = Instant::now();
        self.crew
            .order(
                0,
                &Order::Fail {
                    circuit: PAYMENTS.into(),
                },
            )
            .await?;
        let learned = self.crew.all_turn(PAYMENTS, "open").await;
        page.note(format!(
            "when each process has the circuit {PAYMENTS} open, since process 1 was told to call"
        ));
        let times: Vec<_> = learned.iter().map(|at| *at - begun).collect();
        for (row, times) in times.chunks(PER_ROW).enumerate() {
            let cells = (row * PER_ROW + 1..).zip(times);
            let cells: Vec<_> = cells
                .map(|(n, time)| format!("{n:2}: {:>5.1} ms", millis(*time)))
                .collect();
            page.line(cells.join("    "));
        }
        page.check(
            times.iter().all(|time| *time < AT_ONCE),
            format!("one opened, and all {PROCESSES} know"),
        );
        Ok(())
    }

    async fn all_refuse(&mut self, page: &mut Page) -> Outcome {
        const CALLS: u32 = 100;
        page.step(format!("Every process makes {CALLS} calls"));
        self.crew
            .order_all(&Order::Call {
                circuit: PAYMENTS.into(),
                times: CALLS,
            })
            .await?;
        let called = |line: &Line| match line {
            Line::Called { passed, refused } => Some((*passed, *refused)),
            _ => None,
        };
        let called = self.crew.hear_all("answers", called).await;
        let passed: u32 = called.iter().map(|(_, (passed, _))| passed).sum();
        let refused: u32 = called.iter().map(|(_, (_, refused))| refused).sum();
        let all = CALLS * u32::try_from(PROCESSES)?;
        page.check(
            (passed, refused) == (0, all),
            format!("{refused} are refused, {passed} pass"),
        );
        Ok(())
    }

    async fn one_probes(&mut self, page: &mut Page) -> Outcome {
        page.step(format!(
            "After {ISOLATION:?} every process asks for a probe, again and again"
        ));
        let mut holders = BTreeSet::new();
        for probe in 1..=PROBES {
            let (holder, asked) = self.ask_until_granted().await?;
            // It keeps its probe, and all go on asking.
            let (more, refused) = self.ask(20).await?;
            page.line(format!(
                "probe {probe}: process {}, {} calls refused",
                holder + 1,
                asked + refused
            ));
            page.check(more.is_empty(), "there is no second one meanwhile");
            holders.insert(holder);
            self.crew.order(holder, &Order::Succeed).await?;
        }
        page.check(
            holders.len() == 1,
            "one process held the fleet's lease to the end",
        );
        self.crew.all_turn(PAYMENTS, "closed").await;
        page.check(
            true,
            format!("{PROBES} probes succeeded: the circuit is closed in all processes"),
        );
        Ok(())
    }

    async fn all_learn(&mut self, page: &mut Page) -> Outcome {
        const ROUNDS: usize = 25;
        page.step(format!(
            "{ROUNDS} times a process opens the circuit by hand, and closes it again"
        ));
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let who = (round * 7) % PROCESSES;
            for (order, state) in [(Order::Open, "open"), (Order::Close, "closed")] {
                let begun = Instant::now();
                self.crew.order(who, &order).await?;
                let learned = self.crew.all_turn(PAYMENTS, state).await;
                let others = learned
                    .iter()
                    .enumerate()
                    .filter(|(number, _)| *number != who);
                times.extend(others.map(|(_, at)| *at - begun));
            }
        }
        times.sort_unstable();
        let at = |percent: usize| millis(times[(times.len() * percent).div_ceil(100) - 1]);
        page.note(
            "from the order to the line that says it is so, through two pipes and the database",
        );
        page.line(format!(
            "p50 {:.1} ms   p99 {:.1} ms   last {:.1} ms",
            at(50),
            at(99),
            at(100)
        ));
        page.check(
            times.len() == 2 * ROUNDS * (PROCESSES - 1) && times.iter().all(|time| *time < AT_ONCE),
            format!(
                "the {} others learned of it each time: {} in all",
                PROCESSES - 1,
                times.len()
            ),
        );
        Ok(())
    }

    async fn server_is_killed(&mut self, page: &mut Page) -> Outcome {
        page.step("The database server is killed, and calls go on");
        self.crew.order_all(&Order::Traffic).await?;
        block_in_place(|| self.server.kill());
        self.crew
            .hear_all("misses the database", |line| {
                matches!(line, Line::Cut).then_some(())
            })
            .await;
        page.check(true, "every process has noticed");
        for number in 0..PROCESSES {
            let circuit = OTHERS[number % OTHERS.len()].into();
            self.crew.order(number, &Order::Fail { circuit }).await?;
        }
        let opened = |line: &Line| match line {
            Line::Turned { circuit, state } if state == "open" => Some(circuit.clone()),
            _ => None,
        };
        let opened = self.crew.hear_all("opens by itself", opened).await;
        let as_meant = (0..)
            .zip(&opened)
            .all(|(number, (_, circuit))| circuit == OTHERS[number % OTHERS.len()]);
        page.check(
            as_meant,
            format!(
                "each opens one of {} other circuits, for itself",
                OTHERS.len()
            ),
        );

        sleep(OUTAGE).await;
        self.crew.order_all(&Order::Rest).await?;
        let carried = |line: &Line| match line {
            Line::Carried(carried) => Some(*carried),
            _ => None,
        };
        let carried: Vec<Carried> = self
            .crew
            .hear_all("answers", carried)
            .await
            .into_iter()
            .map(|(_, carried)| carried)
            .collect();
        let calls: u32 = carried.iter().map(|carried| carried.calls).sum();
        let refused: u32 = carried.iter().map(|carried| carried.refused).sum();
        let mean = carried
            .iter()
            .map(|carried| carried.total)
            .sum::<Duration>()
            / calls;
        let slowest = carried
            .iter()
            .map(|carried| carried.slowest)
            .max()
            .unwrap_or_default();
        page.check(
            carried.iter().all(|carried| carried.calls > 0) && refused == 0,
            format!("{calls} calls went through {PAYMENTS} meanwhile, {refused} were refused"),
        );
        page.check(
            slowest < NO_WAIT,
            format!(
                "none waited for the database: {mean:.1?} on average, {slowest:.1?} the slowest"
            ),
        );
        Ok(())
    }

    async fn server_is_back(&mut self, page: &mut Page) -> Outcome {
        page.step("The database server is back");
        block_in_place(|| self.server.start_again());
        let begun = Instant::now();
        let views = loop {
            let views = self.look().await?;
            let endings: usize = views.iter().map(|view| view.endings.len()).sum();
            let settled = views.iter().all(|view| view.connected && view.pending == 0);
            if settled
                && endings == PROCESSES
                && views.iter().all(|view| view.circuits == views[0].circuits)
            {
                break views;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the views never become equal: {views:#?}"
            );
            sleep(Duration::from_millis(20)).await;
        };
        let took = begun.elapsed();
        let ended = |as_what| {
            views
                .iter()
                .flat_map(|view| &view.endings)
                .filter(|e| *e == as_what)
                .count()
        };
        let (published, superseded) = (ended("Published"), ended("Superseded"));
        page.check(
            published >= OTHERS.len() && published + superseded == PROCESSES,
            format!(
                "no decision is lost: {published} are published, {superseded} found the circuit open already"
            ),
        );
        page.check(
            true,
            format!("{took:.1?} later all {PROCESSES} views are equal"),
        );

        let store = server::store(&self.server.url, &self.server.schema).build()?;
        let table = store.admin().status().await?;
        for (known, row) in views[0].circuits.iter().zip(&table) {
            page.line(format!(
                "{:<9} {:<7} changes: {:>2}",
                row.circuit,
                row.state.as_str(),
                row.epoch.0
            ));
            let expected = if known.name == PAYMENTS {
                "closed"
            } else {
                "open"
            };
            assert_eq!(
                (known.here.as_str(), known.fleet.as_str()),
                (expected, expected)
            );
        }
        let equal = views[0].circuits.iter().zip(&table).all(|(known, row)| {
            (known.name.as_str(), known.fleet.as_str(), known.epoch)
                == (row.circuit.as_ref(), row.state.as_str(), row.epoch.0)
        });
        page.check(
            equal && table.len() == views[0].circuits.len(),
            "and equal to what the database says",
        );
        Ok(())
    }

    /// Until some process gets a probe: which, and how many calls were refused before.
    async fn ask_until_granted(&mut self) -> Result<(usize, u32), Box<dyn Error>> {
        let begun = Instant::now();
        let mut all_refused = 0;
        loop {
            let (holders, refused) = self.ask(10).await?;
            all_refused += refused;
            match holders[..] {
                [] => assert!(begun.elapsed() < PATIENCE, "no process ever gets a probe"),
                [holder] => return Ok((holder, all_refused)),
                _ => {
                    panic!(
                        "this does not hold: one probe in the fleet; {} processes have one",
                        holders.len()
                    )
                }
            }
        }
    }

    /// All ask for a probe, so many times: who got one, and how often one was refused.
    async fn ask(&mut self, times: u32) -> Result<(Vec<usize>, u32), Box<dyn Error>> {
        self.crew.order_all(&Order::Ask { times }).await?;
        let asked = |line: &Line| match line {
            Line::Asked { granted, refused } => Some((*granted, *refused)),
            _ => None,
        };
        let asked = self.crew.hear_all("answers", asked).await;
        let granted = asked
            .iter()
            .enumerate()
            .filter(|(_, (_, (granted, _)))| *granted);
        let refused = asked.iter().map(|(_, (_, refused))| refused).sum();
        Ok((granted.map(|(number, _)| number).collect(), refused))
    }

    async fn look(&mut self) -> Result<Vec<View>, Box<dyn Error>> {
        self.crew.order_all(&Order::Look).await?;
        let seen = |line: &Line| match line {
            Line::Seen(view) => Some(view.clone()),
            _ => None,
        };
        Ok(self
            .crew
            .hear_all("answers", seen)
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
/// On a machine that is busy with other things too, but far from the minute after which a process
/// looks into the database without being notified.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Less than any timeout of the store.
const NO_WAIT: Duration = Duration::from_secs(1);
