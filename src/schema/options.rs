//! What a query asks for beyond the nearest rows of its vectors: before the check and after it.

use super::aggregation::AggregationKind;
use super::collection::{CollectionSchema, VectorColumn};
use super::examples::Examples;
use super::query::{KnnRequest, RawQueryVectors};
use super::score::ScoreShape;
use super::search::{Rule, text};
use crate::error::{Error, Result};

/// Options before any check.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryOptions {
    /// All rows within the radius, instead of the `topk` nearest.
    pub all_within: bool,
    /// Leaves out rows with a distance below this; scans exactly.
    pub radius_min: Option<f32>,
    /// Rows to query by, instead of query vectors or beside each of them.
    pub examples: Examples,
    /// The index columns whose vectors come with the hits; `*` stands for all.
    pub vectors: Vec<String>,
    /// Finds groups of rows.
    pub group: Option<GroupBy>,
    /// What the scores are.
    pub score: ScoreShape,
}

/// Groups before any check: rows that share a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupBy {
    /// The forward column.
    pub column: String,
    /// The nearest rows of each group to return; 0 stands for 1.
    pub size: u32,
}

/// Options that a query can be answered with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanOptions {
    /// All rows within the radius, which there is, instead of the `topk` nearest.
    pub all_within: bool,
    /// Leaves out rows with a distance below this.
    pub radius_min: Option<f32>,
    /// Rows to query by.
    pub examples: Examples,
    /// Positions in the schema of the index columns whose vectors come with the hits.
    pub vectors: Vec<usize>,
    /// Finds the `topk` nearest groups.
    pub group: Option<Group>,
    /// What the scores are.
    pub score: ScoreShape,
}

impl PlanOptions {
    /// True where nothing is asked for that may take much longer, or many more rows, than the nearest.
    pub fn are_short(&self) -> bool {
        !self.all_within && self.group.is_none() && self.vectors.is_empty()
    }
}

/// Groups of rows that share the value of a forward column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Position of the column in the schema.
    pub column: usize,
    /// The nearest rows of each group to return; at least 1.
    pub size: usize,
}

const RADIUS_MIN: Rule = Rule("radius_min", "a number");
const GROUP_SIZE: Rule = Rule("group_size", "a whole number from 0 to 4294967295");

impl QueryOptions {
    /// Reads options that were sent as text. Unknown ones are ignored; ranges are not looked at.
    pub fn from_text(pairs: &[(String, String)]) -> std::result::Result<Self, String> {
        let score = match text(pairs, "score") {
            None => ScoreShape::Distance,
            Some(name) => ScoreShape::from_name(name).ok_or_else(|| {
                let known = ScoreShape::ALL.map(|(name, _)| name).join(", ");
                format!("score {name:?} is unknown; known: {known}")
            })?,
        };
        let size = GROUP_SIZE.whole(pairs)?;
        let group = match text(pairs, "group_by") {
            None if size.is_some() => return Err("group_size is set, but group_by is not".into()),
            None => None,
            Some(column) => Some(GroupBy { column: column.to_owned(), size: size.unwrap_or(1) }),
        };
        Ok(QueryOptions {
            radius_min: RADIUS_MIN.number(pairs)?,
            group,
            score,
            ..QueryOptions::default()
        })
    }

    /// Checks the options of a request that searches this column.
    pub(super) fn check(
        self,
        schema: &CollectionSchema,
        column: &VectorColumn,
        raw: &KnnRequest,
        vectors_max: u32,
    ) -> Result<PlanOptions> {
        if self.all_within && raw.radius.is_none() {
            return Err(Error::query("topk is 0; it must be at least 1 unless a radius is given"));
        }
        if self.all_within && self.group.is_some() {
            return Err(Error::query("topk is 0; it must be at least 1 where groups are found"));
        }
        match (self.radius_min, raw.radius) {
            (Some(least), _) if least.is_nan() => {
                return Err(Error::query("radius_min is not a number"));
            }
            (Some(least), Some(most)) if least > most => {
                return Err(Error::query(format!(
                    "radius_min is {least}; it must not be above radius, which is {most}"
                )));
            }
            _ => {}
        }
        if self.radius_min.is_some() && column.multi.is_some() {
            return Err(Error::query(format!(
                "radius_min does not go with index column {:?}, whose rows may have several vectors",
                column.name
            )));
        }
        self.check_aggregation(raw)?;
        check_examples(&self.examples, column, raw, vectors_max)?;
        Ok(PlanOptions {
            all_within: self.all_within,
            radius_min: self.radius_min,
            vectors: schema.check_vectors(&self.vectors)?,
            group: self.group.map(|group| schema.check_group(group)).transpose()?,
            examples: self.examples,
            score: self.score,
        })
    }
}

