//! The engine: Raft behind inputs and effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError,
    RaftError,
};
use openraft::rt::{MpscReceiver as _, WatchReceiver as _};
use openraft::{ChangeMembers, Config, RaftMetrics, ReadPolicy, SnapshotPolicy};

use super::channels::{lock, mpsc};
use super::doubt::Doubts;
use super::effect::{Change, ChangeError, Effect, Effects, NotLeader, ProposeError};
use super::footing::{Footing, Promise};
use super::machine::{Machine, Phase, StateMachine};
use super::message::Message;
use super::network::{Limits, Net};
use super::receiving::Incoming;
use super::runtime::{Host, Ran};
use super::snapshots::TaskIds;
use super::status::{Role, Status};
use super::store::{LogStore, Sync};
use super::types::{
    Callback, LogId, Payload, Peer, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, Vote,
    index_of, term_of,
};
use super::upkeep::Upkeep;
use crate::codec::record::Recovered;
use crate::codec::{DecodeError, decode};
use crate::id::{CommandId, LogIndex, NodeId, Term, WriteId};
use crate::time::Mono;

/// How many polls one turn may take before something must be wrong.
const POLLS_MAX: u32 = 2_000_000;
/// How many proposals may wait to be taken by Raft.
const PROPOSALS_MAX: usize = 16_384;

pub(crate) type Raft<M> = openraft::Raft<TypeConfig, StateMachine<M>>;

/// How an engine is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// This node.
    pub id: NodeId,
    /// A factor for all times, from 1 to 10.
    pub multiplier: u32,
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// The least that a candidate waits on top of the lease.
    pub election_min: Duration,
    /// The most, and the length of the lease.
    pub election_max: Duration,
    /// How large the log gets.
    pub log: LogBounds,
    /// How many bytes of entries go into one message.
    pub batch_bytes: u64,
    /// The largest snapshot that is accepted.
    pub snapshot_bytes_max: u64,
}

/// How large the log gets before and after a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// A snapshot is taken when this many bytes of log have come since the last one, or as many as
    /// the last one has, whichever is more; but at the latest at half of `bytes_max`.
    pub snapshot_after_bytes: u64,
    /// How many bytes of log that a snapshot covers are kept for slow followers.
    pub keep_bytes: u64,
    /// How many entries that a snapshot covers are kept for slow followers.
    pub keep_entries: u64,
    /// A leader whose log has this many bytes that no durable snapshot covers takes no proposals.
    pub bytes_max: u64,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self {
            snapshot_after_bytes: 64 << 20,
            keep_bytes: 256 << 20,
            keep_entries: 500_000,
            bytes_max: 1 << 30,
        }
    }
}

impl EngineConfig {
    /// The defaults for node `id`.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            multiplier: 1,
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(120),
            election_max: Duration::from_millis(250),
            log: LogBounds::default(),
            batch_bytes: 1 << 20,
            snapshot_bytes_max: 4 << 30,
        }
    }

    /// How long a follower's or a quorum's answer counts.
    pub fn lease(&self) -> Duration {
        self.election_max * self.multiplier
    }

    fn raft(&self) -> Result<Config, BootError> {
        let millis = |duration: Duration| {
            u64::try_from((duration * self.multiplier).as_millis()).unwrap_or(u64::MAX)
        };
        if !(1..=10).contains(&self.multiplier) {
            return Err(BootError::Config(format!(
                "raft-multiplier is {}, it must be from 1 to 10",
                self.multiplier
            )));
        }
        let config = Config {
            cluster_name: "cronclave".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            enable_pre_vote: Some(true),
            // A leader that restarts within its lease would serve reads from an old state.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: 4_096,
            ..Config::default()
        };
        config.validate().map_err(|error| BootError::Config(error.to_string()))
    }
}

/// Why an engine cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The settings contradict each other.
    #[error("{0}")]
    Config(String),
    /// The log on disk is damaged.
    #[error("the log is damaged: {0}")]
    Log(String),
    /// The snapshot on disk is damaged, or missing where the log needs it.
    #[error("the snapshot is damaged: {0}")]
    Snapshot(String),
    /// Raft refuses what the disk holds.
    #[error("Raft cannot start: {0}")]
    Raft(String),
}

