//! A witness of what a process does to its files: a library that is loaded
//! before the C library, built from `witness/witness.c` by the C compiler that
//! Rust needs anyway. It writes down writes, syncs and what is said on sockets
//! in the order in which they happen, and lets writes and syncs fail when it
//! is told.
//!
//! [`acknowledged`] and [`stored`] read its log: nothing is said to be durable
//! before the sync that made it so has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    place::{Place, text},
    process::{command, finish},
};

const SOURCE: &str = include_str!("../witness/witness.c");

/// The database's log, which every commit is appended to.
const DATABASE_LOG: &str = "pinfold.db-wal";

/// How the names of the block store's segments end.
const SEGMENT: &str = ".seg";

/// What a node says when it holds a DAG.
const STORED: &str = "\"event\":\"stored\"";

/// An operation on a file that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Half of it is written.
    Write,
    /// Nothing is synced.
    Sync,
}

/// How operations on one file fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which of them.
    pub operation: Operation,
    /// The system's number of the error: [`EIO`] or [`ENOSPC`].
    pub error: i32,
    /// Every so many of them, 1 for all.
    pub every: u32,
    /// How the file's name ends.
    pub file: &'static str,
}

/// The disk is bad.
pub const EIO: i32 = 5;

/// The disk is full.
pub const ENOSPC: i32 = 28;

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// The library and its files, for one process with one data folder.
#[derive(Debug)]
pub struct Witness {
    library: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    faults: PathBuf,
}

impl Witness {
    /// Builds the library; it will look at files in `folder` alone.
    ///
    /// # Errors
    /// When there is no C compiler `cc`.
    pub async fn of(place: &Place, folder: PathBuf) -> Result<Self> {
        let own = place.folder("witness")?;
        let (source, library) = (own.join("witness.c"), own.join("witness.so"));
        fs::write(&source, SOURCE)?;
        let mut cc = command("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        finish(&mut cc, "cc").await?.success("cc")?;
        Ok(Self { library, folder, log: own.join("events"), faults: own.join("faults") })
    }

    /// What a process has to find in its environment.
    ///
    /// # Errors
    /// When a path is no UTF-8.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let pairs = [
            ("LD_PRELOAD", &self.library),
            ("WITNESS_FOLDER", &self.folder),
            ("WITNESS_LOG", &self.log),
            ("WITNESS_FAULTS", &self.faults),
        ];
        pairs.into_iter().map(|(name, path)| Ok((name.to_owned(), text(path)?.to_owned()))).collect()
    }

    /// The folder that is looked at.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets operations fail from now on, or none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn fail(&self, fault: Option<Fault>) -> Result<()> {
        let line = fault.map_or_else(String::new, |fault| {
            format!("{} {} {} {}\n", fault.error, fault.operation, fault.file, fault.every)
        });
        // Renamed into place: the process reads it at any moment.
        let new = self.faults.with_extension("new");
        fs::write(&new, line)?;
        Ok(fs::rename(new, &self.faults)?)
    }

    /// Everything that was seen so far, in order.
    ///
    /// # Errors
    /// When the log is not there, or a line of it is none.
    pub fn events(&self) -> Result<Vec<Event>> {
        let text = fs::read_to_string(&self.log).context("nothing was witnessed")?;
        text.lines().map(Event::read).collect()
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file was made that did not exist.
    Created,
    /// A write to a file has ended.
    Wrote,
    /// A sync of a file or folder begins.
    Syncs,
    /// It has ended well.
    Synced,
    /// A file was given another name.
    Renamed,
    /// Something is about to be said on a socket.
    Sent,
    /// Something was heard on a socket.
    Heard,
    /// A call was made to fail.
    Fault,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The thread.
    pub thread: u32,
    /// What was seen.
    pub kind: Kind,
    /// A file, below the folder, or a socket.
    pub name: String,
    /// The start of a message, or a file's new name.
    pub text: String,
}

impl Event {
    fn read(line: &str) -> Result<Self> {
        let mut parts = line.splitn(4, '\t');
        let mut part = || parts.next().with_context(|| format!("the witness wrote {line:?}"));
        let (thread, word, name, text) = (part()?.parse()?, part()?, part()?.to_owned(), part()?.to_owned());
        let kind = match word {
            "created" => Kind::Created,
            "wrote" => Kind::Wrote,
            "syncs" => Kind::Syncs,
            "synced" => Kind::Synced,
            "renamed" => Kind::Renamed,
            "sent" => Kind::Sent,
            "heard" => Kind::Heard,
            "fault" => Kind::Fault,
            other => bail!("the witness knows no {other:?}"),
        };
        Ok(Self { thread, kind, name, text })
    }
}

