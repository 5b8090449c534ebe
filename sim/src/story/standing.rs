//! How each machine stands at a moment: [`Board`], kept by seeing one moment after the other.

use cronclave::consensus::Role;
use cronclave::id::{LogIndex, Term};

use super::{Moment, What};

/// How one machine stands, as far as was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether its node runs; `None` before anything was told of it.
    pub(super) up: Option<bool>,
    /// How it stands as a server, once it has said so since its start.
    pub(super) server: Option<Server>,
}

/// How a server stands: the fields of [`What::Stands`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// What it is.
    pub(super) role: Role,
    /// Its term.
    pub(super) term: Term,
    /// The machine that leads, as far as it knows.
    pub(super) leader: Option<usize>,
    /// The last entry in its log.
    pub(super) last: Option<LogIndex>,
    /// The last one committed.
    pub(super) committed: Option<LogIndex>,
    /// The last one applied.
    pub(super) applied: Option<LogIndex>,
}

/// How all machines stand.
#[derive(Clone, Debug)]
pub(super) struct Board {
    machines: Vec<Standing>,
}

impl Board {
    /// Nothing was told yet of `hosts` machines.
    pub(super) fn new(hosts: usize) -> Self {
        Self { machines: vec![Standing::default(); hosts] }
    }

    /// How a machine stands; one that does not exist stands as if nothing was told of it.
    pub(super) fn of(&self, host: usize) -> Standing {
        self.machines.get(host).copied().unwrap_or_default()
    }

    /// Takes note of a moment.
    pub(super) fn see(&mut self, moment: &Moment) {
        let Some(machine) = moment.host.and_then(|host| self.machines.get_mut(host)) else {
            return;
        };
        match &moment.what {
            What::Up { .. } => *machine = Standing { up: Some(true), server: None },
            What::Down { .. } => *machine = Standing { up: Some(false), server: None },
            What::Stands { role, term, leader, last, committed, applied } => {
                let server = Server {
                    role: *role,
                    term: *term,
                    leader: *leader,
                    last: *last,
                    committed: *committed,
                    applied: *applied,
                };
                *machine = Standing { up: Some(true), server: Some(server) };
            }
            What::Fault(_)
            | What::Event(_)
            | What::Process(_)
            | What::Client(_)
            | What::Message { .. }
            | What::Violation { .. } => {}
        }
    }
}

impl Server {
    /// Whether it leads and knows that it does: past its lease a leader names nobody.
    pub(super) fn leads(&self, host: usize) -> bool {
        self.role == Role::Leader && self.leader == Some(host)
    }
}