impl QueryOptions {
    /// Refuses what makes no sense of one list for all query vectors.
    fn check_aggregation(&self, raw: &KnnRequest) -> Result<()> {
        let Some(Ok(aggregation)) = &raw.aggregation else { return Ok(()) };
        let is_distance = aggregation.kind == AggregationKind::MinDistance;
        let name = match self {
            _ if self.all_within => "topk 0",
            _ if self.radius_min.is_some() => "radius_min",
            _ if self.group.is_some() => "a group",
            _ if self.score != ScoreShape::Distance && !is_distance => "a score of another shape",
            _ => return Ok(()),
        };
        let kind = aggregation.kind.name();
        Err(Error::query(format!("{name} does not go with the aggregation {kind}")))
    }
}

fn check_examples(
    examples: &Examples,
    column: &VectorColumn,
    raw: &KnnRequest,
    vectors_max: u32,
) -> Result<()> {
    if examples.len() as u64 > u64::from(vectors_max) {
        return Err(Error::LimitExceeded {
            what: "number of rows to query by",
            value: examples.len() as u64,
            limit: u64::from(vectors_max),
            setting: "limits.query_vectors_max",
        });
    }
    let has_vectors = !matches!(raw.vectors, RawQueryVectors::Missing);
    if examples.positives.is_empty() && !examples.negatives.is_empty() && !has_vectors {
        return Err(Error::query(
            "there are negatives, but neither positives nor query vectors that they could push away from them",
        ));
    }
    let several = examples.len() > 1 || (examples.len() == 1 && has_vectors);
    let reason = match column.element {
        _ if !several => return Ok(()),
        element if element.is_binary() => "bits have no average",
        _ if column.multi.is_some() => "its rows may have several vectors, which have no average",
        _ => return Ok(()),
    };
    Err(Error::query(format!(
        "index column {:?} holds {}; {reason}, so that only one positive can be queried by, without negatives and query vectors",
        column.name,
        column.element.name()
    )))
}

impl CollectionSchema {
    /// Positions of the index columns named, each of which must exist and be named once; `*` stands for
    /// all.
    pub fn check_vectors(&self, names: &[String]) -> Result<Vec<usize>> {
        if names == ["*"] {
            return Ok((0..self.columns.len()).collect());
        }
        let mut positions = Vec::new();
        for name in names {
            let position = self.column_position(name).ok_or_else(|| self.no_column(name))?;
            if positions.contains(&position) {
                return Err(Error::query(format!("index column {name:?} is asked for twice")));
            }
            positions.push(position);
        }
        Ok(positions)
    }

    fn check_group(&self, group: GroupBy) -> Result<Group> {
        let column = self.forward_columns.iter().position(|known| *known == group.column);
        let column = column.ok_or_else(|| self.no_column(&group.column))?;
        Ok(Group { column, size: group.size.max(1) as usize })
    }

    fn no_column(&self, name: &str) -> Error {
        Error::ColumnNotFound { collection: self.name.clone(), column: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> std::result::Result<QueryOptions, String> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        QueryOptions::from_text(&pairs)
    }

    #[test]
    fn text_becomes_the_options_that_it_names() {
        let options = read(&[
            ("score", "Elasticsearch"),
            ("radius_min", "-0.5"),
            ("group_by", "path"),
            ("group_size", "3"),
            ("colour", "blue"),
        ]);
        let expected = QueryOptions {
            score: ScoreShape::Elasticsearch,
            radius_min: Some(-0.5),
            group: Some(GroupBy { column: "path".into(), size: 3 }),
            ..QueryOptions::default()
        };
        assert_eq!(options, Ok(expected));
        assert_eq!(read(&[("metric_type", "Cosine")]), Ok(QueryOptions::default()));
        let by_path = read(&[("group_by", "path")]).expect("a column").group;
        assert_eq!(by_path, Some(GroupBy { column: "path".into(), size: 1 }));
    }

    #[test]
    fn text_that_means_nothing_is_refused() {
        for (pair, words) in [
            (("score", "golf"), "score \"golf\" is unknown; known: distance, elasticsearch"),
            (("radius_min", "near"), "radius_min is \"near\"; it must be a number"),
            (("radius_min", "nan"), "radius_min is \"nan\""),
            (("group_size", "2"), "group_size is set, but group_by is not"),
        ] {
            let refused = read(&[pair]).expect_err("it is refused");
            assert!(refused.starts_with(words), "{refused}");
        }
        let refused = read(&[("group_by", "path"), ("group_size", "-1")]).expect_err("below 0");
        assert!(refused.starts_with("group_size is \"-1\"; it must be"), "{refused}");
    }
}
