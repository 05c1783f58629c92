//! Every kernel at every level of this CPU against sums in `f64` over plain vectors.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Query, SimdLevel};
use crate::schema::{ElementType, Metric};

const ELEMENTS: [ElementType; 7] = [
    ElementType::Fp32,
    ElementType::Fp16,
    ElementType::Int8,
    ElementType::Int4,
    ElementType::Int16,
    ElementType::Binary32,
    ElementType::Binary64,
];

const DIMENSIONS: [u32; 22] =
    [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 96, 100, 128, 130, 192, 254, 511, 512, 1000, 1024];

fn levels() -> impl Iterator<Item = SimdLevel> {
    SimdLevel::ALL.into_iter().filter(|level| level.is_supported())
}

fn metrics() -> impl Iterator<Item = Metric> {
    Metric::ALL.into_iter().map(|(_, metric)| metric)
}

fn fits(element: ElementType, metric: Metric) -> bool {
    match metric {
        Metric::SquaredEuclidean | Metric::Euclidean => true,
        Metric::InnerProduct | Metric::Cosine | Metric::Manhattan => !element.is_binary(),
        Metric::Hamming => element.is_binary(),
    }
}

fn is_float(element: ElementType) -> bool {
    matches!(element, ElementType::Fp32 | ElementType::Fp16)
}

/// `values` as a vector of the type is stored; one value per bit for the bit types.
fn encode(element: ElementType, values: &[f64]) -> Vec<u8> {
    match element {
        ElementType::Fp32 => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        ElementType::Fp16 => {
            values.iter().flat_map(|v| half::f16::from_f64(*v).to_le_bytes()).collect()
        }
        ElementType::Int8 => values.iter().map(|v| (*v as i8).cast_unsigned()).collect(),
        ElementType::Int16 => values.iter().flat_map(|v| (*v as i16).to_le_bytes()).collect(),
        ElementType::Int4 => {
            let nibble = |v: f64| (v as i8).cast_unsigned() & 0x0f;
            values.chunks(2).map(|pair| nibble(pair[0]) | nibble(pair[1]) << 4).collect()
        }
        ElementType::Binary32 | ElementType::Binary64 => values
            .chunks(8)
            .map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | (*bit as u8)))
            .collect(),
    }
}

/// Values that the type holds exactly.
fn random(element: ElementType, dimension: u32, rng: &mut StdRng) -> Vec<f64> {
    let value = |rng: &mut StdRng| match element {
        ElementType::Fp32 => f64::from(rng.random_range(-1.0f32..1.0)),
        ElementType::Fp16 => half::f16::from_f32(rng.random_range(-1.0..1.0)).to_f64(),
        ElementType::Int8 => f64::from(rng.random::<i8>()),
        ElementType::Int16 => f64::from(rng.random::<i16>()),
        ElementType::Int4 => f64::from(rng.random_range(-8i8..8)),
        ElementType::Binary32 | ElementType::Binary64 => f64::from(rng.random_range(0u8..2)),
    };
    (0..dimension).map(|_| value(rng)).collect()
}

/// The score by the metric's definition, and the size of the terms it came from.
fn oracle(metric: Metric, a: &[f64], b: &[f64]) -> (f64, f64) {
    let sum =
        |term: fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(a, b)| term(*a, *b)).sum() };
    let squares = sum(|a, b| (a - b) * (a - b));
    let products = sum(|a, b| a * b);
    match metric {
        Metric::SquaredEuclidean | Metric::Hamming => (squares, squares),
        Metric::Euclidean => (squares.sqrt(), squares.sqrt()),
        Metric::InnerProduct => (-products, sum(|a, b| (a * b).abs())),
        Metric::Manhattan => {
            let absolutes = sum(|a, b| (a - b).abs());
            (absolutes, absolutes)
        }
        Metric::Cosine => {
            let norms = sum(|a, _| a * a) * sum(|_, b| b * b);
            let score = if norms == 0.0 { 1.0 } else { 1.0 - products / norms.sqrt() };
            (score.clamp(0.0, 2.0), 1.0)
        }
    }
}

/// The score of one pair at one level; `values` need not be random.
fn score(level: SimdLevel, element: ElementType, metric: Metric, a: &[f64], b: &[f64]) -> f32 {
    Query::with_level(level, element, metric, a.len() as u32, &encode(element, a))
        .expect("the metric fits")
        .distance(&encode(element, b))
        .expect("the lengths fit")
}

