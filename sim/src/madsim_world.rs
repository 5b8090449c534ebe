//! The world of madsim: its scheduler runs what is ready in an order of its own, its network
//! carries the packets and cuts the links, and it kills the machines' tasks with them.
//!
//! Each machine is a madsim node. Its first task takes orders from the cluster: to wake something
//! at
//! a time, to send a packet. What belongs to no machine (the plan, the clients) is the first task's
//! of the simulation itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cronclave::time::Mono;
use madsim::Config;
use madsim::net::{Endpoint, NetSim};
use madsim::runtime::{Handle, Runtime};
use madsim::task::{NodeId as Machine, spawn_local};
use madsim::time::{TimeHandle, sleep};

use crate::mailbox::Mailbox;
use crate::model::clock::MONO_BEGIN;
use crate::model::links::{PEER_PORT, Packet, addr_of, host_of};
use crate::model::net::Fate;
use crate::model::{Control, Event, Sent, Sim, Todo};
use crate::plan::Plan;
use crate::run::{Look, Report, finish};

/// No run takes so much simulated time; one that does hangs.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// How many packets a machine takes in at once. madsim delays each by a millisecond while it is
/// taken in, so that one receiver alone would take a thousand a second.
const RECEIVERS: usize = 32;

/// The tag of all packets; madsim's endpoints sort by it.
const TAG: u64 = 0;

thread_local! {
    /// A run has its thread for itself. madsim makes a machine anew from a closure that owns
    /// nothing.
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// What a task is told to do.
enum Order {
    /// Has an event happen at a time.
    At(Mono, Event),
    /// Sends a packet after a while.
    Send { to: usize, packet: Packet, by: Duration },
    /// The run is over.
    Over,
}

struct World {
    sim: RefCell<Option<Sim>>,
    orders: Vec<Mailbox<Order>>,
    /// The orders of what belongs to no machine.
    outside: Mailbox<Order>,
    machines: RefCell<Vec<Machine>>,
    is_up: RefCell<Vec<bool>>,
}

/// Runs a plan in madsim's world, on a thread of its own: madsim seeds the hash maps of a thread
/// once.
pub(crate) fn run(plan: &Plan, look: Look) -> Report {
    let plan = plan.clone();
    let thread = std::thread::Builder::new().name("madsim".to_owned());
    let thread = thread.spawn(move || {
        let mut config = Config::default();
        let latency = plan.options.latency;
        let micros = Duration::from_micros;
        config.net.send_latency = micros(latency.from)..micros(latency.to.max(latency.from + 1));
        let mut runtime = Runtime::with_seed_and_config(plan.options.seed, config);
        runtime.set_time_limit(TIME_MAX);
        let report = runtime.block_on(drive(plan, look));
        CURRENT.with(|current| current.borrow_mut().take());
        report
    });
    match thread.expect("the system gives a thread").join() {
        Ok(report) => report,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn drive(plan: Plan, look: Look) -> Report {
    let sim = Sim::new(&plan, look);
    let count = plan.options.machines();
    let world = Rc::new(World {
        sim: RefCell::new(Some(sim)),
        orders: (0..count).map(|_| Mailbox::default()).collect(),
        outside: Mailbox::default(),
        machines: RefCell::default(),
        is_up: RefCell::new(vec![false; count]),
    });
    CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&world)));
    for host in 0..count {
        let handle = Handle::current();
        let node = handle.create_node().name(format!("n{}", host + 1));
        let node = node.ip(addr_of(host, 0).ip()).init(move || run_machine(host)).build();
        world.machines.borrow_mut().push(node.id());
    }
    world.carry_out();
    loop {
        match world.outside.pop().await {
            Order::At(at, event) => {
                spawn_local(later(Rc::clone(&world), at, event));
            }
            Order::Send { .. } => {}
            Order::Over => break,
        }
    }
    for &machine in &*world.machines.borrow() {
        Handle::current().kill(machine);
    }
    let sim = world.sim.borrow_mut().take();
    finish(sim.expect("it ends once"))
}

