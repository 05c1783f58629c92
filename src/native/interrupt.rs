//! Native work that can be ended, or left behind: it runs on a thread of its own and owns what it works
//! with. When it should end, faiss is told; what does not listen (training a local search quantizer takes
//! minutes and never asks) goes on by itself, and what comes of it is thrown away.

#![allow(unsafe_code)]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::error::{NativeError, NativeResult};

/// Time between two looks whether the work should end.
const LOOK: Duration = Duration::from_millis(10);
/// What listens has ended after this time.
const ENDING: Duration = Duration::from_millis(100);

/// Threads that run such work, left behind or not.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Bytes that work left behind holds.
static LEFT_BYTES: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn voisin_interrupt_watch(next: *const bool) -> *const bool;
}

/// Has the native calls of this thread end by a flag.
struct Watch<'a> {
    before: *const bool,
    _flag: &'a AtomicBool,
}

impl<'a> Watch<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        // SAFETY: the flag is read atomically, and outlives this value, whose end takes it away again.
        let before = unsafe { voisin_interrupt_watch(flag.as_ptr()) };
        Watch { before, _flag: flag }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // SAFETY: this is what was set before, and whoever set it still holds it.
        unsafe { voisin_interrupt_watch(self.before) };
    }
}

/// Counts a thread until it is dropped.
struct Running;

impl Running {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts bytes of work left behind until it is dropped.
struct LeftBytes(u64);

impl LeftBytes {
    fn new(bytes: u64) -> Self {
        LEFT_BYTES.fetch_add(bytes, Ordering::Relaxed);
        LeftBytes(bytes)
    }
}

impl Drop for LeftBytes {
    fn drop(&mut self) {
        LEFT_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Bytes that work left behind holds, roughly.
pub fn left_behind_bytes() -> u64 {
    LEFT_BYTES.load(Ordering::Relaxed)
}

/// Runs work that calls into faiss on a thread of its own, with the caller's priority, and gives what came
/// of it; `None` soon after `stop` is set. Work that has not ended by then is left behind: `bytes` is about
/// what it holds.
pub fn run_apart<T: Send + 'static>(
    stop: &AtomicBool,
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> NativeResult<Option<T>> {
    let flag = Arc::new(AtomicBool::new(false));
    let left: Arc<Mutex<Option<LeftBytes>>> = Arc::default();
    let (sender, receiver) = sync_channel(1);
    let run = {
        let (flag, left, running) = (flag.clone(), left.clone(), Running::new());
        move || {
            let made = {
                let _watch = Watch::new(&flag);
                work()
            };
            // Nobody may wait for it any more.
            drop(sender.send(made));
            drop((left, running));
        }
    };
    let failed = |detail: String| NativeError::Foreign { operation: "run apart", detail };
    let started = std::thread::Builder::new().name("train".into()).spawn(run);
    started.map_err(|error| failed(error.to_string()))?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(made) => return Ok(Some(made)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(failed("it ended without an answer".into()));
            }
            Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Relaxed) => {}
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    flag.store(true, Ordering::Relaxed);
    if let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(ENDING) {
        // Whichever of the two ends last stops counting.
        *left.lock() = Some(LeftBytes::new(bytes));
    }
    Ok(None)
}

/// Ends the process with a code. Where work left behind still runs, it ends without the rites of the C
/// library, which would take away what that work uses.
pub fn end_process(code: u8) -> ! {
    unsafe extern "C" {
        fn _exit(code: i32) -> !;
    }
    if RUNNING.load(Ordering::SeqCst) == 0 {
        std::process::exit(i32::from(code));
    }
    // What is not written now, nobody reads.
    let _ = std::io::stdout().flush();
    // SAFETY: ending the process is safe at any moment.
    unsafe { _exit(i32::from(code)) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn what_does_not_listen_is_left_behind_and_counted_until_it_ends() {
        let (gate, opened) = channel::<()>();
        let stop = AtomicBool::new(true);
        let held = 12_345_678;
        let made = run_apart(&stop, held, move || {
            let _ = opened.recv();
        });
        assert!(matches!(made, Ok(None)));
        assert!(left_behind_bytes() >= held && RUNNING.load(Ordering::SeqCst) > 0);
        drop(gate);
        let began = Instant::now();
        while left_behind_bytes() >= held {
            assert!(began.elapsed() < PATIENCE, "it is counted for ever");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_ends_by_itself_answers() {
        let stop = AtomicBool::new(false);
        assert_eq!(run_apart(&stop, 0, || 7).expect("it runs"), Some(7));
        run_apart::<()>(&stop, 0, || panic!("on purpose")).expect_err("no answer");
    }
}
