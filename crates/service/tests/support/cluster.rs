//! A PostgreSQL server for the tests: the one that `PINFOLD_TEST_POSTGRES`
//! names, else one that is started here, once for all tests of the process,
//! with fsync on, reachable through a socket in a temporary folder alone.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Names a server that exists: `postgres://user@host/database`, whose user may
/// create databases.
const VARIABLE: &str = "PINFOLD_TEST_POSTGRES";

/// Where Debian puts the server's programs.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

struct Cluster {
    /// The URL up to the database's name.
    base: String,
    /// Ends the server when this process ends, however that happens: its
    /// standard input closes.
    _keeper: Option<Child>,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a new, empty database.
pub(crate) async fn new_database() -> String {
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_init(start)).await.unwrap();
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("pinfold_test_{}_{number}", std::process::id());
    let (client, connection) = connect(&format!("{}/postgres", cluster.base)).await;
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    format!("{}/{name}", cluster.base)
}

pub(crate) type Connection =
    tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>;

/// Connects, as soon as the server has started: it tells nobody of that but
/// whoever tries.
pub(crate) async fn connect(url: &str) -> (tokio_postgres::Client, Connection) {
    let end = Instant::now() + START_TIMEOUT;
    loop {
        match tokio_postgres::connect(url, tokio_postgres::NoTls).await {
            Ok(connected) => return connected,
            Err(error) => assert!(Instant::now() < end, "PostgreSQL cannot be reached: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn start() -> Cluster {
    if let Ok(url) = std::env::var(VARIABLE) {
        let base = url.rsplit_once('/').expect("a URL with a database").0.to_owned();
        return Cluster { base, _keeper: None };
    }
    let files = Files::make();
    let keeper = files.keep("-c listen_addresses=");
    Cluster { base: files.base(), _keeper: Some(keeper) }
}

/// The files of a server, which may be run once.
pub(crate) struct Files {
    programs: PathBuf,
    user: Option<String>,
    pub(crate) folder: PathBuf,
}

impl Files {
    /// Makes an empty cluster, with a user `pinfold` that needs no password.
    pub(crate) fn make() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("pinfold-pg-").tempdir().unwrap().keep();
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        let user = server_user();
        let files = Self { programs, user, folder };
        files.own(&files.folder);
        files.own(&data);
        let initdb = files.programs.join("initdb").display().to_string();
        let flags = "-U pinfold --auth=trust -E UTF8 --locale=C --no-sync";
        let made = files.shell(&format!("{initdb} -D '{}' {flags}", data.display())).output().unwrap();
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        files
    }

    /// The URL of its socket, up to the database's name.
    pub(crate) fn base(&self) -> String {
        let socket = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://pinfold@{socket}")
    }

    /// Gives a file or folder to the user that the server runs as, alone.
    pub(crate) fn own(&self, path: &Path) {
        if let Some(user) = &self.user {
            let owned = Command::new("chown").arg(user).arg(path).status().unwrap();
            assert!(owned.success(), "there is no user {user}");
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = match &self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([
                    &format!("--reuid={user}"),
                    &format!("--regid={user}"),
                    "--clear-groups",
                    "sh",
                ]);
                command
            }
            None => Command::new("sh"),
        };
        command.args(["-c", script]).current_dir("/");
        command
    }

    /// Runs the server until the child's standard input closes, then removes
    /// its files.
    pub(crate) fn keep(&self, options: &str) -> Child {
        let script = format!(
            "'{}' -D '{folder}/data' -k '{folder}' {options} -c max_connections=300 \
                -c shared_buffers=64MB -c max_wal_size=1GB >'{folder}/log' 2>&1 & \
             server=$!; cat >/dev/null; kill -INT $server; wait $server; rm -rf '{folder}'",
            self.programs.join("postgres").display(),
            folder = self.folder.display(),
        );
        self.shell(&script).stdin(Stdio::piped()).spawn().unwrap()
    }
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir(PROGRAMS).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("no PostgreSQL below {PROGRAMS}; install it, or name a server with {VARIABLE}=postgres://…")
    })
}

/// The server refuses to run as root: then it runs as `postgres`.
fn server_user() -> Option<String> {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    root.then(|| "postgres".into())
}
