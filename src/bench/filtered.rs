//! Queries of which only a share of the rows may be found, against exact answers: rows that have
//! nothing to do with the query, and rows of whole regions away from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use rayon::prelude::*;
use serde::Serialize;

use super::embedded::request;
use super::{BenchArgs, BenchError, Figures, Job, Result, bar, bytes_of, drive, median};
use crate::collection::Collection;
use crate::index::RowSet;
use crate::query::{RowFilter, SegmentRef};
use crate::schema::ElementType;
use crate::server::client::{Client, PreparedQuery};
use crate::simd::Query;

/// Queries asked: the truth of each filter takes a pass over all rows.
const QUERIES: usize = 100;
/// Keys times this, by this many values: what a filter over the wire tells rows apart by that have nothing
/// to do with a query.
const HASH_FACTOR: u64 = 2_654_435_761;
const HASH_VALUES: u64 = 1_000_000;
/// Regions that rows are told apart by.
const REGIONS: usize = 200;

/// One measurement with a filter.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FilteredPoint {
    /// Share of the rows that may be found, in percent.
    pub percent: f64,
    /// True when they are the regions farthest from each query, false when they have nothing to do with
    /// it.
    pub is_far: bool,
    /// Share found of the k nearest that may be found.
    pub recall: f64,
    /// Fewest rows found by a query, k or all there are if less where all is well.
    pub fewest: usize,
    /// Queries per second: of one thread in process, of all clients over the wire.
    pub qps: f64,
    /// The same over that of the same queries without a filter, taken in turn.
    pub of_unfiltered: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// Latency that 99 of 100 queries stay below, in microseconds.
    pub p99_us: f64,
}

/// Lets keys through; each segment's rows are looked up once.
struct KeyFilter {
    keys: RowSet,
    rows: Mutex<HashMap<u32, Arc<RowSet>>>,
}

impl RowFilter for KeyFilter {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let SegmentRef::Sealed(sealed) = segment else { return Arc::default() };
        let mut known = self.rows.lock();
        let rows = known.entry(sealed.id).or_insert_with(|| {
            let is_in = |row| sealed.key(row).is_some_and(|key| self.keys.contains(key as u32));
            Arc::new(RowSet::from_fn(sealed.rows(), is_in))
        });
        rows.clone()
    }

    fn cost(&self, _: &SegmentRef<'_>) -> u64 {
        1
    }
}

/// What one query may find, and should.
struct Case {
    query: Bytes,
    filter: Arc<dyn RowFilter>,
    truth: HashSet<u64>,
}

