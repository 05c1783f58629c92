//! The index of one column of a sealed segment, opened for searching.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use super::column_vectors::ColumnVectors;
use super::index_recall::IndexRecall;
use super::sealed::{SegmentContext, map_verified, segment_folder};
use crate::error::{Error, Result};
use crate::index::{
    BuildRun, Cells, CodeSpace, Codes, Copies, HnswGraph, RowSpace, Vectors, finalists,
};
use crate::manifest::IndexEntry;
use crate::native::{GraphParams, TrainedIndex, TrainedSpace, Tuning, read_links};
use crate::schema::{CollectionSchema, Effort, IndexKind, Recipe, VectorColumn};

/// The index of one column, and the rows that its nodes stand for.
#[derive(Debug)]
pub struct ColumnIndex {
    /// The index; node ids count the vectors of the column, row after row.
    pub body: IndexBody,
    /// What searches of it find.
    recall: IndexRecall,
    /// Nodes of a graph with identical vectors, of which a walk meets one; each group by the keys of rows.
    copies: Option<Copies>,
    /// Row of each node, where some rows have no vector or several; else node and row are the same.
    pub(super) row_of_id: Option<Box<[u32]>>,
}

/// What an index is.
#[derive(Debug)]
pub enum IndexBody {
    /// A graph.
    Graph {
        /// Its links.
        graph: HnswGraph,
        /// What its nodes are ranked by, for columns that can have codes.
        codes: Option<Codes>,
        /// Its cells, once they are made; `None` in there where it gains nothing by them.
        cells: OnceLock<Option<Box<Cells>>>,
    },
    /// An index that faiss trained.
    Trained(TrainedIndex),
}

/// How the graph of a column is made, or `None` for a column that has none.
pub(super) fn graph_params(column: &VectorColumn) -> Option<GraphParams> {
    match column.index {
        IndexKind::Flat | IndexKind::Trained { .. } => None,
        IndexKind::Hnsw { max_neighbor_count, ef_construction, quantized, .. } => {
            Some(GraphParams {
                element: column.element,
                metric: column.metric,
                dimension: column.dimension,
                max_neighbor_count,
                ef_construction,
                quantized,
            })
        }
    }
}

/// How the trained index of a column is made, or `None` for a column that has none.
pub(super) fn trained_params(column: &VectorColumn) -> Option<(&Recipe, TrainedSpace)> {
    let IndexKind::Trained { recipe, .. } = &column.index else { return None };
    let VectorColumn { element, metric, dimension, .. } = *column;
    Some((recipe, TrainedSpace { element, metric, dimension }))
}

/// Refuses columns whose trained index faiss cannot make, in its words.
pub fn check_indexes(schema: &CollectionSchema) -> Result<()> {
    for column in &schema.columns {
        let Some((recipe, space)) = trained_params(column) else { continue };
        let description = recipe.description(recipe.lists(recipe.rows_wanted()));
        TrainedIndex::new(&description, space).map_err(|error| Error::InvalidColumn {
            column: column.name.clone(),
            detail: format!("no index can be made of {description:?}: {error}"),
        })?;
    }
    Ok(())
}

