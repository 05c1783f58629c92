//! What the process holds in memory beside its collections.

use crate::memory::Memory;
use crate::native::{AllocatorMemory, allocator_memory, left_behind_bytes};

/// Memory of the process in bytes, and the parts of it that belong to no collection; 0 where nothing
/// tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerMemory {
    /// Not backed by files.
    pub anonymous: u64,
    /// In memory, parts of mapped files included.
    pub resident: u64,
    /// What `anonymous` may become.
    pub limit: u64,
    /// The forward store of all collections: its cache and its records.
    pub forward_store: u64,
    /// What the allocator holds beyond what is in use, more than at first.
    pub allocator: u64,
    /// What the process took before it opened a collection: its own data, threads and pools.
    pub base: u64,
    /// Trainings whose collections are gone and which cannot be ended.
    pub left_behind: u64,
}

/// What the process took before it opened a collection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    /// Without the forward store, which is counted by itself.
    bytes: u64,
    /// What of it the allocator held beyond what was in use. Some of that it only says: the system gives
    /// pages of its records once they are used.
    unused: u64,
}

fn look() -> (Memory, AllocatorMemory) {
    let nothing = Memory { anonymous: 0, resident: 0 };
    (Memory::of(None).unwrap_or(nothing), allocator_memory().unwrap_or_default())
}

impl Base {
    /// What the process takes now.
    pub fn now() -> Base {
        let (process, allocator) = look();
        let bytes = process.anonymous.saturating_sub(allocator.set_aside);
        Base { bytes, unused: allocator.unused }
    }
}

impl ServerMemory {
    /// The memory now.
    pub(super) fn now(base: Base, limit: u64) -> Self {
        let (process, allocator) = look();
        ServerMemory {
            anonymous: process.anonymous,
            resident: process.resident,
            limit,
            forward_store: allocator.set_aside,
            allocator: allocator.unused.saturating_sub(base.unused),
            base: base.bytes,
            left_behind: left_behind_bytes(),
        }
    }
}
