//! Telling work that nobody waits for it any more: its caller's deadline has passed, or the caller hung
//! up. Whoever does long work looks every few thousand rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Rows that are looked at between two looks at a [`Cancel`].
pub const CANCEL_ROWS: usize = 4_096;

/// Whether work is still wanted.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// True once nobody waits for the work.
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        // Relaxed: it is only a hint, and orders nothing.
        self.0.load(Ordering::Relaxed)
    }

    /// Fails once nobody waits for the work.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Cancels work when it is dropped: it belongs to whoever waits.
#[derive(Debug, Default)]
pub struct CancelOnDrop(Arc<Cancel>);

impl CancelOnDrop {
    /// What the work looks at.
    pub fn cancel(&self) -> Arc<Cancel> {
        self.0.clone()
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_cancelled_when_nobody_waits_for_it() {
        let waiting = CancelOnDrop::default();
        let cancel = waiting.cancel();
        assert!(cancel.check().is_ok());
        drop(waiting);
        assert!(matches!(cancel.check(), Err(Error::Cancelled)));
    }
}
