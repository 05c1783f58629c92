//! What the policy merges in plain cases, and what long mixes of writes come to under it.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::ledger::{Account, WrittenReport};
use super::*;

fn policy() -> Policy {
    Policy {
        index_rows_min: Some(10_000),
        deleted_share_max: 0.2,
        rows_max: u64::MAX,
        segments_max: 16,
        is_still: false,
        removal_before: 0,
        index_bytes: INDEX_BYTES,
        budget: Budget::UNBOUNDED,
    }
}

/// As 128 numbers of 32 bits with their keys, in a rows file and in a graph.
const ROW_BYTES: u64 = 520;
const INDEX_BYTES: u64 = 664;

fn segment(id: u32, rows: u64, has_index: bool) -> SegmentFacts {
    let rows_bytes = rows * ROW_BYTES;
    SegmentFacts { id, rows, vectors: rows, deleted: 0, has_index, rows_bytes }
}

#[test]
fn waiting_rows_extend_a_graph_not_much_larger_than_they_are() {
    let segments = [segment(0, 40_000, true), segment(1, 9_999, false)];
    assert_eq!(policy().next_merge(&segments), None);
    let segments = [segment(0, 40_000, true), segment(1, 6_000, false), segment(2, 6_000, false)];
    let job = policy().next_merge(&segments).unwrap();
    assert_eq!((job.sources, job.extend_first), (vec![0, 1, 2], true));
    let segments = [segment(0, 400_000, true), segment(1, 12_000, false)];
    let job = policy().next_merge(&segments).unwrap();
    assert_eq!((job.sources, job.extend_first), (vec![1], false));
}

#[test]
fn rows_of_many_vectors_are_as_large_as_these() {
    let many =
        |id, rows, has_index| SegmentFacts { vectors: 100 * rows, ..segment(id, rows, has_index) };
    assert_eq!(policy().next_merge(&[many(0, 99, false)]), None);
    let job = policy().next_merge(&[many(0, 99, false), many(1, 1, false)]).unwrap();
    assert_eq!((job.sources, job.extend_first), (vec![0, 1], false));
    let full = many(0, 21_000_000, true);
    let job = policy().next_merge(&[full, many(1, 2_000_000, false)]).unwrap();
    assert_eq!(job.sources, [1], "no graph has 2.3 billion vectors");
}

#[test]
fn deleted_rows_are_reclaimed() {
    let full = SegmentFacts { deleted: 21, ..segment(3, 100, false) };
    let still = Policy { is_still: true, ..policy() };
    let job = still.next_merge(&[segment(0, 100, false), full]).unwrap();
    assert_eq!(job.sources, [3]);
    assert_eq!(policy().next_merge(&[full]), None, "more of it may follow soon");
    let half = SegmentFacts { deleted: 51, ..full };
    assert_eq!(policy().next_merge(&[half]).unwrap().sources, [3]);
    let few = SegmentFacts { deleted: 20, ..segment(3, 100, false) };
    assert_eq!(still.next_merge(&[few]), None);
}

#[test]
fn when_it_is_quiet_every_deleted_row_is_reclaimed_that_can_be_paid_for() {
    let one = SegmentFacts { deleted: 1, ..segment(3, 100_000, true) };
    let two = SegmentFacts { deleted: 2, ..segment(4, 5_000, false) };
    let removal = 100_000 * (ROW_BYTES + INDEX_BYTES);
    let budget = Budget { joins: 0, removal, is_first_order: false };
    let quiet = Policy { is_still: true, removal_before: 5, budget, ..policy() };
    assert_eq!(quiet.next_merge(&[one, two]).unwrap().sources, [4]);
    let job = quiet.next_merge(&[one]).unwrap();
    assert_eq!((job.sources, job.extend_first), (vec![3], false));
    let budget = Budget { removal: removal / 2, ..budget };
    assert_eq!(Policy { budget, ..quiet }.next_merge(&[one]), None);
    assert_eq!(Policy { removal_before: 3, ..quiet }.next_merge(&[one]), None);
}

