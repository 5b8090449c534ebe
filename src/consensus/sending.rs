//! A snapshot on its way to a follower.
//!
//! The follower's first acknowledgement says how much of the file it has: nothing, or what an
//! interrupted transfer left there. From there on chunks are read from the file and sent, one read
//! at a time, with a bounded number of bytes without an acknowledgement; the follower acknowledges
//! what it has written, so a slow disk there makes the reading wait here.
//!
//! The file stays readable until the transfer ends, even if a newer snapshot has taken its place:
//! else a follower whose transfer takes longer than the leader needs for the next snapshot would
//! never be done.
//!
//! **Invariants**
//! - No more than [`CHUNK_WINDOW`] chunks are in memory or on the wire.
//! - Without any word of the follower for a while the transfer fails; openraft begins it anew.

use bytes::Bytes;
use openraft::errors::{StreamingError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use openraft::raft::SnapshotResponse;
use openraft::rt::{AsyncRuntime, MpscReceiver as _};

use super::channels::mpsc;
use super::message::{Message, RpcId};
use super::network::{Net, no_session};
use super::runtime::Host;
use super::snapshots::SnapshotTask;
use super::types::{Snapshot, TypeConfig, Vote};
use crate::codec::snapshot::SnapshotFile;
use crate::id::NodeId;

/// How many bytes of a snapshot go into one message.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
/// How many chunks of a snapshot may be without an acknowledgement.
pub(crate) const CHUNK_WINDOW: u64 = 4;
/// How many words of the follower may wait. Past it they are dropped: a follower sends one for each
/// chunk and one now and then while it installs.
const PROGRESS_MAX: usize = 64;

type C = TypeConfig;

/// What a transfer hears.
pub(crate) enum Progress {
    /// The follower has written so much.
    Received(u64),
    /// A chunk was read here; `None` if the file is gone.
    Read(Option<Bytes>),
    /// The follower's vote once the snapshot is installed; `None` if it was not usable.
    Done(Option<Vote>),
}

/// A snapshot on its way to a follower. See the module.
pub(crate) struct Sending {
    net: Net,
    session: u64,
    peer: NodeId,
    rpc: RpcId,
    file: SnapshotFile,
    /// How much was sent, once the follower has said where to begin.
    sent: Option<u64>,
    received: u64,
    reading: Reading,
    progress: mpsc::Receiver<Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Idle,
    UnderWay,
}

impl Sending {
    /// Announces `snapshot` to `peer`.
    pub(crate) fn begin(
        net: &Net,
        peer: NodeId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<Self, Unreachable<C>> {
        let Snapshot { meta, snapshot: file } = snapshot;
        let (tx, progress) = mpsc::channel(PROGRESS_MAX);
        let SnapshotFile { len, crc, index: _ } = file;
        let make = |rpc| Message::SnapshotBegin { rpc, vote, meta, len, crc };
        let (session, rpc) = net.begin_transfer(peer, file, tx, make)?;
        let net = net.clone();
        let (sent, received, reading) = (None, 0, Reading::Idle);
        Ok(Self { net, session, peer, rpc, file, sent, received, reading, progress })
    }

    /// Sends all of it; returns when the follower has installed it.
    pub(crate) async fn run(mut self) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        loop {
            self.read_ahead();
            let limit = self.net.limits().snapshot;
            let progress = match Host::timeout(limit, self.progress.recv()).await {
                Ok(Some(progress)) => progress,
                Ok(None) => return Err(no_session().into()),
                Err(_) => {
                    let action = RPCTypes::InstallSnapshot;
                    let (id, target) = (self.net.me(), self.peer);
                    return Err(Timeout { action, id, target, timeout: limit }.into());
                }
            };
            match progress {
                Progress::Received(upto) => self.on_received(upto),
                Progress::Read(Some(data)) => self.on_read(data),
                // openraft waits a little after this error, and then sends the snapshot that is
                // the newest by then.
                Progress::Read(None) => {
                    self.net.suspect(self.file);
                    let reason = "the snapshot's file cannot be read";
                    return Err(Unreachable::from_string(reason).into());
                }
                Progress::Done(Some(vote)) => return Ok(SnapshotResponse::new(vote)),
                Progress::Done(None) => {
                    self.net.suspect(self.file);
                    let reason = "the follower could not use the snapshot";
                    return Err(Unreachable::from_string(reason).into());
                }
            }
        }
    }

    /// Has the next chunk read, if the window has room for it.
    fn read_ahead(&mut self) {
        let Some(sent) = self.sent else { return };
        let has_room = sent.saturating_sub(self.received) < CHUNK_WINDOW * CHUNK_BYTES as u64;
        if self.reading == Reading::UnderWay || sent >= self.file.len || !has_room {
            return;
        }
        self.reading = Reading::UnderWay;
        let task = SnapshotTask::Read { file: self.file, offset: sent, len: CHUNK_BYTES };
        self.net.read_for((self.peer, self.rpc), task);
    }

    fn on_received(&mut self, upto: u64) {
        match self.sent {
            None => {
                let begin = upto.min(self.file.len);
                (self.sent, self.received) = (Some(begin), begin);
            }
            Some(sent) => self.received = upto.clamp(self.received, sent),
        }
    }

    fn on_read(&mut self, data: Bytes) {
        self.reading = Reading::Idle;
        let offset = self.sent.expect("nothing is read before it is known where to begin");
        self.sent = Some(offset + data.len() as u64);
        let message = Message::SnapshotChunk { rpc: self.rpc, offset, data };
        self.net.send_in(self.session, self.peer, message);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.net.end_transfer((self.peer, self.rpc), self.file);
    }
}
