//! Graphs: what walks through them find, against exact scans, and what faiss makes of their files.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::codes::Quantizer;
use super::{
    Bounds, BuildParams, BuildRun, Cells, CodeSpace, Codes, GraphBuilder, HnswGraph, Ranker,
    RowSpace, Space, Vectors,
};
use crate::cancel::Cancel;
use crate::native::{Graph, GraphFile, GraphParams, read_links};
use crate::schema::{Effort, ElementType, IndexKind, Metric, VectorColumn};
use crate::simd::Query;

const ROWS: usize = 2_000;
const K: usize = 10;

fn column(element: ElementType, metric: Metric, dimension: u32) -> VectorColumn {
    VectorColumn {
        name: "v".into(),
        element,
        dimension,
        metric,
        index: IndexKind::Flat,
        multi: None,
        extra_params: Vec::new(),
    }
}

/// Stored rows with elements in -`scale` to `scale` around `centre`, or any bytes for whole numbers.
fn random(
    column: &VectorColumn,
    count: usize,
    (centre, scale): (f32, f32),
    rng: &mut StdRng,
) -> Vec<Vec<u8>> {
    let mut row = || -> Vec<u8> {
        let mut number = || centre + rng.random_range(-scale..scale);
        match column.element {
            ElementType::Fp32 => {
                (0..column.dimension).flat_map(|_| number().to_le_bytes()).collect()
            }
            ElementType::Fp16 => (0..column.dimension)
                .flat_map(|_| half::f16::from_f32(number()).to_le_bytes())
                .collect(),
            _ => (0..column.vector_bytes().unwrap_or(0)).map(|_| rng.random()).collect(),
        }
    };
    (0..count).map(|_| row()).collect()
}

fn params(column: &VectorColumn) -> GraphParams {
    GraphParams {
        element: column.element,
        metric: column.metric,
        dimension: column.dimension,
        max_neighbor_count: 16,
        ef_construction: 100,
        quantized: false,
    }
}

/// The file of a graph over the rows, extending the file of one over the first of them.
fn file(
    params: &GraphParams,
    column: &VectorColumn,
    rows: &[Vec<u8>],
    base: Option<&[u8]>,
) -> Vec<u8> {
    match codes(column, rows) {
        Some(codes) => file_of(params, &CodeSpace::new(&codes, column, &rows), &rows, base),
        None => file_of(params, &RowSpace::new(column, &rows), &rows, base),
    }
}

fn file_of(
    params: &GraphParams,
    space: &impl Space,
    rows: &&[Vec<u8>],
    base: Option<&[u8]>,
) -> Vec<u8> {
    let base = base.map(|bytes| read_links(bytes, params).expect("sound bytes"));
    let density = BuildParams {
        max_neighbor_count: params.max_neighbor_count,
        ef_construction: params.ef_construction,
    };
    let builder = GraphBuilder::new(space, density, base.as_ref(), None);
    let first = base.as_ref().map_or(0, |base| base.levels().len());
    let nodes: Vec<u32> = (first as u32..rows.count() as u32).collect();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
    let run = BuildRun { pool: &pool, stop: &stop, done: &done, held: &AtomicU64::new(0) };
    assert!(builder.link(&nodes, &run));
    assert_eq!(done.load(Ordering::Relaxed), nodes.len() as u64);
    stop.store(true, Ordering::Relaxed);
    assert!(nodes.is_empty() || !builder.link(&nodes, &run), "a stop ends the build");
    let mut bytes = Vec::new();
    let graph = GraphFile { params, levels: builder.levels(), entry: builder.entry() };
    graph.write(&mut bytes, builder.all_links(), rows.iter()).expect("fits").expect("written");
    bytes
}

fn built(column: &VectorColumn, rows: &[Vec<u8>]) -> HnswGraph {
    let params = params(column);
    let bytes = file(&params, column, rows, None);
    HnswGraph::new(&read_links(&bytes, &params).expect("sound bytes"))
}

