//! How hard an index is searched: a number of candidates, or a recall to be reached, which a segment's
//! own measurement turns into one.

use serde::{Deserialize, Serialize};

/// The recall that queries aim at unless they, or their column, say otherwise: 0.95 is the promise, and
/// this leaves room for queries unlike the rows that it was measured with.
pub const RECALL_TARGET: f32 = 0.98;
/// What is promised of queries that aim at [`RECALL_TARGET`].
const PROMISE: f32 = 0.95;

/// The recall that a query with that target is promised.
pub fn promise(target: f32) -> f32 {
    if target == RECALL_TARGET { PROMISE } else { target }
}

/// Rows that an index finds and that are scored exactly, as times k, unless the query says otherwise.
pub const REFINE_K: f32 = 2.0;
/// Candidates kept where nothing was measured.
const UNMEASURED: usize = 200;
/// Candidates kept at most, whatever the recall.
const CANDIDATES_MAX: usize = 65_536;
/// How much farther than expected rows may be and still be where they are looked for.
const LOCAL_SLACK: f64 = 1.1;
/// Queries of which so many times fewer numbers count than of those measured are of another kind.
const SPARSER: f32 = 0.7;
/// How much harder is searched for queries unlike the rows where these were not measured.
const HARDER: usize = 4;
/// Neighbours whose recall is measured.
const FEW: usize = 10;
const MANY: usize = 100;
/// The least number between the two.
const MORE: usize = FEW + 1;
/// The share of the misses a target allows that is kept in reserve: the sample is one of many. What aims at
/// [`RECALL_TARGET`] is promised less, and needs hardly any.
const RESERVE: f32 = 0.3;
const RESERVE_BY_DEFAULT: f32 = 0.05;

/// Whether a query is like the rows of a segment. Others are harder for an index: they lie between
/// its rows or away from them, where links and lists lead less well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// As near to rows as these are to each other.
    Like,
    /// Farther, or of a metric that does not tell.
    Unlike,
}

/// How hard an index is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effort {
    /// Candidates kept while walking a graph (ef), or inverted lists looked into (nprobe). 1 to 65536.
    Candidates(usize),
    /// As many candidates as find this share of the true neighbours, on average. Above 0, below 1.
    Recall(f32),
}

impl Effort {
    /// For a recall that a query asked for, which is promised whole. [`RECALL_TARGET`] stands for that nobody asked,
    /// so that who asks for just as much aims at the number next to it.
    pub fn asked(target: f32) -> Effort {
        Effort::Recall(if target == RECALL_TARGET { target.next_up() } else { target })
    }
}

/// What was found of a sample of a segment's own rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecallPoint {
    /// Candidates kept while walking a graph, or inverted lists looked into.
    pub ef_search: u32,
    /// Recall of the nearest; older manifests have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_1: Option<f32>,
    /// Recall of the 10 nearest.
    pub at_10: f32,
    /// Recall of the 100 nearest.
    pub at_100: f32,
}

/// How far the neighbours of a segment's own rows are: scores that 99 of 100 rows stay below.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// Of the 10th nearest.
    pub at_10: f32,
    /// Of the 100th nearest.
    pub at_100: f32,
    /// How many times farther the nearest are from the row than from each other, at most, of 99 of 100 rows:
    /// a measure that hardly depends on how close together rows lie. Older manifests have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<f32>,
    /// Queries whose 10th nearest is farther than this are taken for unlike the rows: chosen so that searches
    /// are short. Where it is not told, `at_10` serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_at_10: Option<f32>,
    /// The same of `apart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_apart: Option<f32>,
    /// The least of what `apart` is of, of rows and of what is taken for these: what is nearer to many rows than
    /// these are to each other, as the middle of all is, was not measured among them. Older manifests have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart_least: Option<f32>,
}

/// What was measured with so many nodes holds until one in so many is new: so few hardly change it, and would be
/// hardly any of a sample.
const OUTGROWN: usize = 32;

