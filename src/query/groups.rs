//! The nearest groups of rows: those that share the value of a forward column.
//!
//! As long as an index is quicker than a scan, some rows more than wanted are looked for, and more
//! again, in the hope that they are of enough groups. Then all rows are looked at, in up to two passes:
//! the nearest groups, and where several rows of each are wanted, these. A pass keeps no more than it
//! returns, and reads the values only of rows that are near enough to count.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::execute::{Search, SegmentRef, Stop};
use super::within::Admitted;
use crate::index::{Best, Candidate, TopK, TopRows};
use crate::schema::{Datum, Group, Number};
use crate::segment::{ForwardColumn, GrowingView, Told};

/// Rows looked for at first, as times the rows wanted, and how often twice as many are looked for then.
const FIRST_FACTOR: usize = 2;
const ROUNDS: u32 = 3;

/// What the rows of a group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum GroupKey<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
    Bool(bool),
    /// Whole numbers, floats among them, that 64 bits can hold.
    Whole(i128),
    /// Other floats, by their bits; NaNs are one.
    Float(u64),
    /// A row without a value, which is a group by itself.
    Row((u32, u32)),
}

impl<'a> GroupKey<'a> {
    fn new(value: Datum<'a>, place: (u32, u32)) -> Self {
        /// 2^64: what is below is a whole number exactly.
        const END: f64 = 18_446_744_073_709_551_616.0;
        match value {
            Datum::Null => GroupKey::Row(place),
            Datum::Bytes(bytes) => GroupKey::Bytes(bytes),
            Datum::Text(text) => GroupKey::Text(text),
            Datum::Bool(truth) => GroupKey::Bool(truth),
            Datum::Number(Number::Int(number)) => GroupKey::Whole(number),
            Datum::Number(Number::Float(number)) if number.is_nan() => {
                GroupKey::Float(f64::NAN.to_bits())
            }
            Datum::Number(Number::Float(number)) => {
                match number.fract() == 0.0 && number.abs() < END {
                    true => GroupKey::Whole(number as i128),
                    false => GroupKey::Float(number.to_bits()),
                }
            }
        }
    }
}

/// A forward column of all segments.
struct Values<'a> {
    segments: Vec<SegmentValues<'a>>,
}

enum SegmentValues<'a> {
    Sealed(ForwardColumn<'a>),
    Growing(&'a GrowingView, usize),
}

impl<'a> Values<'a> {
    fn new(segments: &'a [SegmentRef<'a>], column: usize) -> Self {
        let values = |segment: &SegmentRef<'a>| match *segment {
            SegmentRef::Sealed(sealed) => SegmentValues::Sealed(sealed.forward_column(column)),
            SegmentRef::Growing(view) => SegmentValues::Growing(view, column),
        };
        Values { segments: segments.iter().map(values).collect() }
    }

    fn key(&self, place: (u32, u32)) -> GroupKey<'_> {
        let value = match &self.segments[place.0 as usize] {
            SegmentValues::Sealed(column) => column.datum(place.1),
            SegmentValues::Growing(view, column) => {
                let row = view.locate(place.1).and_then(|(block, at)| block.forward.get(at));
                let value = row.and_then(|row| row.get(*column)?.as_ref());
                value.map_or(Datum::Null, Datum::from)
            }
        };
        GroupKey::new(value, place)
    }
}

/// Keeps the nearest row of each of the nearest groups.
struct TopGroups<'a> {
    values: &'a Values<'a>,
    wanted: usize,
    /// The nearest row of each group.
    rows: HashMap<GroupKey<'a>, Candidate>,
    /// The same, nearest first.
    groups: BTreeMap<Candidate, GroupKey<'a>>,
    bound: f32,
}

impl<'a> TopGroups<'a> {
    fn new(values: &'a Values<'a>, wanted: usize, radius: Option<f32>) -> Self {
        let bound = radius.unwrap_or(f32::INFINITY);
        TopGroups { values, wanted, rows: HashMap::new(), groups: BTreeMap::new(), bound }
    }
}

