//! One ranked list of rows for all vectors of a query: how what each of them finds is put together.

use super::search::Rule;

/// How rows are ranked by several query vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregationKind {
    /// By how many query vectors have the row among their nearest stored vectors; most first, then by the
    /// sum of the best distances of the query vectors that voted. The score is minus the votes.
    Votes,
    /// By the sum over all query vectors of the best similarity that any of the row's vectors has (MaxSim:
    /// Khattab & Zaharia, "ColBERT", 2020). The similarity is the cosine for Cosine, else minus the
    /// distance, which is the inner product for InnerProduct. The score is minus the sum.
    MaxSim,
    /// By the least distance between any query vector and any of the row's, which is the score.
    MinDistance,
}

impl AggregationKind {
    /// Every kind with its name.
    pub const ALL: [(&'static str, AggregationKind); 3] = [
        ("votes", AggregationKind::Votes),
        ("max_sim", AggregationKind::MaxSim),
        ("min_distance", AggregationKind::MinDistance),
    ];

    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            AggregationKind::Votes => "votes",
            AggregationKind::MaxSim => "max_sim",
            AggregationKind::MinDistance => "min_distance",
        }
    }
}

/// How a query puts together what its vectors find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregation {
    /// The kind.
    pub kind: AggregationKind,
    /// Votes: nearest stored vectors of each query vector whose rows it votes for; `None` for `topk`.
    /// Max_sim: rows that each query vector proposes, at least `topk`; `None` for 4 times that. At least 1.
    /// Not for min_distance.
    pub k_per_vector: Option<u32>,
    /// Votes that a row needs to be found, at least 1; `None` for 1. For votes only.
    pub min_votes: Option<u32>,
}

/// As many times the rows wanted are proposed by each query vector: one that is near to all of them need
/// not be among the nearest of any.
const PROPOSED: usize = 4;

const K_PER_VECTOR: Rule = Rule("k_per_vector", "a whole number from 1");
const MIN_VOTES: Rule = Rule("min_votes", "a whole number from 1");

impl Aggregation {
    /// Reads an aggregation that was sent as text; `None` where there is none.
    pub fn from_text(pairs: &[(String, String)]) -> Option<Result<Self, String>> {
        Self::read(pairs).transpose()
    }

    fn read(pairs: &[(String, String)]) -> Result<Option<Self>, String> {
        let (k_per_vector, min_votes) = (K_PER_VECTOR.whole(pairs)?, MIN_VOTES.whole(pairs)?);
        let Some((_, name)) = pairs.iter().find(|(key, _)| key == "aggregation") else {
            let set = [("k_per_vector", k_per_vector), ("min_votes", min_votes)];
            return match set.iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(format!("{name} goes with an aggregation only")),
                None => Ok(None),
            };
        };
        let kind = AggregationKind::ALL.iter().find(|(known, _)| known == name);
        let (_, kind) = kind.ok_or_else(|| {
            let known = AggregationKind::ALL.map(|(name, _)| name).join(", ");
            format!("aggregation {name:?} is unknown; known: {known}")
        })?;
        Ok(Some(Aggregation { kind: *kind, k_per_vector, min_votes }))
    }

    /// Refuses what is outside its range, and what does not go with the kind.
    pub fn check(&self) -> Result<(), String> {
        K_PER_VECTOR.check(self.k_per_vector, |count| count > 0)?;
        MIN_VOTES.check(self.min_votes, |votes| votes > 0)?;
        let kind = self.kind.name();
        if self.min_votes.is_some() && self.kind != AggregationKind::Votes {
            return Err(format!("min_votes goes with votes only, not with {kind}"));
        }
        if self.k_per_vector.is_some() && self.kind == AggregationKind::MinDistance {
            return Err(format!("k_per_vector goes with votes and max_sim only, not with {kind}"));
        }
        Ok(())
    }

    /// What is looked for with each query vector: stored vectors for votes, else rows.
    pub fn k_per_vector(&self, topk: usize) -> usize {
        let asked = self.k_per_vector.map(|k| k as usize);
        match self.kind {
            AggregationKind::Votes => asked.unwrap_or(topk),
            // Where k rows are to be found, k are looked for.
            AggregationKind::MaxSim => asked.unwrap_or(topk.saturating_mul(PROPOSED)).max(topk),
            AggregationKind::MinDistance => topk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Option<Result<Aggregation, String>> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let read = Aggregation::from_text(&pairs)?;
        Some(read.and_then(|aggregation| aggregation.check().map(|()| aggregation)))
    }

    #[test]
    fn text_becomes_the_aggregation_that_it_names() {
        assert_eq!(read(&[("ef_search", "10")]), None);
        for (name, kind) in AggregationKind::ALL {
            let plain = Aggregation { kind, k_per_vector: None, min_votes: None };
            assert_eq!(read(&[("aggregation", name)]), Some(Ok(plain)));
            assert_eq!(kind.name(), name);
        }
        let votes = [("min_votes", " 3 "), ("aggregation", "votes"), ("k_per_vector", "7")];
        let kind = AggregationKind::Votes;
        let expected = Aggregation { kind, k_per_vector: Some(7), min_votes: Some(3) };
        assert_eq!(read(&votes), Some(Ok(expected)));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        for (pairs, words) in [
            (
                &[("aggregation", "Votes")][..],
                "aggregation \"Votes\" is unknown; known: votes, max_sim",
            ),
            (&[("aggregation", "")], "aggregation \"\" is unknown"),
            (&[("aggregation", "votes"), ("min_votes", "0")], "min_votes is 0; it must be"),
            (&[("aggregation", "votes"), ("min_votes", "x")], "min_votes is \"x\"; it must be"),
            (&[("aggregation", "votes"), ("k_per_vector", "0")], "k_per_vector is 0; it must be"),
            (&[("aggregation", "max_sim"), ("min_votes", "1")], "min_votes goes with votes only"),
            (&[("aggregation", "min_distance"), ("k_per_vector", "1")], "k_per_vector goes with"),
            (&[("min_votes", "2")], "min_votes goes with an aggregation only"),
            (&[("k_per_vector", "2")], "k_per_vector goes with an aggregation only"),
        ] {
            let refused = read(pairs).expect("it is one").expect_err("it does not fit");
            assert!(refused.starts_with(words), "{pairs:?}: {refused}");
        }
    }

    #[test]
    fn what_is_looked_for_follows_topk_unless_told() {
        let each = |kind, k_per_vector| Aggregation { kind, k_per_vector, min_votes: None };
        assert_eq!(each(AggregationKind::Votes, None).k_per_vector(5), 5);
        assert_eq!(each(AggregationKind::Votes, Some(2)).k_per_vector(5), 2);
        assert_eq!(each(AggregationKind::MaxSim, None).k_per_vector(5), 20);
        assert_eq!(each(AggregationKind::MaxSim, None).k_per_vector(usize::MAX), usize::MAX);
        assert_eq!(each(AggregationKind::MaxSim, Some(2)).k_per_vector(5), 5);
        assert_eq!(each(AggregationKind::MaxSim, Some(9)).k_per_vector(5), 9);
        assert_eq!(each(AggregationKind::MinDistance, None).k_per_vector(5), 5);
    }
}
