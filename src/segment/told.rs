//! What a query is told of how well it was searched.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// Where an expected recall comes from, the least certain last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecallSource {
    /// All rows were looked at.
    #[default]
    Exact,
    /// Queries that were really asked were searched for exactly.
    Live,
    /// Queries made of the rows were, when the index was built.
    Sample,
    /// Nothing was measured.
    Unmeasured,
}

/// Gathers how the segments of a query were searched.
#[derive(Debug, Default)]
pub struct Told {
    walked: AtomicBool,
    /// The share of the nearest that is expected to be missed, as the bits of a float: these have the order
    /// of the numbers, which are not negative.
    missed: AtomicU32,
    /// A [`RecallSource`] as a number.
    source: AtomicU8,
    effort: AtomicU32,
}

impl Told {
    /// An index was searched with that effort, which is expected to find that share of the nearest.
    pub fn note(&self, expected: Option<f32>, source: RecallSource, effort: usize) {
        self.walked.store(true, Ordering::Relaxed);
        let source = if expected.is_none() { RecallSource::Unmeasured } else { source };
        self.source.fetch_max(source as u8, Ordering::Relaxed);
        let missed = 1.0 - expected.unwrap_or(1.0).clamp(0.0, 1.0);
        self.missed.fetch_max(missed.to_bits(), Ordering::Relaxed);
        self.effort.fetch_max(u32::try_from(effort).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Adds what another part of the same query was told.
    pub fn add(&self, other: &Told) {
        self.walked.fetch_or(!other.is_exact(), Ordering::Relaxed);
        for (own, others) in [(&self.missed, &other.missed), (&self.effort, &other.effort)] {
            own.fetch_max(others.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.source.fetch_max(other.source.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// True unless an index was searched, which may have missed something.
    pub fn is_exact(&self) -> bool {
        !self.walked.load(Ordering::Relaxed)
    }

    /// The recall to be expected, of the segment with the lowest; `None` where some was not measured.
    pub fn expected_recall(&self) -> Option<f32> {
        let is_known = self.source() != RecallSource::Unmeasured;
        is_known.then(|| 1.0 - f32::from_bits(self.missed.load(Ordering::Relaxed)))
    }

    /// Where that comes from: the least certain of the segments.
    pub fn source(&self) -> RecallSource {
        match self.source.load(Ordering::Relaxed) {
            0 => RecallSource::Exact,
            1 => RecallSource::Live,
            2 => RecallSource::Sample,
            _ => RecallSource::Unmeasured,
        }
    }

    /// The most candidates kept, or lists looked into, in a segment; 0 where all rows were looked at.
    pub fn effort(&self) -> u32 {
        self.effort.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_sure_segment_is_told() {
        let told = Told::default();
        assert!(told.is_exact());
        assert_eq!((told.source(), told.expected_recall()), (RecallSource::Exact, Some(1.0)));
        told.note(Some(0.75), RecallSource::Sample, 40);
        told.note(Some(1.0), RecallSource::Live, 20);
        assert_eq!((told.source(), told.expected_recall()), (RecallSource::Sample, Some(0.75)));
        assert_eq!((told.is_exact(), told.effort()), (false, 40));
        told.note(None, RecallSource::Sample, 1);
        assert_eq!((told.source(), told.expected_recall()), (RecallSource::Unmeasured, None));
    }
}
