//! The table of results, in Markdown.

use std::fmt;

use crate::meter::Reading;

/// Measurements of one side of a row.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Units of work per second, a value a round.
    pub(crate) rates: Vec<f64>,
    /// CPU seconds of the process that does the work.
    pub(crate) cpu: Vec<f64>,
    /// CPU seconds of the process that it gets its data from.
    pub(crate) sender: Vec<f64>,
    pub(crate) peak_mib: Vec<f64>,
}

impl Side {
    /// Notes a round in which `work` units were done.
    pub(crate) fn note(&mut self, work: f64, reading: Reading, sender: Option<Reading>) {
        self.rates.push(work / reading.seconds);
        self.cpu.push(reading.cpu);
        self.sender.extend(sender.map(|reading| reading.cpu));
        self.peak_mib.push(reading.peak_mib);
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// What is done.
    pub(crate) name: &'a str,
    /// What a rate counts, per second.
    pub(crate) unit: &'a str,
    /// Who does the same.
    pub(crate) peer: &'a str,
    /// The least that it takes on this machine.
    pub(crate) floor: &'a str,
    /// What is to be reached: rate, CPU time and memory over the peer's.
    pub(crate) goal: &'a str,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<String>,
}

impl Table {
    /// A row of both sides, with their ratios.
    pub(crate) fn compare(&mut self, work: &Work<'_>, ours: &Side, theirs: &Side) {
        let line = format!(
            "| {} | {} {} | {}: {} {} | {} | {} | {} / {} | {} | {} | {} |",
            work.name,
            spread(&ours.rates),
            work.unit,
            work.peer,
            spread(&theirs.rates),
            work.unit,
            ratio(&ours.rates, &theirs.rates),
            both(&ours.cpu, &theirs.cpu),
            number(&ours.sender),
            number(&theirs.sender),
            both(&ours.peak_mib, &theirs.peak_mib),
            work.floor,
            work.goal,
        );
        self.push(line);
    }

    /// A row of both sides whose results are texts, such as times.
    pub(crate) fn versus(&mut self, work: &str, ours: &str, theirs: &str, ratio: f64, goal: &str) {
        self.push(format!("| {work} | {ours} | {theirs} | {ratio:.2}x | | | | | {goal} |"));
    }

    /// A row without a peer.
    pub(crate) fn alone(&mut self, work: &str, result: &str, goal: &str) {
        self.push(format!("| {work} | {result} | | | | | | | {goal} |"));
    }

    /// A row that could not be measured.
    pub(crate) fn missing(&mut self, row: &str, error: &anyhow::Error) {
        let error = format!("{error:#}").replace(['\n', '|'], " ");
        self.push(format!("| {row} | not measured: {error} | | | | | | | |"));
    }

    fn push(&mut self, line: String) {
        eprintln!("{line}");
        self.lines.push(line);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| work | Pinfold | peer | ratio | CPU s, ours / peer | sender's CPU s | peak MiB, ours / peer | floor | to reach |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ratio(ours: &[f64], theirs: &[f64]) -> String {
    format!("{:.2}x", median(ours) / median(theirs))
}

/// Medians of both sides, and their ratio.
fn both(ours: &[f64], theirs: &[f64]) -> String {
    if theirs.is_empty() || ours.is_empty() {
        return format!("{} / {}", number(ours), number(theirs));
    }
    format!("{} / {} ({})", number(ours), number(theirs), ratio(ours, theirs))
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{} ({} to {})", figure(median(values)), figure(low), figure(high))
}

fn number(values: &[f64]) -> String {
    if values.is_empty() { "-".into() } else { figure(median(values)) }
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
