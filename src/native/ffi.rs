//! The calls into shim.cpp, each made sound by checks on this side of the edge.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::os::raw::c_void;
use std::ptr::{self, NonNull};

// Brings libfaiss.a onto the linker's command line; the shim's symbols are resolved from it.
use faiss_sys as _;

use super::error::{NativeError, NativeResult};

/// Room for an exception's message, in bytes; longer ones are cut.
const MESSAGE_BYTES: usize = 512;

/// What an index is to be or must be; `VoisinSpec` in shim.cpp.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Spec {
    /// A [`super::layout::Storage`].
    pub storage: u32,
    /// A [`super::layout::FaissMetric`].
    pub metric: i32,
    /// Elements or bits; 1 and up, a multiple of 8 for bits.
    pub dimension: u32,
    /// 2 and up: faiss never returns from building the level table of 1.
    pub max_neighbor_count: u32,
    /// 1 and up: with 0 faiss reads the top of an empty queue.
    pub ef_construction: u32,
}

#[repr(C)]
struct RawGraph {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn voisin_graph_new(
        spec: *const Spec,
        graph: *mut *mut RawGraph,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_graph_read(
        spec: *const Spec,
        bytes: *const u8,
        size: usize,
        graph: *mut *mut RawGraph,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_graph_free(graph: *mut RawGraph);
    fn voisin_graph_add(
        graph: *mut RawGraph,
        rows: *const c_void,
        count: usize,
        threads: i32,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_graph_search(
        graph: *const RawGraph,
        query: *const c_void,
        k: usize,
        ef: i32,
        distances: *mut f32,
        ids: *mut i64,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_graph_written_size(
        graph: *const RawGraph,
        size: *mut u64,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_graph_write(
        graph: *const RawGraph,
        bytes: *mut u8,
        size: usize,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_build_info(
        text: *mut c_char,
        text_size: usize,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
}

/// Runs a shim call with room for its message.
pub(super) fn call(
    operation: &'static str,
    body: impl FnOnce(*mut c_char, usize) -> i32,
) -> NativeResult<()> {
    let mut message = [0u8; MESSAGE_BYTES];
    if body(message.as_mut_ptr().cast(), message.len()) == 0 {
        return Ok(());
    }
    Err(NativeError::Foreign { operation, detail: text(&message) })
}

fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes)
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned())
}

/// Rows or a query as the storage of an index takes them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// For every storage but bits; `dimension` floats a row.
    Floats(&'a [f32]),
    /// For bits; `dimension / 8` bytes a row.
    Bits(&'a [u8]),
}

/// An index that faiss made and this value owns.
pub(super) struct RawIndex {
    raw: NonNull<RawGraph>,
    /// Elements of one row in [`Rows`]: floats, or bytes of bits.
    row_elements: usize,
    is_bits: bool,
    len: usize,
}

// SAFETY: the index holds plain memory and no thread-local state; any thread may use or free it.
unsafe impl Send for RawIndex {}
// SAFETY: every `&self` call of the shim takes the index as const and reads it only; the scratch
// space of a search is its own. Adding takes `&mut self`, so it never runs beside a search.
unsafe impl Sync for RawIndex {}

impl Drop for RawIndex {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the shim, is freed only here, and nobody borrows it any more.
        unsafe { voisin_graph_free(self.raw.as_ptr()) }
    }
}

impl RawIndex {
    /// An empty index. The ranges that [`Spec`] states must hold.
    pub fn new(spec: &Spec) -> NativeResult<RawIndex> {
        let mut raw = ptr::null_mut();
        call("create", |error, size| {
            // SAFETY: `spec` and `raw` are valid for the call, `error` for `size` bytes.
            unsafe { voisin_graph_new(spec, &mut raw, error, size) }
        })?;
        RawIndex::owned(raw, spec, 0)
    }

    /// An index of `len` rows from bytes that passed [`super::format::check`] for this `spec`.
    pub fn read(bytes: &[u8], spec: &Spec, len: usize) -> NativeResult<RawIndex> {
        let mut raw = ptr::null_mut();
        call("read", |error, size| {
            // SAFETY: `bytes` is valid for its length and the shim copies what it keeps. Every
            // size and link in it was checked, which is what faiss takes for granted later on.
            unsafe { voisin_graph_read(spec, bytes.as_ptr(), bytes.len(), &mut raw, error, size) }
        })?;
        RawIndex::owned(raw, spec, len)
    }

    fn owned(raw: *mut RawGraph, spec: &Spec, len: usize) -> NativeResult<RawIndex> {
        let raw = NonNull::new(raw).ok_or(NativeError::Foreign {
            operation: "create",
            detail: "no index came back".into(),
        })?;
        let is_bits = spec.storage == super::layout::Storage::Bits as u32;
        let row_elements =
            if is_bits { spec.dimension as usize / 8 } else { spec.dimension as usize };
        Ok(RawIndex { raw, row_elements, is_bits, len })
    }

    /// Rows in the index.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends whole rows, one or more, on up to `threads` threads (0 counts as 1). After an error
    /// the index holds an unknown part of them and must be dropped.
    pub fn add(&mut self, rows: Rows<'_>, threads: usize) -> NativeResult<()> {
        let (data, elements) = self.elements(rows)?;
        if elements == 0 || !elements.is_multiple_of(self.row_elements) {
            return Err(NativeError::refused(format!(
                "{elements} elements are no whole rows of {}",
                self.row_elements
            )));
        }
        let count = elements / self.row_elements;
        let threads = threads.clamp(1, 1024) as i32;
        call("add", |error, size| {
            // SAFETY: `data` holds `count` rows of the kind and width of this index, aligned as
            // their slice was; `&mut self` keeps searches out.
            unsafe { voisin_graph_add(self.raw.as_ptr(), data, count, threads, error, size) }
        })?;
        self.len += count;
        Ok(())
    }

    /// Fills `distances` and `ids`, both of length k >= 1, nearest first; ids of -1 fill up the end.
    pub fn search(
        &self,
        query: Rows<'_>,
        ef: usize,
        distances: &mut [f32],
        ids: &mut [i64],
    ) -> NativeResult<()> {
        let (data, elements) = self.elements(query)?;
        let k = distances.len();
        if elements != self.row_elements || k == 0 || ids.len() != k {
            return Err(NativeError::refused(format!(
                "a query of {elements} elements for {}, k = {k}, {} ids",
                self.row_elements,
                ids.len()
            )));
        }
        let ef = i32::try_from(ef.max(k))
            .map_err(|_| NativeError::refused(format!("ef {ef} or k {k} is above 2^31")))?;
        call("search", |error, size| {
            // SAFETY: the query is one row of this index's kind; both outputs have k places.
            unsafe {
                voisin_graph_search(
                    self.raw.as_ptr(),
                    data,
                    k,
                    ef,
                    distances.as_mut_ptr(),
                    ids.as_mut_ptr(),
                    error,
                    size,
                )
            }
        })
    }

    /// The bytes that `faiss::write_index` or `write_index_binary` writes to a file.
    pub fn to_bytes(&self) -> NativeResult<Vec<u8>> {
        let mut written = 0u64;
        call("measure", |error, size| {
            // SAFETY: the index and `written` are valid for the call.
            unsafe { voisin_graph_written_size(self.raw.as_ptr(), &mut written, error, size) }
        })?;
        let too_large = || NativeError::Foreign {
            operation: "write",
            detail: format!("no memory for {written} bytes"),
        };
        let length = usize::try_from(written).map_err(|_| too_large())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| too_large())?;
        bytes.resize(length, 0);
        call("write", |error, size| {
            // SAFETY: `bytes` is valid for its length, and the shim writes no further.
            unsafe {
                voisin_graph_write(self.raw.as_ptr(), bytes.as_mut_ptr(), length, error, size)
            }
        })?;
        Ok(bytes)
    }

    /// The pointer and number of elements of rows, if they are of the kind that the index stores.
    fn elements(&self, rows: Rows<'_>) -> NativeResult<(*const c_void, usize)> {
        match (rows, self.is_bits) {
            (Rows::Floats(floats), false) => Ok((floats.as_ptr().cast(), floats.len())),
            (Rows::Bits(bytes), true) => Ok((bytes.as_ptr().cast(), bytes.len())),
            _ => Err(NativeError::refused("floats for an index of bits, or the reverse")),
        }
    }
}

/// Four lines: faiss's version, libfaiss's compile options, the shim's instruction set, OpenBLAS.
pub(super) fn build_info() -> NativeResult<String> {
    let mut lines = [0u8; 1024];
    call("describe", |error, size| {
        // SAFETY: `lines` is valid for its length; the shim ends the text within it.
        unsafe { voisin_build_info(lines.as_mut_ptr().cast(), lines.len(), error, size) }
    })?;
    Ok(text(&lines))
}