/// Raft for one server. See the module's documentation.
pub struct Engine<M: Machine> {
    pub(crate) config: EngineConfig,
    raft_config: Arc<Config>,
    pub(crate) host: Host,
    pub(crate) run: Run<M>,
    pub(crate) net: Net,
    pub(crate) store: LogStore,
    pub(crate) machine: StateMachine<M>,
    pub(crate) effects: Effects<M>,
    pub(crate) now: Mono,
    pub(crate) status: Status,
    /// The membership that `status` was read from.
    pub(crate) membership: Option<Arc<StoredMembership>>,
    pub(crate) turn: Turn,
    /// The snapshot that is coming in.
    pub(crate) incoming: Option<Incoming<M>>,
    pub(crate) tasks: TaskIds,
    /// Requests that wait for a vote to be durable, with their sessions.
    pub(crate) held: VecDeque<(NodeId, u64, Message)>,
    pub(crate) serving: BTreeMap<NodeId, Arc<()>>,
    /// Up to where the log agrees with that of a leader, and under which vote.
    pub(crate) agreed: Option<(Vote, LogId)>,
    /// The last leader heard, and when.
    pub(crate) heard: Option<(NodeId, Mono)>,
    pub(crate) upkeep: Upkeep,
    pub(crate) doubts: Doubts,
    /// For when everything was worked off; `None` once something has come since.
    pub(crate) quiet_at: Option<Mono>,
}

/// Whether Raft runs.
pub(crate) enum Run<M: Machine> {
    /// It does.
    On { raft: Raft<M>, proposals: mpsc::Sender<(CommandId, Bytes)> },
    /// It was stopped, and starts again when every write is durable.
    Restarting,
    /// It cannot go on.
    Halted,
}

/// What has come since the last time that everything was worked off.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) reads: Vec<u64>,
    /// The vote and the last entry of the appends that wait.
    pub(crate) tail: Option<(Vote, Option<LogId>)>,
    /// The greatest commit position that they name.
    pub(crate) commit: Option<u64>,
    /// Whether anything waits at all.
    pub(crate) is_dirty: bool,
}

impl<M: Machine> fmt::Debug for Engine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("id", &self.config.id).finish_non_exhaustive()
    }
}

impl<M: Machine> Engine<M> {
    /// Starts Raft on what the disk holds. `seed` decides everything that is left to chance.
    ///
    /// # Errors
    /// If the settings contradict each other or what the disk holds is damaged.
    pub fn boot(
        config: EngineConfig,
        seed: u64,
        recovered: &Recovered,
        now: Mono,
    ) -> Result<Self, BootError> {
        let raft_config = Arc::new(config.raft()?);
        let host = Host::with_seed(seed);
        host.set_now(now);
        let entered = host.enter();
        let store = LogStore::recover(recovered, config.batch_bytes, Sync::OnCompletion)
            .map_err(|error| BootError::Log(error.to_string()))?;
        let found = recover_snapshot::<M>(recovered, &store)?;
        let effects = Effects::default();
        let (snapshot, decoded) = found.unzip();
        let tasks = TaskIds::default();
        let machine = StateMachine::new(tasks.clone(), effects.clone(), snapshot);
        if let Some((meta, state)) = decoded {
            machine.keep_decoded(meta, state);
        }
        let limits = Limits {
            append: Duration::from_secs(1).max(config.heartbeat * config.multiplier * 4),
            snapshot: Duration::from_secs(10) * config.multiplier,
        };
        let net = Net::new(config.id, host.draw(), limits, tasks.clone());
        let mut engine = Self {
            config,
            raft_config,
            host,
            run: Run::Restarting,
            net,
            store,
            machine,
            effects,
            now,
            status: Status::default(),
            membership: None,
            turn: Turn::default(),
            incoming: None,
            tasks,
            held: VecDeque::new(),
            serving: BTreeMap::new(),
            agreed: None,
            heard: None,
            upkeep: Upkeep::default(),
            doubts: Doubts::default(),
            quiet_at: None,
        };
        engine.start()?;
        engine.machine.set_phase(Phase::Live);
        engine.status = engine.read_status();
        drop(entered);
        Ok(engine)
    }

