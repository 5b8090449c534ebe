//! The stock: thousands of jobs that are put when the cluster begins to work, each once, and are
//! then left alone. Most are due rarely, as in a real cluster, and some hundreds at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cronclave::node::request::{Request, Write};

use super::clients::{Asker, FIRST_AFTER};
use super::clock::true_wall;
use super::{Event, Sim};
use crate::check::coverage::Situation;

/// How many puts are under way at a time.
const LOADERS: usize = 16;

/// Between a put that was granted and the next.
const NEXT_AFTER: Duration = Duration::from_millis(1);

/// A put that failed is tried again so much later.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// So many jobs are what a campaign must have had in one cluster.
const MANY: usize = 1_000;

/// What of the stock is still to be put.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// How many jobs there are to be.
    wanted: usize,
    /// How many were handed to a loader.
    begun: usize,
    /// Those whose put failed.
    failed: VecDeque<usize>,
    /// What each loader puts.
    open: BTreeMap<usize, usize>,
    granted: usize,
}

impl Stock {
    pub(super) fn new(wanted: usize) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// The next job to put.
    fn next(&mut self) -> Option<usize> {
        if let Some(failed) = self.failed.pop_front() {
            return Some(failed);
        }
        let number = self.begun;
        self.begun += usize::from(number < self.wanted);
        (number < self.wanted).then_some(number)
    }
}

impl Sim {
    pub(super) fn begin_stock(&mut self) {
        for loader in 0..LOADERS.min(self.options.stock) {
            self.after(FIRST_AFTER, Event::Loader(loader));
        }
    }

    /// A loader puts its next job, if there is one.
    pub(super) fn on_loader(&mut self, loader: usize) {
        if self.now >= self.end {
            return;
        }
        let Some(number) = self.stock.next() else { return };
        self.stock.open.insert(loader, number);
        let via = self.some_server();
        self.ask(Asker::Loader(loader), via, |sim, op| {
            let schedule = sim.stock_schedule();
            let spec = sim.job(&format!("stock-{number}"), schedule, op);
            Request::Write(Write::PutJob(Arc::new(spec)))
        });
    }

    /// What became of a loader's put.
    pub(super) fn loader_answered(&mut self, loader: usize, is_granted: bool) {
        let Some(number) = self.stock.open.remove(&loader) else { return };
        if is_granted {
            self.stock.granted += 1;
            if self.stock.granted == MANY {
                self.checkers.note(Situation::ManyJobs);
            }
        } else {
            self.stock.failed.push_back(number);
        }
        self.after(if is_granted { NEXT_AFTER } else { AGAIN_AFTER }, Event::Loader(loader));
    }

    /// One in ten is due each minute, at one of four seconds; the rest hourly, daily and less
    /// often, once, or never.
    fn stock_schedule(&mut self) -> String {
        let draws = &mut self.draws.load;
        match draws.number(0..=19) {
            0 | 1 => format!("{} * * * * *", draws.number(0..=3) * 15),
            2 | 3 => format!("@every {}m", draws.number(1..=90)),
            4 => {
                let by = Duration::from_secs(draws.number(5..=60));
                format!("@at {}", true_wall(self.now) + by)
            }
            5 => "@manually".to_owned(),
            6..=9 => "@hourly".to_owned(),
            10..=13 => format!("0 {} * * * *", draws.number(0..=59)),
            14..=17 => format!("0 {} {} * * *", draws.number(0..=59), draws.number(0..=23)),
            _ => format!("0 0 3 {} * *", draws.number(1..=28)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_put_once_and_again_only_if_that_failed() {
        let mut stock = Stock::new(3);
        assert_eq!((stock.next(), stock.next()), (Some(0), Some(1)));
        stock.failed.push_back(0);
        assert_eq!((stock.next(), stock.next(), stock.next()), (Some(0), Some(2), None));
    }
}
