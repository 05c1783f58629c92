//! Building an HNSW graph (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor
//! search using Hierarchical Navigable Small World graphs", 2016) on several threads.
//!
//! Each node draws how many levels it is on, looks for its nearest nodes on each of them, chooses
//! those to link to by the paper's heuristic, and is linked to by them in turn; a list that is full
//! is chosen anew.

mod measuring;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use rayon::ThreadPool;

use super::copies::Copies;
use super::graph::{LINE_LINKS, Level, NONE, Ranker, Scratch, walk};
use super::space::{Around, Space};
use crate::native::{HnswLinks, levels_max};
use crate::simd::{large_vec, prefetch};

/// Nodes a thread takes at once.
const CHUNK: usize = 64;

/// Candidates looked at together when links are chosen.
const WINDOW: usize = 32;

/// A candidate may be nearer to a chosen one than to the node by this factor, of squares, and still be
/// linked to: some more links make walks shorter (Subramanya et al., "DiskANN", 2019, whose alpha is the
/// root of it).
const SLACK: f32 = 1.1;

/// A candidate for a link.
#[derive(Debug, Clone, Copy, Default)]
struct Candidate {
    rank: f32,
    id: u32,
    /// It is as near to one that is chosen as to the node.
    is_tied: bool,
}

/// What links lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// Nodes near by the symmetric distance.
    Near,
    /// Nodes with large inner products.
    Products,
}

impl Links {
    /// Makes a node the center that others are ranked by.
    fn center<S: Space>(self, space: &S, center: &mut S::Center, node: u32) {
        match self {
            Links::Near => space.set(center, node),
            Links::Products => space.ask(center, node),
        }
    }
}

/// How densely nodes are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildParams {
    /// Links per node above level 0, twice that on level 0 (the paper's M). 2 to 256.
    pub max_neighbor_count: u32,
    /// Candidates kept while a node's neighbours are looked for. 1 and up.
    pub ef_construction: u32,
}

/// Numbers of candidates that are measured, as long as a walk with so many is quicker than a scan.
pub const GRAPH_LADDER: [u32; 20] = [
    12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048, 3_072, 4_096,
    6_144, 8_192,
];

/// Of the links of a node, one in so many is kept whatever covers it.
const LEAST: usize = 4;

/// How many times as many candidates are kept where codes do not tell those found apart from others.
pub const WIDER: usize = 4;

/// True where looking at all nodes is about as quick as a walk that keeps so many candidates: it meets
/// half of the neighbours of each, in no order that memory likes.
pub fn is_scan_quicker(candidates: usize, width: usize, nodes: usize) -> bool {
    candidates.saturating_mul(width) >= nodes
}

/// Candidates kept while the number of finalists is chosen.
const REFINE_EFFORT: u32 = 128;

/// What a build runs on, and who watches it.
#[derive(Debug, Clone, Copy)]
pub struct BuildRun<'a> {
    /// The threads.
    pub pool: &'a ThreadPool,
    /// Set when the build should end early.
    pub stop: &'a AtomicBool,
    /// Counts the nodes linked in.
    pub done: &'a AtomicU64,
    /// Bytes that the build holds now.
    pub held: &'a AtomicU64,
}

impl<'a> BuildRun<'a> {
    /// Counts bytes as held by the build until the answer is dropped.
    pub fn hold(&self, bytes: usize) -> HeldBytes<'a> {
        self.held.fetch_add(bytes as u64, Ordering::Relaxed);
        HeldBytes { of: self.held, bytes: bytes as u64 }
    }
}

/// Bytes that a build holds.
#[derive(Debug)]
#[must_use]
pub struct HeldBytes<'a> {
    of: &'a AtomicU64,
    bytes: u64,
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A graph that grows.
pub struct GraphBuilder<'a, S: Space> {
    space: &'a S,
    /// Nodes that others stand for are not linked to.
    copies: Option<&'a Copies>,
    /// Links of a node above level 0.
    width: usize,
    ef: usize,
    /// The second half of each node's links on level 0 is to nodes with large products with it.
    has_products: bool,
    /// Number of levels of each node, 1 and up.
    levels: Vec<u8>,
    /// Twice `width` links of each node on level 0.
    links: Vec<AtomicU32>,
    /// Where a node's links above level 0 begin.
    upper_starts: Vec<u32>,
    /// `width` links for each level above 0 of each node.
    upper_links: Vec<AtomicU32>,
    /// Held by whoever changes a node's links. They are read without.
    locks: Vec<Mutex<()>>,
    /// Where walks begin: a node of the highest level that is linked in.
    entry: RwLock<Option<u32>>,
    /// Held while a node that rises above the entry is linked in.
    rise: Mutex<()>,
}

