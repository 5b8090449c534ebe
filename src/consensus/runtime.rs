//! The host: an async runtime that is none. A ready queue, a heap of timers, a clock that is only
//! set, and a seeded generator.
//!
//! openraft asks its runtime for tasks, time and chance through static functions. [`Host::enter`]
//! puts a host in a thread-local for the length of a call, and they find it there. Nothing runs
//! outside of [`Host::run`], and what runs depends only on the seed, the times that were set and
//! the tasks that were woken, in that order.
//!
//! **Invariants**
//! - Tasks are polled in the order in which they were woken; timers fire in the order of
//!   (deadline, creation).
//! - The clock is ahead of the last time set by a microsecond at most: openraft sleeps for a
//!   nanosecond to yield, and that must not need another turn of the driver.
//! - The generator is SplitMix64 and every draw is counted in [`Host::draws`].

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::rt;

use super::channels::{self, lock, oneshot};
use crate::time::Mono;

/// The waker id of the future given to `block_on`, which is no task.
const MAIN: u64 = 0;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// An engine's runtime. Clones are the same host.
#[derive(Clone)]
pub(crate) struct Host {
    shared: Arc<Shared>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Shared {
    state: Mutex<State>,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

struct State {
    now: Instant,
    limit: Instant,
    tasks: BTreeMap<u64, (Option<Task>, Arc<TaskWaker>)>,
    next_task: u64,
    timers: BTreeMap<(Instant, u64), Waker>,
    next_timer: u64,
    seed: u64,
    draws: u64,
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push_back(self.id);
        }
    }
}

impl Host {
    /// A host at the start of its clock.
    pub(crate) fn with_seed(seed: u64) -> Self {
        let state = State {
            now: Instant(0),
            limit: Instant(0),
            tasks: BTreeMap::new(),
            next_task: MAIN + 1,
            timers: BTreeMap::new(),
            next_timer: 0,
            seed,
            draws: 0,
        };
        let ready = Arc::new(Mutex::new(VecDeque::new()));
        Self { shared: Arc::new(Shared { state: Mutex::new(state), ready }) }
    }

    /// Makes this the host of the thread until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered {
        let outer = CURRENT.with(|current| current.replace(Some(Arc::clone(&self.shared))));
        Entered { outer }
    }

    /// Sets the clock. It never goes back.
    pub(crate) fn set_now(&self, now: Mono) {
        let mut state = lock(&self.shared.state);
        let now = Instant::from(now);
        state.now = state.now.max(now);
        state.limit = state.limit.max(now + Duration::from_micros(1));
    }

    /// Adds a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(Box::pin(task));
    }

    /// Polls until nothing is ready, or `polls` polls were made. The host must be entered.
    pub(crate) fn run(&self, polls: u32) -> Ran {
        for _ in 0..polls {
            if !self.shared.poll_next() && !self.shared.fire_within_limit() {
                return Ran::Idle;
            }
        }
        Ran::OverBudget
    }

    /// The earliest deadline that anything waits for.
    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        let state = lock(&self.shared.state);
        state.timers.keys().next().map(|(deadline, _)| deadline.round_up())
    }

    /// Drops every task. The host must be entered.
    pub(crate) fn clear(&self) {
        // A task that is dropped may wake or even spawn others.
        loop {
            let tasks = std::mem::take(&mut lock(&self.shared.state).tasks);
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        lock(&self.shared.ready).clear();
    }

    /// Draws a number.
    pub(crate) fn draw(&self) -> u64 {
        self.shared.next_u64()
    }

    /// A hash over every random number drawn so far.
    pub(crate) fn draws(&self) -> u64 {
        lock(&self.shared.state).draws
    }
}

/// Why [`Host::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Nothing is ready.
    Idle,
    /// Something may still be ready.
    OverBudget,
}

/// Restores what was the thread's host before.
pub(crate) struct Entered {
    outer: Option<Arc<Shared>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        let inner = CURRENT.with(|current| current.replace(outer));
        drop(inner);
    }
}

fn current() -> Arc<Shared> {
    CURRENT.with(|current| current.borrow().clone()).expect("openraft is only run by its host")
}

