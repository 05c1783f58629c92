//! Arithmetic and comparisons over runs of rows: the parts of a filter as numbers of one machine type
//! side by side where they are that, and as exact numbers where they are not.

use super::arithmetic::negative;
use super::columns::Columns;
use super::expr::{Constant, Expr};
use super::syntax::{Arithmetic, Comparison};
use super::test::Subject;
use crate::schema::{Datum, Number};
use crate::segment::{ForwardBatch, Part, Values};

/// Rows that are computed at once: all that is in between stays in the nearest cache.
pub(super) const RUN_ROWS: usize = 1_024;
const WORD: usize = u64::BITS as usize;
const RUN_WORDS: usize = RUN_ROWS / WORD;

/// A bitmap over a run of rows.
pub(super) type Bits = [u64; RUN_WORDS];

/// A run of at most [`RUN_ROWS`] rows of one batch.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub columns: &'a Columns<'a>,
    /// Which batch.
    pub batch: usize,
    /// Its first row in the batch, a multiple of 64.
    pub start: usize,
    /// How many rows there are.
    pub rows: usize,
}

/// Numbers of a run of rows. What is no number is anything here, and left out by `valid`.
struct Lane {
    numbers: Numbers,
    valid: Bits,
}

enum Numbers {
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Exact(Vec<Number>),
}