#[test]
fn a_large_graph_is_not_written_again_for_rows_that_did_not_pay_for_it() {
    let segments = [segment(0, 60_000, true), segment(1, 600, false), segment(2, 600, false)];
    let all = 61_200 * (ROW_BYTES + INDEX_BYTES);
    let budget = Budget { joins: all - 1, removal: 0, is_first_order: false };
    let still = Policy { is_still: true, budget, ..policy() };
    assert_eq!(still.next_merge(&segments), None);
    let paid = Policy { budget: Budget { joins: all, ..budget }, ..still };
    let job = paid.next_merge(&segments).unwrap();
    assert_eq!((job.sources, job.is_first_order), (vec![0, 1, 2], false));
    let first = Policy { budget: Budget { is_first_order: true, ..budget }, ..still };
    let job = first.next_merge(&segments).unwrap();
    assert_eq!((job.sources, job.is_first_order), (vec![0, 1, 2], true));
    let few = Policy { budget: Budget { joins: 0, ..budget }, ..policy() };
    let many = [segment(0, 60_000, true), segment(1, 10_000, false)];
    assert_eq!(few.next_merge(&many), None);
    let many = [segment(0, 60_000, true), segment(1, 30_000, false)];
    assert_eq!(few.next_merge(&many).unwrap().sources, [1], "a graph of their own");
}

#[test]
fn segments_as_large_as_the_collection_allows_stay_as_they_are() {
    let policy = Policy { rows_max: 100, index_rows_min: None, ..policy() };
    let segments: Vec<_> = (0..10).map(|id| segment(id, 100, false)).collect();
    assert_eq!(policy.next_merge(&segments), None);
    let segments: Vec<_> = (0..17).map(|id| segment(id, 100, false)).collect();
    assert_eq!(policy.next_merge(&segments).unwrap().sources.len(), 8);
}

fn apply(segments: &[SegmentFacts], job: &MergeJob, id: u32) -> Vec<SegmentFacts> {
    let is_source = |s: &&SegmentFacts| job.sources.contains(&s.id);
    let sources: Vec<_> = segments.iter().filter(is_source).collect();
    let extended: u64 = sources
        .iter()
        .filter(|s| job.extend_first && s.id == job.sources[0])
        .map(|s| s.deleted)
        .sum();
    let live = sources.iter().map(|s| s.live()).fold(Size::default(), Size::add);
    let mut left: Vec<_> = segments.iter().filter(|s| !is_source(s)).copied().collect();
    let rows = live.rows + extended;
    let vectors = live.vectors.max(live.rows) * rows / live.rows.max(1);
    let has_index = matches!(job.indexes, IndexRule::FromRows(min) if vectors >= min.max(2));
    if rows > 0 {
        let rows_bytes = rows * ROW_BYTES;
        left.push(SegmentFacts { id, rows, vectors, deleted: extended, has_index, rows_bytes });
    }
    left
}

proptest! {
    /// Merging comes to an end, with few segments and no unbounded wait for a graph.
    #[test]
    fn merges_come_to_rest(
        sizes in proptest::collection::vec((1u64..200_000, 0u64..100, any::<bool>()), 0..40),
        rows_max in prop_oneof![Just(u64::MAX), 1u64..300_000],
        graphs in any::<bool>(),
        is_still in any::<bool>(),
        is_quiet in any::<bool>(),
        joins in prop_oneof![Just(0u64), Just(u64::MAX), 0u64..1 << 30],
        removal in prop_oneof![Just(0u64), Just(u64::MAX), 0u64..1 << 30],
        is_first_order in any::<bool>(),
        vectors_of_row in prop_oneof![Just(1u64), 1u64..400],
    ) {
        let policy = Policy {
            rows_max,
            is_still,
            removal_before: if is_still && is_quiet { u32::MAX } else { 0 },
            budget: Budget { joins, removal, is_first_order },
            index_rows_min: graphs.then_some(10_000),
            ..policy()
        };
        let mut segments: Vec<_> = sizes
            .into_iter()
            .enumerate()
            .map(|(id, (rows, deleted, has_index))| SegmentFacts {
                id: id as u32,
                rows,
                vectors: rows * vectors_of_row,
                deleted: rows * deleted / 100,
                has_index: has_index && graphs && rows * vectors_of_row >= 10_000,
                rows_bytes: rows * ROW_BYTES,
            })
            .collect();
        let live_rows = |segments: &[SegmentFacts]| -> u64 {
            segments.iter().map(|segment| segment.live().rows).sum()
        };
        let live = live_rows(&segments);
        let mut steps = 0;
        while let Some(job) = policy.next_merge(&segments) {
            prop_assert!(job.sources.iter().all(|id| segments.iter().any(|s| s.id == *id)));
            segments = apply(&segments, &job, 1_000 + steps);
            steps += 1;
            prop_assert!(steps < 500, "no end: {job:?} over {segments:?}");
        }
        prop_assert_eq!(live, live_rows(&segments));
        prop_assert!(segments.len() <= 16 + usize::from(segments.len() > 16));
        let is_paid = policy.removal_before > 0 && removal == u64::MAX;
        prop_assert!(!is_paid || segments.iter().all(|segment| segment.deleted == 0));
    }
}

