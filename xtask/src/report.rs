//! Stages with their time, what was left out, and the closing line.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How many tests a stage ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Ignored, or left out by their names.
    pub(crate) skipped: u64,
}

impl Count {
    /// A check that is one test.
    pub(crate) const ONE: Self = Self { passed: 1, failed: 0, skipped: 0 };

    /// Adds the figures of a line such as
    /// `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out`.
    pub(crate) fn read_line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        for figure in result.split([';', '.']) {
            let mut words = figure.split_whitespace();
            let (Some(number), Some(what)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" | "filtered" => self.skipped += number,
                _ => {}
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What happened to each stage so far.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    stages: Vec<(String, Count, Duration)>,
    left_out: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), stages: Vec::new(), left_out: Vec::new() }
    }

    /// Runs a stage. An error of it is printed and counts as one failure;
    /// the value of a stage that succeeded is handed on.
    pub(crate) fn stage<T>(&mut self, name: &str, work: impl FnOnce(&mut Count) -> Result<T>) -> Option<T> {
        println!("\n=== {name}");
        let begun = Instant::now();
        let mut count = Count::default();
        let result = work(&mut count);
        if let Err(error) = &result {
            println!("  FAILED: {error:#}");
            count.failed = count.failed.max(1);
        }
        println!("=== {name}: {} in {}", outcome(count), seconds(begun.elapsed()));
        self.stages.push((name.to_owned(), count, begun.elapsed()));
        result.ok()
    }

    /// Notes checks that cannot run on this machine, and why.
    pub(crate) fn leave_out(&mut self, what: &[impl ToString]) {
        self.left_out.extend(what.iter().map(ToString::to_string));
    }

    /// Prints all stages, what was left out, and the closing line. True when
    /// nothing failed.
    pub(crate) fn close(self) -> bool {
        let mut total = Count::default();
        println!("\n=== all stages, in {}", seconds(self.begun.elapsed()));
        for (name, count, time) in &self.stages {
            println!("  {:>9}  {:<44}  {}", seconds(*time), name, outcome(*count));
            total.add(*count);
        }
        self.print_left_out(total.skipped);
        println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        total.failed == 0
    }

    fn print_left_out(&self, skipped: u64) {
        if self.left_out.is_empty() {
            println!("  nothing was left out");
            return;
        }
        println!("\n!!! LEFT OUT, because this machine cannot run them: {skipped} tests");
        for what in &self.left_out {
            println!("!!!   {what}");
        }
    }
}

fn outcome(count: Count) -> String {
    match (count.passed, count.failed) {
        (0, 0) => "done".to_owned(),
        (passed, 0) => format!("{passed} passed"),
        (passed, failed) => format!("{passed} passed, {failed} FAILED"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_result_lines_are_summed() {
        let mut count = Count::default();
        count.read_line("running 5 tests");
        count.read_line(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
        );
        count.read_line("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(count, Count { passed: 7, failed: 2, skipped: 3 });
    }

    #[test]
    fn an_error_is_one_failure_and_fails_the_report() {
        let mut report = Report::new();
        assert_eq!(report.stage("breaks", |_| anyhow::bail!("on purpose") as Result<()>), None);
        assert!(!report.close());
    }

    #[test]
    fn what_is_left_out_does_not_fail_the_report() {
        let mut report = Report::new();
        report.leave_out(&["namespaces: needs root"]);
        assert_eq!(
            report.stage("works", |count| {
                *count = Count::ONE;
                Ok(7)
            }),
            Some(7)
        );
        assert!(report.close());
    }
}
