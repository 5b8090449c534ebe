//! What the demo sees of its cluster, over the API that everybody uses.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::nodes::{Nodes, SERVERS};
use crate::shell::exit::ExitError;

/// The job of the demo.
const JOB: &str = "demo";
/// How many runs are looked at.
const RUNS_MAX: usize = 8;
/// How long a server may take to answer; one that does not is left out of a look.
const LOOK_TIMEOUT: Duration = Duration::from_millis(800);
/// How long storing the job may take.
const PUT_TIMEOUT: Duration = Duration::from_secs(4);

/// The client.
pub(super) struct Watch {
    client: reqwest::Client,
}

/// The cluster at one moment, as the server sees it that has applied the most.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) leader: Option<String>,
    pub(super) term: u64,
    pub(super) waiting_for: String,
    pub(super) members: Vec<Member>,
    /// The newest first.
    pub(super) runs: Vec<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) addr: String,
    pub(super) role: &'static str,
    pub(super) raft: String,
    pub(super) status: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) due: String,
    pub(super) node: String,
    pub(super) outcome: String,
    pub(super) lateness: Option<f64>,
}

impl Watch {
    pub(super) fn new() -> Result<Self, ExitError> {
        // These servers are on this machine, and killed ones leave no connection to be used again.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        let client = client
            .map_err(|cause| ExitError::Environment(format!("cannot make a client: {cause}")))?;
        Ok(Self { client })
    }

    /// Looks at the cluster, and stores the job if a leader is there and the job is not.
    pub(super) async fn look(&self, nodes: &Nodes) -> View {
        let urls = nodes.urls();
        let statuses = join_all(urls.iter().map(|url| self.get(format!("{url}/v1")))).await;
        let seen = statuses.into_iter().zip(&urls).filter_map(|(status, url)| Some((status?, url)));
        let progress = |status: &Value| (number(status, "term"), number(status, "applied_index"));
        let Some((status, url)) = seen.max_by_key(|(status, _)| progress(status)) else {
            return View::default();
        };
        let rows = format!("{url}/v1/jobs/{JOB}/executions?stale&_sort=due&_end={RUNS_MAX}");
        let (members, rows) = tokio::join!(self.get(format!("{url}/v1/members")), self.get(rows));
        let view = View::read(&status, members.as_ref(), rows.as_ref());
        if view.leader.is_some() && rows.is_none() {
            self.put_job(url).await;
        }
        view
    }

    async fn get(&self, url: String) -> Option<Value> {
        let response = self.client.get(url).timeout(LOOK_TIMEOUT).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        serde_json::from_slice(&response.bytes().await.ok()?).ok()
    }

    /// Stores the job. If that fails, the next look tries again.
    async fn put_job(&self, url: &str) {
        let job = json!({
            "name": JOB,
            "displayname": "the job of the demo",
            "schedule": "@every 2s",
            "tags": { "kind": "agent:1" },
            "executor": "shell",
            "executor_config": { "shell": "true", "command": "echo due at $CRONCLAVE_DUE" },
        });
        let put = self.client.put(format!("{url}/v1/jobs/{JOB}")).body(job.to_string());
        let _ = put.timeout(PUT_TIMEOUT).send().await;
    }
}

impl View {
    fn read(status: &Value, members: Option<&Value>, rows: Option<&Value>) -> Self {
        let list =
            |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let leader = text(&status["raft"], "leader");
        Self {
            leader: Some(leader).filter(|leader| !leader.is_empty()),
            term: number(status, "term"),
            waiting_for: text(&status["raft"], "waiting_for"),
            members: list(members).iter().map(Member::read).collect(),
            runs: list(rows).iter().map(Run::read).collect(),
        }
    }

    /// What the demo itself has killed is down, whatever the others know by now.
    pub(super) fn mark_down(&mut self, nodes: &Nodes) {
        for member in self.members.iter_mut().filter(|member| nodes.is_down(&member.name)) {
            "killed".clone_into(&mut member.status);
        }
    }

    pub(super) fn has_success(&self) -> bool {
        self.runs.iter().any(|run| run.outcome == "succeeded")
    }
}

impl Member {
    fn read(value: &Value) -> Self {
        let name = text(value, "Name");
        let role = if SERVERS.contains(&name.as_str()) { "server" } else { "agent" };
        let addr = format!("{}:{}", text(value, "Addr"), value["Port"]);
        Self { name, addr, role, raft: text(value, "raft"), status: text(value, "statusText") }
    }
}

impl Run {
    fn read(value: &Value) -> Self {
        Self {
            id: text(value, "id"),
            due: text(value, "due"),
            node: text(value, "node_name"),
            outcome: text(value, "outcome"),
            lateness: value["lateness"].as_f64(),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        !["claimed", "running"].contains(&self.outcome.as_str())
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// A figure of Raft, which `/v1` writes as text.
fn number(status: &Value, field: &str) -> u64 {
    status["raft"][field].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
