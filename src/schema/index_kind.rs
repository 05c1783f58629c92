//! How a vector column is indexed, from the parameters that a declaration gives.

use serde::{Deserialize, Serialize};

use super::effort::{Effort, RECALL_TARGET};
use super::factory;
use super::search::SearchParams;
use super::types::{ElementType, Metric};

/// Rows that a list's centre is trained with where rows go on coming, and so many times a quantizer's
/// centres: faiss warns below it.
pub(super) const TRAINING_ROWS_MIN: u64 = 39;
/// Rows that a list's centre is trained with, where there are more.
const TRAINING_ROWS: u64 = 40;
/// Rows that a product quantizer is trained with at most, for each of its centres.
const QUANTIZER_ROWS: u64 = 256;
/// Rows that are worth inverted lists, where their number is left to the server.
const LISTS_ROWS_MIN: u64 = 1_000;
/// Most inverted lists.
pub(super) const LISTS_MAX: u32 = 65_536;
/// Most candidates kept while a row is linked.
const EF_CONSTRUCTION_MAX: u32 = 65_536;
/// How a sealed segment indexes a vector column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum IndexKind {
    /// Exact scan always.
    Flat,
    /// Graph search (HNSW: Malkov & Yashunin, 2016) where a segment is large enough to gain by it.
    Hnsw {
        /// Links per node above level 0, twice that on level 0 (the paper's M). Range 2 to 256.
        max_neighbor_count: u32,
        /// Candidates kept while building. Range 1 to 65536.
        ef_construction: u32,
        /// Candidates kept while searching, unless the query says otherwise. Range 1 to 65536;
        /// `None` for as many as reach `recall_target`.
        ef_search: Option<u32>,
        /// The recall that searches aim at, unless the query says otherwise. Above 0, up to 1.
        #[serde(default = "default_recall_target")]
        recall_target: f32,
        /// Rows scored exactly, as times k, unless the query says otherwise. 1 to 100.
        #[serde(default)]
        refine_k: Option<f32>,
        /// True when the caller named the kind: then every sealed segment of two rows or more gets a graph.
        always: bool,
        /// The file holds its vectors as bytes (HNSW_SQ8), a quarter of what floats take.
        #[serde(default)]
        quantized: bool,
    },
    /// An index that faiss trains with some rows before it takes all.
    Trained {
        /// What it is made of.
        recipe: Recipe,
        /// Lists looked into (or candidates kept) while searching, unless the query says otherwise.
        /// Range 1 to 65536; `None` for as many as reach `recall_target`.
        effort: Option<u32>,
        /// The recall that searches aim at, unless the query says otherwise. Above 0, up to 1.
        recall_target: f32,
        /// Rows scored exactly, as times k, unless the query says otherwise. 1 to 100; `None` for as
        /// many as the index's own coarseness asks for.
        refine_k: Option<f32>,
    },
}

/// What a trained index is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Recipe {
    /// Inverted lists (IVF: Sivic & Zisserman, 2003).
    Lists {
        /// Lists, 1 to 65536; `None` for a power of two near 4 times the square root of the rows.
        nlist: Option<u32>,
        /// How the lists hold their rows.
        rows: ListRows,
    },
    /// What faiss's `index_factory` makes of a description.
    Factory {
        /// The description.
        description: String,
        /// Lists, where it has some; else 0.
        nlist: u32,
        /// True where candidates of a graph are kept.
        is_graph: bool,
        /// Rows that it is trained with where rows go on coming.
        #[serde(rename = "rows_min")]
        rows_wanted: u64,
        /// Rows without which faiss cannot train it; 0 in manifests that are older than this number.
        #[serde(default, rename = "rows_least")]
        rows_min: u64,
    },
}

