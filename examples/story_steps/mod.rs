//! The steps of the story: a server is healthy, slow, failing and healthy again, and its client
//! calls it through a bulkhead.
//!
//! Written once for every runtime: [`Bulkhead`] is the same type on all of them.

mod client;
mod page;
mod server;
mod sockets;

use std::error::Error;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulkman::bulkhead::{BulkheadState, BulkheadStats};
use bulkman::call::ExecutionReport;
use bulkman::circuit_breaker::{CircuitEvent, CircuitEvents};
use bulkman::error::RejectionReason;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
use futures_lite::future::poll_once;
use futures_util::future::join_all;

use self::client::{FetchError, get};
use self::page::Page;
use self::server::{Behavior, Server};
pub(crate) use self::sockets::Sockets;

const LIMIT: usize = 4;
const QUEUE: usize = 6;
const FAILURES: u32 = 3;
const PROBES: u32 = 2;
const ISOLATION: Duration = Duration::from_millis(700);

/// Small limits, so that each of them takes effect.
pub(crate) fn config() -> BulkheadConfig {
    BulkheadConfig::new("greetings")
        .max_concurrent_calls(LIMIT)
        .max_queue_size(QUEUE)
        .timeout(Duration::from_secs(10))
        .failure_threshold(FAILURES)
        .success_threshold(PROBES)
        .isolation_duration(ISOLATION)
}

pub(crate) async fn run<S: Sockets>(
    bulkhead: &Bulkhead,
    runtime: Arc<dyn Runtime>,
) -> Result<(), Box<dyn Error>> {
    let server = Server::start::<S>(Arc::clone(&runtime))?;
    let mut page = Page::new();
    println!(
        "A client calls http://{} through a bulkhead:",
        server.address()
    );
    println!(
        "{LIMIT} calls at once, {QUEUE} may wait, {FAILURES} failures in a row open the circuit,"
    );
    println!("after {ISOLATION:?} it admits {PROBES} probes.");

    let mut story = Story {
        bulkhead,
        server,
        runtime,
        events: bulkhead.events(),
    };
    story.healthy::<S>(&mut page).await;
    story.slow::<S>(&mut page).await;
    story.failing::<S>(&mut page).await;
    story.rejected::<S>(&mut page).await;
    story.probe_fails::<S>(&mut page).await;
    story.recovers::<S>(&mut page).await;
    story.adds_up(&mut page);
    Ok(())
}

struct Story<'a> {
    bulkhead: &'a Bulkhead,
    server: Server,
    runtime: Arc<dyn Runtime>,
    events: CircuitEvents,
}

type Answer = Result<String, BulkheadError<FetchError>>;

