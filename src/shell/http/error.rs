//! Why a call failed, as JSON: `{"error": "job \"nightly\" not found", "code": "not_found"}`.
//!
//! `error` is for people and keeps Dkron's texts inside; `code` is for programs and never changes.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::node::request::RequestError;

/// When a client that was told 503 may ask again: about two elections at default timings.
const RETRY_AFTER_SECS: &str = "1";

/// Why a call failed. Its text is the `error` of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    /// The query or the path cannot be read. State unchanged: give up.
    #[error("{0}")]
    BadRequest(String),
    /// The body cannot be read. State unchanged: give up.
    #[error("Unable to parse payload: {0}")]
    Payload(String),
    /// The body was read and is no valid job. State unchanged: give up.
    #[error("Job validation failed: {0}.")]
    Job(String),
    /// A web page of another origin asked for a change. State unchanged: give up.
    #[error("a page of another origin ({0}) may not change anything here")]
    CrossOrigin(String),
    /// There is no such job.
    #[error("job {0:?} not found")]
    NoJob(String),
    /// The job has no such execution.
    #[error("job {job:?} has no execution {execution:?}")]
    NoExecution {
        /// The job's name.
        job: String,
        /// What was taken for the execution's id.
        execution: String,
    },
    /// There is nothing under this path.
    #[error("nothing is at {0}; the API is under /v1")]
    NoRoute(String),
    /// The path does not take this method.
    #[error("{1} does not take {0}")]
    Method(String, String),
    /// The replicated state refused the write. State unchanged.
    #[error("{0}")]
    Conflict(String),
    /// The body is too large. State unchanged: give up.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body did not arrive in time. State unchanged: retry.
    #[error("the body did not arrive within {} s", .0.as_secs())]
    BodyTimeout(Duration),
    /// The node did not carry the request out, or does not know.
    #[error(transparent)]
    Node(#[from] RequestError),
    /// The job was stored, and the run that was asked for with it was not started for certain.
    #[error("the job is stored, but its run on creation failed: {0}")]
    StoredNotRun(Box<Self>),
    /// A bug: the node gave an answer that does not belong to the question.
    #[error("the node answered something else than was asked; this is a bug")]
    Mismatch,
}

impl ApiError {
    /// The status and the code of the answer.
    pub(super) fn class(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Payload(_) => (StatusCode::BAD_REQUEST, "invalid_payload"),
            Self::Job(_) => (StatusCode::BAD_REQUEST, "invalid_job"),
            Self::CrossOrigin(_) => (StatusCode::FORBIDDEN, "cross_origin"),
            Self::NoJob(_) | Self::NoExecution { .. } | Self::NoRoute(_) => {
                (StatusCode::NOT_FOUND, "not_found")
            }
            Self::Method(..) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::BodyTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::Node(error) => class_of_node(error),
            // Never 4xx, whatever the cause: something has changed.
            Self::StoredNotRun(cause) => (StatusCode::SERVICE_UNAVAILABLE, cause.class().1),
            Self::Mismatch => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

fn class_of_node(error: &RequestError) -> (StatusCode, &'static str) {
    match error {
        RequestError::NoLeader(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_leader"),
        RequestError::Unknown | RequestError::UnknownDiskFull(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown")
        }
        RequestError::DiskFull(_) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
        RequestError::Busy(_) | RequestError::LogFull => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        RequestError::HistoryUnavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "history_unavailable")
        }
        RequestError::JobNotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
        RequestError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        RequestError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        RequestError::NotServer => (StatusCode::MISDIRECTED_REQUEST, "not_server"),
    }
}

#[derive(Serialize)]
struct ErrorBody {
    error: String,
    code: &'static str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.class();
        let body = ErrorBody { error: self.to_string(), code };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let after = HeaderValue::from_static(RETRY_AFTER_SECS);
            response.headers_mut().insert(header::RETRY_AFTER, after);
        }
        response
    }
}
