//! Every call and every status, over real sockets, against a node that applies writes at once.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::id::{ExecutionId, LogIndex, NodeId, Term};
use crate::jobs::command::{Claim, Command, Plan, Stamped, Timing};
use crate::jobs::history::change::{Limits, Query, Select};
use crate::jobs::history::memory_backend::MemoryBackend;
use crate::jobs::history::store::Store;
use crate::jobs::job::{Outcome, RunResult, Target, Trigger};
use crate::jobs::state::State as Jobs;
use crate::node::request::{Member, MemberStatus, NodeStatus, RaftRole};
use crate::time::Wall;

/// A node of one server, whose log is a counter.
#[derive(Clone)]
struct Fake(Arc<Mutex<FakeNode>>);

struct FakeNode {
    jobs: Jobs,
    history: Store,
    index: u64,
    mood: Mood,
    asked: Vec<Request>,
}

/// How the node takes requests.
enum Mood {
    /// It carries them out.
    Works,
    /// It answers all of them so.
    Fails(RequestError),
    /// It carries out these many writes and fails after them.
    FailsAfter(usize, RequestError),
    /// It knows no leader.
    Leaderless,
    /// It does not answer.
    Hangs,
    /// It answers something else than was asked.
    Confused,
}

impl Backend for Fake {
    async fn request(&self, request: Request) -> Reply {
        let reply = self.lock().answer(request);
        match reply {
            Some(reply) => reply,
            None => pending().await,
        }
    }
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, FakeNode> {
        self.0.lock().unwrap()
    }

    fn feel(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    fn apply(&self, command: Command) -> Applied {
        self.lock().apply(command)
    }

    /// How many writes reached the node.
    fn writes(&self) -> usize {
        let node = self.lock();
        node.asked.iter().filter(|request| matches!(request, Request::Write(_))).count()
    }
}

impl FakeNode {
    fn new() -> Self {
        let history = Store::open(MemoryBackend::new(), Limits::default()).unwrap();
        Self { jobs: Jobs::default(), history, index: 0, mood: Mood::Works, asked: Vec::new() }
    }

    fn answer(&mut self, request: Request) -> Option<Reply> {
        self.asked.push(request.clone());
        match &mut self.mood {
            Mood::Works => {}
            Mood::FailsAfter(0, error) | Mood::Fails(error) => {
                return Some(Reply::Failed(error.clone()));
            }
            Mood::FailsAfter(left, _) => *left -= 1,
            Mood::Leaderless => {}
            Mood::Hangs => return None,
            Mood::Confused => return Some(Reply::Left),
        }
        Some(match request {
            Request::Write(write) => Reply::Written(Box::new(self.write(write))),
            Request::Read(_) => Reply::View(Box::new(View {
                state: self.jobs.clone(),
                applied: Some(LogIndex(self.index)),
                leader: Some(node_name()),
            })),
            Request::Executions { job, select, .. } => self.executions(job, select),
            Request::Members => Reply::Members(vec![member()]),
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Leave => Reply::Left,
        })
    }

    fn executions(&self, job: JobName, select: Select) -> Reply {
        let Some(stored) = self.jobs.job(&job) else {
            return Reply::Failed(RequestError::JobNotFound(job));
        };
        let open = self.jobs.open_of(stored).cloned().collect();
        let page = self.history.page(&Query { job, open, select }).unwrap();
        Reply::Executions(Box::new(page))
    }

    fn write(&mut self, write: Write) -> Applied {
        let command = match write {
            Write::PutJob(spec) => {
                let timing = Timing { anchor: self.stamp(), next: None };
                Command::PutJob { spec, timing }
            }
            Write::DeleteJob(name) => Command::DeleteJob { name },
            Write::ToggleJob(name) => {
                let revision = self.jobs.job(&name).map(|job| job.revision).unwrap_or_default();
                Command::ToggleJob { name, revision, next: None }
            }
            Write::RunJob(job) => {
                let revision = self.jobs.job(&job).map(|job| job.revision).unwrap_or_default();
                let plan = Plan::Run(vec![Target { id: NodeId(1), name: node_name() }]);
                let (trigger, due) = (Trigger::Manual, self.stamp());
                Command::Claim(vec![Claim { job, revision, trigger, due, next: None, plan }])
            }
            Write::SetTimezone(timezone) => Command::Settings { timezone },
        };
        self.apply(command)
    }

    fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let entry = Stamped { stamp: self.stamp(), id: None, command };
        let index = LogIndex(self.index);
        let (applied, changes) = self.jobs.apply(index, &entry);
        let changes: Vec<_> = changes.into_iter().map(|change| (index, change)).collect();
        self.history.apply(index, &changes).unwrap();
        applied
    }

    fn stamp(&self) -> Wall {
        Wall::from_secs(1_700_000_000 + i64::try_from(self.index).unwrap())
    }

    fn status(&self) -> NodeStatus {
        let leads = !matches!(self.mood, Mood::Leaderless);
        NodeStatus {
            id: NodeId(1),
            name: node_name(),
            server: true,
            cluster: None,
            tags: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
            term: Term(3),
            leader: leads.then(node_name),
            is_leader: leads,
            applied: Some(LogIndex(self.index)),
            committed: Some(LogIndex(self.index)),
            voters: vec![node_name()],
            running: 0,
            disk_full: None,
            waiting_for: (!leads).then(|| "3 servers, know 1".to_owned()),
            in_doubt: None,
        }
    }
}

fn node_name() -> NodeName {
    NodeName::new("alpha").unwrap()
}

fn member() -> Member {
    Member {
        id: NodeId(1),
        name: node_name(),
        gossip_addr: "[::1]:8946".to_owned(),
        peer_addr: "[::1]:6868".to_owned(),
        tags: BTreeMap::from([("dc".to_owned(), "dc1".to_owned())]),
        status: MemberStatus::Alive,
        raft: RaftRole::Leader,
        disk_full: false,
    }
}

/// A running API and a client of it.
struct Bench {
    url: String,
    fake: Fake,
    client: Client,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The names of the jobs in a list, in their order.
    fn names(&self) -> Vec<String> {
        let list = self.json();
        let list = list.as_array().unwrap();
        list.iter().map(|job| job["name"].as_str().unwrap().to_owned()).collect()
    }

    /// It is an error of this status and code, as JSON, and says `text`.
    #[track_caller]
    fn assert_error(&self, status: u16, code: &str, text: &str) {
        let body = self.json();
        assert_eq!((self.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
        assert!(body["error"].as_str().unwrap().contains(text), "{body} lacks {text:?}");
        assert_eq!(self.header("x-whom"), "alpha");
        assert_eq!(!self.header("retry-after").is_empty(), status == 503);
    }
}

impl Bench {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Fake(Arc::new(Mutex::new(FakeNode::new())));
        let router = router(fake.clone(), HttpConfig::new(node_name()));
        tokio::spawn(serve(listener, router, pending()));
        let redirect = reqwest::redirect::Policy::none();
        let client = Client::builder().no_proxy().redirect(redirect).build().unwrap();
        Self { url, fake, client }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        self.send(self.request(method, path)).await
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request(Method::POST, path).body(body)).await
    }

