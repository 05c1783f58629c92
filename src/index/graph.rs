//! Searching an HNSW graph (Malkov & Yashunin, 2016) that faiss built.
//!
//! The links of level 0, where a walk spends its time, lie in one array of equal shares; the levels
//! above are small graphs of their own. A walk follows the nearest node met and not yet followed,
//! ranks all neighbours it has not met in one call, and asks the CPU for what it will read next. It
//! takes no memory but what its thread keeps from the walk before.

use std::cell::RefCell;

use super::beam::Beam;
use super::visited::Visited;
use crate::native::HnswLinks;
use crate::simd::prefetch;

/// An unused place for a link.
const NONE: u32 = u32::MAX;
/// Links on a cache line.
const LINE_LINKS: usize = 16;

/// Ranks nodes by their distance to a query.
pub trait Ranker {
    /// Replaces `ranks` by one rank for each id, smaller for nearer, never NaN.
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>);

    /// Asks the CPU for what ranking an id will read.
    fn prefetch(&self, id: u32);
}

/// The links of a graph, ready to be walked.
#[derive(Debug)]
pub struct HnswGraph {
    nodes: usize,
    /// Links of a node on level 0.
    width: usize,
    /// `width` places for each node; unused ones are last.
    links: Vec<u32>,
    /// Level 1 and up.
    upper: Vec<UpperLevel>,
    /// Where a walk begins: a node's place on the highest level.
    entry: u32,
}

/// A level above 0: a graph over the nodes that reach it, which it numbers by their places.
#[derive(Debug)]
struct UpperLevel {
    /// The node at each place, ascending.
    nodes: Vec<u32>,
    /// Each node's place on the level below.
    below: Vec<u32>,
    width: usize,
    /// `width` places for each node, numbered as this level numbers them.
    links: Vec<u32>,
}

impl UpperLevel {
    fn place(&self, node: u32) -> Option<usize> {
        self.nodes.binary_search(&node).ok()
    }
}

/// What a thread keeps between walks.
#[derive(Debug, Default)]
struct Scratch {
    beam: Beam,
    visited: Visited,
    /// Neighbours met for the first time.
    fresh: Vec<u32>,
    ranks: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl HnswGraph {
    /// Takes the links over into arrays for walking.
    pub fn new(source: &HnswLinks<'_>) -> HnswGraph {
        let nodes = source.levels().len();
        let mut graph = HnswGraph {
            nodes,
            width: source.width(0),
            links: vec![NONE; nodes * source.width(0)],
            upper: Vec::new(),
            entry: source.entry().unwrap_or(0),
        };
        let top = usize::from(source.levels().iter().copied().max().unwrap_or(1));
        for level in 1..top {
            let reaches = |node: &u32| usize::from(source.levels()[*node as usize]) > level;
            let on_level: Vec<u32> = match graph.upper.last() {
                None => (0..nodes as u32).filter(reaches).collect(),
                Some(lower) => lower.nodes.iter().copied().filter(reaches).collect(),
            };
            let below = match graph.upper.last() {
                None => on_level.clone(),
                Some(lower) => {
                    on_level.iter().filter_map(|n| lower.place(*n)).map(|p| p as u32).collect()
                }
            };
            let width = source.width(level);
            let links = vec![NONE; on_level.len() * width];
            graph.upper.push(UpperLevel { nodes: on_level, below, width, links });
        }
        for list in source.lists() {
            match list.level.checked_sub(1) {
                None => {
                    let start = list.row as usize * graph.width;
                    let own = &mut graph.links[start..start + graph.width];
                    own.iter_mut().zip(list.links()).for_each(|(place, link)| *place = link);
                }
                Some(level) => {
                    let upper = &mut graph.upper[level];
                    let start = upper.place(list.row).unwrap_or(0) * upper.width;
                    let places: Vec<u32> =
                        list.links().filter_map(|l| upper.place(l)).map(|p| p as u32).collect();
                    upper.links[start..start + places.len()].copy_from_slice(&places);
                }
            }
        }
        if let Some(top) = graph.upper.last() {
            graph.entry = top.place(graph.entry).unwrap_or(0) as u32;
        }
        graph
    }

    /// Nodes; their ids are 0 to `len() - 1`.
    pub fn len(&self) -> usize {
        self.nodes
    }

    /// True for a graph without nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// Most links of a node on level 0.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let upper: usize = self
            .upper
            .iter()
            .map(|u| u.nodes.capacity() + u.below.capacity() + u.links.capacity())
            .sum();
        (self.links.capacity() + upper) * size_of::<u32>()
    }

    /// Walks towards the query that `ranker` holds, keeping the `ef` nearest nodes met, and gives
    /// them to `take`, nearest first, until that says stop (false). Gives fewer than `ef` when the
    /// graph has no more, or the walk cannot reach them.
    pub fn search(&self, ranker: &impl Ranker, ef: usize, mut take: impl FnMut(u32) -> bool) {
        if self.nodes == 0 || ef == 0 {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let (entry, rank) = self.descend(ranker, scratch);
            self.walk(ranker, ef.min(self.nodes), (entry, rank), scratch);
            scratch.beam.nearest().all(&mut take);
        });
    }

    /// Goes down to level 0, on each level as near as single steps lead.
    fn descend(&self, ranker: &impl Ranker, scratch: &mut Scratch) -> (u32, f32) {
        let Scratch { fresh, ranks, .. } = scratch;
        let mut place = self.entry;
        let node_at = |place: u32| self.upper.last().map_or(place, |top| top.nodes[place as usize]);
        ranker.rank(&[node_at(place)], ranks);
        let mut best = ranks[0];
        for level in self.upper.iter().rev() {
            loop {
                let start = place as usize * level.width;
                let links = &level.links[start..start + level.width];
                let links = &links[..links.iter().position(|l| *l == NONE).unwrap_or(links.len())];
                fresh.clear();
                fresh.extend(links.iter().map(|place| level.nodes[*place as usize]));
                fresh.iter().for_each(|node| ranker.prefetch(*node));
                ranker.rank(fresh, ranks);
                let before = best;
                for (link, rank) in links.iter().zip(ranks.iter()) {
                    if *rank < best {
                        (best, place) = (*rank, *link);
                    }
                }
                if best == before {
                    break;
                }
            }
            place = level.below[place as usize];
        }
        (place, best)
    }

    fn walk(&self, ranker: &impl Ranker, ef: usize, entry: (u32, f32), scratch: &mut Scratch) {
        let Scratch { beam, visited, fresh, ranks } = scratch;
        visited.begin(self.nodes);
        beam.begin(ef);
        visited.insert(entry.0);
        beam.offer(entry.1, entry.0);
        while let Some(node) = beam.follow() {
            fresh.clear();
            for link in self.links_of(node) {
                if *link == NONE {
                    break;
                }
                if visited.insert(*link) {
                    ranker.prefetch(*link);
                    fresh.push(*link);
                }
            }
            if let Some(next) = beam.next() {
                self.prefetch_links(next);
            }
            ranker.rank(fresh, ranks);
            for (id, rank) in fresh.iter().zip(ranks.iter()) {
                beam.offer(*rank, *id);
            }
        }
    }

    #[inline(always)]
    fn links_of(&self, node: u32) -> &[u32] {
        let start = node as usize * self.width;
        &self.links[start..start + self.width]
    }

    #[inline(always)]
    fn prefetch_links(&self, node: u32) {
        for line in self.links_of(node).chunks(LINE_LINKS) {
            prefetch(&line[0]);
        }
    }
}