/// Scans random rows and compares each score with the oracle and with the row scored alone.
fn check(level: SimdLevel, element: ElementType, metric: Metric, dimension: u32) {
    let context = format!("{} {element:?} {metric:?} {dimension}", level.name());
    let mut rng = StdRng::seed_from_u64(u64::from(dimension));
    let query = random(element, dimension, &mut rng);
    let rows: Vec<_> = (0..3).map(|_| random(element, dimension, &mut rng)).collect();
    // One byte off any alignment.
    let mut stored = vec![0];
    rows.iter().for_each(|row| stored.extend(encode(element, row)));
    let stored = &stored[1..];

    let prepared =
        Query::with_level(level, element, metric, dimension, &encode(element, &query)).unwrap();
    let mut scores = vec![f32::NAN; rows.len()];
    assert!(prepared.distances(stored, &mut scores), "{context}");

    for (row, score) in rows.iter().zip(&scores) {
        let (expected, scale) = oracle(metric, &query, row);
        if is_float(element) {
            let error = (f64::from(*score) - expected).abs();
            assert!(error <= 1e-5 * scale, "{context}: {score} is not {expected}");
        } else {
            assert_eq!(*score, expected as f32, "{context}");
        }
        let alone = prepared.distance(&encode(element, row)).expect("the lengths fit");
        assert_eq!(alone.to_bits(), score.to_bits(), "{context}");
    }
}

#[test]
fn every_kernel_scores_by_definition_in_a_batch_and_alone() {
    for level in levels() {
        for element in ELEMENTS {
            for metric in metrics().filter(|metric| fits(element, *metric)) {
                for dimension in DIMENSIONS {
                    if element.vector_bytes(dimension).is_some() {
                        check(level, element, metric, dimension);
                    }
                }
            }
        }
    }
}

#[test]
fn floats_of_small_integers_score_exactly() {
    let mut rng = StdRng::seed_from_u64(1);
    for dimension in [1, 5, 100, 128, 1000] {
        let a: Vec<f64> = (0..dimension).map(|_| f64::from(rng.random_range(-8..8))).collect();
        let b: Vec<f64> = (0..dimension).map(|_| f64::from(rng.random_range(-8..8))).collect();
        for level in levels() {
            for element in [ElementType::Fp32, ElementType::Fp16] {
                for metric in metrics().filter(|metric| fits(element, *metric)) {
                    let expected = oracle(metric, &a, &b).0 as f32;
                    assert_eq!(score(level, element, metric, &a, &b), expected, "{metric:?}");
                }
            }
        }
    }
}

