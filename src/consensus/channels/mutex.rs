//! A lock that may be held across an await, granted in the order of asking.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Mutex as Lock;
use std::task::{Context, Poll};

use openraft::OptionalSend;
use openraft::rt;

use super::{WaitList, lock, wake};

struct State<T> {
    /// Taken out while the lock is held.
    value: Option<Box<T>>,
    waiting: WaitList,
}

/// The lock.
pub(crate) struct Mutex<T> {
    state: Lock<State<T>>,
}

impl<T: OptionalSend + 'static> rt::Mutex<T> for Mutex<T> {
    type Guard<'a> = Guard<'a, T>;

    fn new(value: T) -> Self {
        let state = State { value: Some(Box::new(value)), waiting: WaitList::default() };
        Self { state: Lock::new(state) }
    }

    fn lock(&self) -> impl Future<Output = Guard<'_, T>> + OptionalSend {
        Acquire { mutex: self, ticket: None }
    }
}

struct Acquire<'a, T> {
    mutex: &'a Mutex<T>,
    ticket: Option<u64>,
}

impl<'a, T> Future for Acquire<'a, T> {
    type Output = Guard<'a, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mutex = this.mutex;
        let mut state = lock(&mutex.state);
        if state.waiting.is_first(this.ticket)
            && let Some(value) = state.value.take()
        {
            state.waiting.leave(&mut this.ticket);
            return Poll::Ready(Guard { value: Some(value), mutex });
        }
        state.waiting.wait(&mut this.ticket, cx.waker());
        Poll::Pending
    }
}

impl<T> Drop for Acquire<'_, T> {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        let next = {
            let mut state = lock(&self.mutex.state);
            state.waiting.leave(&mut self.ticket);
            if state.value.is_some() { state.waiting.first() } else { None }
        };
        wake(next);
    }
}

/// Holds the lock, and the value with it.
pub(crate) struct Guard<'a, T> {
    value: Option<Box<T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("the value is here until the drop")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("the value is here until the drop")
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let next = {
            let mut state = lock(&self.mutex.state);
            state.value = self.value.take();
            state.waiting.first()
        };
        wake(next);
    }
}
