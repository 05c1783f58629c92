//! The program's allocator, which can tell how much memory the forward store takes.
//!
//! sled says nothing of its own memory, and hands pages from thread to thread. What it allocates within
//! [`set_aside`] comes from an arena that nothing else allocates from; whoever frees it, the allocator's
//! statistics of that arena tell what is left.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use tikv_jemalloc_sys as jemalloc;
use tikv_jemallocator::Jemalloc;

/// jemalloc, with what is [set aside](set_aside) in an arena of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// What the allocator holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllocatorMemory {
    /// Handed out and not freed.
    pub in_use: u64,
    /// The part of it that was set aside.
    pub set_aside: u64,
    /// In memory beyond what is in use: pages not given back yet, gaps, and its own records.
    pub unused: u64,
}

/// The number that stands for all arenas together (`MALLCTL_ARENAS_ALL`).
const ALL_ARENAS: u32 = 4096;

/// The flag of the ordinary way.
const ORDINARY: c_int = 0;

/// Zeroed memory from this size on is a table of which the system gives a page only once it is used: it
/// is not counted. sled reserves some 28 MiB so, and uses next to nothing of it.
const RESERVED_BYTES: usize = 128 << 10;

thread_local! {
    /// The arena of this thread's allocations, as a flag; ordinary ones have none.
    static ARENA: Cell<c_int> = const { Cell::new(ORDINARY) };
}

/// The flags for an allocation that is set aside, or `None` for an ordinary one.
fn aside(layout: Layout) -> Option<c_int> {
    // A thread that ends has given its variables up.
    let arena = ARENA.try_with(Cell::get).unwrap_or(ORDINARY);
    // Without this thread's cache, which would mix arenas.
    (arena != ORDINARY)
        .then(|| arena | jemalloc::MALLOCX_TCACHE_NONE | jemalloc::MALLOCX_ALIGN(layout.align()))
}

// SAFETY: the ordinary way is `Jemalloc`'s own. The other calls jemalloc's extended interface, with the
// layout's size, never 0 by the trait's contract, and alignment; memory of both ways may be freed and
// grown by either, since jemalloc finds the arena of memory by its address.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match aside(layout) {
            // SAFETY: the caller's promises are those asked for.
            None => unsafe { Jemalloc.alloc(layout) },
            // SAFETY: the size is not 0, and the flags are valid.
            Some(flags) => unsafe { jemalloc::mallocx(layout.size(), flags).cast() },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match aside(layout).filter(|_| layout.size() < RESERVED_BYTES) {
            // SAFETY: the caller's promises are those asked for.
            None => unsafe { Jemalloc.alloc_zeroed(layout) },
            // SAFETY: the size is not 0, and the flags are valid.
            Some(flags) => unsafe {
                jemalloc::mallocx(layout.size(), flags | jemalloc::MALLOCX_ZERO).cast()
            },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match aside(layout) {
            // SAFETY: the caller's promises are those asked for.
            None => unsafe { Jemalloc.dealloc(memory, layout) },
            // SAFETY: the memory came from jemalloc with this size and alignment.
            Some(flags) => unsafe { jemalloc::sdallocx(memory.cast(), layout.size(), flags) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match aside(layout) {
            // SAFETY: the caller's promises are those asked for.
            None => unsafe { Jemalloc.realloc(memory, layout, size) },
            // SAFETY: the memory came from jemalloc, the size is not 0, and the flags are valid.
            Some(flags) => unsafe { jemalloc::rallocx(memory.cast(), size, flags).cast() },
        }
    }
}

/// The arena for what is set aside; none where it cannot be had.
fn arena() -> Option<u32> {
    static CREATED: OnceLock<Option<u32>> = OnceLock::new();
    *CREATED.get_or_init(|| read(c"arenas.create"))
}

/// Runs a call whose allocations are counted apart, where [`Allocator`] is the program's.
pub fn set_aside<T>(call: impl FnOnce() -> T) -> T {
    /// Ends the setting aside also when the call panics.
    struct Back(c_int);
    impl Drop for Back {
        fn drop(&mut self) {
            ARENA.set(self.0);
        }
    }
    let Some(arena) = arena() else { return call() };
    let _back = Back(ARENA.replace(jemalloc::MALLOCX_ARENA(arena as usize)));
    call()
}

/// What the allocator holds now; `None` where it does not tell.
pub fn allocator_memory() -> Option<AllocatorMemory> {
    // Statistics are those of the last time that this number was set.
    write(c"epoch", 1u64)?;
    let resident: usize = read(c"stats.resident")?;
    let handed_out: usize = read(c"stats.allocated")?;
    // Freed, but kept by threads for what they allocate next.
    let cached = of_arena(ALL_ARENAS, "tcache_bytes")?;
    let in_use = handed_out.saturating_sub(cached);
    let set_aside = arena().and_then(|arena| {
        Some(of_arena(arena, "small.allocated")? + of_arena(arena, "large.allocated")?)
    });
    Some(AllocatorMemory {
        in_use: in_use as u64,
        set_aside: set_aside.unwrap_or(0) as u64,
        unused: resident.saturating_sub(in_use) as u64,
    })
}

/// Has the allocator take back what this thread keeps for later; it does so by itself only while the thread
/// allocates.
pub fn empty_thread_cache() {
    command(c"thread.tcache.flush");
}

/// Gives the system back what is free but kept for later; the allocator does so by itself only while it
/// is used.
pub fn give_back_memory() {
    empty_thread_cache();
    let name = format!("arena.{ALL_ARENAS}.purge\0");
    if let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) {
        command(name);
    }
}

