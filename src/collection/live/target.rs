//! Measuring one query in one segment.

use hashbrown::HashMap;

use super::{ENOUGH, FEW, MANY};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::index::{Best, Candidate, GRAPH_LADDER, TopK, apartness};
use crate::native::Tuning;
use crate::schema::{Effort, Likeness, RecallCurve, RecallPoint, VectorColumn};
use crate::segment::{
    ColumnIndex, LiveRecall, Outcome, Sealed, SegmentSearch, Told, scan_sealed, scans_by_itself,
    scans_thin, search_index,
};
use crate::simd::Query;

/// What one query found in a segment at each effort of the ladder.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub likeness: Likeness,
    /// Of the nearest, the 10 and the 100 nearest.
    pub at: Vec<[f32; 3]>,
}

/// The measurements of a segment's column, by query.
pub(super) type OfSegment = HashMap<u64, Measured>;

/// An index that is measured.
pub(super) struct Target<'a> {
    pub sealed: &'a Sealed,
    pub index: &'a ColumnIndex,
    /// The column, and its place.
    pub column: &'a VectorColumn,
    pub place: usize,
    /// What is seen of the segment.
    pub sequence: u64,
}

impl Target<'_> {
    /// The efforts that are tried.
    pub fn ladder(&self) -> Vec<usize> {
        match self.index.tuning() {
            None | Some(Tuning::Candidates) => GRAPH_LADDER.map(|effort| effort as usize).to_vec(),
            Some(Tuning::Nothing) => vec![1],
            Some(Tuning::Lists(lists)) => {
                let steps = std::iter::successors(Some(1), |probes| Some(2 * probes));
                steps.take_while(|probes| *probes < lists).chain([lists.max(1)]).collect()
            }
        }
    }

    /// How hard queries of a kind are searched for by themselves; `None` where a scan answers them.
    pub fn effort(&self, likeness: Likeness) -> Option<usize> {
        let VectorColumn { element, metric, dimension, .. } = *self.column;
        let effort = self.column.index.effort();
        let vector = vec![0; self.column.vector_bytes().unwrap_or(0)];
        let query = Query::new(element, metric, dimension, &vector)?;
        let (told, cancel) = (Told::default(), Cancel::default());
        let search = self.search(&vector, &query, (&told, &cancel));
        let search = SegmentSearch { k: FEW, effort, ..search };
        let is_scanned = scans_by_itself(self.sealed, self.index, &search, likeness);
        (!is_scanned).then(|| self.index.recall().trial(effort, FEW, likeness).candidates)
    }

    pub fn search<'s>(
        &'s self,
        vector: &'s [u8],
        query: &'s Query,
        (told, cancel): (&'s Told, &'s Cancel),
    ) -> SegmentSearch<'s> {
        SegmentSearch {
            vector,
            query,
            metric: self.column.metric,
            column: self.place,
            declared: self.column,
            scan_bytes_max: u64::MAX,
            allowed: None,
            k: MANY,
            effort: Effort::Candidates(1),
            keeps_promise: true,
            likeness: None,
            boost: None,
            told,
            refine_k: None,
            sequence: self.sequence,
            segment: 0,
            cancel,
        }
    }

    /// A query that was kept, ready for scoring.
    pub fn query(&self, vector: &[u8]) -> Result<Query> {
        let VectorColumn { element, metric, dimension, .. } = *self.column;
        Query::new(element, metric, dimension, vector)
            .ok_or_else(|| Error::internal("a query that was kept does not fit"))
    }

    /// See [`apartness`]; of what is nearest to a query.
    fn apartness(&self, query: &Query, nearest: &[Candidate]) -> f32 {
        let nearest = &nearest[..nearest.len().min(FEW)];
        let vector = |found: &Candidate| self.sealed.vectors_of(self.place, found.place.1);
        let first = nearest.first().and_then(vector).and_then(|first| query.with(first));
        let Some(first) = first else { return 0.0 };
        let others = nearest[1..].iter().filter_map(|found| first.distance(vector(found)?));
        let mut of_first: Vec<f32> = others.collect();
        let scores: Vec<f32> = nearest.iter().map(|found| found.score).collect();
        apartness(&scores, &mut of_first)
    }

    /// What a query without a filter finds.
    pub fn measure(&self, vector: &[u8]) -> Result<Measured> {
        let query = self.query(vector)?;
        let (told, cancel) = (Told::default(), Cancel::default());
        let search = self.search(vector, &query, (&told, &cancel));
        let mut truth = TopK::new(MANY, None);
        scan_sealed(self.sealed, &search, &mut truth);
        let nearest = truth.into_sorted();
        let truth: Vec<f32> = nearest.iter().map(|found| found.score).collect();
        let edge = |k: usize| truth.get(k - 1).or(truth.last()).copied().unwrap_or_default();
        let is_far = self.index.recall().is_far(edge(FEW), FEW, 1.0);
        let recall = self.index.recall();
        let is_away =
            is_far || recall.is_no_row(edge(FEW), 1.0, || self.apartness(&query, &nearest));
        let likeness = match is_away || !self.index.recall().tells_far() {
            true => Likeness::Unlike,
            false => Likeness::Like,
        };
        let mut at: Vec<[f32; 3]> = Vec::new();
        let by_itself = SegmentSearch { effort: self.column.index.effort(), ..search };
        if scans_thin(self.sealed, self.index, &by_itself) {
            at.push([1.0; 3]);
        }
        for effort in self.ladder().into_iter().skip(at.len()) {
            // As much as the effort before found everything.
            if at.last().is_some_and(|shares| shares.iter().all(|share| *share >= 1.0)) {
                at.push([1.0; 3]);
                continue;
            }
            let share = |k: usize| -> Result<f32> {
                let mut top = TopK::new(k, None);
                let search = SegmentSearch {
                    k,
                    effort: Effort::Candidates(effort),
                    likeness: Some(likeness),
                    ..search
                };
                if search_index(self.sealed, self.index, &search, &mut top)? == Outcome::Scan {
                    return Ok(1.0);
                }
                let near = top.into_sorted();
                let hits = near.iter().filter(|found| found.score <= edge(k)).count();
                Ok(hits as f32 / k.min(truth.len()).max(1) as f32)
            };
            at.push([share(1)?, share(FEW)?, share(MANY)?]);
        }
        Ok(Measured { likeness, at })
    }
}

