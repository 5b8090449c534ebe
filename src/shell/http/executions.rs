//! Calls about executions: the rows of a job, one of them, and what runs now.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use tokio::task::spawn_blocking;

use super::error::ApiError;
use super::jobs::{find, named};
use super::query::{Order, Page, Params, invalid};
use super::{Asked, Backend, with_total};
use crate::id::{ExecutionId, JobName};
use crate::jobs::job::{Execution, Outcome};
use crate::jobs::view::ExecutionView;

/// `GET /v1/jobs/:job/executions`: the rows of a job, newest first unless sorted otherwise.
pub(super) async fn list<B: Backend>(
    path: Result<Path<String>, PathRejection>,
    asked: Asked<B>,
) -> Result<Response, ApiError> {
    let name = named(path)?;
    let wanted = Wanted::read(&asked.params)?;
    let view = asked.view(Asked::<B>::deadline()).await?;
    find(&view.state, &name)?;
    // Much text may have to be copied: not on a thread that moves the node's messages.
    let work = spawn_blocking(move || {
        let (rows, total) = wanted.pick(view.state.executions_of(&name));
        let views: Vec<_> = rows.iter().map(|row| wanted.show(row)).collect();
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
    let view = asked.view(Asked::<B>::deadline()).await?;
    let stored = find(&view.state, &name)?;
    let missing = || ApiError::NoExecution { job: name.to_string(), execution: execution.clone() };
    let id: ExecutionId = execution.parse().map_err(|_| missing())?;
    // The row of another job, or of a deleted one that had this name, is none of this job.
    let row = view.state.execution(id);
    let row = row.filter(|row| row.job == name && row.job_created == stored.created);
    Ok(asked.answer_read(&ExecutionView::from(&**row.ok_or_else(missing)?)))
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
struct Wanted {
    sort: Sort,
    order: Order,
    page: Page,
    output_len_max: Option<usize>,
}

/// What rows are sorted by; equal ones by id, which is the order of their claims.
#[derive(Clone, Copy)]
enum Sort {
    Id,
    Due,
    StartedAt,
    FinishedAt,
    Attempt,
}

impl Wanted {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            sort: params.value("_sort").map_or(Ok(Sort::Id), Sort::read)?,
            order: params.order(Order::Descending)?,
            page: params.page()?,
            output_len_max: params.number("output_size_limit")?,
        })
    }

    /// The page, and how many rows there are.
    fn pick(&self, mut rows: Vec<Arc<Execution>>) -> (Vec<Arc<Execution>>, usize) {
        rows.sort_by(|a, b| {
            self.order.apply(self.sort.compare(a, b).then_with(|| a.id.cmp(&b.id)))
        });
        let total = rows.len();
        (rows.drain(self.page.range(total)).collect(), total)
    }

    fn show<'a>(&self, row: &'a Execution) -> ExecutionView<'a> {
        let view = ExecutionView::from(row);
        match self.output_len_max {
            Some(len_max) => view.with_output_limit(len_max),
            None => view,
        }
    }
}

impl Sort {
    fn read(text: &str) -> Result<Self, ApiError> {
        match text {
            "id" => Ok(Self::Id),
            "due" => Ok(Self::Due),
            "started_at" => Ok(Self::StartedAt),
            "finished_at" => Ok(Self::FinishedAt),
            "attempt" => Ok(Self::Attempt),
            _ => Err(invalid("_sort", text, "id, due, started_at, finished_at or attempt")),
        }
    }

    fn compare(self, a: &Execution, b: &Execution) -> Ordering {
        match self {
            Self::Id => Ordering::Equal,
            Self::Due => a.due.cmp(&b.due),
            Self::StartedAt => a.started_at.cmp(&b.started_at),
            Self::FinishedAt => a.finished_at.cmp(&b.finished_at),
            Self::Attempt => a.attempt.cmp(&b.attempt),
        }
    }
}
