//! Calls about jobs: store, look up, list, run, toggle, delete.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::error::ApiError;
use super::query::{Order, Page, Params, invalid};
use super::{Asked, Backend, with_total};
use crate::id::JobName;
use crate::jobs::command::{Applied, Reject, Rows};
use crate::jobs::job::{Job, JobSpec, JobStatus};
use crate::jobs::json::{self, SpecError};
use crate::jobs::state::State;
use crate::jobs::view::JobView;
use crate::node::request::{RequestError, Write};
use crate::schedule::{self, Schedule};

/// `GET /v1/jobs`: the jobs that pass the filters, sorted, one page of them.
pub(super) async fn list<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&asked.params)?;
    let view = asked.view(Asked::<B>::deadline()).await?;
    // A list of many jobs takes a while: not on a thread that moves the node's messages.
    let work = spawn_blocking(move || {
        let (jobs, total) = wanted.pick(&view.state);
        let views: Vec<JobView<'_>> = jobs.into_iter().map(JobView::from).collect();
        with_total(asked.answer_read(&views), total)
    });
    Ok(work.await.expect("a list is only ever read"))
}

/// `POST` and `PATCH /v1/jobs`: stores the job in the body, new or not.
pub(super) async fn create<B: Backend>(asked: Asked<B>, body: Body) -> Result<Response, ApiError> {
    let body = asked.payload(body).await?;
    put(asked, parse(&body, None)?).await
}

/// `PUT` and `PATCH /v1/jobs/:job`: the same for the job of that name.
pub(super) async fn replace<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = asked.payload(body).await?;
    let Path(text) = path.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let name = JobName::new(&text).map_err(|error| ApiError::Job(error.to_string()))?;
    put(asked, parse(&body, Some(&name))?).await
}

/// `GET /v1/jobs/:job`.
pub(super) async fn one<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let name = named(path)?;
    let view = asked.view(Asked::<B>::deadline()).await?;
    let job = find(&view.state, &name)?;
    Ok(asked.answer_read(&JobView::from(&**job)))
}

/// `DELETE /v1/jobs/:job`: the job as it was.
pub(super) async fn delete<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let name = named(path)?;
    let until = Asked::<B>::deadline();
    let applied = asked.write(until, Write::DeleteJob(name.clone())).await?;
    if let Applied::Repeated = applied {
        let gone = Gone { id: name.as_str(), name: name.as_str() };
        return Ok(asked.answer(StatusCode::OK, &gone));
    }
    let Applied::Deleted(job) = applied else { return Err(refused(&name, &applied)) };
    Ok(asked.answer(StatusCode::OK, &JobView::from(&*job)))
}

/// `POST /v1/jobs/:job/toggle`: the job as it is now.
pub(super) async fn toggle<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let name = named(path)?;
    let until = Asked::<B>::deadline();
    let applied = asked.write(until, Write::ToggleJob(name.clone())).await?;
    let Applied::Toggled(job) = applied else { return Err(refused(&name, &applied)) };
    Ok(asked.answer(StatusCode::OK, &JobView::from(&*job)))
}

/// `POST /v1/jobs/:job` and `/v1/jobs/:job/run`: runs the job now, and does not wait for its end.
/// `Location` names the execution, or the list of them if there are more.
pub(super) async fn run<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let name = named(path)?;
    let until = Asked::<B>::deadline();
    // Looked up first: once the run is claimed, nothing may fail any more.
    let view = asked.view(until).await?;
    let job = JobView::from(&**find(&view.state, &name)?);
    let rows = claim(&asked, until, &name).await?;
    let mut location = format!("/v1/jobs/{}/executions", escape(name.as_str()));
    if let Some(Rows { first, count: 1 }) = rows {
        location = format!("{location}/{first}");
    }
    let answer = asked.answer(StatusCode::ACCEPTED, &job);
    Ok(([(header::LOCATION, location)], answer).into_response())
}

/// What is left to say of a job whose deletion was repeated.
#[derive(Serialize)]
struct Gone<'a> {
    id: &'a str,
    name: &'a str,
}

/// Which jobs `GET /v1/jobs` is to list.
struct Wanted {
    metadata: Vec<(String, String)>,
    text: Option<String>,
    status: Option<JobStatus>,
    disabled: Option<bool>,
    sort: Sort,
    order: Order,
    page: Page,
}

/// What jobs are sorted by; equal ones by name.
#[derive(Clone, Copy)]
enum Sort {
    Name,
    DisplayName,
    Schedule,
    SuccessCount,
    ErrorCount,
    LastSuccess,
    LastError,
    Next,
}

