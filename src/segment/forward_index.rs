//! What tells quickly which rows have which values of a forward column: the rows in the order of their
//! values, and the lowest and highest number of each run of rows.
//!
//! It is derived from the values, made in the background once a filter asked for it, and kept in memory
//! as long as its segment is open.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::OnceLock;
use std::sync::atomic::{self, AtomicBool};

use super::forward_column::{ForwardColumn, Part, Values};
use crate::error::Result;
use crate::schema::{Datum, Number};

/// Rows of a zone, where a batch has so many.
pub const ZONE_ROWS: usize = 4_096;
/// Bytes of memory for a row: kept, and beside them while rows are sorted.
const ROW_BYTES: u64 = 4;
const SORT_ROW_BYTES: u64 = 16;

/// What is known of a forward column, once it is.
#[derive(Debug, Default)]
pub(super) struct ForwardIndex {
    is_wanted: AtomicBool,
    zones: OnceLock<Zones>,
    order: OnceLock<ValueOrder>,
}

impl ForwardIndex {
    /// True where making has something to do.
    pub fn is_lacking(&self) -> bool {
        self.is_wanted.load(atomic::Ordering::Relaxed) && self.order.get().is_none()
    }

    /// The zones and the order, as far as they are there. Where they are not but may be, asks for them.
    pub fn get(&self, is_indexable: bool) -> (Option<&Zones>, Option<&ValueOrder>) {
        if is_indexable && self.order.get().is_none() {
            self.is_wanted.store(true, atomic::Ordering::Relaxed);
        }
        (self.zones.get(), self.order.get())
    }

    /// True where the order is there.
    pub fn has_order(&self) -> bool {
        self.order.get().is_some()
    }

    /// Makes what was asked for. `admit` says whether that many bytes may be taken; where it refuses, the
    /// order is left for later.
    pub fn make(
        &self,
        column: &ForwardColumn<'_>,
        rows: u32,
        admit: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        // Set once each: whoever comes second made the same.
        if self.zones.get().is_none() {
            let _ = self.zones.set(Zones::new(column));
        }
        if self.order.get().is_none() {
            admit(u64::from(rows) * (ROW_BYTES + SORT_ROW_BYTES))?;
            let _ = self.order.set(ValueOrder::new(column));
        }
        Ok(())
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.zones.get().map_or(0, |zones| size_of_val(&*zones.zones))
            + self.order.get().map_or(0, ValueOrder::memory_bytes)
    }
}

/// What the numbers of a zone's rows are.
#[derive(Debug, Clone, Copy)]
pub struct Zone {
    /// The lowest and the highest that is not NaN; `None` where there is none.
    pub range: Option<(Number, Number)>,
    /// Every row has a number, and none is NaN.
    pub is_complete: bool,
}

/// The zones of a column, in row order.
#[derive(Debug)]
pub struct Zones {
    zones: Box<[Zone]>,
    /// Rows of a zone: [`ZONE_ROWS`], or of a batch where that has fewer.
    rows: usize,
}

impl Zones {
    fn new(column: &ForwardColumn<'_>) -> Self {
        let batches = column.batches.iter().flat_map(|batch| {
            let starts = (0..batch.rows).step_by(ZONE_ROWS);
            starts.map(|start| zone(&batch.parts, start, (start + ZONE_ROWS).min(batch.rows)))
        });
        Zones { zones: batches.collect(), rows: ZONE_ROWS.min(column.batch_rows) }
    }

    /// The zone that begins at a row.
    pub fn at(&self, first_row: usize) -> Option<&Zone> {
        self.zones.get(first_row / self.rows)
    }
}

