//! Building an HNSW graph (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor
//! search using Hierarchical Navigable Small World graphs", 2016) on several threads.
//!
//! Each node draws how many levels it is on, looks for its nearest nodes on each of them, chooses
//! those to link to by the paper's heuristic, and is linked to by them in turn; a list that is full
//! is chosen anew.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use rayon::ThreadPool;

use super::graph::{LINE_LINKS, Level, NONE, Ranker, SCRATCH, Scratch, walk};
use super::recall::{Probe, RecallSample};
use super::space::{Around, Space, Vectors};
use crate::native::{HnswLinks, levels_max};
use crate::schema::RecallCurve;
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

/// How densely nodes are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildParams {
    /// Links per node above level 0, twice that on level 0 (the paper's M). 2 to 256.
    pub max_neighbor_count: u32,
    /// Candidates kept while a node's neighbours are looked for. 1 and up.
    pub ef_construction: u32,
}

/// Numbers of candidates that are measured.
pub const GRAPH_LADDER: [u32; 12] = [12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

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
    /// Links of a node above level 0.
    width: usize,
    ef: usize,
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
    fn each_link(&self, node: u32, meet: impl FnMut(u32)) {
        let places = self.builder.places(node, self.level).iter();
        places.map(|p| p.load(Ordering::Relaxed)).take_while(|link| *link != NONE).for_each(meet);
    }

    #[inline(always)]
    fn prefetch_links(&self, node: u32) {
        let places = self.builder.places(node, self.level);
        places.chunks(LINE_LINKS).for_each(|line| prefetch(&line[0]));
    }
}

/// A level as if a node were not on it.
struct Without<L> {
    level: L,
    hidden: u32,
}

impl<L: Level> Level for Without<L> {
    fn bound(&self) -> usize {
        self.level.bound()
    }

    fn each_link(&self, node: u32, mut meet: impl FnMut(u32)) {
        self.level.each_link(node, |link| {
            if link != self.hidden {
                meet(link);
            }
        });
    }

    fn prefetch_links(&self, node: u32) {
        self.level.prefetch_links(node);
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
    /// not yet.
    pub fn new(space: &'a S, params: BuildParams, base: Option<&HnswLinks<'_>>) -> Self {
        let width = params.max_neighbor_count.max(2) as usize;
        let known = base.map_or(&[][..], |base| base.levels());
        let highest = levels_max(params.max_neighbor_count.max(2));
        let mut levels = known.to_vec();
        levels.extend(
            (known.len()..space.count()).map(|node| draw_levels(node as u64, width, highest)),
        );
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
            width,
            ef,
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
        builder
    }

    /// Bytes of memory that the graph takes while it grows.
    pub fn memory_bytes(&self) -> usize {
        let links = self.links.capacity() + self.upper_links.capacity();
        links * size_of::<AtomicU32>()
            + self.upper_starts.capacity() * size_of::<u32>()
            + self.locks.capacity() * size_of::<Mutex<()>>()
            + self.levels.capacity()
    }

    /// Links in the nodes, each once. False when it was stopped.
    pub fn link(&self, nodes: &[u32], run: &BuildRun<'_>) -> bool {
        let Some((first, _)) = nodes.split_first() else { return true };
        let mut nodes = nodes;
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
        !run.stop.load(Ordering::Relaxed)
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

    /// Measures what searches of the finished graph will find.
    pub fn measure<V: Vectors>(&self, sample: &RecallSample<'_, V>) -> RecallCurve {
        let find = |probe: &Probe<'_, V>| -> Vec<u32> {
            SCRATCH.with_borrow_mut(|scratch| {
                let ef = probe.effort as usize;
                let found = self.search_without(probe.node, &probe.ranker, ef, scratch);
                found.take(probe.count).collect()
            })
        };
        match sample.refine_k(REFINE_EFFORT, find) {
            Some(refine_k) => sample.curve(&GRAPH_LADDER, refine_k, find),
            None => RecallCurve::default(),
        }
    }

    /// The `ef` nodes nearest to the query that `ranker` holds, as a search of the finished graph would
    /// find them were `hidden` not in it, nearest first.
    fn search_without(
        &self,
        hidden: u32,
        ranker: &impl Ranker,
        ef: usize,
        scratch: &mut Scratch,
    ) -> impl Iterator<Item = u32> {
        if let Some(entry) = self.entry() {
            let reached = self.descend(ranker, entry, 0, &mut Vec::new(), &mut Vec::new());
            // Whoever comes down at the node itself goes on from where it is.
            let entries = [reached, (f32::INFINITY, entry)];
            let entries = entries.into_iter().filter(|(_, id)| *id != hidden).take(1);
            let level = GrowingLevel { builder: self, level: 0 };
            walk(&Without { level, hidden }, ranker, ef, entries, scratch);
        } else {
            scratch.beam.begin(ef);
        }
        scratch.beam.nearest().map(|(_, id)| id)
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
            self.choose(&candidates, self.width, worker, &mut chosen);
            worker.candidates = candidates;
            worker.by_level[level] = chosen;
        }
        // From the lowest level up: whoever finds the node on a level finds it linked below.
        for level in 0..=shared {
            let chosen = std::mem::take(&mut worker.by_level[level]);
            {
                let _lock = self.locks[node as usize].lock();
                self.store(node, level, &chosen);
            }
            for (rank, neighbour) in &chosen {
                self.link_back(*neighbour, level, (*rank, node), worker);
            }
            worker.by_level[level] = chosen;
        }
        if rise.is_some() && top > top_of(self.entry()) {
            *self.entry.write() = Some(node);
        }
    }

