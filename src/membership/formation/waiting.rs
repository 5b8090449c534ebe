//! What a formation waits for, in words.

use super::{Candidate, Formation, Pledge, Proposal, Refusal};
use crate::id::NodeId;

impl Formation {
    pub(super) fn describe(&self) -> String {
        match self.pledge.as_ref().map(Pledge::proposal) {
            Some(own) if own.proposer == self.me.id => self.describe_own(own),
            Some(pledge) => self.describe_bound(pledge),
            None => self.describe_candidates(),
        }
    }

    fn describe_candidates(&self) -> String {
        let expect = self.me.expect;
        let mut candidates: Vec<&Candidate> = self.candidates().collect();
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        let names = list(candidates.iter().map(|candidate| candidate.name.to_string()));
        let count = candidates.len();
        if candidates.iter().any(|candidate| candidate.expect != expect) {
            let each = candidates.iter().map(|c| format!("{} {}", c.name, c.expect));
            return format!("bootstrap-expect differs: {}", list(each));
        }
        if count > self.expected() {
            return format!("{count} candidates for bootstrap-expect {expect}: {names}");
        }
        if count < self.expected() {
            return format!("waiting for {expect} servers, know {count}: {names}");
        }
        match candidates.iter().min_by_key(|candidate| candidate.id) {
            Some(lowest) if lowest.id != self.me.id => {
                format!("{names} are here, waiting for {} to propose them", lowest.name)
            }
            Some(_) | None => format!("{names} are here, about to propose them"),
        }
    }

    fn describe_own(&self, own: &Proposal) -> String {
        if own.members.keys().all(|id| self.pledged.contains(id)) {
            return "all have pledged, about to found the cluster".to_owned();
        }
        let missing = own.members.iter().filter(|(id, _)| !self.pledged.contains(id));
        let each = missing.map(|(id, (name, _))| match self.refused.get(id) {
            Some(reason) => format!("{name} ({})", self.describe_refusal(reason)),
            None if self.peers.contains_key(id) => name.to_string(),
            None => format!("{name} (no session)"),
        });
        format!("waiting for the pledge of {}", list(each))
    }

    fn describe_bound(&self, pledge: &Proposal) -> String {
        let names = list(pledge.members.values().map(|(name, _)| name.to_string()));
        let proposer = match pledge.members.get(&pledge.proposer) {
            Some((name, _)) => name.to_string(),
            None => pledge.proposer.to_string(),
        };
        let silent = match self.peers.contains_key(&pledge.proposer) {
            true => "",
            false => {
                ", with which there is no session; if it is gone for ever, start again with an \
                 empty data directory"
            }
        };
        format!("pledged to found a cluster of {names} for {proposer}{silent}")
    }

    fn describe_refusal(&self, reason: &Refusal) -> String {
        match reason {
            Refusal::Founded { cluster } => format!("belongs to cluster {cluster}"),
            Refusal::NotVirgin => "holds a log already".to_owned(),
            Refusal::Pledged { proposer } => format!("pledged to {}", self.name_of(*proposer)),
            Refusal::Expect { expect } => format!("bootstrap-expect is {expect} there"),
            Refusal::TooMany { known } => {
                format!("knows {known} candidates for bootstrap-expect {}", self.me.expect)
            }
            Refusal::Invalid => "does not accept the proposal".to_owned(),
        }
    }

    fn name_of(&self, id: NodeId) -> String {
        match self.peers.get(&id) {
            Some(peer) => peer.name.to_string(),
            None => format!("node {id}"),
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<String>>().join(", ")
}