/// Measures every share of `args.filter`, both ways.
pub(super) async fn run(
    args: &BenchArgs,
    collection: &Arc<Collection>,
    job: &Job,
) -> Result<Vec<FilteredPoint>> {
    let ef_search = args.ef[0];
    let mut points = Vec::new();
    let progress = bar("filters", 2 * args.filter.len());
    for percent in &args.filter {
        for is_far in [false, true] {
            let cases = cases(job, *percent, is_far)?;
            points
                .push(measure(args, collection, job, &cases, ef_search, (*percent, is_far)).await?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(points)
}

/// How many of [`HASH_VALUES`] are let through.
fn bound(percent: f64) -> u64 {
    (percent / 100.0 * HASH_VALUES as f64).round().max(1.0) as u64
}

/// Measures every share of `args.filter` over the wire, with rows that have nothing to do with the query
/// and as many clients as there are at most.
pub(super) async fn run_over_wire(
    args: &BenchArgs,
    address: &str,
    client: &mut Client,
    job: &Job,
) -> Result<Vec<FilteredPoint>> {
    let ef_search = args.ef[0];
    let clients = args.clients.iter().copied().max().unwrap_or(1);
    let progress = bar("filters", args.filter.len());
    let mut points = Vec::new();
    for percent in &args.filter {
        let cases = cases(job, *percent, false)?;
        let filter = format!("_key * {HASH_FACTOR} % {HASH_VALUES} < {}", bound(*percent));
        let mut params = job.effort(ef_search);
        let prepared = |params: &[(String, String)]| -> Vec<PreparedQuery> {
            let query = |case: &Case| {
                PreparedQuery::new(&job.collection, case.query.clone(), job.k as u32, params)
            };
            cases.iter().map(query).collect()
        };
        let plain = prepared(&params);
        params.push(("filter".to_owned(), filter));
        let filtered = prepared(&params);
        let (mut hits, mut wanted, mut fewest) = (0, 0, usize::MAX);
        for (case, query) in cases.iter().zip(&filtered) {
            let found = client.query(query).await?;
            hits += found.iter().filter(|key| case.truth.contains(key)).count();
            wanted += job.k.min(case.truth.len());
            fewest = fewest.min(found.len());
        }
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..args.turns {
            without.push(drive(address, &plain, clients, args.seconds).await?);
            with.push(drive(address, &filtered, clients, args.seconds).await?);
        }
        let of = |turns: &[Figures], figure: fn(&Figures) -> f64| {
            median(turns.iter().map(figure).collect())
        };
        let qps = of(&with, |turn| turn.qps);
        points.push(FilteredPoint {
            percent: *percent,
            is_far: false,
            recall: hits as f64 / wanted.max(1) as f64,
            fewest,
            qps,
            of_unfiltered: qps / of(&without, |turn| turn.qps),
            p50_us: of(&with, |turn| turn.p50_us),
            p99_us: of(&with, |turn| turn.p99_us),
        });
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(points)
}

fn cases(job: &Job, percent: f64, is_far: bool) -> Result<Vec<Case>> {
    let vectors = &job.vectors;
    let (dimension, count) = (vectors.dimension, vectors.len());
    let kept = ((count as f64 * percent / 100.0).round() as usize).clamp(1, count);
    // A region is what is nearest to one of some rows.
    let pivots: Vec<usize> =
        (0..REGIONS.min(count)).map(|i| i * (count / REGIONS).max(1)).collect();
    let scorer = |row: usize| {
        let row = &vectors.rows[row * dimension..][..dimension];
        Query::new(ElementType::Fp32, job.collection.metric, dimension as u32, &bytes_of(row))
    };
    let scorers: Option<Vec<Query>> = pivots.iter().map(|row| scorer(*row)).collect();
    let scorers = scorers.ok_or_else(|| BenchError("the metric takes no floats".into()))?;
    let region_of = |row: &[f32]| {
        let row: &[u8] = bytemuck::cast_slice(row);
        let scores = scorers.iter().map(|scorer| scorer.distance(row).unwrap_or(f32::INFINITY));
        scores.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(region, _)| region)
    };
    let rows: Vec<&[f32]> = vectors.rows.chunks(dimension).collect();
    let regions: Vec<usize> = match is_far {
        true => rows.into_par_iter().map(region_of).collect(),
        false => Vec::new(),
    };
    let filter_of = |allowed: &[u32]| -> Arc<dyn RowFilter> {
        let mut words = vec![0u64; count.div_ceil(64)];
        allowed.iter().for_each(|key| words[*key as usize / 64] |= 1 << (key % 64));
        Arc::new(KeyFilter { keys: RowSet::from_words(words), rows: Mutex::default() })
    };
    // What has nothing to do with the query is the same for all of them.
    let bound = bound(percent);
    let by_chance: Vec<u32> = (0..count as u32)
        .filter(|key| u64::from(*key) * HASH_FACTOR % HASH_VALUES < bound)
        .collect();
    let shared = filter_of(&by_chance);
    let of_query = |query: &[f32]| -> Option<Case> {
        let query = bytes_of(query);
        let scorer =
            Query::new(ElementType::Fp32, job.collection.metric, dimension as u32, &query)?;
        let mut scores = Vec::with_capacity(count);
        for row in vectors.rows.chunks(dimension) {
            scores.push(scorer.distance(bytemuck::cast_slice(row))?);
        }
        let mut allowed: Vec<u32> = Vec::new();
        match is_far {
            // Region by region from the farthest, and of the last one as many as are missing.
            true => {
                allowed.extend(0..count as u32);
                let far = |key: &u32| scores[pivots[regions[*key as usize]]];
                let by_region = |a: &u32, b: &u32| far(b).total_cmp(&far(a)).then(a.cmp(b));
                allowed.select_nth_unstable_by(kept - 1, by_region);
                allowed.truncate(kept);
            }
            false => allowed.extend(&by_chance),
        }
        let wanted = job.k.min(allowed.len());
        if wanted == 0 {
            return Some(Case { query, filter: shared.clone(), truth: HashSet::new() });
        }
        let mut near: Vec<f32> = allowed.iter().map(|key| scores[*key as usize]).collect();
        let (_, edge, _) = near.select_nth_unstable_by(wanted - 1, f32::total_cmp);
        let edge = *edge;
        let truth = allowed.iter().filter(|key| scores[**key as usize] <= edge);
        let truth = truth.map(|key| u64::from(*key)).collect();
        let filter = if is_far { filter_of(&allowed) } else { shared.clone() };
        Some(Case { query, filter, truth })
    };
    let queries: Vec<&[f32]> = vectors.queries.chunks(dimension).take(QUERIES).collect();
    let cases: Option<Vec<Case>> = queries.into_par_iter().map(of_query).collect();
    cases.ok_or_else(|| BenchError("the metric takes no floats".into()))
}

async fn measure(
    args: &BenchArgs,
    collection: &Arc<Collection>,
    job: &Job,
    cases: &[Case],
    ef_search: u32,
    (percent, is_far): (f64, bool),
) -> Result<FilteredPoint> {
    let ask = |case: &Case, filter: Option<Arc<dyn RowFilter>>| {
        collection.query_among(request(&case.query, job, ef_search), filter)
    };
    let (mut hits, mut wanted, mut fewest) = (0, 0, usize::MAX);
    for case in cases {
        let reply = ask(case, Some(case.filter.clone())).await?;
        let found: Vec<u64> = reply.results.iter().flatten().map(|hit| hit.key).collect();
        hits += found.iter().filter(|key| case.truth.contains(key)).count();
        wanted += job.k.min(case.truth.len());
        fewest = fewest.min(found.len());
    }
    let (mut latencies, mut filtered, mut plain) = (Vec::new(), (0, 0.0), (0, 0.0));
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < 2.0 * args.seconds {
        let turn = Instant::now();
        for case in cases {
            ask(case, None).await?;
        }
        plain = (plain.0 + cases.len(), plain.1 + turn.elapsed().as_secs_f64());
        let turn = Instant::now();
        for case in cases {
            let asked = Instant::now();
            ask(case, Some(case.filter.clone())).await?;
            latencies.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        filtered = (filtered.0 + cases.len(), filtered.1 + turn.elapsed().as_secs_f64());
    }
    latencies.sort_by(f64::total_cmp);
    let qps = filtered.0 as f64 / filtered.1;
    Ok(FilteredPoint {
        percent,
        is_far,
        recall: hits as f64 / wanted.max(1) as f64,
        fewest,
        qps,
        of_unfiltered: qps / (plain.0 as f64 / plain.1),
        p50_us: latencies[latencies.len() / 2],
        p99_us: latencies[latencies.len() * 99 / 100],
    })
}