fn codes(column: &VectorColumn, rows: &[Vec<u8>]) -> Option<Codes> {
    Codes::new(column, rows.iter().map(Vec::as_slice))
}

/// Exact scores of all rows.
fn scores(column: &VectorColumn, rows: &[Vec<u8>], query: &[u8]) -> Vec<f32> {
    let query = Query::new(column.element, column.metric, column.dimension, query);
    let query = query.expect("the query fits");
    rows.iter().map(|row| query.distance(row).expect("the row fits")).collect()
}

struct Exact(Vec<f32>);

impl Ranker for Exact {
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        ranks.clear();
        ranks.extend(ids.iter().map(|id| self.0[*id as usize]));
    }

    fn prefetch(&self, _: u32) {}
}

fn walk(graph: &HnswGraph, ranker: &impl Ranker, ef: usize) -> Vec<u32> {
    let mut found = Vec::new();
    graph.search(ranker, ef, |_, id| {
        found.push(id);
        true
    });
    found
}

/// The share of the k nearest that are among `found` after scoring these exactly; rows as near as
/// the k-th count.
fn recall(found: &[u32], scores: &[f32]) -> f64 {
    let mut order: Vec<f32> = scores.to_vec();
    order.sort_by(f32::total_cmp);
    let edge = order[K - 1];
    let hits = found.iter().filter(|id| scores[**id as usize] <= edge).count();
    hits.min(K) as f64 / K as f64
}

fn all_columns() -> Vec<VectorColumn> {
    use ElementType::*;
    use Metric::*;
    let numbers = [SquaredEuclidean, Euclidean, InnerProduct, Cosine, Manhattan];
    let mut all = Vec::new();
    for (element, dimension) in [(Fp32, 33), (Fp16, 70), (Int8, 36), (Int4, 34), (Int16, 40)] {
        all.extend(numbers.map(|metric| column(element, metric, dimension)));
    }
    all.extend([Hamming, SquaredEuclidean].map(|metric| column(Binary32, metric, 96)));
    all
}

#[test]
fn a_walk_finds_the_nearest_rows_by_codes_and_by_scores() {
    for column in all_columns() {
        // Away from the origin, as image features are: the mean must not use up the codes, and the
        // longest rows must not have all the links.
        for spread in [(0.0, 1.0), (20.0, 1.0)] {
            let mut rng = StdRng::seed_from_u64(1);
            let rows = random(&column, ROWS, spread, &mut rng);
            let queries = random(&column, 100, spread, &mut rng);
            let graph = built(&column, &rows);
            let codes = codes(&column, &rows);
            assert_eq!(codes.is_none(), column.element.is_binary(), "{column:?} {spread:?}");
            let (mut by_codes, mut by_scores) = (0.0, 0.0);
            for query in &queries {
                let scores = scores(&column, &rows, query);
                if let Some(codes) = &codes {
                    let found = walk(&graph, &codes.ranker(query), 100);
                    assert_eq!(found.len(), 100);
                    by_codes += recall(&found[..30], &scores) / queries.len() as f64;
                }
                let found = walk(&graph, &Exact(scores.clone()), 100);
                by_scores += recall(&found[..K], &scores) / queries.len() as f64;
            }
            assert!(by_scores >= 0.95, "recall {by_scores} by scores for {column:?}");
            assert!(codes.is_none() || by_codes >= 0.95, "recall {by_codes} for {column:?}");
        }
    }
}

#[test]
fn rows_of_bytes_are_ranked_exactly() {
    for element in [ElementType::Int8, ElementType::Int4] {
        for metric in [Metric::SquaredEuclidean, Metric::InnerProduct, Metric::Manhattan] {
            let column = column(element, metric, 130);
            let mut rng = StdRng::seed_from_u64(2);
            let rows = random(&column, 300, (0.0, 1.0), &mut rng);
            let query = &random(&column, 1, (0.0, 1.0), &mut rng)[0];
            let codes = codes(&column, &rows).expect("bytes have codes");
            let mut ranks = Vec::new();
            let ids: Vec<u32> = (0..300).collect();
            codes.ranker(query).rank(&ids, &mut ranks);
            let scores = scores(&column, &rows, query);
            let excess = ranks[0] - scores[0];
            for (rank, score) in ranks.iter().zip(&scores) {
                assert_eq!(rank - score, excess, "{column:?}");
            }
        }
    }
}