/// One level of a growing graph.
struct GrowingLevel<'b, 'a, S: Space> {
    builder: &'b GraphBuilder<'a, S>,
    level: usize,
}

impl<S: Space> Level for GrowingLevel<'_, '_, S> {
    fn bound(&self) -> usize {
        self.builder.levels.len()
    }

    #[inline(always)]
    fn each_link(&self, node: u32, mut meet: impl FnMut(u32)) {
        let places = self.builder.places(node, self.level);
        let (near, products) = match self.builder.has_products && self.level == 0 {
            true => places.split_at(self.builder.width),
            false => (places, &[][..]),
        };
        for places in [near, products] {
            for place in places {
                match place.load(Ordering::Relaxed) {
                    NONE => break,
                    link => meet(link),
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch_links(&self, node: u32) {
        let places = self.builder.places(node, self.level);
        places.chunks(LINE_LINKS).for_each(|line| prefetch(&line[0]));
    }
}

/// What a thread needs to link nodes in.
struct Worker<S: Space> {
    scratch: Scratch,
    /// The node that is linked in, or whose links are chosen anew.
    center: S::Center,
    /// A node that is chosen.
    chosen_center: S::Center,
    candidates: Vec<(f32, u32)>,
    ids: Vec<u32>,
    ranks: Vec<f32>,
    chosen: Vec<(f32, u32)>,
    /// The links of the new node by level, from 0.
    by_level: Vec<Vec<(f32, u32)>>,
}

impl<'a, S: Space> GraphBuilder<'a, S> {
    /// A graph over all nodes of the space. Those of `base` are linked as they are there, the others
    /// not yet. Of each group of `copies` the first node stands for the others.
    pub fn new(
        space: &'a S,
        params: BuildParams,
        base: Option<&HnswLinks<'_>>,
        copies: Option<&'a Copies>,
    ) -> Self {
        let width = params.max_neighbor_count.max(2) as usize;
        let known = base.map_or(&[][..], |base| base.levels());
        let highest = levels_max(params.max_neighbor_count.max(2));
        let mut levels = known.to_vec();
        levels.extend(
            (known.len()..space.count()).map(|node| draw_levels(node as u64, width, highest)),
        );
        let followers = || copies.into_iter().flat_map(Copies::followers);
        for (node, _) in followers().filter(|(node, _)| *node as usize >= known.len()) {
            levels[node as usize] = 1;
        }
        let mut upper_starts = Vec::with_capacity(levels.len());
        let mut end = 0;
        for count in &levels {
            upper_starts.push(end as u32);
            end += usize::from(*count) - 1;
        }
        let free = || AtomicU32::new(NONE);
        let mut links = large_vec(2 * width * levels.len());
        links.resize_with(2 * width * levels.len(), free);
        let mut upper_links = Vec::new();
        upper_links.resize_with(end * width, free);
        let mut locks = Vec::new();
        locks.resize_with(levels.len(), Mutex::default);
        let entry = RwLock::new(base.and_then(HnswLinks::entry));
        let ef = params.ef_construction.max(1) as usize;
        let rise = Mutex::default();
        let builder = GraphBuilder {
            space,
            copies,
            width,
            ef,
            has_products: space.has_products(),
            levels,
            links,
            upper_starts,
            upper_links,
            locks,
            entry,
            rise,
        };
        for list in base.into_iter().flat_map(HnswLinks::lists) {
            let places = builder.places(list.row, list.level).iter();
            places.zip(list.links()).for_each(|(p, link)| p.store(link, Ordering::Relaxed));
        }
        // So that a walk which begins there, in a file that others read, leads on.
        for (node, leader) in followers().filter(|(node, _)| *node as usize >= known.len()) {
            builder.places(node, 0)[0].store(leader, Ordering::Relaxed);
        }
        builder
    }

    /// True for a node that another one stands for.
    fn is_follower(&self, node: u32) -> bool {
        self.copies.is_some_and(|copies| copies.leader(node).is_some())
    }

    /// Bytes of memory that the graph takes while it grows.
    pub fn memory_bytes(&self) -> usize {
        let links = self.links.capacity() + self.upper_links.capacity();
        links * size_of::<AtomicU32>()
            + self.upper_starts.capacity() * size_of::<u32>()
            + self.locks.capacity() * size_of::<Mutex<()>>()
            + self.levels.capacity()
    }

    /// Links in the nodes, each once, but for those that others stand for. False when it was stopped.
    pub fn link(&self, nodes: &[u32], run: &BuildRun<'_>) -> bool {
        let nodes: Vec<u32> =
            nodes.iter().copied().filter(|node| !self.is_follower(*node)).collect();
        let Some(first) = nodes.first() else { return true };
        let mut nodes = &nodes[..];
        if self.entry.read().is_none() {
            *self.entry.write() = Some(*first);
            run.done.fetch_add(1, Ordering::Relaxed);
            nodes = &nodes[1..];
        }
        let next = AtomicUsize::new(0);
        run.pool.broadcast(|_| {
            let mut worker = Worker::<S> {
                scratch: Scratch::default(),
                center: self.space.center(),
                chosen_center: self.space.center(),
                candidates: Vec::new(),
                ids: Vec::new(),
                ranks: Vec::new(),
                chosen: Vec::new(),
                by_level: Vec::new(),
            };
            loop {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                let Some(rest) = nodes.get(start..).filter(|rest| !rest.is_empty()) else { break };
                if run.stop.load(Ordering::Relaxed) {
                    break;
                }
                let chunk = &rest[..CHUNK.min(rest.len())];
                for node in chunk {
                    // A node of many dimensions takes milliseconds.
                    if run.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    self.insert(*node, &mut worker);
                }
                run.done.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        });
        self.close_gaps();
        !run.stop.load(Ordering::Relaxed)
    }

    /// Moves links up into places before them that are free.
    fn close_gaps(&self) {
        for node in (0..self.levels.len() as u32).filter(|_| self.has_products) {
            let places = self.places(node, 0);
            let mut kept: Vec<u32> = Vec::with_capacity(places.len());
            for link in places.iter().map(|place| place.load(Ordering::Relaxed)) {
                if link != NONE && !kept.contains(&link) {
                    kept.push(link);
                }
            }
            let links = kept.into_iter().chain(std::iter::repeat(NONE));
            places.iter().zip(links).for_each(|(p, link)| p.store(link, Ordering::Relaxed));
        }
    }

    /// The number of levels of each node.
    pub fn levels(&self) -> &[u8] {
        &self.levels
    }

    /// Where walks begin.
    pub fn entry(&self) -> Option<u32> {
        *self.entry.read()
    }

    /// The links of all nodes in order, each node's by level: twice the width on level 0, the width on
    /// the others, unused places last as `u32::MAX`.
    pub fn all_links(&self) -> impl Iterator<Item = u32> {
        let lists = self.levels.iter().enumerate().flat_map(move |(node, levels)| {
            (0..usize::from(*levels)).flat_map(move |level| self.places(node as u32, level))
        });
        lists.map(|place| place.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn places(&self, node: u32, level: usize) -> &[AtomicU32] {
        match level.checked_sub(1) {
            None => &self.links[node as usize * 2 * self.width..][..2 * self.width],
            Some(above) => {
                let start = self.upper_starts[node as usize] as usize + above;
                &self.upper_links[start * self.width..][..self.width]
            }
        }
    }

    /// The places for links to nodes that are near on a level.
    #[inline(always)]
    fn near_places(&self, node: u32, level: usize) -> &[AtomicU32] {
        let places = self.places(node, level);
        if level == 0 && self.has_products { &places[..self.width] } else { places }
    }

    /// Goes down from the entry to the level above `level`, on each as near as single steps lead, and
    /// gives the node reached.
    fn descend(
        &self,
        ranker: &impl Ranker,
        entry: u32,
        level: usize,
        ids: &mut Vec<u32>,
        ranks: &mut Vec<f32>,
    ) -> (f32, u32) {
        ranker.rank(&[entry], ranks);
        let mut best = (ranks[0], entry);
        for above in (level + 1..usize::from(self.levels[entry as usize])).rev() {
            loop {
                ids.clear();
                let on_level = GrowingLevel { builder: self, level: above };
                on_level.each_link(best.1, |link| {
                    ranker.prefetch(link);
                    ids.push(link);
                });
                ranker.rank(ids, ranks);
                let before = best;
                for (id, rank) in ids.iter().zip(ranks.iter()) {
                    if *rank < best.0 {
                        best = (*rank, *id);
                    }
                }
                if best == before {
                    break;
                }
            }
        }
        best
    }

    fn insert(&self, node: u32, worker: &mut Worker<S>) {
        let top = usize::from(self.levels[node as usize]) - 1;
        let top_of = |entry: Option<u32>| entry.map_or(0, |e| self.levels[e as usize] as usize - 1);
        // Only one node at a time can become the entry, and only one above the one that is.
        let mut rise = None;
        if top > top_of(self.entry()) {
            rise = Some(self.rise.lock());
        }
        let Some(entry) = self.entry() else { return };
        let Worker { center, ids, ranks, .. } = &mut *worker;
        self.space.set(center, node);
        let shared = top.min(top_of(Some(entry)));
        let around = Around { space: self.space, center };
        let reached = self.descend(&around, entry, shared, ids, ranks);
        worker.by_level.resize_with(worker.by_level.len().max(shared + 1), Vec::new);
        // Each level is entered with all that was found on the one above.
        worker.candidates.clear();
        worker.candidates.push(reached);
        for level in (0..=shared).rev() {
            let on_level = GrowingLevel { builder: self, level };
            let ranker = Around { space: self.space, center: &worker.center };
            let entries = worker.candidates.drain(..);
            walk(&on_level, &ranker, self.ef, entries, &mut worker.scratch);
            let found = worker.scratch.beam.nearest().filter(|(_, id)| *id != node);
            worker.candidates.extend(found);
            let mut chosen = std::mem::take(&mut worker.by_level[level]);
            let candidates = std::mem::take(&mut worker.candidates);
            self.choose(&candidates, self.width, Links::Near, worker, &mut chosen);
            worker.candidates = candidates;
            worker.by_level[level] = chosen;
        }
        // From the lowest level up: whoever finds the node on a level finds it linked below.
        for level in 0..=shared {
            let chosen = std::mem::take(&mut worker.by_level[level]);
            {
                let _lock = self.locks[node as usize].lock();
                store(self.near_places(node, level), &chosen);
            }
            for (rank, neighbour) in &chosen {
                let places = self.near_places(*neighbour, level);
                self.link_back(*neighbour, places, (*rank, node), Links::Near, worker);
            }
            worker.by_level[level] = chosen;
        }
        if self.has_products {
            self.link_products(node, worker);
        }
        if rise.is_some() && top > top_of(self.entry()) {
            *self.entry.write() = Some(node);
        }
    }

    /// Links a node with those that have the largest products with it (Morozov & Babenko, "Non-metric
    /// similarity graphs for maximum inner product search", 2018).
    fn link_products(&self, node: u32, worker: &mut Worker<S>) {
        self.space.ask(&mut worker.center, node);
        let on_level = GrowingLevel { builder: self, level: 0 };
        // From what is near the node and what was found by its nearest.
        worker.ids.clear();
        worker.ids.extend(worker.candidates.iter().map(|(_, id)| *id));
        let Worker { center, ids, ranks, scratch, .. } = &mut *worker;
        let ranker = Around { space: self.space, center };
        ranker.rank(ids, ranks);
        let entries: Vec<(f32, u32)> = ranks.iter().copied().zip(ids.iter().copied()).collect();
        walk(&on_level, &ranker, self.ef, entries, scratch);
        let candidates: Vec<(f32, u32)> =
            worker.scratch.beam.nearest().filter(|(_, id)| *id != node).collect();
        let mut chosen = Vec::new();
        self.choose(&candidates, self.width, Links::Products, worker, &mut chosen);
        let products = &self.places(node, 0)[self.width..];
        {
            let _lock = self.locks[node as usize].lock();
            store(products, &chosen);
        }
        for (_, neighbour) in &chosen {
            let places = &self.places(*neighbour, 0)[self.width..];
            self.link_back(*neighbour, places, (0.0, node), Links::Products, worker);
        }
    }

    /// Links from a node to a new one, at one of these places.
    fn link_back(
        &self,
        node: u32,
        places: &[AtomicU32],
        new: (f32, u32),
        links: Links,
        worker: &mut Worker<S>,
    ) {
        let _lock = self.locks[node as usize].lock();
        let free = places.iter().find(|place| place.load(Ordering::Relaxed) == NONE);
        if let Some(free) = free {
            free.store(new.1, Ordering::Relaxed);
            return;
        }
        let Worker { center, ids, ranks, candidates, .. } = &mut *worker;
        ids.clear();
        ids.extend(places.iter().map(|place| place.load(Ordering::Relaxed)));
        if links == Links::Products {
            ids.push(new.1);
        }
        ids.iter().for_each(|id| self.space.prefetch(*id));
        links.center(self.space, center, node);
        self.space.rank(center, ids, ranks);
        candidates.clear();
        candidates.extend(ranks.iter().copied().zip(ids.iter().copied()));
        if links == Links::Near {
            candidates.push(new);
        }
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let candidates = std::mem::take(candidates);
        let mut chosen = std::mem::take(&mut worker.chosen);
        self.choose(&candidates, places.len(), links, worker, &mut chosen);
        store(places, &chosen);
        (worker.candidates, worker.chosen) = (candidates, chosen);
    }

    /// Chooses at most `most` of the candidates, which are in order of their rank to a node: each
    /// that is nearer to the node than to any chosen before it (the paper's algorithm 4). As near to
    /// both counts as nearer for a quarter of the list: so copies of a row are linked to each other,
    /// and to the rest as well.
    fn choose(
        &self,
        candidates: &[(f32, u32)],
        most: usize,
        links: Links,
        worker: &mut Worker<S>,
        chosen: &mut Vec<(f32, u32)>,
    ) {
        chosen.clear();
        let slack = if links == Links::Products { 1.0 } else { SLACK };
        let Worker { chosen_center, ids, ranks, .. } = worker;
        let mut ties = 0;
        // A window at a time: the later ones are mostly covered by what the first windows give.
        for window in candidates.chunks(WINDOW) {
            let mut left = [Candidate::default(); WINDOW];
            let of_window =
                window.iter().map(|(rank, id)| Candidate { rank: *rank, id: *id, is_tied: false });
            left.iter_mut().zip(of_window).for_each(|(place, candidate)| *place = candidate);
            // Drops those after the first `from` that are well nearer to `by` than to the node.
            let mut cover = |by: u32, left: &mut [Candidate; WINDOW], from: usize, count: usize| {
                ids.clear();
                ids.extend(left[from..count].iter().map(|candidate| candidate.id));
                links.center(self.space, chosen_center, by);
                self.space.rank(chosen_center, ids, ranks);
                let mut kept = from;
                for at in from..count {
                    let rank = ranks[at - from];
                    if rank * slack >= left[at].rank {
                        left[kept] = left[at];
                        left[kept].is_tied |= rank == left[at].rank;
                        kept += 1;
                    }
                }
                kept
            };
            let mut count = window.len();
            for (_, by) in chosen.iter() {
                if count > 0 {
                    count = cover(*by, &mut left, 0, count);
                }
            }
            let mut at = 0;
            while at < count {
                let Candidate { rank, id, is_tied } = left[at];
                at += 1;
                if is_tied {
                    if ties == most / 4 {
                        continue;
                    }
                    ties += 1;
                }
                chosen.push((rank, id));
                if chosen.len() == most {
                    return;
                }
                if at < count {
                    count = cover(id, &mut left, at, count);
                }
            }
        }
        // Where one node is nearer to all than they are to each other, it alone is chosen, and nobody leads
        // anywhere else.
        let least = (self.width / LEAST).max(1);
        for candidate in candidates {
            if chosen.len() >= least {
                break;
            }
            if !chosen.iter().any(|(_, id)| *id == candidate.1) {
                chosen.push(*candidate);
            }
        }
    }
}

/// Writes links to places, and frees those left.
fn store(places: &[AtomicU32], chosen: &[(f32, u32)]) {
    let links = chosen.iter().map(|(_, id)| *id).chain(std::iter::repeat(NONE));
    places.iter().zip(links).for_each(|(place, link)| place.store(link, Ordering::Relaxed));
}

/// The number of levels of a node, 1 to `highest`: each level has one in `width` of the nodes below it.
/// Always the same for a node, so that a build gives the same levels again.
fn draw_levels(node: u64, width: usize, highest: usize) -> u8 {
    // SplitMix64 (Steele, Lea & Flood, 2014).
    let mut bits = node.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    // Within 0 and 1, both excluded.
    let uniform = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let level = -uniform.ln() / (width as f64).ln();
    1 + (level as usize).min(highest.saturating_sub(1)) as u8
}
