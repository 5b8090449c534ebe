//! The bare world: a heap of events. Nothing but time moves it, so it is the fast one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use cronclave::time::Mono;

use crate::model::net::Fate;
use crate::model::{Event, Sent, Sim, Todo};

/// An event with its time; of two at the same time the one that was told first comes first.
struct Due {
    at: Mono,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything that is yet to happen.
#[derive(Default)]
pub(crate) struct Heap {
    heap: BinaryHeap<Reverse<Due>>,
    number: u64,
    todo: Todo,
}

impl Heap {
    /// Has the next event happen. False if there is none.
    pub(crate) fn advance(&mut self, sim: &mut Sim) -> bool {
        self.take(sim);
        let Some(Reverse(Due { at, event, .. })) = self.heap.pop() else { return false };
        sim.handle(at, event);
        true
    }

    fn take(&mut self, sim: &mut Sim) {
        let mut todo = std::mem::take(&mut self.todo);
        sim.take(&mut todo);
        todo.control.clear();
        for (at, event) in todo.due.drain(..) {
            self.push(at, event);
        }
        for Sent { from, to, packet } in todo.sent.drain(..) {
            let now = sim.now();
            let Fate { first, again } = sim.net().fate(from, to, packet.kind());
            sim.tell_packet(from, to, &packet, first.map(|by| now + by));
            if let Some(by) = again {
                let packet = packet.clone();
                self.push(now + by, Event::Packet { from, to, packet });
            }
            if let Some(by) = first {
                self.push(now + by, Event::Packet { from, to, packet });
            }
        }
        self.todo = todo;
    }

    fn push(&mut self, at: Mono, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Due { at, number: self.number, event }));
    }
}