#[test]
fn a_walk_that_keeps_everything_gives_every_node_nearest_first() {
    let column = column(ElementType::Fp32, Metric::SquaredEuclidean, 8);
    for count in [1, 2, 3, 40, 500] {
        let rows = random(&column, count, (0.0, 1.0), &mut StdRng::seed_from_u64(3));
        let graph = built(&column, &rows);
        assert_eq!(graph.len(), count);
        let scores = scores(&column, &rows, &rows[0]);
        let mut found = walk(&graph, &Exact(scores.clone()), usize::MAX);
        assert!(found.is_sorted_by(|a, b| scores[*a as usize] <= scores[*b as usize]));
        found.sort_unstable();
        assert_eq!(found, (0..count as u32).collect::<Vec<_>>());
        assert!(walk(&graph, &Exact(scores.clone()), 0).is_empty());
        let mut taken = 0;
        graph.search(&Exact(scores), 3, |_, _| {
            taken += 1;
            false
        });
        assert_eq!(taken, 1, "a walk stops giving when it is told to");
    }
}

#[test]
fn a_graph_without_nodes_finds_nothing() {
    let column = column(ElementType::Fp32, Metric::Cosine, 40);
    let graph = built(&column, &[]);
    assert!(graph.is_empty());
    assert!(walk(&graph, &Exact(Vec::new()), 10).is_empty());
    assert!(codes(&column, &[]).is_some_and(|codes| codes.is_empty()));
}

#[test]
fn no_numbers_make_a_rank_that_is_none() {
    for metric in [Metric::SquaredEuclidean, Metric::InnerProduct, Metric::Cosine] {
        let column = column(ElementType::Fp32, metric, 40);
        let extreme = [0.0, 3e38, -3e38, 1e-40, 1.0];
        let rows: Vec<Vec<u8>> = extreme
            .iter()
            .flat_map(|a| extreme.map(|b| [*a, b, b, *a].map(f32::to_le_bytes).concat().repeat(10)))
            .collect();
        for kept in [&rows[..], &rows[..1], &rows[18..19]] {
            let quantizer = Quantizer::new(&column, kept.iter().map(Vec::as_slice));
            let codes = Codes::encode(&quantizer, kept.iter().map(Vec::as_slice));
            let ids: Vec<u32> = (0..kept.len() as u32).collect();
            let mut ranks = Vec::new();
            for query in &rows {
                codes.ranker(query).rank(&ids, &mut ranks);
                assert!(ranks.iter().all(|rank| !rank.is_nan()), "{ranks:?} for {metric:?}");
            }
        }
    }
}

