//! How much memory the process takes, and how much it may take: what would grow beyond is refused
//! before it grows, rather than the process being killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// The setting.
const SETTING: &str = "limits.memory_bytes_max";
/// How long a look at the process's memory counts. What is admitted meanwhile is added.
const LOOK: Duration = Duration::from_millis(50);
/// The share of the machine's memory that may be taken where nothing is set.
const SHARE: f64 = 0.8;

/// Resident memory of a process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Not backed by files.
    pub anonymous: u64,
    /// All of it; mapped files count while they are in memory.
    pub resident: u64,
}

impl Memory {
    /// The memory of a process, or of this one, where the system tells (Linux).
    pub fn of(process: Option<u32>) -> Option<Memory> {
        let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Some(Memory { anonymous: field(&status, "RssAnon:")?, resident: field(&status, "VmRSS:")? })
    }
}

/// A line such as `RssAnon:     123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the machine, or the group that the process is confined to, has; `None` where nothing tells.
fn machine_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| field(&text, "MemTotal:"));
    // "max" where the group is not confined.
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(group).min()
}

/// The bound on anonymous memory.
#[derive(Debug)]
pub struct MemoryLimit {
    limit: u64,
    /// Held while something is let grow, so that no two get the same room.
    room: Mutex<Room>,
    /// Refusals since the start.
    refused: AtomicU64,
}

/// What of the limit is taken.
#[derive(Debug, Default)]
struct Room {
    /// When the process was looked at, and what it had.
    seen: Option<(Instant, u64)>,
    /// Admitted since.
    admitted: u64,
    /// Kept for work that is under way: its bytes, and how many of them it holds by now.
    kept: Vec<(Arc<AtomicU64>, u64)>,
}

impl Room {
    fn used(&mut self) -> u64 {
        let is_fresh = self.seen.is_some_and(|(at, _)| at.elapsed() < LOOK);
        if !is_fresh {
            let bytes = Memory::of(None).map_or(0, |memory| memory.anonymous);
            self.seen = Some((Instant::now(), bytes));
            self.admitted = 0;
        }
        let bytes = self.seen.map_or(0, |(_, bytes)| bytes);
        // What is held is in the process's memory already.
        let kept = self
            .kept
            .iter()
            .map(|(held, bytes)| bytes.saturating_sub(held.load(Ordering::Relaxed)));
        kept.fold(bytes.saturating_add(self.admitted), u64::saturating_add)
    }
}

/// Room that is kept for work until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct KeptRoom<'a> {
    of: &'a MemoryLimit,
    held: Arc<AtomicU64>,
}

impl Drop for KeptRoom<'_> {
    fn drop(&mut self) {
        let mut room = self.of.room.lock();
        if let Some(place) = room.kept.iter().position(|(held, _)| Arc::ptr_eq(held, &self.held)) {
            room.kept.swap_remove(place);
        }
    }
}

impl MemoryLimit {
    /// A limit in bytes; 0 takes 80% of the machine's memory, or of what the process is confined to,
    /// and no limit where the system does not tell.
    pub fn new(configured: u64) -> Self {
        let limit = match configured {
            0 => machine_bytes().map_or(u64::MAX, |bytes| (bytes as f64 * SHARE) as u64),
            bytes => bytes,
        };
        MemoryLimit { limit, room: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Anonymous memory of the process as last seen, what was admitted since, and what is kept.
    pub fn used(&self) -> u64 {
        self.room.lock().used()
    }

    /// How often something was not let grow.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lets something grow by so many bytes, or refuses it.
    pub fn admit(&self, what: &'static str, bytes: u64) -> Result<()> {
        let mut room = self.room.lock();
        self.check(&mut room, what, bytes)?;
        room.admitted = room.admitted.saturating_add(bytes);
        Ok(())
    }

    /// Keeps so many bytes for work that takes them little by little, or refuses it. `held` says how
    /// many it has taken by now; it belongs to this work alone.
    pub fn keep(
        &self,
        what: &'static str,
        bytes: u64,
        held: &Arc<AtomicU64>,
    ) -> Result<KeptRoom<'_>> {
        let mut room = self.room.lock();
        self.check(&mut room, what, bytes)?;
        room.kept.push((held.clone(), bytes));
        Ok(KeptRoom { of: self, held: held.clone() })
    }

    fn check(&self, room: &mut Room, what: &'static str, bytes: u64) -> Result<()> {
        let used = room.used();
        if used.saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::OutOfMemory { what, bytes, used, limit: self.limit, setting: SETTING })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_limit_is_refused_and_named() {
        let used = MemoryLimit::new(0).used();
        let memory = MemoryLimit::new(used + (64 << 20));
        memory.admit("rows", 1 << 20).expect("it fits");
        assert_eq!(memory.refused(), 0);
        let refusal = memory.admit("rows", 1 << 30).expect_err("it does not fit").to_string();
        for word in ["rows", "1073741824", SETTING, &(used + (64 << 20)).to_string()] {
            assert!(refusal.contains(word), "{refusal}");
        }
        assert_eq!(memory.refused(), 1);
    }

    #[test]
    fn room_that_is_kept_is_given_to_nobody_else_until_it_is_taken_or_given_back() {
        const MIB: u64 = 1 << 20;
        let memory = MemoryLimit::new(MemoryLimit::new(0).used() + 1_024 * MIB);
        let (first, second) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let kept = memory.keep("a merge", 600 * MIB, &first).expect("it fits");
        memory.keep("a merge", 600 * MIB, &second).expect_err("not both");
        std::thread::sleep(2 * LOOK);
        memory.admit("rows", 600 * MIB).expect_err("a later look at the process does not forget");
        // What it holds is in the memory of the process, here by word only.
        first.store(500 * MIB, Ordering::Relaxed);
        let other = memory.keep("a merge", 600 * MIB, &second).expect("it fits");
        drop((kept, other));
        first.store(0, Ordering::Relaxed);
        memory.admit("rows", 800 * MIB).expect("all of it is free");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_machine_and_the_process_are_measured() {
        let memory = Memory::of(None).expect("Linux tells");
        assert!(memory.anonymous > 0 && memory.resident >= memory.anonymous);
        assert!(machine_bytes().is_some_and(|bytes| bytes > memory.resident));
        assert_eq!(field("a: 1 kB\nRssAnon:\t  12 kB\n", "RssAnon:"), Some(12 * 1024));
        assert_eq!(field("RssAnon: many kB", "RssAnon:"), None);
    }
}
