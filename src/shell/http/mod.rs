//! The REST API: Dkron's `/v1`, answered by this node.
//!
//! A handler reads the call, asks the node through [`Backend`] and writes what it is told as JSON;
//! it decides nothing about the cluster. A read brings a cheap handle of the whole replicated
//! state, which is filtered, sorted and cut here, away from the node's own task.
//!
//! | call | answer |
//! |---|---|
//! | `GET /v1` | this node, its gossip and Raft figures, its tags |
//! | `GET /health` | 200 while the process lives; with `?ready` 503 without a leader |
//! | `GET /v1/members`, `/v1/leader`, `/v1/isleader` | the cluster |
//! | `POST /v1/leave` | this node leaves the cluster and stops |
//! | `GET /v1/busy` | executions that run now |
//! | `GET /v1/jobs` | `metadata[k]`, `q`, `status`, `disabled`, `_sort`, `_order`, a page |
//! | `POST`, `PATCH /v1/jobs` | store a job whole, new or not; `?runoncreate` runs it as well |
//! | `PUT`, `PATCH /v1/jobs/:job` | the same for the job of that name |
//! | `GET`, `DELETE /v1/jobs/:job` | one job |
//! | `POST /v1/jobs/:job`, `/v1/jobs/:job/run` | 202: run it now, without waiting for its end |
//! | `POST /v1/jobs/:job/toggle` | disable or enable it |
//! | `GET /v1/jobs/:job/executions` | at most 1,000 rows; `output_size_limit`, order and page |
//! | `GET /v1/jobs/:job/executions/:execution` | one row |
//! | `GET /debug/vars` | [what this server has done](crate::shell::counters) since it started |
//!
//! Everywhere: `?pretty`, the header `X-Whom`, errors as JSON (`error`, `code`). Reads see every
//! write acknowledged before them; `?stale` reads what this server has and says so in
//! `X-Cronclave-Stale`.
//!
//! **Invariants**
//! - A call is answered within [`ANSWER_TIMEOUT`] after its body has arrived, leader or not.
//! - A call that is answered 4xx has changed nothing.
//! - No input from a client makes a 500.
//!
//! **Left out on purpose**
//! - Cross-origin access (CORS) to anything that changes the cluster: Dkron allows it to every web
//!   page, and bodies are read whatever their Content-Type, so any page that an operator opens
//!   could store a job that runs a command. Reads keep Dkron's `*`.
//! - A check of the header `Host`, which would stop a page that has its own name resolve to this
//!   machine: it needs to be told by which names the server is called.
//! - Times in the job's zone, which Dkron gives in one list alone: all are UTC.

mod cluster;
mod error;
mod executions;
mod jobs;
mod listener;
mod query;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Request as Call, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use self::error::ApiError;
use self::query::{Layout, Params};
use crate::id::{JobName, NodeName};
use crate::jobs::command::Applied;
use crate::jobs::history::change::{Page as Rows, Select};
use crate::node::request::{Consistency, Reply, Request, RequestError, View, Write};
use crate::shell::counters::Counters;

/// How long a call may take after its body has arrived. The node answers in
/// [`REQUEST_TIMEOUT`](crate::node::request::REQUEST_TIMEOUT); this holds even if it does not.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Room for an answer about one job, so that it is not moved while it is written.
const ANSWER_LEN: usize = 1_024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and dropped, so that the client reads its answer
/// rather than a reset connection.
const DRAIN_LEN_MAX: usize = 8 << 20;
/// How long calls that are under way may take to end after a shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

const X_WHOM: HeaderName = HeaderName::from_static("x-whom");
const X_TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const X_STALE: HeaderName = HeaderName::from_static("x-cronclave-stale");

/// The node, as the API sees it. In production a bounded channel to the task that owns it.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Asks the node; a full queue is answered with [`RequestError::Busy`].
    ///
    /// The future may be dropped before it is ready, when the client hangs up or the node is late.
    /// What was asked may be carried out all the same.
    fn request(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// What the API has to know.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// This node's name, in the header `X-Whom` of every answer.
    pub node_name: NodeName,
    /// The program's version.
    pub version: &'static str,
    /// The most bytes that a body may have; larger ones are refused with 413.
    pub body_len_max: usize,
    /// What `GET /debug/vars` shows.
    pub counters: Arc<Counters>,
}

impl HttpConfig {
    /// The limits of production for the node `node_name`.
    pub fn new(node_name: NodeName) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self { node_name, version, body_len_max: 1 << 20, counters: Arc::default() }
    }
}

