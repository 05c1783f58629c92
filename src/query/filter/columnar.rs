//! Evaluating a filter over a whole sealed segment, column by column, to the rows that it lets through.
//!
//! Logic of three values is kept by asking each part for the rows where it is true, or for those where
//! it is false: the others are unknown. `not` turns the question around.

use std::ops::Bound;

use super::columns::Columns;
use super::expr::{Constant, Expr};
use super::lanes::{RUN_ROWS, Run};
use super::scan::{present, scan};
use super::test::{Accept, Subject, Test};
use crate::schema::{Datum, Number};
use crate::segment::{ForwardColumn, Sealed, ValueOrder, full_words};

const WORD: usize = u64::BITS as usize;
/// Where one of so many rows is left to be looked at, each is looked at by itself.
const FEW: usize = 256;
/// Rows found in an order of values are marked one by one; where they are more than one of so many, a
/// scan of numbers marks them sooner.
const SPREAD: usize = 4;
/// A value is looked up in an order of values in the time of a scan of so many rows.
const LOOK_UP_ROWS: usize = 1_024;

/// A bitmap of the rows of a segment, 64 to a word.
type Words = Vec<u64>;

/// The rows of a segment where a filter is true.
pub(super) fn rows(sealed: &Sealed, expr: &Expr) -> Words {
    let columns = Columns::new(sealed, expr);
    let rows = sealed.rows() as usize;
    Evaluation { sealed, columns: &columns, rows }.rows(expr, true, None)
}

struct Evaluation<'a> {
    sealed: &'a Sealed,
    columns: &'a Columns<'a>,
    rows: usize,
}

