//! Searching an HNSW graph (Malkov & Yashunin, 2016).
//!
//! The links of level 0, where a walk spends its time, lie in one array of equal shares; the levels
//! above are small graphs of their own. A walk follows the few nearest nodes met and not yet
//! followed, ranks all neighbours it has not met in one call, and asks the CPU for what it will read next. It
//! takes no memory but what its thread keeps from the walk before.

use std::cell::RefCell;

use super::beam::Beam;
use super::visited::Visited;
use crate::native::HnswLinks;
use crate::simd::{large_vec, prefetch};

/// An unused place for a link.
pub(super) const NONE: u32 = u32::MAX;
/// Links on a cache line.
pub(super) const LINE_LINKS: usize = 16;

/// Nodes followed at a time: what one of them leads to comes from memory while the others are looked at.
/// A few nodes are followed that one at a time would not be, and are not in vain.
const TOGETHER: usize = 3;
/// Bridges whose links are asked for before they are needed.
const BRIDGES_AHEAD: usize = 4;

/// Ranks nodes by their distance to a query.
pub trait Ranker {
    /// Replaces `ranks` by one rank for each id, smaller for nearer, never NaN.
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>);

    /// Asks the CPU for what ranking an id will read.
    fn prefetch(&self, id: u32);
}

/// One level of a graph, for walking on it.
pub(super) trait Level {
    /// Every id is below this.
    fn bound(&self) -> usize;

    /// Calls `meet` with each node that a node links to.
    fn each_link(&self, node: u32, meet: impl FnMut(u32));

