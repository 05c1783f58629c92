//! Whatever description is taken, faiss answers by an index or by an error: it never ends the process.

use proptest::prelude::*;

use super::oracle::Rows;
use super::params;
use crate::native::{TrainedIndex, TrainedSpace};
use crate::schema::{
    CollectionSchema, DeclaredType, ElementType, IndexKind, Metric, NewCollection, NewColumn,
    SchemaLimits,
};
use rand::{SeedableRng, rngs::StdRng};

const ROWS: usize = 700;
const TRANSFORMS: [&str; 20] = [
    "",
    "",
    "",
    "PCA4,",
    "PCAWR4,",
    "OPQ4_8,",
    "OPQ4,",
    "ITQ4,",
    "ITQ,",
    "RR4,",
    "RR32,",
    "Pad16,",
    "L2norm,",
    "RR4,PCA2,",
    "PCA32,",
    "PCAWR32,",
    "ITQ32,",
    "OPQ1,",
    "OPQ2_32,",
    "Pad1,",
];
const COARSE: [&str; 12] = [
    "",
    "",
    "IVF16,",
    "IVF4,",
    "IVF16_HNSW8,",
    "IVF16_HNSW,",
    "HNSW8,",
    "IVF1,",
    "IVF16_HNSW1,",
    "IVF16_HNSW2,",
    "HNSW1,",
    "HNSW2,",
];
const CODES: [&str; 61] = [
    "Flat",
    "SQ8",
    "SQ4",
    "SQ6",
    "SQfp16",
    "SQbf16",
    "SQ8_direct",
    "SQ8_direct_signed",
    "PQ4x4np",
    "PQ4x4fs",
    "PQ4x4fsr",
    "PQ4x4fs_64",
    "PQ4+4",
    "PQ4x6np",
    "PQ2x3",
    "LSH",
    "LSH8",
    "LSHrt",
    "HNSW8",
    "HNSW8_SQ8",
    "HNSW8_PQ4x4np",
    "RQ2x4",
    "LSQ2x4",
    "PRQ2x2x4",
    "PLSQ2x2x4",
    "RQ2x4_Nfloat",
    "RQ2x4_Nqint4",
    "LSQ2x4_Nnone",
    "PRQ2x2x4_Nqint8",
    "RQ4x4fs_Nrq2x4",
    "RaBitQ",
    "LSQ4x4fs_Nlsq2x4",
    "PRQ2x2x4fs_Nlsq2x4",
    "PLSQ2x2x4fs",
    "RQ2x5",
    "HNSW1",
    "HNSW2",
    "HNSW256",
    "PQ1x1np",
    "PQ4x1np",
    "PQ4x4fs_1",
    "PQ4x4fs_33",
    "PQ3x4fs",
    "PQ1x4fs",
    "PQ4+3",
    "PQ4+8",
    "LSH1",
    "LSH64rt",
    "LSH64t",
    "RQ1x1",
    "RQ9x2",
    "LSQ1x1",
    "LSQ3x2",
    "PRQ1x1x1",
    "PRQ3x2x2",
    "PLSQ4x3x2_Nnone",
    "RQ1x4fs",
    "RQ3x4fs_32_Nrq2x4",
    "RQ2x4fs_1_Nlsq2x4",
    "LSQ1x4fs",
    "PRQ1x1x4fs",
];
const REFINES: [&str; 6] = ["", "", ",RFlat", ",Refine(SQ8)", ",Refine(PQ4x4np)", ",Refine(Flat)"];

fn kind(description: &str, space: TrainedSpace) -> Option<IndexKind> {
    let column = NewColumn {
        name: "v".into(),
        index_type: 1,
        data_type: DeclaredType::Vector(space.element),
        dimension: space.dimension,
        extra_params: vec![
            ("index_factory".into(), description.into()),
            ("metric_type".into(), space.metric.name().into()),
        ],
    };
    let new = NewCollection { name: "c".into(), columns: vec![column], ..Default::default() };
    let limits = SchemaLimits { dimension_max: 100, columns_max: 10 };
    let schema = CollectionSchema::new(new, &limits, |_| false).ok()?;
    Some(schema.columns[0].index.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_description_that_is_taken_never_ends_the_process(
        transform in prop::sample::select(&TRANSFORMS),
        coarse in prop::sample::select(&COARSE),
        code in prop::sample::select(&CODES),
        refine in prop::sample::select(&REFINES),
        metric in prop::sample::select(vec![
            Metric::SquaredEuclidean, Metric::InnerProduct, Metric::Cosine,
        ]),
        dimension in prop::sample::select(vec![7, 8, 16]),
    ) {
        let space = TrainedSpace { element: ElementType::Fp32, metric, dimension };
        let text = format!("{transform}{coarse}{code}{refine}");
        let Some(IndexKind::Trained { recipe, .. }) = kind(&text, space) else { return Ok(()) };
        let Ok(mut index) = TrainedIndex::new(&recipe.description(0), space) else { return Ok(()) };
        let params = params(space.element, metric, dimension);
        let rows = Rows::random(&params, ROWS, &mut StdRng::seed_from_u64(3));
        let filled = index.train(rows.iter(), 1).and_then(|()| index.add(rows.iter(), 1));
        prop_assert!(filled.is_ok(), "{text} {metric:?} {dimension}: {filled:?}");
        let mut bytes = Vec::new();
        index.write(&mut bytes).expect("faiss writes").expect("a vector takes it");
        let again = TrainedIndex::read(&bytes, space);
        let again = again.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let even = |id: u32| id.is_multiple_of(2);
        for (effort, k) in [(1, 1), (4, 10), (1_000, ROWS)] {
            for admit in [None, Some(&even as &dyn Fn(u32) -> bool)] {
                let found = again.search(rows.row(5), k, effort, admit);
                prop_assert!(found.is_ok(), "{text} {metric:?} {dimension}: {found:?}");
                let found = found.expect("just checked");
                prop_assert!(found.iter().all(|id| (*id as usize) < ROWS));
                let is_choosy = admit.is_some() && again.takes_selector();
                prop_assert!(!is_choosy || found.iter().all(|id| even(*id)), "{text}");
            }
        }
    }
}
