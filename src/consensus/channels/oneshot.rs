//! One value, sent once.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use openraft::OptionalSend;
use openraft::rt;

use super::{lock, wake};

/// The kind of channel, for openraft.
pub(crate) struct Oneshot;

impl rt::Oneshot for Oneshot {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type ReceiverError = Dropped;

    fn channel<T: OptionalSend>() -> (Sender<T>, Receiver<T>) {
        channel()
    }
}

/// The sender went without sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender was dropped")]
pub(crate) struct Dropped;

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    has_sender: bool,
    has_receiver: bool,
}

/// Makes a channel.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { value: None, waker: None, has_sender: true, has_receiver: true };
    let shared = Arc::new(Mutex::new(state));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// The end that sends.
pub(crate) struct Sender<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T: OptionalSend> rt::OneshotSender<T> for Sender<T> {
    fn send(self, t: T) -> Result<(), T> {
        let mut state = lock(&self.shared);
        if !state.has_receiver {
            return Err(t);
        }
        state.value = Some(t);
        Ok(())
        // The drop of `self` wakes the receiver.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.shared);
            state.has_sender = false;
            state.waker.take()
        };
        wake(waker);
    }
}

/// The end that receives.
pub(crate) struct Receiver<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Dropped>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.shared);
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !state.has_sender {
            return Poll::Ready(Err(Dropped));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let value = {
            let mut state = lock(&self.shared);
            state.has_receiver = false;
            state.waker = None;
            state.value.take()
        };
        drop(value);
    }
}
