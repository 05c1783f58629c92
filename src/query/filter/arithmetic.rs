//! Arithmetic on numbers: exact on whole ones, IEEE on floats, and nothing where there is no answer.

use super::syntax::Arithmetic;
use crate::schema::Number;

/// What stored whole numbers range over; a result outside is none.
const LOWEST: i128 = i64::MIN as i128;
const HIGHEST: i128 = u64::MAX as i128;

impl Arithmetic {
    /// The result, or `None` where it is a whole number out of range, or something is divided by zero.
    pub fn apply(self, left: Number, right: Number) -> Option<Number> {
        match (left, right) {
            (Number::Int(a), Number::Int(b)) if self != Arithmetic::Power || b >= 0 => {
                self.whole(a, b).and_then(in_range)
            }
            _ => self.float(left.to_f64(), right.to_f64()).map(Number::Float),
        }
    }

    /// On whole numbers; division leaves out what is behind the point, and a remainder has the sign of
    /// what is divided.
    fn whole(self, a: i128, b: i128) -> Option<i128> {
        match self {
            Arithmetic::Add => a.checked_add(b),
            Arithmetic::Subtract => a.checked_sub(b),
            Arithmetic::Multiply => a.checked_mul(b),
            Arithmetic::Divide => a.checked_div(b),
            Arithmetic::Remainder => a.checked_rem(b),
            // Above the largest exponent, only these bases stay in range: the last bit tells the sign.
            Arithmetic::Power => match u32::try_from(b) {
                Ok(exponent) => a.checked_pow(exponent),
                Err(_) if (-1..=1).contains(&a) => a.checked_pow(2 + (b & 1) as u32),
                Err(_) => None,
            },
        }
    }

    fn float(self, a: f64, b: f64) -> Option<f64> {
        match self {
            Arithmetic::Add => Some(a + b),
            Arithmetic::Subtract => Some(a - b),
            Arithmetic::Multiply => Some(a * b),
            Arithmetic::Divide => (b != 0.0).then(|| a / b),
            Arithmetic::Remainder => (b != 0.0).then(|| a % b),
            Arithmetic::Power => (a != 0.0 || b >= 0.0 || b.is_nan()).then(|| a.powf(b)),
        }
    }
}

/// The number with the other sign, where there is one.
pub(super) fn negative(number: Number) -> Option<Number> {
    match number {
        Number::Int(number) => number.checked_neg().and_then(in_range),
        Number::Float(number) => Some(Number::Float(-number)),
    }
}

fn in_range(number: i128) -> Option<Number> {
    (LOWEST..=HIGHEST).contains(&number).then_some(Number::Int(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Number::{Float, Int};

    fn check(left: Number, sign: &str, right: Number, expected: Option<Number>) {
        let (_, operator) = Arithmetic::ALL.into_iter().find(|(known, _)| *known == sign).unwrap();
        let result = operator.apply(left, right);
        assert_eq!(format!("{result:?}"), format!("{expected:?}"), "{left:?} {sign} {right:?}");
    }

    #[test]
    fn whole_numbers_are_exact_or_nothing() {
        let (most, least) = (Int(HIGHEST), Int(LOWEST));
        check(Int(1 << 53), "+", Int(1), Some(Int((1 << 53) + 1)));
        check(most, "+", Int(1), None);
        check(most, "-", most, Some(Int(0)));
        check(least, "-", Int(1), None);
        check(most, "*", most, None);
        check(least, "*", Int(-1), Some(Int(1 << 63)));
        check(Int(-7), "/", Int(2), Some(Int(-3)));
        check(Int(-7), "%", Int(2), Some(Int(-1)));
        check(Int(1), "/", Int(0), None);
        check(Int(1), "%", Int(0), None);
        check(least, "/", Int(-1), Some(Int(1 << 63)));
        check(Int(2), "**", Int(63), Some(Int(1 << 63)));
        check(Int(2), "**", Int(64), None);
        check(Int(-1), "**", most, Some(Int(-1)));
        check(Int(0), "**", most, Some(Int(0)));
        check(Int(0), "**", Int(0), Some(Int(1)));
        check(Int(3), "**", most, None);
        assert!(negative(most).is_none());
        assert!(matches!(negative(least), Some(Int(n)) if n == 1 << 63));
    }

    #[test]
    fn floats_follow_ieee_but_for_division_by_zero() {
        check(Int(1), "/", Float(2.0), Some(Float(0.5)));
        check(Int(2), "**", Int(-1), Some(Float(0.5)));
        check(Float(1e308), "*", Int(10), Some(Float(f64::INFINITY)));
        check(Float(-8.0), "**", Float(0.5), Some(Float(f64::NAN.copysign((-8f64).powf(0.5)))));
        check(Float(7.5), "%", Int(2), Some(Float(1.5)));
        for sign in ["/", "%"] {
            check(Float(1.0), sign, Int(0), None);
            check(Float(1.0), sign, Float(-0.0), None);
        }
        check(Int(0), "**", Int(-1), None);
        check(Float(0.0), "**", Float(-0.5), None);
    }
}
