//! `cronclave demo`: three servers and an agent on this machine, and a table that follows them.
//!
//! The nodes are processes of this very binary on free addresses of 127.0.0.0/8, with their data
//! and logs under one directory, which is emptied at the start. A job runs every two seconds. With
//! `--kill-leader` the leader is killed (SIGKILL) again and again and started again later.
//!
//! **Invariants**
//! - No process outlives the demo, unless the demo itself is killed with SIGKILL.
//! - Only a directory that a demo has made is emptied, and only if no other demo uses it.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::say;
use crate::shell::exit::ExitError;

use self::nodes::{Directory, Nodes};
use self::screen::{Lines, table};
use self::watch::{View, Watch};

mod nodes;
mod screen;
mod watch;

/// The time between two looks at the cluster.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The first kill of a leader comes this long after the start.
const FIRST_KILL_AFTER: Duration = Duration::from_secs(10);
/// The time from one kill to the next.
const KILL_INTERVAL: Duration = Duration::from_secs(20);
/// How long a killed server stays down.
const DOWN_TIME: Duration = Duration::from_secs(5);

/// The flags of `cronclave demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Kill the leader again and again, and start it again each time
    #[arg(long)]
    kill_leader: bool,
    /// Where the nodes keep data and logs; emptied at the start
    #[arg(long, value_name = "PATH", default_value = "target/demo")]
    dir: PathBuf,
    /// End after this many seconds, and fail if nothing ran [until Ctrl-C]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// Runs the demo until it is told to end.
pub(crate) fn run(args: &DemoArgs) -> Result<(), ExitError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|cause| ExitError::Environment(format!("cannot start the runtime: {cause}")))?;
    runtime.block_on(show(args))
}

async fn show(args: &DemoArgs) -> Result<(), ExitError> {
    let mut stops = Stops::new()?;
    let directory = Directory::prepare(&args.dir)?;
    let mut nodes = Nodes::start(directory)?;
    let result = tokio::select! {
        result = follow(args, &mut nodes) => result,
        () = stops.recv() => Ok(()),
    };
    say("the demo ends: its processes are stopped\n");
    tokio::select! {
        () = nodes.stop() => {}
        () = stops.recv() => {}
    }
    // Whatever is left dies with `nodes`.
    result
}

/// Starts, kills and shows, until the time is over or a process ends that should not.
async fn follow(args: &DemoArgs, nodes: &mut Nodes) -> Result<(), ExitError> {
    let watch = Watch::new()?;
    let started = Instant::now();
    let over = args.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let mut killer = args.kill_leader.then(|| Killer::new(started));
    let mut screen = Screen::new(nodes);
    let mut tick = interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        nodes.check()?;
        let mut view = watch.look(nodes).await;
        let now = Instant::now();
        if let Some(killer) = &mut killer {
            killer.act(now, nodes, &view)?;
        }
        view.mark_down(nodes);
        screen.show(nodes, &view);
        if over.is_some_and(|over| now >= over) {
            return screen.verdict(nodes);
        }
    }
}

/// Kills leaders and starts them again.
struct Killer {
    next_kill: Instant,
    /// Which node is down, and when it is started again.
    down: Option<(usize, Instant)>,
}

impl Killer {
    fn new(now: Instant) -> Self {
        Self { next_kill: now + FIRST_KILL_AFTER, down: None }
    }

    fn act(&mut self, now: Instant, nodes: &mut Nodes, view: &View) -> Result<(), ExitError> {
        match self.down {
            Some((node, until)) if now >= until => {
                self.down = None;
                nodes.spawn(node)?;
                nodes.note(format!("{} is started again", nodes.name(node)));
            }
            // Only a leader that is seen to lead now is killed, and one at a time.
            None if now >= self.next_kill => {
                let leader = view.leader.as_deref().and_then(|name| nodes.find(name));
                if let Some(leader) = leader {
                    nodes.kill(leader);
                    nodes.note(format!("kill -9 {}, the leader", nodes.name(leader)));
                    self.down = Some((leader, now + DOWN_TIME));
                    self.next_kill = now + KILL_INTERVAL;
                }
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

/// Where the demo is shown: a table drawn anew on a terminal, else a line for whatever changes.
enum Screen {
    Terminal { runs: bool },
    Lines(Lines),
}

impl Screen {
    fn new(nodes: &Nodes) -> Self {
        if io::stdout().is_terminal() {
            return Self::Terminal { runs: false };
        }
        say(&screen::heading(nodes));
        Self::Lines(Lines::default())
    }

    fn show(&mut self, nodes: &Nodes, view: &View) {
        match self {
            Self::Terminal { runs } => {
                *runs |= view.has_success();
                // To the first line, each line cleared behind its text, and all below the last.
                let text = screen::heading(nodes) + &table(nodes, view);
                say(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")));
            }
            Self::Lines(lines) => say(&lines.changes(nodes, view)),
        }
    }

    /// Whether the demo has shown what it is for.
    fn verdict(&self, nodes: &Nodes) -> Result<(), ExitError> {
        let runs = match self {
            Self::Terminal { runs } => *runs,
            Self::Lines(lines) => lines.has_success(),
        };
        match runs {
            true => Ok(()),
            false => Err(ExitError::Environment(format!(
                "no run has succeeded; the logs are in {}",
                nodes.directory().display()
            ))),
        }
    }
}

/// The signals that end the demo.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stops {
    fn new() -> Result<Self, ExitError> {
        let listen = |kind| {
            signal(kind).map_err(|cause| {
                ExitError::Environment(format!("cannot listen for signals: {cause}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