impl Wanted {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Ok(Self {
            metadata: params.metadata()?.into_iter().map(owned).collect(),
            text: params.value("q").map(str::to_owned),
            status: params.value("status").map(read_status).transpose()?,
            disabled: params.choice("disabled")?,
            sort: params.value("_sort").map_or(Ok(Sort::Name), Sort::read)?,
            order: params.order(Order::Ascending)?,
            page: params.page()?,
        })
    }

    /// The page, and how many jobs pass the filters.
    fn pick<'a>(&self, state: &'a State) -> (Vec<&'a Job>, usize) {
        let jobs = state.jobs().map(|job| &**job);
        let mut jobs: Vec<&Job> = jobs.filter(|job| self.admits(job)).collect();
        jobs.sort_by(|a, b| {
            let ordering = self.sort.compare(a, b).then_with(|| a.spec.name.cmp(&b.spec.name));
            self.order.apply(ordering)
        });
        let total = jobs.len();
        (jobs[self.page.range(total)].to_vec(), total)
    }

    fn admits(&self, job: &Job) -> bool {
        let spec = &job.spec;
        let holds = |(key, value): &(String, String)| spec.metadata.get(key) == Some(value);
        let says =
            |text: &String| spec.name.as_str().contains(text) || spec.displayname.contains(text);
        self.metadata.iter().all(holds)
            && self.text.as_ref().is_none_or(says)
            && self.status.is_none_or(|status| status == job.status)
            && self.disabled.is_none_or(|disabled| disabled == spec.disabled)
    }
}

impl Sort {
    fn read(text: &str) -> Result<Self, ApiError> {
        match text {
            "id" | "name" => Ok(Self::Name),
            "displayname" => Ok(Self::DisplayName),
            "schedule" => Ok(Self::Schedule),
            "success_count" => Ok(Self::SuccessCount),
            "error_count" => Ok(Self::ErrorCount),
            "last_success" => Ok(Self::LastSuccess),
            "last_error" => Ok(Self::LastError),
            "next" => Ok(Self::Next),
            _ => {
                let right = "id, name, displayname, schedule, success_count, error_count, \
                             last_success, last_error or next";
                Err(invalid("_sort", text, right))
            }
        }
    }

    fn compare(self, a: &Job, b: &Job) -> Ordering {
        match self {
            Self::Name => Ordering::Equal,
            Self::DisplayName => a.spec.displayname.cmp(&b.spec.displayname),
            Self::Schedule => a.spec.schedule.cmp(&b.spec.schedule),
            Self::SuccessCount => a.success_count.cmp(&b.success_count),
            Self::ErrorCount => a.error_count.cmp(&b.error_count),
            Self::LastSuccess => a.last_success.cmp(&b.last_success),
            Self::LastError => a.last_error.cmp(&b.last_error),
            Self::Next => a.next.cmp(&b.next),
        }
    }
}

fn read_status(text: &str) -> Result<JobStatus, ApiError> {
    match text {
        "success" => Ok(JobStatus::Success),
        "failed" => Ok(JobStatus::Failed),
        "partially_failed" => Ok(JobStatus::PartiallyFailed),
        "untriggered" => Ok(JobStatus::Untriggered),
        _ => Err(invalid("status", text, "success, failed, partially_failed or untriggered")),
    }
}

/// The job in `body`. If the path named it, the body names the same or none.
fn parse(body: &[u8], named: Option<&JobName>) -> Result<JobSpec, ApiError> {
    let check = |spec: &JobSpec| check(spec, named);
    let spec = match named {
        Some(name) => json::parse_job(&with_name(body, name), &check),
        None => json::parse_job(body, &check),
    };
    spec.map_err(|error| match error {
        SpecError::Payload(text) => ApiError::Payload(text),
        SpecError::Invalid(text) => ApiError::Job(text),
    })
}

/// `body` with the name that it lacks. A body that is no object stays what it is.
fn with_name<'a>(body: &'a [u8], name: &JobName) -> Cow<'a, [u8]> {
    let first = serde_json::Deserializer::from_slice(body).into_iter::<Value>().next();
    let Some(Ok(Value::Object(mut fields))) = first else { return Cow::Borrowed(body) };
    let has_name = |(key, value): (&String, &Value)| {
        key.to_lowercase() == "name" && !value.is_null() && value != ""
    };
    if fields.iter().any(has_name) {
        return Cow::Borrowed(body);
    }
    fields.insert("name".to_owned(), Value::from(name.as_str()));
    Cow::Owned(Value::Object(fields).to_string().into_bytes())
}

