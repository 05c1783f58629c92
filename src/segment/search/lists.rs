//! Searching an index that faiss trained.

use super::{Finding, Met};
use crate::error::Result;
use crate::index::Ranker;
use crate::native::{TrainedIndex, Tuning};
use crate::segment::index_recall::EACH;

/// Among more of the rows than this, an index without lists is asked.
const ASK_SHARE: f64 = 0.05;

/// So many bytes of allowed rows are sooner looked at.
const SOON_BYTES: u64 = 4 << 20;

impl Finding<'_> {
    /// The nodes that a trained index finds, nearest first by its own measure.
    ///
    /// Where only some rows may be found, the nearest of these are farther away: as many more lists are
    /// looked into as it takes to meet as many of them.
    pub(super) fn ask(
        &self,
        trained: &TrainedIndex,
        ranker: &impl Ranker,
        probes: usize,
    ) -> Result<Met> {
        let (index, search) = (self.index, self.search);
        let probes = probes.saturating_mul(self.boost());
        let most = match trained.tuning() {
            Tuning::Lists(lists) => lists,
            Tuning::Candidates | Tuning::Nothing => trained.len(),
        };
        let share = match search.allowed {
            None => self.live,
            Some(allowed) => {
                let share = self.allowed as f64 / trained.len().max(1) as f64;
                // Sooner looked at than looked for: as many lists more are looked into as rows are fewer.
                let is_sooner = match trained.tuning() {
                    Tuning::Lists(lists) => share * share <= probes as f64 / lists.max(1) as f64,
                    Tuning::Candidates | Tuning::Nothing => share <= ASK_SHARE,
                };
                let bytes = (self.allowed * search.vector.len()) as u64;
                if self.boost() == EACH && bytes > search.scan_bytes_max {
                    return Ok(Met::TooLong);
                }
                let is_soon = bytes <= SOON_BYTES.min(search.scan_bytes_max);
                if is_sooner || is_soon || self.boost() == EACH {
                    return Ok(Met::OfEach(self.nearest_of(allowed, ranker)));
                }
                share.min(1.0) * self.live
            }
        };
        let admits = |id: u32| {
            let row = index.row(id);
            search.allowed.is_none_or(|allowed| allowed.contains(row)) && self.is_live(row)
        };
        let is_choosy = search.allowed.is_some() || self.live < 1.0;
        let wanted = match is_choosy && !trained.takes_selector() {
            // What may not be found is found too, and left out then.
            true => (self.finalists as f64 / share * 1.5) as usize,
            false => self.finalists,
        };
        let mut effort = ((probes as f64 / share).ceil() as usize).clamp(1, most.max(1));
        let found = loop {
            let admit: Option<&dyn Fn(u32) -> bool> = if is_choosy { Some(&admits) } else { None };
            let ids = trained.search(search.vector, wanted, effort, admit)?;
            let kept = ids.into_iter().filter(|id| admits(*id)).take(self.finalists);
            let found: Vec<u32> = kept.collect();
            if found.len() >= search.k || effort >= most || trained.tuning() == Tuning::Nothing {
                break found;
            }
            // Lists may be short, or hold nothing that may be found.
            effort = effort.saturating_mul(4).min(most);
        };
        let Some(allowed) = search.allowed else { return Ok(Met::Nodes(found)) };
        let last = found.get(search.k.saturating_sub(1)).and_then(|id| self.score(*id));
        let mut is_elsewhere = index.recall().tells_far()
            && last.is_none_or(|score| index.recall().is_far(score, search.k, share));
        if !is_elsewhere {
            // What is near the query says whether what may be found is there.
            let near = self.near_wanted(share);
            let near = trained.search(search.vector, near, effort, None)?;
            let met = near.iter().filter(|id| admits(**id)).count();
            is_elsewhere = self.is_sparse((met, near.len()), share / self.live);
        }
        if found.len() >= search.k && !is_elsewhere {
            return Ok(Met::Nodes(found));
        }
        Ok(match self.can_look_at_each() {
            true => Met::OfEach(self.nearest_of(allowed, ranker)),
            false => Met::TooLong,
        })
    }
}
