//! Tests of the indexes that faiss trains: what they find, what they keep, what they refuse.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::oracle::{Rows, recall};
use super::{K, params};
use crate::native::{NativeError, TrainedIndex, TrainedSpace, Tuning};
use crate::schema::{ElementType, Metric};

const COUNT: usize = 4_000;

fn space(element: ElementType, metric: Metric, dimension: u32) -> TrainedSpace {
    TrainedSpace { element, metric, dimension }
}

fn rows(space: TrainedSpace, count: usize, seed: u64) -> Rows {
    let params = params(space.element, space.metric, space.dimension);
    Rows::random(&params, count, &mut StdRng::seed_from_u64(seed))
}

fn trained(description: &str, space: TrainedSpace, rows: &Rows) -> TrainedIndex {
    let mut index = TrainedIndex::new(description, space).expect("faiss makes it");
    assert!(index.is_empty());
    index.train(rows.iter(), 2).expect("training");
    index.add(rows.iter().take(COUNT / 2), 2).expect("rows");
    index.add(rows.iter().skip(COUNT / 2), 2).expect("more rows");
    assert_eq!(index.len(), COUNT);
    index
}

fn bytes(index: &TrainedIndex) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.write(&mut bytes).expect("faiss writes").expect("a vector takes it");
    bytes
}

#[test]
fn every_kind_finds_the_nearest_rows_and_comes_back_from_its_file() {
    use ElementType::*;
    use Metric::*;
    let spaces = [
        space(Fp32, SquaredEuclidean, 24),
        space(Fp32, InnerProduct, 24),
        space(Fp32, Cosine, 24),
        space(Fp16, Euclidean, 24),
        space(Int8, SquaredEuclidean, 24),
        space(Int16, Cosine, 24),
    ];
    let kinds = [
        ("IVF32,Flat", K),
        ("IVF32,SQ8", 2 * K),
        ("IVF32,PQ12x6np", 40 * K),
        ("IVF32,PQ12x4fs", 40 * K),
        ("IVF32,PQ12x4fsr", 40 * K),
        ("IVF16_HNSW8,PQ12x4fsr_64", 40 * K),
        ("PCA20,IVF32,PQ10x4fsr,RFlat", 40 * K),
        ("PCA20,IVF16,SQ8", 40 * K),
        ("IVF16_HNSW8,Flat", K),
        ("HNSW16", K),
        ("SQ8", 2 * K),
        ("PQ12x6np", 40 * K),
        ("IVF32,Flat,RFlat", K),
    ];
    for space in spaces {
        let rows = rows(space, COUNT, 1);
        let queries = self::rows(space, 20, 2);
        let params = params(space.element, space.metric, space.dimension);
        for (description, k) in kinds {
            let index = trained(description, space, &rows);
            let bytes = bytes(&index);
            let again = TrainedIndex::read(&bytes, space).expect("its own file");
            assert_eq!((again.len(), again.tuning()), (index.len(), index.tuning()));
            assert_eq!(again.memory_bytes(), bytes.len());
            let mut mean = 0.0;
            for query in queries.iter() {
                let found = again.search(query, k, 128, None).expect("a search");
                assert_eq!(found, index.search(query, k, 128, None).expect("a search"));
                mean += recall(&params, &rows, query, &found, K) / queries.count as f64;
            }
            assert!(mean >= 0.9, "recall {mean} of {description} over {space:?}");
            let even = |id: u32| id.is_multiple_of(2);
            if again.takes_selector() {
                let found = again.search(queries.row(0), k, 128, Some(&even)).expect("a search");
                assert!(!found.is_empty() && found.into_iter().all(even), "{description}");
            }
        }
    }
}

#[test]
fn the_effort_is_lists_or_candidates() {
    let space = space(ElementType::Fp32, Metric::SquaredEuclidean, 16);
    let rows = rows(space, COUNT, 3);
    let lists = trained("PCA8,IVF40,SQ8", space, &rows);
    assert_eq!(lists.tuning(), Tuning::Lists(40));
    let found = |probes| lists.search(rows.row(0), COUNT, probes, None).expect("a search").len();
    assert!(found(1) < found(10) && found(10) < COUNT && found(40) == COUNT && found(999) == COUNT);
    assert_eq!(trained("HNSW8", space, &rows).tuning(), Tuning::Candidates);
    assert_eq!(trained("SQ4", space, &rows).tuning(), Tuning::Nothing);
}

/// faiss keeps nothing that is not a number apart.
#[test]
fn vectors_whose_distances_overflow_do_no_harm() {
    for metric in [Metric::SquaredEuclidean, Metric::InnerProduct] {
        let space = space(ElementType::Fp32, metric, 8);
        let huge = |sign: f32| [sign * 3e38f32; 8].map(f32::to_le_bytes).concat();
        let mut bytes = rows(space, COUNT - 2, 4).bytes;
        bytes.extend([huge(1.0), huge(-1.0)].concat());
        let rows = Rows { bytes, count: COUNT, row_bytes: 32 };
        for description in ["IVF8,Flat", "IVF8_HNSW8,SQ8", "HNSW8", "IVF8,PQ4x6np"] {
            let index = trained(description, space, &rows);
            for query in [huge(1.0), huge(-1.0), rows.row(0).to_vec()] {
                let found = index.search(&query, K, 64, None).expect("a search");
                assert!(found.iter().all(|id| (*id as usize) < COUNT), "{description}");
            }
        }
    }
}

