//! Calls about the cluster: this node, its members, its leader, leaving it.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;

use super::error::ApiError;
use super::{Asked, Backend, mismatch, with_total};
use crate::id::NodeName;
use crate::node::request::RequestError;
use crate::node::request::{Member, MemberStatus, NodeStatus, RaftRole, Reply, Request};
use crate::schedule::TZ_VERSION;

/// The gossip protocol's number where Dkron's clients expect those of Serf.
const GOSSIP_PROTOCOL: u8 = 1;

/// `GET /health`: 200 while the process lives. With `?ready`: 503 unless a leader is known.
pub(super) async fn health<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    if asked.params.flag("ready") {
        let status = status(&asked, Asked::<B>::deadline()).await?;
        if status.leader.is_none() {
            return Err(no_leader(status));
        }
    }
    Ok(asked.answer(StatusCode::OK, &BTreeMap::from([("status", "healthy")])))
}

/// `GET /debug/vars`: what this server has counted since it started, as Go programs show it.
pub(super) async fn vars<B: Backend>(asked: Asked<B>) -> Response {
    asked.answer(StatusCode::OK, &*asked.api.config.counters)
}

/// `GET /v1`: this node.
pub(super) async fn root<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let until = Asked::<B>::deadline();
    let status = status(&asked, until).await?;
    let members = fetch_members(&asked, until).await?;
    let count = |wanted: MemberStatus| members.iter().filter(|m| m.status == wanted).count();
    let optional = |value: Option<String>| value.unwrap_or_default();
    let text = |value: &str| value.to_owned();
    let agent = [
        ("name", status.name.to_string()),
        ("version", asked.api.config.version.to_owned()),
        ("tzdata", text(TZ_VERSION)),
        ("disk", status.disk_full.as_ref().map_or("ok".to_owned(), |why| format!("full: {why}"))),
    ];
    let serf = [
        ("members", members.len().to_string()),
        ("failed", count(MemberStatus::Failed).to_string()),
        ("left", count(MemberStatus::Left).to_string()),
    ];
    let voters: Vec<&str> = status.voters.iter().map(NodeName::as_str).collect();
    let raft = [
        ("node_id", status.id.to_string()),
        ("cluster_id", optional(status.cluster.map(|id| id.to_string()))),
        ("state", text(raft_state(&status))),
        ("term", status.term.to_string()),
        ("leader", optional(status.leader.as_ref().map(ToString::to_string))),
        ("applied_index", optional(status.applied.map(|index| index.to_string()))),
        ("commit_index", optional(status.committed.map(|index| index.to_string()))),
        ("voters", voters.join(",")),
        ("waiting_for", optional(status.waiting_for.clone())),
        ("in_doubt", optional(status.in_doubt.clone())),
    ];
    let view = RootView {
        agent: agent.into(),
        serf: serf.into(),
        raft: raft.into(),
        running: status.running,
        tags: &status.tags,
    };
    Ok(asked.answer(StatusCode::OK, &view))
}

/// `GET /v1/members`: every node that this one knows.
pub(super) async fn members<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let members = fetch_members(&asked, Asked::<B>::deadline()).await?;
    let views: Vec<_> = members.iter().map(MemberView::full).collect();
    Ok(with_total(asked.answer(StatusCode::OK, &views), views.len()))
}

/// `GET /v1/leader`: the leader as a member, without `id` and `statusText`, as Dkron gives it.
pub(super) async fn leader<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let until = Asked::<B>::deadline();
    let status = status(&asked, until).await?;
    let Some(name) = status.leader.clone() else { return Err(no_leader(status)) };
    let members = fetch_members(&asked, until).await?;
    match members.iter().find(|member| member.name == name) {
        Some(member) => Ok(asked.answer(StatusCode::OK, &MemberView::bare(member))),
        None => {
            let text = format!("{name} leads and is not among the members known here");
            Err(RequestError::NoLeader(text).into())
        }
    }
}

/// `GET /v1/isleader`: whether this node leads.
pub(super) async fn is_leader<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let status = status(&asked, Asked::<B>::deadline()).await?;
    Ok(if status.is_leader {
        asked.answer(StatusCode::OK, &"I am a leader")
    } else {
        asked.answer(StatusCode::NOT_FOUND, &"I am a follower")
    })
}

