//! Indexes that faiss trains before it takes rows: inverted lists (Sivic & Zisserman, 2003), product
//! quantizers (Jégou, Douze & Schmid, 2011), and whatever else its index factory makes.

use std::ffi::CString;
use std::fmt;
use std::io;

use super::error::{NativeError, NativeResult};
use super::layout::{FaissMetric, Layout, Storage};
use super::trained_ffi::{Admit, RawInfo, RawTrainedIndex};
use crate::schema::{ElementType, Metric, decode_floats};

/// Longer vectors are scaled down to this length, here only: faiss reads outside its memory where a
/// distance is not a number, which sums that overflow can be.
const LENGTH_MAX: f64 = 1e18;
/// Rows wanted and effort of the searches that probe an index.
const PROBES: [(usize, usize); 3] = [(1, 1), (10, 8), (50, 32)];

/// What an index is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainedSpace {
    /// The column's element type; no bits.
    pub element: ElementType,
    /// The column's metric; not Manhattan, which no trained index knows.
    pub metric: Metric,
    /// Elements.
    pub dimension: u32,
}

/// What the effort of a search of an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// There is no choice: every search does the same.
    Nothing,
    /// Inverted lists looked into (nprobe), of so many.
    Lists(usize),
    /// Candidates kept while walking a graph (ef).
    Candidates,
}

impl TrainedSpace {
    fn layout(&self) -> NativeResult<Layout> {
        let layout = Layout::new(self.element, self.metric)?;
        if layout.storage == Storage::Bits {
            return Err(NativeError::refused("bits have no trained index"));
        }
        if layout.metric == FaissMetric::L1 {
            return Err(NativeError::refused(
                "no trained index knows sums of absolute differences",
            ));
        }
        Ok(layout)
    }

    /// Appends the floats of stored vectors to `floats`, as the index takes them.
    fn decode(&self, vector: &[u8], one: &mut Vec<f32>, floats: &mut Vec<f32>) {
        let is_normalised = self.metric == Metric::Cosine;
        decode_floats(vector, self.element, self.dimension as usize, is_normalised, one);
        let square: f64 = one.iter().map(|x| f64::from(*x).powi(2)).sum();
        if square > LENGTH_MAX * LENGTH_MAX {
            let scale = LENGTH_MAX / square.sqrt();
            one.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
        floats.extend_from_slice(one);
    }
}

/// An index that faiss trained. Searches may run on any number of threads at once, each on the thread
/// that asks.
pub struct TrainedIndex {
    index: RawTrainedIndex,
    space: TrainedSpace,
    len: usize,
    tuning: Tuning,
    takes_selector: bool,
    /// Bytes of the file that it was read from.
    bytes: usize,
}

impl TrainedIndex {
    /// An index without rows, as faiss's `index_factory` makes it of that description: to be trained
    /// first. The description's numbers must be bounded. Refuses what faiss refuses.
    pub fn new(description: &str, space: TrainedSpace) -> NativeResult<TrainedIndex> {
        let layout = space.layout()?;
        let text = CString::new(description)
            .map_err(|_| NativeError::refused("the description holds a NUL"))?;
        let index = RawTrainedIndex::new(&text, space.dimension, layout.metric as i32)?;
        TrainedIndex::checked(index, space, &layout, 0)
    }

    /// The index in a file whose checksum was verified. Refuses one over another space, and one whose
    /// sizes, ids or links do not fit each other.
    pub fn read(bytes: &[u8], space: TrainedSpace) -> NativeResult<TrainedIndex> {
        let layout = space.layout()?;
        let read = RawTrainedIndex::read(bytes).map_err(|error| match error {
            NativeError::Foreign { detail, .. } => NativeError::Damaged { offset: 0, detail },
            other => other,
        });
        TrainedIndex::checked(read?, space, &layout, bytes.len())
    }

    /// Searches a little, with stored vectors, so that what cannot be searched shows now.
    pub fn probe<'a>(&self, vectors: impl Iterator<Item = &'a [u8]>) -> NativeResult<()> {
        for vector in vectors {
            for (k, effort) in PROBES {
                self.search(vector, k, effort, None)?;
            }
        }
        Ok(())
    }

