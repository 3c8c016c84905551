//! The private server starts, freezes, crashes, restarts, and is removed at the end.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkman_test_support::{Postgres, StopMode};

#[test]
fn server_restarts_at_the_same_address() {
    let server = Postgres::start(&[]);
    assert!(accepts_connections(&server.url()));
    server.stop(StopMode::Immediate);
    assert!(!accepts_connections(&server.url()));
    server.restart();
    assert!(accepts_connections(&server.url()));
    server.stop(StopMode::Fast);
    server.restart();
    assert!(accepts_connections(&server.url()));
}

#[test]
fn drop_removes_a_frozen_server() {
    let server = Postgres::start(&[]);
    let process = server.process_id();
    server.freeze();
    assert_eq!(state_of(process), Some('T'));
    server.thaw();
    assert_ne!(state_of(process), Some('T'));
    server.freeze();
    drop(server);
    assert_eq!(state_of(process), None, "the server has exited");
}

#[test]
fn server_is_removed_after_an_abort() {
    // This test runs itself as a child process, which starts a server, prints a line, and aborts.
    if std::env::var_os("BULKMAN_TEST_ABORT").is_some() {
        let server = Postgres::start(&[]);
        println!("server process {}", server.process_id());
        std::process::abort();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server_is_removed_after_an_abort", "--nocapture"])
        .env("BULKMAN_TEST_ABORT", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("server process ") {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "the child started its server"
        );
    }
    let process: u32 = line.rsplit(' ').next().unwrap().trim().parse().unwrap();
    assert!(!child.wait().unwrap().success());
    // The watchdog runs until the pipe that it inherited is closed.
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    while state_of(process).is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn schema_names_are_unique() {
    let server = Postgres::start(&[]);
    let (first, second) = (server.schema(), server.schema());
    assert_ne!(first.name(), second.name());
    assert!(
        first
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    );
    assert!(first.len() <= 40);
}

fn accepts_connections(url: &str) -> bool {
    let address = url.rsplit('@').next().unwrap().split('/').next().unwrap();
    TcpStream::connect(address).is_ok()
}

/// Returns the state of a process as the kernel reports it; `None` if it has exited.
fn state_of(process: u32) -> Option<char> {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .trim_start()
        .chars()
        .next()
        .filter(|state| *state != 'Z')
}
