//! Damaged index bytes: refused, or a graph that is searched and extended without leaving its
//! memory.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::{Graph, GraphParams, NativeError, read_links};
use super::oracle::Rows;
use super::{built, params};
use crate::schema::{ElementType, Metric};

/// One column of each kind of file.
fn each_kind() -> Vec<(GraphParams, Rows, Vec<u8>)> {
    [
        params(ElementType::Fp32, Metric::SquaredEuclidean, 8),
        params(ElementType::Fp32, Metric::InnerProduct, 8),
        params(ElementType::Fp32, Metric::Manhattan, 8),
        params(ElementType::Fp16, Metric::Cosine, 16),
        params(ElementType::Int8, Metric::SquaredEuclidean, 16),
        params(ElementType::Binary32, Metric::Hamming, 32),
    ]
    .into_iter()
    .map(|params| {
        // Few links per row make many levels, even of 80 rows.
        let params = GraphParams { max_neighbor_count: 3, ef_construction: 20, ..params };
        let rows = Rows::random(&params, 80, &mut StdRng::seed_from_u64(20));
        let bytes = built(&params, &rows).to_bytes().expect("bytes");
        (params, rows, bytes)
    })
    .collect()
}

/// Reads the bytes; when they pass, uses the graph in every way. Returns whether they passed.
fn survives(params: &GraphParams, rows: &Rows, bytes: &[u8]) -> bool {
    let mut graph = match Graph::from_bytes(bytes, params) {
        Ok(graph) => graph,
        Err(NativeError::Damaged { offset, .. }) => {
            assert!(offset <= bytes.len() as u64);
            return false;
        }
        Err(other) => panic!("damage must be reported as such: {other}"),
    };
    let links = read_links(bytes, params).expect("what can be read can be read for its links");
    for list in links.lists() {
        let is_on_level = |row: u32| usize::from(links.levels()[row as usize]) > list.level;
        assert!(is_on_level(list.row) && list.links().all(is_on_level));
    }
    let mut out = Vec::new();
    for query in rows.iter().take(3) {
        graph.search(query, 10, 80, &mut out).expect("search");
        assert!(out.iter().all(|(rank, id)| *id < 80 && !rank.is_nan()));
    }
    graph.add(rows.slice(0..10), 10, 1).expect("add");
    graph.search(rows.row(0), 90, 90, &mut out).expect("search");
    true
}

#[test]
fn a_changed_byte_is_refused_or_harmless() {
    let mut rng = StdRng::seed_from_u64(21);
    for (params, rows, bytes) in each_kind() {
        let (mut refused, mut passed) = (0, 0);
        for _ in 0..1_500 {
            let mut damaged = bytes.clone();
            damaged[rng.random_range(0..bytes.len())] ^= rng.random_range(1..=255u8);
            match survives(&params, &rows, &damaged) {
                true => passed += 1,
                false => refused += 1,
            }
        }
        assert!(refused > 300, "{refused} refused, {passed} passed for {params:?}");
    }
}

#[test]
fn changed_numbers_are_refused_or_harmless() {
    let mut rng = StdRng::seed_from_u64(22);
    for (params, rows, bytes) in each_kind() {
        for _ in 0..1_000 {
            let mut damaged = bytes.clone();
            let number = [-1i32, 0, 1, 79, 80, i32::MAX, i32::MIN][rng.random_range(0..7)];
            let at = rng.random_range(0..bytes.len() - 4);
            damaged[at..at + 4].copy_from_slice(&number.to_le_bytes());
            survives(&params, &rows, &damaged);
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for (params, rows, bytes) in each_kind() {
        for length in 0..bytes.len() {
            assert!(!survives(&params, &rows, &bytes[..length]), "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for (params, rows, mut bytes) in each_kind() {
        bytes.push(0);
        assert!(!survives(&params, &rows, &bytes));
    }
}

#[test]
fn what_is_no_index_is_refused() {
    let mut rng = StdRng::seed_from_u64(23);
    for (params, rows, bytes) in each_kind() {
        for _ in 0..100 {
            let noise: Vec<u8> = (0..bytes.len()).map(|_| rng.random()).collect();
            assert!(!survives(&params, &rows, &noise));
        }
    }
}