/// The recall that an index reaches, measured by rising effort.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecallCurve {
    /// The measurements; empty where there are none. Of queries like the rows: of the rows themselves and of those
    /// others that pass for rows, what is found of the worst.
    pub points: Vec<RecallPoint>,
    /// Where scores are distances, how far neighbours are.
    pub reach: Option<Reach>,
    /// Rows scored exactly while measuring, as times k.
    #[serde(default)]
    pub refine_k: Option<f32>,
    /// The same as `points` for queries unlike the rows: at each effort, that of the kind of them that it
    /// finds least for. Empty where it was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlike: Vec<RecallPoint>,
    /// Where scores are inner products: how many of a query's numbers count, as a share of all, of 95 of 100 of
    /// the queries measured at least. Older manifests have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fullness: Option<f32>,
    /// Nodes that there were. Older manifests have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
}

/// What a search is to be tried with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Candidates to keep, or lists to look into: 1 to 65536.
    pub candidates: usize,
    /// The recall that this was measured to find; `None` where nothing was measured.
    pub expected: Option<f32>,
    /// False where the target is beyond all that was measured.
    pub is_enough: bool,
}

impl RecallCurve {
    /// True where it holds for an index that grew to so many nodes.
    pub fn holds_for(&self, nodes: usize) -> bool {
        self.nodes.is_some_and(|measured| {
            let measured = measured as usize;
            measured <= nodes && nodes - measured <= measured / OUTGROWN
        })
    }

    /// Candidates to keep for the `k` nearest with that effort, for a query like the rows.
    pub fn candidates(&self, effort: Effort, k: usize) -> usize {
        self.trial(effort, k, Likeness::Like).candidates
    }

    /// How to search for the `k` nearest with that effort, and what that is expected to find.
    pub fn trial(&self, effort: Effort, k: usize, likeness: Likeness) -> Trial {
        if likeness == Likeness::Unlike && self.unlike.is_empty() && !self.points.is_empty() {
            let like = self.trial(effort, k, Likeness::Like);
            let harder = match effort {
                Effort::Candidates(_) => 1,
                Effort::Recall(_) => HARDER,
            };
            let candidates = (like.candidates * harder).min(CANDIDATES_MAX);
            return Trial { candidates, expected: None, is_enough: like.is_enough };
        }
        trial(self.points_of(likeness), effort, k)
    }

    /// How a query is searched for until more is known of it: where scores do not tell whether it is like
    /// the rows, as one that is not.
    pub fn likeness_at_first(&self) -> Likeness {
        match self.tells_far() || self.unlike.is_empty() {
            true => Likeness::Like,
            false => Likeness::Unlike,
        }
    }

    /// Whether anything was measured for such queries.
    pub fn is_measured(&self, likeness: Likeness) -> bool {
        match likeness {
            Likeness::Like => !self.points.is_empty(),
            Likeness::Unlike => !self.unlike.is_empty(),
        }
    }

    /// The measurement for such queries, or that for queries like the rows where there is no other.
    fn points_of(&self, likeness: Likeness) -> &[RecallPoint] {
        match likeness {
            Likeness::Unlike if !self.unlike.is_empty() => &self.unlike,
            Likeness::Like | Likeness::Unlike => &self.points,
        }
    }

    /// Rows to score exactly, as times k, unless something else is asked for.
    pub fn refine_k(&self, asked: Option<f32>) -> f32 {
        asked.or(self.refine_k).unwrap_or(REFINE_K)
    }

    /// True where [`RecallCurve::is_far`] and [`RecallCurve::is_farther`] can tell anything.
    pub fn tells_far(&self) -> bool {
        self.power().is_some()
    }

    /// True when the `k`-th of the nearest rows of which only a `share` (0 to 1) may be found is farther
    /// than such rows are from each other: then the query is away from all of them, and what was
    /// measured does not hold for it.
    pub fn is_far(&self, score: f32, k: usize, share: f64) -> bool {
        let (Some(reach), Some(power)) = (self.reach, self.power()) else { return false };
        let place = (k as f64 / 10.0 / share.max(1e-9)).max(1.0);
        f64::from(score) > f64::from(reach.at_10) * place.powf(power)
    }

