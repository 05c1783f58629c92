//! Cells: the nodes of a graph by the nearest of a few of them, those of an upper level.
//!
//! Where few nodes may be found, a walk spends its time on the others. The rows of the cells nearest
//! to the query are looked at instead (an inverted file: Jegou et al., "Product quantization for
//! nearest neighbor search", 2011), each tried against a bitmap first. Cells are not kept in a file:
//! they are assigned anew in the background when a segment is opened.

use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::build::BuildRun;
use super::graph::{HnswGraph, Ranker, SCRATCH};
use super::space::{Around, Space};
use crate::schema::{Effort, RecallCurve, RecallPoint};

/// Fewer nodes are looked at one by one as soon.
const NODES_MIN: usize = 50_000;
/// Nodes of a cell at least, on average.
const CELL_NODES_MIN: usize = 100;
/// Fewer cells than this tell nothing apart.
const CELLS_MIN: usize = 16;
/// Candidates kept while the cell of a node is looked for.
const ASSIGN_EF: usize = 8;
/// What is measured: how many nodes, among which share of all, and with how many cells.
const SAMPLE: usize = 256;
const SAMPLE_SHARE: f64 = 0.01;
const LADDER: [u32; 10] = [4, 8, 16, 24, 32, 48, 64, 96, 128, 256];
/// Neighbours looked for.
const FEW: usize = 10;
const MANY: usize = 100;
/// How the number of cells to be looked into grows where less than the share measured may be found:
/// that is farther away.
const SHARE_POWER: f64 = 0.25;

/// The nodes of a graph, cell by cell.
#[derive(Debug)]
pub struct Cells {
    /// The level whose nodes are the centres.
    level: usize,
    /// Where each cell's members begin, and where the last one's end.
    starts: Vec<u32>,
    members: Vec<u32>,
    /// What looking into so many cells finds where one row of a hundred may be found.
    recall: RecallCurve,
}

impl Cells {
    /// Assigns the nodes of a graph. `None` where it is too small to gain by it, and when the run was
    /// stopped.
    pub fn new(graph: &HnswGraph, space: &impl Space, run: &BuildRun<'_>) -> Option<Cells> {
        let (level, count) = graph.upper_level(graph.len() / CELL_NODES_MIN)?;
        let is_large = graph.len() >= NODES_MIN && count >= CELLS_MIN;
        is_large.then(|| Cells::around(graph, (level, count), space, run)).flatten()
    }

    /// The cells around the nodes of a level above 0, which are `count`.
    pub(super) fn around(
        graph: &HnswGraph,
        (level, count): (usize, usize),
        space: &impl Space,
        run: &BuildRun<'_>,
    ) -> Option<Cells> {
        let nodes = graph.len();
        let _held = run.hold(2 * size_of::<u32>() * nodes);
        let assign = |center: &mut _, node: u32| -> Option<u32> {
            if run.stop.load(Ordering::Relaxed) {
                return None;
            }
            space.set(center, node);
            SCRATCH.with_borrow_mut(|scratch| {
                graph.walk_upper(level, &Around { space, center }, ASSIGN_EF, scratch);
                scratch.beam.nearest().next().map(|(_, place)| place)
            })
        };
        let cell_of = run.pool.install(|| {
            let all = (0..nodes as u32).into_par_iter();
            all.map_init(|| space.center(), assign).collect::<Option<Vec<u32>>>()
        })?;
        let mut starts = vec![0u32; count + 1];
        cell_of.iter().for_each(|cell| starts[*cell as usize + 1] += 1);
        (1..starts.len()).for_each(|cell| starts[cell] += starts[cell - 1]);
        let (mut next, mut members) = (starts.clone(), vec![0; nodes]);
        for (node, cell) in cell_of.iter().enumerate() {
            let place = &mut next[*cell as usize];
            members[*place as usize] = node as u32;
            *place += 1;
        }
        let recall = measure(graph, space, run, (level, &cell_of))?;
        Some(Cells { level, starts, members, recall })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        (self.starts.capacity() + self.members.capacity()) * size_of::<u32>()
    }