impl Run<'_> {
    /// The rows where a condition is true, or false, if all its operands are numbers here.
    pub fn condition(&self, expr: &Expr, wanted: bool) -> Option<Bits> {
        match expr {
            Expr::Compare(first, rest) => {
                let mut left = self.lane(first)?;
                // True where all are, false where any is.
                let mut found = if wanted { self.all() } else { Bits::default() };
                for (comparison, right) in rest {
                    let right = self.lane(right)?;
                    let valid = and(&left.valid, &right.valid);
                    let holds = self.compare(*comparison, &left.numbers, &right.numbers);
                    for (place, found) in found.iter_mut().enumerate() {
                        match wanted {
                            true => *found &= valid[place] & holds[place],
                            false => *found |= valid[place] & !holds[place],
                        }
                    }
                    left = right;
                }
                Some(found)
            }
            Expr::In(inner, set) => {
                let lane = self.lane(inner)?;
                let is_in = |place| set.contains(&Datum::Number(lane.numbers.at(place)));
                Some(self.bits(|place| is_set(&lane.valid, place) && is_in(place) == wanted))
            }
            Expr::IsNull(inner) => {
                let valid = self.lane(inner)?.valid;
                let all = self.all();
                Some(std::array::from_fn(|word| {
                    if wanted { all[word] & !valid[word] } else { valid[word] }
                }))
            }
            _ => None,
        }
    }

    fn all(&self) -> Bits {
        self.bits(|_| true)
    }

    /// The rows that `is_in` accepts.
    #[inline(always)]
    fn bits(&self, is_in: impl Fn(usize) -> bool) -> Bits {
        let mut bits = Bits::default();
        for (place, word) in bits.iter_mut().enumerate() {
            let rows = place * WORD..self.rows.min((place + 1) * WORD);
            *word = rows.fold(0, |word, row| word | u64::from(is_in(row)) << (row % WORD));
        }
        bits
    }

    /// The numbers that a part of a filter is; `None` where it may be something else in some row.
    fn lane(&self, expr: &Expr) -> Option<Lane> {
        match expr {
            Expr::Constant(Constant::Number(number)) => Some(self.constant(*number)),
            Expr::Constant(Constant::Null) => {
                Some(Lane { numbers: Numbers::Ints(vec![0; self.rows]), valid: Bits::default() })
            }
            Expr::Key => self.column(Subject::Key),
            Expr::Column(column) => self.column(Subject::Column(*column)),
            Expr::Negative(inner) => Some(self.negative(self.lane(inner)?)),
            Expr::Arithmetic(operator, left, right) => {
                Some(self.arithmetic(*operator, self.lane(left)?, self.lane(right)?))
            }
            _ => None,
        }
    }

    fn constant(&self, number: Number) -> Lane {
        let numbers = match number {
            Number::Float(float) => Numbers::Floats(vec![float; self.rows]),
            Number::Int(int) => match i64::try_from(int) {
                Ok(int) => Numbers::Ints(vec![int; self.rows]),
                Err(_) => Numbers::Exact(vec![number; self.rows]),
            },
        };
        Lane { numbers, valid: self.all() }
    }

    fn column(&self, subject: Subject) -> Option<Lane> {
        let batch = self.columns.of(subject).batches.get(self.batch)?;
        match &batch.parts[..] {
            [] => Some(Lane { numbers: Numbers::Ints(vec![0; self.rows]), valid: Bits::default() }),
            [part] => Some(Lane { numbers: self.numbers(&part.values)?, valid: self.valid(part) }),
            parts => parts.iter().all(|part| part.values.are_numbers()).then(|| self.mixed(batch)),
        }
    }

    fn valid(&self, part: &Part<'_>) -> Bits {
        if part.is_complete() {
            return self.all();
        }
        self.bits(|place| part.is_present(self.start + place))
    }

    fn numbers(&self, values: &Values<'_>) -> Option<Numbers> {
        let rows = self.start..self.start + self.rows;
        Some(match values {
            Values::Int32(values) => {
                Numbers::Ints(values[rows].iter().map(|value| (*value).into()).collect())
            }
            Values::UInt32(values) => {
                Numbers::Ints(values[rows].iter().map(|value| (*value).into()).collect())
            }
            Values::Int64(values) => Numbers::Ints(values[rows].to_vec()),
            Values::UInt64(values) => {
                let values = &values[rows];
                let ints: Option<Vec<i64>> =
                    values.iter().map(|value| i64::try_from(*value).ok()).collect();
                ints.map_or_else(
                    || Numbers::Exact(values.iter().map(|v| Number::Int((*v).into())).collect()),
                    Numbers::Ints,
                )
            }
            Values::Float(values) => {
                Numbers::Floats(values[rows].iter().map(|value| (*value).into()).collect())
            }
            Values::Double(values) => Numbers::Floats(values[rows].to_vec()),
            Values::Bytes(_) | Values::Text(_) | Values::Bool(_) => return None,
        })
    }

    /// A column of numbers of several types.
    fn mixed(&self, batch: &ForwardBatch<'_>) -> Lane {
        let number = |place| match batch.datum(self.start + place) {
            Datum::Number(number) => Some(number),
            _ => None,
        };
        self.exact((0..self.rows).map(number))
    }

    fn exact(&self, numbers: impl Iterator<Item = Option<Number>>) -> Lane {
        let mut valid = Bits::default();
        let numbers = numbers.enumerate().map(|(place, number)| {
            valid[place / WORD] |= u64::from(number.is_some()) << (place % WORD);
            number.unwrap_or(Number::Int(0))
        });
        let numbers = Numbers::Exact(numbers.collect());
        Lane { numbers, valid }
    }

    fn negative(&self, lane: Lane) -> Lane {
        match &lane.numbers {
            Numbers::Floats(floats) => {
                let numbers = Numbers::Floats(floats.iter().map(|float| -float).collect());
                Lane { numbers, valid: lane.valid }
            }
            Numbers::Ints(ints) if !ints.contains(&i64::MIN) => {
                let numbers = Numbers::Ints(ints.iter().map(|int| -int).collect());
                Lane { numbers, valid: lane.valid }
            }
            numbers => self.exact((0..self.rows).map(|place| {
                is_set(&lane.valid, place).then(|| negative(numbers.at(place))).flatten()
            })),
        }
    }

    fn arithmetic(&self, operator: Arithmetic, left: Lane, right: Lane) -> Lane {
        let valid = and(&left.valid, &right.valid);
        let quick = match (&left.numbers, &right.numbers) {
            (Numbers::Ints(left), Numbers::Ints(right)) => self.ints(operator, left, right, &valid),
            (Numbers::Exact(_), _) | (_, Numbers::Exact(_)) => None,
            (left, right) => self.floats(operator, &left.floats(), &right.floats(), &valid),
        };
        quick.unwrap_or_else(|| {
            let apply = |place| operator.apply(left.numbers.at(place), right.numbers.at(place));
            self.exact(
                (0..self.rows).map(|place| is_set(&valid, place).then(|| apply(place)).flatten()),
            )
        })
    }

    /// On whole numbers of 64 bits, unless a result has more.
    fn ints(
        &self,
        operator: Arithmetic,
        left: &[i64],
        right: &[i64],
        valid: &Bits,
    ) -> Option<Lane> {
        let each = |apply: fn(i64, i64) -> (i64, bool)| {
            let mut is_out = false;
            let results = left.iter().zip(right).map(|(left, right)| {
                let (result, overflows) = apply(*left, *right);
                is_out |= overflows;
                result
            });
            let results: Vec<i64> = results.collect();
            (!is_out).then_some(results)
        };
        let mut valid = *valid;
        let results = match operator {
            Arithmetic::Add => each(i64::overflowing_add)?,
            Arithmetic::Subtract => each(i64::overflowing_sub)?,
            Arithmetic::Multiply => each(i64::overflowing_mul)?,
            Arithmetic::Divide | Arithmetic::Remainder => {
                let divisible = self.bits(|place| right[place] != 0);
                valid = and(&valid, &divisible);
                match operator {
                    Arithmetic::Divide => {
                        each(|a, b| if b == 0 { (0, false) } else { a.overflowing_div(b) })?
                    }
                    _ => each(|a, b| if b == 0 { (0, false) } else { a.overflowing_rem(b) })?,
                }
            }
            Arithmetic::Power => return None,
        };
        Some(Lane { numbers: Numbers::Ints(results), valid })
    }

    fn floats(
        &self,
        operator: Arithmetic,
        left: &[f64],
        right: &[f64],
        valid: &Bits,
    ) -> Option<Lane> {
        let each = |apply: fn(f64, f64) -> f64| -> Vec<f64> {
            left.iter().zip(right).map(|(left, right)| apply(*left, *right)).collect()
        };
        let mut valid = *valid;
        if matches!(operator, Arithmetic::Divide | Arithmetic::Remainder) {
            valid = and(&valid, &self.bits(|place| right[place] != 0.0));
        }
        let results = match operator {
            Arithmetic::Add => each(|a, b| a + b),
            Arithmetic::Subtract => each(|a, b| a - b),
            Arithmetic::Multiply => each(|a, b| a * b),
            Arithmetic::Divide => each(|a, b| a / b),
            Arithmetic::Remainder => each(|a, b| a % b),
            Arithmetic::Power => return None,
        };
        Some(Lane { numbers: Numbers::Floats(results), valid })
    }

    /// The rows where a comparison of two numbers holds, and any of those that have none.
    fn compare(&self, comparison: Comparison, left: &Numbers, right: &Numbers) -> Bits {
        match (left, right) {
            (Numbers::Ints(left), Numbers::Ints(right)) => self.ordered(comparison, left, right),
            (Numbers::Floats(left), Numbers::Floats(right)) => {
                self.ordered(comparison, left, right)
            }
            _ => self.bits(|place| {
                let (left, right) = (left.at(place), right.at(place));
                comparison.truth(&Datum::Number(left), &Datum::Number(right)) == Some(true)
            }),
        }
    }

    fn ordered<T: PartialOrd>(&self, comparison: Comparison, left: &[T], right: &[T]) -> Bits {
        match comparison {
            Comparison::Equal => self.bits(|place| left[place] == right[place]),
            Comparison::NotEqual => self.bits(|place| left[place] != right[place]),
            Comparison::Less => self.bits(|place| left[place] < right[place]),
            Comparison::LessOrEqual => self.bits(|place| left[place] <= right[place]),
            Comparison::Greater => self.bits(|place| left[place] > right[place]),
            Comparison::GreaterOrEqual => self.bits(|place| left[place] >= right[place]),
        }
    }
}

impl Numbers {
    fn at(&self, place: usize) -> Number {
        match self {
            Numbers::Ints(numbers) => Number::Int(numbers[place].into()),
            Numbers::Floats(numbers) => Number::Float(numbers[place]),
            Numbers::Exact(numbers) => numbers[place],
        }
    }

    fn floats(&self) -> Vec<f64> {
        match self {
            Numbers::Ints(numbers) => numbers.iter().map(|number| *number as f64).collect(),
            Numbers::Floats(numbers) => numbers.clone(),
            Numbers::Exact(numbers) => numbers.iter().map(|number| number.to_f64()).collect(),
        }
    }
}

fn and(left: &Bits, right: &Bits) -> Bits {
    std::array::from_fn(|word| left[word] & right[word])
}

fn is_set(bits: &Bits, place: usize) -> bool {
    bits[place / WORD] & 1 << (place % WORD) != 0
}
