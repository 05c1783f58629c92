//! The calls into trained.cpp, each made sound by checks on this side of the edge.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::raw::{c_char, c_void};
use std::ptr::{self, NonNull};

use super::error::{NativeError, NativeResult};
use super::ffi::call;

#[repr(C)]
struct RawTrained {
    _opaque: [u8; 0],
}

/// What faiss says of an index; `VoisinTrainedInfo` in trained.cpp.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawInfo {
    pub rows: i64,
    pub dimension: i32,
    pub metric: i32,
    pub is_trained: i32,
    /// What an effort is: 0 nothing, 1 lists looked into, 2 candidates kept.
    pub tuned: i32,
    pub lists: u64,
    pub takes_selector: i32,
}

type Write = extern "C" fn(*mut c_void, *const u8, usize) -> i32;
type Admits = extern "C" fn(*const c_void, i64) -> bool;

unsafe extern "C" {
    fn voisin_trained_new(
        description: *const c_char,
        dimension: i32,
        metric: i32,
        trained: *mut *mut RawTrained,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_trained_read(
        bytes: *const u8,
        size: usize,
        trained: *mut *mut RawTrained,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_trained_free(trained: *mut RawTrained);
    fn voisin_trained_info(
        trained: *const RawTrained,
        info: *mut RawInfo,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_trained_train(
        trained: *mut RawTrained,
        rows: *const f32,
        count: usize,
        threads: i32,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_trained_add(
        trained: *mut RawTrained,
        rows: *const f32,
        count: usize,
        threads: i32,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_trained_search(
        trained: *const RawTrained,
        query: *const f32,
        k: usize,
        effort: i32,
        context: *const c_void,
        admits: Option<Admits>,
        distances: *mut f32,
        ids: *mut i64,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn voisin_trained_write(
        trained: *const RawTrained,
        context: *mut c_void,
        write: Write,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
}

/// An index that faiss made and this value owns.
pub(super) struct RawTrainedIndex {
    raw: NonNull<RawTrained>,
    /// Floats of a row.
    dimension: usize,
}

// SAFETY: the index holds plain memory and no thread-local state; any thread may use or free it.
unsafe impl Send for RawTrainedIndex {}
// SAFETY: every `&self` call takes the index as const and only reads it; what a search needs beside it
// is its own. Training and adding take `&mut self`, so they never run beside a search.
unsafe impl Sync for RawTrainedIndex {}

impl Drop for RawTrainedIndex {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the shim, is freed only here, and nobody borrows it any more.
        unsafe { voisin_trained_free(self.raw.as_ptr()) }
    }
}

/// Says which ids a search may find.
pub(super) type Admit<'a> = &'a dyn Fn(u32) -> bool;

extern "C" fn admits(context: *const c_void, id: i64) -> bool {
    // SAFETY: `context` is the `Admit` that `search` passed, which outlives the call.
    let admit = unsafe { &*context.cast::<Admit<'_>>() };
    u32::try_from(id).is_ok_and(admit)
}

/// Where an index is written to, and what went wrong there.
struct Sink<'a> {
    out: &'a mut dyn io::Write,
    failure: Option<io::Error>,
}

extern "C" fn write_to_sink(context: *mut c_void, data: *const u8, size: usize) -> i32 {
    if size == 0 {
        return 0;
    }
    // SAFETY: `context` is the `Sink` that `write` passed, which nobody else uses during the call, and
    // faiss passes `size` readable bytes.
    let (sink, bytes) =
        unsafe { (&mut *context.cast::<Sink<'_>>(), std::slice::from_raw_parts(data, size)) };
    match sink.out.write_all(bytes) {
        Ok(()) => 0,
        Err(error) => {
            sink.failure = Some(error);
            1
        }
    }
}

fn owned(raw: *mut RawTrained, dimension: usize) -> NativeResult<RawTrainedIndex> {
    let raw = NonNull::new(raw)
        .ok_or(NativeError::Foreign { operation: "create", detail: "no index came back".into() })?;
    Ok(RawTrainedIndex { raw, dimension })
}

impl RawTrainedIndex {
    /// An empty index that faiss's factory makes of a description, whose numbers must have been bounded:
    /// faiss allocates by them.
    pub fn new(description: &CStr, dimension: u32, metric: i32) -> NativeResult<Self> {
        let (elements, mut raw) = (native_count(dimension as usize)?, ptr::null_mut());
        call("create", |error, size| {
            // SAFETY: `description` ends with a NUL, `raw` is valid for the call, `error` for `size`.
            unsafe {
                voisin_trained_new(description.as_ptr(), elements, metric, &mut raw, error, size)
            }
        })?;
        owned(raw, dimension as usize)
    }

    /// The index in a file that faiss wrote. Its checksum must have been verified: faiss trusts what
    /// it reads.
    pub fn read(bytes: &[u8]) -> NativeResult<Self> {
        let mut raw = ptr::null_mut();
        call("read", |error, size| {
            // SAFETY: `bytes` is valid for its length, and the shim copies what it keeps.
            unsafe { voisin_trained_read(bytes.as_ptr(), bytes.len(), &mut raw, error, size) }
        })?;
        let mut index = owned(raw, 0)?;
        index.dimension = usize::try_from(index.info()?.dimension).unwrap_or(0);
        Ok(index)
    }

    /// What faiss says of it.
    pub fn info(&self) -> NativeResult<RawInfo> {
        let mut info = RawInfo::default();
        call("describe", |error, size| {
            // SAFETY: the index and `info` are valid for the call.
            unsafe { voisin_trained_info(self.raw.as_ptr(), &mut info, error, size) }
        })?;
        Ok(info)
    }

    /// Trains with whole rows, one or more, on up to `threads` threads.
    pub fn train(&mut self, rows: &[f32], threads: usize) -> NativeResult<()> {
        let (count, threads) = (self.row_count(rows)?, native_count(threads.clamp(1, 1_024))?);
        let raw = self.raw.as_ptr();
        call("train", |error, size| {
            // SAFETY: `rows` holds `count` rows of the index's width; `&mut self` keeps searches out.
            unsafe { voisin_trained_train(raw, rows.as_ptr(), count, threads, error, size) }
        })
    }

    /// Appends whole rows, one or more, on up to `threads` threads.
    pub fn add(&mut self, rows: &[f32], threads: usize) -> NativeResult<()> {
        let (count, threads) = (self.row_count(rows)?, native_count(threads.clamp(1, 1_024))?);
        let raw = self.raw.as_ptr();
        call("add", |error, size| {
            // SAFETY: as for training.
            unsafe { voisin_trained_add(raw, rows.as_ptr(), count, threads, error, size) }
        })
    }

    /// Fills `distances` and `ids`, both of one length k >= 1, nearest first; ids of -1 fill up the
    /// end. `admit` is for indexes that take a selector.
    pub fn search(
        &self,
        query: &[f32],
        effort: usize,
        admit: Option<Admit<'_>>,
        distances: &mut [f32],
        ids: &mut [i64],
    ) -> NativeResult<()> {
        let k = ids.len();
        if self.row_count(query)? != 1 || k == 0 || distances.len() != k {
            return Err(NativeError::refused("a query of several rows, or no place for results"));
        }
        let effort = native_count(effort.clamp(1, 1 << 30))?;
        let context = admit.as_ref().map_or(ptr::null(), |admit| ptr::from_ref(admit).cast());
        call("search", |error, size| {
            // SAFETY: the query is one row; both outputs have k places; `context` points to `admit`,
            // which outlives the call, exactly when there is a function to read it.
            unsafe {
                voisin_trained_search(
                    self.raw.as_ptr(),
                    query.as_ptr(),
                    k,
                    effort,
                    context,
                    admit.map(|_| admits as Admits),
                    distances.as_mut_ptr(),
                    ids.as_mut_ptr(),
                    error,
                    size,
                )
            }
        })
    }

    /// Writes what `faiss::write_index` writes. An error of `out` is passed on within.
    pub fn write(&self, out: &mut dyn io::Write) -> NativeResult<io::Result<()>> {
        let mut sink = Sink { out, failure: None };
        let written = call("write", |error, size| {
            // SAFETY: the index is valid for the call, and `sink` is used by it alone.
            unsafe {
                let context = ptr::from_mut(&mut sink).cast();
                voisin_trained_write(self.raw.as_ptr(), context, write_to_sink, error, size)
            }
        });
        match sink.failure {
            Some(failure) => Ok(Err(failure)),
            None => written.map(Ok),
        }
    }

    fn row_count(&self, rows: &[f32]) -> NativeResult<usize> {
        if self.dimension == 0 || rows.is_empty() || !rows.len().is_multiple_of(self.dimension) {
            return Err(NativeError::refused(format!(
                "{} floats are no whole rows of {}",
                rows.len(),
                self.dimension
            )));
        }
        Ok(rows.len() / self.dimension)
    }
}

fn native_count(count: usize) -> NativeResult<i32> {
    i32::try_from(count).map_err(|_| NativeError::refused(format!("{count} is above 2^31")))
}