/// Uses a control that has no value.
fn command(name: &CStr) {
    // SAFETY: the name ends with a zero; nothing is read or written.
    unsafe {
        jemalloc::mallctl(
            name.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        );
    }
}

/// A statistic of an arena in bytes.
fn of_arena(arena: u32, what: &str) -> Option<usize> {
    let name = format!("stats.arenas.{arena}.{what}\0");
    read(CStr::from_bytes_with_nul(name.as_bytes()).ok()?)
}

/// Numbers that jemalloc's controls have.
trait Number: Copy + Default {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}

/// Reads a control whose value is of this type.
fn read<T: Number>(name: &CStr) -> Option<T> {
    let mut value = T::default();
    let mut size = size_of::<T>();
    // SAFETY: the name ends with a zero; jemalloc writes at most `size` bytes, which `value` has, and any
    // bytes are a number.
    let failed = unsafe {
        jemalloc::mallctl(
            name.as_ptr(),
            (&raw mut value).cast::<c_void>(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    (failed == 0 && size == size_of::<T>()).then_some(value)
}

/// Sets a control whose value is of this type.
fn write<T: Number>(name: &CStr, mut value: T) -> Option<()> {
    // SAFETY: the name ends with a zero; jemalloc reads as many bytes as `value` has.
    let failed = unsafe {
        jemalloc::mallctl(
            name.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw mut value).cast::<c_void>(),
            size_of::<T>(),
        )
    };
    (failed == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_aside_now() -> u64 {
        allocator_memory().expect("jemalloc keeps statistics").set_aside
    }

    #[test]
    fn what_is_set_aside_is_counted_until_anyone_frees_it() {
        let layout = Layout::from_size_align(1 << 20, 64).expect("a layout");
        let before = set_aside_now();
        // SAFETY: the size is not 0.
        let memory = set_aside(|| unsafe { Allocator.alloc(layout) });
        assert!(!memory.is_null() && memory.addr().is_multiple_of(64));
        assert!((1 << 20..2 << 20).contains(&(set_aside_now() - before)));
        // SAFETY: it grows what was just allocated so.
        let memory = set_aside(|| unsafe { Allocator.realloc(memory, layout, 3 << 20) });
        assert!(set_aside_now() - before >= 3 << 20);
        let at = memory.expose_provenance();
        let free = move || {
            let layout = Layout::from_size_align(3 << 20, 64).expect("a layout");
            // SAFETY: it frees what was just allocated so.
            unsafe { Allocator.dealloc(std::ptr::with_exposed_provenance_mut(at), layout) };
        };
        std::thread::spawn(free).join().expect("the thread ends");
        assert_eq!(set_aside_now(), before);

        // Neither the ordinary way nor a large table of zeros counts.
        for way in
            [|call: &dyn Fn() -> *mut u8| call(), |call: &dyn Fn() -> *mut u8| set_aside(call)]
        {
            // SAFETY: the size is not 0.
            let zeros = way(&|| unsafe { Allocator.alloc_zeroed(layout) });
            assert_eq!(set_aside_now(), before);
            // SAFETY: it frees what was just allocated so.
            unsafe { Allocator.dealloc(zeros, layout) };
        }
    }

    #[test]
    fn setting_aside_ends_with_the_call_also_by_a_panic() {
        let inner = || set_aside(|| ARENA.get());
        let arena = set_aside(|| {
            assert_eq!(inner(), ARENA.get());
            ARENA.get()
        });
        assert!(arena != ORDINARY && ARENA.get() == ORDINARY);
        std::panic::catch_unwind(|| set_aside(|| panic!("on purpose"))).expect_err("a panic");
        assert_eq!(ARENA.get(), ORDINARY);
    }
}
