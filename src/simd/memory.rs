//! What the CPU and the system are told about memory that is about to be read at random.

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;
/// Below this, small pages serve.
const LARGE_BYTES: usize = 4 << 20;

/// Asks the CPU to fetch the cache line of a value.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults nowhere, and SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks the CPU for the beginning of a vector; it goes on by itself from there.
#[inline]
pub fn prefetch_bytes(vector: &[u8]) {
    vector.chunks(LINE_BYTES).take(8).for_each(|line| prefetch(&line[0]));
}

/// An empty vector with room for `capacity` elements, in large pages where the system has them: a
/// walk through a graph reads at random, and in small pages most of its reads would first have to look
/// up where the page is. The room must be written in order to be worth it.
pub fn large_vec<T>(capacity: usize) -> Vec<T> {
    let memory = Vec::with_capacity(capacity);
    #[cfg(target_os = "linux")]
    if capacity.saturating_mul(size_of::<T>()) >= LARGE_BYTES {
        want_large_pages(&memory);
    }
    memory
}

#[cfg(target_os = "linux")]
fn want_large_pages<T>(memory: &Vec<T>) {
    let page = rustix::param::page_size();
    let start = memory.as_ptr().addr().next_multiple_of(page);
    let end = memory.as_ptr().addr() + memory.capacity() * size_of::<T>();
    let bytes = end.saturating_sub(start) / page * page;
    let address = memory.as_ptr().cast::<std::ffi::c_void>().with_addr(start).cast_mut();
    // SAFETY: the pages lie within the vector's own allocation, and the advice changes nothing of what
    // they hold. Whether it is taken changes only speed.
    let _ = unsafe { rustix::mm::madvise(address, bytes, rustix::mm::Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_vector_is_a_vector() {
        for capacity in [0, 3, LARGE_BYTES / 4 + 1] {
            let mut memory = large_vec::<u32>(capacity);
            memory.extend(0..capacity as u32);
            assert!(memory.iter().copied().eq(0..capacity as u32));
        }
    }
}