impl Best for TopGroups<'_> {
    #[inline]
    fn wants(&self, score: f32) -> bool {
        score <= self.bound
    }

    fn push(&mut self, candidate: Candidate) {
        if !self.wants(candidate.score) {
            return;
        }
        let key = self.values.key(candidate.place);
        match self.rows.get(&key) {
            Some(known) if *known <= candidate => return,
            Some(known) => _ = self.groups.remove(known),
            None => {}
        }
        self.rows.insert(key, candidate);
        self.groups.insert(candidate, key);
        if self.groups.len() > self.wanted
            && let Some((_, farthest)) = self.groups.pop_last()
        {
            self.rows.remove(&farthest);
        }
        if self.groups.len() == self.wanted
            && let Some((farthest, _)) = self.groups.last_key_value()
        {
            self.bound = self.bound.min(farthest.score);
        }
    }

    fn bound(&self) -> f32 {
        self.bound
    }

    fn into_sorted(self) -> Vec<Candidate> {
        self.groups.into_keys().collect()
    }
}

/// Keeps the nearest rows of groups that are known.
struct GroupRows<'a, B> {
    values: &'a Values<'a>,
    places: &'a HashMap<GroupKey<'a>, usize>,
    rows: Vec<B>,
    radius: f32,
}

impl<B: Best> Best for GroupRows<'_, B> {
    #[inline]
    fn wants(&self, score: f32) -> bool {
        score <= self.radius
    }

    fn push(&mut self, candidate: Candidate) {
        if let Some(at) = self.places.get(&self.values.key(candidate.place)) {
            self.rows[*at].push(candidate);
        }
    }

    fn bound(&self) -> f32 {
        self.radius
    }

    fn into_sorted(self) -> Vec<Candidate> {
        let mut rows: Vec<Candidate> = self.rows.into_iter().flat_map(B::into_sorted).collect();
        rows.sort_unstable();
        rows
    }
}

/// The rows of groups, group after group, and how many each has.
pub(super) type Grouped = (Vec<Candidate>, Vec<u32>);

impl Search<'_> {
    /// The nearest groups of each query vector; no more than `results_max` rows are looked for with an
    /// index.
    pub(super) fn grouped(
        &self,
        group: Group,
        results_max: u64,
    ) -> std::result::Result<Vec<Grouped>, Stop> {
        self.each(|vector| self.groups_of(vector, group, results_max))
    }

    fn groups_of(
        &self,
        vector: &[u8],
        group: Group,
        results_max: u64,
    ) -> std::result::Result<Grouped, Stop> {
        let values = Values::new(self.segments, group.column);
        let wanted = self.k - self.spare;
        let rows = self.segments.iter().map(SegmentRef::rows).sum::<u64>();
        let most = rows.min(results_max);
        let mut looked_for = wanted.saturating_mul(group.size).saturating_mul(FIRST_FACTOR);
        for _ in 0..=ROUNDS {
            let k = looked_for.saturating_add(self.spare);
            let told = Told::default();
            let search = Search { k, told: &told, ..*self };
            if k as u64 > most || !search.has_index() {
                break;
            }
            let found = search.one(vector)?;
            let is_all = found.len() < looked_for;
            let (grouped, is_full) = gather(&values, &found, wanted, group.size);
            if is_full || is_all {
                self.told.add(&told);
                return Ok(grouped);
            }
            looked_for = looked_for.saturating_mul(2);
        }
        self.groups_of_all(vector, &values, (wanted, group.size))
    }

    /// The nearest groups of all rows.
    fn groups_of_all(
        &self,
        vector: &[u8],
        values: &Values<'_>,
        (wanted, size): (usize, usize),
    ) -> std::result::Result<Grouped, Stop> {
        let radius = self.radius;
        let all = Search { is_exact: true, ..*self };
        let best = || TopGroups::new(values, wanted, radius);
        let found = all.nearest(vector, || Admitted::new(self, best()))?;
        // Of several segments, which may have rows of the same groups.
        let mut top = best();
        found.into_iter().for_each(|candidate| top.push(candidate));
        if size == 1 {
            let rows = top.into_sorted();
            let sizes = vec![1; rows.len()];
            return Ok((rows, sizes));
        }
        let places: HashMap<GroupKey<'_>, usize> = top.groups.into_values().zip(0..).collect();
        let places = &places;
        let found = match self.rows_once {
            false => all.rows_of_groups(vector, (values, places), || TopK::new(size, radius)),
            true => all.rows_of_groups(vector, (values, places), || TopRows::new(size, radius)),
        }?;
        Ok(gather(values, &found, wanted, size).0)
    }

    /// What `best` keeps of each of these groups.
    fn rows_of_groups<'a, B: Best>(
        &self,
        vector: &[u8],
        (values, places): (&'a Values<'a>, &'a HashMap<GroupKey<'a>, usize>),
        best: impl Fn() -> B + Sync,
    ) -> std::result::Result<Vec<Candidate>, Stop> {
        let radius = self.radius.unwrap_or(f32::INFINITY);
        let rows = || places.iter().map(|_| best()).collect();
        self.nearest(vector, || {
            Admitted::new(self, GroupRows { values, places, rows: rows(), radius })
        })
    }
}

