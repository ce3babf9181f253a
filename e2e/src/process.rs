//! Processes that a test starts: killed with it, their output kept.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Write,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rand::RngExt as _;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

/// The longest that a command which is no daemon runs.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Lines of standard output kept for a test that reads them; more than any
/// process here prints before it is ready.
const LINES: usize = 4_096;

/// Ports are taken from below the range that systems hand out by themselves,
/// so that a port stays ours while its process is down.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// The path in an environment variable that `cargo xtask` sets.
pub fn peer(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).with_context(|| {
        format!("{variable} is not set: run the tests with real peers by `cargo xtask e2e`")
    })?;
    Ok(path.into())
}

/// A command whose process dies with this one, however that ends, where the
/// system offers that.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    command_in(None, program)
}

/// As [`command`], in a network namespace.
pub fn command_in(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(namespace) = namespace else { return plain(program) };
    let mut command = plain("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = if Path::new("/usr/bin/setpriv").exists() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.kill_on_drop(true).stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        // Settings of whoever runs the tests are not those of the tests.
        if name.to_str().is_some_and(|name| {
            name.starts_with("PINFOLD_") || name.ends_with("_PROXY") || name.ends_with("_proxy")
        }) {
            command.env_remove(name);
        }
    }
    command
}

/// What a finished command printed.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text without the last line's end.
    pub fn text(&self) -> Result<String> {
        Ok(std::str::from_utf8(&self.stdout).context("the output is no UTF-8")?.trim_end().to_owned())
    }

    /// The same, or an error when the exit status is not 0.
    pub fn success(self, what: &str) -> Result<Self> {
        if !self.status.success() {
            bail!(
                "{what} ended with {}: {}{}",
                self.status,
                self.stderr,
                String::from_utf8_lossy(&self.stdout)
            );
        }
        Ok(self)
    }
}

/// Runs a command to its end.
pub async fn finish(command: &mut Command, what: &str) -> Result<Finished> {
    finish_within(command, what, COMMAND_LIMIT).await
}

/// Runs a command to its end, which comes within `limit`.
pub async fn finish_within(command: &mut Command, what: &str, limit: Duration) -> Result<Finished> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = timeout(limit, command.output())
        .await
        .with_context(|| format!("{what} ran longer than {limit:?}"))?
        .with_context(|| format!("cannot start {what}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Finished { status: output.status, stdout: output.stdout, stderr })
}

/// A process that runs until the test ends it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Daemon {
    /// Starts a process; both of its outputs are appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let (sender, lines) = mpsc::channel(LINES);
        tokio::spawn(keep(stdout, log, sender));
        Ok(Self { name: name.to_owned(), child, lines })
    }

    /// Reads standard output up to and with the first line that `wanted` accepts.
    pub async fn read_until(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        let read = async {
            while let Some(line) = self.lines.recv().await {
                let found = wanted(&line);
                seen.push(line);
                if found {
                    return true;
                }
            }
            false
        };
        match timeout(limit, read).await {
            Ok(true) => Ok(seen),
            Ok(false) => bail!("{} ended before it was ready; it printed {seen:?}", self.name),
            Err(_) => bail!("{} was not ready in {limit:?}; it printed {seen:?}", self.name),
        }
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once, as a loss of power would end it, and waits for that.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Asks it to end (SIGTERM).
    pub async fn signal(&self) -> Result<()> {
        match self.child.id() {
            Some(process) => ask_to_end(process).await,
            None => Ok(()),
        }
    }

    /// Asks it to end (SIGTERM) and waits at most `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal().await?;
        let ended = timeout(limit, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} did not stop in {limit:?}", self.name))??)
    }
}

/// Asks a process to end (SIGTERM).
pub async fn ask_to_end(process: u32) -> Result<()> {
    // A shell's own command: the program of that name is not on every machine.
    finish(Command::new("sh").args(["-c", &format!("kill -TERM {process}")]), "kill")
        .await?
        .success("kill")?;
    Ok(())
}

/// A value of Linux's `/proc/PID/status`, such as `SigCgt`.
pub fn status(process: u32, name: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(line, _)| *line == name).map(|(_, value)| value.trim().to_owned());
    value.with_context(|| format!("/proc/{process}/status has no {name}"))
}

/// Such a value of memory, as `VmHWM`, in KiB.
pub fn memory_kib(process: u32, name: &str) -> Result<u64> {
    Ok(status(process, name)?.trim_end_matches("kB").trim().parse()?)
}

/// Copies standard output into the log and hands its lines on; when nobody
/// reads them any more, the log still gets them.
async fn keep(stdout: ChildStdout, mut log: File, sender: mpsc::Sender<String>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = writeln!(log, "{line}");
        let _ = sender.try_send(line);
    }
}

/// A port that nobody listens on, TCP or UDP, and that was not given before:
/// tests that run beside each other start their processes later.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1_000 {
        let port = rand::rng().random_range(PORTS);
        let address = (Ipv4Addr::LOCALHOST, port);
        if !given.contains(&port) && TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}
