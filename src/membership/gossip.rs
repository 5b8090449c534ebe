//! What gossip carries: [`Gossiper`], its bytes, and the timings of a [`Profile`].

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foca::{Codec, Header, Member, PeriodicParams, PostcardCodec};
use serde::{Deserialize, Serialize};

use crate::id::{Boot, ClusterId, NodeId};

/// The most bytes of a datagram: what fits an Ethernet frame with room for tunnels.
pub const DATAGRAM_LEN_MAX: usize = 1_400;

/// The format of a datagram: this byte, the cluster (8 bytes, 0 for none), then foca's message.
const VERSION: u8 = 0xc1;

const PREFIX_LEN: usize = 9;

/// The id of an addressee of whom only the address is known. No node has it.
const ANYONE: NodeId = NodeId(0);

/// A node as gossip knows it.
///
/// Ordered by what decides which of two claims to one id is newer: a later start wins, then a later
/// generation; the rest only breaks ties, so that all nodes agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gossiper {
    /// Who it is.
    pub id: NodeId,
    /// Which start of it.
    pub boot: Boot,
    /// How often it was declared down in this start and came back.
    pub generation: u32,
    /// Where its datagrams go.
    pub gossip: SocketAddr,
    /// The TCP port for sessions, at the same IP address.
    pub peer_port: u16,
    /// Whether it is a server (else an agent).
    pub server: bool,
}

impl Gossiper {
    /// Where its sessions are accepted.
    pub fn peer_addr(&self) -> SocketAddr {
        SocketAddr::new(self.gossip.ip(), self.peer_port)
    }

    /// An addressee of whom only the address is known.
    pub(super) fn anyone_at(gossip: SocketAddr) -> Self {
        Self { id: ANYONE, boot: Boot(0), generation: 0, gossip, peer_port: 0, server: false }
    }

    /// The same with an address that survives its encoding, which has no scope and no flow.
    pub(super) fn canonical(mut self) -> Self {
        self.gossip = SocketAddr::new(self.gossip.ip(), self.gossip.port());
        self
    }

    fn is_possible(&self) -> bool {
        self.id != ANYONE && is_sendable(self.gossip)
    }
}

/// Whether a datagram can go to `addr` alone.
pub(super) fn is_sendable(addr: SocketAddr) -> bool {
    let broadcast = match addr.ip() {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !broadcast
}

impl foca::Identity for Gossiper {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self > adversary
    }
}

/// Why a datagram was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is no datagram of ours, or of a version that we do not speak.
    #[error("a datagram of another program or version")]
    Foreign,
    /// It is longer than [`DATAGRAM_LEN_MAX`].
    #[error("a datagram of {0} bytes, at most {DATAGRAM_LEN_MAX} are allowed")]
    TooLong(usize),
    /// It comes from another cluster.
    #[error("a datagram of cluster {theirs}, this is {ours}")]
    OtherCluster {
        /// The cluster of the sender.
        theirs: ClusterId,
        /// The cluster of this node.
        ours: ClusterId,
    },
    /// It cannot be decoded.
    #[error("a datagram that cannot be decoded: {0}")]
    Malformed(String),
    /// It would make the roster larger than it may grow.
    #[error("a datagram that names more nodes than the roster may hold")]
    Full,
}

/// Puts the prefix before foca's message.
pub(super) fn wrap(cluster: Option<ClusterId>, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_LEN + message.len());
    bytes.put_u8(VERSION);
    bytes.put_u64_le(cluster.unwrap_or_default().0);
    bytes.put_slice(message);
    bytes.freeze()
}

/// Takes the prefix off: the sender's cluster, and foca's message.
pub(super) fn unwrap(bytes: &[u8]) -> Result<(Option<ClusterId>, &[u8]), DatagramError> {
    if bytes.len() > DATAGRAM_LEN_MAX {
        return Err(DatagramError::TooLong(bytes.len()));
    }
    let Some((prefix, message)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
        return Err(DatagramError::Foreign);
    };
    let [version, cluster @ ..] = *prefix;
    if version != VERSION {
        return Err(DatagramError::Foreign);
    }
    let cluster = ClusterId(u64::from_le_bytes(cluster));
    Ok(((cluster != ClusterId(0)).then_some(cluster), message))
}

/// Why foca's part of a datagram cannot be decoded or encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("{0}")]
    Postcard(postcard::Error),
    #[error("a node without id or address")]
    Impossible,
}

/// foca's messages in postcard, with checked senders and members.
#[derive(Clone, Copy, Debug)]
pub(super) struct GossipCodec {
    /// Who we are: a message to [`ANYONE`] is read as one to us.
    pub(super) me: NodeId,
}

