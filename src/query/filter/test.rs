//! Conditions on one column alone: what its values must be, kind by kind. Most filters are made of these,
//! and only these are quick to evaluate over many rows.

use std::cmp::Ordering;
use std::ops::Bound;

use super::expr::{Constant, Expr};
use super::pattern::Pattern;
use super::syntax::Comparison;
use crate::schema::{Datum, Number};

/// What a value must be to pass, by its kind.
#[derive(Debug, Clone)]
pub(super) struct Test {
    pub numbers: Accept<Number>,
    /// Texts, as their bytes: these are in the same order.
    pub texts: Accept<Vec<u8>>,
    /// What texts must be like; beside what `texts` accepts.
    pub pattern: Option<Pattern>,
    pub bytes: Accept<Vec<u8>>,
    /// Whether false passes, and true.
    pub truths: [bool; 2],
}

/// Values of one kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Accept<T> {
    /// None of them.
    Nothing,
    /// Those between two bounds.
    Range(Bound<T>, Bound<T>),
    /// All but those equal to this one.
    Except(T),
    /// Those equal to one of these, which are ascending.
    Points(Vec<T>),
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Column(usize),
    Key,
}

impl Test {
    const NOTHING: Test = Test {
        numbers: Accept::Nothing,
        texts: Accept::Nothing,
        pattern: None,
        bytes: Accept::Nothing,
        truths: [false; 2],
    };