/// How inverted lists hold their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListRows {
    /// As floats of 32 bits.
    Flat,
    /// As bytes, with a range for each dimension.
    Sq8,
    /// As product quantizer codes (Jégou, Douze & Schmid, 2011) of what the list's centre leaves over.
    Pq {
        /// Parts of a vector, a divisor of the dimension.
        m: u32,
        /// Bits of a part's code, 4 to 12.
        nbits: u32,
    },
}

/// The query parameter that says how hard an index is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffortParam {
    /// Candidates kept while a graph is walked.
    EfSearch,
    /// Lists looked into.
    Nprobe,
}

/// For manifests older than the parameter.
fn default_recall_target() -> f32 {
    RECALL_TARGET
}

impl IndexKind {
    /// Rows from which a column's segments can have an index, or `None` where they never do.
    /// `graph_rows_min` is the server's wish where the column has none.
    pub fn rows_min(&self, graph_rows_min: u64) -> Option<u64> {
        match self {
            IndexKind::Flat => None,
            IndexKind::Hnsw { always: true, .. } => Some(2),
            IndexKind::Hnsw { always: false, .. } => Some(graph_rows_min),
            IndexKind::Trained { recipe, .. } => Some(recipe.rows_min()),
        }
    }

    /// The same while rows go on coming: then an index that is trained waits for as many as its training
    /// wants.
    pub fn rows_wanted(&self, graph_rows_min: u64) -> Option<u64> {
        match self {
            IndexKind::Trained { recipe, .. } => Some(recipe.rows_wanted()),
            other => other.rows_min(graph_rows_min),
        }
    }

    /// How hard it is searched unless the query says otherwise.
    pub fn effort(&self) -> Effort {
        let (count, recall_target) = match self {
            IndexKind::Flat => (None, RECALL_TARGET),
            IndexKind::Hnsw { ef_search, recall_target, .. } => (*ef_search, *recall_target),
            IndexKind::Trained { effort, recall_target, .. } => (*effort, *recall_target),
        };
        count.map_or(Effort::Recall(recall_target), |count| Effort::Candidates(count as usize))
    }

    /// Rows scored exactly, as times k, unless the query says otherwise.
    pub fn refine_k(&self) -> Option<f32> {
        match self {
            IndexKind::Flat => None,
            IndexKind::Hnsw { refine_k, .. } | IndexKind::Trained { refine_k, .. } => *refine_k,
        }
    }

    /// The query parameter that says how hard it is searched, if there is one.
    pub fn effort_param(&self) -> Option<EffortParam> {
        match self {
            IndexKind::Flat => None,
            IndexKind::Hnsw { .. } => Some(EffortParam::EfSearch),
            IndexKind::Trained { recipe, .. } => recipe.effort_param(),
        }
    }

    /// Bytes of memory that merging so many rows takes, roughly, with what its index is made by.
    pub fn merge_bytes(&self, dimension: u32, vector_bytes: u64, rows: u64) -> u64 {
        let row_bytes = self.row_bytes(dimension, vector_bytes);
        let IndexKind::Trained { recipe, .. } = self else {
            return rows.saturating_mul(row_bytes);
        };
        // Rows are measured by codes, and trained with as floats.
        let lists = recipe.lists(rows);
        let trained = recipe.training_rows(lists, rows).saturating_add(u64::from(lists));
        let trained = trained.saturating_mul(4 * u64::from(dimension));
        rows.saturating_mul(row_bytes + u64::from(dimension)).saturating_add(trained)
    }

    /// Bytes of memory that a row takes in it, roughly; `vector_bytes` are those of a stored vector.
    pub fn row_bytes(&self, dimension: u32, vector_bytes: u64) -> u64 {
        match self {
            IndexKind::Flat => 0,
            IndexKind::Hnsw { max_neighbor_count, .. } => {
                u64::from(dimension) + 4 * 2 * 2 * u64::from(*max_neighbor_count)
            }
            IndexKind::Trained { recipe: Recipe::Lists { rows, .. }, .. } => {
                8 + match rows {
                    ListRows::Flat => 4 * u64::from(dimension),
                    ListRows::Sq8 => u64::from(dimension),
                    ListRows::Pq { m, nbits } => u64::from(m * nbits).div_ceil(8),
                }
            }
            IndexKind::Trained { recipe: Recipe::Factory { description, .. }, .. } => {
                vector_bytes.max(4 * u64::from(dimension)) + 8 * factory::links(description)
            }
        }
    }
}

