//! Fleets of real processes: locks, lost sessions, dead holders, isolated nodes and floods.
//!
//! This program starts itself again as the processes. They receive commands and send reports, one
//! line each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use bulkman_core::fleet::Fleet;
use bulkman_core::store::StoreSettings;
use bulkman_core::{Bulkhead, BulkheadConfig, Permit, Runtime};
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Executor, PgConnection};
use bulkman_test_support::Postgres;
use bulkman_tokio::TokioRuntime;

use crate::common::proxy::Proxy;
use crate::common::{Database, on_tokio};

/// Runs the scenarios whose names contain `filter`, with `size` processes.
pub(crate) fn run(size: usize, filter: &str) {
    let scenarios: [(&str, fn(&mut Scenario)); 6] = [
        ("a lock holds two connections of each", bounded_connections),
        ("a lost session keeps the agreed probes", lost_sessions),
        ("the lease of a killed holder is free", killed_holder),
        ("an isolated node opens only its own", isolated_node),
        ("a flood of notifications is bounded", flood),
        ("forced open during a transaction", transaction_at_start),
    ];
    for (name, scenario) in scenarios
        .into_iter()
        .filter(|(name, _)| name.contains(filter))
    {
        let began = now();
        // Statements of other scenarios would count.
        let server = Postgres::start(&[]);
        let database = Database::on(&server);
        on_tokio(database.store("fleet").migrate()).unwrap();
        let resync_interval = StoreSettings::new().resync_interval;
        scenario(&mut Scenario {
            database,
            size,
            resync_interval,
        });
        println!("    {name}: {size} processes, {:.1?}", began.elapsed());
    }
}

struct Scenario {
    database: Database,
    size: usize,
    resync_interval: Duration,
}

/// Fault C01.
fn bounded_connections(scenario: &mut Scenario) {
    let mut fleet = Members::start(scenario, LONG);
    let mut blocker = scenario.connection();
    let begin = "BEGIN; SELECT \"bulkman\".force_open('fleet', 'payments')";
    scenario.execute(&mut blocker, begin);
    let mut observer = scenario.connection();
    fleet.send_all("open");
    let until = now() + Duration::from_secs(8);
    let mut most = 0;
    while now() < until {
        most = most.max(scenario.connections(&mut observer));
        fleet.receive_for(Duration::from_millis(50));
    }
    // The blocker is one of them.
    assert!(most <= 2 * scenario.size + 1, "{most} connections");
    scenario.execute(&mut blocker, "ROLLBACK");
    drop(blocker);
    fleet.until("all are open", |fleet| fleet.all_are("open"));
    fleet.until("the connections are closed", |_| {
        scenario.connections(&mut observer) <= scenario.size + 1
    });
}

/// Fault C03.
fn lost_sessions(scenario: &mut Scenario) {
    let mut fleet = Members::start(scenario, Duration::from_secs(2));
    fleet.send_all("probes last 1500");
    fleet.send(0, "open");
    fleet.until("a probe runs", |fleet| fleet.probes.running() == 1);
    let mut operator = scenario.connection();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    scenario.execute(&mut operator, terminate);
    fleet.until("the circuit is closed", |fleet| fleet.all_are("closed"));
    assert!(
        fleet.probes.most <= 2,
        "{} probes at once",
        fleet.probes.most
    );
    assert!(fleet.probes.started >= 3);
}

/// Fault C07.
fn killed_holder(scenario: &mut Scenario) {
    let mut fleet = Members::start(scenario, Duration::from_secs(2));
    fleet.send_all("probes last 60000");
    fleet.send(0, "open");
    fleet.until("a probe runs", |fleet| fleet.probes.running() == 1);
    let holder = fleet.probes.holders()[0];
    fleet.send_all("probes last 100");
    fleet.kill(holder);
    let killed = now();
    fleet.until("the circuit is closed", |fleet| fleet.all_are("closed"));
    // The lease lasts for 6 s; the slack is for a busy machine.
    let after = killed.elapsed();
    assert!(after < Duration::from_secs(15), "closed after {after:?}");
}

/// Fault C08.
fn isolated_node(scenario: &mut Scenario) {
    let options: sqlx::postgres::PgConnectOptions = scenario.database.url.parse().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], options.get_port()).into());
    let url = proxy.url(&scenario.database.url, options.get_port());
    let mut fleet = Members::start(scenario, LONG);
    let isolated = fleet.add(scenario, &url, LONG);
    proxy.swallow_answers(true);
    fleet.until("the loss is noticed", |fleet| !fleet.is_connected(isolated));
    fleet.send(isolated, "fail");
    fleet.until("it opens", |fleet| fleet.states[&isolated] == "open");
    // Longer than `outage_after`.
    fleet.receive_for(Duration::from_secs(5));
    proxy.swallow_answers(false);
    fleet.until("it is connected", |fleet| fleet.is_connected(isolated));
    fleet.receive_for(Duration::from_secs(3));
    for (member, state) in &fleet.states {
        let expected = if *member == isolated {
            "open"
        } else {
            "closed"
        };
        assert_eq!(state, expected, "process {member}");
    }
}

