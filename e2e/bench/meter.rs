//! CPU seconds and memory of a process, from Linux's `/proc`.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

/// Ticks of `/proc/PID/stat` in a second; Linux shows 100 whatever it uses.
const TICKS: f64 = 100.0;

/// A measurement in progress.
pub(crate) struct Meter {
    process: u32,
    cpu: f64,
    begun: Instant,
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    /// Highest resident memory since the start, in MiB.
    pub(crate) peak_mib: f64,
}

impl Meter {
    /// Begins, and forgets the memory's peak so far.
    pub(crate) fn start(process: Option<u32>) -> Result<Self> {
        let process = process.context("the process ended")?;
        fs::write(format!("/proc/{process}/clear_refs"), "5")?;
        Ok(Self { process, cpu: cpu(process)?, begun: Instant::now() })
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        Ok(Reading {
            seconds: self.begun.elapsed().as_secs_f64(),
            cpu: cpu(self.process)? - self.cpu,
            peak_mib: status(self.process, "VmHWM:")?,
        })
    }
}

/// Resident memory now, in MiB.
pub(crate) fn resident_mib(process: Option<u32>) -> Result<f64> {
    status(process.context("the process ended")?, "VmRSS:")
}

fn cpu(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has a name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).context("user time")? + ticks(12).context("system time")?) / TICKS)
}

fn status(process: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("/proc/PID/status has it")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1_024.0)
}
