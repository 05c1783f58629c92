//! How a query is to be searched: parameters in types, however they were sent, and their ranges.

use super::types::Metric;

/// Search parameters of a query; what is not set is the column's business, or the server's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SearchParams {
    /// Compares by this metric; another one than the column's scans exactly.
    pub metric: Option<Metric>,
    /// Scans exactly.
    pub exact: bool,
    /// Candidates kept while a graph is walked. 1 to 65536.
    pub ef_search: Option<u32>,
    /// Lists of an inverted file that are searched. 1 to 65536. Columns without lists ignore it.
    pub nprobe: Option<u32>,
    /// The share of the true neighbours to be found. Above 0, up to 1; excludes `ef_search` and `nprobe`.
    pub recall_target: Option<f32>,
    /// Rows that an index finds and that are scored exactly, as times `topk`. 1 to 100.
    pub refine_k: Option<f32>,
}

/// A parameter by its name, with what it must be.
pub(super) struct Rule(pub &'static str, pub &'static str);

const EF_SEARCH: Rule = Rule("ef_search", "a whole number from 1 to 65536");
const NPROBE: Rule = Rule("nprobe", "a whole number from 1 to 65536");
const REFINE_K: Rule = Rule("refine_k", "a number from 1 to 100");
const RECALL_TARGET: Rule = Rule("recall_target", "a number above 0 and up to 1");
const EXACT: Rule = Rule("exact", "true or false");

/// The kinds of index that a query may name. Only FLAT makes a difference: the column has its index.
const INDEX_TYPES: [&str; 7] =
    ["FLAT", "HNSW", "HNSW_SQ8", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "FACTORY"];

impl Rule {
    fn broken_by(&self, value: impl std::fmt::Debug) -> String {
        let Rule(name, must) = self;
        format!("{name} is {value:?}; it must be {must}")
    }

    /// The value sent as text, the first where it was sent several times.
    fn text<'a>(&self, pairs: &'a [(String, String)]) -> Option<&'a str> {
        text(pairs, self.0)
    }

    /// The whole number sent as text.
    pub fn whole(&self, pairs: &[(String, String)]) -> Result<Option<u32>, String> {
        let Some(text) = self.text(pairs) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.broken_by(text))
    }

    /// The number sent as text.
    pub fn number(&self, pairs: &[(String, String)]) -> Result<Option<f32>, String> {
        let Some(text) = self.text(pairs) else { return Ok(None) };
        let number = text.trim().parse().ok().filter(|number: &f32| number.is_finite());
        number.map(Some).ok_or_else(|| self.broken_by(text))
    }

    /// Refuses a value that is not within.
    pub fn check<T: std::fmt::Debug + Copy>(
        &self,
        value: Option<T>,
        is_within: impl Fn(T) -> bool,
    ) -> Result<(), String> {
        match value {
            Some(value) if !is_within(value) => Err(self.broken_by(value)),
            _ => Ok(()),
        }
    }
}

/// The value sent as text, the first where it was sent several times.
pub(super) fn text<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

