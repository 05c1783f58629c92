//! Tight loops over the values of a batch: which of them pass a test, as a bitmap.

use std::hash::Hash;
use std::ops::Bound;

use arrow_array::LargeStringArray;
use hashbrown::HashSet;
use memchr::memmem::Finder;

use super::pattern::Pattern;
use super::test::{Accept, Native, Test};
use crate::schema::Number;
use crate::segment::{ForwardBatch, Part, Values, ZONE_ROWS, Zones};

/// Rows of a word of a bitmap.
const WORD: usize = u64::BITS as usize;
/// So many points are compared one after the other; more are looked up.
const FEW_POINTS: usize = 4;

/// Adds the rows of a batch that pass a test to `out`, which begins with the batch's first row. Rows
/// outside `within` may be missing. `zones` are those of the whole column, which the batch begins at
/// `first_row` of.
pub(super) fn scan(
    batch: &ForwardBatch<'_>,
    first_row: usize,
    test: &Test,
    zones: Option<&Zones>,
    within: Option<&[u64]>,
    out: &mut [u64],
) {
    for part in &batch.parts {
        let target = Target { part, rows: batch.rows, first_row, zones, within };
        match part.values {
            Values::Int32(values) => target.numbers(values, &test.numbers, out),
            Values::Int64(values) => target.numbers(values, &test.numbers, out),
            Values::UInt32(values) => target.numbers(values, &test.numbers, out),
            Values::UInt64(values) => target.numbers(values, &test.numbers, out),
            Values::Float(values) => target.numbers(values, &test.numbers, out),
            Values::Double(values) => target.numbers(values, &test.numbers, out),
            Values::Bool(values) => {
                let words = values.values().bit_chunks();
                let words = words.iter_padded().map(|word| match test.truths {
                    [false, false] => 0,
                    [false, true] => word,
                    [true, false] => !word,
                    [true, true] => u64::MAX,
                });
                let present = target.wanted();
                for ((out, word), present) in out.iter_mut().zip(words).zip(present) {
                    *out |= word & present;
                }
            }
            Values::Text(values) => match &test.pattern {
                None => target.bytes(|row| values.value(row).as_bytes(), &test.texts, out),
                Some(_) if test.texts == Accept::Nothing => {}
                Some(pattern) => target.like(values, pattern, out),
            },
            Values::Bytes(values) => target.bytes(|row| values.value(row), &test.bytes, out),
        }
    }
}

/// Which rows of a batch have a value.
pub(super) fn present(batch: &ForwardBatch<'_>, out: &mut [u64]) {
    for part in &batch.parts {
        for (out, word) in out.iter_mut().zip(part.present_words(batch.rows)) {
            *out |= word;
        }
    }
}

/// What is scanned.
struct Target<'a> {
    part: &'a Part<'a>,
    rows: usize,
    first_row: usize,
    zones: Option<&'a Zones>,
    within: Option<&'a [u64]>,
}