impl Story<'_> {
    async fn healthy<S: Sockets>(&self, page: &mut Page) {
        page.step("The server is healthy");
        let answer = self.call::<S>().await;
        page.check(
            answer.is_ok(),
            format!("a call succeeds: {}", describe_answer(&answer)),
        );
        page.check(
            self.bulkhead.is_healthy(),
            format!("the bulkhead is {:?}", self.bulkhead.state()),
        );
    }

    async fn slow<S: Sockets>(&self, page: &mut Page) {
        const CALLS: usize = LIMIT + QUEUE + 2;
        page.step(format!("It becomes slow, and {CALLS} calls arrive at once"));
        self.server
            .set_behavior(Behavior::Slow(Duration::from_millis(120)));

        let started = Mutex::new(Vec::new());
        let calls = (1..=CALLS).map(|number| {
            let (address, started) = (self.server.address(), &started);
            self.bulkhead.call().execute_with_report(async move {
                started.lock().expect("no panic").push(number);
                get::<S>(address, "/hello").await
            })
        });
        let mut calls = pin!(join_all(calls));
        // All of them have requested a permit now, and none has completed.
        let none = poll_once(&mut calls).await;
        let stats = self.bulkhead.stats();
        page.check(
            none.is_none() && stats.active == LIMIT as u64,
            format!("{} run", stats.active),
        );
        page.check(
            stats.waiting == QUEUE,
            format!("{} wait in the queue", stats.waiting),
        );
        page.check(
            stats.rejected.full == 2,
            format!(
                "{} are rejected because the queue is full",
                stats.rejected.full
            ),
        );

        let reports = calls.await;
        page.note("each . is 10 ms in the queue, each # is 10 ms on the server");
        for (number, report) in (1..).zip(&reports) {
            page.line(format!("call {number:2}  {}", describe_report(report)));
        }
        let answered = reports
            .iter()
            .filter(|report| report.result.is_ok())
            .count();
        page.check(answered == LIMIT + QUEUE, format!("{answered} are served"));
        page.check(
            *started.lock().expect("no panic") == (1..=LIMIT + QUEUE).collect::<Vec<_>>(),
            "they were served in the order of their arrival",
        );
        let most = self.server.most_in_flight();
        page.check(
            most <= LIMIT as u64,
            format!("the server never had more than {most} at once"),
        );
    }

    async fn failing<S: Sockets>(&mut self, page: &mut Page) {
        page.step("It fails");
        self.server.set_behavior(Behavior::Failing);
        for number in 1..=FAILURES {
            let answer = self.call::<S>().await;
            page.line(format!("call {number:2}  {}", describe_answer(&answer)));
            assert!(matches!(
                answer,
                Err(BulkheadError::Operation(FetchError::Status(_)))
            ));
        }
        self.expect_transitions(page, &["closed -> open: consecutive_failures"])
            .await;
        page.check(
            self.bulkhead.state() == BulkheadState::Isolated,
            format!("the bulkhead is {:?}", self.bulkhead.state()),
        );
    }

    async fn rejected<S: Sockets>(&self, page: &mut Page) {
        const CALLS: usize = 1000;
        page.step(format!(
            "{CALLS} more calls arrive while the circuit is open"
        ));
        let reached = self.server.requests();
        let start = self.runtime.now();
        let answers: Vec<_> = join_all((0..CALLS).map(|_| self.call::<S>())).await;
        let took = self.runtime.now() - start;
        let (first, last) = (&answers[0], &answers[CALLS - 1]);
        page.line(format!("first  {}", describe_answer(first)));
        page.line(format!("last   {}", describe_answer(last)));
        page.check(
            answers
                .iter()
                .all(|answer| rejected_for(answer, RejectionReason::Open)),
            format!("all are rejected with the time until the next attempt; it took {took:.1?}"),
        );
        let reached = self.server.requests() - reached;
        page.check(
            reached == 0,
            format!("{reached} of them reached the server"),
        );
    }

    async fn probe_fails<S: Sockets>(&mut self, page: &mut Page) {
        page.step("The isolation has elapsed, the server still fails");
        self.wait_for_isolation(page).await;
        let answer = self.call::<S>().await;
        page.line(format!("probe    {}", describe_answer(&answer)));
        self.expect_transitions(
            page,
            &[
                "open -> half_open: isolation_elapsed",
                "half_open -> open: probe_failed",
            ],
        )
        .await;
        let answer = self.call::<S>().await;
        page.check(
            rejected_for(&answer, RejectionReason::Open),
            describe_answer(&answer),
        );
    }

    async fn recovers<S: Sockets>(&mut self, page: &mut Page) {
        const CALLS: usize = 5;
        page.step(format!(
            "The server is fixed, and {CALLS} calls arrive at once"
        ));
        // Slow enough that no probe completes before the last call was rejected.
        self.server
            .set_behavior(Behavior::Slow(Duration::from_millis(50)));
        self.wait_for_isolation(page).await;
        let answers = join_all((0..CALLS).map(|_| self.call::<S>())).await;
        for (number, answer) in (1..).zip(&answers) {
            page.line(format!("call {number:2}  {}", describe_answer(answer)));
        }
        let passed = answers.iter().filter(|answer| answer.is_ok()).count();
        let rejected = answers
            .iter()
            .filter(|answer| rejected_for(answer, RejectionReason::ProbeLimit))
            .count();
        page.check(
            (passed, rejected) == (PROBES as usize, CALLS - PROBES as usize),
            format!("{passed} probes succeed, {rejected} calls are rejected"),
        );
        self.expect_transitions(
            page,
            &[
                "open -> half_open: isolation_elapsed",
                "half_open -> closed: probes_succeeded",
            ],
        )
        .await;
        self.server.set_behavior(Behavior::Healthy);
        let answers = join_all((0..LIMIT).map(|_| self.call::<S>())).await;
        page.check(answers.iter().all(Result::is_ok), "calls succeed as before");
    }

    fn adds_up(&self, page: &mut Page) {
        page.step("What the bulkhead counted");
        let stats = self.bulkhead.stats();
        for (name, count) in rows(&stats) {
            page.line(format!("{name:<28}{count:>6}"));
        }
        let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
        page.check(
            stats.started == ended + stats.active,
            "every call that started has one outcome",
        );
        let reached = self.server.requests();
        page.check(
            stats.started == reached,
            format!("the server counted {reached} requests: as many as started"),
        );
        page.check(
            self.bulkhead.state() == BulkheadState::Healthy,
            "the bulkhead is healthy",
        );
    }

    async fn call<S: Sockets>(&self) -> Answer {
        self.bulkhead
            .execute(get::<S>(self.server.address(), "/hello"))
            .await
    }

    async fn wait_for_isolation(&self, page: &Page) {
        let circuit = self
            .bulkhead
            .circuit_breaker()
            .expect("it is on by default");
        if let Some(rest) = circuit.snapshot().retry_after {
            page.note(format!("waiting for {rest:.0?}"));
            self.runtime.sleep_until(self.runtime.now() + rest).await;
        }
    }

    async fn expect_transitions(&mut self, page: &Page, expected: &[&str]) {
        for expected in expected {
            let Some(CircuitEvent::Transition(seen)) = self.events.try_next() else {
                panic!("no transition, expected {expected}");
            };
            let seen = format!("{} -> {}: {}", seen.from, seen.to, seen.cause);
            page.check(seen == *expected, format!("circuit: {seen}"));
        }
    }
}

