//! A PostgreSQL that a test starts, with a cluster of its own.

use std::{
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    place::Place,
    process::{Daemon, Finished, command, finish, free_port, peer},
    recount::TABLES,
    wait::eventually,
};

const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// The user that Debian's package makes; the server refuses to run as root.
const USER: &str = "postgres";

/// A running server with one empty database `pinfold`.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    daemon: Option<Daemon>,
}

impl Drop for Postgres {
    /// A server that is only killed leaves its shared memory to the machine.
    fn drop(&mut self) {
        if self.daemon.is_some()
            && let Ok(mut stop) = self.unprivileged("pg_ctl")
        {
            stop.arg("-D").arg(&self.data).args(["stop", "-s", "-m", "immediate"]);
            // What it did not end is killed with the daemon.
            let _ = stop.as_std_mut().status();
        }
    }
}

impl Postgres {
    /// Makes a cluster, starts it and makes the database.
    pub async fn start(place: &Place, name: &str) -> Result<Self> {
        let programs = peer("PINFOLD_E2E_POSTGRES")?;
        let data = place.folder(name)?;
        let mut server = Self { programs, data, log: place.log(name), port: free_port()?, daemon: None };
        server.make_cluster().await?;
        server.resume().await?;
        server.tool("createdb", &["pinfold"]).await?;
        Ok(server)
    }

    /// How the product connects to it.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/pinfold", self.port)
    }

    /// The process id of the server, whose children serve its sessions.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Daemon::id)
    }

    /// Starts the server (again): once more where it ends because the helpers
    /// of one that was killed have not let its memory go yet.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the server runs already");
        eventually("PostgreSQL to accept connections", READY, async || {
            if self.daemon.as_mut().is_none_or(Daemon::has_ended) {
                self.daemon = Some(self.start_daemon()?);
            }
            self.tool("pg_isready", &[]).await.map(|_| Some(()))
        })
        .await
    }

    fn start_daemon(&self) -> Result<Daemon> {
        let mut command = self.unprivileged("postgres")?;
        command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        Daemon::start("postgres", &mut command, &self.log)
    }

    /// Ends the server at once (SIGQUIT's work by SIGKILL: recovery follows).
    pub async fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the server does not run")?.kill().await?;
        // Its helpers end by themselves.
        Ok(())
    }

    /// Stops the server; sessions are ended.
    pub async fn stop(&mut self) -> Result<()> {
        self.tool_on_cluster("pg_ctl", &["stop", "-m", "fast", "-w"]).await?;
        self.daemon.take().context("the server does not run")?.terminate(STOP).await?;
        Ok(())
    }

    /// Stops the server as a crash would, whole: sessions are cut, and the
    /// next start recovers from the log.
    pub async fn stop_at_once(&mut self) -> Result<()> {
        self.tool_on_cluster("pg_ctl", &["stop", "-m", "immediate", "-w"]).await?;
        self.daemon.take().context("the server does not run")?.terminate(STOP).await?;
        Ok(())
    }

    /// Copies what the recount reads into a new SQLite file, while the
    /// product is stopped. The server may still be ending what a killed
    /// process has sent.
    pub async fn copy_out(&self, file: &Path) -> Result<()> {
        let others = "COPY (SELECT count(*) FROM pg_stat_activity WHERE datname = 'pinfold' \
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()) TO STDOUT";
        eventually("sessions of the killed to end", STOP, async || {
            Ok((self.query(others).await?.trim() == "0").then_some(()))
        })
        .await?;
        let mut copy = rusqlite::Connection::open(file)?;
        let copy = copy.transaction()?;
        for (table, columns) in TABLES {
            copy.execute_batch(&format!("CREATE TABLE {table} ({columns})"))?;
            let marks = vec!["?"; columns.split(',').count()].join(",");
            let mut insert = copy.prepare(&format!("INSERT INTO {table} ({columns}) VALUES ({marks})"))?;
            for row in self.query(&format!("COPY (SELECT {columns} FROM {table}) TO STDOUT")).await?.lines() {
                insert.execute(rusqlite::params_from_iter(row.split('\t').map(value)))?;
            }
        }
        Ok(copy.commit()?)
    }

    /// What `psql` prints for a statement.
    async fn query(&self, sql: &str) -> Result<String> {
        self.tool("psql", &["-d", "pinfold", "-c", sql]).await?.text()
    }

    async fn make_cluster(&self) -> Result<()> {
        let owner = owner().await?;
        chown(&self.data, Some(owner), None)?;
        // The test's folder is for its owner alone; the server passes through.
        let parent = self.data.parent().context("a folder of a place has a parent")?;
        pass_through(parent)?;
        self.tool_on_cluster("initdb", &["-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"])
            .await
    }

    /// Runs a client program against the server.
    async fn tool(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        let mut command = command(self.programs.join(program));
        command.args(["-h", "127.0.0.1", "-U", USER, "-p", &self.port.to_string()]).args(arguments);
        finish(&mut command, program).await?.success(program)
    }

    /// Runs a program on the cluster's files.
    async fn tool_on_cluster(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.unprivileged(program)?;
        command.arg("-D").arg(&self.data).args(arguments);
        finish(&mut command, program).await?.success(program).map(|_| ())
    }

    /// A command of the server, as a user that it accepts.
    fn unprivileged(&self, program: &str) -> Result<Command> {
        let program = self.programs.join(program);
        if !is_root()? {
            return Ok(command(program));
        }
        let mut command = command("setpriv");
        command
            .args(["--reuid", USER, "--regid", USER, "--init-groups", "--pdeathsig", "KILL", "--"])
            .arg(program);
        Ok(command)
    }
}

/// A value as `COPY` writes it: a number, text, or nothing.
fn value(text: &str) -> rusqlite::types::Value {
    match text.parse() {
        Ok(number) => rusqlite::types::Value::Integer(number),
        Err(_) if text == "\\N" => rusqlite::types::Value::Null,
        Err(_) => rusqlite::types::Value::Text(text.to_owned()),
    }
}

fn is_root() -> Result<bool> {
    Ok(std::fs::metadata("/proc/self").map(|own| own.uid() == 0).unwrap_or(false))
}

/// The number of the user that the server runs as.
async fn owner() -> Result<u32> {
    let mut command = Command::new("id");
    if is_root()? {
        command.args(["-u", USER]);
    } else {
        command.arg("-u");
    }
    Ok(finish(&mut command, "id").await?.success("id")?.text()?.parse()?)
}

fn pass_through(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?)
}