    /// Asks the CPU for a node's links.
    fn prefetch_links(&self, node: u32);
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
pub(super) struct Scratch {
    /// The nearest nodes met, after a walk.
    pub beam: Beam,
    visited: Visited,
    /// Neighbours met for the first time.
    fresh: Vec<u32>,
    ranks: Vec<f32>,
    /// Neighbours that are not admitted.
    bridges: Vec<u32>,
}

/// Ranks nodes met for the first time, having asked the CPU for the links that are likely followed next.
#[inline(always)]
fn meet(
    level: &impl Level,
    ranker: &impl Ranker,
    fresh: &[u32],
    ranks: &mut Vec<f32>,
    beam: &mut Beam,
) {
    beam.next(TOGETHER).for_each(|next| level.prefetch_links(next));
    ranker.rank(fresh, ranks);
    for (id, rank) in fresh.iter().zip(ranks.iter()) {
        beam.offer(*rank, *id);
    }
}

/// Walks towards the query that `ranker` holds from the nodes of `entries`, all different, and leaves
/// the `ef` nearest nodes met in the beam.
pub(super) fn walk(
    level: &impl Level,
    ranker: &impl Ranker,
    ef: usize,
    entries: impl IntoIterator<Item = (f32, u32)>,
    scratch: &mut Scratch,
) {
    let Scratch { beam, visited, fresh, ranks, .. } = scratch;
    visited.begin(level.bound());
    beam.begin(ef);
    for (rank, node) in entries {
        visited.insert(node);
        beam.offer(rank, node);
    }
    loop {
        fresh.clear();
        let mut followed = 0;
        while followed < TOGETHER
            && let Some(node) = beam.follow()
        {
            level.each_link(node, |link| {
                if visited.insert(link) {
                    ranker.prefetch(link);
                    fresh.push(link);
                }
            });
            followed += 1;
        }
        if followed == 0 {
            return;
        }
        meet(level, ranker, fresh, ranks, beam);
    }
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// [`walk`] over admitted nodes alone. A node that is not admitted is a bridge: what it links to
/// stands in for it (Patel et al., "ACORN: Performant and predicate-agnostic search over vector
/// embeddings and structured data", 2024).
fn walk_admitted(
    level: &HnswGraph,
    ranker: &impl Ranker,
    ef: usize,
    reached: (f32, u32),
    seeds: impl Iterator<Item = (f32, u32)>,
    admits: &impl Fn(u32) -> bool,
    scratch: &mut Scratch,
) {
    let Scratch { beam, visited, fresh, ranks, bridges } = scratch;
    visited.begin(level.bound());
    beam.begin(ef);
    for (rank, node) in seeds {
        visited.insert(node);
        beam.offer(rank, node);
    }
    visited.insert(reached.1);
    let mut following = None;
    if admits(reached.1) {
        beam.offer(reached.0, reached.1);
    } else {
        following = Some(reached.1);
    }
    loop {
        fresh.clear();
        let mut followed = 0;
        while followed < TOGETHER
            && let Some(node) = following.take().or_else(|| beam.follow())
        {
            bridges.clear();
            let mut admitted = 0;
            level.each_link(node, |link| {
                if !admits(link) {
                    bridges.push(link);
                    return;
                }
                admitted += 1;
                if visited.insert(link) {
                    ranker.prefetch(link);
                    fresh.push(link);
                }
            });
            // As many bridges as it takes to see enough, the next few on their way from memory.
            let enough = level.width() / 2;
            let mut asked = 0;
            for place in 0..bridges.len() {
                if admitted >= enough {
                    break;
                }
                while asked < bridges.len().min(place + BRIDGES_AHEAD) {
                    level.prefetch_links(bridges[asked]);
                    asked += 1;
                }
                if visited.insert(bridges[place]) {
                    level.each_link(bridges[place], |link| {
                        if admits(link) {
                            admitted += 1;
                            if visited.insert(link) {
                                ranker.prefetch(link);
                                fresh.push(link);
                            }
                        }
                    });
                }
            }
            followed += 1;
        }
        if followed == 0 {
            return;
        }
        meet(level, ranker, fresh, ranks, beam);
    }
}
impl HnswGraph {
    /// Takes the links over into arrays for walking.
    pub fn new(source: &HnswLinks<'_>) -> HnswGraph {
        let nodes = source.levels().len();
        let mut graph = HnswGraph {
            nodes,
            width: source.width(0),
            links: large_vec(nodes * source.width(0)),
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
                // Row after row: each place is written once.
                None => {
                    graph.links.extend(list.links());
                    graph.links.resize((list.row as usize + 1) * graph.width, NONE);
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
            let entry = self.descend(ranker, scratch);
            walk(self, ranker, ef.min(self.nodes), [entry], scratch);
            scratch.beam.nearest().all(|(_, id)| take(id));
        });
    }

    /// Walks towards the query over the nodes that `admits` accepts alone, keeping the `ef` nearest of
    /// them, and gives them to `take`, nearest first, until that says stop (false). `seeds` are some
    /// of them, all different, that the walk begins with.
    pub fn search_admitted(
        &self,
        ranker: &impl Ranker,
        ef: usize,
        seeds: &[u32],
        admits: impl Fn(u32) -> bool,
        mut take: impl FnMut(u32) -> bool,
    ) {
        if self.nodes == 0 || ef == 0 {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let reached = self.descend(ranker, scratch);
            let mut ranks = Vec::with_capacity(seeds.len());
            seeds.iter().for_each(|seed| ranker.prefetch(*seed));
            ranker.rank(seeds, &mut ranks);
            let seeds = ranks.into_iter().zip(seeds.iter().copied());
            let seeds = seeds.filter(|(_, seed)| *seed != reached.1);
            walk_admitted(self, ranker, ef.min(self.nodes), reached, seeds, &admits, scratch);
            scratch.beam.nearest().all(|(_, id)| take(id));
        });
    }

    /// Goes down to level 0, on each level as near as single steps lead.
    fn descend(&self, ranker: &impl Ranker, scratch: &mut Scratch) -> (f32, u32) {
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
        (best, place)
    }

    #[inline(always)]
    fn links_of(&self, node: u32) -> &[u32] {
        let start = node as usize * self.width;
        &self.links[start..start + self.width]
    }
}

impl Level for HnswGraph {
    fn bound(&self) -> usize {
        self.nodes
    }

    #[inline(always)]
    fn each_link(&self, node: u32, meet: impl FnMut(u32)) {
        self.links_of(node).iter().copied().take_while(|link| *link != NONE).for_each(meet);
    }

    #[inline(always)]
    fn prefetch_links(&self, node: u32) {
        for line in self.links_of(node).chunks(LINE_LINKS) {
            prefetch(&line[0]);
        }
    }
}