fn rejected_for(answer: &Answer, expected: RejectionReason) -> bool {
    match answer {
        Err(BulkheadError::CircuitOpen {
            reason,
            retry_after,
            ..
        }) => {
            *reason == expected
                && match expected {
                    RejectionReason::Open => retry_after.is_some_and(|after| after <= ISOLATION),
                    _ => retry_after.is_none(),
                }
        }
        _ => false,
    }
}

fn describe_answer(answer: &Answer) -> String {
    match answer {
        Ok(page) => format!("200 OK, {page:?}"),
        Err(BulkheadError::Operation(error)) => format!("failed: {error}"),
        Err(error) => error.to_string(),
    }
}

fn describe_report(report: &ExecutionReport<String, FetchError>) -> String {
    let cells = |time: Duration| (time.as_millis() / 10).min(30) as usize;
    match &report.result {
        Ok(_) => format!(
            "{}{} {} ms",
            ".".repeat(cells(report.queued)),
            "#".repeat(cells(report.ran)),
            (report.queued + report.ran).as_millis(),
        ),
        Err(error) => error.to_string(),
    }
}

fn rows(stats: &BulkheadStats) -> [(&'static str, u64); 9] {
    [
        ("started", stats.started),
        ("successful", stats.successful),
        ("failed", stats.failed),
        ("running now", stats.active),
        ("rejected, circuit open", stats.rejected.circuit.open),
        (
            "rejected, probe limit",
            stats.rejected.circuit.probe_limit_reached,
        ),
        ("rejected, queue full", stats.rejected.full),
        ("timed out in the queue", stats.rejected.timed_out_in_queue),
        ("most waiting at once", stats.peak_waiting as u64),
    ]
}