fn zone(parts: &[Part<'_>], start: usize, end: usize) -> Zone {
    let (mut range, mut count) = (None, 0);
    for part in parts.iter().filter(|part| part.values.are_numbers()) {
        for row in start..end {
            let Some(Datum::Number(number)) = part.datum(row) else { continue };
            if number.is_nan() {
                continue;
            }
            count += 1;
            let (low, high) = range.unwrap_or((number, number));
            let is_below = number.order(low) == Some(Ordering::Less);
            let is_above = number.order(high) == Some(Ordering::Greater);
            range =
                Some((if is_below { number } else { low }, if is_above { number } else { high }));
        }
    }
    Zone { range, is_complete: count == end - start }
}

/// The rows of a column in the order of their values, each kind apart; equal ones by row.
#[derive(Debug)]
pub struct ValueOrder {
    /// Those with numbers; NaN comes last.
    numbers: Box<[u32]>,
    /// How many of them are not NaN.
    ordered: usize,
    texts: Box<[u32]>,
    bytes: Box<[u32]>,
    /// Those with false, and those with true.
    truths: [Box<[u32]>; 2],
}

/// A row to be sorted, with something of its value that is ordered in no other way than the value.
type Sorted = (u64, u32);

impl ValueOrder {
    fn new(column: &ForwardColumn<'_>) -> Self {
        let mut truths = [Vec::new(), Vec::new()];
        for (row, part, at) in rows_of(column, |values| matches!(values, Values::Bool(_))) {
            if let Some(Datum::Bool(truth)) = part.datum(at) {
                truths[usize::from(truth)].push(row);
            }
        }
        let numbers = sorted(column, |values| values.are_numbers());
        let is_nan =
            |row: &u32| matches!(column.datum(*row), Datum::Number(number) if number.is_nan());
        ValueOrder {
            ordered: numbers.partition_point(|row| !is_nan(row)),
            numbers,
            texts: sorted(column, |values| matches!(values, Values::Text(_))),
            bytes: sorted(column, |values| matches!(values, Values::Bytes(_))),
            truths: truths.map(Vec::into_boxed_slice),
        }
    }

    fn memory_bytes(&self) -> usize {
        let all = [&self.numbers, &self.texts, &self.bytes, &self.truths[0], &self.truths[1]];
        all.into_iter().map(|rows| size_of_val(&**rows)).sum()
    }

    /// The rows with a truth value, ascending.
    pub fn truths(&self, truth: bool) -> &[u32] {
        &self.truths[usize::from(truth)]
    }

    /// The rows with numbers between two bounds, in the order of these.
    pub fn numbers(
        &self,
        column: &ForwardColumn<'_>,
        bounds: (Bound<Number>, Bound<Number>),
    ) -> &[u32] {
        let datum = |bound: Bound<Number>| bound.map(Datum::Number);
        within(column, &self.numbers[..self.ordered], (datum(bounds.0), datum(bounds.1)))
    }

    /// The rows with texts between two bounds, in the order of these.
    pub fn texts(
        &self,
        column: &ForwardColumn<'_>,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> &[u32] {
        within_bytes(column, &self.texts, bounds)
    }

    /// The rows with bytes between two bounds, in the order of these.
    pub fn bytes(
        &self,
        column: &ForwardColumn<'_>,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> &[u32] {
        within_bytes(column, &self.bytes, bounds)
    }
}

fn within<'o>(
    column: &ForwardColumn<'_>,
    rows: &'o [u32],
    (low, high): (Bound<Datum<'_>>, Bound<Datum<'_>>),
) -> &'o [u32] {
    let order = |row: u32, bound: &Datum<'_>| column.datum(row).order(bound);
    between(
        rows,
        |row| match &low {
            Bound::Unbounded => false,
            Bound::Included(low) => order(row, low) == Some(Ordering::Less),
            Bound::Excluded(low) => order(row, low).is_some_and(Ordering::is_le),
        },
        |row| match &high {
            Bound::Unbounded => true,
            Bound::Included(high) => order(row, high).is_some_and(Ordering::is_le),
            Bound::Excluded(high) => order(row, high) == Some(Ordering::Less),
        },
    )
}

fn within_bytes<'o>(
    column: &ForwardColumn<'_>,
    rows: &'o [u32],
    (low, high): (Bound<&[u8]>, Bound<&[u8]>),
) -> &'o [u32] {
    let bytes = |row: u32| match column.datum(row) {
        Datum::Text(text) => text.as_bytes(),
        Datum::Bytes(bytes) => bytes,
        _ => &[],
    };
    between(
        rows,
        |row| match low {
            Bound::Unbounded => false,
            Bound::Included(low) => bytes(row) < low,
            Bound::Excluded(low) => bytes(row) <= low,
        },
        |row| match high {
            Bound::Unbounded => true,
            Bound::Included(high) => bytes(row) <= high,
            Bound::Excluded(high) => bytes(row) < high,
        },
    )
}

/// The rows behind those that are below and before those that are above.
fn between(
    rows: &[u32],
    is_below: impl Fn(u32) -> bool,
    is_not_above: impl Fn(u32) -> bool,
) -> &[u32] {
    let start = rows.partition_point(|row| is_below(*row));
    let rest = &rows[start..];
    &rest[..rest.partition_point(|row| is_not_above(*row))]
}

/// Rows with values of some kinds, each with the part that has its value and its place there.
fn rows_of<'c>(
    column: &'c ForwardColumn<'_>,
    is_wanted: impl Fn(&Values<'_>) -> bool + Copy + 'c,
) -> impl Iterator<Item = (u32, &'c Part<'c>, usize)> + 'c {
    let mut first = 0;
    column.batches.iter().flat_map(move |batch| {
        let first_row = first;
        first += batch.rows as u32;
        let parts = batch.parts.iter().filter(move |part| is_wanted(&part.values));
        parts.flat_map(move |part| {
            let rows = (0..batch.rows).filter(|row| part.is_present(*row));
            rows.map(move |at| (first_row + at as u32, part, at))
        })
    })
}

/// The rows with values of some kinds, in their order.
fn sorted(
    column: &ForwardColumn<'_>,
    is_wanted: impl Fn(&Values<'_>) -> bool + Copy,
) -> Box<[u32]> {
    let mut rows: Vec<Sorted> = Vec::with_capacity(rows_of(column, is_wanted).count());
    let keyed = rows_of(column, is_wanted);
    rows.extend(keyed.filter_map(|(row, part, at)| Some((leading(&part.datum(at)?), row))));
    let exact = |a: u32, b: u32| {
        let (a, b) = (column.datum(a), column.datum(b));
        a.order(&b).unwrap_or(Ordering::Equal)
    };
    // Most are told apart by what leads; only the others are looked up.
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| exact(a.1, b.1)).then(a.1.cmp(&b.1)));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Something of a value that never orders two values of a kind otherwise than they are.
fn leading(value: &Datum<'_>) -> u64 {
    let bytes = |bytes: &[u8]| {
        let mut leading = [0; 8];
        let length = bytes.len().min(8);
        leading[..length].copy_from_slice(&bytes[..length]);
        u64::from_be_bytes(leading)
    };
    match value {
        Datum::Null => 0,
        Datum::Bool(truth) => u64::from(*truth),
        Datum::Text(text) => bytes(text.as_bytes()),
        Datum::Bytes(blob) => bytes(blob),
        Datum::Number(number) if number.is_nan() => u64::MAX,
        Datum::Number(number) => {
            // Adding 0 makes one of the two zeros; the bits of floats are ordered by magnitude.
            let bits = (number.to_f64() + 0.0).to_bits();
            if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
        }
    }
}