    /// Starts Raft's tasks. The host must be entered.
    pub(crate) fn start(&mut self) -> Result<(), BootError> {
        let started = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&started);
        let enable_elect = self.store.doubt().is_none();
        let config = Arc::new(Config { enable_elect, ..Config::clone(&self.raft_config) });
        let id = self.config.id;
        let (net, store) = (self.net.clone(), self.store.clone());
        let machine = self.machine.clone();
        self.host.spawn(async move {
            let raft = Raft::<M>::new(id, config, net, store, machine).await;
            *lock(&slot) = Some(raft);
        });
        let ran = self.host.run(POLLS_MAX);
        let raft = match lock(&started).take() {
            Some(Ok(raft)) => raft,
            Some(Err(fatal)) => return Err(BootError::Raft(fatal.to_string())),
            None => return Err(BootError::Raft(format!("it did not start ({ran:?})"))),
        };
        let (proposals, waiting) = mpsc::channel(PROPOSALS_MAX);
        self.host.spawn(propose_all(raft.clone(), waiting, self.effects.clone()));
        self.run = Run::On { raft, proposals };
        Ok(())
    }

    /// A session with `peer` begins.
    pub fn on_connected(&mut self, peer: NodeId) {
        self.quiet_at = None;
        let _entered = self.host.enter();
        self.net.connect(peer);
        self.interrupt_incoming(peer);
        self.doubts.forget(peer);
        if let Some(raft) = self.raft() {
            self.host.spawn(async move {
                // A stopped Raft shows in its metrics.
                drop(raft.trigger().reset_backoff([peer]).await);
            });
        }
    }

    /// The session with `peer` ended.
    pub fn on_disconnected(&mut self, peer: NodeId) {
        self.quiet_at = None;
        let _entered = self.host.enter();
        self.net.disconnect(peer);
        self.interrupt_incoming(peer);
        self.doubts.forget(peer);
    }

    /// The write `write` is durable.
    pub fn on_persisted(&mut self, write: WriteId) {
        self.quiet_at = None;
        let _entered = self.host.enter();
        // What is not waited for any more was given up when Raft was restarted.
        self.store.on_persisted(write);
    }

    /// Proposes a command; [`Effect::Proposed`] tells its fate.
    pub fn propose(&mut self, id: CommandId, payload: Bytes) {
        self.quiet_at = None;
        let _entered = self.host.enter();
        let refused = self.refuse_as_leader().or_else(|| self.refuse_as_full());
        let result = match (&self.run, refused) {
            (_, Some(error)) => Err(error),
            (Run::On { proposals, .. }, None) => {
                proposals.try_send((id, payload)).map_err(|_| ProposeError::Busy)
            }
            (Run::Restarting | Run::Halted, None) => Err(ProposeError::NotLeader { leader: None }),
        };
        if let Err(error) = result {
            self.effects.push(Effect::Proposed { id, result: Err(error) });
        }
    }

    /// Asks for the index from which a linearizable read may be answered.
    pub fn read_index(&mut self, id: u64) {
        self.quiet_at = None;
        match self.refuse_as_leader() {
            Some(error) => {
                let leader = match error {
                    ProposeError::NotLeader { leader } => leader,
                    ProposeError::LeaseExpired
                    | ProposeError::Busy
                    | ProposeError::LogFull
                    | ProposeError::Unknown => None,
                };
                self.effects.push(Effect::ReadIndex { id, result: Err(NotLeader { leader }) });
            }
            None => self.turn.reads.push(id),
        }
    }

    /// Founds the cluster. Only one member may ever do it, and only once.
    pub fn initialize(&mut self, members: BTreeMap<NodeId, Peer>) {
        self.quiet_at = None;
        let Some(raft) = self.raft() else { return };
        let _entered = self.host.enter();
        let effects = self.effects.clone();
        self.host.spawn(async move {
            let result = raft.initialize(members).await;
            let result = result.map_err(|error| ChangeError::Refused(error.to_string()));
            effects.push(Effect::MembershipDone { change: Change::Initialize, result });
        });
    }

    /// Lets a server learn.
    pub fn add_learner(&mut self, id: NodeId, peer: Peer) {
        let members = ChangeMembers::AddNodes(BTreeMap::from([(id, peer)]));
        self.change(Change::AddLearner(id), members, Removed::StayLearners);
    }

    /// Changes who votes, through a joint membership. Who votes no longer is removed.
    pub fn change_voters(&mut self, voters: BTreeSet<NodeId>) {
        let members = ChangeMembers::ReplaceAllVoters(voters.clone());
        self.change(Change::Voters(voters), members, Removed::Go);
    }

    /// Removes a learner.
    pub fn remove_learner(&mut self, id: NodeId) {
        let members = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.change(Change::RemoveLearner(id), members, Removed::StayLearners);
    }

    fn change(&mut self, change: Change, members: ChangeMembers<NodeId, Peer>, removed: Removed) {
        self.quiet_at = None;
        let Some(raft) = self.raft() else { return };
        let _entered = self.host.enter();
        let effects = self.effects.clone();
        self.host.spawn(async move {
            let retain = removed == Removed::StayLearners;
            let result = raft.change_membership(members, retain).await;
            let result = result.map(drop).map_err(change_error);
            effects.push(Effect::MembershipDone { change, result });
        });
    }

    pub(crate) fn set_now(&mut self, now: Mono) {
        self.now = self.now.max(now);
        self.host.set_now(self.now);
    }

    /// Works off everything that has come, up to `now`.
    pub fn run(&mut self, now: Mono) {
        if matches!(self.run, Run::Halted) {
            return;
        }
        if self.quiet_at == Some(now) {
            return;
        }
        let host = self.host.clone();
        let _entered = host.enter();
        self.set_now(now);
        if matches!(self.run, Run::Restarting) {
            self.restart_when_synced();
        }
        self.start_reads();
        self.settle();
        self.take_held();
        self.settle();
        self.keep_up();
        self.settle();
        self.weigh_doubt();
        if let Some((write, records)) = self.store.flush() {
            self.effects.push(Effect::Persist { write, records });
        }
        for (peer, reason) in self.net.take_rejected() {
            self.effects.push(Effect::Rejected { peer, reason });
        }
        let status = self.read_status();
        let is_same = status.is_same_shape(&self.status);
        self.status = status;
        if !is_same {
            self.effects.push(Effect::StatusChanged);
        }
        self.quiet_at = Some(now);
    }

    /// The next effect; to be drained to `None` after every [`Engine::run`].
    pub fn poll_effect(&mut self) -> Option<Effect<M>> {
        if let Some(effect) = self.effects.pop() {
            return Some(effect);
        }
        if matches!(self.run, Run::Halted) {
            return None;
        }
        if let Some((id, task)) = self.net.poll_task() {
            return Some(Effect::Snapshot { id, task });
        }
        let (peer, message) = self.net.poll_send()?;
        Some(Effect::Send { peer, message })
    }

    /// When [`Engine::run`] is to be called again at the latest.
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.run {
            Run::On { .. } => self.host.next_deadline().into_iter().chain(self.rests_until()).min(),
            Run::Restarting | Run::Halted => None,
        }
    }

    /// How it stood at the end of the last turn.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// How far vote and log go on the disk, for the peers to remember.
    pub fn footing(&self) -> Footing {
        self.store.footing()
    }

    /// What `peer` has promised by what it confirmed to this server as its leader.
    pub fn promise_of(&self, peer: NodeId) -> Option<Promise> {
        self.net.promise_of(peer)
    }

    /// The term of the entry at `index` in the log as Raft sees it, on disk or not yet; `None` if
    /// it is not there, or purged.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.store.term_at(index)
    }

    /// The replicated state as of [`Status::applied`].
    pub fn machine(&self) -> M {
        self.machine.machine()
    }

    /// What `read` finds in the replicated state, without a clone of it.
    pub fn read_machine<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        self.machine.read(read)
    }

    /// A hash over every random number drawn so far, for checks of determinism.
    pub fn draws(&self) -> u64 {
        self.host.draws()
    }

    pub(crate) fn raft(&self) -> Option<Raft<M>> {
        match &self.run {
            Run::On { raft, .. } => Some(raft.clone()),
            Run::Restarting | Run::Halted => None,
        }
    }

    pub(crate) fn metrics(&self) -> Option<RaftMetrics<TypeConfig>> {
        match &self.run {
            Run::On { raft, .. } => Some(raft.metrics().borrow_watched().clone()),
            Run::Restarting | Run::Halted => None,
        }
    }

    /// Polls until nothing is ready. The host must be entered.
    pub(crate) fn settle(&mut self) {
        if self.host.run(POLLS_MAX) == Ran::OverBudget {
            self.halt("a turn took more polls than any can need".to_owned());
        }
        self.turn.tail = None;
        self.turn.commit = None;
        self.turn.is_dirty = false;
    }

    pub(crate) fn halt(&mut self, reason: String) {
        if !matches!(self.run, Run::Halted) {
            self.run = Run::Halted;
            self.effects.push(Effect::Halt { reason });
        }
    }

    /// Why this node may not act as a leader now.
    fn refuse_as_leader(&self) -> Option<ProposeError> {
        if self.status.leader == Some(self.config.id) {
            None
        } else if self.status.role == Role::Leader {
            Some(ProposeError::LeaseExpired)
        } else {
            Some(ProposeError::NotLeader { leader: self.status.leader })
        }
    }

    /// Why this leader takes no more into its log.
    fn refuse_as_full(&self) -> Option<ProposeError> {
        let covered = self.machine.snapshot_file().map(|file| file.index);
        let is_full = self.store.bytes_above(covered) >= self.config.log.bytes_max;
        is_full.then_some(ProposeError::LogFull)
    }

    /// One round of the ReadIndex protocol serves all reads of a turn.
    fn start_reads(&mut self) {
        let reads = std::mem::take(&mut self.turn.reads);
        if reads.is_empty() {
            return;
        }
        let effects = self.effects.clone();
        let Some(raft) = self.raft() else {
            answer_reads(&effects, &reads, Err(NotLeader { leader: None }));
            return;
        };
        self.host.spawn(async move {
            let result = match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
                Ok(linearizer) => Ok(LogIndex(linearizer.read_log_id().index())),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    Err(NotLeader { leader: forward.leader_id })
                }
                Err(
                    RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))
                    | RaftError::Fatal(_),
                ) => Err(NotLeader { leader: None }),
            };
            answer_reads(&effects, &reads, result);
        });
    }
}

