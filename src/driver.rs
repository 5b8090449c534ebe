//! The driver's loop, without the world around it: [`turn`].
//!
//! Every world (tokio's in production, madsim's and the event heap's in simulation) calls [`turn`]
//! when something is ready or a deadline has passed, and sleeps until the deadline that it returns.
//! The order of things inside a turn is therefore the same everywhere.

use crate::node::io::{Input, Output};
use crate::node::{INPUTS_MAX, Node, Timer};
use crate::time::{Mono, Now};

/// What surrounds a node.
pub trait World {
    /// Both clocks, read now.
    fn now(&mut self) -> Now;

    /// The next input that is ready, or `None`. Must not wait.
    fn next_input(&mut self) -> Option<Input>;

    /// Carries out an effect, or has it carried out. Must not wait.
    fn perform(&mut self, output: Output);
}

/// What a turn leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Wait for an input, or until this deadline if there is one.
    Wait(Option<(Mono, Timer)>),
    /// Take another turn at once: more inputs may be ready than one turn takes.
    Again,
}

/// Pushes what is ready, at most [`INPUTS_MAX`] inputs, runs the node once, performs its outputs.
pub fn turn<W: World>(node: &mut Node, world: &mut W) -> Turn {
    let mut pushed = 0;
    while pushed < INPUTS_MAX
        && let Some(input) = world.next_input()
    {
        let now = world.now();
        node.push(now, input);
        pushed += 1;
    }
    let now = world.now();
    node.run(now);
    while let Some(output) = node.poll_output() {
        world.perform(output);
    }
    if pushed == INPUTS_MAX {
        return Turn::Again;
    }
    Turn::Wait(node.poll_timeout())
}
