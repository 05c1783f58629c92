//! What a run showed: as JSON for programs, as a page with a plot for people.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;
use serde::Serialize;

use super::filtered::FilteredPoint;
use super::writing::WritingPoint;
use super::{BenchArgs, BenchError, Job, Result};
use crate::memory::Memory;

/// Pixels of the plot.
const PLOT: (u32, u32) = (860, 480);

/// One measurement: medians over the turns.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// Connections, each asking one query after the other.
    pub clients: usize,
    /// The query's parameter.
    pub ef_search: u32,
    /// Share of the k nearest rows found.
    pub recall: f64,
    /// Queries per second of all clients.
    pub qps: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// Latency that 99 of 100 queries stay below, in microseconds.
    pub p99_us: f64,
}

/// Everything a run showed. Times are seconds from the first row sent.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// What the vectors are.
    pub source: String,
    /// Rows.
    pub rows: usize,
    /// Elements of a vector.
    pub dimension: usize,
    /// The metric.
    pub metric: &'static str,
    /// Where the true neighbours come from: computed, or of the file.
    pub truth: &'static str,
    /// Nearest rows asked for.
    pub k: u32,
    /// Bytes of the rows as floats.
    pub raw_bytes: u64,
    /// Until every row was acknowledged, which is when queries see it.
    pub searchable_seconds: Option<f64>,
    /// Until no segment was being sealed or merged.
    pub indexed_seconds: Option<f64>,
    /// Rows of each segment after that.
    pub segments: Vec<u64>,
    /// Resident memory after the queries; of a server of our own only.
    pub memory: Option<Memory>,
    /// Bytes of the data folder; of a server of our own only.
    pub disk_bytes: Option<u64>,
    /// From `kill -9` to the first answer of the next process; of a server of our own only.
    pub restart_seconds: Option<f64>,
    /// The recall asked for.
    pub recall_wanted: f64,
    /// Every measurement.
    pub points: Vec<Point>,
    /// The fastest measurement at the recall asked for.
    pub best: Option<Point>,
    /// Queries while rows are inserted.
    pub while_writing: Option<WritingPoint>,
    /// Measurements with filters.
    pub filtered: Vec<FilteredPoint>,
}

impl Report {
    pub(super) fn new(args: &BenchArgs, job: &Job) -> Report {
        let vectors = &job.vectors;
        let source = match &args.data {
            Some(folder) => folder.display().to_string(),
            None => format!("{:?}, seed {}", args.kind, args.seed).to_lowercase(),
        };
        Report {
            version: env!("CARGO_PKG_VERSION"),
            source,
            rows: vectors.len(),
            dimension: vectors.dimension,
            metric: job.collection.metric.name(),
            truth: if job.is_truth_of_file { "of the file" } else { "computed" },
            k: args.k,
            raw_bytes: vectors.rows.len() as u64 * 4,
            searchable_seconds: None,
            indexed_seconds: None,
            segments: Vec::new(),
            memory: None,
            disk_bytes: None,
            restart_seconds: None,
            recall_wanted: args.recall,
            points: Vec::new(),
            best: None,
            while_writing: None,
            filtered: Vec::new(),
        }
    }

    /// Picks the fastest measurement at the recall asked for.
    pub(super) fn sum_up(&mut self, recall: f64) {
        let good = self.points.iter().filter(|point| point.recall >= recall);
        self.best = good.max_by(|a, b| a.qps.total_cmp(&b.qps)).copied();
    }