    /// Links from a node to a new one.
    fn link_back(&self, node: u32, level: usize, new: (f32, u32), worker: &mut Worker<S>) {
        let places = self.places(node, level);
        let _lock = self.locks[node as usize].lock();
        let free = places.iter().find(|place| place.load(Ordering::Relaxed) == NONE);
        if let Some(free) = free {
            free.store(new.1, Ordering::Relaxed);
            return;
        }
        let Worker { center, ids, ranks, candidates, .. } = &mut *worker;
        ids.clear();
        ids.extend(places.iter().map(|place| place.load(Ordering::Relaxed)));
        ids.iter().for_each(|id| self.space.prefetch(*id));
        self.space.set(center, node);
        self.space.rank(center, ids, ranks);
        candidates.clear();
        candidates.extend(ranks.iter().copied().zip(ids.iter().copied()));
        candidates.push(new);
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let candidates = std::mem::take(candidates);
        let mut chosen = std::mem::take(&mut worker.chosen);
        self.choose(&candidates, places.len(), worker, &mut chosen);
        self.store(node, level, &chosen);
        (worker.candidates, worker.chosen) = (candidates, chosen);
    }

    fn store(&self, node: u32, level: usize, chosen: &[(f32, u32)]) {
        let links = chosen.iter().map(|(_, id)| *id).chain(std::iter::repeat(NONE));
        let places = self.places(node, level).iter();
        places.zip(links).for_each(|(place, link)| place.store(link, Ordering::Relaxed));
    }

    /// Chooses at most `most` of the candidates, which are in order of their rank to a node: each
    /// that is nearer to the node than to any chosen before it (the paper's algorithm 4). As near to
    /// both counts as nearer for a quarter of the list: so copies of a row are linked to each other,
    /// and to the rest as well.
    fn choose(
        &self,
        candidates: &[(f32, u32)],
        most: usize,
        worker: &mut Worker<S>,
        chosen: &mut Vec<(f32, u32)>,
    ) {
        chosen.clear();
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
                self.space.set(chosen_center, by);
                self.space.rank(chosen_center, ids, ranks);
                let mut kept = from;
                for at in from..count {
                    let rank = ranks[at - from];
                    if rank * SLACK >= left[at].rank {
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
    }
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