/// `POST /v1/leave`: this node hands over, leaves the cluster and stops.
pub(super) async fn leave<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let reply = asked.ask(Asked::<B>::deadline(), Request::Leave).await?;
    let Reply::Left = reply else { return Err(mismatch(&reply)) };
    let answer = asked.answer(StatusCode::OK, &BTreeMap::from([("status", "left")]));
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    Ok((close, answer).into_response())
}

#[derive(Serialize)]
struct RootView<'a> {
    agent: BTreeMap<&'static str, String>,
    serf: BTreeMap<&'static str, String>,
    raft: BTreeMap<&'static str, String>,
    running: usize,
    tags: &'a BTreeMap<String, String>,
}

/// A member in the shape of Dkron, whose field names are those of Serf's Go structure.
#[derive(Serialize)]
struct MemberView<'a> {
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "Addr")]
    addr: &'a str,
    #[serde(rename = "Port")]
    port: u16,
    #[serde(rename = "Tags")]
    tags: &'a BTreeMap<String, String>,
    #[serde(rename = "Status")]
    status: u8,
    #[serde(rename = "ProtocolMin")]
    protocol_min: u8,
    #[serde(rename = "ProtocolMax")]
    protocol_max: u8,
    #[serde(rename = "ProtocolCur")]
    protocol_cur: u8,
    #[serde(rename = "DelegateMin")]
    delegate_min: u8,
    #[serde(rename = "DelegateMax")]
    delegate_max: u8,
    #[serde(rename = "DelegateCur")]
    delegate_cur: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "statusText", skip_serializing_if = "Option::is_none")]
    status_text: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<&'static str>,
    peer_addr: &'a str,
    raft: &'static str,
}

impl<'a> MemberView<'a> {
    fn full(member: &'a Member) -> Self {
        let text = match member.status {
            MemberStatus::Alive => "alive",
            MemberStatus::Left => "left",
            MemberStatus::Failed => "failed",
        };
        let id = Some(member.id.to_string());
        let disk = Some(if member.disk_full { "full" } else { "ok" });
        Self { id, status_text: Some(text), disk, ..Self::bare(member) }
    }

    fn bare(member: &'a Member) -> Self {
        let (addr, port) = split_addr(&member.gossip_addr);
        Self {
            name: member.name.as_str(),
            addr,
            port,
            tags: &member.tags,
            status: match member.status {
                MemberStatus::Alive => 1,
                MemberStatus::Left => 3,
                MemberStatus::Failed => 4,
            },
            protocol_min: GOSSIP_PROTOCOL,
            protocol_max: GOSSIP_PROTOCOL,
            protocol_cur: GOSSIP_PROTOCOL,
            delegate_min: GOSSIP_PROTOCOL,
            delegate_max: GOSSIP_PROTOCOL,
            delegate_cur: GOSSIP_PROTOCOL,
            id: None,
            status_text: None,
            disk: None,
            peer_addr: &member.peer_addr,
            raft: match member.raft {
                RaftRole::None => "none",
                RaftRole::Learner => "learner",
                RaftRole::Voter => "voter",
                RaftRole::Leader => "leader",
            },
        }
    }
}

async fn status<B: Backend>(asked: &Asked<B>, until: Instant) -> Result<NodeStatus, ApiError> {
    let reply = asked.ask(until, Request::Status).await?;
    let Reply::Status(status) = reply else { return Err(mismatch(&reply)) };
    Ok(*status)
}

async fn fetch_members<B: Backend>(
    asked: &Asked<B>,
    until: Instant,
) -> Result<Vec<Member>, ApiError> {
    let reply = asked.ask(until, Request::Members).await?;
    let Reply::Members(members) = reply else { return Err(mismatch(&reply)) };
    Ok(members)
}

/// That there is no leader, with what is missing if the node knows.
fn no_leader(status: NodeStatus) -> ApiError {
    let missing = status.waiting_for.unwrap_or_else(|| "an election is under way".to_owned());
    RequestError::NoLeader(missing).into()
}

fn raft_state(status: &NodeStatus) -> &'static str {
    if status.is_leader {
        "Leader"
    } else if status.leader.is_some() {
        "Follower"
    } else {
        "NoLeader"
    }
}

/// `ip:port` or `[ip]:port` in its parts.
fn split_addr(addr: &str) -> (&str, u16) {
    let (host, port) = addr.rsplit_once(':').unwrap_or((addr, "0"));
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}
