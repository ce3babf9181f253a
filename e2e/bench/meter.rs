//! CPU seconds and memory of a process, from Linux's `/proc`.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use pinfold_e2e::process::memory_kib;

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
            peak_mib: mib(self.process, "VmHWM")?,
        })
    }
}

/// Resident memory now, in MiB.
pub(crate) fn resident_mib(process: Option<u32>) -> Result<f64> {
    mib(process.context("the process ended")?, "VmRSS")
}

/// CPU seconds of a process and of its children, past ones included.
fn cpu(process: u32) -> Result<f64> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    // A child that ended meanwhile is counted in its parent.
    let running: f64 = children.filter_map(|child| own_cpu(child).ok()).sum();
    Ok(own_cpu(process)? + running)
}

/// Processes that ran or waited to run in the last minute, on average.
pub(crate) fn load_average() -> Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().context("/proc/loadavg has a figure")?.parse()?)
}

/// CPU seconds of a process and of its children that ended.
fn own_cpu(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has a name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // User and system time, then both of ended children.
    let ticks = fields.get(11..15).context("/proc/PID/stat has times")?;
    let ticks = ticks.iter().map(|field| field.parse::<f64>());
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}

fn mib(process: u32, name: &str) -> Result<f64> {
    Ok(memory_kib(process, name)? as f64 / 1_024.0)
}