    /// Stores a job with these fields beside the required ones.
    async fn put(&self, name: &str, fields: Value) -> Answer {
        let mut body = job(name);
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.post("/v1/jobs", body.to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer
    }

    /// Runs a job that is stored, to this end, and gives the execution's id.
    async fn ran(&self, name: &str, outcome: Outcome, output: &str) -> ExecutionId {
        let id = self.started(name).await;
        let result = RunResult {
            outcome,
            reason: String::new(),
            exit_code: Some(0),
            output: output.to_owned(),
            output_truncated: false,
        };
        self.fake.apply(Command::Finished { execution: id, result });
        id
    }

    /// Runs a job and has its node start it.
    async fn started(&self, name: &str) -> ExecutionId {
        let answer = self.call(Method::POST, &format!("/v1/jobs/{name}/run")).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        let (_, id) = answer.header("location").rsplit_once('/').unwrap();
        let execution = id.parse().unwrap();
        let at = self.fake.lock().stamp();
        self.fake.apply(Command::Started { execution, at });
        execution
    }
}

fn job(name: &str) -> Value {
    json!({
        "name": name,
        "schedule": "@every 1h",
        "executor": "shell",
        "executor_config": { "command": "date" },
    })
}

#[tokio::test]
async fn a_job_is_stored_read_toggled_and_deleted() {
    let bench = Bench::start().await;
    let stored = bench.post("/v1/jobs", job("nightly").to_string()).await;
    assert_eq!(stored.status, StatusCode::CREATED);
    assert_eq!(stored.header("location"), "/v1/jobs/nightly");
    assert_eq!(stored.json()["id"], "nightly");
    assert_eq!(stored.json()["next"], "0001-01-01T00:00:00Z");

    let read = bench.get("/v1/jobs/nightly").await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(read.json(), stored.json());
    assert_eq!(read.header("x-whom"), "alpha");
    assert_eq!(read.header("content-type"), "application/json; charset=utf-8");

    let toggled = bench.call(Method::POST, "/v1/jobs/nightly/toggle").await;
    assert_eq!((toggled.status, &toggled.json()["disabled"]), (StatusCode::OK, &json!(true)));

    let deleted = bench.call(Method::DELETE, "/v1/jobs/nightly").await;
    assert_eq!((deleted.status, &deleted.json()["name"]), (StatusCode::OK, &json!("nightly")));
    bench.get("/v1/jobs/nightly").await.assert_error(404, "not_found", "job \"nightly\"");
}

#[tokio::test]
async fn what_is_not_there_is_404_for_every_call_about_a_job() {
    let bench = Bench::start().await;
    for (method, path) in [
        (Method::GET, "/v1/jobs/nope"),
        (Method::DELETE, "/v1/jobs/nope"),
        (Method::POST, "/v1/jobs/nope"),
        (Method::POST, "/v1/jobs/nope/run"),
        (Method::POST, "/v1/jobs/nope/toggle"),
        (Method::GET, "/v1/jobs/nope/executions"),
        (Method::GET, "/v1/jobs/nope/executions/1-0"),
        (Method::GET, "/v1/jobs/No%20Name"),
        (Method::GET, "/v2"),
        (Method::GET, "/"),
    ] {
        bench.call(method, path).await.assert_error(404, "not_found", "");
    }
    bench.get("/v1/jobs/%ff").await.assert_error(400, "invalid_request", "");
}

#[tokio::test]
async fn put_takes_the_name_from_the_path_and_refuses_another() {
    let bench = Bench::start().await;
    let mut body = job("a");
    let put = |body: &Value, path: &str| {
        bench.send(bench.request(Method::PUT, path).body(body.to_string()))
    };
    assert_eq!(put(&body, "/v1/jobs/a").await.status, StatusCode::CREATED);
    put(&body, "/v1/jobs/b").await.assert_error(400, "invalid_job", "\"b\"");
    body.as_object_mut().unwrap().remove("name");
    let stored = put(&body, "/v1/jobs/b").await;
    assert_eq!((stored.status, &stored.json()["name"]), (StatusCode::CREATED, &json!("b")));
    body["name"] = Value::Null;
    assert_eq!(put(&body, "/v1/jobs/c").await.json()["name"], "c");
    put(&body, "/v1/jobs/C").await.assert_error(400, "invalid_job", "illegal character 'C'");
    let patched = bench.request(Method::PATCH, "/v1/jobs").body(job("d").to_string());
    assert_eq!(bench.send(patched).await.status, StatusCode::CREATED);
    assert_eq!(bench.get("/v1/jobs").await.names(), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn what_is_no_valid_job_is_400_and_never_reaches_the_node() {
    let bench = Bench::start().await;
    let with = |key: &str, value: Value| {
        let mut body = job("a");
        body[key] = value;
        body.to_string()
    };
    for (body, code, text) in [
        (String::new(), "invalid_payload", "Unable to parse payload: "),
        ("{".to_owned(), "invalid_payload", "Unable to parse payload: "),
        ("[]".to_owned(), "invalid_payload", "Unable to parse payload: "),
        (with("retries", json!(-1)), "invalid_payload", "retries"),
        (with("name", json!("")), "invalid_job", "Job validation failed: name cannot be empty."),
        (with("name", json!("A")), "invalid_job", "name contains illegal character 'A'"),
        (with("schedule", json!("0 * * * *")), "invalid_job", "expected exactly 6 fields"),
        (with("schedule", json!("TZ=x")), "invalid_job", "can't parse job schedule: "),
        (with("timezone", json!("Mars/Base")), "invalid_job", "Mars/Base"),
        (with("concurrency", json!("replace")), "invalid_job", "\"allow\" or \"forbid\""),
        (with("executor", json!("http")), "invalid_job", "http"),
        (with("executor_config", json!({"command": "a", "timeout": "5"})), "invalid_job", "5"),
    ] {
        bench.post("/v1/jobs", body).await.assert_error(400, code, text);
    }
    assert_eq!(bench.fake.writes(), 0);
}

#[tokio::test]
async fn a_body_is_read_as_json_whatever_it_is_said_to_be() {
    let bench = Bench::start().await;
    let body = format!("{} trailing", job("a"));
    let request = bench.request(Method::POST, "/v1/jobs").header("content-type", "text/plain");
    assert_eq!(bench.send(request.body(body)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let bench = Bench::start().await;
    let limit = HttpConfig::new(node_name()).body_len_max;
    let padded = |len: usize| {
        let body = job("a").to_string();
        format!("{body}{}", " ".repeat(len - body.len()))
    };
    assert_eq!(bench.post("/v1/jobs", padded(limit)).await.status, StatusCode::CREATED);
    let over = bench.post("/v1/jobs", padded(limit + 1)).await;
    over.assert_error(413, "payload_too_large", "1048576 bytes");
    assert_eq!(bench.fake.writes(), 1);
}

#[tokio::test]
async fn jobs_are_filtered_sorted_and_paged() {
    let bench = Bench::start().await;
    bench.put("c", json!({"displayname": "Backup", "metadata": {"team": "ops", "x": "1"}})).await;
    bench.put("a", json!({"displayname": "Report", "metadata": {"team": "ops"}})).await;
    bench.put("b", json!({"disabled": true, "schedule": "@daily"})).await;
    bench.ran("a", Outcome::Succeeded, "").await;
    let names = async |query: &str| {
        let answer = bench.get(&format!("/v1/jobs?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
        (answer.names().concat(), answer.header("x-total-count").to_owned())
    };
    for (query, expected, total) in [
        ("", "abc", "3"),
        ("metadata[team]=ops", "ac", "2"),
        ("metadata%5Bteam%5D=ops&metadata[x]=1", "c", "1"),
        ("q=Rep", "a", "1"),
        ("q=b", "b", "1"),
        ("status=success", "a", "1"),
        ("status=untriggered", "bc", "2"),
        ("status=&disabled=", "abc", "3"),
        ("disabled=true", "b", "1"),
        ("disabled=false&_order=desc", "ca", "2"),
        ("_sort=id&_order=DESC", "cba", "3"),
        ("_sort=displayname", "bca", "3"),
        ("_sort=schedule", "bac", "3"),
        ("_sort=success_count&_order=DESC", "acb", "3"),
        ("_sort=last_success", "bca", "3"),
        ("_start=1&_end=2", "b", "3"),
        ("_start=2&_end=90", "c", "3"),
        ("_start=9&_end=10", "", "3"),
        ("_start=3", "", "3"),
        ("_end=0", "", "3"),
        ("_end=99999999999999999999999999", "abc", "3"),
    ] {
        assert_eq!(names(query).await, (expected.to_owned(), total.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_meant_is_400() {
    let bench = Bench::start().await;
    bench.put("a", json!({})).await;
    for (path, text) in [
        ("/v1/jobs?_start=2&_end=1", "_end 1 is before _start 2"),
        ("/v1/jobs?_start=-1", "_start"),
        ("/v1/jobs?_end=x", "_end"),
        ("/v1/jobs?_sort=color", "invalid _sort \"color\": must be id"),
        ("/v1/jobs?_order=up", "ASC or DESC"),
        ("/v1/jobs?status=running", "untriggered"),
        ("/v1/jobs?disabled=maybe", "true or false"),
        ("/v1/jobs?metadata[a=1", "metadata[key]=value"),
        ("/v1/jobs/a/executions?_sort=output", "invalid _sort"),
        ("/v1/jobs/a/executions?_start=5&_end=4", "before"),
        ("/v1/jobs/a/executions?output_size_limit=-5", "output_size_limit"),
    ] {
        bench.get(path).await.assert_error(400, "invalid_request", text);
    }
}

#[tokio::test]
async fn a_run_is_accepted_at_once_and_names_its_execution() {
    let bench = Bench::start().await;
    bench.put("a", json!({})).await;
    for path in ["/v1/jobs/a", "/v1/jobs/a/run"] {
        let run = bench.call(Method::POST, path).await;
        assert_eq!((run.status, &run.json()["name"]), (StatusCode::ACCEPTED, &json!("a")));
        let row = bench.get(run.header("location")).await;
        assert_eq!(row.status, StatusCode::OK);
        assert_eq!(row.json()["job_name"], "a");
        assert_eq!(row.json()["trigger"], "manual");
    }
}

#[tokio::test]
async fn run_on_create_runs_the_job_once_and_only_if_asked() {
    let bench = Bench::start().await;
    let rows = async |name: &str| {
        let answer = bench.get(&format!("/v1/jobs/{name}/executions")).await;
        answer.header("x-total-count").to_owned()
    };
    for (name, query, runs) in
        [("a", "?runoncreate", "1"), ("b", "?runoncreate=true", "1"), ("c", "", "0")]
    {
        let answer = bench.post(&format!("/v1/jobs{query}"), job(name).to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(rows(name).await, runs, "{query}");
    }
    bench.fake.feel(Mood::FailsAfter(1, RequestError::Unknown));
    let failed = bench.post("/v1/jobs?runoncreate", job("d").to_string()).await;
    failed.assert_error(503, "outcome_unknown", "the job is stored");
}

#[tokio::test]
async fn executions_are_listed_newest_first_and_belong_to_their_job_alone() {
    let bench = Bench::start().await;
    bench.put("foo", json!({})).await;
    bench.put("foobar", json!({})).await;
    let first = bench.ran("foo", Outcome::Succeeded, "one").await.to_string();
    let other = bench.ran("foobar", Outcome::Succeeded, "two").await.to_string();
    let last = bench.ran("foo", Outcome::Failed, "three").await.to_string();
    let ids = async |path: &str| {
        let answer = bench.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let list = answer.json();
        let ids: Vec<Value> =
            list.as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
        (ids, answer.header("x-total-count").to_owned())
    };
    let both = "2".to_owned();
    let path = "/v1/jobs/foo/executions";
    assert_eq!(ids(path).await, (vec![json!(last), json!(first)], both.clone()));
    for sort in ["id", "due", "started_at", "finished_at", "attempt"] {
        let sorted = ids(&format!("{path}?_sort={sort}&_order=ASC")).await;
        assert_eq!(sorted, (vec![json!(first), json!(last)], both.clone()), "{sort}");
    }
    assert_eq!(ids(&format!("{path}?_start=1&_end=5")).await, (vec![json!(first)], both));

    let row = bench.get(&format!("{path}/{first}")).await.json();
    assert_eq!((&row["output"], &row["success"]), (&json!("one"), &json!(true)));
    for id in [other.as_str(), "999-0", "nonsense"] {
        bench.get(&format!("{path}/{id}")).await.assert_error(404, "not_found", "no execution");
    }
    bench.call(Method::DELETE, "/v1/jobs/foo").await;
    assert_eq!(ids("/v1/jobs/foobar/executions").await.0, [json!(other)]);
    bench.put("foo", json!({})).await;
    assert_eq!(ids(path).await, (Vec::new(), "0".to_owned()));
}

#[tokio::test]
async fn a_job_does_not_inherit_the_executions_of_one_that_had_its_name() {
    let bench = Bench::start().await;
    bench.put("a", json!({})).await;
    let path = format!("/v1/jobs/a/executions/{}", bench.started("a").await);
    bench.call(Method::DELETE, "/v1/jobs/a").await;
    bench.put("a", json!({})).await;
    bench.get(&path).await.assert_error(404, "not_found", "no execution");
    assert_eq!(bench.get("/v1/jobs/a/executions").await.json(), json!([]));
    // Its process runs on, all the same.
    assert_eq!(bench.get("/v1/busy").await.header("x-total-count"), "1");
}

#[tokio::test]
async fn output_is_cut_to_its_end_between_characters() {
    let bench = Bench::start().await;
    bench.put("a", json!({})).await;
    bench.ran("a", Outcome::Succeeded, "abc\u{e4}\u{f6}").await;
    for (limit, output, truncated) in
        [("7", "abc\u{e4}\u{f6}", false), ("3", "\u{f6}", true), ("0", "", true)]
    {
        let list = bench.get(&format!("/v1/jobs/a/executions?output_size_limit={limit}")).await;
        let row = &list.json()[0];
        assert_eq!(row["output"], output, "{limit}");
        assert_eq!(row["output_truncated"], truncated, "{limit}");
    }
}

#[tokio::test]
async fn busy_lists_what_runs_now() {
    let bench = Bench::start().await;
    bench.put("a", json!({})).await;
    assert_eq!(bench.get("/v1/busy").await.json(), json!([]));
    let running = bench.started("a").await;
    bench.call(Method::POST, "/v1/jobs/a/run").await;
    let busy = bench.get("/v1/busy").await;
    assert_eq!(busy.header("x-total-count"), "1");
    assert_eq!(busy.json()[0]["id"], running.to_string());
    assert_eq!(busy.json()[0]["finished_at"], "0001-01-01T00:00:00Z");
}

#[tokio::test]
async fn the_cluster_is_shown_as_dkron_shows_it() {
    let bench = Bench::start().await;
    for path in ["/v1", "/v1/"] {
        let root = bench.get(path).await.json();
        assert_eq!(root["agent"]["name"], "alpha");
        assert_eq!(root["agent"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(root["serf"]["members"], "1");
        assert_eq!(root["raft"]["state"], "Leader");
        assert_eq!(root["tags"]["role"], "web");
    }
    let members = bench.get("/v1/members").await;
    assert_eq!(members.header("x-total-count"), "1");
    let member = &members.json()[0];
    assert_eq!((&member["Name"], &member["Addr"]), (&json!("alpha"), &json!("::1")));
    assert_eq!((&member["Port"], &member["Status"]), (&json!(8946), &json!(1)));
    assert_eq!((&member["statusText"], &member["Tags"]["dc"]), (&json!("alive"), &json!("dc1")));
    let leader = bench.get("/v1/leader").await.json();
    assert_eq!((&leader["Name"], leader.get("id")), (&json!("alpha"), None));
    let is_leader = bench.get("/v1/isleader").await;
    assert_eq!((is_leader.status, is_leader.json()), (StatusCode::OK, json!("I am a leader")));
    assert_eq!(bench.get("/debug/vars").await.json()["log"]["syncs"], 0);
    let left = bench.call(Method::POST, "/v1/leave").await;
    assert_eq!((left.status, &left.json()["status"]), (StatusCode::OK, &json!("left")));
}

#[tokio::test]
async fn without_a_leader_the_process_lives_and_is_not_ready() {
    let bench = Bench::start().await;
    assert_eq!(bench.get("/health?ready").await.status, StatusCode::OK);
    bench.fake.feel(Mood::Leaderless);
    let health = bench.get("/health").await;
    assert_eq!((health.status, health.json()), (StatusCode::OK, json!({"status": "healthy"})));
    let missing = "no leader: 3 servers, know 1";
    bench.get("/health?ready").await.assert_error(503, "no_leader", missing);
    bench.get("/v1/leader").await.assert_error(503, "no_leader", missing);
    let is_leader = bench.get("/v1/isleader").await;
    assert_eq!(is_leader.status, StatusCode::NOT_FOUND);
    assert_eq!(is_leader.json(), "I am a follower");
    assert_eq!(bench.get("/v1").await.json()["raft"]["state"], "NoLeader");
}

#[tokio::test]
async fn what_the_node_refuses_keeps_its_reason() {
    let bench = Bench::start().await;
    for (error, status, code) in [
        (RequestError::NoLeader("x".to_owned()), 503, "no_leader"),
        (RequestError::Unknown, 503, "outcome_unknown"),
        (RequestError::UnknownDiskFull("x".to_owned()), 503, "outcome_unknown"),
        (RequestError::DiskFull("x".to_owned()), 507, "disk_full"),
        (RequestError::Busy(9), 503, "busy"),
        (RequestError::Stopping, 503, "stopping"),
        (RequestError::HistoryUnavailable("slow".to_owned()), 503, "history_unavailable"),
        (RequestError::Invalid("no".to_owned()), 400, "invalid_request"),
        (RequestError::NotServer, 421, "not_server"),
    ] {
        let text = error.to_string();
        bench.fake.feel(Mood::Fails(error));
        for (method, path) in [
            (Method::POST, "/v1/jobs"),
            (Method::GET, "/v1/jobs"),
            (Method::DELETE, "/v1/jobs/a"),
            (Method::GET, "/v1/busy"),
            (Method::POST, "/v1/leave"),
            (Method::GET, "/v1/members"),
        ] {
            let request = bench.request(method, path).body(job("a").to_string());
            bench.send(request).await.assert_error(status, code, &text);
        }
    }
    assert_eq!(bench.get("/health").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_answered_for() {
    let bench = Bench::start().await;
    bench.fake.feel(Mood::Hangs);
    let before = Instant::now();
    bench.get("/v1/jobs").await.assert_error(503, "no_leader", "did not answer");
    assert_eq!(before.elapsed().as_secs(), ANSWER_TIMEOUT.as_secs());
    let write = bench.post("/v1/jobs", job("a").to_string()).await;
    write.assert_error(503, "outcome_unknown", "outcome unknown");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408() {
    let bench = Bench::start().await;
    let mut stream = TcpStream::connect(bench.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stays_silent_is_closed() {
    let bench = Bench::start().await;
    let mut stream = TcpStream::connect(bench.url.strip_prefix("http://").unwrap()).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let fake = Fake(Arc::new(Mutex::new(FakeNode::new())));
    let router = router(fake, HttpConfig::new(node_name()));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router, async { stopped.await.unwrap() }));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\
                expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The call is under way once its body is asked for; it never comes.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    let before = Instant::now();
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert_eq!(before.elapsed().as_secs(), SHUTDOWN_TIMEOUT.as_secs());
}

#[tokio::test]
async fn a_confused_node_is_a_500_and_nothing_else_is() {
    let bench = Bench::start().await;
    bench.fake.feel(Mood::Confused);
    bench.get("/v1/jobs").await.assert_error(500, "internal", "bug");
}

#[tokio::test]
async fn a_stale_read_is_asked_for_and_says_so() {
    let bench = Bench::start().await;
    bench.put("a", json!({})).await;
    for path in ["/v1/jobs", "/v1/jobs/a", "/v1/busy", "/v1/jobs/a/executions"] {
        assert_eq!(bench.get(path).await.header("x-cronclave-stale"), "", "{path}");
        let stale = bench.get(&format!("{path}?stale")).await;
        assert_eq!(stale.header("x-cronclave-stale"), "true", "{path}");
        let asked = bench.fake.lock().asked.last().cloned();
        let consistency = match asked {
            Some(Request::Read(consistency) | Request::Executions { consistency, .. }) => {
                Some(consistency)
            }
            Some(Request::Write(_) | Request::Members | Request::Status | Request::Leave)
            | None => None,
        };
        assert_eq!(consistency, Some(Consistency::Stale), "{path}");
    }
}

#[tokio::test]
async fn methods_and_trailing_slashes_are_dkrons() {
    let bench = Bench::start().await;
    let wrong = bench.call(Method::DELETE, "/v1/jobs").await;
    wrong.assert_error(405, "method_not_allowed", "/v1/jobs does not take DELETE");
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    let moved = bench.get("/v1/jobs/?_end=1").await;
    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.header("location"), "/v1/jobs?_end=1");
    let moved = bench.post("/v1/jobs/", job("a").to_string()).await;
    assert_eq!(moved.status, StatusCode::TEMPORARY_REDIRECT);
    bench.get("//elsewhere/").await.assert_error(404, "not_found", "");
    let pretty = bench.get("/v1/jobs?pretty").await;
    assert_eq!(pretty.text, "[]");
    bench.put("a", json!({})).await;
    assert!(bench.get("/v1/jobs/a?pretty").await.text.starts_with("{\n    \"id\": \"a\",\n"));
    assert_eq!(bench.call(Method::HEAD, "/v1/jobs/a").await.status, StatusCode::OK);
}

#[tokio::test]
async fn pages_of_other_origins_may_read_and_nothing_else() {
    let bench = Bench::start().await;
    let from = async |method: Method, name: &str, value: &str| {
        let request = bench.request(method, "/v1/jobs").header(name, value);
        bench.send(request.body(job("a").to_string())).await
    };
    let read = from(Method::GET, "origin", "https://elsewhere.example").await;
    assert_eq!(read.header("access-control-allow-origin"), "*");
    for (name, value) in [
        ("origin", "https://elsewhere.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let write = from(Method::POST, name, value).await;
        write.assert_error(403, "cross_origin", "another origin");
    }
    assert_eq!(bench.fake.writes(), 0);
    for (name, value) in [("origin", bench.url.as_str()), ("sec-fetch-site", "same-origin")] {
        assert_eq!(from(Method::POST, name, value).await.status, StatusCode::CREATED);
    }
    let preflight = bench.call(Method::OPTIONS, "/v1/jobs").await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD");
}