    /// True where [`RecallCurve::is_apart`] can tell anything.
    pub fn tells_apart(&self) -> bool {
        self.reach.is_some_and(|reach| reach.apart.is_some())
    }

    /// True when neighbours are this many times farther from a query than from each other, and rows are not.
    pub fn is_apart(&self, apartness: f32) -> bool {
        self.reach.and_then(|reach| reach.apart).is_some_and(|apart| apartness > apart)
    }

    /// True for a query that the score of its 10th nearest, of those rows of which only a `share` (0 to 1) may be
    /// found, and how far apart it is from these, tell from rows.
    pub fn is_no_row(&self, at_10: f32, share: f64, apartness: impl FnOnce() -> f32) -> bool {
        self.reach.is_some_and(|reach| {
            let growth = self.power().map_or(1.0, |power| (1.0 / share.max(1e-9)).powf(power));
            let is_beyond =
                f64::from(at_10) > f64::from(reach.row_at_10.unwrap_or(reach.at_10)) * growth;
            is_beyond
                || reach.row_apart.or(reach.apart).is_some_and(|most| {
                    // 0 where it cannot be told.
                    let apartness = apartness();
                    let is_less = |least: f32| 0.0 < apartness && apartness < least;
                    apartness > most || reach.apart_least.is_some_and(is_less)
                })
        })
    }

    /// True for a query of which so many numbers count, as a share of all, that nothing that was measured holds
    /// for it. The largest products with a few numbers are of rows that have nothing else in common.
    pub fn is_thin(&self, fullness: impl FnOnce() -> f32) -> bool {
        self.fullness.is_some_and(|measured| fullness() < measured * SPARSER)
    }

    /// [`RecallCurve::is_far`], told by the score `near` that as many of all rows have.
    pub fn is_farther(&self, score: f32, near: f32, share: f64) -> bool {
        self.power().is_some_and(|power| {
            let growth = (1.0 / share.max(1e-9)).powf(power);
            f64::from(score) > f64::from(near) * growth * LOCAL_SLACK
        })
    }

    /// The n-th neighbour is about as far as this power of n.
    fn power(&self) -> Option<f64> {
        let reach = self.reach?;
        (reach.at_10 > 0.0 && reach.at_100 > reach.at_10)
            .then(|| f64::from(reach.at_100 / reach.at_10).log10())
    }
}

fn trial(points: &[RecallPoint], effort: Effort, k: usize) -> Trial {
    match effort {
        Effort::Candidates(candidates) => {
            Trial { candidates, expected: expected(points, candidates, k), is_enough: true }
        }
        Effort::Recall(target) => {
            let (candidates, is_enough) = for_recall(points, target, k);
            let candidates = candidates.clamp(1, CANDIDATES_MAX);
            Trial { candidates, expected: expected(points, candidates, k), is_enough }
        }
    }
}

/// Candidates for a recall of the `k` nearest, and whether these were measured to reach it.
fn for_recall(points: &[RecallPoint], target: f32, k: usize) -> (usize, bool) {
    let reserve = if target == RECALL_TARGET { RESERVE_BY_DEFAULT } else { RESERVE };
    let target = target + (1.0 - target) * reserve;
    let ten = reaching(points, target, |point| point.at_10);
    let hundred = reaching(points, target, |point| point.at_100);
    let (Some((ten, reaches_ten)), Some((hundred, reaches_hundred))) = (ten, hundred) else {
        return (UNMEASURED.max(2 * k), false);
    };
    match k {
        0..FEW => {
            // The first of the nearest can be harder to find than the others: it may be the only one of
            // its kind, where these are of another.
            let one = reaching(points, target, |point| point.at_1.unwrap_or(point.at_10));
            let (one, reaches_one) = one.unwrap_or((ten, reaches_ten));
            (one.max(ten).ceil() as usize, reaches_one && reaches_ten)
        }
        FEW => (ten.ceil() as usize, reaches_ten),
        // In between, and beyond, by a straight line: each neighbour more wants as much more.
        MORE..=MANY => {
            let share = (k - FEW) as f32 / (MANY - FEW) as f32;
            let between = ten + (hundred - ten).max(0.0) * share;
            (between.ceil() as usize, reaches_ten && reaches_hundred)
        }
        _ => ((hundred * k as f32 / MANY as f32).ceil() as usize, reaches_hundred),
    }
}