/// What a caller does every so many seconds, for an hour.
#[derive(Debug, Clone, Copy)]
struct Mix {
    /// Rows that there are at first.
    loaded: u64,
    /// Bytes of a vector.
    vector_bytes: u64,
    /// Seconds from one burst to the next.
    pause: u64,
    /// Rows of a burst that are new.
    inserts: u64,
    /// Rows of a burst that are written anew.
    updates: u64,
    /// Rows of a burst that are deleted.
    deletes: u64,
    /// Minutes of work that quiet ones of the same number follow; 0 for none.
    minutes: u64,
}

/// An hour of a collection, second by second: rows in numbers only.
#[derive(Debug)]
struct Hour {
    mix: Mix,
    account: Account,
    report: WrittenReport,
    segments: Vec<SegmentFacts>,
    growing: u64,
    growing_deleted: u64,
    next_id: u32,
    /// Seconds since the last write.
    unwritten: u64,
    /// Seconds that the merge under way takes still.
    busy: u64,
    busy_max: u64,
    waiting_max: u64,
    graphs_max: usize,
    segments_max: usize,
    random: StdRng,
}

/// Bytes that merges write in a second.
const SPEED: u64 = 12 << 20;

impl Hour {
    fn row_bytes(&self) -> u64 {
        self.mix.vector_bytes + 8
    }

    fn index_bytes(&self) -> u64 {
        self.mix.vector_bytes + 152
    }

    fn live(&self) -> u64 {
        let sealed: u64 = self.segments.iter().map(|s| s.rows - s.deleted).sum();
        sealed + self.growing - self.growing_deleted
    }

    /// Each live row is as likely as any other to be deleted.
    fn delete(&mut self, rows: u64) {
        for _ in 0..rows.min(self.live()) {
            let mut place = self.random.random_range(0..self.live());
            let found = self.segments.iter_mut().find(|s| {
                let live = s.rows - s.deleted;
                let is_there = place < live;
                place = place.saturating_sub(live);
                is_there
            });
            match found {
                Some(segment) => segment.deleted += 1,
                None => self.growing_deleted += 1,
            }
        }
    }