/// Of numbers far beyond all others, what the codes cut off counts too: between rows and a query, and between
/// two rows.
#[test]
fn rows_with_a_few_large_numbers_are_ranked_as_others_are() {
    for metric in [Metric::SquaredEuclidean, Metric::InnerProduct, Metric::Manhattan] {
        let column = column(ElementType::Fp32, metric, 40);
        let mut rng = StdRng::seed_from_u64(8);
        let mut rows = random(&column, ROWS, (0.0, 1.0), &mut rng);
        // Fewer numbers than decide about the step.
        for row in 0..7 {
            let large = [6.0f32, -6.5, 7.0][row % 3] + rng.random_range(-0.5..0.5);
            let place = 4 * (row % 2);
            rows[row][place..place + 4].copy_from_slice(&large.to_le_bytes());
        }
        let codes = codes(&column, &rows).expect("floats have codes");
        let ids: Vec<u32> = (0..ROWS as u32).collect();
        let is_sorted_as = |ranks: &[f32], scores: &[f32]| {
            let nearest = |of: &[f32]| {
                let mut order = ids[..7].to_vec();
                order.sort_by(|a, b| of[*a as usize].total_cmp(&of[*b as usize]));
                order[..3].iter().copied().collect::<std::collections::BTreeSet<u32>>()
            };
            nearest(ranks) == nearest(scores)
        };
        let mut ranks = Vec::new();
        let mut right = 0;
        for query in 0..20 {
            codes.ranker(&rows[query]).rank(&ids, &mut ranks);
            right += usize::from(is_sorted_as(&ranks, &scores(&column, &rows, &rows[query])));
        }
        assert!(right >= 18, "{right} of 20 for {metric:?}");
        if metric == Metric::InnerProduct {
            continue;
        }
        let space = CodeSpace::new(&codes, &column, &&rows[..]);
        let mut center = space.center();
        let (mut at_least, mut is_less) = (Vec::new(), false);
        for node in 0..20u32 {
            space.set(&mut center, node);
            space.rank(&center, &ids, &mut ranks);
            let own = ranks[node as usize];
            assert!(own.abs() <= 1.0, "{own} from itself");
            space.rank_at_least(&center, &ids, &mut at_least);
            for ((id, rank), least) in ids.iter().zip(&ranks).zip(&at_least) {
                assert!(least <= rank && space.complete(&center, *id, *least) == *rank);
            }
            is_less |= at_least != ranks;
            right +=
                usize::from(is_sorted_as(&ranks, &scores(&column, &rows, &rows[node as usize])));
        }
        assert!(right >= 36, "{right} of 40 for {metric:?}");
        assert!(is_less, "what was cut was not looked up yet");
    }
}

/// Large numbers are cut, and of sparse rows these tell most.
#[test]
fn ranks_are_off_by_no_more_than_they_say() {
    for metric in
        [Metric::SquaredEuclidean, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan]
    {
        let column = column(ElementType::Fp32, metric, 200);
        let mut rng = StdRng::seed_from_u64(12);
        let mut rows = random(&column, ROWS, (0.0, 1.0), &mut rng);
        let number =
            |row: &[u8], at: usize| f32::from_le_bytes(row[at..at + 4].try_into().unwrap());
        for row in &mut rows {
            for at in (0..row.len()).step_by(4) {
                let is_zero = rng.random_range(0..20) > 0;
                let large = if is_zero { 0.0 } else { number(row, at).abs().powi(2) };
                row[at..at + 4].copy_from_slice(&large.to_le_bytes());
            }
        }
        let codes = codes(&column, &rows).expect("floats have codes");
        let ids: Vec<u32> = (0..ROWS as u32).collect();
        let (mut ranks, mut is_less) = (Vec::new(), false);
        for (turn, row) in rows[..40].iter().enumerate() {
            // A row, what is opposite to it, and nearly nothing.
            let times = [1.0, -1.0, 0.001][turn % 3];
            let numbers = (0..row.len()).step_by(4).map(|at| times * number(row, at));
            let query: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            let ranker = codes.ranker(&query);
            ranker.rank(&ids, &mut ranks);
            let mut at_least = Vec::new();
            ranker.rank_at_least(&ids, &mut at_least);
            for ((id, rank), least) in ids.iter().zip(&ranks).zip(&at_least) {
                assert!(least <= rank && ranker.complete(*id, *least) == *rank, "{metric:?}");
            }
            is_less |= at_least != ranks;
            let scores = scores(&column, &rows, &query);
            let mut order = ids.clone();
            order.sort_by(|a, b| scores[*a as usize].total_cmp(&scores[*b as usize]));
            let mut highest = f32::NEG_INFINITY;
            for node in order {
                let rank = ranks[node as usize];
                highest = highest.max(rank);
                let off = (highest - rank) / ranker.deviation(rank);
                assert!(off < 8.0, "{metric:?} {times}: a nearer row is {off} deviations behind");
            }
        }
        assert_eq!(is_less, metric != Metric::InnerProduct, "what was cut was not looked up yet");
    }
}