impl<M: Machine> Drop for Engine<M> {
    fn drop(&mut self) {
        let _entered = self.host.enter();
        self.run = Run::Halted;
        self.host.clear();
    }
}

/// What becomes of voters that vote no longer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removed {
    Go,
    StayLearners,
}

type Decoded<M> = (Snapshot, (SnapshotMeta, M));

fn recover_snapshot<M: Machine>(
    recovered: &Recovered,
    store: &LogStore,
) -> Result<Option<Decoded<M>>, BootError> {
    let Some(found) = &recovered.snapshot else {
        if store.has_purged() {
            return Err(BootError::Snapshot("there is none, but the log needs one".to_owned()));
        }
        return Ok(None);
    };
    let damaged = |error: DecodeError| BootError::Snapshot(error.to_string());
    let meta: SnapshotMeta = decode("snapshot meta", &found.meta).map_err(damaged)?;
    let state = M::restore(&found.data).map_err(damaged)?;
    let snapshot = Snapshot { meta: meta.clone(), snapshot: found.file };
    Ok(Some((snapshot, (meta, state))))
}

fn answer_reads<M: Machine>(
    effects: &Effects<M>,
    reads: &[u64],
    result: Result<LogIndex, NotLeader>,
) {
    for &id in reads {
        effects.push(Effect::ReadIndex { id, result });
    }
}