impl SearchParams {
    /// Reads parameters that were sent as text. Unknown ones are ignored; ranges are not looked at.
    pub fn from_text(pairs: &[(String, String)]) -> Result<Self, String> {
        let metric = match text(pairs, "metric_type") {
            None => None,
            Some(name) => Some(Metric::from_name(name).ok_or_else(|| {
                let known = Metric::ALL.map(|(name, _)| name).join(", ");
                format!("metric_type {name:?} is unknown; known: {known}")
            })?),
        };
        let is_flat = match text(pairs, "index_type") {
            None => false,
            Some("FLAT") => true,
            Some(text) if INDEX_TYPES.contains(&text) => false,
            Some(text) => {
                let known = INDEX_TYPES.join(", ");
                return Err(format!("index_type {text:?} is unknown; known: {known}"));
            }
        };
        let is_exact = match EXACT.text(pairs) {
            None => false,
            // In Python, str(True) is True.
            Some(text) if text.eq_ignore_ascii_case("false") => false,
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) => return Err(EXACT.broken_by(text)),
        };
        Ok(SearchParams {
            metric,
            exact: is_flat || is_exact,
            ..SearchParams::numbers_from_text(pairs)?
        })
    }

    /// Reads the numbers alone, which columns have too.
    pub(super) fn numbers_from_text(pairs: &[(String, String)]) -> Result<Self, String> {
        Ok(SearchParams {
            metric: None,
            exact: false,
            ef_search: EF_SEARCH.whole(pairs)?,
            nprobe: NPROBE.whole(pairs)?,
            recall_target: RECALL_TARGET.number(pairs)?,
            refine_k: REFINE_K.number(pairs)?,
        })
    }

    /// Refuses what is outside its range, and what excludes each other.
    pub fn check(&self) -> Result<(), String> {
        self.check_ranges()?;
        let counts = [("ef_search", self.ef_search), ("nprobe", self.nprobe)];
        match counts.into_iter().find(|(_, count)| count.is_some()) {
            Some((name, _)) if self.recall_target.is_some() => {
                Err(format!("{name} and recall_target exclude each other"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what is outside its range.
    pub(super) fn check_ranges(&self) -> Result<(), String> {
        EF_SEARCH.check(self.ef_search, |count| (1..=65_536).contains(&count))?;
        NPROBE.check(self.nprobe, |count| (1..=65_536).contains(&count))?;
        RECALL_TARGET.check(self.recall_target, |target| target > 0.0 && target <= 1.0)?;
        REFINE_K.check(self.refine_k, |times| (1.0..=100.0).contains(&times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<SearchParams, String> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let params = SearchParams::from_text(&pairs)?;
        params.check().map(|()| params)
    }

    #[test]
    fn text_becomes_the_parameters_that_it_names() {
        let params = read(&[
            ("metric_type", "Cosine"),
            ("ef_search", " 65536 "),
            ("nprobe", "7"),
            ("refine_k", "1.5"),
            ("exact", "True"),
            ("colour", "blue"),
            ("nprobe", "0"),
        ]);
        let expected = SearchParams {
            metric: Some(Metric::Cosine),
            exact: true,
            ef_search: Some(65_536),
            nprobe: Some(7),
            recall_target: None,
            refine_k: Some(1.5),
        };
        assert_eq!(params, Ok(expected));
        assert_eq!(read(&[("index_type", "HNSW")]), Ok(SearchParams::default()));
        assert!(read(&[("index_type", "FLAT")]).expect("it is known").exact);
        assert_eq!(read(&[("recall_target", "1")]).expect("in range").recall_target, Some(1.0));
    }

    #[test]
    fn numbers_and_text_are_refused_in_the_same_words() {
        for (pair, shown) in [
            (("ef_search", "0"), "0"),
            (("ef_search", "many"), "\"many\""),
            (("ef_search", "-1"), "\"-1\""),
            (("ef_search", "4294967296"), "\"4294967296\""),
            (("nprobe", "0"), "0"),
            (("nprobe", "65537"), "65537"),
            (("nprobe", "1.5"), "\"1.5\""),
            (("recall_target", "0"), "0.0"),
            (("recall_target", "1.5"), "1.5"),
            (("recall_target", "nan"), "\"nan\""),
            (("refine_k", "0.9"), "0.9"),
            (("refine_k", "inf"), "\"inf\""),
            (("exact", "maybe"), "\"maybe\""),
        ] {
            let words = read(&[pair]).expect_err("it is refused");
            assert!(words.starts_with(&format!("{} is {shown}; it must be ", pair.0)), "{words}");
        }
        let sent = SearchParams { refine_k: Some(f32::NAN), ..SearchParams::default() };
        assert!(sent.check().expect_err("not a number").contains("refine_k is NaN"));
        for pair in [("metric_type", "Chebyshev"), ("index_type", "TREE")] {
            assert!(read(&[pair]).expect_err("unknown").contains(pair.1));
        }
        for count in ["ef_search", "nprobe"] {
            let both = read(&[(count, "10"), ("recall_target", "0.9")]).expect_err("both");
            assert_eq!(both, format!("{count} and recall_target exclude each other"));
        }
    }
}