/// The groups of rows that come nearest first: the first `wanted` of them, with up to `size` rows each,
/// and whether there is nothing that rows farther away could add.
fn gather(values: &Values<'_>, found: &[Candidate], wanted: usize, size: usize) -> (Grouped, bool) {
    let mut places: HashMap<GroupKey<'_>, usize> = HashMap::new();
    let mut groups: Vec<Vec<Candidate>> = Vec::new();
    let mut missing = wanted.saturating_mul(size);
    for candidate in found {
        let key = values.key(candidate.place);
        let is_alone = matches!(key, GroupKey::Row(_));
        let at = match places.get(&key) {
            Some(at) => *at,
            None if groups.len() == wanted => continue,
            None => {
                places.insert(key, groups.len());
                groups.push(Vec::new());
                groups.len() - 1
            }
        };
        if groups[at].len() < size {
            groups[at].push(*candidate);
            missing -= if is_alone { size } else { 1 };
        }
        if missing == 0 {
            break;
        }
    }
    let sizes = groups.iter().map(|rows| rows.len() as u32).collect();
    ((groups.concat(), sizes), missing == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Value;

    #[test]
    fn values_of_equal_worth_are_one_group_and_rows_without_a_value_are_none() {
        fn key(value: &Value) -> GroupKey<'_> {
            GroupKey::new(Datum::from(value), (0, 0))
        }
        let five = Value::Int32(5);
        for same in [Value::Int64(5), Value::UInt32(5), Value::Float(5.0), Value::Double(5.0)] {
            assert_eq!(key(&same), key(&five));
        }
        let different = [
            five,
            Value::Double(5.5),
            Value::Double(1e30),
            Value::Double(-1e30),
            Value::Float(f32::NAN),
            Value::Float(f32::INFINITY),
            Value::UInt64(u64::MAX),
            Value::Int64(i64::MIN),
            Value::String("5".into()),
            Value::Bytes(bytes::Bytes::from_static(b"5")),
            Value::Bool(true),
        ];
        for value in &different {
            let same = different.iter().filter(|other| key(other) == key(value));
            assert_eq!(same.count(), 1, "{value:?}");
        }
        let pairs = [
            (Value::Double(0.0), Value::Float(-0.0)),
            (Value::Float(f32::NAN), Value::Double(-f64::NAN)),
            (Value::Double(u64::MAX as f64), Value::Float(u64::MAX as f32)),
        ];
        assert!(pairs.iter().all(|(a, b)| key(a) == key(b)));
        let row = |place| GroupKey::new(Datum::Null, place);
        assert_ne!(row((0, 1)), row((0, 2)));
    }
}
