//! The kernel for the bit types: differing bits, or their root.

use super::kernel::{Finish, Kernel, Scan};
use super::lanes::Differ;
use crate::schema::Metric;

/// The kernel for a query of a bit type; `None` where the metric does not fit.
pub(super) fn scanner<L: Differ>(lanes: L, metric: Metric, query: &[u8]) -> Option<Box<dyn Scan>> {
    let finish = match metric {
        Metric::SquaredEuclidean | Metric::Hamming => Finish::Keep,
        Metric::Euclidean => Finish::Root,
        Metric::InnerProduct | Metric::Cosine | Metric::Manhattan => return None,
    };
    Some(Box::new(BitKernel { lanes, query: query.into(), finish }))
}

struct BitKernel<L> {
    lanes: L,
    query: Box<[u8]>,
    finish: Finish,
}

impl<L: Differ> Kernel for BitKernel<L> {
    type Target = L;

    fn target(&self) -> L {
        self.lanes
    }

    #[inline(always)]
    fn distance(&self, row: &[u8]) -> f32 {
        self.finish.score(self.lanes.differing(&self.query, row) as f64)
    }
}