/// A query far outside the rows' range must not be cut to it: that would turn its direction.
#[test]
fn a_query_far_away_finds_its_nearest_rows() {
    let column = column(ElementType::Fp32, Metric::SquaredEuclidean, 48);
    let mut rng = StdRng::seed_from_u64(4);
    let rows = random(&column, ROWS, (0.0, 1.0), &mut rng);
    let codes = codes(&column, &rows).expect("floats have codes");
    let ids: Vec<u32> = (0..ROWS as u32).collect();
    let mut mean = 0.0;
    for query in random(&column, 20, (0.0, 20.0), &mut rng) {
        let mut ranks = Vec::new();
        codes.ranker(&query).rank(&ids, &mut ranks);
        let mut order = ids.clone();
        order.sort_by(|a, b| ranks[*a as usize].total_cmp(&ranks[*b as usize]));
        mean += recall(&order[..30], &scores(&column, &rows, &query)) / 20.0;
    }
    assert!(mean >= 0.95, "recall {mean}");
}

/// One step for all dimensions is too coarse where a single one spreads over all of it.
#[test]
fn codes_that_cannot_tell_rows_apart_are_not_used() {
    let column = column(ElementType::Fp32, Metric::SquaredEuclidean, 40);
    let mut rng = StdRng::seed_from_u64(5);
    let uneven: Vec<Vec<u8>> = (0..ROWS)
        .map(|row| {
            let mut numbers = [0f32; 40].map(|_| rng.random_range(-1.0..1.0));
            numbers[7] = (row % 20) as f32 * 1_000.0;
            numbers.map(f32::to_le_bytes).concat()
        })
        .collect();
    assert!(codes(&column, &uneven).is_none());
    let even = random(&column, ROWS, (0.0, 1.0), &mut rng);
    assert!(codes(&column, &even).is_some());
}

/// A zero vector has a cosine of 0 with everything: nearer than what points away, farther than the
/// rest.
#[test]
fn a_zero_vector_ranks_at_a_right_angle() {
    let column = column(ElementType::Fp32, Metric::Cosine, 40);
    let mut rng = StdRng::seed_from_u64(6);
    let mut rows = random(&column, 200, (0.0, 1.0), &mut rng);
    rows.push(vec![0; 160]);
    let codes = codes(&column, &rows).expect("floats have codes");
    let ids: Vec<u32> = (0..201).collect();
    let mut ranks = Vec::new();
    for query in random(&column, 5, (0.0, 1.0), &mut rng) {
        codes.ranker(&query).rank(&ids, &mut ranks);
        let scores = scores(&column, &rows, &query);
        for id in 0..200 {
            // Rounding may swap what is nearly at a right angle too.
            if (scores[id] - 1.0).abs() > 0.05 {
                assert_eq!(ranks[id] < ranks[200], scores[id] < 1.0, "score {}", scores[id]);
            }
        }
    }
}

#[test]
fn faiss_reads_the_files_and_finds_the_same() {
    for column in all_columns() {
        let mut rng = StdRng::seed_from_u64(7);
        let rows = random(&column, ROWS, (0.0, 1.0), &mut rng);
        let params = params(&column);
        let bytes = file(&params, &column, &rows, None);
        check_with_faiss(&column, &params, &bytes, &rows, &mut rng);
        let of_bytes = GraphParams { quantized: true, ..params };
        if !column.element.is_binary()
            && !matches!(column.element, ElementType::Int8 | ElementType::Int4)
            && column.metric != Metric::Manhattan
        {
            let quantized = file(&of_bytes, &column, &rows, None);
            check_with_faiss(&column, &of_bytes, &quantized, &rows, &mut rng);
            assert!(quantized.len() < bytes.len());
        }
    }
}

