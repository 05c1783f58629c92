//! Columns whose rows may hold several vectors each, such as the descriptors of a picture.

use serde::{Deserialize, Serialize};

use super::collection::VectorColumn;
use super::index_kind::Params;
use crate::error::{Error, Result};

/// How many vectors a row of such a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiVectors {
    /// Most vectors of a row, at least 1; `None` leaves it to the server's limit.
    pub max: Option<u32>,
}

impl MultiVectors {
    /// What a column's parameters `multi` and `multi_max` say; `None` for one vector for each row.
    pub(super) fn from_params(params: &Params<'_>) -> std::result::Result<Option<Self>, String> {
        let is_multi = match params.get("multi") {
            None => false,
            // In Python, str(True) is True.
            Some(text) if text.eq_ignore_ascii_case("false") => false,
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) => return Err(format!("multi is {text:?}; it must be true or false")),
        };
        let max = params.optional("multi_max", 1, u32::MAX)?;
        match (is_multi, max) {
            (false, Some(_)) => Err("multi_max goes with multi=true only".into()),
            (false, None) => Ok(None),
            (true, max) => Ok(Some(MultiVectors { max })),
        }
    }
}

impl VectorColumn {
    /// Refuses more vectors than a row of the column may hold: by its own `multi_max`, and by the
    /// server's limit.
    pub(super) fn check_vector_count(&self, row: usize, count: usize, limit: u32) -> Result<()> {
        let own = self.multi.and_then(|multi| multi.max).unwrap_or(u32::MAX);
        if count as u64 > u64::from(own) {
            return Err(Error::MismatchedDimension {
                row,
                column: self.name.clone(),
                detail: format!("{count} vectors, the column's multi_max is {own}"),
            });
        }
        if count as u64 > u64::from(limit) {
            return Err(Error::LimitExceeded {
                what: "number of vectors of a row in one column",
                value: count as u64,
                limit: u64::from(limit),
                setting: "limits.row_vectors_max",
            });
        }
        Ok(())
    }

    /// How many vectors a value of so many bytes is, each of `vector_bytes`, above 0; `None` where it is
    /// not one, or, in a column that takes several, not one or more.
    pub(super) fn count_vectors(&self, bytes: usize, vector_bytes: usize) -> Option<usize> {
        match self.multi {
            None => (bytes == vector_bytes).then_some(1),
            Some(_) => {
                (bytes > 0 && bytes.is_multiple_of(vector_bytes)).then(|| bytes / vector_bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ElementType, IndexKind, Metric};

    fn column(multi: Option<MultiVectors>) -> VectorColumn {
        VectorColumn {
            name: "v".into(),
            element: ElementType::Fp16,
            dimension: 3,
            metric: Metric::Cosine,
            index: IndexKind::Flat,
            multi,
            extra_params: Vec::new(),
        }
    }

    #[test]
    fn columns_of_one_vector_are_written_as_they_always_were() {
        let text = serde_json::to_string(&column(None)).expect("it is JSON");
        assert!(!text.contains("multi"), "{text}");
        for multi in [None, Some(MultiVectors { max: None }), Some(MultiVectors { max: Some(7) })] {
            let text = serde_json::to_string(&column(multi)).expect("it is JSON");
            let read: VectorColumn = serde_json::from_str(&text).expect("it was written");
            assert_eq!(read, column(multi));
        }
    }

    #[test]
    fn vectors_are_counted_by_their_bytes() {
        let (one, several) = (column(None), column(Some(MultiVectors { max: Some(5) })));
        for (bytes, single, multi) in [
            (0, None, None),
            (5, None, None),
            (6, Some(1), Some(1)),
            (7, None, None),
            (12, None, Some(2)),
        ] {
            assert_eq!(one.count_vectors(bytes, 6), single, "{bytes}");
            assert_eq!(several.count_vectors(bytes, 6), multi, "{bytes}");
        }
        assert!(several.check_vector_count(0, 5, 5).is_ok());
        assert!(matches!(
            several.check_vector_count(0, 6, 9),
            Err(Error::MismatchedDimension { .. })
        ));
        let beyond = several.check_vector_count(0, 5, 4).expect_err("the server takes 4");
        assert!(beyond.to_string().contains("limits.row_vectors_max"), "{beyond}");
    }
}