/// Fault C02.
///
/// A statement that is in progress when a flood begins receives what arrives before its response.
/// So no process reads at that time.
fn flood(scenario: &mut Scenario) {
    scenario.resync_interval = LONG;
    let mut fleet = Members::start(scenario, LONG);
    let before = fleet.memory();
    let mut outsider = scenario.connection();
    let flood = "SELECT pg_notify(\"bulkman\".channel('fleet'), '1|' || 9000000 + i || '|' \
                        || repeat('a', 64) || '|' || repeat('x', 7000) || i) \
                   FROM generate_series(1, 20000) i";
    for _ in 0..3 {
        scenario.execute(&mut outsider, flood);
    }
    fleet.send(0, "open");
    let opened = now();
    fleet.until("all are open", |fleet| fleet.all_are("open"));
    let spread = opened.elapsed();
    assert!(spread < Duration::from_secs(4), "adopted after {spread:?}");
    let grown = fleet.memory().saturating_sub(before) >> 10;
    println!("    a flood of 420 MB: at most {grown} MiB more");
    // The slack is for the allocator.
    assert!(grown <= 32, "a process has grown by {grown} MiB");
}

/// Fault C09.
fn transaction_at_start(scenario: &mut Scenario) {
    drop(Members::start(scenario, LONG));
    let mut operator = scenario.connection();
    scenario.execute(
        &mut operator,
        "SELECT \"bulkman\".force_open('fleet', 'payments')",
    );
    let begin = "BEGIN; SELECT \"bulkman\".close('fleet', 'payments')";
    scenario.execute(&mut operator, begin);
    let mut fleet = Members::start(scenario, LONG);
    fleet.until("all are forced open", |fleet| fleet.all_are("forced_open"));
    scenario.execute(&mut operator, "COMMIT");
    fleet.until("all are closed", |fleet| fleet.all_are("closed"));
}

impl Scenario {
    fn connection(&self) -> Connection {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let connection = runtime.block_on(self.database.connection());
        Connection {
            connection,
            runtime,
        }
    }

    fn execute(&self, on: &mut Connection, sql: &str) {
        let sql = sql.replace("\"bulkman\"", self.database.schema.name());
        let statement = sqlx::raw_sql(AssertSqlSafe(sql));
        let executed = on.connection.execute(statement);
        on.runtime.block_on(executed).unwrap();
    }

    /// Returns the number of clients of the server, without the observer.
    fn connections(&self, on: &mut Connection) -> usize {
        let count = "SELECT count(*) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let count = sqlx::query_scalar(count).fetch_one(&mut on.connection);
        let count: i64 = on.runtime.block_on(count).unwrap();
        usize::try_from(count).unwrap()
    }
}

/// A connection with its own thread-bound runtime.
struct Connection {
    connection: PgConnection,
    runtime: tokio::runtime::Runtime,
}

/// The processes of a fleet. They end with this value.
struct Members {
    children: BTreeMap<usize, (Child, ChildStdin)>,
    sender: std::sync::mpsc::Sender<(usize, String)>,
    reports: Receiver<(usize, String)>,
    states: BTreeMap<usize, String>,
    connected: BTreeMap<usize, bool>,
    probes: Probes,
}

/// The probes that run in all processes.
#[derive(Default)]
struct Probes {
    by_member: BTreeMap<usize, usize>,
    started: usize,
    most: usize,
}

impl Probes {
    fn running(&self) -> usize {
        self.by_member.values().sum()
    }

    fn holders(&self) -> Vec<usize> {
        let running = self.by_member.iter().filter(|(_, running)| **running > 0);
        running.map(|(member, _)| *member).collect()
    }
}

impl Members {
    fn start(scenario: &Scenario, isolation: Duration) -> Self {
        let (sender, reports) = channel();
        let mut members = Self {
            children: BTreeMap::new(),
            sender,
            reports,
            states: BTreeMap::new(),
            connected: BTreeMap::new(),
            probes: Probes::default(),
        };
        for member in 0..scenario.size {
            members.spawn(member, scenario, &scenario.database.url, isolation);
        }
        members.until("all are connected", |members| {
            (0..scenario.size).all(|member| members.is_connected(member))
        });
        members
    }

    /// Starts one more process, and returns its number.
    fn add(&mut self, scenario: &Scenario, url: &str, isolation: Duration) -> usize {
        let member = self.children.len();
        self.spawn(member, scenario, url, isolation);
        self.until("it is connected", |members| members.is_connected(member));
        member
    }