fn check_with_faiss(
    column: &VectorColumn,
    params: &GraphParams,
    bytes: &[u8],
    rows: &[Vec<u8>],
    rng: &mut StdRng,
) {
    let graph = Graph::from_bytes(bytes, params).expect("faiss reads it");
    assert_eq!(graph.len(), ROWS);
    let (mut found, mut mean) = (Vec::new(), 0.0);
    for query in random(column, 20, (0.0, 1.0), rng) {
        // What bytes rank, floats score: a few more are asked for.
        let count = if params.quantized { 2 * K } else { K };
        graph.search(&query, count, 100, &mut found).expect("faiss searches it");
        let found: Vec<u32> = found.iter().map(|(_, id)| *id).collect();
        mean += recall(&found, &scores(column, rows, &query)) / 20.0;
    }
    assert!(mean >= 0.95, "recall {mean} for {column:?}, {params:?}");
    // What faiss writes of it is what was written, to the last byte.
    assert!(graph.to_bytes().expect("bytes") == bytes, "{column:?}");
}

#[test]
fn a_graph_that_grew_in_steps_finds_as_much() {
    for column in all_columns() {
        let mut rng = StdRng::seed_from_u64(8);
        let rows = random(&column, ROWS, (0.0, 1.0), &mut rng);
        let params = params(&column);
        let mut bytes = file(&params, &column, &[], None);
        for count in [1, 2, 300, 300, 1_500, ROWS] {
            bytes = file(&params, &column, &rows[..count], Some(&bytes));
        }
        let graph = HnswGraph::new(&read_links(&bytes, &params).expect("sound bytes"));
        let mut mean = 0.0;
        for query in random(&column, 20, (0.0, 1.0), &mut rng) {
            let scores = scores(&column, &rows, &query);
            mean += recall(&walk(&graph, &Exact(scores.clone()), 100)[..K], &scores) / 20.0;
        }
        assert!(mean >= 0.95, "recall {mean} for {column:?}");
    }
}

/// Copies of a row must not link to each other alone: the rest would not be reached from there, nor
/// they from the rest.
#[test]
fn many_copies_of_a_row_do_not_cut_the_graph() {
    let column = column(ElementType::Fp32, Metric::SquaredEuclidean, 40);
    let mut rng = StdRng::seed_from_u64(9);
    let copy = vec![random(&column, 1, (0.0, 1.0), &mut rng).remove(0); ROWS];
    let others = random(&column, ROWS, (0.0, 1.0), &mut rng);
    let orders =
        [[&copy[..], &others[..]].concat(), [&others[..], &copy[..]].concat(), others.clone()];
    let queries = random(&column, 20, (0.0, 1.0), &mut rng);
    let recalls = orders.map(|rows| {
        let graph = built(&column, &rows);
        let of_query = |query: &Vec<u8>| {
            let scores = scores(&column, &rows, query);
            recall(&walk(&graph, &Exact(scores.clone()), 100)[..K], &scores)
        };
        if rows.len() > ROWS {
            assert_eq!(of_query(&copy[0]), 1.0, "a copy finds copies");
        }
        queries.iter().map(of_query).sum::<f64>() / queries.len() as f64
    });
    // Half of the rows in one place are in the way of all others, but no wall.
    assert!(recalls[2] >= 0.95 && recalls.iter().all(|recall| *recall >= 0.8), "{recalls:?}");
}

