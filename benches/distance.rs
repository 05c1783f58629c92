//! Throughput of exact scans on one core, in stored bytes per second: `cargo bench --bench distance`.
//!
//! 16 MiB of rows per scan is more than most cores have in their own caches; `resident` scans 256 KiB
//! again and again, which shows the kernel and not the memory.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use voisin::schema::{ElementType, Metric};
use voisin::simd::{Query, SimdLevel};

const CASES: [(ElementType, Metric, u32); 12] = [
    (ElementType::Fp32, Metric::SquaredEuclidean, 128),
    (ElementType::Fp32, Metric::InnerProduct, 128),
    (ElementType::Fp32, Metric::Cosine, 128),
    (ElementType::Fp32, Metric::SquaredEuclidean, 100),
    (ElementType::Fp32, Metric::SquaredEuclidean, 768),
    (ElementType::Fp16, Metric::SquaredEuclidean, 128),
    (ElementType::Int8, Metric::SquaredEuclidean, 128),
    (ElementType::Int8, Metric::Cosine, 128),
    (ElementType::Int4, Metric::SquaredEuclidean, 128),
    (ElementType::Int16, Metric::SquaredEuclidean, 128),
    (ElementType::Binary32, Metric::Hamming, 96),
    (ElementType::Binary64, Metric::Hamming, 512),
];

/// `count` random stored vectors. Floats are made from small integers, never infinities or NaNs.
fn rows(element: ElementType, dimension: u32, count: usize, rng: &mut StdRng) -> Vec<u8> {
    let elements = dimension as usize * count;
    match element {
        ElementType::Fp32 => {
            (0..elements).flat_map(|_| f32::from(rng.random::<i8>()).to_le_bytes()).collect()
        }
        ElementType::Fp16 => {
            (0..elements).flat_map(|_| half::f16::from(rng.random::<i8>()).to_le_bytes()).collect()
        }
        _ => {
            let bytes = element.vector_bytes(dimension).expect("the dimension fits") * count;
            (0..bytes).map(|_| rng.random()).collect()
        }
    }
}

fn scans(criterion: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(0);
    for (name, bytes) in [("memory", 16 << 20), ("resident", 256 << 10)] {
        let mut group = criterion.benchmark_group(format!("{name}/{}", SimdLevel::detect().name()));
        for (element, metric, dimension) in CASES {
            let vector_bytes = element.vector_bytes(dimension).expect("the dimension fits");
            let count = bytes / vector_bytes;
            let stored = rows(element, dimension, count, &mut rng);
            let query = rows(element, dimension, 1, &mut rng);
            let query = Query::new(element, metric, dimension, &query).expect("the metric fits");
            let mut scores = vec![0.0; count];
            group.throughput(Throughput::Bytes((count * vector_bytes) as u64));
            let id = BenchmarkId::new(format!("{}/{}", element.name(), metric.name()), dimension);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    assert!(query.distances(black_box(&stored), black_box(&mut scores)));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, scans);
criterion_main!(benches);