impl Shared {
    fn spawn(&self, task: Task) {
        let waker = {
            let mut state = lock(&self.state);
            let id = state.next_task;
            state.next_task += 1;
            let waker =
                TaskWaker { id, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) };
            let waker = Arc::new(waker);
            state.tasks.insert(id, (Some(task), Arc::clone(&waker)));
            waker
        };
        waker.wake();
    }

    /// Polls the task that was woken first; says whether there was one.
    fn poll_next(&self) -> bool {
        let Some(id) = lock(&self.ready).pop_front() else {
            return false;
        };
        let (mut task, waker) = {
            let mut state = lock(&self.state);
            let Some((task, waker)) = state.tasks.get_mut(&id) else {
                return true;
            };
            waker.queued.store(false, Ordering::Relaxed);
            let Some(task) = task.take() else {
                return true;
            };
            (task, Arc::clone(waker))
        };
        let waker = Waker::from(waker);
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if done {
            lock(&self.state).tasks.remove(&id);
            drop(task);
        } else if let Some((slot, _)) = lock(&self.state).tasks.get_mut(&id) {
            *slot = Some(task);
        }
        true
    }

    /// Fires the next timer that is due now, or within the microsecond that the clock may inch on.
    fn fire_within_limit(&self) -> bool {
        let waker = {
            let mut state = lock(&self.state);
            let limit = state.limit;
            let Some(first) = state.timers.first_entry() else {
                return false;
            };
            let deadline = first.key().0;
            if deadline > limit {
                return false;
            }
            let waker = first.remove();
            state.now = state.now.max(deadline);
            waker
        };
        waker.wake();
        true
    }

    fn next_u64(&self) -> u64 {
        let mut state = lock(&self.state);
        state.seed = state.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        state.draws = (state.draws ^ z).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        z
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

/// A point on the host's clock, in nanoseconds. Its text is the number: openraft's own display of
/// an instant reads the system's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

impl Instant {
    /// The last microsecond not after it.
    pub(crate) fn round_down(self) -> Mono {
        Mono::from_micros(self.0 / 1_000)
    }

    fn round_up(self) -> Mono {
        Mono::from_micros(self.0.div_ceil(1_000))
    }
}

impl From<Mono> for Instant {
    fn from(mono: Mono) -> Self {
        Self(mono.as_micros().saturating_mul(1_000))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl rt::Instant for Instant {
    fn now() -> Self {
        lock(&current().state).now
    }
}

/// Waits for a point in time.
pub(crate) struct Sleep {
    deadline: Instant,
    timer: Option<(Arc<Shared>, u64)>,
}

impl Sleep {
    fn until(deadline: Instant) -> Self {
        Self { deadline, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = current();
        let mut state = lock(&shared.state);
        if state.now >= self.deadline {
            drop(state);
            self.cancel();
            return Poll::Ready(());
        }
        let id = match &self.timer {
            Some((_, id)) => *id,
            None => {
                state.next_timer += 1;
                state.next_timer
            }
        };
        state.timers.insert((self.deadline, id), cx.waker().clone());
        drop(state);
        self.timer = Some((shared, id));
        Poll::Pending
    }
}

impl Sleep {
    fn cancel(&mut self) {
        if let Some((shared, id)) = self.timer.take() {
            let waker = lock(&shared.state).timers.remove(&(self.deadline, id));
            drop(waker);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A future with a limit of time.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match pin!(&mut self.sleep).poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The limit of time was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub(crate) struct Elapsed;

/// The result of a task, when it has ended. The task goes on if this is dropped.
pub(crate) struct JoinHandle<T> {
    result: oneshot::Receiver<T>,
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, oneshot::Dropped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx)
    }
}

/// Draws from the generator of the host that is entered.
#[derive(Debug)]
pub(crate) struct HostRng;

impl rand::TryRng for HostRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [a, b, c, d, ..] = current().next_u64().to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(current().next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            let bytes = current().next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

impl rt::AsyncRuntime for Host {
    type JoinError = oneshot::Dropped;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = HostRng;
    type Mpsc = channels::mpsc::Mpsc;
    type Watch = channels::watch::Watch;
    type Oneshot = oneshot::Oneshot;
    type Mutex<T: OptionalSend + 'static> = channels::mutex::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (tx, result) = oneshot::channel();
        let task = async move {
            let output = future.await;
            // Nobody may wait for it any more.
            drop(rt::OneshotSender::send(tx, output));
        };
        current().spawn(Box::pin(task));
        JoinHandle { result }
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(<Instant as rt::Instant>::now() + duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Instant,
        future: F,
    ) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Sleep::until(deadline) }
    }

    /// A task that panics unwinds out of [`Host::run`]; so no join ever sees it.
    fn is_panic(_join_error: &oneshot::Dropped) -> bool {
        false
    }

    fn thread_rng() -> HostRng {
        HostRng
    }

    fn new(_threads: usize) -> Self {
        Self::with_seed(1)
    }

    /// Runs `future` to its end, moving the clock on whenever nothing else is left to do.
    ///
    /// # Panics
    /// If the future waits for something that never comes.
    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        let entered = self.enter();
        let main = TaskWaker {
            id: MAIN,
            queued: AtomicBool::new(true),
            ready: Arc::clone(&self.shared.ready),
        };
        let main = Arc::new(main);
        let waker = Waker::from(Arc::clone(&main));
        let mut future = pin!(future);
        let output = loop {
            if main.queued.swap(false, Ordering::Relaxed)
                && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                break output;
            }
            if main.queued.load(Ordering::Relaxed) || self.shared.poll_next() {
                continue;
            }
            let next = lock(&self.shared.state).timers.keys().next().map(|(deadline, _)| *deadline);
            let next = next.expect("a future that is blocked on waits for something that comes");
            self.set_now(next.round_up());
            self.shared.fire_within_limit();
        };
        drop(entered);
        output
    }

    /// Runs `f` at once: a host has one thread.
    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        std::future::ready(Ok(f()))
    }
}
