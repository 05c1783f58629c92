//! How far a transfer is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::grouped;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Tells how many rows, or pictures, are done.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// What is done to what, such as "imported" and "rows".
    what: &'static str,
    unit: &'static str,
    total: u64,
    /// Those that were done before.
    first: u64,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// `first` of the total were done before.
    pub fn new(what: &'static str, unit: &'static str, total: u64, first: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = format!(
                "{{wide_bar}} {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{eta}} left"
            );
            let style = ProgressStyle::with_template(&style);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style).with_position(first);
            bar.reset_eta();
            bar
        });
        let started = Instant::now();
        Progress { bar, what, unit, total, first, started, told: started }
    }

    /// How many of the total are done now.
    pub fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.told.elapsed() >= LINE_INTERVAL {
            self.told = Instant::now();
            eprintln!("{}", self.line(done, self.started.elapsed().as_secs_f64()));
        }
    }

    /// Writes a line without disturbing the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn line(&self, done: u64, seconds: f64) -> String {
        let share = 100.0 * done as f64 / (self.total.max(1)) as f64;
        let rate = done.saturating_sub(self.first) as f64 / seconds.max(1e-3);
        let left = match rate > 0.0 {
            true => format!("{:.0} s left", self.total.saturating_sub(done) as f64 / rate),
            false => "no telling how long".to_owned(),
        };
        let (done, total, rate) = (grouped(done), grouped(self.total), grouped(rate as u64));
        let (what, unit) = (self.what, self.unit);
        format!("{what} {done} of {total} {unit} ({share:.0}%), {rate} {unit}/s, {left}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_share_rate_and_the_time_left_of_this_run() {
        let progress = Progress {
            bar: None,
            what: "imported",
            unit: "rows",
            total: 10_000,
            first: 4_000,
            started: Instant::now(),
            told: Instant::now(),
        };
        let line = progress.line(5_000, 2.0);
        assert_eq!(line, "imported 5,000 of 10,000 rows (50%), 500 rows/s, 10 s left");
        assert!(progress.line(4_000, 2.0).ends_with("0 rows/s, no telling how long"));
    }
}
