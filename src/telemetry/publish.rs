//! Where the control thread lays down what it measured, and the listener finds it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Page, View};

/// What was measured at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// For machines.
    pub page: Page,
    /// For people.
    pub view: View,
}

/// The latest snapshot. The lock is held while a pointer is copied; no worker and no writer ever takes it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    latest: Mutex<Option<Arc<Snapshot>>>,
    counted: Counted,
    file_error: Mutex<Option<String>>,
}

/// What the listener counts of itself.
#[derive(Debug, Default)]
pub struct Counted {
    /// Requests that were answered with what they asked for.
    pub answered: AtomicU64,
    /// Requests that were refused: for something else, or unreadable.
    pub refused: AtomicU64,
    /// Connections that were closed because there were too many, or because they took too long.
    pub cut: AtomicU64,
    /// Text files that could not be written.
    pub failed_files: AtomicU64,
}

impl Counted {
    /// One more.
    pub fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Board {
    /// Lays down a snapshot in place of the one before.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.0.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(snapshot));
    }

    /// The latest one; `None` until set-up is done.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.0.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a text file could not be written.
    pub fn failed_file(&self, why: String) {
        Counted::one(&self.0.counted.failed_files);
        *self.0.file_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why one could not be written since the last call, if so.
    pub fn file_error(&self) -> Option<String> {
        self.0.file_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the listener counted.
    pub fn counted(&self) -> &Counted {
        &self.0.counted
    }
}
