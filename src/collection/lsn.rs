//! The LSNs a repository collection has seen, and the one a synchronising process resumes from.

use std::collections::BTreeMap;

use crate::schema::LsnContext;

/// LSNs remembered.
const WINDOW: usize = 2_000;

/// The highest LSNs seen.
#[derive(Debug, Clone, Default)]
pub struct LsnWindow {
    seen: BTreeMap<u64, String>,
}

impl LsnWindow {
    /// A window that has seen these.
    pub fn restored(seen: impl IntoIterator<Item = LsnContext>) -> Self {
        let mut window = LsnWindow::default();
        seen.into_iter().for_each(|lsn| window.include(lsn));
        window
    }

    /// Remembers an LSN; the lowest is forgotten when there are too many.
    pub fn include(&mut self, lsn: LsnContext) {
        self.seen.insert(lsn.lsn, lsn.context);
        if self.seen.len() > WINDOW {
            self.seen.pop_first();
        }
    }

    /// Where to resume: the greatest LSN below the first gap; (0, "") when none was seen.
    pub fn latest(&self) -> LsnContext {
        let mut latest: Option<(u64, &String)> = None;
        for (&lsn, context) in &self.seen {
            match latest {
                Some((last, _)) if lsn > last + 1 => break,
                _ => latest = Some((lsn, context)),
            }
        }
        latest.map_or_else(LsnContext::default, |(lsn, context)| LsnContext {
            lsn,
            context: context.clone(),
        })
    }

    /// Everything remembered, ascending.
    pub fn to_vec(&self) -> Vec<LsnContext> {
        let seen = self.seen.iter();
        seen.map(|(&lsn, context)| LsnContext { lsn, context: context.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest(lsns: impl IntoIterator<Item = u64>) -> u64 {
        let contexts = lsns.into_iter().map(|lsn| LsnContext { lsn, context: lsn.to_string() });
        let latest = LsnWindow::restored(contexts).latest();
        assert!(latest.lsn == 0 || latest.context == latest.lsn.to_string());
        latest.lsn
    }

    #[test]
    fn the_greatest_below_the_first_gap_counts() {
        assert_eq!(latest([]), 0);
        assert_eq!(latest([5]), 5);
        assert_eq!(latest([3, 1, 2]), 3);
        assert_eq!(latest([1, 2, 4, 5]), 2);
        assert_eq!(latest([1, 2, 4, 5, 3]), 5);
        assert_eq!(latest(std::iter::once(1).chain(10..2_010)), 2_009, "the gap is out of sight");
        assert_eq!(latest([u64::MAX, u64::MAX - 1]), u64::MAX);
    }
}
