//! What an entry of the log holds, for those who judge logs from outside: [`Content`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;

use super::types::{Entry, LogId, Membership, Payload, Peer};
use crate::codec::{DecodeError, decode, encode};
use crate::id::{LogIndex, NodeId, Term};

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: a leader's first entry.
    Blank,
    /// A command of whoever uses the engine.
    Command(Bytes),
    /// Who votes and who learns, from this entry on.
    Membership {
        /// The voters; two sets while a change is under way, and then each needs a majority.
        halves: Vec<BTreeSet<NodeId>>,
        /// The learners.
        learners: BTreeSet<NodeId>,
    },
}

impl Content {
    /// Reads the body of a [`Record::Entry`](crate::codec::record::Record::Entry).
    ///
    /// # Errors
    /// If it is none.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let entry: Entry = decode("log entry", body)?;
        Ok(match entry.payload {
            EntryPayload::Blank => Self::Blank,
            EntryPayload::Normal(Payload(bytes)) => Self::Command(bytes),
            EntryPayload::Membership(membership) => Self::Membership {
                halves: membership.get_joint_config().clone(),
                learners: membership.learner_ids().collect(),
            },
        })
    }

    /// The body of an entry at `index` that holds this. The addresses of members are left empty.
    ///
    /// # Errors
    /// If it is a membership that cannot be: one without voters.
    pub fn write(&self, index: LogIndex, term: Term) -> Result<Bytes, DecodeError> {
        let payload = match self {
            Self::Blank => EntryPayload::Blank,
            Self::Command(bytes) => EntryPayload::Normal(Payload(bytes.clone())),
            Self::Membership { halves, learners } => {
                let error = |reason: String| DecodeError { what: "membership", reason };
                if halves.is_empty() {
                    return Err(error("it has no voters".to_owned()));
                }
                let ids = halves.iter().flatten().chain(learners);
                let nodes: BTreeMap<NodeId, Peer> = ids.map(|&id| (id, Peer::default())).collect();
                let membership = Membership::new(halves.clone(), nodes);
                EntryPayload::Membership(membership.map_err(|e| error(e.to_string()))?)
            }
        };
        let log_id = LogId::new_term_index(term.0, index.0);
        Ok(encode(&Entry { log_id, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let (a, b) = (NodeId(1), NodeId(2));
        let halves = vec![BTreeSet::from([a]), BTreeSet::from([a, b])];
        let learners = BTreeSet::from([NodeId(3)]);
        let membership = Content::Membership { halves, learners };
        for content in [Content::Blank, Content::Command(Bytes::from_static(b"put")), membership] {
            let body = content.write(LogIndex(7), Term(2)).unwrap();
            assert_eq!(Content::read(&body), Ok(content));
        }
        let nobody = Content::Membership { halves: Vec::new(), learners: BTreeSet::new() };
        assert!(nobody.write(LogIndex(7), Term(2)).is_err());
    }
}