    /// The condition as one on a column alone, if it is one.
    pub fn of(expr: &Expr) -> Option<(Subject, Test)> {
        match expr {
            Expr::Column(_) | Expr::Key => {
                Some((subject(expr)?, Test { truths: [false, true], ..Test::NOTHING }))
            }
            Expr::In(inner, set) => {
                let test = Test {
                    numbers: Accept::points(set.numbers.clone()),
                    texts: Accept::points(
                        set.texts.iter().map(|text| text.clone().into()).collect(),
                    ),
                    bytes: Accept::points(set.bytes.clone()),
                    truths: set.truths,
                    pattern: None,
                };
                Some((subject(inner)?, test))
            }
            Expr::Like(inner, pattern) => Some((subject(inner)?, Test::like(pattern))),
            Expr::Compare(first, rest) => match &rest[..] {
                [(comparison, right)] => match (&**first, right) {
                    (Expr::Constant(constant), inner) => {
                        Some((subject(inner)?, Test::compare(comparison.turned(), constant)?))
                    }
                    (inner, Expr::Constant(constant)) => {
                        Some((subject(inner)?, Test::compare(*comparison, constant)?))
                    }
                    _ => None,
                },
                [(low, inner), (high, Expr::Constant(right))] => {
                    let Expr::Constant(left) = &**first else { return None };
                    let (low, high) =
                        (Test::compare(low.turned(), left)?, Test::compare(*high, right)?);
                    Some((subject(inner)?, low.and_range(high)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The test that a value compares with a constant; `None` for one that is unknown of all.
    fn compare(comparison: Comparison, constant: &Constant) -> Option<Test> {
        let test = match constant {
            Constant::Null => return None,
            Constant::Number(number) => {
                Test { numbers: Accept::numbers(comparison, *number), ..Test::NOTHING }
            }
            Constant::Text(text) => {
                let texts = Accept::of(comparison, text.clone().into_bytes());
                Test { texts, ..Test::NOTHING }
            }
            Constant::Bytes(bytes) => {
                Test { bytes: Accept::of(comparison, bytes.clone()), ..Test::NOTHING }
            }
            Constant::Truth(truth) => {
                let passes = |value| {
                    comparison.truth(&Datum::Bool(value), &Datum::Bool(*truth)) == Some(true)
                };
                Test { truths: [passes(false), passes(true)], ..Test::NOTHING }
            }
        };
        Some(test)
    }

    fn like(pattern: &Pattern) -> Test {
        if let Some(text) = pattern.exact() {
            return Test { texts: Accept::points(vec![text.into_bytes()]), ..Test::NOTHING };
        }
        let (prefix, is_all) = pattern.prefix();
        let texts = match prefix.into_bytes() {
            prefix if prefix.is_empty() => Accept::Range(Bound::Unbounded, Bound::Unbounded),
            prefix => {
                // What begins with the prefix is below what has the next byte in its last place. UTF-8
                // has no byte that has none.
                let mut end = prefix.clone();
                end.iter_mut().rev().take(1).for_each(|last| *last += 1);
                Accept::Range(Bound::Included(prefix), Bound::Excluded(end))
            }
        };
        Test { texts, pattern: (!is_all).then(|| pattern.clone()), ..Test::NOTHING }
    }

    /// The test that both pass, of two ranges that bound a value from two sides.
    fn and_range(self, other: Test) -> Test {
        Test {
            numbers: self.numbers.and_range(other.numbers),
            texts: self.texts.and_range(other.texts),
            pattern: None,
            bytes: self.bytes.and_range(other.bytes),
            truths: [0, 1].map(|truth| self.truths[truth] && other.truths[truth]),
        }
    }

    /// True when nothing passes.
    pub fn is_nothing(&self) -> bool {
        let numbers = matches!(self.numbers, Accept::Nothing);
        let others = self.texts == Accept::Nothing && self.bytes == Accept::Nothing;
        numbers && others && self.truths == [false; 2]
    }

    /// True where an order of values is of no use: what passes may be anywhere in it.
    pub fn is_scanned(&self) -> bool {
        let is_any = self.texts == Accept::Range(Bound::Unbounded, Bound::Unbounded);
        is_any || matches!(self.texts, Accept::Except(_))
    }
}

fn subject(expr: &Expr) -> Option<Subject> {
    match expr {
        Expr::Column(column) => Some(Subject::Column(*column)),
        Expr::Key => Some(Subject::Key),
        _ => None,
    }
}

impl<T> Accept<T> {
    fn points(points: Vec<T>) -> Self {
        if points.is_empty() { Accept::Nothing } else { Accept::Points(points) }
    }

    fn of(comparison: Comparison, value: T) -> Self {
        use Bound::{Excluded, Included, Unbounded};
        match comparison {
            Comparison::Equal => Accept::Points(vec![value]),
            Comparison::NotEqual => Accept::Except(value),
            Comparison::Less => Accept::Range(Unbounded, Excluded(value)),
            Comparison::LessOrEqual => Accept::Range(Unbounded, Included(value)),
            Comparison::Greater => Accept::Range(Excluded(value), Unbounded),
            Comparison::GreaterOrEqual => Accept::Range(Included(value), Unbounded),
        }
    }

    fn and_range(self, other: Accept<T>) -> Accept<T> {
        match (self, other) {
            (Accept::Range(low, Bound::Unbounded), Accept::Range(Bound::Unbounded, high))
            | (Accept::Range(Bound::Unbounded, high), Accept::Range(low, Bound::Unbounded)) => {
                Accept::Range(low, high)
            }
            _ => Accept::Nothing,
        }
    }
}

impl Accept<Number> {
    fn numbers(comparison: Comparison, number: Number) -> Self {
        match (comparison, number.is_nan()) {
            // Everything is different from NaN, and nothing compares with it otherwise.
            (Comparison::NotEqual, true) => Accept::Except(number),
            (_, true) => Accept::Nothing,
            (comparison, false) => Accept::of(comparison, number),
        }
    }
}

impl Comparison {
    /// The comparison with its sides exchanged.
    fn turned(self) -> Comparison {
        match self {
            Comparison::Equal | Comparison::NotEqual => self,
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        }
    }
}

/// A type that numbers of a column are stored in.
pub(super) trait Native: Copy + PartialOrd {
    /// The lowest and the highest value of the type between two bounds, of which neither is NaN.
    fn interval(low: &Bound<Number>, high: &Bound<Number>) -> Option<(Self, Self)>;

    /// The value of the type that a number is worth, if there is one.
    fn exactly(number: &Number) -> Option<Self> {
        let bound = Bound::Included(*number);
        Self::interval(&bound, &bound).map(|(low, _)| low)
    }

    /// Different for values that are different, and equal for equal ones.
    fn bits(self) -> u64;
}

/// The lowest whole number within a lower bound, or the highest within an upper one.
fn whole(bound: &Bound<Number>, is_low: bool) -> Option<i128> {
    let step = if is_low { 1 } else { -1 };
    match *bound {
        Bound::Unbounded => Some(if is_low { i128::MIN } else { i128::MAX }),
        Bound::Included(Number::Int(number)) => Some(number),
        Bound::Excluded(Number::Int(number)) => number.checked_add(step),
        // What is beyond an i128 is cut to its ends, which are beyond every type.
        Bound::Included(Number::Float(number)) => {
            Some((if is_low { number.ceil() } else { number.floor() }) as i128)
        }
        Bound::Excluded(Number::Float(number)) => {
            let inside = if is_low { number.floor() } else { number.ceil() };
            (inside as i128).checked_add(step)
        }
    }
}

macro_rules! native_int {
    ($($int:ty),*) => {$(
        impl Native for $int {
            fn interval(low: &Bound<Number>, high: &Bound<Number>) -> Option<(Self, Self)> {
                let low = whole(low, true)?.max(<$int>::MIN.into());
                let high = whole(high, false)?.min(<$int>::MAX.into());
                (low <= high).then_some((low as $int, high as $int))
            }

            fn bits(self) -> u64 {
                self as u64
            }
        }
    )*};
}

native_int!(i32, i64, u32, u64);

macro_rules! native_float {
    ($($float:ty),*) => {$(
        impl Native for $float {
            fn interval(low: &Bound<Number>, high: &Bound<Number>) -> Option<(Self, Self)> {
                // The nearest float may be on the wrong side of the bound; then its neighbour is not.
                let nearest = |number: &Number| {
                    let float = number.to_f64() as $float;
                    (float, Number::Float(float.into()).order(*number))
                };
                let low = match low {
                    Bound::Unbounded => <$float>::NEG_INFINITY,
                    Bound::Included(number) => match nearest(number) {
                        (float, Some(Ordering::Less)) => float.next_up(),
                        (float, _) => float,
                    },
                    Bound::Excluded(number) => match nearest(number) {
                        (float, Some(Ordering::Greater)) => float,
                        (<$float>::INFINITY, _) => return None,
                        (float, _) => float.next_up(),
                    },
                };
                let high = match high {
                    Bound::Unbounded => <$float>::INFINITY,
                    Bound::Included(number) => match nearest(number) {
                        (float, Some(Ordering::Greater)) => float.next_down(),
                        (float, _) => float,
                    },
                    Bound::Excluded(number) => match nearest(number) {
                        (float, Some(Ordering::Less)) => float,
                        (<$float>::NEG_INFINITY, _) => return None,
                        (float, _) => float.next_down(),
                    },
                };
                (low <= high).then_some((low, high))
            }

            fn bits(self) -> u64 {
                // Adding 0 makes one of the two zeros.
                (self + 0.0).to_bits().into()
            }
        }
    )*};
}

native_float!(f32, f64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Value;

    fn any_number() -> impl Strategy<Value = Number> {
        let int = prop_oneof![
            (-3i128..4),
            any::<i64>().prop_map(i128::from),
            any::<u64>().prop_map(i128::from),
            (-2i128..3).prop_map(|near| (1 << 53) + near),
            (-2i128..3).prop_map(|near| (1 << 24) + near),
            (-2i128..1).prop_map(|near| i128::from(u64::MAX) + near),
            (0i128..3).prop_map(|near| i128::from(i64::MIN) + near),
            (-2i128..3).prop_map(|near| i128::from(i64::MAX) + near),
            (-2i128..3).prop_map(|near| i128::from(u32::MAX) + near),
            (-2i128..3).prop_map(|near| i128::from(i32::MIN) + near),
        ];
        let float = prop_oneof![
            any::<f64>().prop_filter("NaN is nowhere", |float| !float.is_nan()),
            any::<f32>().prop_filter("NaN is nowhere", |f| !f.is_nan()).prop_map(f64::from),
            any::<i64>().prop_map(|int| int as f64),
            (-6i8..7).prop_map(|half| f64::from(half) / 2.0),
            Just(0.1),
            Just(f64::from(0.1f32)),
            Just(f64::MAX),
            Just(f64::from(f32::MAX)),
            Just(-0.0),
        ];
        prop_oneof![int.prop_map(Number::Int), float.prop_map(Number::Float)]
    }

    fn any_bound() -> impl Strategy<Value = Bound<Number>> {
        prop_oneof![
            any_number().prop_map(Bound::Included),
            any_number().prop_map(Bound::Excluded),
            Just(Bound::Unbounded),
        ]
    }

    fn check<T: Native>(low: &Bound<Number>, high: &Bound<Number>, native: T, value: Value) {
        let Datum::Number(number) = Datum::from(&value) else { panic!("a number") };
        let above = match low {
            Bound::Unbounded => !number.is_nan(),
            Bound::Included(low) => number.order(*low).is_some_and(Ordering::is_ge),
            Bound::Excluded(low) => number.order(*low) == Some(Ordering::Greater),
        };
        let below = match high {
            Bound::Unbounded => !number.is_nan(),
            Bound::Included(high) => number.order(*high).is_some_and(Ordering::is_le),
            Bound::Excluded(high) => number.order(*high) == Some(Ordering::Less),
        };
        let found = T::interval(low, high).is_some_and(|(a, b)| a <= native && native <= b);
        assert_eq!(found, above && below, "{low:?} {high:?} {value:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn intervals_of_a_type_hold_what_is_between_the_bounds(
            low in any_bound(),
            high in any_bound(),
            near in any_number(),
            steps in -1i8..2,
        ) {
            // Values at the bounds, beside them, and anywhere.
            for number in [Some(near), inside(&low), inside(&high)].into_iter().flatten() {
                let float = number.to_f64();
                let int = match number {
                    Number::Int(int) => int.saturating_add(steps.into()),
                    Number::Float(float) => (float as i128).saturating_add(steps.into()),
                };
                let step = |float: f64| match steps {
                    -1 => float.next_down(),
                    0 => float,
                    _ => float.next_up(),
                };
                let small = match steps {
                    -1 => (float as f32).next_down(),
                    0 => float as f32,
                    _ => (float as f32).next_up(),
                };
                check(&low, &high, int as i32, Value::Int32(int as i32));
                check(&low, &high, int as i64, Value::Int64(int as i64));
                check(&low, &high, int as u32, Value::UInt32(int as u32));
                check(&low, &high, int as u64, Value::UInt64(int as u64));
                check(&low, &high, small, Value::Float(small));
                check(&low, &high, step(float), Value::Double(step(float)));
            }
            check(&low, &high, f64::NAN, Value::Double(f64::NAN));
            check(&low, &high, f32::INFINITY, Value::Float(f32::INFINITY));
        }
    }

    fn inside(bound: &Bound<Number>) -> Option<Number> {
        match bound {
            Bound::Included(number) | Bound::Excluded(number) => Some(*number),
            Bound::Unbounded => None,
        }
    }
}
