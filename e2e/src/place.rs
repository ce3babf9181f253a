//! The folder that a test works in, and the frame that every test runs in.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The longest that a test takes, unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(180);

/// Lines of each log that are printed when a test fails.
const LOG_LINES: usize = 40;

/// A test's own folder. Dropped in a panic, it prints the ends of all logs.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// A new folder, removed when it is dropped.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("pinfold-e2e-").tempdir()? })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder inside.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).with_context(|| format!("two parts of a test are called {name}"))?;
        Ok(path)
    }

    /// Where a process of this name logs.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn print_logs(&self) {
        let Ok(entries) = fs::read_dir(self.folder.path()) else { return };
        let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for path in logs {
            let text =
                fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            println!("--- {}, last of {} lines", path.display(), lines.len());
            lines[from..].iter().for_each(|line| println!("{line}"));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}

/// A path as an argument or a variable of a program.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))
}

/// Runs a test in a place of its own. An error of it is a panic that comes
/// after the logs; so is [`LIMIT`].
pub fn test(body: impl AsyncFnOnce(&Place) -> Result<()>) {
    test_within(LIMIT, body);
}

/// As [`test()`], with another limit.
pub fn test_within(limit: Duration, body: impl AsyncFnOnce(&Place) -> Result<()>) {
    let place = Place::new().expect("a temporary folder can be made");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let result = runtime.block_on(async { tokio::time::timeout(limit, body(&place)).await });
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(_) => panic!("the test took longer than {limit:?}"),
    }
}
