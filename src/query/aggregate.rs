//! One ranked list of rows from what several query vectors find.

use std::ops::Range;

use hashbrown::HashMap;
use rayon::prelude::*;

use super::execute::{Search, SegmentRef, Stop};
use super::reply::Votes;
use crate::error::Result;
use crate::index::{Best, Candidate, RowSet, TopK};
use crate::schema::{Aggregation, AggregationKind, Metric};
use crate::segment::RecallSource;
use crate::simd::Query;

/// Vectors that one task scores when all rows are looked at.
const TASK_VECTORS: u64 = 16_384;

/// A segment of the snapshot and a row of it.
type Place = (u32, u32);

/// The votes for a row.
#[derive(Debug, Clone, Copy)]
struct Tally {
    key: u64,
    votes: u32,
    /// The last query vector that voted for it.
    last: usize,
    /// The sum of the best distances of those that did.
    distances: f64,
}

impl Search<'_> {
    /// The rows that all query vectors find together, best first, with their votes where these count.
    pub(super) fn together(
        &self,
        aggregation: Aggregation,
    ) -> std::result::Result<(Vec<Candidate>, Vec<Votes>), Stop> {
        let topk = self.plan.topk;
        match aggregation.kind {
            AggregationKind::Votes => {
                let found = self.each(|vector| self.one(vector))?;
                Ok(count_votes(&found, topk, aggregation.min_votes.unwrap_or(1)))
            }
            AggregationKind::MinDistance => {
                Ok((least(self.each(|vector| self.one(vector))?, topk), Vec::new()))
            }
            AggregationKind::MaxSim => Ok((self.max_sim()?, Vec::new())),
        }
    }

    /// The rows with the highest sum of best similarities: of those that the query vectors propose, or of
    /// all, where an exact answer is wanted or costs no more.
    fn max_sim(&self) -> std::result::Result<Vec<Candidate>, Stop> {
        let vectors = &self.plan.vectors;
        let queries: Result<Vec<Query>> = vectors.iter().map(|vector| self.query(vector)).collect();
        let scorer = MaxSim { search: self, queries: queries?, metric: self.plan.metric };
        let most = (self.k as u64).saturating_mul(vectors.len() as u64);
        if !self.has_index() || self.allowed_rows() <= most {
            let all = scorer.all();
            self.cancel.check()?;
            return Ok(all);
        }
        let mut proposed: Vec<(Place, u64)> = self
            .each(|vector| self.one(vector))?
            .into_iter()
            .flatten()
            .map(|found| (found.place, found.key))
            .collect();
        proposed.sort_unstable();
        proposed.dedup();
        // What nobody proposes may still have a higher sum.
        self.told.note(None, RecallSource::Unmeasured, 0);
        let best = scorer.of(&proposed);
        self.cancel.check()?;
        Ok(best)
    }

    /// Rows that may be found, deleted ones included.
    fn allowed_rows(&self) -> u64 {
        match self.allowed {
            None => self.segments.iter().map(SegmentRef::rows).sum(),
            Some(sets) => sets.iter().map(|set| set.len() as u64).sum(),
        }
    }
}

/// Scores rows by all query vectors.
struct MaxSim<'a> {
    search: &'a Search<'a>,
    queries: Vec<Query>,
    metric: Metric,
}

impl MaxSim<'_> {
    /// Minus the sum of the best similarities of a row; `None` for a row without a vector, and when nobody
    /// waits for it any more.
    fn score(&self, (segment, row): Place, scores: &mut Vec<f32>) -> Option<f32> {
        let plan = self.search.plan;
        let vectors = self.search.segments[segment as usize].vectors_of(plan.column, row)?;
        let count = vectors.len() / self.search.column.vector_bytes()?;
        scores.clear();
        scores.resize(count, 0.0);
        let mut sum = 0.0;
        for query in &self.queries {
            if self.search.cancel.is_set() || !query.distances(vectors, scores) {
                return None;
            }
            // Ignores what is not a number.
            sum += f64::from(scores.iter().copied().fold(f32::INFINITY, f32::min));
        }
        // The cosine is 1 minus the distance, every other similarity 0 minus it.
        let most = if self.metric == Metric::Cosine { self.queries.len() as f64 } else { 0.0 };
        Some((sum - most) as f32)
    }

    /// The best of these rows.
    fn of(&self, rows: &[(Place, u64)]) -> Vec<Candidate> {
        let scored = |scores: &mut Vec<f32>, (place, key): &(Place, u64)| {
            let score = self.score(*place, scores)?;
            Some(Candidate { score, key: *key, place: *place })
        };
        let scored: Vec<Candidate> = self
            .search
            .compute
            .spread(|| rows.par_iter().map_init(Vec::new, scored).flatten_iter().collect());
        self.best(scored)
    }

    /// The best of all rows that may be found.
    fn all(&self) -> Vec<Candidate> {
        let search = self.search;
        let mut tasks = Vec::new();
        for (position, segment) in search.segments.iter().enumerate() {
            let (rows, vectors) = (segment.rows(), segment.vectors(search.plan.column));
            let each = (rows * TASK_VECTORS / vectors.max(1)).max(1);
            tasks.extend(
                (0..rows)
                    .step_by(each as usize)
                    .map(|first| (position, first as u32..(first + each).min(rows) as u32)),
            );
        }
        let of_task = |scores: &mut Vec<f32>, (position, rows): (usize, Range<u32>)| {
            let segment = &search.segments[position];
            let allowed: Option<&RowSet> = search.allowed.map(|sets| &*sets[position]);
            let mut top = TopK::new(search.plan.topk, search.plan.radius);
            // What is found then is of no use.
            let rows = if search.cancel.is_set() { 0..0 } else { rows };
            for row in rows {
                let place = (position as u32, row);
                let is_allowed = allowed.is_none_or(|set| set.contains(row));
                if !is_allowed
                    || !segment.is_live(row, search.sequence)
                    || search.hidden.binary_search(&place).is_ok()
                {
                    continue;
                }
                if let (Some(score), Some(key)) = (self.score(place, scores), segment.key(row)) {
                    top.push(Candidate { score, key, place });
                }
            }
            top.into_sorted()
        };
        let found = search
            .compute
            .spread(|| tasks.into_par_iter().map_init(Vec::new, of_task).flatten_iter().collect());
        self.best(found)
    }

    fn best(&self, found: Vec<Candidate>) -> Vec<Candidate> {
        let mut top = TopK::new(self.search.plan.topk, self.search.plan.radius);
        found.into_iter().for_each(|candidate| top.push(candidate));
        top.into_sorted()
    }
}

