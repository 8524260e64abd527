//! Channels between the threads of a process, as the standard library's; those of a virtual process wait
//! as its cluster does.

use super::{lock, rest, seat, wake};
use std::collections::VecDeque;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

struct Inner<T> {
    queue: VecDeque<T>,
    most: usize,
    senders: usize,
    listens: bool,
}

struct Shared<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

impl<T> Shared<T> {
    fn change(&self) {
        self.changed.notify_all();
        wake();
    }

    /// Waits until `ready`, or for so long; none after that.
    fn when(
        &self,
        ready: impl Fn(&Inner<T>) -> bool,
        patience: Option<Duration>,
    ) -> Option<MutexGuard<'_, Inner<T>>> {
        let begun = crate::host::clock::now();
        let mut inner = lock(&self.inner);
        while !ready(&inner) {
            let left =
                patience.map(|patience| patience.saturating_sub(crate::host::clock::since(begun)));
            if left == Some(Duration::ZERO) {
                return None;
            }
            inner = if seat().is_some() {
                drop(inner);
                rest(left);
                lock(&self.inner)
            } else {
                let left = left.unwrap_or(Duration::from_secs(60));
                let waited = self.changed.wait_timeout(inner, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
        Some(inner)
    }
}

/// As `std::sync::mpsc::channel`.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = sync_channel(usize::MAX);
    (Sender(sender), receiver)
}

/// As `std::sync::mpsc::sync_channel`, for one at least.
pub(crate) fn sync_channel<T>(most: usize) -> (SyncSender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        inner: Mutex::new(Inner {
            queue: VecDeque::new(),
            most,
            senders: 1,
            listens: true,
        }),
        changed: Condvar::new(),
    });
    (SyncSender(Arc::clone(&shared)), Receiver(shared))
}

/// Sends without waiting.
pub(crate) struct Sender<T>(SyncSender<T>);

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

/// Sends, and waits where there is no room.
pub(crate) struct SyncSender<T>(Arc<Shared<T>>);

impl<T> SyncSender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        let room = |inner: &Inner<T>| !inner.listens || inner.queue.len() < inner.most;
        let Some(mut inner) = self.0.when(room, None) else {
            return Err(SendError(value));
        };
        if !inner.listens {
            return Err(SendError(value));
        }
        inner.queue.push_back(value);
        drop(inner);
        self.0.change();
        Ok(())
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        lock(&self.0.inner).senders += 1;
        SyncSender(Arc::clone(&self.0))
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        lock(&self.0.inner).senders -= 1;
        self.0.change();
    }
}

/// Receives.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        self.take(None).map_err(|_| RecvError)
    }

    pub(crate) fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        self.take(Some(patience))
    }

    fn take(&self, patience: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let some = |inner: &Inner<T>| !inner.queue.is_empty() || inner.senders == 0;
        let Some(mut inner) = self.0.when(some, patience) else {
            return Err(RecvTimeoutError::Timeout);
        };
        let value = inner
            .queue
            .pop_front()
            .ok_or(RecvTimeoutError::Disconnected)?;
        drop(inner);
        self.0.change();
        Ok(value)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut inner = lock(&self.0.inner);
        inner.listens = false;
        let left = std::mem::take(&mut inner.queue);
        drop(inner);
        drop(left);
        self.0.change();
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = Values<T>;

    fn into_iter(self) -> Values<T> {
        Values(self)
    }
}

/// What a channel brings, to its end.
pub(crate) struct Values<T>(Receiver<T>);

impl<T> Iterator for Values<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}
