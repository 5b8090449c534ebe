//! The leader's civil clock jumps by an hour: nothing starts early, nothing stalls.

use std::rc::Rc;
use std::time::Duration;

use cronclave::node::io::Event;
use cronclave_sim::check;
use cronclave_sim::client::{self, job, put_surely, read_surely};
use cronclave_sim::cluster::{Cluster, Happened, Shape, Traced};
use cronclave_sim::seed::simulate;
use cronclave_sim::verdict::{EARLY_MAX, FOUNDED_MAX, PERIOD, TICK};
use madsim::time::sleep;

const HOUR_MICROS: i64 = 3_600_000_000;

/// A leader whose clock is off hands over; an election and the new leader's first turn fit in this.
const LATE_MAX: Duration = Duration::from_secs(2);

/// How often something was due while the clock was off, at least.
const STARTS_MIN: usize = 18;

async fn clock_jumps(seed: u64, size: usize, micros: i64) {
    let shape = Shape { seed, servers: size, agents: 1, traced: Traced::No };
    let cluster = Rc::new(Cluster::start(shape));
    cluster.await_leader(FOUNDED_MAX).await;
    put_surely(&cluster, &job(TICK, "@every 1s")).await;
    sleep(Duration::from_secs(5)).await;

    let leader = cluster.await_leader(Duration::from_secs(1)).await;
    let jumped = cluster.now();
    cluster.set_clock_ahead(leader, micros);
    sleep(Duration::from_secs(20)).await;
    let starts = cluster.ledger().starts_since(jumped).count();
    assert!(starts >= STARTS_MIN, "{starts} starts in 20 s of a job that is due every second");
    let successor = cluster.await_leader(Duration::from_secs(1)).await;
    assert_ne!(successor, leader, "the leader whose clock is off hands over");
    let told = |happened: &Happened| {
        happened.host == leader && matches!(happened.event, Event::ClockOff { .. })
    };
    assert!(cluster.events().iter().any(told), "the leader says that its clock is off");

    let view = read_surely(&cluster).await;
    let tick = view.state.job(&job(TICK, "").name).expect("the job is there").clone();
    let starts = cluster.ledger().starts;
    let rows = client::rows(&cluster, &tick.spec.name, tick.cursor).await;
    let verdicts = [
        check::started_once(&starts),
        check::nothing_early(&starts, EARLY_MAX),
        check::nothing_stalls(&starts, LATE_MAX),
        check::one_row_an_instant(&rows, tick.anchor, PERIOD, tick.cursor),
    ];
    let complaints = check::complaints(&verdicts);
    if !complaints.is_empty() || !cluster.halts().is_empty() {
        cluster.tell();
    }
    assert_eq!(complaints, Vec::<String>::new());
    assert_eq!(cluster.halts(), []);
}

#[test]
fn the_clock_of_a_leader_of_three_jumps_an_hour_ahead() {
    simulate("clock", &[1, 2], |seed| clock_jumps(seed, 3, HOUR_MICROS));
}

#[test]
fn the_clock_of_a_leader_of_three_jumps_an_hour_back() {
    simulate("clock", &[1, 2], |seed| clock_jumps(seed, 3, -HOUR_MICROS));
}

#[test]
fn the_clock_of_a_leader_of_five_jumps_an_hour_ahead() {
    simulate("clock", &[1], |seed| clock_jumps(seed, 5, HOUR_MICROS));
}