#[test]
fn what_faiss_does_not_make_is_refused_in_its_words() {
    use ElementType::*;
    let floats = space(Fp32, Metric::SquaredEuclidean, 30);
    for description in ["", "NoSuchThing", "IVF10,PQ7", "IVF10,", "PQ16x99", "a\0b"] {
        assert!(TrainedIndex::new(description, floats).is_err(), "{description:?}");
    }
    for (element, metric) in [(Fp32, Metric::Manhattan), (Binary32, Metric::Hamming)] {
        assert!(TrainedIndex::new("IVF10,Flat", space(element, metric, 32)).is_err());
    }
}

#[test]
fn files_of_another_space_or_cut_short_are_refused() {
    let own = space(ElementType::Fp32, Metric::SquaredEuclidean, 16);
    let rows = rows(own, COUNT, 5);
    let whole = bytes(&trained("IVF16,SQ8", own, &rows));
    for other in [
        space(ElementType::Fp32, Metric::InnerProduct, 16),
        space(ElementType::Fp32, Metric::SquaredEuclidean, 32),
    ] {
        assert!(TrainedIndex::read(&whole, other).is_err());
    }
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        assert!(TrainedIndex::read(&whole[..length], own).is_err(), "{length} bytes");
    }
    let longer = [&whole[..], b"more"].concat();
    assert!(TrainedIndex::read(&longer, own).is_err());
}

/// The by-residual fast scan of faiss makes tables for one list, and reads those of as many as it looks into.
#[test]
fn a_by_residual_scan_finds_more_the_more_lists_it_looks_into() {
    for metric in [Metric::SquaredEuclidean, Metric::InnerProduct] {
        let space = space(ElementType::Fp32, metric, 96);
        let rows = rows(space, COUNT, 7);
        let queries = self::rows(space, 20, 8);
        let params = params(space.element, space.metric, space.dimension);
        for description in ["IVF40,PQ24x4fsr", "OPQ24_48,IVF40,PQ24x4fsr", "IVF40_HNSW8,PQ48x4fsr"]
        {
            let built = trained(description, space, &rows);
            let index = TrainedIndex::read(&bytes(&built), space).expect("its own file");
            let at = |lists: usize| {
                let mut mean = 0.0;
                for query in queries.iter() {
                    // In between others, which look into other numbers of lists.
                    for other in [1, 40, 3] {
                        index.search(query, 5, other, None).expect("a search");
                    }
                    let found = index.search(query, 50 * K, lists, None).expect("a search");
                    assert_eq!(found, index.search(query, 50 * K, lists, None).expect("a search"));
                    mean += recall(&params, &rows, query, &found, K) / queries.count as f64;
                }
                mean
            };
            let (few, some, all) = (at(1), at(10), at(40));
            assert!(
                few < some && some <= all + 0.02,
                "{description} {metric:?}: {few} {some} {all}"
            );
            assert!(all >= 0.9, "{description} {metric:?}: {all}");
        }
    }
}

/// A checksum keeps accidents out; what a file says is followed by nobody without a look.
#[test]
fn ids_and_links_that_lead_nowhere_are_refused() {
    let space = space(ElementType::Fp32, Metric::SquaredEuclidean, 16);
    let rows = rows(space, COUNT, 9);
    let refused = |whole: &[u8], at: usize, with: &[u8], what: &str| {
        let mut changed = whole.to_vec();
        changed[at..at + with.len()].copy_from_slice(with);
        let error = TrainedIndex::read(&changed, space).expect_err(what);
        assert!(matches!(&error, NativeError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    // Lists end with the ids of the last one.
    let lists = bytes(&trained("IVF8,SQ8", space, &rows));
    let last = lists.len() - 8;
    let before = lists[last - 8..last].to_vec();
    refused(&lists, last, &before, "twice");
    refused(&lists, last, &(COUNT as i64).to_le_bytes(), "no row");
    refused(&lists, last, &(-1i64).to_le_bytes(), "no row");
    // Before a graph's rows, with their header, come the entry, four numbers, and before it the links.
    let graph = bytes(&trained("HNSW8", space, &rows));
    let entry = graph.len() - (4 + 33 + 8 + COUNT * 64) - 5 * 4;
    refused(&graph, entry, &(COUNT as i32).to_le_bytes(), "begins at no node");
    let links = entry - 4 * 16;
    refused(&graph, links, &(COUNT as i32).to_le_bytes(), "leads to no node");
    refused(&graph, graph.len() - 4, &f32::NAN.to_le_bytes(), "not a number");
    // The number of rows, behind what kind it is and the dimension.
    for whole in [&lists, &graph, &bytes(&trained("SQ8", space, &rows))] {
        for rows in [COUNT - 1, COUNT + 1, 0] {
            let mut changed = whole.to_vec();
            changed[8..16].copy_from_slice(&(rows as u64).to_le_bytes());
            let error = TrainedIndex::read(&changed, space).expect_err("rows that are not there");
            assert!(matches!(error, NativeError::Damaged { .. }), "{error}");
        }
    }
}

/// Ordering centres for Hamming distances, which faiss does by default, takes minutes for this one.
#[test]
fn codes_of_many_bits_are_trained_in_seconds() {
    let space = space(ElementType::Fp32, Metric::SquaredEuclidean, 16);
    let rows = rows(space, COUNT, 10);
    let started = std::time::Instant::now();
    for description in ["PQ4x11", "HNSW8_PQ4x11"] {
        trained(description, space, &rows);
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
