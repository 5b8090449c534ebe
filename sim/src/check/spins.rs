//! Spins: a node that has nothing to do waits. One that wants to be woken at an instant which has
//! passed, does nothing when it is, and wants it again, burns a core.

/// So many turns in a row for nothing are a spin. A deadline may pass without anything to do now
/// and then, as when what was waited for came in between.
const IDLE_MAX: u32 = 50;

/// How many turns in a row each node has taken for nothing.
#[derive(Debug)]
pub(crate) struct Spins {
    idle: Vec<u32>,
    compared: u64,
}

impl Spins {
    /// Of a run with so many machines.
    pub(crate) fn new(machines: usize) -> Self {
        Self { idle: vec![0; machines], compared: 0 }
    }

    /// The node on `host` has taken a turn; it was idle if nothing came in, nothing went out, and
    /// the next is to be at once all the same. Whether it spins.
    pub(crate) fn on_turn(&mut self, host: usize, is_idle: bool) -> bool {
        self.compared += 1;
        let idle = &mut self.idle[host];
        *idle = if is_idle { *idle + 1 } else { 0 };
        *idle == IDLE_MAX
    }

    /// How many turns were looked at.
    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_turns_in_a_row_for_nothing_are_a_spin_that_is_told_once() {
        let mut spins = Spins::new(2);
        let told = (0..200).filter(|_| spins.on_turn(1, true)).count();
        assert_eq!((told, spins.compared()), (1, 200));
    }

    #[test]
    fn a_node_that_does_something_now_and_then_does_not_spin() {
        let mut spins = Spins::new(2);
        let told = (0..200).filter(|turn| spins.on_turn(0, turn % 50 != 0)).count();
        assert_eq!(told, 0);
        assert!((0..200).all(|_| !spins.on_turn(1, false)));
    }
}
