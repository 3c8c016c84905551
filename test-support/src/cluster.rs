//! One private server.

use std::env;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::authority::Identity;
use crate::process::{children, run};
use crate::programs;
use crate::watchdog::Watchdog;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnects everybody and shuts down in good order.
    Fast,
    /// As in a crash: the next start recovers.
    Immediate,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    account: Account,
    programs: PathBuf,
    directory: PathBuf,
    password: String,
    port: u16,
    /// Last: it removes what the others name.
    _watchdog: Watchdog,
}

impl Cluster {
    pub(crate) fn start(
        settings: &[(&str, &str)],
        identity: Option<&Identity>,
    ) -> Result<Self, String> {
        let programs = programs::directory()?;
        let account = Account::choose()?;
        let directory = fresh_directory(account)?;
        let watchdog = Watchdog::start(account, &programs, &directory)?;
        let mut cluster = Self {
            account,
            programs,
            directory,
            password: format!("secret-{:016x}", random()),
            port: 0,
            _watchdog: watchdog,
        };
        cluster.initialise(settings)?;
        if let Some(identity) = identity {
            cluster.offer_tls(identity)?;
        }
        // Between finding a free port and using it another process may take it.
        let mut outcome = Err(String::new());
        for _ in 0..5 {
            cluster.port = free_port()?;
            outcome = cluster.launch();
            if outcome.is_ok() {
                return Ok(cluster);
            }
        }
        outcome.map(|()| cluster)
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://{USER}:{}@127.0.0.1:{}/postgres?sslmode=disable",
            self.password, self.port
        )
    }

    pub(crate) fn launch(&self) -> Result<(), String> {
        let options = format!("-c port={}", self.port);
        let log = self.directory.join("log");
        let mut command = self.pg_ctl(&["-w", "-t", "60", "-o", &options, "-l"]);
        run(command.arg(&log).arg("start")).map_err(|reason| {
            let log = fs::read_to_string(log).unwrap_or_default();
            format!("the private PostgreSQL server did not start: {reason}\n{log}")
        })
    }

    pub(crate) fn stop(&self, mode: StopMode) -> Result<(), String> {
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        run(self.pg_ctl(&["-w", "-t", "60", "-m", mode]).arg("stop"))
    }

    /// The next start recovers without an end, there being no primary that it could follow.
    pub(crate) fn become_standby(&self) -> Result<(), String> {
        let signal = self.data().join("standby.signal");
        fs::write(&signal, "").map_err(|error| format!("{}: {error}", signal.display()))?;
        self.account.own(&signal)
    }

    /// Sends a signal to all its processes: first to the one that would start others.
    pub(crate) fn signal(&self, signal: &str) -> Result<(), String> {
        let postmaster = self.process_id()?;
        let kill = |process: u32| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("kill -{signal} {process}")]);
            run(&mut command)
        };
        kill(postmaster)?;
        for child in children(postmaster) {
            // A child that has ended meanwhile needs no signal.
            let _ = kill(child);
        }
        Ok(())
    }

    pub(crate) fn process_id(&self) -> Result<u32, String> {
        let file = self.directory.join("data/postmaster.pid");
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let process = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        process.ok_or_else(|| format!("{} does not name a process", file.display()))
    }

    fn initialise(&self, settings: &[(&str, &str)]) -> Result<(), String> {
        let password_file = self.directory.join("password");
        self.write_secret(&password_file, &self.password)?;
        let mut command = self
            .account
            .command(self.programs.join("initdb"), &self.directory);
        command
            .arg("--pgdata")
            .arg(self.data())
            .arg("--pwfile")
            .arg(&password_file);
        command.args([
            "--username",
            USER,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
        ]);
        run(command.args(["--no-locale", "--no-sync"]))?;

        self.configure(&DEFAULTS)?;
        self.configure(settings)
    }

    /// With the files where the server looks for them.
    fn offer_tls(&self, identity: &Identity) -> Result<(), String> {
        for (file, text) in [
            ("server.crt", &identity.certificate),
            ("server.key", &identity.key),
        ] {
            self.write_secret(&self.data().join(file), text)?;
        }
        self.configure(&[("ssl", "on")])
    }

    fn configure(&self, settings: &[(&str, &str)]) -> Result<(), String> {
        let configuration = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&configuration).map_err(|e| e.to_string())?;
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        fs::write(&configuration, text).map_err(|e| e.to_string())
    }

    /// For the server's account alone: it refuses a key that others may read.
    fn write_secret(&self, file: &Path, text: &str) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", file.display());
        fs::write(file, text).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(file, mode).map_err(failed)?;
        self.account.own(file)
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Command {
        let mut command = self
            .account
            .command(self.programs.join("pg_ctl"), &self.directory);
        command.arg("-D").arg(self.data()).args(arguments);
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

/// In a place that the server's account can reach, and nobody else can read.
fn fresh_directory(account: Account) -> Result<PathBuf, String> {
    let name = format!(
        "bulkman-postgres-{}-{:08x}",
        std::process::id(),
        random() >> 32
    );
    let directory = [env::temp_dir().as_path(), Path::new("/var/tmp")]
        .iter()
        .map(|parent| parent.join(&name))
        .find(|directory| fs::create_dir(directory).is_ok())
        .ok_or("neither the temporary directory nor /var/tmp can be written to")?;
    account.own(&directory)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&directory, mode).map_err(|e| format!("{}: {e}", directory.display()))?;
    Ok(directory)
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| format!("no free port of 127.0.0.1: {error}"))
}

/// The standard library's only source of randomness.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

const USER: &str = "bulkman";

/// Nothing but 127.0.0.1, and no waiting for the disk: the data lives as long as the tests.
const DEFAULTS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "200"),
    ("fsync", "off"),
    ("log_min_messages", "warning"),
    ("timezone", "UTC"),
];
