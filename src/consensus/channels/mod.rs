//! The channels that openraft runs on, with wake-ups in the order of waiting.
//!
//! Stock channels wake their waiters in an order of their own choice (tokio's `watch` draws it at
//! random), and then one seed would not give one run. These are plain queues behind a lock that is
//! never contended, since a host has one thread.
//!
//! **Invariants**
//! - Who waited first is woken first.
//! - Nothing is dropped and nobody is woken while a channel's lock is held, so a value may hold
//!   ends of its own channel.

pub(crate) mod mpsc;
pub(crate) mod mutex;
pub(crate) mod oneshot;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Locks, also after a panic elsewhere: a host whose task panicked is only dropped from then on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tasks that wait, first come first.
#[derive(Default)]
struct WaitList {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl WaitList {
    /// Puts `waker` in the list, at the place that `ticket` already has or at the end.
    fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        let place = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        match self.waiting.get_mut(&place) {
            Some(known) => known.clone_from(waker),
            None => {
                self.waiting.insert(place, waker.clone());
            }
        }
    }

    fn leave(&mut self, ticket: &mut Option<u64>) {
        if let Some(place) = ticket.take() {
            self.waiting.remove(&place);
        }
    }

    /// Whether `ticket` is the first in line, or would be if it asked now.
    fn is_first(&self, ticket: Option<u64>) -> bool {
        match (self.waiting.keys().next(), ticket) {
            (None, _) => true,
            (Some(first), Some(place)) => *first >= place,
            (Some(_), None) => false,
        }
    }

    fn first(&self) -> Option<Waker> {
        self.waiting.values().next().cloned()
    }

    fn take_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
