//! One connection to a peer, from the preface to its end.

use std::future::pending;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::queue::{SendQueue, Stage};
use super::{NetEvent, NetLimits};
use crate::codec::frame::{FrameReader, Lane, preface, write_keep_alive};
use crate::id::SessionId;

/// How many bytes go into one write where that many wait.
const BATCH_LEN: usize = 64 * 1024;

/// How much room is made for each read. Every idle session holds that much.
const READ_LEN: usize = 16 * 1024;

/// A write buffer that a long frame made larger than this is given back.
const BATCH_KEPT_MAX: usize = 4 * BATCH_LEN;

/// How long a session that is closed may take to write what waits and to see the peer's end.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the handle and the task of a session share.
#[derive(Debug)]
pub(super) struct Session {
    queue: Mutex<SendQueue>,
    /// A frame waits, or the stage has changed: for the writer.
    changed: Notify,
    /// The stage is no longer open: for a writer that is held up by the other side.
    ended: Notify,
}

impl Session {
    pub(super) fn new(limits: &NetLimits) -> Self {
        let queue = Mutex::new(SendQueue::new(limits.queue_len_max));
        Self { queue, changed: Notify::new(), ended: Notify::new() }
    }

    pub(super) fn send(&self, lane: Lane, payload: Bytes) {
        self.change(|queue| queue.push(lane, payload));
    }

    pub(super) fn close(&self) {
        self.change(SendQueue::close);
    }

    fn change(&self, change: impl FnOnce(&mut SendQueue)) {
        let mut queue = self.queue();
        change(&mut queue);
        let open = *queue.stage() == Stage::Open;
        drop(queue);
        self.changed.notify_one();
        if !open {
            self.ended.notify_one();
        }
    }

    /// Waits until the session has ended: failed, or closed for [`CLOSE_TIMEOUT`].
    async fn ended(&self) {
        self.ended.notified().await;
        if *self.queue().stage() == Stage::Closing {
            sleep(CLOSE_TIMEOUT).await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, SendQueue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

/// A connection whose other side is known to speak our protocol.
pub(super) struct Greeted {
    stream: TcpStream,
    reader: FrameReader,
}

/// Exchanges prefaces.
///
/// # Errors
/// If the other side ends, or speaks something else.
pub(super) async fn greet(mut stream: TcpStream) -> Result<Greeted, String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.write_all(&preface()).await.map_err(|error| error.to_string())?;
    let mut reader = FrameReader::new();
    while !reader.read_preface().map_err(|error| error.to_string())? {
        match stream.read_buf(reader.buffer()).await {
            Ok(0) => return Err("closed by the other side before it said what it is".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Greeted { stream, reader })
}

/// Moves frames both ways until the session ends, and says why it did.
pub(super) async fn serve(
    id: SessionId,
    session: &Session,
    greeted: Greeted,
    events: &mpsc::Sender<NetEvent>,
    limits: &NetLimits,
) -> String {
    let Greeted { mut stream, reader } = greeted;
    let (read_half, write_half) = stream.split();
    let reason = tokio::select! {
        reason = read_frames(id, read_half, reader, events, limits) => reason,
        reason = write_frames(session, write_half, limits) => reason,
        () = session.ended() => String::new(),
    };
    match session.queue().stage() {
        Stage::Open => reason,
        Stage::Closing => "closed by this side".to_owned(),
        Stage::Failed(reason) => reason.clone(),
    }
}

async fn read_frames(
    id: SessionId,
    mut stream: impl AsyncRead + Unpin,
    mut reader: FrameReader,
    events: &mpsc::Sender<NetEvent>,
    limits: &NetLimits,
) -> String {
    loop {
        loop {
            let bytes = match reader.next_frame() {
                Ok(Some((_, bytes))) => bytes,
                Ok(None) => break,
                Err(error) => return error.to_string(),
            };
            if events.send(NetEvent::Frame { session: id, bytes }).await.is_err() {
                return "nobody listens any more".to_owned();
            }
        }
        reader.buffer().reserve(READ_LEN);
        match timeout(limits.silence_max, stream.read_buf(reader.buffer())).await {
            Ok(Ok(0)) => return "closed by the other side".to_owned(),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("silent for {:?}", limits.silence_max),
        }
    }
}

async fn write_frames(
    session: &Session,
    mut stream: impl AsyncWrite + Unpin,
    limits: &NetLimits,
) -> String {
    let mut batch = BytesMut::new();
    loop {
        if batch.capacity() > BATCH_KEPT_MAX {
            batch = BytesMut::new();
        }
        let stage = {
            let mut queue = session.queue();
            queue.take(&mut batch, BATCH_LEN);
            queue.stage().clone()
        };
        match stage {
            Stage::Failed(reason) => return reason,
            Stage::Closing if batch.is_empty() => break,
            Stage::Open if batch.is_empty() => {
                if timeout(limits.keep_alive, session.changed.notified()).await.is_ok() {
                    continue;
                }
                write_keep_alive(&mut batch);
            }
            Stage::Open | Stage::Closing => {}
        }
        if let Err(reason) = write_all(&mut stream, &mut batch, limits).await {
            return reason;
        }
    }
    // The other side reads all of it before it sees the end; an abrupt close could destroy the last
    // frames on their way. The end of the other side is seen by the reader.
    if let Err(error) = stream.shutdown().await {
        return error.to_string();
    }
    pending().await
}

/// Writes the batch, as long as the other side takes some of it now and then.
async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    batch: &mut BytesMut,
    limits: &NetLimits,
) -> Result<(), String> {
    while batch.has_remaining() {
        match timeout(limits.silence_max, stream.write_buf(batch)).await {
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).to_string()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("nothing could be sent for {:?}", limits.silence_max)),
        }
    }
    Ok(())
}
