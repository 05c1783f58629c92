//! Sets of row numbers: the rows of a segment that a query may return.

const WORD: usize = u64::BITS as usize;

/// A set of rows of one segment, as a bitmap with its count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    count: usize,
}

impl RowSet {
    /// An empty set.
    pub fn new() -> Self {
        RowSet::default()
    }

    /// The set of those of `0..rows` that `is_in` accepts.
    pub fn from_fn(rows: u32, is_in: impl Fn(u32) -> bool) -> Self {
        let word = |first: u32| {
            let bits =
                (first..rows.min(first.saturating_add(WORD as u32))).filter(|row| is_in(*row));
            bits.fold(0u64, |word, row| word | 1 << (row - first))
        };
        Self::from_words((0..rows).step_by(WORD).map(word).collect())
    }

    /// The set of these rows, all below `count`.
    pub fn from_rows(count: u32, rows: &[u32]) -> Self {
        let mut words = vec![0; (count as usize).div_ceil(WORD)];
        for row in rows.iter().map(|row| *row as usize) {
            words[row / WORD] |= 1 << (row % WORD);
        }
        Self::from_words(words)
    }

    /// The set whose bitmap these words are, lowest bit first.
    pub fn from_words(words: Vec<u64>) -> Self {
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        RowSet { words, count }
    }

    /// Those of `0..rows` that are not in the set.
    pub fn complement(&self, rows: u32) -> RowSet {
        let words = (rows as usize).div_ceil(WORD);
        let mut words: Vec<u64> =
            (0..words).map(|place| !self.words.get(place).copied().unwrap_or(0)).collect();
        let rest = rows as usize % WORD;
        if let Some(last) = words.last_mut().filter(|_| rest > 0) {
            *last &= (1 << rest) - 1;
        }
        RowSet::from_words(words)
    }

    /// Rows in the set.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True when the row is in the set.
    #[inline(always)]
    pub fn contains(&self, row: u32) -> bool {
        let word = self.words.get(row as usize / WORD);
        word.is_some_and(|word| word & (1 << (row as usize % WORD)) != 0)
    }

    /// The rows that are in both sets.
    pub fn intersection(&self, other: &RowSet) -> RowSet {
        RowSet::from_words(self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect())
    }

    /// The rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            let first = (place * WORD) as u32;
            let rest = std::iter::successors(Some(*word), |word| Some(word & word.wrapping_sub(1)));
            rest.take_while(|word| *word != 0).map(move |word| first + word.trailing_zeros())
        })
    }

    /// Rows of the set among `first..first + count`.
    pub fn count_within(&self, first: u32, count: usize) -> usize {
        let (start, end) = (first as usize, first as usize + count);
        let words = self.words.iter().enumerate().take(end.div_ceil(WORD)).skip(start / WORD);
        let ones = words.map(|(place, word)| {
            let low = start.saturating_sub(place * WORD).min(WORD);
            let high = (end - place * WORD).min(WORD);
            let below_high = if high == WORD { u64::MAX } else { (1 << high) - 1 };
            let from_low = if low == WORD { 0 } else { u64::MAX << low };
            (word & below_high & from_low).count_ones() as usize
        });
        ones.sum()
    }

    /// Up to `count` rows spread evenly over the numbers of all rows, ascending.
    pub fn spread(&self, count: usize) -> impl Iterator<Item = u32> {
        let (words, mut next) = (&self.words, 0);
        (0..count).filter_map(move |part| {
            let start = (part * words.len() / count).max(next);
            let place = start + words.get(start..)?.iter().position(|word| *word != 0)?;
            next = place + 1;
            Some((place * WORD) as u32 + words[place].trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_what_was_put_in(
            rows in proptest::collection::btree_set(0u32..1_000, 0..200),
            (first, count) in (0u32..1_100, 0usize..300),
            parts in 0usize..40,
        ) {
            let set = RowSet::from_fn(1_000, |row| rows.contains(&row));
            prop_assert_eq!(set.len(), rows.len());
            prop_assert!(set.iter().eq(rows.iter().copied()));
            prop_assert!((0..1_100).all(|row| set.contains(row) == rows.contains(&row)));
            let listed: Vec<u32> = rows.iter().copied().collect();
            prop_assert_eq!(&set, &RowSet::from_rows(1_000, &listed));
            let others = RowSet::from_fn(700, |row| row % 3 != 0);
            let both = rows.iter().copied().filter(|row| *row < 700 && row % 3 != 0);
            prop_assert!(set.intersection(&others).iter().eq(both));
            let absent = (0..count as u32).filter(|row| !rows.contains(row));
            prop_assert!(set.complement(count as u32).iter().eq(absent));
            let within = rows.range(first..first + count as u32).count();
            prop_assert_eq!(set.count_within(first, count), within);
            let some: Vec<u32> = set.spread(parts).collect();
            prop_assert!(some.iter().all(|row| rows.contains(row)) && some.len() <= parts);
            prop_assert!(some.is_sorted_by(|a, b| a < b));
            prop_assert!(parts == 0 || rows.is_empty() || !some.is_empty());
        }
    }
}