/// Hands proposals to Raft, in order.
async fn propose_all<M: Machine>(
    raft: Raft<M>,
    mut waiting: mpsc::Receiver<(CommandId, Bytes)>,
    effects: Effects<M>,
) {
    while let Some((id, payload)) = waiting.recv().await {
        let effects = effects.clone();
        let done = Callback::new(move |outcome| {
            let result = match outcome {
                Some(Ok::<openraft::raft::ClientWriteResponse<TypeConfig>, _>(written)) => {
                    Ok((index_of(&written.log_id), term_of(&written.log_id)))
                }
                Some(Err(error)) => Err(propose_error(error)),
                None => Err(ProposeError::Unknown),
            };
            effects.push(Effect::Proposed { id, result });
        });
        if raft.client_write_ff(Payload(payload), Some(done)).await.is_err() {
            // Raft has stopped, which its metrics show; the callback has answered.
            return;
        }
    }
}

fn propose_error(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, reason, .. }) => {
            match reason {
                ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                    ProposeError::NotLeader { leader: leader_id }
                }
                ForwardReason::LeaseExpired => ProposeError::LeaseExpired,
            }
        }
        ClientWriteError::LogEntryDiscarded(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
    }
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeError::NotLeader { leader: forward.leader_id }
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_) => {
            ChangeError::Unknown
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_)
            | ChangeMembershipError::UncommittedLeaderLog(_) => ChangeError::InProgress,
            error @ (ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::LearnerNotFound(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::NodeMetadataChanged(_)) => {
                ChangeError::Refused(error.to_string())
            }
        },
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
            ChangeError::Refused(error.to_string())
        }
    }
}
