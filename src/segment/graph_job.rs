//! Building and writing the graph of one index column.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::column_vectors::ColumnVectors;
use super::sealed::SegmentContext;
use crate::error::{Error, Result};
use crate::index::{
    BuildParams, BuildRun, CodeSpace, Codes, Copies, GraphBuilder, RecallSample, RowSpace, Space,
    Vectors,
};
use crate::native::{GraphFile, GraphParams, HnswLinks, ROWS_MAX};
use crate::schema::{RecallCurve, VectorColumn};
use crate::storage::ChecksumWriter;

/// A graph to be built.
pub(super) struct GraphJob<'a> {
    pub context: &'a SegmentContext,
    pub column: &'a VectorColumn,
    pub params: GraphParams,
    pub vectors: ColumnVectors<'a>,
    /// The graph to extend: over the first of the vectors. What was measured of it.
    pub base: Option<(&'a HnswLinks<'a>, &'a RecallCurve)>,
    pub path: PathBuf,
    pub run: BuildRun<'a>,
}

impl GraphJob<'_> {
    /// Links the vectors, measures what searches find, and writes the file, which is yet to be
    /// finished. Refuses more than [`ROWS_MAX`] vectors, and a base that has more than there are.
    pub fn build(&self) -> Result<(ChecksumWriter, RecallCurve)> {
        let (count, known) =
            (self.vectors.count(), self.base.map_or(0, |(base, _)| base.levels().len()));
        if count > ROWS_MAX {
            return Err(Error::internal(format!(
                "{count} rows are more than the {ROWS_MAX} that one graph can have"
            )));
        }
        if known > count {
            let detail = format!("a graph of {known} nodes cannot be extended to {count}");
            return Err(Error::damaged(&self.path, 0, detail));
        }
        let codes = Codes::new(self.column, self.vectors.iter_until(self.run.stop));
        // Codes of a part of the vectors are of no use.
        self.context.check_running()?;
        match codes {
            Some(codes) => {
                let space = CodeSpace::new(&codes, self.column, &self.vectors);
                self.build_in(&space, Some(&codes))
            }
            None => self.build_in(&RowSpace::new(self.column, &self.vectors), None),
        }
    }

    fn build_in(
        &self,
        space: &impl Space,
        codes: Option<&Codes>,
    ) -> Result<(ChecksumWriter, RecallCurve)> {
        let density = BuildParams {
            max_neighbor_count: self.params.max_neighbor_count,
            ef_construction: self.params.ef_construction,
        };
        let copies = Copies::of(&self.vectors);
        let base = self.base.map(|(base, _)| base);
        let builder = GraphBuilder::new(space, density, base, copies.as_ref());
        let first = base.map_or(0, |base| base.levels().len()) as u32;
        let nodes: Vec<u32> = (first..self.vectors.count() as u32).collect();
        let coded =
            codes.map_or(0, Codes::memory_bytes) + copies.as_ref().map_or(0, Copies::memory_bytes);
        let _held = self.run.hold(builder.memory_bytes() + coded + size_of_val(&nodes[..]));
        let begun = Instant::now();
        if !builder.link(&nodes, &self.run) {
            return Err(Error::Stopping);
        }
        let linked = Instant::now();
        let known = self.base.map(|(_, recall)| recall);
        let known = known.filter(|recall| recall.holds_for(self.vectors.count()));
        let sample = match known {
            Some(_) => None,
            None => RecallSample::take(self.column, &self.vectors, codes, self.run),
        };
        let sampled = Instant::now();
        let measured = sample.map(|sample| builder.measure(&sample));
        let recall = measured.or(known.cloned()).unwrap_or_default();
        tracing::debug!(
            column = self.column.name,
            nodes = self.vectors.count(),
            linked = nodes.len(),
            linking_ms = (linked - begun).as_millis() as u64,
            exact_answers_ms = (sampled - linked).as_millis() as u64,
            measuring_ms = sampled.elapsed().as_millis() as u64,
            "graph built"
        );
        // What was measured in part is nothing: the graph would be searched as one that never was.
        if self.run.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        let graph =
            GraphFile { params: &self.params, levels: builder.levels(), entry: builder.entry() };
        let mut file = ChecksumWriter::create(&*self.context.disk, &self.path)?;
        file.end_by(&self.context.stop);
        let written = graph.write(&mut file, builder.all_links(), self.vectors.iter())?;
        written.map_err(|e| Error::io("write", &self.path, &e))?;
        Ok((file, recall))
    }
}