impl Evaluation<'_> {
    fn none(&self) -> Words {
        vec![0; self.rows.div_ceil(WORD)]
    }

    /// The rows where a part is true, or false, of those in `within`.
    fn rows(&self, expr: &Expr, wanted: bool, within: Option<&[u64]>) -> Words {
        match expr {
            Expr::Not(inner) => self.rows(inner, !wanted, within),
            Expr::And(terms) if wanted => self.all(terms, wanted, within),
            Expr::Or(terms) if !wanted => self.all(terms, wanted, within),
            Expr::And(terms) | Expr::Or(terms) => self.any(terms, wanted, within),
            Expr::Constant(Constant::Truth(truth)) if *truth == wanted => self.every(within),
            Expr::Constant(_) => self.none(),
            condition => match within {
                Some(words) if count(words) < self.rows / FEW => {
                    self.each(condition, wanted, words)
                }
                _ => self.condition(condition, wanted, within),
            },
        }
    }

    fn every(&self, within: Option<&[u64]>) -> Words {
        within.map_or_else(|| full_words(self.rows), <[u64]>::to_vec)
    }

    /// The rows where all terms are true, or all are false.
    fn all(&self, terms: &[Expr], wanted: bool, within: Option<&[u64]>) -> Words {
        let mut found: Option<Words> = None;
        for term in self.by_cost(terms) {
            let left = found.as_deref().or(within);
            let rows = self.rows(term, wanted, left);
            let is_over = rows.iter().all(|word| *word == 0);
            found = Some(rows);
            if is_over {
                break;
            }
        }
        found.unwrap_or_else(|| self.every(within))
    }

    /// The rows where any term is true, or any is false.
    fn any(&self, terms: &[Expr], wanted: bool, within: Option<&[u64]>) -> Words {
        let (mut found, mut left) = (self.none(), self.every(within));
        for term in self.by_cost(terms) {
            let rows = self.rows(term, wanted, Some(&left));
            for ((found, left), rows) in found.iter_mut().zip(&mut left).zip(rows) {
                *found |= rows;
                *left &= !rows;
            }
            if left.iter().all(|word| *word == 0) {
                break;
            }
        }
        found
    }

    /// Terms, those first that are quickly told and leave fewer rows to the others.
    fn by_cost<'e>(&self, terms: &'e [Expr]) -> Vec<&'e Expr> {
        let mut terms: Vec<&Expr> = terms.iter().collect();
        terms.sort_by_cached_key(|term| self.cost(term));
        terms
    }

    /// How long a part takes, in no unit.
    fn cost(&self, expr: &Expr) -> u32 {
        match expr {
            Expr::Constant(_) => 0,
            Expr::Not(inner) => self.cost(inner),
            Expr::And(terms) | Expr::Or(terms) => {
                terms.iter().map(|term| self.cost(term)).fold(1, u32::saturating_add)
            }
            Expr::IsNull(inner) if matches!(**inner, Expr::Column(_) | Expr::Key) => 1,
            condition => match Test::of(condition) {
                Some((Subject::Column(column), test)) if self.sealed.has_order(column) => {
                    if test.is_scanned() { 10 } else { 1 }
                }
                Some((_, test)) => {
                    if test.texts == Accept::Nothing {
                        2
                    } else {
                        10
                    }
                }
                None => 20,
            },
        }
    }

    /// Looks at each row by itself.
    fn each(&self, expr: &Expr, wanted: bool, within: &[u64]) -> Words {
        let mut found = self.none();
        for row in ones(within) {
            let is_wanted = expr.truth(&self.columns.row(row)) == Some(wanted);
            found[row as usize / WORD] |= u64::from(is_wanted) << (row as usize % WORD);
        }
        found
    }

    fn condition(&self, expr: &Expr, wanted: bool, within: Option<&[u64]>) -> Words {
        let mut found = match (Test::of(expr), expr) {
            (Some((subject, test)), _) => {
                let mut found = self.test(subject, test, within);
                if !wanted {
                    let known = self.present(subject);
                    found.iter_mut().zip(known).for_each(|(word, known)| *word = known & !*word);
                }
                found
            }
            (None, Expr::IsNull(inner)) => match **inner {
                Expr::Column(column) => self.set(Subject::Column(column), !wanted),
                Expr::Key => self.set(Subject::Key, !wanted),
                _ => self.run_by_run(expr, wanted, within),
            },
            _ => self.run_by_run(expr, wanted, within),
        };
        if let Some(within) = within {
            found.iter_mut().zip(within).for_each(|(word, within)| *word &= within);
        }
        found
    }

    /// The rows that have a value in a column, or those that have none.
    fn set(&self, subject: Subject, is_set: bool) -> Words {
        let mut words = self.present(subject);
        if !is_set {
            let all = full_words(self.rows);
            words.iter_mut().zip(all).for_each(|(word, all)| *word = all & !*word);
        }
        words
    }

    fn present(&self, subject: Subject) -> Words {
        let mut words = self.none();
        let mut first = 0;
        for batch in &self.columns.of(subject).batches {
            present(batch, &mut words[first / WORD..]);
            first += batch.rows;
        }
        words
    }

    /// The rows whose value passes a test.
    fn test(&self, subject: Subject, mut test: Test, within: Option<&[u64]>) -> Words {
        let mut found = self.none();
        let column = self.columns.of(subject);
        let (zones, order) = match subject {
            Subject::Column(column) => self.sealed.forward_index(column),
            Subject::Key => (None, None),
        };
        if let Some(order) = order {
            self.look_up(column, order, &mut test, &mut found);
        }
        if test.is_nothing() {
            return found;
        }
        let mut first = 0;
        for batch in &column.batches {
            let place = first / WORD..(first + batch.rows).div_ceil(WORD);
            let within = within.map(|within| &within[place.clone()]);
            if within.is_none_or(|words| words.iter().any(|word| *word != 0)) {
                scan(batch, first, &test, zones, within, &mut found[place]);
            }
            first += batch.rows;
        }
        found
    }

    /// Marks the rows that an order of values finds quickly, and takes the kinds that it found out of the
    /// test.
    fn look_up(
        &self,
        column: &ForwardColumn<'_>,
        order: &ValueOrder,
        test: &mut Test,
        found: &mut [u64],
    ) {
        let is_few =
            |runs: &[&[u32]]| runs.iter().map(|run| run.len()).sum::<usize>() <= self.rows / SPREAD;
        let can_look_up = |points: usize| points * LOOK_UP_ROWS <= self.rows;
        let numbers =
            |low: &Bound<Number>, high: &Bound<Number>| order.numbers(column, (*low, *high));
        let runs = match &test.numbers {
            Accept::Range(low, high) => Some(vec![numbers(low, high)]),
            Accept::Points(points) if can_look_up(points.len()) => {
                let point =
                    |point: &Number| numbers(&Bound::Included(*point), &Bound::Included(*point));
                Some(points.iter().map(point).collect())
            }
            Accept::Points(_) | Accept::Except(_) | Accept::Nothing => None,
        };
        if let Some(runs) = runs.filter(|runs| is_few(runs)) {
            mark(&runs, found);
            test.numbers = Accept::Nothing;
        }
        let texts = |bounds: (Bound<&[u8]>, Bound<&[u8]>)| order.texts(column, bounds);
        match (byte_runs(&test.texts, can_look_up, texts), &test.pattern) {
            (None, _) => {}
            (Some(runs), None) => {
                mark(&runs, found);
                test.texts = Accept::Nothing;
            }
            (Some(runs), Some(pattern)) => {
                // Looking each up takes longer than going through them as they lie.
                if is_few(&runs) {
                    let is_match = |row: &u32| matches!(column.datum(*row), Datum::Text(text) if pattern.matches(text));
                    let rows = runs.iter().flat_map(|run| run.iter().copied());
                    let rows: Vec<u32> = rows.filter(is_match).collect();
                    mark(&[&rows], found);
                    test.texts = Accept::Nothing;
                }
            }
        }
        let bytes = |bounds: (Bound<&[u8]>, Bound<&[u8]>)| order.bytes(column, bounds);
        if let Some(runs) = byte_runs(&test.bytes, can_look_up, bytes) {
            mark(&runs, found);
            test.bytes = Accept::Nothing;
        }
        for truth in [false, true] {
            let run = order.truths(truth);
            if test.truths[usize::from(truth)] && is_few(&[run]) {
                mark(&[run], found);
                test.truths[usize::from(truth)] = false;
            }
        }
    }

    /// Evaluates what compares columns with each other, or with results of arithmetic, run by run.
    fn run_by_run(&self, expr: &Expr, wanted: bool, within: Option<&[u64]>) -> Words {
        let mut found = self.none();
        let mut first = 0;
        for (batch, keys) in self.columns.batches().iter().enumerate() {
            for start in (0..keys.rows).step_by(RUN_ROWS) {
                let rows = RUN_ROWS.min(keys.rows - start);
                let place = (first + start) / WORD..(first + start + rows).div_ceil(WORD);
                let within = within.map(|within| &within[place.clone()]);
                if within.is_some_and(|words| words.iter().all(|word| *word == 0)) {
                    continue;
                }
                let run = Run { columns: self.columns, batch, start, rows };
                if let Some(bits) = run.condition(expr, wanted) {
                    found[place].iter_mut().zip(bits).for_each(|(found, bits)| *found = bits);
                    continue;
                }
                for row in first + start..first + start + rows {
                    let is_wanted = expr.truth(&self.columns.row(row as u32)) == Some(wanted);
                    found[row / WORD] |= u64::from(is_wanted) << (row % WORD);
                }
            }
            first += keys.rows;
        }
        found
    }
}

