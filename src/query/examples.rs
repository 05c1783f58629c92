//! From rows that a query is made of to its query vectors.

use super::execute::View;
use super::rows::RowPlace;
use crate::cancel::CANCEL_ROWS;
use crate::error::{Error, Result};
use crate::schema::{ExampleSums, KnnPlan, QueryVector};

/// Puts the vectors that a query's examples make in the place of its query vectors, and returns where
/// the examples are, ascending: they are not to be found. `places` has those of the examples' keys that
/// exist, in the order of the keys.
pub fn resolve_examples(
    view: &View<'_>,
    plan: &mut KnnPlan,
    places: &[RowPlace],
) -> Result<Vec<(u32, u32)>> {
    let examples = &plan.options.examples;
    let mut found = places.iter().map(|place| place.key).peekable();
    if let Some(missing) = examples.keys().find(|key| found.next_if_eq(key).is_none()) {
        return Err(Error::RowNotFound { collection: view.schema.name.clone(), key: missing });
    }
    let column = &view.schema.columns[plan.column];
    let vectors = |place: &RowPlace| {
        let stored = view.segments[place.segment as usize].vectors_of(plan.column, place.row);
        stored.filter(|vectors| !vectors.is_empty()).ok_or_else(|| {
            let detail = format!(
                "the row of key {} has no vector in index column {:?}",
                place.key, column.name
            );
            Error::query(detail)
        })
    };
    if let ([only], []) = (places, &plan.vectors[..]) {
        let vector_bytes = column.vector_bytes().unwrap_or(1).max(1);
        plan.vectors =
            vectors(only)?.chunks_exact(vector_bytes).map(|v| v.to_vec().into()).collect();
    } else {
        let mut sums = ExampleSums::new(column.element, column.dimension);
        for (at, place) in places.iter().enumerate() {
            if at.is_multiple_of(CANCEL_ROWS) {
                view.cancel.check()?;
            }
            match at < examples.positives.len() {
                true => sums.add_positive(vectors(place)?),
                false => sums.add_negative(vectors(place)?),
            }
        }
        let beside = |own: &QueryVector| {
            let mut sums = sums.clone();
            sums.add_positive(own);
            sums.vector()
        };
        plan.vectors = match &plan.vectors[..] {
            [] => vec![sums.vector()],
            given => given.iter().map(beside).collect(),
        };
    }
    let mut hidden: Vec<(u32, u32)> =
        places.iter().map(|place| (place.segment, place.row)).collect();
    hidden.sort_unstable();
    hidden.dedup();
    Ok(hidden)
}
