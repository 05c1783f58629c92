//! What codes cut off. Their step suits nearly all numbers; the few that are larger lie beyond the codes'
//! range. Rows of which something was cut keep the rest beside their codes, so that their ranks are as true
//! as those of others: even a little of one large number is more than the noise of rounding.

use hashbrown::HashMap;

/// The rest of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rest {
    /// Which of the row's numbers.
    pub dimension: u32,
    /// What was cut off, in steps.
    pub steps: f32,
}

/// The rests of those rows of which something was cut.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// A bit for each row, up to the last that has rests.
    bits: Vec<u64>,
    /// A bit for each [`RUN`] rows with one that has rests: an eighth of the memory, which stays in the cache.
    runs: Vec<u64>,
    /// A bit for each 64 rows with one of which much was cut: so few that they stay in the cache.
    much: Vec<u64>,
    rests: HashMap<u32, Box<[Rest]>>,
}

/// Rows that are looked up together first.
const RUN: u32 = 8;

/// Where a row has its bit.
#[inline(always)]
fn place(row: u32) -> (usize, u64) {
    (row as usize / 64, 1 << (row % 64))
}

fn set(bits: &mut Vec<u64>, row: u32) {
    let (place, bit) = place(row);
    if place >= bits.len() {
        bits.resize(place + 1, 0);
    }
    bits[place] |= bit;
}

#[inline(always)]
fn is_set(bits: &[u64], row: u32) -> bool {
    let (place, bit) = place(row);
    bits.get(place).is_some_and(|bits| bits & bit != 0)
}

impl Cut {
    /// Of rows with their rests, at most one entry for a row. It is much where the squares of these sum up to more
    /// than `much`.
    pub fn new(rows: impl Iterator<Item = (u32, Box<[Rest]>)>, much: f32) -> Cut {
        let mut cut = Cut::default();
        for (row, rests) in rows {
            set(&mut cut.bits, row);
            set(&mut cut.runs, row / RUN);
            if rests.iter().map(|rest| rest.steps.powi(2)).sum::<f32>() > much {
                set(&mut cut.much, row / 64);
            }
            cut.rests.insert(row, rests);
        }
        cut
    }

    /// True where much was cut off no row.
    pub fn is_little(&self) -> bool {
        self.much.is_empty()
    }

    /// True for rows of which much was cut, and a few others.
    #[inline]
    pub fn may_be_much(&self, row: u32) -> bool {
        is_set(&self.much, row / 64)
    }

    /// True where nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.rests.is_empty()
    }

    /// The rests of a row; nothing for most.
    #[inline(always)]
    pub fn of(&self, row: u32) -> &[Rest] {
        if is_set(&self.runs, row / RUN) { self.look_up(row) } else { &[] }
    }

    fn look_up(&self, row: u32) -> &[Rest] {
        if is_set(&self.bits, row) { self.rests.get(&row).map_or(&[], |rests| rests) } else { &[] }
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let rests: usize = self.rests.values().map(|rests| size_of_val(&**rests)).sum();
        (self.bits.capacity() + self.runs.capacity() + self.much.capacity()) * 8
            + self.rests.allocation_size()
            + rests
    }
}

/// How much a measure of differences grows when `rest` is added to a number's `difference` from another:
/// that of squares, or of absolutes. In 64 bits, as squares of what was cut may be large.
pub(super) fn growth(difference: f64, rest: f64, is_square: bool) -> f64 {
    match is_square {
        true => rest * (rest + 2.0 * difference),
        false => (difference + rest).abs() - difference.abs(),
    }
}

/// Adds to a rank, which stays a number.
pub(super) fn add(rank: &mut f32, more: f64) {
    let sum = f64::from(*rank) + more;
    *rank = if sum.is_nan() { f32::INFINITY } else { sum as f32 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_rests_that_they_were_given() {
        let rest = |steps| Box::from([Rest { dimension: 3, steps }]);
        let cut = Cut::new([(5, rest(1.5)), (200, rest(-2.0))].into_iter(), 3.0);
        assert!(cut.may_be_much(200) && !cut.may_be_much(5) && !cut.is_little());
        assert!(Cut::new([(5, rest(1.5))].into_iter(), 3.0).is_little());
        assert!(!cut.is_empty() && Cut::default().is_empty());
        assert_eq!(cut.of(200), [Rest { dimension: 3, steps: -2.0 }]);
        assert_eq!(cut.of(5)[0].steps, 1.5);
        for row in [0, 4, 6, 199, 201, 1_000] {
            assert_eq!(cut.of(row), []);
        }
    }

    #[test]
    fn a_rest_is_worth_what_the_measure_lacks() {
        assert_eq!(growth(3.0, 2.0, true), 25.0 - 9.0);
        assert_eq!(growth(-3.0, 2.0, true), 1.0 - 9.0);
        assert_eq!(growth(-3.0, 2.0, false), 1.0 - 3.0);
        let mut rank = f32::INFINITY;
        add(&mut rank, f64::NEG_INFINITY);
        assert_eq!(rank, f32::INFINITY);
    }
}
