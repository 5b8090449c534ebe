//! The latest value of something, and who waits for it to change.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};

use openraft::rt::watch::{RecvError, SendError};
use openraft::rt::{self};
use openraft::{OptionalSend, OptionalSync};

use super::{WaitList, lock};

/// The kind of channel, for openraft.
pub(crate) struct Watch;

impl rt::Watch for Watch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let control =
            Control { version: 0, senders: 1, receivers: 1, waiting: WaitList::default() };
        let shared = Arc::new(Shared { value: RwLock::new(init), control: Mutex::new(control) });
        (Sender { shared: Arc::clone(&shared) }, Receiver { shared, seen: 0 })
    }
}

struct Shared<T> {
    value: RwLock<T>,
    control: Mutex<Control>,
}

struct Control {
    version: u64,
    senders: usize,
    receivers: usize,
    waiting: WaitList,
}

impl<T> Shared<T> {
    fn read(&self) -> Ref<'_, T> {
        Ref(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn announce(&self) {
        let waiting = {
            let mut control = lock(&self.control);
            control.version += 1;
            control.waiting.take_all()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A look at the value; it cannot change meanwhile.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// An end that changes the value.
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.shared.control).senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut control = lock(&self.shared.control);
            control.senders -= 1;
            if control.senders == 0 { control.waiting.take_all() } else { Vec::new() }
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<T: OptionalSend + OptionalSync> rt::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if lock(&self.shared.control).receivers == 0 {
            return Err(SendError(value));
        }
        let old = {
            let mut current = self.shared.value.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, value)
        };
        drop(old);
        self.shared.announce();
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = {
            let mut current = self.shared.value.write().unwrap_or_else(PoisonError::into_inner);
            modify(&mut current)
        };
        if modified {
            self.shared.announce();
        }
        modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        let seen = {
            let mut control = lock(&self.shared.control);
            control.receivers += 1;
            control.version
        };
        Receiver { shared: Arc::clone(&self.shared), seen }
    }
}

/// An end that sees the value.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        lock(&self.shared.control).receivers += 1;
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        lock(&self.shared.control).receivers -= 1;
    }
}

impl<T: OptionalSend + OptionalSync> rt::WatchReceiver<Watch, T> for Receiver<T> {
    fn changed(&mut self) -> impl Future<Output = Result<(), RecvError>> + Send {
        Changed { shared: &self.shared, seen: &mut self.seen, ticket: None }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.seen = lock(&self.shared.control).version;
        self.shared.read()
    }
}

struct Changed<'a, T> {
    shared: &'a Shared<T>,
    seen: &'a mut u64,
    ticket: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut control = lock(&this.shared.control);
        if control.version != *this.seen {
            *this.seen = control.version;
            control.waiting.leave(&mut this.ticket);
            return Poll::Ready(Ok(()));
        }
        if control.senders == 0 {
            control.waiting.leave(&mut this.ticket);
            return Poll::Ready(Err(RecvError(())));
        }
        control.waiting.wait(&mut this.ticket, cx.waker());
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            lock(&self.shared.control).waiting.leave(&mut self.ticket);
        }
    }
}