impl Recipe {
    /// Rows without which it cannot be trained, or does not pay: k-means wants a row for each centre.
    pub fn rows_min(&self) -> u64 {
        match self {
            Recipe::Lists { nlist, rows } => {
                let lists = nlist.map_or(LISTS_ROWS_MIN, u64::from);
                lists.max(match rows {
                    ListRows::Pq { nbits, .. } => 1 << nbits,
                    ListRows::Flat | ListRows::Sq8 => 2,
                })
            }
            Recipe::Factory { rows_min: 0, rows_wanted, .. } => *rows_wanted,
            Recipe::Factory { rows_min, .. } => *rows_min,
        }
    }

    /// Rows that its training wants: it is trained with fewer where no more come, and a warning says so.
    pub fn rows_wanted(&self) -> u64 {
        match self {
            Recipe::Lists { nlist, rows } => {
                let lists = nlist.map_or(LISTS_ROWS_MIN, |n| TRAINING_ROWS_MIN * u64::from(n));
                lists.max(match rows {
                    ListRows::Pq { nbits, .. } => TRAINING_ROWS_MIN << nbits,
                    ListRows::Flat | ListRows::Sq8 => 2,
                })
            }
            Recipe::Factory { rows_wanted, .. } => *rows_wanted,
        }
    }

    /// Lists of an index of so many rows; 0 where it has none.
    pub fn lists(&self, rows: u64) -> u32 {
        match self {
            Recipe::Lists { nlist: Some(nlist), .. } => *nlist,
            Recipe::Lists { nlist: None, .. } => {
                let wanted = (4.0 * (rows as f64).sqrt()).log2().round().exp2() as u64;
                let most = (rows / TRAINING_ROWS_MIN).max(1);
                let fitting = if wanted <= most { wanted } else { 1 << most.ilog2() };
                fitting.clamp(1, u64::from(LISTS_MAX)) as u32
            }
            Recipe::Factory { nlist, .. } => *nlist,
        }
    }

    /// Rows that an index with so many lists is trained with, of those there are.
    pub fn training_rows(&self, lists: u32, rows: u64) -> u64 {
        let quantizer = match self {
            Recipe::Lists { rows: ListRows::Pq { nbits, .. }, .. } => QUANTIZER_ROWS << nbits,
            Recipe::Lists { .. } => 0,
            Recipe::Factory { rows_wanted, .. } => (rows_wanted * 4).max(QUANTIZER_ROWS << 8),
        };
        rows.min(quantizer.max(TRAINING_ROWS * u64::from(lists)).max(LISTS_ROWS_MIN))
    }

    /// What faiss's `index_factory` makes it of, with so many lists.
    pub fn description(&self, lists: u32) -> String {
        match self {
            Recipe::Lists { rows: ListRows::Flat, .. } => format!("IVF{lists},Flat"),
            Recipe::Lists { rows: ListRows::Sq8, .. } => format!("IVF{lists},SQ8"),
            Recipe::Lists { rows: ListRows::Pq { m, nbits }, .. } => {
                format!("IVF{lists},PQ{m}x{nbits}np")
            }
            Recipe::Factory { description, .. } => description.clone(),
        }
    }

    fn effort_param(&self) -> Option<EffortParam> {
        match self {
            Recipe::Lists { .. } => Some(EffortParam::Nprobe),
            Recipe::Factory { nlist, .. } if *nlist > 0 => Some(EffortParam::Nprobe),
            Recipe::Factory { is_graph: true, .. } => Some(EffortParam::EfSearch),
            Recipe::Factory { .. } => None,
        }
    }
}