/// What queries found on average, by kind; `effort` says how those of a kind are searched for by
/// themselves, `None` where by a scan.
pub(super) fn summary(
    ladder: &[usize],
    known: &OfSegment,
    effort: impl Fn(Likeness) -> Option<usize>,
) -> LiveRecall {
    let of_kind = |kind: Likeness| -> Vec<&Measured> {
        known.values().filter(|measured| measured.likeness == kind).collect()
    };
    let points = |queries: &[&Measured]| -> Vec<RecallPoint> {
        if queries.len() < ENOUGH {
            return Vec::new();
        }
        let point = |(place, effort): (usize, &usize)| {
            let mean = |which: usize| {
                let shares = queries.iter().filter_map(|query| query.at.get(place));
                shares.map(|at| at[which]).sum::<f32>() / queries.len() as f32
            };
            let ef_search = u32::try_from(*effort).unwrap_or(u32::MAX);
            RecallPoint { ef_search, at_1: Some(mean(0)), at_10: mean(1), at_100: mean(2) }
        };
        ladder.iter().enumerate().map(point).collect()
    };
    let (like, unlike) = (of_kind(Likeness::Like), of_kind(Likeness::Unlike));
    // As they were searched so far: at the effort of the ladder next below.
    let found = |queries: &[&Measured], effort: Option<usize>| -> Vec<f32> {
        let Some(effort) = effort else { return vec![1.0; queries.len()] };
        let place = ladder.partition_point(|step| *step <= effort).saturating_sub(1);
        queries.iter().filter_map(|query| query.at.get(place)).map(|at| at[1]).collect()
    };
    let mut shares = found(&like, effort(Likeness::Like));
    shares.extend(found(&unlike, effort(Likeness::Unlike)));
    let count = shares.len().max(1) as f32;
    let recall = shares.iter().sum::<f32>() / count;
    let variance = shares.iter().map(|share| (share - recall).powi(2)).sum::<f32>() / count;
    LiveRecall {
        curve: RecallCurve {
            points: points(&like),
            unlike: points(&unlike),
            ..RecallCurve::default()
        },
        queries: (like.len() as u32, unlike.len() as u32),
        recall,
        deviation: 1.96 * (variance / count).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(likeness: Likeness, few: f32) -> Measured {
        Measured { likeness, at: vec![[1.0, few, 0.0], [1.0, 1.0, 0.5]] }
    }

    #[test]
    fn queries_of_a_kind_say_something_when_they_are_enough() {
        let mut known = OfSegment::default();
        for number in 0..30 {
            let few = if number % 2 == 0 { 0.25 } else { 0.75 };
            known.insert(number, measured(Likeness::Unlike, few));
        }
        known.insert(99, measured(Likeness::Like, 0.5));
        let live = summary(&[16, 64], &known, |_| Some(20));
        assert!(live.curve.points.is_empty());
        let expected = [(16, 0.5, 0.0), (64, 1.0, 0.5)];
        let expected = expected.map(|(ef_search, at_10, at_100)| RecallPoint {
            ef_search,
            at_1: Some(1.0),
            at_10,
            at_100,
        });
        assert_eq!(live.curve.unlike, expected);
        assert_eq!(live.queries, (1, 30));
        assert!((live.recall - 0.5).abs() < 1e-6 && live.deviation > 0.05);
        for effort in [Some(64), None] {
            let harder = summary(&[16, 64], &known, |_| effort);
            assert_eq!((harder.recall, harder.deviation), (1.0, 0.0));
        }
    }
}