/// What takes other modules to judge of a job, so that nothing invalid is ever proposed.
fn check(spec: &JobSpec, named: Option<&JobName>) -> Result<(), String> {
    if let Some(name) = named.filter(|name| **name != spec.name) {
        let (path, body) = (name.as_str(), spec.name.as_str());
        return Err(format!("the path names job {path:?} and the body {body:?}"));
    }
    // Whether a schedule is valid does not depend on the zone that it would be in by default.
    Schedule::check(&spec.schedule, &spec.timezone, Tz::UTC, &spec.name)
        .map_err(|error| format!("can't parse job schedule: {error}"))?;
    match spec.executor_config.get("timeout").filter(|timeout| !timeout.is_empty()) {
        Some(timeout) => match schedule::parse_go_duration(timeout.trim()) {
            Ok(Duration::ZERO) => Err("executor_config.timeout must be above 0".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("executor_config.timeout: {error}, use for example 1m30s")),
        },
        None => Ok(()),
    }
}

/// Stores `spec`, runs it if the call says so, and answers with the job as stored.
async fn put<B: Backend>(asked: Asked<B>, spec: JobSpec) -> Result<Response, ApiError> {
    let until = Asked::<B>::deadline();
    let name = spec.name.clone();
    let applied = asked.write(until, Write::PutJob(Arc::new(spec))).await?;
    let Applied::Put { job, .. } = applied else { return Err(refused(&name, &applied)) };
    if asked.params.flag("runoncreate") {
        let run = claim(&asked, until, &name).await;
        run.map_err(|error| ApiError::StoredNotRun(Box::new(error)))?;
    }
    let answer = asked.answer(StatusCode::CREATED, &JobView::from(&*job));
    let location = format!("/v1/jobs/{}", escape(name.as_str()));
    Ok(([(header::LOCATION, location)], answer).into_response())
}

/// Claims a manual run; the rows that it made, unless they are forgotten.
async fn claim<B: Backend>(
    asked: &Asked<B>,
    until: Instant,
    name: &JobName,
) -> Result<Option<Rows>, ApiError> {
    let applied = asked.write(until, Write::RunJob(name.clone())).await?;
    if let Applied::Repeated = applied {
        return Ok(None);
    }
    let Applied::Claimed(claims) = applied else { return Err(refused(name, &applied)) };
    claims.into_iter().next().transpose().map_err(|reject| rejected(name, reject))
}

/// The job's name in the path. One that no job can have is not found.
pub(super) fn named(path: Result<Path<String>, PathRejection>) -> Result<JobName, ApiError> {
    let Path(text) = path.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    JobName::new(&text).map_err(|_| ApiError::NoJob(text))
}

/// The job of this name.
pub(super) fn find<'a>(state: &'a State, name: &JobName) -> Result<&'a Arc<Job>, ApiError> {
    state.job(name).ok_or_else(|| ApiError::NoJob(name.to_string()))
}

/// Why a write about the job `name` did not do what it says.
fn refused(name: &JobName, applied: &Applied) -> ApiError {
    match applied {
        Applied::Rejected(reject) => rejected(name, *reject),
        Applied::Repeated => {
            ApiError::Conflict(format!("job {:?} was deleted meanwhile", name.as_str()))
        }
        Applied::Founded(_)
        | Applied::Admitted
        | Applied::SettingsChanged
        | Applied::Put { .. }
        | Applied::Deleted(_)
        | Applied::Toggled(_)
        | Applied::Claimed(_)
        | Applied::Started
        | Applied::Finished { .. } => {
            tracing::error!(?applied, "a write did something else than was asked");
            ApiError::Mismatch
        }
    }
}

fn rejected(name: &JobName, reject: Reject) -> ApiError {
    match reject {
        Reject::JobNotFound => ApiError::NoJob(name.to_string()),
        Reject::Forgotten => RequestError::Unknown.into(),
        Reject::StaleRevision(_)
        | Reject::Disabled
        | Reject::NotDue(_)
        | Reject::Early(_)
        | Reject::RetryClaimed
        | Reject::ExecutionNotFound
        | Reject::NotAnEnd
        | Reject::RepeatedBoot(_)
        | Reject::TooManyNodes(_)
        | Reject::OtherCluster(_)
        | Reject::AlreadyApplied(_) => ApiError::Conflict(reject.to_string()),
    }
}

/// `text` as a segment of a path.
fn escape(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}
