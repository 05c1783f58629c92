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
/// Nodes of the level above that a walk begins with for queries unlike the rows: what is nearest to these
/// lies in several regions, and single steps lead to one.
pub const BREADTH: usize = 48;
/// Bridges whose links are asked for before they are needed.
const BRIDGES_AHEAD: usize = 8;

/// Ranks nodes by their distance to a query.
pub trait Ranker {
    /// Replaces `ranks` by one rank for each id, smaller for nearer, never NaN.
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>);

    /// [`Ranker::rank`] where that takes less for ranks that may be too small. What is still of interest then
    /// gets its own from [`Ranker::complete`].
    #[inline(always)]
    fn rank_at_least(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        self.rank(ids, ranks);
    }

    /// The rank of an id that [`Ranker::rank_at_least`] gave this one.
    #[inline(always)]
    fn complete(&self, _id: u32, at_least: f32) -> f32 {
        at_least
    }

    /// Asks the CPU for what ranking an id will read.
    fn prefetch(&self, id: u32);

    /// The standard deviation of ranks near this one from those of the vectors themselves; 0 for ranks
    /// that are theirs.
    fn deviation(&self, _rank: f32) -> f32 {
        0.0
    }
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

/// Calls `meet` with each link before the first unused place. A loop, as what an iterator makes of it may become
/// a call of its own for each node.
#[inline(always)]
fn each_of(links: &[u32], mut meet: impl FnMut(u32)) {
    for link in links {
        if *link == NONE {
            return;
        }
        meet(*link);
    }
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

impl Level for UpperLevel {
    fn bound(&self) -> usize {
        self.nodes.len()
    }

    #[inline(always)]
    fn each_link(&self, place: u32, meet: impl FnMut(u32)) {
        let start = place as usize * self.width;
        each_of(&self.links[start..start + self.width], meet);
    }

    #[inline(always)]
    fn prefetch_links(&self, place: u32) {
        let start = place as usize * self.width;
        self.links[start..start + self.width].chunks(LINE_LINKS).for_each(|l| prefetch(&l[0]));
    }
}

/// Ranks the nodes at places of an upper level.
struct AtPlaces<'a, R> {
    nodes: &'a [u32],
    ranker: &'a R,
    ids: RefCell<Vec<u32>>,
}

impl<R: Ranker> Ranker for AtPlaces<'_, R> {
    fn rank(&self, places: &[u32], ranks: &mut Vec<f32>) {
        let mut ids = self.ids.borrow_mut();
        ids.clear();
        ids.extend(places.iter().map(|place| self.nodes[*place as usize]));
        self.ranker.rank(&ids, ranks);
    }

    #[inline(always)]
    fn prefetch(&self, place: u32) {
        self.ranker.prefetch(self.nodes[place as usize]);
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
}

