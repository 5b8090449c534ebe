//! A queue between two tasks of one simulation: [`Mailbox`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Things for one task that takes them out.
pub(crate) struct Mailbox<T> {
    queue: RefCell<VecDeque<T>>,
    waker: Cell<Option<Waker>>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { queue: RefCell::default(), waker: Cell::default() }
    }
}

impl<T> Mailbox<T> {
    /// Puts something in and wakes who waits for it.
    pub(crate) fn push(&self, item: T) {
        self.queue.borrow_mut().push_back(item);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Takes the oldest out, if there is one.
    pub(crate) fn try_pop(&self) -> Option<T> {
        self.queue.borrow_mut().pop_front()
    }

    /// Waits for the oldest and takes it out.
    pub(crate) async fn pop(&self) -> T {
        poll_fn(|cx| match self.try_pop() {
            Some(item) => Poll::Ready(item),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}
