//! Which writes were carried out already, so that a repeated one is not done again.
//!
//! Each client (a node that takes writes) numbers its writes within each of its boots. What came of
//! the last [`WINDOW`] of them is remembered in small form. Below the window a write that is not
//! remembered is refused, because whether it was done is no longer known: so a write is done at
//! most once however late it is repeated, as long as its client is among the last
//! [`CLIENT_COUNT_MAX`].
//!
//! Rejected writes changed nothing, and are remembered too: their clients were told so, and a copy
//! that comes later, from another leader, must not be carried out after all.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{Boot, CommandId, LogIndex, NodeId};
use crate::jobs::command::{Applied, Reject, Rows};

/// How many writes of one client are remembered: as many as a driver takes up in one turn, so that
/// a write which waited for a leader is not too old because of those that came after it.
const WINDOW: usize = 4_096;

/// How many clients are remembered. Only servers take writes, so this is many lives of each.
const CLIENT_COUNT_MAX: usize = 256;

/// The writes that are remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Carried(OrdMap<NodeId, Client>);

#[derive(Clone, Debug, PartialEq)]
struct Client {
    boot: Boot,
    /// The entry of its last write.
    used: LogIndex,
    /// All writes up to this number that are not in `done` are forgotten.
    forgotten: u64,
    done: OrdMap<u64, Answer>,
}

/// What came of a write, in small form: the jobs themselves are looked up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Put { created: bool },
    Toggled,
    Deleted,
    Claimed(Vec<Result<Rows, Reject>>),
    Other,
    Rejected(Reject),
}

/// What is known of a write.
pub(super) enum Seen {
    Never,
    Before(Answer),
    Forgotten,
}

/// A client as a snapshot holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ClientImage {
    id: NodeId,
    boot: Boot,
    used: LogIndex,
    forgotten: u64,
    done: Vec<(u64, Answer)>,
}

impl Answer {
    /// `None` if the write was not looked at: it was carried out before, or is too old to know.
    pub(super) fn of(applied: &Applied) -> Option<Self> {
        match applied {
            Applied::Put { created, .. } => Some(Self::Put { created: *created }),
            Applied::Deleted(_) => Some(Self::Deleted),
            Applied::Toggled(_) => Some(Self::Toggled),
            Applied::Claimed(claims) => Some(Self::Claimed(claims.clone())),
            Applied::Founded(_)
            | Applied::Admitted
            | Applied::SettingsChanged
            | Applied::Started
            | Applied::Finished { .. } => Some(Self::Other),
            Applied::Rejected(Reject::AlreadyApplied(_) | Reject::Forgotten)
            | Applied::Repeated => None,
            Applied::Rejected(reject) => Some(Self::Rejected(*reject)),
        }
    }
}

impl Carried {
    pub(super) fn look(&self, id: CommandId) -> Seen {
        let Some(client) = self.0.get(&id.node) else { return Seen::Never };
        if id.boot > client.boot {
            return Seen::Never;
        }
        if id.boot < client.boot {
            return Seen::Forgotten;
        }
        match client.done.get(&id.seq) {
            Some(answer) => Seen::Before(answer.clone()),
            None if id.seq <= client.forgotten => Seen::Forgotten,
            None => Seen::Never,
        }
    }

    /// To be called only for what [`Carried::look`] has never seen.
    pub(super) fn remember(&mut self, id: CommandId, index: LogIndex, answer: Answer) {
        let fresh = || Client { boot: id.boot, used: index, forgotten: 0, done: OrdMap::new() };
        let client = self.0.entry(id.node).or_insert_with(fresh);
        if client.boot != id.boot {
            *client = fresh();
        }
        client.used = index;
        client.done.insert(id.seq, answer);
        if client.done.len() > WINDOW
            && let Some(oldest) = client.done.get_min().map(|(seq, _)| *seq)
        {
            client.done.remove(&oldest);
            client.forgotten = client.forgotten.max(oldest);
        }
        if self.0.len() > CLIENT_COUNT_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, c)| c.used).map(|(id, _)| *id)
        {
            self.0.remove(&oldest);
        }
    }

    pub(super) fn image(&self) -> Vec<ClientImage> {
        let image = |(id, client): (&NodeId, &Client)| ClientImage {
            id: *id,
            boot: client.boot,
            used: client.used,
            forgotten: client.forgotten,
            done: client.done.iter().map(|(seq, answer)| (*seq, answer.clone())).collect(),
        };
        self.0.iter().map(image).collect()
    }

    pub(super) fn restore(clients: Vec<ClientImage>) -> Self {
        let restore = |image: ClientImage| {
            let ClientImage { id, boot, used, forgotten, done } = image;
            (id, Client { boot, used, forgotten, done: done.into_iter().collect() })
        };
        Self(clients.into_iter().map(restore).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u64, boot: u64, seq: u64) -> CommandId {
        CommandId { node: NodeId(node), boot: Boot(boot), seq }
    }

    #[test]
    fn below_the_window_a_write_is_refused_and_not_repeated() {
        let mut carried = Carried::default();
        let window = WINDOW as u64;
        for seq in 1..=window + 1 {
            carried.remember(id(1, 1, seq), LogIndex(seq), Answer::Other);
        }
        assert!(matches!(carried.look(id(1, 1, 1)), Seen::Forgotten));
        assert!(matches!(carried.look(id(1, 1, 2)), Seen::Before(Answer::Other)));
        assert!(matches!(carried.look(id(1, 1, window + 2)), Seen::Never));
        assert_eq!(carried.0.get(&NodeId(1)).unwrap().done.len(), WINDOW);
    }

    #[test]
    fn a_new_boot_starts_numbering_anew_and_ends_the_one_before() {
        let mut carried = Carried::default();
        carried.remember(id(1, 1, 9), LogIndex(1), Answer::Other);
        assert!(matches!(carried.look(id(1, 2, 9)), Seen::Never));
        carried.remember(id(1, 2, 1), LogIndex(2), Answer::Other);
        assert!(matches!(carried.look(id(1, 2, 9)), Seen::Never));
        assert!(matches!(carried.look(id(1, 1, 9)), Seen::Forgotten));
    }

    #[test]
    fn the_client_that_was_silent_longest_goes_first() {
        let mut carried = Carried::default();
        for node in 0..=CLIENT_COUNT_MAX as u64 {
            carried.remember(id(node, 1, 1), LogIndex(node), Answer::Other);
        }
        assert_eq!(carried.0.len(), CLIENT_COUNT_MAX);
        assert!(matches!(carried.look(id(0, 1, 1)), Seen::Never));
        assert!(matches!(carried.look(id(1, 1, 1)), Seen::Before(_)));
    }
}