impl Codec<Gossiper> for GossipCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Gossiper>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        PostcardCodec.encode_header(header, buf).map_err(CodecError::Postcard)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Gossiper>, CodecError> {
        let mut header: Header<Gossiper> =
            PostcardCodec.decode_header(buf).map_err(CodecError::Postcard)?;
        if !header.src.is_possible() {
            return Err(CodecError::Impossible);
        }
        if header.dst.id == ANYONE {
            header.dst.id = self.me;
        }
        Ok(header)
    }

    fn encode_member(
        &mut self,
        member: &Member<Gossiper>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        PostcardCodec.encode_member(member, buf).map_err(CodecError::Postcard)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Gossiper>, CodecError> {
        let member: Member<Gossiper> =
            PostcardCodec.decode_member(buf).map_err(CodecError::Postcard)?;
        if member.id().is_possible() { Ok(member) } else { Err(CodecError::Impossible) }
    }
}

/// How patient gossip is; the values are those of memberlist's profiles, which Dkron uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One data centre.
    #[default]
    Lan,
    /// Across data centres.
    Wan,
    /// One machine.
    Local,
}

struct Timings {
    probe_period_ms: u64,
    probe_rtt_ms: u64,
    suspicion_mult: u32,
    gossip_period_ms: u64,
    gossip_fanout: usize,
    feed_period_ms: u64,
    revive_period_ms: u64,
    indirect_probes: usize,
    retransmit_mult: u8,
}

impl Profile {
    fn timings(self) -> Timings {
        match self {
            Self::Lan => Timings {
                probe_period_ms: 1_000,
                probe_rtt_ms: 500,
                suspicion_mult: 4,
                gossip_period_ms: 200,
                gossip_fanout: 3,
                feed_period_ms: 30_000,
                revive_period_ms: 10_000,
                indirect_probes: 3,
                retransmit_mult: 4,
            },
            Self::Wan => Timings {
                probe_period_ms: 5_000,
                probe_rtt_ms: 3_000,
                suspicion_mult: 6,
                gossip_period_ms: 500,
                gossip_fanout: 4,
                feed_period_ms: 60_000,
                revive_period_ms: 30_000,
                indirect_probes: 3,
                retransmit_mult: 4,
            },
            Self::Local => Timings {
                probe_period_ms: 1_000,
                probe_rtt_ms: 200,
                suspicion_mult: 3,
                gossip_period_ms: 100,
                gossip_fanout: 3,
                feed_period_ms: 15_000,
                revive_period_ms: 5_000,
                indirect_probes: 1,
                retransmit_mult: 2,
            },
        }
    }

    /// How long a member that does not answer has to refute, in a cluster of `size` nodes:
    /// the multiplier, times the probe period, times log10 of the size where that is above 1.
    pub fn suspicion(self, size: usize) -> Duration {
        let timings = self.timings();
        // Tenths of log10, from the binary logarithm: exact arithmetic on every machine.
        let log10_tenths = size.max(1).ilog2().saturating_mul(3).max(10);
        Duration::from_millis(timings.probe_period_ms) * timings.suspicion_mult * log10_tenths / 10
    }

    pub(super) fn foca_config(self, size: usize, forget_after: Duration) -> foca::Config {
        let timings = self.timings();
        let some = |count: usize| NonZeroUsize::new(count.max(1)).expect("at least 1");
        let every = |period_ms: u64, members: usize| {
            let frequency = Duration::from_millis(period_ms);
            Some(PeriodicParams { frequency, num_members: some(members) })
        };
        let digits = u8::try_from(size.max(1).ilog10() + 1).expect("at most 20 digits");
        let transmissions = timings.retransmit_mult.saturating_mul(digits).max(1);
        foca::Config {
            probe_period: Duration::from_millis(timings.probe_period_ms),
            probe_rtt: Duration::from_millis(timings.probe_rtt_ms),
            num_indirect_probes: some(timings.indirect_probes),
            max_transmissions: NonZeroU8::new(transmissions).expect("at least 1"),
            suspect_to_down_after: self.suspicion(size),
            remove_down_after: Some(forget_after),
            max_packet_size: some(DATAGRAM_LEN_MAX - PREFIX_LEN),
            notify_down_members: true,
            periodic_announce: every(timings.feed_period_ms, 1),
            periodic_announce_to_down_members: every(timings.revive_period_ms, 2),
            periodic_gossip: every(timings.gossip_period_ms, timings.gossip_fanout),
        }
    }
}