/// Rows by the least of the distances that they were found with.
fn least(found: Vec<Vec<Candidate>>, topk: usize) -> Vec<Candidate> {
    let mut best: HashMap<Place, Candidate> = HashMap::new();
    for candidate in found.into_iter().flatten() {
        let known = best.entry(candidate.place).or_insert(candidate);
        *known = candidate.min(*known);
    }
    let mut ranked: Vec<Candidate> = best.into_values().collect();
    ranked.sort_unstable();
    ranked.truncate(topk);
    ranked
}

/// Rows by how many query vectors found them, each counted once for each. `found` has one list for each
/// query vector, nearest first.
fn count_votes(
    found: &[Vec<Candidate>],
    topk: usize,
    min_votes: u32,
) -> (Vec<Candidate>, Vec<Votes>) {
    let mut tallies: HashMap<Place, Tally> = HashMap::new();
    for (asked, candidates) in found.iter().enumerate() {
        for candidate in candidates {
            let new = Tally { key: candidate.key, votes: 0, last: usize::MAX, distances: 0.0 };
            let tally = tallies.entry(candidate.place).or_insert(new);
            // Its nearest vector came first.
            if tally.last != asked {
                tally.last = asked;
                tally.votes += 1;
                tally.distances += f64::from(candidate.score);
            }
        }
    }
    let elected = tallies.into_iter().filter(|(_, tally)| tally.votes >= min_votes);
    let mut ranked: Vec<(Place, Tally)> = elected.collect();
    ranked.sort_unstable_by(|(_, a), (_, b)| {
        let by_distance = || a.distances.total_cmp(&b.distances);
        b.votes.cmp(&a.votes).then_with(by_distance).then(a.key.cmp(&b.key))
    });
    ranked.truncate(topk);
    let all = found.len().max(1) as f64;
    let votes = |tally: &Tally| Votes {
        count: tally.votes,
        confidence: (100.0 * f64::from(tally.votes) / all) as f32,
    };
    let votes = ranked.iter().map(|(_, tally)| votes(tally)).collect();
    let candidate = |(place, tally): (Place, Tally)| Candidate {
        score: -(tally.votes as f32),
        key: tally.key,
        place,
    };
    (ranked.into_iter().map(candidate).collect(), votes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[(u32, f32)]) -> Vec<Candidate> {
        let candidate = |(row, score): &(u32, f32)| Candidate {
            score: *score,
            key: 100 - u64::from(*row),
            place: (0, *row),
        };
        rows.iter().map(candidate).collect()
    }

    #[test]
    fn a_query_vector_votes_once_for_a_row_and_ties_come_by_distance_then_key() {
        let lists = [
            found(&[(1, 0.1), (1, 0.2), (2, 0.3)]),
            found(&[(2, 0.1), (3, 0.2), (1, 0.3)]),
            found(&[(4, 0.2), (5, 9.0)]),
            Vec::new(),
        ];
        let (ranked, votes) = count_votes(&lists, 10, 1);
        let ranked: Vec<(u32, f32)> = ranked.iter().map(|c| (c.place.1, c.score)).collect();
        // 1 and 2 have the same votes and distances, 3 and 4 too: the lower key wins.
        assert_eq!(ranked, [(2, -2.0), (1, -2.0), (4, -1.0), (3, -1.0), (5, -1.0)]);
        assert_eq!(votes[0], Votes { count: 2, confidence: 50.0 });
        assert_eq!(votes[4], Votes { count: 1, confidence: 25.0 });
        let (ranked, votes) = count_votes(&lists, 10, 2);
        assert_eq!((ranked.len(), votes.len()), (2, 2));
        assert_eq!(count_votes(&lists, 1, 1).0.len(), 1);
        assert_eq!(count_votes(&lists, 10, 4), (Vec::new(), Vec::new()));
        assert_eq!(count_votes(&[], 10, 1), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_least_distance_of_a_row_is_its_score() {
        let lists = vec![found(&[(1, 0.5), (2, 0.6)]), found(&[(2, 0.4), (1, 0.7), (3, 0.9)])];
        let rows = least(lists, 2);
        assert_eq!(rows, found(&[(2, 0.4), (1, 0.5)]));
    }
}