/// What of the files is on disk, after the events so far.
#[derive(Debug, Default)]
struct Disk<'e> {
    now: usize,
    /// The last write of each file.
    wrote: BTreeMap<&'e str, usize>,
    /// When each file and folder was last changed by a name.
    named: BTreeMap<&'e str, usize>,
    /// For each thread the sync that it is in, when that began, and the last
    /// write before it.
    syncs: BTreeMap<u32, (&'e str, usize, usize)>,
    /// Everything of a file or folder before this is on disk.
    synced: BTreeMap<&'e str, usize>,
    /// The last write of each file that is on disk.
    covered: BTreeMap<&'e str, usize>,
    /// When something was last heard on each socket, and what.
    heard: BTreeMap<&'e str, (usize, &'e str)>,
}

impl<'e> Disk<'e> {
    fn see(&mut self, event: &'e Event) {
        self.now += 1;
        let name = event.name.as_str();
        match event.kind {
            Kind::Created => drop(self.named.insert(name, self.now)),
            Kind::Wrote => drop(self.wrote.insert(name, self.now)),
            Kind::Syncs => drop(self.syncs.insert(event.thread, (name, self.now, self.wrote(name)))),
            Kind::Synced => {
                if let Some((name, begun, wrote)) = self.syncs.remove(&event.thread) {
                    self.synced.insert(name, begun);
                    self.covered.insert(name, wrote);
                }
            }
            Kind::Renamed => {
                self.wrote.remove(name);
                self.named.insert(&event.text, self.now);
            }
            Kind::Heard => drop(self.heard.insert(name, (self.now, &event.text))),
            Kind::Sent | Kind::Fault => {}
        }
    }

    fn wrote(&self, name: &str) -> usize {
        self.wrote.get(name).copied().unwrap_or_default()
    }

    fn covered(&self, name: &str) -> usize {
        self.covered.get(name).copied().unwrap_or_default()
    }

    fn synced(&self, name: &str) -> usize {
        self.synced.get(name).copied().unwrap_or_default()
    }

    /// Whether all of a file is on disk, as far as this process wrote it.
    fn is_clean(&self, name: &str) -> bool {
        self.covered(name) == self.wrote(name)
    }

    /// Whether a file's name is on disk, as far as this process gave it.
    fn is_found(&self, name: &str) -> bool {
        let folder = name.rsplit_once('/').map_or(".", |(folder, _)| folder);
        self.named.get(name).is_none_or(|named| self.synced(folder) > *named)
    }
}

/// Checks that between the arrival of every POST of a pin and its 202 the
/// database's log was written and then synced, and answers how many there were.
///
/// # Errors
/// Names the first answer that came too early.
pub fn acknowledged(events: &[Event]) -> Result<usize> {
    let (mut disk, mut count) = (Disk::default(), 0);
    for event in events {
        disk.see(event);
        if event.kind != Kind::Sent || !event.text.starts_with("HTTP/1.1 202") {
            continue;
        }
        let Some((arrived, request)) = disk.heard.get(event.name.as_str()) else { continue };
        if !request.starts_with("POST /pins") {
            continue;
        }
        ensure!(
            disk.wrote(DATABASE_LOG) > *arrived,
            "event {}: a 202 without a write of {DATABASE_LOG}",
            disk.now
        );
        ensure!(
            disk.covered(DATABASE_LOG) > *arrived,
            "event {}: a 202 before what was written to {DATABASE_LOG} is synced",
            disk.now
        );
        ensure!(disk.synced(".") > 0, "event {}: a 202 before the data folder is synced", disk.now);
        count += 1;
    }
    Ok(count)
}

/// Checks that every segment, and its name, is on disk whenever a node reports
/// that it has stored a DAG, and answers how many reports there were.
///
/// # Errors
/// Names the first report that came too early.
pub fn stored(events: &[Event]) -> Result<usize> {
    let (mut disk, mut segments, mut count) = (Disk::default(), BTreeSet::new(), 0);
    for event in events {
        disk.see(event);
        if event.name.ends_with(SEGMENT) {
            segments.insert(event.name.as_str());
        }
        if event.kind != Kind::Sent || !event.text.contains(STORED) {
            continue;
        }
        ensure!(!segments.is_empty(), "event {}: stored without a segment", disk.now);
        for segment in &segments {
            ensure!(disk.is_clean(segment), "event {}: stored before {segment} is synced", disk.now);
            ensure!(
                disk.is_found(segment),
                "event {}: stored before the folder of {segment} is synced",
                disk.now
            );
        }
        count += 1;
    }
    Ok(count)
}

/// Checks that every file that was written is on disk before it takes the
/// name of another, and answers how many there were.
///
/// # Errors
/// Names the first that was not.
pub fn renamed(events: &[Event]) -> Result<usize> {
    let (mut disk, mut count) = (Disk::default(), 0);
    for event in events {
        if event.kind == Kind::Renamed {
            let (from, to) = (&event.name, &event.text);
            ensure!(disk.is_clean(from), "event {}: {from} became {to} before it was synced", disk.now);
            count += 1;
        }
        disk.see(event);
    }
    Ok(count)
}