/// A column's parameters in the order given; the first of a repeated key wins.
pub(super) struct Params<'a>(pub &'a [(String, String)]);

impl<'a> Params<'a> {
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The index that the parameters ask for. Refuses what the column cannot have.
    pub fn index_kind(
        &self,
        element: ElementType,
        metric: Metric,
        dimension: u32,
    ) -> Result<IndexKind, String> {
        let kind = match (self.get("index_type"), self.get("index_factory")) {
            (None, None) => self.graph(false, false)?,
            (Some("FLAT"), None) => IndexKind::Flat,
            (Some("HNSW"), None) => self.graph(true, false)?,
            (Some("HNSW_SQ8"), None) => self.graph(true, true)?,
            (Some("IVF_FLAT"), None) => self.lists(ListRows::Flat)?,
            (Some("IVF_SQ8"), None) => self.lists(ListRows::Sq8)?,
            (Some("IVF_PQ"), None) => self.lists(self.product_quantizer(dimension)?)?,
            (None | Some("FACTORY"), Some(text)) => {
                self.trained(factory::recipe(text, dimension)?)?
            }
            (Some("FACTORY"), None) => return Err("index_type FACTORY needs index_factory".into()),
            (Some(text), Some(_)) if text != "FACTORY" => {
                return Err(format!("index_factory does not go with index_type {text:?}"));
            }
            (Some(text), _) => {
                return Err(format!(
                    "index_type {text:?} is unknown; use FLAT, HNSW, HNSW_SQ8, IVF_FLAT, IVF_SQ8, IVF_PQ, or index_factory"
                ));
            }
        };
        check_fit(&kind, element, metric)?;
        Ok(kind)
    }

    fn search(&self) -> Result<SearchParams, String> {
        let search = SearchParams::numbers_from_text(self.0)?;
        search.check_ranges().map(|()| search)
    }

    fn graph(&self, always: bool, quantized: bool) -> Result<IndexKind, String> {
        let search = self.search()?;
        Ok(IndexKind::Hnsw {
            max_neighbor_count: self.number("max_neighbor_count", 16, 2, 256)?,
            ef_construction: self.number("ef_construction", 128, 1, EF_CONSTRUCTION_MAX)?,
            ef_search: search.ef_search,
            recall_target: search.recall_target.unwrap_or(RECALL_TARGET),
            refine_k: search.refine_k,
            always,
            quantized,
        })
    }

    fn lists(&self, rows: ListRows) -> Result<IndexKind, String> {
        let nlist = self.optional("nlist", 1, LISTS_MAX)?;
        if let (Some(nlist), Some(nprobe)) = (nlist, self.search()?.nprobe)
            && nprobe > nlist
        {
            return Err(format!("nprobe is {nprobe}, more than nlist, which is {nlist}"));
        }
        self.trained(Recipe::Lists { nlist, rows })
    }

    fn product_quantizer(&self, dimension: u32) -> Result<ListRows, String> {
        let m = match self.optional("m", 1, dimension)? {
            // Parts of up to four dimensions.
            None => (1..=dimension)
                .find(|m| dimension.is_multiple_of(*m) && dimension / m <= 4)
                .unwrap_or(dimension),
            Some(m) if dimension.is_multiple_of(m) => m,
            Some(m) => {
                return Err(format!("m is {m}, which does not divide the dimension, {dimension}"));
            }
        };
        let nbits = self.number("nbits", 8, 4, 12)?;
        factory::check_table("nbits", u64::from(dimension) << nbits)?;
        Ok(ListRows::Pq { m, nbits })
    }

