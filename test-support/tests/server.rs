//! The private server starts, answers, is frozen, crashes, comes back, and is gone at the end.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkman_test_support::{Postgres, StopMode};

#[test]
fn it_listens_stops_and_comes_back_at_the_same_address() {
    let server = Postgres::start(&[]);
    assert!(answers(&server.url()));
    server.stop(StopMode::Immediate);
    assert!(!answers(&server.url()));
    server.start_again();
    assert!(answers(&server.url()));
    server.stop(StopMode::Fast);
    server.start_again();
    assert!(answers(&server.url()));
}

#[test]
fn dropping_it_removes_it_also_while_frozen() {
    let server = Postgres::start(&[]);
    let process = server.process_id();
    server.freeze();
    assert_eq!(state_of(process), Some('T'));
    server.thaw();
    assert_ne!(state_of(process), Some('T'));
    server.freeze();
    drop(server);
    assert_eq!(state_of(process), None, "the server is gone");
}

#[test]
fn it_goes_with_a_process_that_aborts() {
    // This test runs itself again as a child, which starts a server, says so, and aborts.
    if std::env::var_os("BULKMAN_TEST_ABORT").is_some() {
        let server = Postgres::start(&[]);
        println!("server process {}", server.process_id());
        std::process::abort();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "it_goes_with_a_process_that_aborts",
            "--nocapture",
        ])
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
    // The watchdog needs a moment; the socket that the kernel closes last tells when it is done.
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    while state_of(process).is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn schemas_have_names_of_their_own() {
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

fn answers(url: &str) -> bool {
    let address = url.rsplit('@').next().unwrap().split('/').next().unwrap();
    TcpStream::connect(address).is_ok()
}

/// The state of a process as the kernel tells it; `None` when it is gone.
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