/// What bounds let through is exactly what scoring every row finds, ties included.
#[test]
fn bounds_hide_no_row_that_is_near_enough() {
    use ElementType::*;
    use Metric::*;
    let mut looked_at = (0, 0);
    for (element, dimension) in [(Fp32, 40), (Fp32, 300), (Fp16, 70), (Int16, 48), (Int8, 36)] {
        for metric in [SquaredEuclidean, Euclidean, Cosine] {
            let column = column(element, metric, dimension);
            let mut rng = StdRng::seed_from_u64(10);
            // Rows around the origin, rows close together far from it, copies, zeros, and large ones.
            let mut rows = random(&column, 700, (0.0, 1.0), &mut rng);
            rows.extend(random(&column, 300, (40.0, 0.01), &mut rng));
            rows.extend(random(&column, 20, (0.0, 6e4), &mut rng));
            let again = rows[..40].to_vec();
            rows.extend(again);
            rows.push(vec![0; column.vector_bytes().unwrap_or(0)]);
            let quantizer = Quantizer::new(&column, rows.iter().map(Vec::as_slice));
            let codes = Codes::encode(&quantizer, rows.iter().map(Vec::as_slice));
            let asked = rows.iter().step_by(31).cloned();
            let away = random(&column, 10, (0.0, 1.0), &mut rng);
            let wide = random(&column, 3, (1e3, 1e3), &mut rng);
            for query in asked.chain(away).chain(wide) {
                let bounds = Bounds::new(&codes, metric, &query).expect("a distance");
                let scores = scores(&column, &rows, &query);
                let (k, is_in) = (10, |id: u32| id % 7 != 3);
                let mut kept: Vec<(f32, u32)> = Vec::new();
                bounds.scan(k, &Cancel::default(), is_in, |id| {
                    assert!(is_in(id));
                    looked_at.0 += 1;
                    kept.push((scores[id as usize], id));
                    kept.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    kept.truncate(k);
                    kept.get(k - 1).map_or(f32::INFINITY, |last| last.0)
                });
                looked_at.1 += rows.len();
                let mut expected: Vec<(f32, u32)> = (0..rows.len() as u32)
                    .filter(|id| is_in(*id))
                    .map(|id| (scores[id as usize], id))
                    .collect();
                expected.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                assert_eq!(kept, expected[..k], "{column:?}");
            }
        }
    }
    assert!(looked_at.0 < looked_at.1 / 2, "bounds save something: {looked_at:?}");
}

#[test]
fn every_node_is_in_one_cell_and_those_near_are_met_first() {
    let mut rng = StdRng::seed_from_u64(9);
    for metric in [Metric::SquaredEuclidean, Metric::InnerProduct, Metric::Cosine] {
        let column = column(ElementType::Fp32, metric, 40);
        let rows = random(&column, ROWS, (0.0, 1.0), &mut rng);
        let graph = built(&column, &rows);
        let codes = codes(&column, &rows).expect("they serve");
        let space = CodeSpace::new(&codes, &column, &&rows[..]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
        let (stop, counter) = (AtomicBool::new(false), AtomicU64::new(0));
        let run = BuildRun { pool: &pool, stop: &stop, done: &counter, held: &counter };
        assert!(Cells::new(&graph, &space, &run).is_none(), "few nodes gain nothing");
        let level = graph.upper_level(ROWS / 8).expect("a level above 0");
        let cells = Cells::around(&graph, level, &space, &run).expect("not stopped");
        assert_eq!(counter.load(Ordering::Relaxed), 0, "nothing is held any more");
        let ranker = codes.ranker(&rows[7]);
        let mut all = Vec::new();
        cells.search(&graph, &ranker, level.1, |members| all.extend_from_slice(members));
        let own = all.iter().position(|node| *node == 7).expect("it is in a cell");
        assert!(own < ROWS / 2, "its own cell is among the nearest, not at {own}");
        all.sort_unstable();
        assert!(all.into_iter().eq(0..ROWS as u32), "{metric:?}");
        let probes = |recall, share| cells.probes(Effort::Recall(recall), K, share);
        assert!(probes(0.5, 0.01) < probes(0.9, 0.01) && probes(0.9, 0.01) < probes(0.9, 0.001));
        assert!(probes(1.0, 1e-9) <= level.1);
        stop.store(true, Ordering::Relaxed);
        assert!(Cells::around(&graph, level, &space, &run).is_none(), "a stop ends it");
    }
}
