//! Queries that have a filter: what they find among the rows that it lets through, by the share of all that
//! these are.

use hashbrown::HashMap;

use super::kept::Asked;
use super::target::Target;
use super::{Collection, ENOUGH, FEW};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::index::{Best, TopK};
use crate::query::SegmentRef;
use crate::schema::{Effort, promise};
use crate::segment::{
    BOOSTS, Band, FilteredRecall, Outcome, RecallSource, SegmentSearch, Told, scan_sealed,
    search_index,
};

/// What a query found of the 10 nearest with each of [`BOOSTS`], and the band of its filter. `None` where each
/// of the rows that the filter lets through is looked at anyway.
type Measured = Option<(usize, [f32; BOOSTS.len()])>;

/// The measurements of a segment's column, by query.
pub(super) type OfSegment = HashMap<u64, Measured>;

impl Collection {
    /// Measures queries in a segment that were not measured there. False when there is no more time.
    pub(super) fn measure_filtered(&self, target: &Target<'_>, kept: &[Asked]) -> Result<bool> {
        if kept.len() < ENOUGH {
            return Ok(true);
        }
        let at = (target.sealed.id, target.place);
        let mut known = self.live.measured_filtered.lock().remove(&at).unwrap_or_default();
        let before = known.len();
        let has_time = self.measure_each(kept, &mut known, |asked| target.measure_among(asked))?;
        if known.len() > before {
            self.show_filtered(target, FilteredRecall::new(bands(&known)));
        }
        self.live.measured_filtered.lock().insert(at, known);
        Ok(has_time)
    }

    fn show_filtered(&self, target: &Target<'_>, filtered: FilteredRecall) {
        if let Effort::Recall(target_recall) = target.column.index.effort() {
            let promised = promise(target_recall);
            let before = target.index.recall().filtered();
            let was_low =
                before.is_some_and(|before| before.bands().any(|band| band.found[0] < promised));
            let low = filtered.bands().filter(|band| !was_low && band.found[0] < promised);
            if let Some(band) = low.min_by(|a, b| a.found[0].total_cmp(&b.found[0])) {
                let (collection, column) = (&self.schema.name, &target.column.name);
                tracing::warn!(
                    collection,
                    column,
                    segment = target.sealed.id,
                    recall = band.found[0],
                    recall_target = promised,
                    queries = band.queries,
                    "queries with filters found less than the recall_target; later ones are searched harder"
                );
            }
        }
        target.index.recall().set_filtered(filtered);
    }
}

impl Target<'_> {
    fn measure_among(&self, asked: &Asked) -> Result<Measured> {
        let Some(filter) = &asked.filter else { return Ok(None) };
        let allowed = filter.rows(&SegmentRef::Sealed(self.sealed));
        if allowed.is_empty() {
            return Ok(None);
        }
        let query = self.query(&asked.vector)?;
        let (untold, cancel) = (Told::default(), Cancel::default());
        let search = SegmentSearch {
            k: FEW,
            allowed: Some(&allowed),
            effort: self.column.index.effort(),
            ..self.search(&asked.vector, &query, (&untold, &cancel))
        };
        let mut truth = TopK::new(FEW, None);
        scan_sealed(self.sealed, &search, &mut truth);
        let truth = truth.into_sorted();
        let Some(edge) = truth.last().map(|last| last.score) else { return Ok(None) };
        let mut found = [1.0; BOOSTS.len()];
        for (boost, found) in BOOSTS.into_iter().zip(&mut found) {
            let told = Told::default();
            let search = SegmentSearch { boost: Some(boost), told: &told, ..search };
            let mut top = TopK::new(FEW, None);
            let outcome = search_index(self.sealed, self.index, &search, &mut top)?;
            if outcome == Outcome::Scan || told.source() == RecallSource::Exact {
                match boost == BOOSTS[0] {
                    true => return Ok(None),
                    false => break,
                }
            }
            let hits = top.into_sorted().iter().filter(|one| one.score <= edge).count();
            *found = hits as f32 / truth.len() as f32;
        }
        let share = self.index.nodes_of(allowed.len(), self.sealed.rows()) as f64
            / self.index.nodes().max(1) as f64;
        Ok(Some((FilteredRecall::band_of(share), found)))
    }
}

/// The mean of each band of which enough was measured.
fn bands(known: &OfSegment) -> [Option<Band>; FilteredRecall::BANDS] {
    std::array::from_fn(|band| {
        let of_band = || known.values().flatten().filter(move |(of, _)| *of == band);
        let queries = of_band().count();
        let mean = |place: usize| {
            of_band().map(|(_, found)| found[place]).sum::<f32>() / queries.max(1) as f32
        };
        let found = std::array::from_fn(mean);
        (queries >= ENOUGH).then_some(Band { queries: queries as u32, found })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_says_something_when_enough_was_measured() {
        let of = |number: u64| if number.is_multiple_of(2) { [0.5, 1.0] } else { [1.0, 1.0] };
        let mut known: OfSegment = (0..24).map(|number| (number, Some((1, of(number))))).collect();
        known.extend((24..40).map(|number| (number, Some((2, of(number))))));
        known.extend((40..90).map(|number| (number, None)));
        let found = bands(&known);
        assert_eq!(found, [None, Some(Band { queries: 24, found: [0.75, 1.0] }), None]);
    }
}