    fn insert(&mut self, rows: u64) {
        self.growing += rows;
        let logged = rows * (self.mix.vector_bytes + 22);
        self.report.asked += logged;
        self.report.written += logged + 28;
        while self.growing >= 32_768 {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let rows = self.growing - self.growing_deleted;
        (self.growing, self.growing_deleted) = (0, 0);
        self.report.written += 2_000 + rows * self.row_bytes();
        if rows > 0 {
            let sealed =
                SegmentFacts { rows_bytes: rows * self.row_bytes(), ..segment(0, rows, false) };
            self.next_id += 1;
            self.segments.push(SegmentFacts { id: self.next_id, ..sealed });
        }
    }

    fn policy(&self) -> Policy {
        let unwritten = Duration::from_secs(self.unwritten);
        Policy {
            is_still: self.unwritten > 2,
            removal_before: if self.unwritten > 30 { u32::MAX } else { 0 },
            index_bytes: self.index_bytes(),
            budget: self.account.budget(self.live(), unwritten),
            segments_max: 256,
            ..policy()
        }
    }

    fn merge(&mut self) {
        self.account.see(self.report, Duration::ZERO);
        let Some(job) = self.policy().next_merge(&self.segments) else { return };
        if job.is_first_order {
            self.account.in_order(self.live());
        }
        self.next_id += 1;
        self.segments = apply(&self.segments, &job, self.next_id);
        let row_bytes = self.row_bytes();
        let mut bytes = 2_000;
        if let Some(made) = self.segments.iter_mut().find(|s| s.id == self.next_id) {
            made.rows_bytes = made.rows * row_bytes;
            bytes += made.rows_bytes;
            bytes += if made.has_index { made.rows * (self.mix.vector_bytes + 152) } else { 0 };
        }
        self.report.written += bytes;
        self.busy = bytes / SPEED;
        self.busy_max = self.busy_max.max(self.busy);
        if job.is_removal {
            self.account.removed(bytes);
        }
    }

    fn second(&mut self, second: u64) {
        let Mix { pause, inserts, updates, deletes, minutes, .. } = self.mix;
        self.unwritten += 1;
        let is_at_work = minutes == 0 || (second / 60 / minutes).is_multiple_of(2);
        if second.is_multiple_of(pause) && is_at_work {
            self.unwritten = 0;
            self.delete(deletes + updates);
            self.report.asked += deletes * 18;
            self.report.written += deletes * 18;
            self.insert(inserts + updates);
        }
        let is_due = self.unwritten > 2 && self.growing >= 512;
        if is_due || (self.unwritten > 30 && self.growing_deleted > 0) {
            self.seal();
        }
        self.busy = self.busy.saturating_sub(1);
        let mut merges = 0;
        while self.busy == 0 && merges < 20 {
            let before = self.report.written;
            self.merge();
            merges += 1;
            if self.report.written == before {
                break;
            }
        }
        self.account.see(self.report, Duration::from_secs(1));
        let ordered = Policy { removal_before: 0, budget: Budget::UNBOUNDED, ..self.policy() };
        if self.unwritten > 2 && ordered.next_merge(&self.segments).is_none() {
            self.account.in_order(self.live());
        }
        let flat = self.segments.iter().filter(|s| !s.has_index);
        let waiting = flat.map(|s| s.rows - s.deleted).sum();
        self.waiting_max = self.waiting_max.max(waiting);
        let graphs = self.segments.iter().filter(|s| s.has_index).count();
        self.graphs_max = self.graphs_max.max(graphs);
        self.segments_max = self.segments_max.max(self.segments.len());
    }

    fn pass(mix: Mix, seed: u64) -> Hour {
        let loaded = mix.loaded;
        let mut hour = Hour {
            mix,
            account: Account::new(loaded),
            report: WrittenReport::default(),
            segments: vec![segment(0, loaded, loaded >= 10_000)],
            growing: 0,
            growing_deleted: 0,
            next_id: 0,
            unwritten: 0,
            busy: 0,
            busy_max: 0,
            waiting_max: 0,
            graphs_max: 0,
            segments_max: 0,
            random: StdRng::seed_from_u64(seed),
        };
        hour.segments[0].rows_bytes = loaded * hour.row_bytes();
        hour.segments.retain(|s| s.rows > 0);
        (0..3_600).for_each(|second| hour.second(second));
        hour
    }
}

fn mixes() -> impl Strategy<Value = Mix> {
    let rows = || prop_oneof![Just(0u64), 0u64..40, 0u64..1_000];
    (
        prop_oneof![Just(0u64), 0u64..20_000, 20_000u64..2_000_000],
        prop_oneof![Just(512u64), 128u64..4_096],
        prop_oneof![1u64..10, 1u64..90],
        (rows(), rows(), rows()),
        prop_oneof![Just(0u64), Just(0u64), 1u64..6],
    )
        .prop_map(|(loaded, vector_bytes, pause, (inserts, updates, deletes), minutes)| Mix {
            // What is deleted by the key alone costs what was paid for when it came.
            deletes: deletes.min(inserts + updates),
            loaded,
            vector_bytes,
            pause,
            inserts,
            updates,
            minutes,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: RngSeed::Fixed(15),
        ..ProptestConfig::default()
    })]
    #[test]
    fn an_hour_of_any_mix_is_written_less_than_12_times(mix in mixes(), seed in any::<u64>()) {
        let hour = Hour::pass(mix, seed);
        let WrittenReport { asked, written } = hour.report;
        // What is spare counts where little was written.
        prop_assert!(written <= 12 * asked + (112 << 20), "{asked} became {written}");
        // As many more as came during long merges that follow each other.
        let came = 3 * hour.busy_max * (mix.inserts + mix.updates) / mix.pause;
        let graphs = GRAPHS_BOUND as u64 + 2 + came / 10_000;
        prop_assert!(hour.graphs_max as u64 <= graphs, "{} graphs", hour.graphs_max);
        prop_assert!(hour.waiting_max <= 30_000 + 2 * 32_768 + came, "{hour:?}");
        let more = (came / 512) as usize;
        prop_assert!(hour.segments_max <= 40 + more, "{} segments", hour.segments_max);
    }
}
