//! Foreign code: faiss behind a small C++ shim, memory-mapped files, and the allocator.
//!
//! This is the only module with FFI and, beside `simd`, the only one with `unsafe`. Inside it, `ffi`,
//! `trained_ffi`, `interrupt`, `mmap` and `allocator` hold all of that; the other files are checks that make those
//! calls sound. What is searched and why (segments, re-scoring, falling back to a scan) is decided above.
//! docs/decisions/0001-faiss-binding.md says why the shim exists.

mod allocator;
mod build_info;
mod error;
mod ffi;
mod format;
mod graph;
mod interrupt;
mod layout;
mod mmap;
mod trained;
mod trained_ffi;
mod write;

#[cfg(test)]
mod tests;

pub use allocator::{
    Allocator, AllocatorMemory, allocator_memory, empty_thread_cache, give_back_memory, set_aside,
};
pub use build_info::{BuildInfo, build_info};
pub use error::{NativeError, NativeResult};
pub use format::{HnswLinks, LinkList};
pub use graph::{Graph, GraphParams, ROWS_MAX, read_links};
pub use interrupt::{end_process, left_behind_bytes, run_apart};
pub use mmap::map_file;
pub use trained::{TrainedIndex, TrainedSpace, Tuning};
pub use write::{GraphFile, levels_max};