#[test]
fn integers_at_their_ends_do_not_overflow() {
    for (element, low, high) in [
        (ElementType::Int8, -128.0, 127.0),
        (ElementType::Int4, -8.0, 7.0),
        (ElementType::Int16, -32768.0, 32767.0),
    ] {
        for dimension in [64, 65_536, 600_002] {
            let vector = |value| encode(element, &[value; 2]).repeat(dimension as usize / 2);
            for (a, b) in [(low, high), (low, low), (high, high)] {
                let count = f64::from(dimension);
                for (metric, expected) in [
                    (Metric::SquaredEuclidean, count * (a - b) * (a - b)),
                    (Metric::InnerProduct, -count * a * b),
                    (Metric::Manhattan, count * (a - b).abs()),
                    (Metric::Cosine, if a * b > 0.0 { 0.0 } else { 2.0 }),
                ] {
                    for level in levels() {
                        let query =
                            Query::with_level(level, element, metric, dimension, &vector(a));
                        let score = query.expect("the metric fits").distance(&vector(b));
                        assert_eq!(score, Some(expected as f32), "{element:?} {metric:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn floats_out_of_the_range_of_their_squares_still_score() {
    let a: Vec<f64> = (1..100).map(f64::from).collect();
    let b: Vec<f64> = (1..100).map(|i| f64::from(i % 7) - 2.0).collect();
    let scaled = |values: &[f64], by: f64| values.iter().map(|v| v * by).collect::<Vec<_>>();
    for level in levels() {
        let score = |metric, a: &[f64], b: &[f64]| score(level, ElementType::Fp32, metric, a, b);
        let cosine = score(Metric::Cosine, &a, &b);
        for (left, right) in [(1e30, 1e30), (1e-30, 1e-30), (1e-25, 1e-10), (1e30, 1.0)] {
            let scaled = score(Metric::Cosine, &scaled(&a, left), &scaled(&b, right));
            assert!((scaled - cosine).abs() < 1e-5, "{left} {right}: {scaled} is not {cosine}");
        }
        let euclidean = score(Metric::Euclidean, &a, &b);
        let scaled_up = score(Metric::Euclidean, &scaled(&a, 1e30), &scaled(&b, 1e30));
        assert!((scaled_up / 1e30 / euclidean - 1.0).abs() < 1e-5);
        // The products are infinite in both directions as `f32`, and cancel.
        assert_eq!(score(Metric::InnerProduct, &[3e38, 3e38], &[3e38, -3e38]), 0.0);
        assert_eq!(score(Metric::SquaredEuclidean, &[3e38], &[-3e38]), f32::INFINITY);
    }
}

#[test]
fn small_numbers_are_at_the_distances_that_they_are_at() {
    let vector = |numbers: &[f64]| encode(ElementType::Fp32, numbers);
    let mut rng = StdRng::seed_from_u64(3);
    for level in levels() {
        for dimension in [1u32, 2, 17, 100, 1000] {
            for size in [1e-38, 1e-25, 1e-20, 1e-17, 1e-10, 1.0] {
                let numbers = |rng: &mut StdRng| -> Vec<f64> {
                    let all = (0..dimension).map(|_| rng.random_range(-1.0..1.0) * size);
                    all.map(|x: f64| f64::from(x as f32)).collect()
                };
                let query = numbers(&mut rng);
                let rows: Vec<_> = (0..3).map(|_| numbers(&mut rng)).collect();
                for metric in metrics().filter(|metric| fits(ElementType::Fp32, *metric)) {
                    let prepared = Query::with_level(
                        level,
                        ElementType::Fp32,
                        metric,
                        dimension,
                        &vector(&query),
                    );
                    let prepared = prepared.expect("the metric fits");
                    let stored: Vec<u8> = rows.iter().flat_map(|row| vector(row)).collect();
                    let mut scores = [f32::NAN; 3];
                    assert!(prepared.distances(&stored, &mut scores));
                    for (row, score) in rows.iter().zip(scores) {
                        let (expected, scale) = oracle(metric, &query, row);
                        // Half of the smallest number that there is, where the score is none that is larger.
                        let allowed = 1e-5 * scale + 0.5 * f64::from(f32::from_bits(1));
                        assert!(
                            (f64::from(score) - expected).abs() <= allowed,
                            "{} {metric:?} {dimension} {size}: {score} is not {expected}",
                            level.name()
                        );
                        assert_eq!(prepared.distance(&vector(row)), Some(score));
                    }
                    let itself = prepared.distance(&vector(&query)).expect("the length fits");
                    assert!(metric == Metric::InnerProduct || itself == 0.0);
                }
            }
        }
        // A large number beside small ones: they are all of the distance.
        let (a, b) = ([1e20, 5e-25], [1e20, 1e-25]);
        let score = score(level, ElementType::Fp32, Metric::Euclidean, &a, &b);
        assert!((f64::from(score) / 4e-25 - 1.0).abs() < 1e-5, "{score}");
    }
}

#[test]
fn cosine_is_one_from_a_zero_vector_and_zero_from_itself() {
    let mut rng = StdRng::seed_from_u64(2);
    for level in levels() {
        for element in ELEMENTS.into_iter().filter(|element| !element.is_binary()) {
            for dimension in [2, 34, 100, 128, 1000] {
                let vector = random(element, dimension, &mut rng);
                let zero = vec![0.0; dimension as usize];
                let cosine = |a, b| score(level, element, Metric::Cosine, a, b);
                assert_eq!(cosine(&vector, &zero), 1.0);
                assert_eq!(cosine(&zero, &vector), 1.0);
                assert_eq!(cosine(&zero, &zero), 1.0);
                assert_eq!(cosine(&vector, &vector), 0.0);
            }
        }
    }
}

#[test]
fn no_inner_product_is_negative_zero() {
    for level in levels() {
        let score = score(level, ElementType::Fp32, Metric::InnerProduct, &[1.0, 0.0], &[0.0, 1.0]);
        assert_eq!(score.to_bits(), 0.0f32.to_bits());
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for element in ELEMENTS {
        let bytes = vec![0; element.vector_bytes(64).expect("64 fits all")];
        let metric = Metric::SquaredEuclidean;
        let query = Query::new(element, metric, 64, &bytes).expect("the metric fits");
        assert!(Query::new(element, metric, 64, &bytes[1..]).is_none());
        assert!(Query::new(element, metric, 128, &bytes).is_none());
        assert!(Query::new(element, metric, 0, &[]).is_none());

        assert_eq!(query.distance(&bytes[1..]), None);
        assert_eq!(query.distance(&[]), None);
        let mut out = [f32::NAN; 2];
        assert!(!query.distances(&bytes, &mut out));
        assert!(out.iter().all(|score| score.is_nan()));
        assert!(query.distances(&bytes.repeat(2), &mut out));
        assert_eq!(out, [0.0; 2]);
        assert!(query.distances(&[], &mut []));
    }
    assert!(Query::new(ElementType::Int4, Metric::Cosine, 3, &[0, 0]).is_none());
}

#[test]
fn metrics_that_do_not_fit_are_refused() {
    for element in ELEMENTS {
        let bytes = vec![0; element.vector_bytes(64).expect("64 fits all")];
        for metric in metrics() {
            let query = Query::new(element, metric, 64, &bytes);
            assert_eq!(query.is_some(), fits(element, metric), "{element:?} {metric:?}");
        }
    }
}

#[test]
fn the_detected_level_is_the_first_supported_one() {
    assert_eq!(Some(SimdLevel::detect()), levels().next());
}
