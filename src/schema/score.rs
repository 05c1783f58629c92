//! Scores in the shapes that other systems give them.

use super::types::Metric;

/// What the scores of an answer are. Hits come nearest first whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScoreShape {
    /// The distance, as [`Metric`] has it: smaller is nearer.
    #[default]
    Distance,
    /// What Elasticsearch's `script_score` examples make of it, 0 to 2: larger is nearer.
    Elasticsearch,
    /// What Milvus returns: the inner product and the cosine, of which larger is nearer; or else the
    /// distance, which is squared for Euclidean ones.
    Milvus,
}

impl ScoreShape {
    /// Every shape with its name.
    pub const ALL: [(&'static str, ScoreShape); 3] = [
        ("distance", ScoreShape::Distance),
        ("elasticsearch", ScoreShape::Elasticsearch),
        ("milvus", ScoreShape::Milvus),
    ];

    /// The shape of that name, in letters of any case.
    pub fn from_name(name: &str) -> Option<ScoreShape> {
        let mut known = Self::ALL.into_iter();
        known.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, shape)| shape)
    }

    /// The score of a distance between vectors of `dimension` elements.
    pub fn score(self, metric: Metric, dimension: u32, distance: f32) -> f32 {
        // In 64 bits, so that a score is off by no more than its own rounding.
        let far = f64::from(distance);
        let score = match (self, metric) {
            (ScoreShape::Distance, _) => return distance,
            // cosineSimilarity(..) + 1.0
            (ScoreShape::Elasticsearch, Metric::Cosine) => 2.0 - far,
            // sigmoid(1, Math.E, -dotProduct(..))
            (ScoreShape::Elasticsearch, Metric::InnerProduct) => 1.0 / (1.0 + far.exp()),
            // 1 / (1 + l1norm(..))
            (ScoreShape::Elasticsearch, Metric::Manhattan) => 1.0 / (1.0 + far),
            // 1 / (1 + l2norm(..))
            (ScoreShape::Elasticsearch, Metric::Euclidean) => 1.0 / (1.0 + far),
            (ScoreShape::Elasticsearch, Metric::SquaredEuclidean) => 1.0 / (1.0 + far.sqrt()),
            // (dimension - hamming(..)) / dimension
            (ScoreShape::Elasticsearch, Metric::Hamming) => 1.0 - far / f64::from(dimension),
            (ScoreShape::Milvus, Metric::Cosine) => 1.0 - far,
            // Not its negation, which would be -0 for 0.
            (ScoreShape::Milvus, Metric::InnerProduct) => 0.0 - far,
            (ScoreShape::Milvus, Metric::Euclidean) => far * far,
            (
                ScoreShape::Milvus,
                Metric::SquaredEuclidean | Metric::Manhattan | Metric::Hamming,
            ) => far,
        };
        score as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_what_the_other_systems_give() {
        use Metric::*;
        // (1, 2, 2) and (3, -1, 2): the dot product is 5, the differences are (-2, 3, 0).
        let cosine = 5.0 / (3.0 * 14f64.sqrt());
        let expected = [
            (Cosine, 1.0 - cosine, cosine + 1.0, cosine),
            (InnerProduct, -5.0, 1.0 / (1.0 + (-5f64).exp()), 5.0),
            (Manhattan, 5.0, 1.0 / 6.0, 5.0),
            (Euclidean, 13f64.sqrt(), 1.0 / (1.0 + 13f64.sqrt()), 13.0),
            (SquaredEuclidean, 13.0, 1.0 / (1.0 + 13f64.sqrt()), 13.0),
            (Hamming, 8.0, 24.0 / 32.0, 8.0),
        ];
        for (metric, distance, elasticsearch, milvus) in expected {
            let score = |shape: ScoreShape| shape.score(metric, 32, distance as f32);
            assert_eq!(score(ScoreShape::Distance), distance as f32);
            let near = |a: f32, b: f64| (f64::from(a) - b).abs() <= 2e-7 * b.abs().max(1.0);
            assert!(near(score(ScoreShape::Elasticsearch), elasticsearch), "{metric:?}");
            assert!(near(score(ScoreShape::Milvus), milvus), "{metric:?}");
        }
        let zero = ScoreShape::Milvus.score(InnerProduct, 3, 0.0);
        assert!(zero == 0.0 && zero.is_sign_positive());
        // Where the exponential function leaves its range.
        assert_eq!(ScoreShape::Elasticsearch.score(InnerProduct, 3, 1e9), 0.0);
        assert_eq!(ScoreShape::Elasticsearch.score(InnerProduct, 3, -1e9), 1.0);
    }

    #[test]
    fn nearest_first_stays_nearest_first_in_every_shape() {
        for (_, metric) in Metric::ALL {
            let distances = (0..64).map(|step| match metric {
                Metric::InnerProduct => (step - 32) as f32 / 4.0,
                Metric::Cosine => step as f32 / 32.0,
                _ => step as f32,
            });
            for (_, shape) in ScoreShape::ALL {
                let scores: Vec<f32> =
                    distances.clone().map(|far| shape.score(metric, 64, far)).collect();
                let is_larger_nearer = match shape {
                    ScoreShape::Distance => false,
                    ScoreShape::Elasticsearch => true,
                    ScoreShape::Milvus => matches!(metric, Metric::InnerProduct | Metric::Cosine),
                };
                assert!(scores.is_sorted_by(|a, b| if is_larger_nearer { a > b } else { a < b }));
            }
        }
    }
}