impl Target<'_> {
    /// The rows to look at.
    fn wanted(&self) -> Vec<u64> {
        let mut wanted = self.part.present_words(self.rows);
        if let Some(within) = self.within {
            wanted.iter_mut().zip(within).for_each(|(word, within)| *word &= within);
        }
        wanted
    }

    /// Looks at each row wanted.
    fn each(&self, out: &mut [u64], passes: impl Fn(usize) -> bool) {
        for (place, (out, wanted)) in out.iter_mut().zip(self.wanted()).enumerate() {
            let mut left = wanted;
            while left != 0 {
                let bit = left.trailing_zeros();
                *out |= u64::from(passes(place * WORD + bit as usize)) << bit;
                left &= left - 1;
            }
        }
    }

    fn bytes<'v>(
        &self,
        value: impl Fn(usize) -> &'v [u8],
        accept: &Accept<Vec<u8>>,
        out: &mut [u64],
    ) {
        match accept {
            Accept::Nothing => {}
            Accept::Range(..) => self.each(out, |row| is_range(accept, value(row))),
            Accept::Except(other) => self.each(out, |row| value(row) != other.as_slice()),
            Accept::Points(points) if points.len() <= FEW_POINTS => {
                self.each(out, |row| points.iter().any(|point| point == value(row)));
            }
            Accept::Points(points) => {
                let points = set(points.iter().map(Vec::as_slice));
                self.each(out, |row| points.contains(value(row)));
            }
        }
    }

    /// The texts that a pattern matches. What they must have somewhere is looked for in all of them at
    /// once, which lie one after the other.
    fn like(&self, values: &LargeStringArray, pattern: &Pattern, out: &mut [u64]) {
        let literal = pattern.literal();
        if literal.is_empty() || self.within.is_some_and(is_sparse) {
            return self.each(out, |row| pattern.matches(values.value(row)));
        }
        let wanted = self.wanted();
        let finder = Finder::new(literal.as_bytes());
        let (ends, data) = (&values.value_offsets()[1..], values.value_data());
        let (mut row, mut at) = (0, values.value_offsets()[0] as usize);
        while let Some(found) = data.get(at..).and_then(|rest| finder.find(rest)) {
            // The row that the place found is in; near rows come soon.
            row +=
                ends[row..].iter().position(|end| at + found < *end as usize).unwrap_or(self.rows);
            if row >= self.rows {
                return;
            }
            let is_wanted = wanted[row / WORD] & 1 << (row % WORD) != 0;
            let passes = is_wanted && pattern.matches(values.value(row));
            out[row / WORD] |= u64::from(passes) << (row % WORD);
            at = ends[row] as usize;
        }
    }

    fn numbers<T: Native>(&self, values: &[T], accept: &Accept<Number>, out: &mut [u64]) {
        match accept {
            Accept::Nothing => {}
            Accept::Range(low, high) => {
                let Some((lowest, highest)) = T::interval(low, high) else { return };
                let passes = |value: T| (lowest <= value) & (value <= highest);
                match self.zones {
                    Some(zones) => self.zone_by_zone(values, (low, high), zones, out, passes),
                    None => words(values, &self.wanted(), out, passes),
                }
            }
            Accept::Except(number) => match T::exactly(number).filter(|_| !number.is_nan()) {
                Some(other) => words(values, &self.wanted(), out, |value| value != other),
                None => words(values, &self.wanted(), out, |_| true),
            },
            Accept::Points(points) => {
                let points: Vec<T> = points.iter().filter_map(T::exactly).collect();
                match points[..] {
                    [] => {}
                    [one] => words(values, &self.wanted(), out, |value| value == one),
                    _ if points.len() <= FEW_POINTS => {
                        words(values, &self.wanted(), out, |value| points.contains(&value));
                    }
                    _ => {
                        let points = set(points.into_iter().map(T::bits));
                        self.each(out, |row| points.contains(&values[row].bits()));
                    }
                }
            }
        }
    }

    /// Looks at the values of those zones only that do not tell by themselves.
    fn zone_by_zone<T: Native>(
        &self,
        values: &[T],
        (low, high): (&Bound<Number>, &Bound<Number>),
        zones: &Zones,
        out: &mut [u64],
        passes: impl Fn(T) -> bool,
    ) {
        let wanted = self.wanted();
        for start in (0..self.rows).step_by(ZONE_ROWS) {
            let Some(zone) = zones.at(self.first_row + start) else { return };
            let Some((lowest, highest)) = zone.range else { continue };
            let end = (start + ZONE_ROWS).min(self.rows);
            let place = start / WORD..end.div_ceil(WORD);
            let (values, wanted) = (&values[start..end], &wanted[place.clone()]);
            let out = &mut out[place];
            if is_above(low, &highest) || is_below(high, &lowest) {
                continue;
            }
            let is_inside = !is_above(low, &lowest) && !is_below(high, &highest);
            match is_inside && zone.is_complete {
                true => out.iter_mut().zip(wanted).for_each(|(out, wanted)| *out |= wanted),
                false => words(values, wanted, out, &passes),
            }
        }
    }
}

/// True when a number is below a lower bound.
fn is_above(low: &Bound<Number>, number: &Number) -> bool {
    use std::cmp::Ordering::{Equal, Less};
    match low {
        Bound::Unbounded => false,
        Bound::Included(low) => number.order(*low) == Some(Less),
        Bound::Excluded(low) => matches!(number.order(*low), Some(Less | Equal)),
    }
}

/// True when a number is above an upper bound.
fn is_below(high: &Bound<Number>, number: &Number) -> bool {
    use std::cmp::Ordering::{Equal, Greater};
    match high {
        Bound::Unbounded => false,
        Bound::Included(high) => number.order(*high) == Some(Greater),
        Bound::Excluded(high) => matches!(number.order(*high), Some(Greater | Equal)),
    }
}

/// True where looking at each row takes less than going through all.
fn is_sparse(within: &[u64]) -> bool {
    let count: usize = within.iter().map(|word| word.count_ones() as usize).sum();
    count < within.len()
}

fn set<T: Hash + Eq>(items: impl Iterator<Item = T>) -> HashSet<T> {
    items.collect()
}

fn is_range(accept: &Accept<Vec<u8>>, value: &[u8]) -> bool {
    let Accept::Range(low, high) = accept else { return false };
    let is_low = match low {
        Bound::Unbounded => true,
        Bound::Included(low) => value >= low.as_slice(),
        Bound::Excluded(low) => value > low.as_slice(),
    };
    is_low
        && match high {
            Bound::Unbounded => true,
            Bound::Included(high) => value <= high.as_slice(),
            Bound::Excluded(high) => value < high.as_slice(),
        }
}

/// Adds the values that pass, of those wanted. All values of a word are looked at, wanted or not: that
/// takes no branches.
#[inline(always)]
fn words<T: Copy>(values: &[T], wanted: &[u64], out: &mut [u64], passes: impl Fn(T) -> bool) {
    for ((values, wanted), out) in values.chunks(WORD).zip(wanted).zip(out) {
        if *wanted == 0 {
            continue;
        }
        let bits = values.iter().enumerate();
        let bits = bits.fold(0, |bits, (place, value)| bits | u64::from(passes(*value)) << place);
        *out |= bits & wanted;
    }
}