/// The rows of texts or bytes that a test accepts, where an order of values finds them.
fn byte_runs<'o>(
    accept: &Accept<Vec<u8>>,
    can_look_up: impl Fn(usize) -> bool,
    within: impl Fn((Bound<&[u8]>, Bound<&[u8]>)) -> &'o [u32],
) -> Option<Vec<&'o [u32]>> {
    fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
        bound.as_ref().map(Vec::as_slice)
    }
    match accept {
        Accept::Nothing | Accept::Except(_) => None,
        Accept::Range(low, high) => Some(vec![within((slice(low), slice(high)))]),
        Accept::Points(points) => can_look_up(points.len()).then(|| {
            let point = |point: &Vec<u8>| {
                within((Bound::Included(point.as_slice()), Bound::Included(point.as_slice())))
            };
            points.iter().map(point).collect()
        }),
    }
}

fn mark(runs: &[&[u32]], found: &mut [u64]) {
    for row in runs.iter().copied().flatten() {
        found[*row as usize / WORD] |= 1 << (*row as usize % WORD);
    }
}

fn count(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// The rows of a bitmap, ascending.
fn ones(words: &[u64]) -> impl Iterator<Item = u32> {
    words.iter().enumerate().flat_map(|(place, word)| {
        let rest = std::iter::successors(Some(*word), |word| Some(word & word.wrapping_sub(1)));
        let bits = rest.take_while(|word| *word != 0).map(u64::trailing_zeros);
        bits.map(move |bit| (place * WORD) as u32 + bit)
    })
}