    fn spawn(&mut self, member: usize, scenario: &Scenario, url: &str, isolation: Duration) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["fleet-member", scenario.database.schema.name()])
            .arg(isolation.as_millis().to_string())
            .arg(scenario.resync_interval.as_millis().to_string())
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let sender = self.sender.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send((member, line)).is_err() {
                    return;
                }
            }
        });
        let commands = child.stdin.take().unwrap();
        self.children.insert(member, (child, commands));
    }

    fn send(&mut self, member: usize, command: &str) {
        let (_, commands) = self.children.get_mut(&member).unwrap();
        writeln!(commands, "{command}").unwrap();
    }

    fn send_all(&mut self, command: &str) {
        for member in self.children.keys().copied().collect::<Vec<_>>() {
            self.send(member, command);
        }
    }

    fn kill(&mut self, member: usize) {
        let (mut child, _commands) = self.children.remove(&member).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.receive_for(Duration::from_millis(200));
        self.states.remove(&member);
        self.connected.remove(&member);
        self.probes.by_member.remove(&member);
    }

    fn is_connected(&self, member: usize) -> bool {
        self.connected.get(&member) == Some(&true)
    }

    fn all_are(&self, state: &str) -> bool {
        self.states.values().all(|it| it == state)
    }

    /// Returns the most resident memory that a process has had, in KiB.
    fn memory(&self) -> u64 {
        let of = |(child, _): &(Child, ChildStdin)| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let amount = line.and_then(|line| line.trim().split(' ').next());
            amount.and_then(|amount| amount.parse().ok()).unwrap_or(0)
        };
        self.children.values().map(of).max().unwrap_or(0)
    }

    fn until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let deadline = now() + TIMEOUT;
        while !reached(self) {
            assert!(
                now() < deadline,
                "timed out waiting: {what}: {:?} {:?}",
                self.states,
                self.connected
            );
            self.receive_for(Duration::from_millis(20));
        }
    }

    fn receive_for(&mut self, duration: Duration) {
        let deadline = now() + duration;
        loop {
            let left = deadline.saturating_duration_since(now());
            match self.reports.recv_timeout(left) {
                Ok((member, report)) => self.receive(member, &report),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept"),
            }
        }
    }

    fn receive(&mut self, member: usize, report: &str) {
        match report.split(' ').collect::<Vec<_>>()[..] {
            ["state", state] => drop(self.states.insert(member, state.to_owned())),
            ["connected", connected] => {
                self.connected.insert(member, connected == "true");
            }
            ["probe", "begins"] => {
                *self.probes.by_member.entry(member).or_default() += 1;
                self.probes.started += 1;
                self.probes.most = self.probes.most.max(self.probes.running());
            }
            ["probe", "ends"] => *self.probes.by_member.entry(member).or_default() -= 1,
            _ => panic!("unknown report of process {member}: {report:?}"),
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for (mut child, commands) in std::mem::take(&mut self.children).into_values() {
            drop(commands);
            let _already_exited = child.kill();
            let _status = child.wait();
        }
    }
}

/// A process of the fleet: it calls every 20 ms, and ends with its input.
pub(crate) async fn member(
    runtime: TokioRuntime,
    schema: &str,
    isolation: &str,
    resync_interval: &str,
) {
    let milliseconds = |text: &str| Duration::from_millis(text.parse().unwrap());
    let isolation = milliseconds(isolation);
    let store = PostgresStore::builder(std::env::var(URL).unwrap())
        .schema(schema)
        .namespace("fleet")
        .settings(StoreSettings::new().resync_interval(milliseconds(resync_interval)))
        .build()
        .unwrap();
    let fleet = Fleet::new(store, runtime.clone()).unwrap();
    let rules = CircuitBreakerConfig::new().isolation_duration(isolation);
    let config = BulkheadConfig::new("payments").circuit_breaker(rules);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    fleet.attach(&bulkhead).unwrap();
    fleet.wait_ready(TIMEOUT).await;
    let (sender, commands) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let circuit = bulkhead.circuit_breaker().unwrap();
    let (mut succeeds, mut probes_last) = (true, Duration::ZERO);
    let mut probe: Option<(Instant, Permit)> = None;
    let mut reported = (None, None);
    loop {
        match commands.try_recv().as_deref() {
            Ok("open") => circuit.open(),
            Ok("fail") => succeeds = false,
            Ok(command) => {
                let milliseconds = command.strip_prefix("probes last ").unwrap();
                probes_last = Duration::from_millis(milliseconds.parse().unwrap());
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
            Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
        }
        if let Some((_, permit)) = probe.take_if(|(ends_at, _)| *ends_at <= runtime.now()) {
            println!("probe ends");
            permit.succeed();
        }
        if let Ok(permit) = bulkhead.try_acquire() {
            // A call admitted by a circuit that is half-open afterwards is a probe.
            if circuit.state() == CircuitState::HalfOpen && probe.is_none() {
                println!("probe begins");
                probe = Some((runtime.now() + probes_last, permit));
            } else if succeeds {
                permit.succeed();
            } else {
                permit.fail();
            }
        }
        let current = (Some(circuit.state()), Some(fleet.snapshot().connected));
        if current.0 != reported.0 {
            println!("state {}", circuit.state().as_str());
        }
        if current.1 != reported.1 {
            println!("connected {}", current.1.unwrap_or_default());
        }
        reported = current;
        let next = runtime.now() + Duration::from_millis(20);
        runtime.sleep_until(next).await;
    }
}

fn now() -> Instant {
    TokioRuntime::new().now()
}

/// The URL is in the environment: command lines are public.
const URL: &str = "BULKMAN_FAULTS_URL";
const LONG: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_secs(40);