/// The first task of a machine, each time its node is started.
async fn run_machine(host: usize) {
    let world = CURRENT.with(|current| current.borrow().clone());
    let Some(world) = world.filter(|world| world.is_up.borrow()[host]) else { return };
    let endpoint = Endpoint::bind(addr_of(host, PEER_PORT)).await;
    let endpoint = Arc::new(endpoint.expect("a machine's ports are its own"));
    for _ in 0..RECEIVERS {
        spawn_local(receive(Rc::clone(&world), Arc::clone(&endpoint), host));
    }
    loop {
        match world.orders[host].pop().await {
            Order::At(at, event) => {
                spawn_local(later(Rc::clone(&world), at, event));
            }
            Order::Send { to, packet, by } => {
                spawn_local(send(Arc::clone(&endpoint), to, packet, by));
            }
            Order::Over => return,
        }
    }
}

async fn later(world: Rc<World>, at: Mono, event: Event) {
    let by = at.saturating_since(now());
    if !by.is_zero() {
        sleep(by).await;
    }
    world.handle(event);
}

async fn send(endpoint: Arc<Endpoint>, to: usize, packet: Packet, by: Duration) {
    if !by.is_zero() {
        sleep(by).await;
    }
    // A packet that cannot be sent is a lost one.
    let _ = endpoint.send_to_raw(addr_of(to, PEER_PORT), TAG, Box::new(packet)).await;
}

async fn receive(world: Rc<World>, endpoint: Arc<Endpoint>, host: usize) {
    loop {
        let Ok((payload, from)) = endpoint.recv_from_raw(TAG).await else { return };
        if let (Ok(packet), Some(from)) = (payload.downcast::<Packet>(), host_of(from)) {
            world.handle(Event::Packet { from, to: host, packet: *packet });
        }
    }
}

fn now() -> Mono {
    MONO_BEGIN + TimeHandle::current().elapsed()
}

impl World {
    fn handle(&self, event: Event) {
        let is_finished = {
            let mut sim = self.sim.borrow_mut();
            let Some(sim) = sim.as_mut().filter(|sim| !sim.is_finished()) else { return };
            sim.handle(now(), event);
            sim.is_finished()
        };
        self.carry_out();
        if is_finished {
            self.outside.push(Order::Over);
        }
    }

    /// Does what the cluster wants done.
    fn carry_out(&self) {
        let mut todo = Todo::default();
        let mut sim = self.sim.borrow_mut();
        let Some(sim) = sim.as_mut() else { return };
        sim.take(&mut todo);
        for control in todo.control {
            self.control(sim, control);
        }
        for (at, event) in todo.due {
            match event.owner() {
                Some((host, _)) => self.orders[host].push(Order::At(at, event)),
                None => self.outside.push(Order::At(at, event)),
            }
        }
        for Sent { from, to, packet } in todo.sent {
            let Fate { first, again } = sim.net().delay(from, to, packet.kind());
            // When it arrives is madsim's affair: it is told as it leaves.
            sim.tell_packet(from, to, &packet, first.map(|by| now() + by));
            for by in [again, first].into_iter().flatten() {
                self.orders[from].push(Order::Send { to, packet: packet.clone(), by });
            }
        }
    }

    fn control(&self, sim: &mut Sim, control: Control) {
        let machine = |host: usize| self.machines.borrow()[host];
        match control {
            Control::Up(host) => {
                while self.orders[host].try_pop().is_some() {}
                self.is_up.borrow_mut()[host] = true;
                Handle::current().restart(machine(host));
            }
            Control::Down(host) => {
                self.is_up.borrow_mut()[host] = false;
                Handle::current().kill(machine(host));
            }
            Control::Link(from, to) => {
                let net = NetSim::current();
                match sim.net().is_cut(from, to) {
                    true => net.clog_link(machine(from), machine(to)),
                    false => net.unclog_link(machine(from), machine(to)),
                }
            }
        }
    }
}
