//! Forward values as filters see them: whole numbers and floats of all widths are one kind, compared by
//! what they are worth, without loss.

use std::cmp::Ordering;

use super::types::Value;

/// A number, exactly: every stored whole number is an `Int`, every stored float a `Float`.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A whole number; those stored are -2^63 to 2^64-1.
    Int(i128),
    /// A float.
    Float(f64),
}

/// 2^127, which no `i128` reaches.
const INT_END: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;

impl Number {
    /// The order of two numbers by what they are worth; `None` where one is NaN.
    pub fn order(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
            (Number::Int(a), Number::Float(b)) => order_mixed(a, b),
            (Number::Float(a), Number::Int(b)) => order_mixed(b, a).map(Ordering::reverse),
        }
    }

    /// The nearest float.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Int(number) => number as f64,
            Number::Float(number) => number,
        }
    }

    /// True for the float that is no number.
    pub fn is_nan(self) -> bool {
        matches!(self, Number::Float(number) if number.is_nan())
    }
}

fn order_mixed(int: i128, float: f64) -> Option<Ordering> {
    if float >= INT_END {
        return Some(Ordering::Less);
    }
    if float < -INT_END {
        return Some(Ordering::Greater);
    }
    // In this range, what is before the point is an i128 exactly.
    let whole = float.trunc();
    let rest = whole.partial_cmp(&float)?;
    Some(int.cmp(&(whole as i128)).then(rest))
}

/// A forward value, borrowed.
#[derive(Debug, Clone, Copy)]
pub enum Datum<'a> {
    /// Unset.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number of any width.
    Number(Number),
    /// Text, ordered by its UTF-8 bytes, which is the order of its code points.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Datum<'_> {
    /// The order of two values of one kind; `None` where they are of two, or one is NaN or unset.
    pub fn order(&self, other: &Datum<'_>) -> Option<Ordering> {
        match (self, other) {
            (Datum::Bool(a), Datum::Bool(b)) => Some(a.cmp(b)),
            (Datum::Number(a), Datum::Number(b)) => a.order(*b),
            (Datum::Text(a), Datum::Text(b)) => Some(a.cmp(b)),
            (Datum::Bytes(a), Datum::Bytes(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// True where both are values of one kind.
    pub fn is_alike(&self, other: &Datum<'_>) -> bool {
        matches!(
            (self, other),
            (Datum::Bool(_), Datum::Bool(_))
                | (Datum::Number(_), Datum::Number(_))
                | (Datum::Text(_), Datum::Text(_))
                | (Datum::Bytes(_), Datum::Bytes(_))
        )
    }
}

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bytes(bytes) => Datum::Bytes(bytes),
            Value::String(text) => Datum::Text(text),
            Value::Bool(truth) => Datum::Bool(*truth),
            Value::Int32(number) => Datum::Number(Number::Int((*number).into())),
            Value::Int64(number) => Datum::Number(Number::Int((*number).into())),
            Value::UInt32(number) => Datum::Number(Number::Int((*number).into())),
            Value::UInt64(number) => Datum::Number(Number::Int((*number).into())),
            Value::Float(number) => Datum::Number(Number::Float((*number).into())),
            Value::Double(number) => Datum::Number(Number::Float(*number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO_53: i128 = 1 << 53;

    fn check(int: i128, float: f64, expected: Option<Ordering>) {
        assert_eq!(Number::Int(int).order(Number::Float(float)), expected, "{int} and {float}");
        let turned = expected.map(Ordering::reverse);
        assert_eq!(Number::Float(float).order(Number::Int(int)), turned, "{float} and {int}");
    }

    #[test]
    fn whole_numbers_and_floats_are_compared_without_loss() {
        use Ordering::{Equal, Greater, Less};
        check(TWO_53 + 1, TWO_53 as f64, Some(Greater));
        check(TWO_53, TWO_53 as f64, Some(Equal));
        check(i64::MAX.into(), 9_223_372_036_854_775_808.0, Some(Less));
        check(u64::MAX.into(), 18_446_744_073_709_551_616.0, Some(Less));
        check(i64::MIN.into(), i64::MIN as f64, Some(Equal));
        check(0, -0.0, Some(Equal));
        check(0, 5e-324, Some(Less));
        check(0, -5e-324, Some(Greater));
        check(-3, -3.5, Some(Greater));
        check(-4, -3.5, Some(Less));
        check(u64::MAX.into(), f64::INFINITY, Some(Less));
        check(i64::MIN.into(), f64::NEG_INFINITY, Some(Greater));
        check(i128::MIN, -INT_END, Some(Equal));
        check(i128::MAX, INT_END, Some(Less));
        check(1, f64::NAN, None);
    }

    proptest! {
        #[test]
        fn numbers_near_each_other_keep_their_order(int in any::<i64>(), steps in -3i64..4) {
            let near = f64::from_bits(((int as f64).to_bits() as i64).saturating_add(steps) as u64);
            let mixed = Number::Int(int.into()).order(Number::Float(near));
            // Every finite float of this size is a whole number or is told by its fraction.
            let whole = near.floor();
            let expected = i128::from(int).cmp(&(whole as i128));
            let expected = expected.then(if near > whole { Ordering::Less } else { Ordering::Equal });
            prop_assert_eq!(mixed, Some(expected));
        }
    }
}
