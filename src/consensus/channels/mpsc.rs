//! A bounded queue from many senders to one receiver.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use openraft::OptionalSend;
use openraft::rt::{self, SendError, TryRecvError};

use super::{WaitList, lock, wake};

/// The kind of channel, for openraft.
pub(crate) struct Mpsc;

impl rt::Mpsc for Mpsc {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        channel(buffer)
    }
}

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    open: bool,
    receiver: Option<Waker>,
    blocked: WaitList,
}

impl<T> State<T> {
    fn has_room(&self) -> bool {
        self.queue.len() < self.capacity
    }

    /// The next sender that can go on now.
    fn unblocked(&self) -> Option<Waker> {
        if self.has_room() { self.blocked.first() } else { None }
    }
}

/// Makes a channel for at most `capacity` values.
pub(crate) fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        queue: VecDeque::new(),
        capacity: capacity.max(1),
        senders: 1,
        open: true,
        receiver: None,
        blocked: WaitList::default(),
    };
    let shared = Arc::new(Mutex::new(state));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// An end that sends.
pub(crate) struct Sender<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T> Sender<T> {
    /// Sends without waiting; gives the value back if the queue is full or closed.
    pub(crate) fn try_send(&self, value: T) -> Result<(), T> {
        let receiver = {
            let mut state = lock(&self.shared);
            if !state.open || !state.has_room() {
                return Err(value);
            }
            state.queue.push_back(value);
            state.receiver.take()
        };
        wake(receiver);
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.shared).senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let receiver = {
            let mut state = lock(&self.shared);
            state.senders -= 1;
            if state.senders == 0 { state.receiver.take() } else { None }
        };
        wake(receiver);
    }
}

impl<T: OptionalSend> rt::MpscSender<Mpsc, T> for Sender<T> {
    fn send(&self, msg: T) -> impl Future<Output = Result<(), SendError<T>>> + OptionalSend {
        Send { shared: &self.shared, value: Some(msg), ticket: None }
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender { shared: Arc::clone(&self.shared) }
    }
}

/// An end that does not keep the channel open.
pub(crate) struct WeakSender<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: OptionalSend> rt::MpscWeakSender<Mpsc, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        {
            let mut state = lock(&self.shared);
            if state.senders == 0 {
                return None;
            }
            state.senders += 1;
        }
        Some(Sender { shared: Arc::clone(&self.shared) })
    }
}

/// A send that waits for room.
struct Send<'a, T> {
    shared: &'a Mutex<State<T>>,
    value: Option<T>,
    ticket: Option<u64>,
}

// Nothing in it is pinned: the value is moved out when there is room.
impl<T> Unpin for Send<'_, T> {}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (receiver, next) = {
            let mut state = lock(this.shared);
            if !state.open {
                state.blocked.leave(&mut this.ticket);
                let value = this.value.take().expect("a finished send is not polled again");
                return Poll::Ready(Err(SendError(value)));
            }
            if !state.has_room() || !state.blocked.is_first(this.ticket) {
                state.blocked.wait(&mut this.ticket, cx.waker());
                return Poll::Pending;
            }
            state.blocked.leave(&mut this.ticket);
            let value = this.value.take().expect("a finished send is not polled again");
            state.queue.push_back(value);
            (state.receiver.take(), state.unblocked())
        };
        wake(receiver);
        wake(next);
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Send<'_, T> {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        let next = {
            let mut state = lock(self.shared);
            state.blocked.leave(&mut self.ticket);
            state.unblocked()
        };
        wake(next);
    }
}

/// The end that receives.
pub(crate) struct Receiver<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T> Receiver<T> {
    fn poll_recv(&self, waker: &Waker) -> Poll<Option<T>> {
        let (value, next) = {
            let mut state = lock(&self.shared);
            match state.queue.pop_front() {
                Some(value) => (value, state.unblocked()),
                None if state.senders == 0 => return Poll::Ready(None),
                None => {
                    state.receiver = Some(waker.clone());
                    return Poll::Pending;
                }
            }
        };
        wake(next);
        Poll::Ready(Some(value))
    }
}

impl<T: OptionalSend> rt::MpscReceiver<T> for Receiver<T> {
    fn recv(&mut self) -> impl Future<Output = Option<T>> + OptionalSend {
        std::future::poll_fn(|cx| self.poll_recv(cx.waker()))
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let (value, next) = {
            let mut state = lock(&self.shared);
            match state.queue.pop_front() {
                Some(value) => (value, state.unblocked()),
                None if state.senders == 0 => return Err(TryRecvError::Disconnected),
                None => return Err(TryRecvError::Empty),
            }
        };
        wake(next);
        Ok(value)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (queue, blocked) = {
            let mut state = lock(&self.shared);
            state.open = false;
            (std::mem::take(&mut state.queue), state.blocked.take_all())
        };
        drop(queue);
        blocked.into_iter().for_each(Waker::wake);
    }
}
