//! An HNSW graph over one vector column of one segment (Malkov & Yashunin, 2016), built and kept by
//! faiss. Queries walk its links by themselves (`crate::index`); faiss's own search is here for
//! comparison.

use std::fmt;

use super::error::{NativeError, NativeResult};
use super::ffi::{RawIndex, Rows, Spec};
use super::format::{self, HnswLinks};
use super::layout::{Layout, Storage};
use crate::schema::{ElementType, Metric, decode_floats};

/// Most rows of one graph: faiss numbers them in 31 bits.
pub const ROWS_MAX: usize = i32::MAX as usize - 1;

/// Highest dimension, far above what any limit of a collection allows.
const DIMENSION_MAX: u32 = 1 << 20;

/// Bytes of decoded floats handed to faiss at once. Each hand-over costs faiss a pass over all rows
/// so far, some milliseconds per million, and building one block takes far longer than that.
const BLOCK_BYTES: usize = 32 << 20;

/// What a graph is built over and how densely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphParams {
    /// The column's element type.
    pub element: ElementType,
    /// The column's metric, one that fits the element type.
    pub metric: Metric,
    /// Elements (bits for the bit types). Range 1 to 1,048,576.
    pub dimension: u32,
    /// Links per node above level 0, twice that on level 0 (the paper's M). Range 2 to 256.
    pub max_neighbor_count: u32,
    /// Candidates kept while a row is linked in. Range 1 to 65536.
    pub ef_construction: u32,
    /// The file holds bytes for floats, which have a range for each dimension.
    pub quantized: bool,
}

/// A graph index. Searches may run on any number of threads at once.
pub struct Graph {
    index: RawIndex,
    element: ElementType,
    layout: Layout,
    dimension: usize,
    /// Bytes of one stored row.
    row_bytes: usize,
    /// An add failed half way; what the index holds is unknown.
    is_broken: bool,
}

/// The links of what [`Graph::to_bytes`] gave, without reading the rows behind them. Refuses what
/// [`Graph::from_bytes`] refuses.
pub fn read_links<'a>(bytes: &'a [u8], params: &GraphParams) -> NativeResult<HnswLinks<'a>> {
    let (layout, _, _) = params.spec()?;
    format::check(bytes, &layout, params.dimension, params.max_neighbor_count)
}

impl GraphParams {
    pub(super) fn spec(&self) -> NativeResult<(Layout, Spec, usize)> {
        let layout = Layout::with_bytes(self.element, self.metric, self.quantized)?;
        check_range("dimension", self.dimension, 1, DIMENSION_MAX)?;
        check_range("max_neighbor_count", self.max_neighbor_count, 2, 256)?;
        check_range("ef_construction", self.ef_construction, 1, 65_536)?;
        let row_bytes = self.element.vector_bytes(self.dimension).ok_or_else(|| {
            let (name, dimension) = (self.element.name(), self.dimension);
            NativeError::refused(format!("dimension {dimension} does not fit {name}"))
        })?;
        let spec = Spec {
            storage: layout.storage as u32,
            metric: layout.metric as i32,
            dimension: self.dimension,
            max_neighbor_count: self.max_neighbor_count,
            ef_construction: self.ef_construction,
        };
        Ok((layout, spec, row_bytes))
    }

    fn graph(&self, index: RawIndex, layout: Layout, row_bytes: usize) -> Graph {
        Graph {
            index,
            element: self.element,
            layout,
            dimension: self.dimension as usize,
            row_bytes,
            is_broken: false,
        }
    }
}

fn check_range(what: &str, value: u32, low: u32, high: u32) -> NativeResult<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(NativeError::refused(format!("{what} is {value}, outside {low} to {high}")))
}

impl Graph {
    /// An empty graph. Refuses parameters outside their ranges or that do not fit together.
    pub fn new(params: &GraphParams) -> NativeResult<Graph> {
        let (layout, spec, row_bytes) = params.spec()?;
        Ok(params.graph(RawIndex::new(&spec)?, layout, row_bytes))
    }

    /// A graph from what [`Graph::to_bytes`] gave, or what faiss wrote for the same kind of index.
    /// It can be searched and extended; `ef_construction` is taken from `params`.
    ///
    /// Damaged, truncated or mismatching bytes are an error that says where. Every size, level,
    /// offset and link is checked before faiss sees the bytes, so no search leaves its memory.
    /// Changed vector elements, and links that lead to another existing row, cannot be noticed
    /// here: that takes the file's checksum.
    pub fn from_bytes(bytes: &[u8], params: &GraphParams) -> NativeResult<Graph> {
        let (layout, spec, row_bytes) = params.spec()?;
        let rows = format::check(bytes, &layout, params.dimension, params.max_neighbor_count)?
            .levels()
            .len();
        Ok(params.graph(RawIndex::read(bytes, &spec, rows)?, layout, row_bytes))
    }