    fn trained(&self, recipe: Recipe) -> Result<IndexKind, String> {
        let SearchParams { ef_search, nprobe, recall_target, refine_k, .. } = self.search()?;
        let effort = match recipe.effort_param() {
            Some(EffortParam::EfSearch) => ef_search,
            Some(EffortParam::Nprobe) => nprobe,
            None => None,
        };
        let recall_target = recall_target.unwrap_or(RECALL_TARGET);
        Ok(IndexKind::Trained { recipe, effort, recall_target, refine_k })
    }

    pub fn optional(&self, key: &str, low: u32, high: u32) -> Result<Option<u32>, String> {
        self.get(key).map(|_| self.number(key, low, low, high)).transpose()
    }

    fn number(&self, key: &str, default: u32, low: u32, high: u32) -> Result<u32, String> {
        let Some(text) = self.get(key) else { return Ok(default) };
        match text.trim().parse::<u32>() {
            Ok(number) if (low..=high).contains(&number) => Ok(number),
            _ => Err(format!("{key} is {text:?}; it must be a whole number from {low} to {high}")),
        }
    }
}

fn check_fit(kind: &IndexKind, element: ElementType, metric: Metric) -> Result<(), String> {
    let name = match kind {
        IndexKind::Flat | IndexKind::Hnsw { quantized: false, .. } => return Ok(()),
        IndexKind::Hnsw { quantized: true, .. } => "HNSW_SQ8",
        IndexKind::Trained { recipe: Recipe::Lists { .. }, .. } => "an IVF index",
        IndexKind::Trained { recipe: Recipe::Factory { .. }, .. } => "index_factory",
    };
    if element.is_binary() {
        return Err(format!("{name} needs numbers, not {}; use FLAT or HNSW", element.name()));
    }
    if metric == Metric::Manhattan {
        return Err(format!("{name} has no Manhattan metric; use FLAT or HNSW"));
    }
    let is_bytes = matches!(element, ElementType::Int8 | ElementType::Int4);
    if matches!(kind, IndexKind::Hnsw { .. }) && is_bytes {
        return Err(format!("{} rows are bytes already; use HNSW", element.name()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(params: &[(&str, &str)], dimension: u32) -> Result<IndexKind, String> {
        let params: Vec<(String, String)> =
            params.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Params(&params).index_kind(ElementType::Fp32, Metric::SquaredEuclidean, dimension)
    }

    fn recipe(params: &[(&str, &str)], dimension: u32) -> Recipe {
        match kind(params, dimension) {
            Ok(IndexKind::Trained { recipe, .. }) => recipe,
            other => panic!("{params:?} is {other:?}"),
        }
    }

    #[test]
    fn lists_are_as_many_as_the_rows_can_train() {
        let lists = recipe(&[("index_type", "IVF_FLAT")], 16);
        assert_eq!(lists.lists(1_000_000), 4_096);
        assert_eq!(lists.lists(100_000), 1_024);
        assert_eq!((lists.lists(0), lists.lists(100), lists.lists(1_000)), (1, 2, 16));
        assert_eq!(lists.lists(u64::from(u32::MAX)), LISTS_MAX);
        for rows in [0, 1, 77, 5_000, 1_000_000] {
            let count = lists.lists(rows);
            assert!(count == 1 || u64::from(count) * TRAINING_ROWS_MIN <= rows, "{rows}");
            assert!(lists.training_rows(count, rows) <= rows);
        }
        let fixed = recipe(&[("index_type", "IVF_SQ8"), ("nlist", "100")], 16);
        assert_eq!((fixed.rows_wanted(), fixed.rows_min()), (3_900, 100));
        assert_eq!((fixed.lists(5), fixed.lists(1 << 30)), (100, 100));
        assert_eq!(fixed.description(100), "IVF100,SQ8");
    }

    #[test]
    fn a_product_quantizer_has_parts_of_up_to_four_dimensions() {
        for (dimension, m) in [(128, 32), (100, 25), (30, 10), (7, 7), (1, 1), (2_048, 512)] {
            let found = recipe(&[("index_type", "IVF_PQ")], dimension);
            let Recipe::Lists { rows, .. } = &found else { panic!("{found:?}") };
            assert_eq!(*rows, ListRows::Pq { m, nbits: 8 }, "{dimension}");
            assert_eq!((found.rows_wanted(), found.rows_min()), (39 << 8, 1_000));
            let few = [("index_type", "IVF_PQ"), ("nlist", "8")];
            assert_eq!(recipe(&few, dimension).rows_min(), 256, "one for each centre");
        }
        assert!(kind(&[("index_type", "IVF_PQ"), ("nbits", "12")], 32_768).is_err());
        let asked = recipe(&[("index_type", "IVF_PQ"), ("m", "8"), ("nbits", "4")], 16);
        assert_eq!(asked.description(10), "IVF10,PQ8x4np");
    }

    #[test]
    fn a_description_says_how_it_is_trained_and_searched() {
        let cases = [
            ("IVF100,Flat", (100, false, 3_900, 100), Some(EffortParam::Nprobe)),
            ("OPQ16_64,IVF50_HNSW32,PQ16x4fsr", (50, false, 9_984, 256), Some(EffortParam::Nprobe)),
            ("PCA64,IVF20,Flat", (20, false, 780, 256), Some(EffortParam::Nprobe)),
            ("IVF2,PQ16", (2, false, 9_984, 256), Some(EffortParam::Nprobe)),
            ("HNSW32,SQ8", (0, true, 256, 2), Some(EffortParam::EfSearch)),
            ("PQ16x10", (0, false, 39 << 10, 1 << 10), None),
            ("LSH", (0, false, 256, 2), None),
        ];
        for (text, (nlist, is_graph, rows_wanted, rows_min), param) in cases {
            let found = recipe(&[("index_factory", text)], 128);
            let description = text.to_string();
            assert_eq!(
                found,
                Recipe::Factory { description, nlist, is_graph, rows_wanted, rows_min }
            );
            assert_eq!(found.effort_param(), param);
            assert_eq!(found.description(7), text);
        }
    }

    #[test]
    fn a_merge_takes_what_its_rows_and_their_training_take() {
        let bytes = |params: &[(&str, &str)], rows| {
            kind(params, 128).expect("it fits").merge_bytes(128, 512, rows)
        };
        assert_eq!(bytes(&[("index_type", "FLAT")], 1_000), 0);
        assert_eq!(bytes(&[], 1_000), 1_000 * (128 + 256));
        let lists = [("index_type", "IVF_SQ8"), ("nlist", "1000")];
        assert_eq!(bytes(&lists, 100_000), 100_000 * (8 + 128 + 128) + (40_000 + 1_000) * 512);
        let graph = [("index_factory", "HNSW32")];
        assert!(bytes(&graph, 1_000) > 1_000 * (512 + 256));
    }

    #[test]
    fn older_manifests_are_read() {
        let old = r#"{"kind":"hnsw","max_neighbor_count":16,"ef_construction":128,"ef_search":null,"always":false}"#;
        let read: IndexKind = serde_json::from_str(old).expect("an older manifest");
        assert_eq!(Ok(read), kind(&[], 4));
        let old =
            r#"{"type":"factory","description":"SQ8","nlist":0,"is_graph":false,"rows_min":39}"#;
        let read: Recipe = serde_json::from_str(old).expect("an older manifest");
        assert_eq!((read.rows_wanted(), read.rows_min()), (39, 39));
        for params in [
            &[("index_type", "IVF_PQ"), ("nlist", "5")][..],
            &[("index_factory", "SQ8"), ("refine_k", "3.5")],
            &[("index_type", "HNSW_SQ8")],
        ] {
            let own = kind(params, 8).expect("it fits");
            let text = serde_json::to_string(&own).expect("json");
            assert_eq!(serde_json::from_str::<IndexKind>(&text).expect("its own"), own);
        }
    }
}