    fn checked(
        index: RawTrainedIndex,
        space: TrainedSpace,
        layout: &Layout,
        bytes: usize,
    ) -> NativeResult<TrainedIndex> {
        let info = index.info()?;
        let (dimension, metric) = (space.dimension, layout.metric as i32);
        if i64::from(info.dimension) != i64::from(dimension) || info.metric != metric {
            return Err(NativeError::Damaged {
                offset: 0,
                detail: format!(
                    "the index is of {} dimensions and metric {}, the column of {dimension} and {metric}",
                    info.dimension, info.metric
                ),
            });
        }
        let mut index = TrainedIndex {
            index,
            space,
            len: 0,
            tuning: Tuning::Nothing,
            takes_selector: false,
            bytes,
        };
        index.note(&info)?;
        Ok(index)
    }

    fn note(&mut self, info: &RawInfo) -> NativeResult<()> {
        self.len = usize::try_from(info.rows)
            .ok()
            .filter(|rows| u32::try_from(*rows).is_ok())
            .ok_or_else(|| NativeError::refused(format!("an index of {} rows", info.rows)))?;
        self.tuning = match info.tuned {
            1 => Tuning::Lists(usize::try_from(info.lists).unwrap_or(usize::MAX)),
            2 => Tuning::Candidates,
            _ => Tuning::Nothing,
        };
        self.takes_selector = info.takes_selector != 0;
        Ok(())
    }

    /// Rows; their ids are 0 to `len() - 1`.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for an index without rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the effort of a search is.
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// Searches can be told which ids to find.
    pub fn takes_selector(&self) -> bool {
        self.takes_selector
    }

    /// Bytes of memory held, nearly: those of the file it came from.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Trains with vectors as the column stores them, on up to `threads` threads. Blocks for long.
    pub fn train<'a>(
        &mut self,
        vectors: impl Iterator<Item = &'a [u8]>,
        threads: usize,
    ) -> NativeResult<()> {
        self.train_floats(&self.floats(vectors), threads)
    }

    /// Trains with what [`TrainedIndex::floats`] made of vectors.
    pub fn train_floats(&mut self, floats: &[f32], threads: usize) -> NativeResult<()> {
        if floats.is_empty() { Ok(()) } else { self.index.train(floats, threads) }
    }

    /// Appends vectors as the column stores them, on up to `threads` threads; ids continue from
    /// `len()`. After an error the index must be dropped.
    pub fn add<'a>(
        &mut self,
        vectors: impl Iterator<Item = &'a [u8]>,
        threads: usize,
    ) -> NativeResult<()> {
        self.add_floats(&self.floats(vectors), threads)
    }

    /// Appends what [`TrainedIndex::floats`] made of vectors. After an error the index must be dropped.
    pub fn add_floats(&mut self, floats: &[f32], threads: usize) -> NativeResult<()> {
        if floats.is_empty() {
            return Ok(());
        }
        self.index.add(floats, threads)?;
        self.len += floats.len() / self.space.dimension as usize;
        Ok(())
    }

    /// Vectors as the column stores them, one after the other as the index takes them.
    pub fn floats<'a>(&self, vectors: impl Iterator<Item = &'a [u8]>) -> Vec<f32> {
        let (mut one, mut floats) = (Vec::new(), Vec::new());
        vectors.for_each(|vector| self.space.decode(vector, &mut one, &mut floats));
        floats
    }

    /// The ids of the `k` nearest rows, or fewer where it meets fewer, nearest first by the index's own
    /// measure. Looks into `effort` lists or keeps as many candidates, where it has such a choice.
    /// `admit` says which ids may be found, and is not looked at by an index that takes no selector.
    pub fn search(
        &self,
        query: &[u8],
        k: usize,
        effort: usize,
        admit: Option<Admit<'_>>,
    ) -> NativeResult<Vec<u32>> {
        let k = k.min(self.len);
        if k == 0 {
            return Ok(Vec::new());
        }
        let floats = self.floats(std::iter::once(query));
        let (mut distances, mut ids) = (vec![0.0; k], vec![-1; k]);
        let admit = admit.filter(|_| self.takes_selector);
        self.index.search(&floats, effort, admit, &mut distances, &mut ids)?;
        // The places that the search could not fill have the id -1, which is no u32.
        Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
    }

    /// Writes the file that python's `faiss.read_index` opens. An error of `out` is passed on within.
    pub fn write(&self, out: &mut dyn io::Write) -> NativeResult<io::Result<()>> {
        self.index.write(out)
    }
}

impl fmt::Debug for TrainedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainedIndex")
            .field("space", &self.space)
            .field("len", &self.len)
            .field("tuning", &self.tuning)
            .finish_non_exhaustive()
    }
}
