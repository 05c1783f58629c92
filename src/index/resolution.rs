//! What codes can tell apart. Ranks by codes are those of the vectors and some noise of rounding; where
//! neighbours lie closer together than that noise, more of them are to be looked at.

/// Ranks that are within so many standard deviations of the k-th may be better than it.
const REACH: f32 = 2.0;
/// The same in a crowd, where the least ranks are those that noise made least: the k-th of all true ones
/// lies so much higher.
const REACH_IN_A_CROWD: f32 = 10.0;
const LIFT_IN_A_CROWD: f32 = 5.0;
/// More than so many times k, and so many, within reach of the k-th make a crowd.
const CROWD: (usize, usize) = (3, 8);
/// The share of the k nearest that may be expected beyond what was found.
const BEYOND: f32 = 0.005;
/// Turns a logistic curve into nearly the normal distribution (Bowling et al., 2009).
const LOGISTIC: f32 = 1.702;

/// How many of the nodes that a walk `found`, with ranks that ascend, are to be scored exactly for the `k`
/// nearest: at least `least`, and all that noise of that standard `deviation` may have pushed behind the
/// k-th. `None` where more such nodes are expected among those that the walk did not keep.
///
/// What is expected there follows from how densely the last ranks lie: of nodes whose ranks are just above
/// the last, noise moved so many there from below the k-th.
pub fn to_score(
    found: &[(f32, u32)],
    k: usize,
    least: usize,
    deviation: impl FnOnce(f32) -> f32,
) -> Option<usize> {
    let (count, least) = (found.len(), least.min(found.len()));
    if k == 0 || count <= k {
        return Some(least);
    }
    let edge = found[k - 1].0;
    let deviation = deviation(edge);
    if deviation <= 0.0 {
        return Some(least);
    }
    let within = |reach: f32| found.partition_point(|(rank, _)| *rank <= edge + reach * deviation);
    let near = within(REACH);
    // Or it would be more than was kept.
    let is_crowd = near > CROWD.0 * k + CROWD.1 || near == count && count > 2 * k;
    let within = within(if is_crowd { REACH_IN_A_CROWD } else { REACH });
    let edge = if is_crowd { edge + LIFT_IN_A_CROWD * deviation } else { edge };
    if within < count {
        return Some(within.max(least));
    }
    let (last, third) = (found[count - 1].0, count * 2 / 3);
    let span = (last - found[third].0).max(f32::MIN_POSITIVE);
    let density = (count - third) as f32 / span;
    let margin = (last - edge) / deviation;
    let beyond = density * deviation * (-LOGISTIC * margin).exp().ln_1p() / LOGISTIC;
    (beyond <= BEYOND * k as f32).then_some(count)
}

#[cfg(test)]
mod tests {
    fn to_score(ranks: &[f32], k: usize, least: usize, deviation: f32) -> Option<usize> {
        let found: Vec<(f32, u32)> = ranks.iter().copied().zip(0..).collect();
        super::to_score(&found, k, least, |_| deviation)
    }

    #[test]
    fn what_is_well_apart_is_told_apart() {
        let ranks: Vec<f32> = (0..100).map(|place| place as f32).collect();
        assert_eq!(to_score(&ranks, 10, 25, 0.0), Some(25));
        assert_eq!(to_score(&ranks, 10, 25, 1.0), Some(25));
        assert_eq!(to_score(&ranks, 10, 25, 10.0), Some(30));
        let crowd: Vec<f32> = (0..1_000).map(|place| (place / 4) as f32).collect();
        assert_eq!(to_score(&crowd, 10, 25, 10.0), Some(412));
        assert_eq!(to_score(&ranks, 10, 500, 1.0), Some(100));
        assert_eq!(to_score(&ranks[..5], 10, 25, 1.0), Some(5));
        assert_eq!(to_score(&[], 10, 25, 1.0), Some(0));
    }

    #[test]
    fn more_is_wanted_where_all_that_was_found_is_alike() {
        let alike = vec![3.0; 100];
        assert_eq!(to_score(&alike, 10, 25, 1.0), None);
        let close: Vec<f32> = (0..100).map(|place| place as f32 * 0.01).collect();
        assert_eq!(to_score(&close, 10, 25, 1.0), None);
        assert_eq!(to_score(&close, 10, 25, 0.01), Some(25));
        // The last are far enough from the k-th that hardly any can have come from before it.
        let mut thinning: Vec<f32> = (0..60).map(|place| place as f32 * 0.01).collect();
        thinning.extend((0..60).map(|place| 0.6 + place as f32 * 0.25));
        assert!(to_score(&thinning, 10, 25, 1.0).is_some_and(|count| count > 60));
    }
}