    /// Rows in the graph; their ids are 0 to `len() - 1`.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True for a graph without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `count` rows as the column stores them (little-endian, row after row); ids continue
    /// from `len()`. Blocks until they are linked in, on up to `threads` threads (0 counts as 1);
    /// call it from a build pool. One call with many rows is far cheaper than many calls.
    ///
    /// Refuses a length that does not fit, and more than [`ROWS_MAX`] rows in all. After an error
    /// inside faiss the graph is broken: every later call fails.
    pub fn add(&mut self, rows: &[u8], count: usize, threads: usize) -> NativeResult<()> {
        self.check_whole()?;
        if count.checked_mul(self.row_bytes) != Some(rows.len()) {
            return Err(NativeError::refused(format!(
                "{} bytes are not {count} rows of {} bytes",
                rows.len(),
                self.row_bytes
            )));
        }
        if count > ROWS_MAX - self.len() {
            return Err(NativeError::refused(format!(
                "{count} rows on top of {} are more than {ROWS_MAX}",
                self.len()
            )));
        }
        if count == 0 {
            return Ok(());
        }
        let added = self.add_blocks(rows, threads);
        self.is_broken = added.is_err();
        added
    }

    fn add_blocks(&mut self, rows: &[u8], threads: usize) -> NativeResult<()> {
        if self.layout.storage == Storage::Bits {
            return self.index.add(Rows::Bits(rows), threads);
        }
        if let Some(floats) = self.as_floats(rows) {
            return self.index.add(Rows::Floats(floats), threads);
        }
        let block_rows = (BLOCK_BYTES / (self.dimension * size_of::<f32>())).max(1);
        let mut floats = Vec::new();
        for block in rows.chunks(block_rows * self.row_bytes) {
            self.decode(block, &mut floats);
            self.index.add(Rows::Floats(&floats), threads)?;
        }
        Ok(())
    }

    /// The k nearest rows as faiss's own search finds them, nearest first, as (rank, id) in `out`,
    /// which is cleared first. Keeps `max(ef, k)` candidates on the way; `ef` beyond the number of rows means
    /// all of them. Runs on the calling thread alone and allocates by `len()`, not by `k` or `ef`.
    ///
    /// `out` never has more than k entries; it has fewer where the search met fewer rows. The
    /// rank orders them and is no score: the squared distance, minus the inner product, minus the
    /// cosine, the sum of absolute differences or the number of differing bits, as floats of
    /// rounded rows, with everything that overflows at the far end.
    ///
    /// Refuses a query of the wrong length.
    pub fn search(
        &self,
        query: &[u8],
        k: usize,
        ef: usize,
        out: &mut Vec<(f32, u32)>,
    ) -> NativeResult<()> {
        out.clear();
        self.check_whole()?;
        if query.len() != self.row_bytes {
            return Err(NativeError::refused(format!(
                "a query of {} bytes for rows of {} bytes",
                query.len(),
                self.row_bytes
            )));
        }
        let k = k.min(self.len());
        if k == 0 {
            return Ok(());
        }
        let mut floats = Vec::new();
        let query = match self.layout.storage {
            Storage::Bits => Rows::Bits(query),
            Storage::Floats | Storage::Halves | Storage::SignedBytes | Storage::Bytes => {
                self.decode(query, &mut floats);
                Rows::Floats(&floats)
            }
        };
        let (mut ranks, mut ids) = (vec![0.0; k], vec![-1; k]);
        self.index.search(query, ef.clamp(k, self.len()), &mut ranks, &mut ids)?;
        // The places that the search could not fill have the id -1, which is no u32.
        out.extend(
            ranks
                .into_iter()
                .zip(ids)
                .filter_map(|(rank, id)| Some((rank, u32::try_from(id).ok()?))),
        );
        Ok(())
    }

    /// The graph as the bytes of a faiss index file: python's `faiss.read_index` opens them, or
    /// `faiss.read_index_binary` for the bit types. Fails when the memory for them is missing.
    pub fn to_bytes(&self) -> NativeResult<Vec<u8>> {
        self.check_whole()?;
        self.index.to_bytes()
    }

    fn check_whole(&self) -> NativeResult<()> {
        if self.is_broken {
            return Err(NativeError::refused("an earlier add to this graph failed half way"));
        }
        Ok(())
    }

    fn decode(&self, rows: &[u8], floats: &mut Vec<f32>) {
        decode_floats(rows, self.element, self.dimension, self.layout.normalised, floats);
    }

    /// Rows that are floats already: stored so, not to be scaled, and aligned.
    fn as_floats<'a>(&self, rows: &'a [u8]) -> Option<&'a [f32]> {
        let as_stored = self.element == ElementType::Fp32
            && !self.layout.normalised
            && cfg!(target_endian = "little");
        if as_stored { bytemuck::try_cast_slice(rows).ok() } else { None }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("element", &self.element)
            .field("layout", &self.layout)
            .field("dimension", &self.dimension)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