    /// Writes `bench.json` and `bench.html` into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let failed = |cause: String| BenchError(format!("{}: {cause}", folder.display()));
        let json = serde_json::to_string_pretty(self).map_err(|e| failed(e.to_string()))?;
        let page = self.page().map_err(|cause| failed(format!("the plot: {cause}")))?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(folder.join("bench.json"), json))
            .and_then(|()| std::fs::write(folder.join("bench.html"), page))
            .map_err(|cause| failed(cause.to_string()))
    }

    /// The figures as lines of text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{what:24}{value}");
        };
        line(
            "vectors",
            format!("{} x {}, {} ({})", self.rows, self.dimension, self.source, self.metric),
        );
        line("neighbours", format!("{} nearest, {}", self.k, self.truth));
        if let Some(seconds) = self.searchable_seconds {
            let rate = self.rows as f64 / seconds;
            line("searchable", format!("{seconds:.2} s, {rate:.0} rows/s"));
        }
        if let Some(seconds) = self.indexed_seconds {
            line("indexed", format!("{seconds:.1} s, segments of {:?} rows", self.segments));
        }
        if let Some(memory) = self.memory {
            let share = memory.anonymous as f64 / self.raw_bytes as f64;
            let mib = |bytes: u64| bytes / (1 << 20);
            line(
                "memory",
                format!(
                    "{} MiB anonymous ({share:.2} of the floats), {} MiB resident",
                    mib(memory.anonymous),
                    mib(memory.resident)
                ),
            );
        }
        if let Some(bytes) = self.disk_bytes {
            line("disk", format!("{} MiB", bytes / (1 << 20)));
        }
        if let Some(seconds) = self.restart_seconds {
            line("restart to answer", format!("{seconds:.2} s"));
        }
        for point in &self.points {
            line(
                &format!("{} clients, ef {}", point.clients, point.ef_search),
                format!(
                    "recall@{} {:.4}  {:>8.0} QPS  p50 {:>6.0} us  p99 {:>6.0} us",
                    self.k, point.recall, point.qps, point.p50_us, point.p99_us
                ),
            );
        }
        if let Some(WritingPoint { rows_per_second, idle, writing }) = self.while_writing {
            line(
                &format!("{rows_per_second} rows/s written"),
                format!(
                    "{:.0} QPS, {:.2} of idle; p99 {:.0} us, {:.2} of idle",
                    writing.qps,
                    writing.qps / idle.qps,
                    writing.p99_us,
                    writing.p99_us / idle.p99_us
                ),
            );
        }
        for point in &self.filtered {
            line(
                &format!("{}%{}", point.percent, if point.is_far { ", far away" } else { "" }),
                format!(
                    "recall@{} {:.4}  {:>8.0} QPS  p50 {:>6.0} us  p99 {:>6.0} us  {:.2} of unfiltered",
                    self.k,
                    point.recall,
                    point.qps,
                    point.p50_us,
                    point.p99_us,
                    point.of_unfiltered
                ),
            );
        }
        let wanted = format!("at recall {}", self.recall_wanted);
        match self.best {
            Some(best) => {
                line(&wanted, format!("{:.0} QPS with {} clients", best.qps, best.clients))
            }
            None if self.points.is_empty() => {}
            None => line(&wanted, "not reached; try larger values with --ef".to_owned()),
        }
        text
    }

    fn page(&self) -> std::result::Result<String, Box<dyn std::error::Error + '_>> {
        let plot = if self.points.is_empty() { String::new() } else { self.plot()? };
        let text = self.text().replace('&', "&amp;").replace('<', "&lt;");
        Ok(format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>voisin bench</title>\
             <style>body{{font:15px system-ui;margin:2rem auto;max-width:{}px}}\
             pre{{overflow-x:auto}}svg{{max-width:100%;height:auto;background:#fff}}</style>\
             <h1>voisin bench</h1><pre>{text}</pre>{plot}</html>\n",
            PLOT.0
        ))
    }

    /// Queries per second over recall, one line for each number of clients.
    fn plot(&self) -> std::result::Result<String, Box<dyn std::error::Error + '_>> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, PLOT).into_drawing_area();
            area.fill(&WHITE)?;
            let lowest = self.points.iter().map(|point| point.recall).fold(1.0, f64::min);
            let highest = self.points.iter().map(|point| point.qps).fold(0.0, f64::max);
            let recall = (lowest - 0.01).max(0.0)..1.0;
            let mut chart = ChartBuilder::on(&area)
                .margin(16)
                .x_label_area_size(40)
                .y_label_area_size(70)
                .build_cartesian_2d(recall, 0.0..highest * 1.05)?;
            chart
                .configure_mesh()
                .x_desc(format!("recall@{}", self.k))
                .y_desc("queries per second")
                .draw()?;
            let mut clients: Vec<usize> = self.points.iter().map(|point| point.clients).collect();
            clients.sort_unstable();
            clients.dedup();
            for (number, clients) in clients.into_iter().enumerate() {
                let of = self.points.iter().filter(|point| point.clients == clients);
                let mut line: Vec<(f64, f64)> = of.map(|point| (point.recall, point.qps)).collect();
                line.sort_by(|a, b| a.0.total_cmp(&b.0));
                let color = Palette99::pick(number).to_rgba();
                chart.draw_series(line.iter().map(|at| Circle::new(*at, 3, color.filled())))?;
                chart
                    .draw_series(LineSeries::new(line, color.stroke_width(2)))?
                    .label(format!("{clients} clients"))
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
            }
            chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
            area.present()?;
        }
        Ok(svg)
    }
}