/// The number of candidates that reaches a recall, between the points by a straight line; twice the last
/// where none does, and false.
fn reaching(
    points: &[RecallPoint],
    target: f32,
    of: impl Fn(&RecallPoint) -> f32,
) -> Option<(f32, bool)> {
    let Some(place) = points.iter().position(|point| of(point) >= target) else {
        return points.last().map(|last| (2.0 * last.ef_search as f32, false));
    };
    let above = points[place];
    let Some(below) = place.checked_sub(1).map(|before| points[before]) else {
        return Some((above.ef_search as f32, true));
    };
    let share = (target - of(&below)) / (of(&above) - of(&below)).max(f32::MIN_POSITIVE);
    let step = above.ef_search as f32 - below.ef_search as f32;
    Some((below.ef_search as f32 + step * share.clamp(0.0, 1.0), true))
}

/// The recall of the `k` nearest with so many candidates, between the points by a straight line.
fn expected(points: &[RecallPoint], candidates: usize, k: usize) -> Option<f32> {
    let at = |candidates: f32, of: &dyn Fn(&RecallPoint) -> f32| -> Option<f32> {
        let after = points.iter().position(|point| point.ef_search as f32 >= candidates);
        let Some(place) = after else { return points.last().map(of) };
        let above = &points[place];
        let Some(below) = place.checked_sub(1).map(|before| &points[before]) else {
            // Fewer than were ever tried: at most in proportion.
            return Some(of(above) * candidates / above.ef_search.max(1) as f32);
        };
        let step = (above.ef_search - below.ef_search).max(1) as f32;
        let share = (candidates - below.ef_search as f32) / step;
        Some(of(below) + (of(above) - of(below)) * share)
    };
    let candidates = candidates as f32;
    match k {
        0..FEW => {
            let ten = at(candidates, &|point| point.at_10)?;
            Some(ten.min(at(candidates, &|point| point.at_1.unwrap_or(point.at_10))?))
        }
        FEW => at(candidates, &|point| point.at_10),
        MORE..=MANY => {
            let share = (k - FEW) as f32 / (MANY - FEW) as f32;
            let few = at(candidates, &|point| point.at_10)?;
            Some(few + (at(candidates, &|point| point.at_100)? - few) * share)
        }
        _ => at(candidates * MANY as f32 / k as f32, &|point| point.at_100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recall_becomes_as_many_candidates_as_were_measured_to_reach_it() {
        let point = |ef_search, at_10, at_100| RecallPoint { ef_search, at_1: None, at_10, at_100 };
        let of = |points| RecallCurve { points, ..RecallCurve::default() };
        let curve = of(vec![
            point(16, 0.5, 0.0),
            point(32, 0.9, 0.0),
            point(128, 1.0, 0.9),
            point(256, 1.0, 1.0),
        ]);
        let at = |target, k| curve.candidates(Effort::Recall(target), k);
        // With the reserve these ask for 0.93, 0.965 and, by default, 0.981.
        assert_eq!(at(0.9, 10), 61);
        assert_eq!(at(0.95, 1), 95);
        assert_eq!(at(RECALL_TARGET, 10), 110);
        let asked = curve.candidates(Effort::asked(RECALL_TARGET), 10);
        assert!(asked > 110 && asked == at(0.980_1, 10));
        assert!(at(0.95, 10) < at(0.95, 40) && at(0.95, 40) < at(0.95, 100));
        assert_eq!(at(0.9, 1_000).div_ceil(10), at(0.9, 100));
        assert_eq!(at(0.01, 10), 16);
        assert_eq!(curve.candidates(Effort::Candidates(7), 10), 7);
        assert_eq!(RecallCurve::default().candidates(Effort::Recall(0.9), 10), 200);
        assert_eq!(RecallCurve::default().candidates(Effort::Recall(0.9), 500), 1_000);
        let low = of(vec![point(512, 0.4, 0.4)]);
        let trial = low.trial(Effort::Recall(0.99), 10, Likeness::Like);
        assert_eq!(trial, Trial { candidates: 1_024, expected: Some(0.4), is_enough: false });
        assert!(curve.trial(Effort::Recall(0.9), 10, Likeness::Like).is_enough);
    }

    #[test]
    fn what_was_measured_holds_until_some_nodes_are_new() {
        let of = |nodes| RecallCurve { nodes, ..RecallCurve::default() };
        assert!(of(Some(3_200)).holds_for(3_200) && of(Some(3_200)).holds_for(3_300));
        assert!(!of(Some(3_200)).holds_for(3_301) && !of(Some(3_200)).holds_for(3_199));
        assert!(!of(None).holds_for(3_200));
    }

    #[test]
    fn queries_unlike_the_rows_have_a_measurement_of_their_own() {
        let point = |ef_search, at_10| RecallPoint { ef_search, at_1: None, at_10, at_100: at_10 };
        let curve = RecallCurve {
            points: vec![point(10, 0.5), point(20, 1.0)],
            unlike: vec![point(10, 0.1), point(110, 0.6), point(210, 1.0)],
            ..RecallCurve::default()
        };
        let at = |effort, likeness| curve.trial(effort, 10, likeness);
        assert_eq!(at(Effort::Candidates(15), Likeness::Like).expected, Some(0.75));
        let unlike = at(Effort::Candidates(60), Likeness::Unlike).expected;
        assert!(unlike.is_some_and(|share| (share - 0.35).abs() < 1e-6));
        assert!(at(Effort::Recall(0.9), Likeness::Unlike).candidates > 160);
        let older = RecallCurve { unlike: Vec::new(), ..curve.clone() };
        assert!(!older.is_measured(Likeness::Unlike) && older.is_measured(Likeness::Like));
        let both = [Likeness::Like, Likeness::Unlike];
        let trials = both.map(|likeness| older.trial(Effort::Recall(0.9), 10, likeness));
        assert_eq!(
            trials[1],
            Trial { candidates: 4 * trials[0].candidates, expected: None, ..trials[0] }
        );
    }

    #[test]
    fn rows_farther_than_rows_are_from_each_other_are_far() {
        let (row_at_10, row_apart) = (Some(0.5), Some(1.2));
        let (apart, apart_least) = (Some(1.5), Some(0.4));
        let reach = Reach { at_10: 1.0, at_100: 2.0, apart, row_at_10, row_apart, apart_least };
        let reach = Some(reach);
        let curve = RecallCurve { reach, ..RecallCurve::default() };
        assert!(!curve.is_far(0.9, 10, 1.0) && curve.is_far(1.1, 10, 1.0));
        assert!(!curve.is_far(1.9, 10, 0.1) && curve.is_far(2.1, 10, 0.1));
        assert!(!curve.is_far(1.9, 100, 1.0) && curve.is_far(2.1, 100, 1.0));
        assert!(!curve.is_far(0.9, 1, 1.0), "fewer than were measured are not nearer");
        assert!(curve.is_apart(1.6) && !curve.is_apart(1.5));
        assert!(curve.is_no_row(0.6, 1.0, || 0.0) && curve.is_no_row(0.5, 1.0, || 1.3));
        assert!(!curve.is_no_row(0.5, 1.0, || 1.2) && !curve.is_no_row(0.9, 0.1, || 0.4));
        assert!(curve.is_no_row(0.5, 1.0, || 0.3), "in the middle of rows");
        assert!(!curve.is_no_row(0.5, 1.0, || 0.0), "there is nothing to tell");
        assert!(!RecallCurve::default().is_far(1e9, 10, 1.0));
        let curve = RecallCurve { fullness: Some(0.5), ..RecallCurve::default() };
        assert!(curve.is_thin(|| 0.3) && !curve.is_thin(|| 0.4));
        assert!(!RecallCurve::default().is_thin(|| 0.0));
        assert!(!RecallCurve::default().is_apart(1e9));
    }
}