/// Follows the nearest nodes met and not yet followed, beginning with `first`, until all that the beam
/// keeps are. `expand` adds to its last argument what a node leads to and was not visited before.
#[inline(always)]
fn follow_all(
    level: &impl Level,
    ranker: &impl Ranker,
    (beam, visited): (&mut Beam, &mut Visited),
    (fresh, ranks): (&mut Vec<u32>, &mut Vec<f32>),
    mut first: Option<u32>,
    mut expand: impl FnMut(u32, &mut Visited, &mut Vec<u32>),
) {
    loop {
        fresh.clear();
        let mut followed = 0;
        while followed < TOGETHER
            && let Some(node) = first.take().or_else(|| beam.follow())
        {
            expand(node, visited, fresh);
            followed += 1;
        }
        if followed == 0 {
            return;
        }
        // The links that are likely followed next come from memory while nodes are ranked.
        beam.next(TOGETHER).for_each(|next| level.prefetch_links(next));
        ranker.rank_at_least(fresh, ranks);
        for (id, rank) in fresh.iter().zip(ranks.iter()) {
            if beam.wants(*rank) {
                beam.offer(ranker.complete(*id, *rank), *id);
            }
        }
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
    let Scratch { beam, visited, fresh, ranks } = scratch;
    visited.begin(level.bound());
    beam.begin(ef);
    for (rank, node) in entries {
        visited.insert(node);
        beam.offer(rank, node);
    }
    let expand = |node, visited: &mut Visited, fresh: &mut Vec<u32>| {
        level.each_link(node, |link| {
            if visited.insert(link) {
                ranker.prefetch(link);
                fresh.push(link);
            }
        });
    };
    follow_all(level, ranker, (beam, visited), (fresh, ranks), None, expand);
}

/// Most links of a node, a power of two.
const LINKS_MAX: usize = 512;

/// The links of a node, those to admitted nodes apart from the others.
///
/// Each link is written to both sides and counted on one: which it is cannot be predicted, and
/// guessing wrong would take longer than the look at a bitmap.
struct SplitLinks {
    admitted: [u32; LINKS_MAX],
    others: [u32; LINKS_MAX],
}

impl SplitLinks {
    /// Splits the first [`LINKS_MAX`] links, and returns how many are admitted and how many are not.
    #[inline(always)]
    fn split(&mut self, links: &[u32], admits: &impl Fn(u32) -> bool) -> (usize, usize) {
        let (mut admitted, mut others) = (0, 0);
        for link in links.iter().copied().take(LINKS_MAX).take_while(|link| *link != NONE) {
            let is_admitted = admits(link);
            self.admitted[admitted % LINKS_MAX] = link;
            self.others[others % LINKS_MAX] = link;
            admitted += usize::from(is_admitted);
            others += usize::from(!is_admitted);
        }
        (admitted, others)
    }

    /// Puts those of the links that are admitted first among `admitted`, and returns how many they are.
    #[inline(always)]
    fn admit(&mut self, links: &[u32], admits: &impl Fn(u32) -> bool) -> usize {
        let mut admitted = 0;
        for link in links.iter().copied().take(LINKS_MAX).take_while(|link| *link != NONE) {
            self.admitted[admitted % LINKS_MAX] = link;
            admitted += usize::from(admits(link));
        }
        admitted
    }
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
    let Scratch { beam, visited, fresh, ranks } = scratch;
    let mut links = SplitLinks { admitted: [NONE; LINKS_MAX], others: [NONE; LINKS_MAX] };
    visited.begin(level.bound());
    beam.begin(ef);
    for (rank, node) in seeds {
        visited.insert(node);
        beam.offer(rank, node);
    }
    visited.insert(reached.1);
    let mut first = None;
    if admits(reached.1) {
        beam.offer(reached.0, reached.1);
    } else {
        first = Some(reached.1);
    }
    // As many bridges as it takes to see so many.
    let enough = level.width / 2;
    let expand = |node, visited: &mut Visited, fresh: &mut Vec<u32>| {
        let (mut admitted, bridges) = links.split(level.links_of(node), admits);
        let ahead = bridges.min(BRIDGES_AHEAD);
        if admitted < enough {
            links.others[..ahead].iter().for_each(|bridge| level.prefetch_links(*bridge));
        }
        let mut take = |link: u32, visited: &mut Visited| {
            if visited.insert(link) {
                ranker.prefetch(link);
                fresh.push(link);
            }
        };
        links.admitted[..admitted].iter().for_each(|link| take(*link, visited));
        for place in 0..bridges {
            if admitted >= enough {
                break;
            }
            if let Some(next) = links.others[..bridges].get(place + BRIDGES_AHEAD) {
                level.prefetch_links(*next);
            }
            let bridge = links.others[place];
            if visited.insert(bridge) {
                let beyond = links.admit(level.links_of(bridge), admits);
                links.admitted[..beyond].iter().for_each(|link| take(*link, visited));
                admitted += beyond;
            }
        }
    };
    follow_all(level, ranker, (beam, visited), (fresh, ranks), first, expand);
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
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
    /// them with their ranks to `take`, nearest first, until that says stop (false). Gives fewer than `ef`
    /// when the graph has no more, or the walk cannot reach them.
    pub fn search(&self, ranker: &impl Ranker, ef: usize, take: impl FnMut(f32, u32) -> bool) {
        self.search_from(ranker, ef, 1, take);
    }

    /// [`HnswGraph::search`] that begins with the `breadth` nearest nodes of the level above the lowest, as
    /// far as a walk with twice as many candidates finds them.
    pub fn search_from(
        &self,
        ranker: &impl Ranker,
        ef: usize,
        breadth: usize,
        mut take: impl FnMut(f32, u32) -> bool,
    ) {
        if self.nodes == 0 || ef == 0 {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let ef = ef.min(self.nodes);
            match self.upper.first().filter(|_| breadth > 1) {
                None => {
                    let entry = self.descend(ranker, scratch);
                    walk(self, ranker, ef, [entry], scratch);
                }
                Some(upper) => {
                    self.walk_upper(0, ranker, 2 * breadth, scratch);
                    let places = scratch.beam.nearest().take(breadth);
                    let entries = places.map(|(rank, place)| (rank, upper.nodes[place as usize]));
                    let entries: Vec<(f32, u32)> = entries.collect();
                    walk(self, ranker, ef, entries, scratch);
                }
            }
            scratch.beam.nearest().all(|(rank, id)| take(rank, id));
        });
    }

    /// Walks towards the query over the nodes that `admits` accepts alone, keeping the `ef` nearest of
    /// them, and gives them with their ranks to `take`, nearest first, until that says stop (false). `seeds` are some
    /// of them, all different, that the walk begins with.
    pub fn search_admitted(
        &self,
        ranker: &impl Ranker,
        ef: usize,
        seeds: &[u32],
        admits: impl Fn(u32) -> bool,
        mut take: impl FnMut(f32, u32) -> bool,
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
            scratch.beam.nearest().all(|(rank, id)| take(rank, id));
        });
    }

    /// The lowest level above 0 that has no more nodes than this, and how many it has. Levels above 0
    /// are numbered from 0.
    pub(super) fn upper_level(&self, nodes_max: usize) -> Option<(usize, usize)> {
        let mut sizes = self.upper.iter().map(|level| level.nodes.len()).enumerate();
        sizes.find(|(_, nodes)| *nodes <= nodes_max)
    }

    /// Walks on a level above 0 and leaves the places there that are nearest to the query in the beam.
    pub(super) fn walk_upper(
        &self,
        level: usize,
        ranker: &impl Ranker,
        ef: usize,
        scratch: &mut Scratch,
    ) {
        let entry = self.descend_to(Some(level), ranker, scratch);
        let upper = &self.upper[level];
        let ranker = AtPlaces { nodes: &upper.nodes, ranker, ids: RefCell::default() };
        walk(upper, &ranker, ef.clamp(1, upper.nodes.len()), [entry], scratch);
    }

    /// Goes down to level 0, on each level as near as single steps lead.
    fn descend(&self, ranker: &impl Ranker, scratch: &mut Scratch) -> (f32, u32) {
        self.descend_to(None, ranker, scratch)
    }

    /// Goes down to a place on a level above 0, or to a node on level 0.
    fn descend_to(
        &self,
        last: Option<usize>,
        ranker: &impl Ranker,
        scratch: &mut Scratch,
    ) -> (f32, u32) {
        let Scratch { fresh, ranks, .. } = scratch;
        let mut place = self.entry;
        let node_at = |place: u32| self.upper.last().map_or(place, |top| top.nodes[place as usize]);
        ranker.rank(&[node_at(place)], ranks);
        let mut best = ranks[0];
        for (number, level) in self.upper.iter().enumerate().rev() {
            loop {
                let start = place as usize * level.width;
                let links = &level.links[start..start + level.width];
                let links = &links[..links.iter().position(|l| *l == NONE).unwrap_or(links.len())];
                fresh.clear();
                fresh.extend(links.iter().map(|place| level.nodes[*place as usize]));
                fresh.iter().for_each(|node| ranker.prefetch(*node));
                ranker.rank_at_least(fresh, ranks);
                let before = best;
                for ((link, node), rank) in links.iter().zip(fresh.iter()).zip(ranks.iter()) {
                    if *rank < best {
                        let rank = ranker.complete(*node, *rank);
                        if rank < best {
                            (best, place) = (rank, *link);
                        }
                    }
                }
                if best == before {
                    break;
                }
            }
            if last == Some(number) {
                break;
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
        each_of(self.links_of(node), meet);
    }

    #[inline(always)]
    fn prefetch_links(&self, node: u32) {
        for line in self.links_of(node).chunks(LINE_LINKS) {
            prefetch(&line[0]);
        }
    }
}
