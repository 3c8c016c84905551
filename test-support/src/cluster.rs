//! A private server.

use std::env;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries;
use crate::certificate_authority::Identity;
use crate::os_user::OsUser;
use crate::process::{children, run, wait_until_stopped};
use crate::watchdog::Watchdog;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnects all clients and shuts down cleanly.
    Fast,
    /// Exits like in a crash, so that the next start recovers.
    Immediate,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    user: OsUser,
    binaries: PathBuf,
    directory: PathBuf,
    password: String,
    port: u16,
    /// The last field, since it removes the directory.
    _watchdog: Watchdog,
}

impl Cluster {
    pub(crate) fn start(
        settings: &[(&str, &str)],
        identity: Option<&Identity>,
    ) -> Result<Self, String> {
        let binaries = binaries::directory()?;
        let user = OsUser::choose()?;
        let directory = create_directory(user)?;
        let watchdog = Watchdog::start(user, &binaries, &directory)?;
        let mut cluster = Self {
            user,
            binaries,
            directory,
            password: format!("secret-{:016x}", random()),
            port: 0,
            _watchdog: watchdog,
        };
        cluster.initialize(settings)?;
        if let Some(identity) = identity {
            cluster.enable_tls(identity)?;
        }
        // Another process may take the port before the server uses it.
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

    /// Starts a hot standby of `primary`, which streams its changes.
    pub(crate) fn start_standby_of(primary: &Self) -> Result<Self, String> {
        let (user, binaries) = (primary.user, primary.binaries.clone());
        let directory = create_directory(user)?;
        let watchdog = Watchdog::start(user, &binaries, &directory)?;
        let mut cluster = Self {
            user,
            binaries,
            directory,
            password: primary.password.clone(),
            port: free_port()?,
            _watchdog: watchdog,
        };
        let mut command = user.command(binaries::pg_basebackup(), &cluster.directory);
        command.env("PGPASSWORD", &cluster.password);
        command.args(["--host", "127.0.0.1", "--username", USER]);
        command.args(["--port", &primary.port.to_string()]);
        command.args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync"]);
        run(command.arg("--pgdata").arg(cluster.data()))?;
        let mut outcome = cluster.launch();
        for _ in 0..4 {
            if outcome.is_ok() {
                break;
            }
            cluster.port = free_port()?;
            outcome = cluster.launch();
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

    /// Configures the next start as a hot standby, which recovers until it is promoted.
    pub(crate) fn configure_standby(&self) -> Result<(), String> {
        let signal = self.data().join("standby.signal");
        fs::write(&signal, "").map_err(|error| format!("{}: {error}", signal.display()))?;
        self.user.take_ownership(&signal)
    }

    /// Suspends or resumes all processes of the server: first the one that starts the others.
    ///
    /// Returns when each has stopped or runs.
    pub(crate) fn suspend(&self, suspended: bool) -> Result<(), String> {
        let signal = if suspended { "STOP" } else { "CONT" };
        let send = |process: u32| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("kill -{signal} {process}")]);
            run(&mut command)?;
            if wait_until_stopped(process, suspended) {
                return Ok(());
            }
            Err(format!("process {process} ignores SIG{signal}"))
        };
        let postmaster = self.process_id()?;
        send(postmaster)?;
        for child in children(postmaster) {
            match send(child) {
                // The child has exited meanwhile.
                Err(_) if !children(postmaster).contains(&child) => {}
                result => result?,
            }
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

    fn initialize(&self, settings: &[(&str, &str)]) -> Result<(), String> {
        let password_file = self.directory.join("password");
        self.write_secret(&password_file, &self.password)?;
        let mut command = self
            .user
            .command(self.binaries.join("initdb"), &self.directory);
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

    /// Installs the certificate and its key, and enables TLS.
    fn enable_tls(&self, identity: &Identity) -> Result<(), String> {
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

    /// Writes a file that only the server's user can read, as the server requires for keys.
    fn write_secret(&self, file: &Path, text: &str) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", file.display());
        fs::write(file, text).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(file, mode).map_err(failed)?;
        self.user.take_ownership(file)
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Command {
        let mut command = self
            .user
            .command(self.binaries.join("pg_ctl"), &self.directory);
        command.arg("-D").arg(self.data()).args(arguments);
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

/// Creates a directory that only the server's user can read.
fn create_directory(user: OsUser) -> Result<PathBuf, String> {
    let name = format!(
        "bulkman-postgres-{}-{:08x}",
        std::process::id(),
        random() >> 32
    );
    let directory = [env::temp_dir().as_path(), Path::new("/var/tmp")]
        .iter()
        .map(|parent| parent.join(&name))
        .find(|directory| fs::create_dir(directory).is_ok())
        .ok_or("neither the temporary directory nor /var/tmp is writable")?;
    user.take_ownership(&directory)?;
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

/// Listens on 127.0.0.1 only, and does not wait for the disk: the data is temporary.
const DEFAULTS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "200"),
    ("fsync", "off"),
    ("log_min_messages", "warning"),
    ("timezone", "UTC"),
];