/// The API over `backend`.
pub fn router<B: Backend>(backend: B, config: HttpConfig) -> Router {
    let api = Api { backend, config: Arc::new(config) };
    Router::new()
        .route("/health", get(cluster::health::<B>))
        .route("/debug/vars", get(cluster::vars::<B>))
        .route("/v1", get(cluster::root::<B>))
        .route("/v1/", get(cluster::root::<B>))
        .route("/v1/members", get(cluster::members::<B>))
        .route("/v1/leader", get(cluster::leader::<B>))
        .route("/v1/isleader", get(cluster::is_leader::<B>))
        .route("/v1/leave", post(cluster::leave::<B>))
        .route("/v1/busy", get(executions::busy::<B>))
        .route("/v1/jobs", get(jobs::list::<B>).post(jobs::create::<B>).patch(jobs::create::<B>))
        .route(
            "/v1/jobs/{job}",
            get(jobs::one::<B>)
                .put(jobs::replace::<B>)
                .patch(jobs::replace::<B>)
                .delete(jobs::delete::<B>)
                .post(jobs::run::<B>),
        )
        .route("/v1/jobs/{job}/run", post(jobs::run::<B>))
        .route("/v1/jobs/{job}/toggle", post(jobs::toggle::<B>))
        .route("/v1/jobs/{job}/executions", get(executions::list::<B>))
        .route("/v1/jobs/{job}/executions/{execution}", get(executions::one::<B>))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&api.config), around))
        .with_state(api)
}

/// Answers calls on `listener` until `shutdown`, then lets those under way end, for
/// [`SHUTDOWN_TIMEOUT`] at most.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let signal = async move {
        shutdown.await;
        // The receiver is gone only when the server has ended already.
        let _ = stopping.send(());
    };
    let listener = listener::Bounded::new(listener);
    let server = axum::serve(listener, router).with_graceful_shutdown(signal);
    let overdue = async move {
        let _ = stopped.await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        result = server => result,
        () = overdue => Ok(()),
    }
}

/// What every handler shares.
#[derive(Clone)]
struct Api<B> {
    backend: B,
    config: Arc<HttpConfig>,
}

/// One call: what it asks for beside path and body, and the way to the node.
struct Asked<B> {
    api: Api<B>,
    params: Params,
}

impl<B: Backend> FromRequestParts<Api<B>> for Asked<B> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api<B>) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, api).await?;
        Ok(Self { api: api.clone(), params })
    }
}

impl<B: Backend> Asked<B> {
    /// When a call whose body has just arrived must be answered.
    fn deadline() -> Instant {
        Instant::now() + ANSWER_TIMEOUT
    }

    /// The node's reply to `request`, errors apart.
    async fn ask(&self, until: Instant, request: Request) -> Result<Reply, RequestError> {
        let late = match &request {
            Request::Write(_) | Request::Leave => RequestError::Unknown,
            Request::Read(_) | Request::Executions { .. } | Request::Members | Request::Status => {
                RequestError::NoLeader("the node did not answer in time".to_owned())
            }
        };
        match timeout_at(until, self.api.backend.request(request)).await {
            Ok(Reply::Failed(error)) => Err(error),
            Ok(reply) => Ok(reply),
            Err(_) => Err(late),
        }
    }

    /// The replicated state, as fresh as the call wants it.
    async fn view(&self, until: Instant) -> Result<View, ApiError> {
        let reply = self.ask(until, Request::Read(self.params.consistency())).await?;
        let Reply::View(view) = reply else { return Err(mismatch(&reply)) };
        Ok(*view)
    }

