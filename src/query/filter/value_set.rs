//! The list on the right side of `in`, sorted so that a value is looked up in logarithmic time.

use std::cmp::Ordering;

use crate::schema::{Datum, Number};

/// Values of any kinds, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct ValueSet {
    /// Ascending, without NaN: nothing is equal to it.
    pub numbers: Vec<Number>,
    /// Ascending.
    pub texts: Vec<String>,
    /// Ascending.
    pub bytes: Vec<Vec<u8>>,
    /// Whether false is among them, and true.
    pub truths: [bool; 2],
}

fn order(a: &Number, b: &Number) -> Ordering {
    a.order(*b).unwrap_or(Ordering::Equal)
}

impl<'a> FromIterator<Datum<'a>> for ValueSet {
    fn from_iter<I: IntoIterator<Item = Datum<'a>>>(values: I) -> Self {
        let mut set = ValueSet::default();
        for value in values {
            match value {
                Datum::Null => {}
                Datum::Bool(truth) => set.truths[usize::from(truth)] = true,
                Datum::Number(number) if number.is_nan() => {}
                Datum::Number(number) => set.numbers.push(number),
                Datum::Text(text) => set.texts.push(text.to_owned()),
                Datum::Bytes(bytes) => set.bytes.push(bytes.to_vec()),
            }
        }
        set.numbers.sort_by(order);
        set.numbers.dedup_by(|a, b| order(a, b) == Ordering::Equal);
        set.texts.sort_unstable();
        set.texts.dedup();
        set.bytes.sort_unstable();
        set.bytes.dedup();
        set
    }
}

impl ValueSet {
    /// True when a value equal to this one is in the set.
    pub fn contains(&self, value: &Datum<'_>) -> bool {
        match value {
            Datum::Null => false,
            Datum::Bool(truth) => self.truths[usize::from(*truth)],
            Datum::Number(number) if number.is_nan() => false,
            Datum::Number(number) => {
                self.numbers.binary_search_by(|known| order(known, number)).is_ok()
            }
            Datum::Text(text) => {
                self.texts.binary_search_by(|known| known.as_str().cmp(text)).is_ok()
            }
            Datum::Bytes(bytes) => {
                self.bytes.binary_search_by(|known| known.as_slice().cmp(bytes)).is_ok()
            }
        }
    }
}