impl ColumnIndex {
    /// Reads the index of a column, and makes what it is searched by. `None` for one that is left out of
    /// service; the context's suspects know why.
    pub(super) fn open(
        context: &SegmentContext,
        segment: u32,
        entry: &IndexEntry,
        vectors: ColumnVectors<'_>,
    ) -> Result<Option<ColumnIndex>> {
        let folder = &segment_folder(&context.folder, segment);
        let path = folder.join(&entry.file.name);
        let count = vectors.count();
        let fitting = |nodes: usize| match nodes == count {
            true => Ok(()),
            false => Err(Error::damaged(&path, 0, format!("{nodes} nodes for {count} vectors"))),
        };
        let column = context.schema.columns.get(entry.column as usize);
        let column = column
            .ok_or_else(|| Error::damaged(&path, 0, "an index of a column that does not exist"))?;
        let mut copies = None;
        let body = if let Some(params) = graph_params(column) {
            let read_graph = || -> Result<HnswGraph> {
                let bytes = map_verified(context, folder, &entry.file)?;
                let links = read_links(&bytes, &params).map_err(|e| e.in_file(&path))?;
                fitting(links.levels().len())?;
                Ok(HnswGraph::new(&links))
            };
            let (graph, (codes, found)) = rayon::join(read_graph, || {
                let codes = || Codes::new(column, vectors.iter_until(&context.stop));
                rayon::join(codes, || Copies::of(&vectors))
            });
            // Codes of a part of the vectors are of no use.
            context.check_running()?;
            copies = found.map(|mut copies| {
                copies.sort_by_key(|node| vectors.key(node));
                copies
            });
            IndexBody::Graph { graph: graph?, codes, cells: OnceLock::new() }
        } else if let Some((_, space)) = trained_params(column) {
            let bytes = map_verified(context, folder, &entry.file)?;
            let place = entry.column as usize;
            if context.suspects.left_out(segment, place).is_some() {
                return Ok(None);
            }
            let trial = context.suspects.opening(segment, place)?;
            let opened = TrainedIndex::read(&bytes, space).and_then(|index| {
                let probed = [0, count / 2, count.saturating_sub(1)].into_iter().take(count);
                index.probe(probed.map(|node| vectors.get(node as u32))).map(|()| index)
            });
            drop(trial);
            match opened {
                Ok(index) => {
                    fitting(index.len())?;
                    IndexBody::Trained(index)
                }
                // The file is as it was written, and its rows are not in doubt.
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "an index is left out of service");
                    context.suspects.note_unfit(segment, place, error.to_string());
                    return Ok(None);
                }
            }
        } else {
            return Err(Error::damaged(&path, 0, "an index of a column that has none"));
        };
        let recall = IndexRecall::new(entry.recall.clone());
        Ok(Some(ColumnIndex { body, recall, copies, row_of_id: vectors.row_of_id }))
    }

    /// True for a graph whose cells are yet to be made.
    pub(super) fn lacks_cells(&self) -> bool {
        matches!(&self.body, IndexBody::Graph { cells, .. } if cells.get().is_none())
    }

    /// Makes the cells of a graph, which searches use from then on. Does nothing when the run is
    /// stopped.
    pub(super) fn make_cells(
        &self,
        column: &VectorColumn,
        vectors: &ColumnVectors<'_>,
        run: &BuildRun<'_>,
    ) {
        let IndexBody::Graph { graph, codes, cells } = &self.body else { return };
        let made = match codes {
            Some(codes) => Cells::new(graph, &CodeSpace::new(codes, column, vectors), run),
            None => Cells::new(graph, &RowSpace::new(column, vectors), run),
        };
        if !run.stop.load(Ordering::Relaxed) {
            // Set once: there is one lane of such work.
            let _ = cells.set(made.map(Box::new));
        }
    }

    /// What searches of it find.
    pub fn recall(&self) -> &IndexRecall {
        &self.recall
    }

    /// Vectors.
    pub fn nodes(&self) -> usize {
        match &self.body {
            IndexBody::Graph { graph, .. } => graph.len(),
            IndexBody::Trained(index) => index.len(),
        }
    }

    /// Bytes that a search for the `k` nearest reads at most, roughly. More than any query may read
    /// where it is faiss that searches: that never happens on a thread that serves sockets.
    pub fn search_bytes(&self, effort: Effort, k: usize, vector_bytes: u64) -> u64 {
        let IndexBody::Graph { graph, codes, .. } = &self.body else { return u64::MAX };
        let ef_search = self.recall.candidates(effort, k);
        let row_bytes = codes.as_ref().map_or(vector_bytes, |codes| codes.row_bytes() as u64);
        let neighbours = (graph.width() as u64).saturating_mul(ef_search as u64);
        let scored = finalists(k, self.recall.refine_k(None)) as u64;
        let ranked = neighbours.min(graph.len() as u64).saturating_mul(row_bytes);
        ranked.saturating_add(scored.saturating_mul(vector_bytes))
    }

    /// What the effort of a search is, where faiss searches; `None` for a graph of ours.
    pub fn tuning(&self) -> Option<Tuning> {
        match &self.body {
            IndexBody::Graph { .. } => None,
            IndexBody::Trained(index) => Some(index.tuning()),
        }
    }

    /// Its nodes with identical vectors, of which a walk meets one.
    pub fn copies(&self) -> Option<&Copies> {
        self.copies.as_ref()
    }

    /// The codes of its vectors, if it keeps some.
    pub fn codes(&self) -> Option<&Codes> {
        match &self.body {
            IndexBody::Graph { codes, .. } => codes.as_ref(),
            IndexBody::Trained(_) => None,
        }
    }

    /// Bytes of memory that codes (or what is trained) and links take.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let rows = self.row_of_id.as_deref().map_or(0, size_of_val)
            + self.copies.as_ref().map_or(0, Copies::memory_bytes);
        match &self.body {
            IndexBody::Graph { graph, codes, cells } => {
                let codes = codes.as_ref().map_or(0, Codes::memory_bytes);
                let cells = cells.get().and_then(Option::as_deref).map_or(0, Cells::memory_bytes);
                (codes, graph.memory_bytes() + cells + rows)
            }
            IndexBody::Trained(index) => (index.memory_bytes() + rows, 0),
        }
    }

    /// The nodes that stand for a row: as many as it has vectors.
    pub fn ids(&self, row: u32) -> Range<u32> {
        match &self.row_of_id {
            None => row..(row + 1).min(self.nodes() as u32).max(row),
            Some(rows) => {
                let first = rows.partition_point(|other| *other < row);
                let count = rows[first..].iter().take_while(|other| **other == row).count();
                first as u32..(first + count) as u32
            }
        }
    }

    /// About how many nodes stand for so many of the rows of its segment, which are `rows`.
    pub fn nodes_of(&self, some: usize, rows: u32) -> usize {
        let each = self.nodes() as f64 / f64::from(rows.max(1));
        // Rows without a vector may be any.
        (some as f64 * each.max(1.0)) as usize
    }

    /// The row that a node stands for.
    #[inline(always)]
    pub fn row(&self, id: u32) -> u32 {
        match &self.row_of_id {
            None => id,
            Some(rows) => rows.get(id as usize).copied().unwrap_or(u32::MAX),
        }
    }
}