    /// Executions of a job, as fresh as the call wants them.
    async fn executions(
        &self,
        until: Instant,
        job: &JobName,
        select: Select,
    ) -> Result<Rows, ApiError> {
        let (job, consistency) = (job.clone(), self.params.consistency());
        let name = job.to_string();
        match self.ask(until, Request::Executions { job, select, consistency }).await {
            Ok(Reply::Executions(page)) => Ok(*page),
            Ok(reply) => Err(mismatch(&reply)),
            Err(RequestError::JobNotFound(_)) => Err(ApiError::NoJob(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// What a write did.
    async fn write(&self, until: Instant, write: Write) -> Result<Applied, ApiError> {
        let reply = self.ask(until, Request::Write(write)).await?;
        let Reply::Written(applied) = reply else { return Err(mismatch(&reply)) };
        Ok(*applied)
    }

    /// The whole of `body`.
    async fn payload(&self, body: Body) -> Result<Bytes, ApiError> {
        match timeout(BODY_TIMEOUT, read_body(body, self.api.config.body_len_max)).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::BodyTimeout(BODY_TIMEOUT)),
        }
    }

    /// `value` as the answer.
    fn answer<T: Serialize>(&self, status: StatusCode, value: &T) -> Response {
        json(self.params.layout(), status, value)
    }

    /// `value` as the answer to a read, marked if it may be old.
    fn answer_read<T: Serialize>(&self, value: &T) -> Response {
        let mut response = self.answer(StatusCode::OK, value);
        match self.params.consistency() {
            Consistency::Linearizable => {}
            Consistency::Stale => {
                response.headers_mut().insert(X_STALE, HeaderValue::from_static("true"));
            }
        }
        response
    }
}

/// `response` with the length of the whole list that it is a part of.
fn with_total(mut response: Response, total: usize) -> Response {
    response.headers_mut().insert(X_TOTAL_COUNT, HeaderValue::from(total));
    response
}

/// The node answered a question that was not asked.
fn mismatch(reply: &Reply) -> ApiError {
    tracing::error!(?reply, "the node answered something else than was asked");
    ApiError::Mismatch
}

fn json<T: Serialize>(layout: Layout, status: StatusCode, value: &T) -> Response {
    let mut bytes = Vec::with_capacity(ANSWER_LEN);
    let written = match layout {
        Layout::Compact => serde_json::to_writer(&mut bytes, value),
        Layout::Pretty => {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            value.serialize(&mut writer)
        }
    };
    written.expect("views have text keys and no failing serializers");
    let content_type = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, content_type, bytes).into_response()
}

async fn read_body(body: Body, len_max: usize) -> Result<Bytes, ApiError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > len_max.saturating_add(DRAIN_LEN_MAX) {
        return Err(ApiError::TooLarge(len_max));
    }
    let mut stream = body.into_data_stream();
    let (mut kept, mut len) = (Vec::new(), 0_usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| ApiError::Payload(error.to_string()))?;
        len = len.saturating_add(chunk.len());
        if len <= len_max {
            kept.extend_from_slice(&chunk);
        } else if len > len_max.saturating_add(DRAIN_LEN_MAX) {
            break;
        }
    }
    if len > len_max { Err(ApiError::TooLarge(len_max)) } else { Ok(Bytes::from(kept)) }
}

/// What holds for every call: who answers, and what pages of other origins may do.
async fn around(State(config): State<Arc<HttpConfig>>, call: Call, next: Next) -> Response {
    let reads = matches!(*call.method(), Method::GET | Method::HEAD);
    let mut response = if *call.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else if let Some(origin) = (!reads).then(|| foreign_origin(call.headers())).flatten() {
        ApiError::CrossOrigin(origin).into_response()
    } else {
        next.run(call).await
    };
    let headers = response.headers_mut();
    if let Ok(name) = HeaderValue::from_bytes(config.node_name.as_str().as_bytes()) {
        headers.insert(X_WHOM, name);
    }
    let all = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, all.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, all.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, all);
    let methods = HeaderValue::from_static("GET, HEAD");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    response
}

/// The origin of the web page that made the call, if it is not this server. Only browsers say one.
fn foreign_origin(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let shown = |origin: Option<&str>| origin.unwrap_or("unnamed").to_owned();
    let origin = text("origin");
    match text("sec-fetch-site") {
        Some("same-origin" | "none") => return None,
        Some(_) => return Some(shown(origin)),
        None => {}
    }
    // Browsers say `null` where they hide the origin: it has no host, and so equals none.
    let authority = origin?.split_once("://").map(|(_, authority)| authority);
    if authority.is_some() && authority == text("host") { None } else { Some(shown(origin)) }
}

async fn no_route(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    match path.strip_suffix('/') {
        // As Dkron's router does. Only below /v1/, so that no path can name another host.
        Some(trimmed) if path.starts_with("/v1/") => {
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            let location = format!("{trimmed}{query}");
            let status = match method {
                Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
                _ => StatusCode::TEMPORARY_REDIRECT,
            };
            (status, [(header::LOCATION, location)]).into_response()
        }
        _ => ApiError::NoRoute(path.to_owned()).into_response(),
    }
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::Method(method.to_string(), uri.path().to_owned())
}