    /// How many cells there are.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many cells to look into for the `k` nearest where a share of the rows may be found.
    pub fn probes(&self, effort: Effort, k: usize, share: f64) -> usize {
        let measured = self.recall.candidates(effort, k) as f64;
        let farther = (SAMPLE_SHARE / share.max(1e-9)).powf(SHARE_POWER).max(1.0);
        ((measured * farther).ceil() as usize).clamp(1, self.count())
    }

    /// Gives the members of the `probes` cells nearest to the query to `take`, cell by cell, nearest
    /// first. `graph` is the one that they were made of.
    pub fn search(
        &self,
        graph: &HnswGraph,
        ranker: &impl Ranker,
        probes: usize,
        mut take: impl FnMut(&[u32]),
    ) {
        SCRATCH.with_borrow_mut(|scratch| {
            graph.walk_upper(self.level, ranker, probes, scratch);
            for (_, cell) in scratch.beam.nearest() {
                let ends = (self.starts[cell as usize], self.starts[cell as usize + 1]);
                take(&self.members[ends.0 as usize..ends.1 as usize]);
            }
        });
    }
}

/// What is found of the nearest among every hundredth node by looking into so many cells, asked by
/// nodes as if they were queries.
fn measure<S: Space>(
    graph: &HnswGraph,
    space: &S,
    run: &BuildRun<'_>,
    (level, cell_of): (usize, &[u32]),
) -> Option<RecallCurve> {
    let nodes = cell_of.len();
    let every = (1.0 / SAMPLE_SHARE) as u32;
    // By a hash: rows may come in any order.
    let among =
        (0..nodes as u32).filter(|node| node.wrapping_mul(0x9e37_79b1) >> 8 < (1 << 24) / every);
    let among: Vec<u32> = among.collect();
    let most = LADDER[LADDER.len() - 1] as usize;
    // For each of the nearest, which place among the cells near the node its own cell has.
    let places = |center: &mut S::Center, place: usize| -> Option<Vec<usize>> {
        if run.stop.load(Ordering::Relaxed) {
            return None;
        }
        let node = (place * nodes / SAMPLE) as u32;
        space.ask(center, node);
        let mut ranks = Vec::new();
        space.rank(center, &among, &mut ranks);
        let others = ranks.into_iter().zip(&among).filter(|(_, other)| **other != node);
        let mut near: Vec<(f32, u32)> = others.map(|(rank, other)| (rank, *other)).collect();
        let wanted = MANY.min(near.len());
        if wanted < near.len() {
            near.select_nth_unstable_by(wanted, |a, b| a.0.total_cmp(&b.0));
            near.truncate(wanted);
        }
        near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        SCRATCH.with_borrow_mut(|scratch| {
            graph.walk_upper(level, &Around { space, center }, most, scratch);
            let cells: Vec<u32> = scratch.beam.nearest().map(|(_, cell)| cell).collect();
            let place_of = |cell: u32| cells.iter().position(|near| *near == cell);
            let place_of = |node: &u32| place_of(cell_of[*node as usize]).unwrap_or(usize::MAX);
            Some(near.iter().map(|(_, node)| place_of(node)).collect())
        })
    };
    let places = run.pool.install(|| {
        let all = (0..SAMPLE).into_par_iter();
        all.map_init(|| space.center(), places).collect::<Option<Vec<Vec<usize>>>>()
    })?;
    let found = |wanted: usize, probes: u32| {
        let near = places.iter().flat_map(|places| places.iter().take(wanted));
        let met = near.clone().filter(|place| **place < probes as usize).count();
        met as f32 / near.count().max(1) as f32
    };
    let points = LADDER.iter().map(|probes| RecallPoint {
        ef_search: *probes,
        at_1: None,
        at_10: found(FEW, *probes),
        at_100: found(MANY, *probes),
    });
    Some(RecallCurve { points: points.collect(), ..RecallCurve::default() })
}
