//! Calls about executions: the rows of a job, one of them, and what runs now.

use std::sync::Arc;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use tokio::task::spawn_blocking;

use super::error::ApiError;
use super::jobs::named;
use super::query::{self, Params, invalid};
use super::{Asked, Backend, with_total};
use crate::id::JobName;
use crate::jobs::history::change::{Order, Select, Sort};
use crate::jobs::job::{Execution, Outcome};
use crate::jobs::view::ExecutionView;

/// The most rows in one answer. `X-Total-Count` says how many there are in all.
const ROWS_MAX: usize = 1_000;

/// `GET /v1/jobs/:job/executions`: the rows of a job, newest first unless sorted otherwise.
pub(super) async fn list<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let name = named(path)?;
    let select = part(&asked.params)?;
    let page = asked.executions(Asked::<B>::deadline(), &name, select).await?;
    // Much text may have to be written: not on a thread that moves the node's messages.
    let work = spawn_blocking(move || {
        let views: Vec<_> = page.rows.iter().map(|row| ExecutionView::from(&**row)).collect();
        let total = usize::try_from(page.total).unwrap_or(usize::MAX);
        with_total(asked.answer_read(&views), total)
    });
    Ok(work.await.expect("a list is only ever read"))
}

/// `GET /v1/jobs/:job/executions/:execution`, with all of its output.
pub(super) async fn one<B: Backend>(
    path: Result<Path<(String, String)>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let Path((job, execution)) = path.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let name = JobName::new(&job).map_err(|_| ApiError::NoJob(job))?;
    // What is no id is none of the job's executions, if there is such a job: no claim has index 0.
    let id = execution.parse().unwrap_or_default();
    let page = asked.executions(Asked::<B>::deadline(), &name, Select::One(id)).await?;
    let missing = || ApiError::NoExecution { job: name.to_string(), execution: execution.clone() };
    let row = page.rows.first().ok_or_else(missing)?;
    Ok(asked.answer_read(&ExecutionView::from(&**row)))
}

/// `GET /v1/busy`: what runs now in the whole cluster, the longest first.
pub(super) async fn busy<B: Backend>(asked: Asked<B>) -> Result<Response, ApiError> {
    let view = asked.view(Asked::<B>::deadline()).await?;
    let mut rows: Vec<&Arc<Execution>> =
        view.state.open().filter(|row| row.outcome == Outcome::Running).collect();
    rows.sort_by_key(|row| (row.started_at, row.id));
    let views: Vec<_> = rows.iter().map(|row| ExecutionView::from(&***row)).collect();
    Ok(with_total(asked.answer_read(&views), views.len()))
}

/// Which rows `GET /v1/jobs/:job/executions` is to list.
fn part(params: &Params) -> Result<Select, ApiError> {
    let (skip, limit) = params.page()?.window(ROWS_MAX);
    let output_len_max = params.number("output_size_limit")?;
    Ok(Select::Part {
        sort: params.value("_sort").map_or(Ok(Sort::Id), sort)?,
        order: match params.order(query::Order::Descending)? {
            query::Order::Ascending => Order::Ascending,
            query::Order::Descending => Order::Descending,
        },
        skip: skip as u64,
        limit: limit as u64,
        output_len_max: output_len_max.map_or(u64::MAX, |len_max| len_max as u64),
    })
}

fn sort(text: &str) -> Result<Sort, ApiError> {
    match text {
        "id" => Ok(Sort::Id),
        "due" => Ok(Sort::Due),
        "started_at" => Ok(Sort::StartedAt),
        "finished_at" => Ok(Sort::FinishedAt),
        "attempt" => Ok(Sort::Attempt),
        _ => Err(invalid("_sort", text, "id, due, started_at, finished_at or attempt")),
    }
}
