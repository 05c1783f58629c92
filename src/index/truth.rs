//! The true neighbours of many queries at once: every node is scored for each of them. Nodes are read block
//! by block for some tens of queries, so that what takes the time is arithmetic and not memory.

use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::build::BuildRun;
use super::space::Vectors;
use super::topk::{Best, Candidate, TopK};
use crate::simd::Query;

/// Bytes of vectors scored for each query before the next ones: they stay in the cache of a core.
const BLOCK_BYTES: usize = 128 << 10;
/// Nodes of a block at most.
const BLOCK_MAX: usize = 1_024;
/// Queries that a block is read for.
const TOGETHER: (usize, usize) = (8, 64);

/// For each query and the one node that it does not find, the `k` nearest nodes with their scores, ascending;
/// all where there are fewer. What has no score is infinitely far. `None` when the build was stopped.
pub fn nearest_of_each<V: Vectors>(
    vectors: &V,
    queries: &[(Query, u32)],
    k: usize,
    run: BuildRun<'_>,
) -> Option<Vec<Vec<(f32, u32)>>> {
    let (least, most) = TOGETHER;
    let together = queries.len().div_ceil(2 * run.pool.current_num_threads()).clamp(least, most);
    let parts: Option<Vec<_>> = run.pool.install(|| {
        queries.par_chunks(together).map(|some| nearest_of_some(vectors, some, k, run)).collect()
    });
    Some(parts?.into_iter().flatten().collect())
}

fn nearest_of_some<V: Vectors>(
    vectors: &V,
    queries: &[(Query, u32)],
    k: usize,
    run: BuildRun<'_>,
) -> Option<Vec<Vec<(f32, u32)>>> {
    let count = vectors.count() as u32;
    let bytes = if count == 0 { 0 } else { vectors.vector(0).len() };
    let block = (BLOCK_BYTES / bytes.max(1)).clamp(1, BLOCK_MAX) as u32;
    let mut nearest: Vec<TopK> = queries.iter().map(|_| TopK::new(k, None)).collect();
    // Side by side, wherever they are: many are scored at once.
    let (mut rows, mut scores) = (Vec::with_capacity(BLOCK_BYTES), Vec::new());
    for first in (0..count).step_by(block as usize) {
        if run.stop.load(Ordering::Relaxed) {
            return None;
        }
        let nodes = first..count.min(first + block);
        rows.clear();
        nodes.clone().for_each(|node| rows.extend_from_slice(vectors.vector(node)));
        for ((query, hidden), nearest) in queries.iter().zip(&mut nearest) {
            scores.resize(nodes.len(), f32::INFINITY);
            if !query.distances(&rows, &mut scores) {
                scores.fill(f32::INFINITY);
            }
            for (node, score) in (first..).zip(&scores) {
                let score = if score.is_nan() { f32::INFINITY } else { *score };
                if nearest.wants(score) && node != *hidden {
                    nearest.push(Candidate { score, key: u64::from(node), place: (0, node) });
                }
            }
        }
    }
    let in_order = |nearest: TopK| {
        nearest.into_sorted().into_iter().map(|found| (found.score, found.place.1)).collect()
    };
    Some(nearest.into_iter().map(in_order).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::schema::{ElementType, Metric};

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn each_query_gets_its_own_neighbours_whatever_the_block() {
        let rows: Vec<Vec<u8>> = (0..3_000).map(|at| bytes(&[at as f32, 0.0])).collect();
        let rows = &rows[..];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads start");
        let (stop, done, held) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let run = BuildRun { pool: &pool, stop: &stop, done: &done, held: &held };
        let query = |at: f32| {
            Query::new(ElementType::Fp32, Metric::SquaredEuclidean, 2, &bytes(&[at, 0.0]))
                .expect("it fits")
        };
        let asked: Vec<(Query, u32)> =
            (0..50).map(|at| (query(at as f32 * 60.0), at * 60)).collect();
        let found = nearest_of_each(&rows, &asked, 3, run).expect("it was not stopped");
        for (at, found) in found.iter().enumerate() {
            let node = at as u32 * 60;
            let expected = match node {
                0 => [(1.0, 1), (4.0, 2), (9.0, 3)],
                node => [(1.0, node - 1), (1.0, node + 1), (4.0, node - 2)],
            };
            assert_eq!(found[..], expected, "query {at}");
        }
        let odd = [(query(f32::NAN), u32::MAX)];
        let found = nearest_of_each(&rows, &odd, 2, run).expect("it was not stopped");
        assert_eq!(found, [[(f32::INFINITY, 0), (f32::INFINITY, 1)]]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(nearest_of_each(&rows, &asked, 3, run), None);
    }
}
