use super::*;
use crate::id::{LogIndex, Revision};
use crate::jobs::command::{Applied, Stamped, Timing};
use crate::jobs::job::Concurrency;

const MINUTE: Duration = Duration::from_secs(60);

/// A node's name and tags.
type Named<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// A leader, the state that it leads, and the clock.
struct Bench {
    leader: Leader,
    state: State,
    nodes: Vec<NodeView>,
    now: Now,
    index: u64,
}

impl Bench {
    /// A leader since second 1,000 of both clocks, with these nodes, each in a session.
    fn new(nodes: &[Named<'_>]) -> Self {
        let at = Now { mono: Mono::from_micros(1_000_000_000), wall: Wall::from_secs(1_000) };
        let view = |(number, (name, tags)): (usize, &Named<'_>)| NodeView {
            id: NodeId(number as u64 + 1),
            name: NodeName::new(*name).unwrap(),
            tags: tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            session: Some(SessionId(number as u64 + 1)),
            disk_full: false,
        };
        Self {
            leader: Leader::new(Term(3), at, Mono::ZERO, Patience::default(), 7),
            state: State::default(),
            nodes: nodes.iter().enumerate().map(view).collect(),
            now: at,
            index: 0,
        }
    }

    fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let entry = Stamped { stamp: self.now.wall, id: None, command };
        self.state.apply(LogIndex(self.index), &entry).0
    }

    fn put(&mut self, schedule: &str, tags: &[(&str, &str)]) {
        let spec = JobSpec {
            name: crate::id::JobName::new("job").unwrap(),
            displayname: String::new(),
            schedule: schedule.into(),
            timezone: String::new(),
            owner: String::new(),
            owner_email: String::new(),
            disabled: false,
            tags: tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            metadata: BTreeMap::new(),
            retries: 0,
            concurrency: Concurrency::Allow,
            executor: "shell".into(),
            executor_config: BTreeMap::from([("command".into(), "true".into())]),
            ephemeral: false,
            starts_at: None,
            expires_at: None,
        };
        let anchor = self.now.wall;
        let parsed = crate::dispatch::timing::parse(&spec, "").unwrap();
        let next = crate::dispatch::timing::next_after(&parsed, &spec, anchor, anchor);
        self.apply(Command::PutJob { spec: spec.into(), timing: Timing { anchor, next } });
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall + time };
    }

    fn step(&mut self) -> Step {
        self.leader.step(self.now, &self.state, &self.nodes)
    }

    /// Takes a step, and has the log take what it claims.
    fn claim(&mut self) -> Vec<Claim> {
        let claims = self.step().claims;
        if !claims.is_empty() {
            self.apply(Command::Claim(claims.clone()));
            self.leader.on_claimed();
        }
        claims
    }
}

fn dues(claims: &[Claim]) -> Vec<i64> {
    claims.iter().map(|claim| claim.due.as_secs()).collect()
}

fn targets(claim: &Claim) -> usize {
    match &claim.plan {
        Plan::Run(targets) => targets.len(),
        Plan::Skip(_) | Plan::Miss(_) => 0,
    }
}

#[test]
fn a_new_leader_claims_every_instant_that_fell_due_while_there_was_none() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@every 10s", &[]);
    bench.pass(Duration::from_secs(35));
    assert_eq!(dues(&bench.claim()), [1_010, 1_020, 1_030]);
    assert_eq!(dues(&bench.claim()), [] as [i64; 0]);
    let wake = bench.step().wake.unwrap();
    assert!(wake <= bench.now.mono + Duration::from_secs(5));
    bench.pass(Duration::from_secs(5));
    assert_eq!(dues(&bench.claim()), [1_040]);
}

#[test]
fn while_claims_are_under_way_nothing_is_claimed_again() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@every 10s", &[]);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.step().claims.len(), 1);
    assert_eq!(bench.step().claims.len(), 0);
    bench.leader.on_claimed();
    assert_eq!(bench.step().claims.len(), 1, "the log refused it, so it is claimed again");
}

#[test]
fn what_is_later_than_the_misfire_grace_is_missed_and_not_silent() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@every 30m", &[]);
    bench.pass(MINUTE * 100);
    let claims = bench.claim();
    assert_eq!(claims.len(), 3);
    assert!(matches!(&claims[0].plan, Plan::Miss(reason) if reason.contains("misfire grace")));
    assert_eq!(targets(&claims[1]), 1);
    assert_eq!(targets(&claims[2]), 1);
}

#[test]
fn without_a_matching_node_an_instant_waits_and_then_is_missed_with_the_reason() {
    let mut bench = Bench::new(&[("alpha", &[("role", "web")])]);
    bench.put("@every 10s", &[("role", "db")]);
    bench.pass(Duration::from_secs(10));
    let step = bench.step();
    assert_eq!(step.claims, []);
    assert!(step.wake.is_some());
    bench.nodes[0].tags.insert("role".into(), "db".into());
    assert_eq!(targets(&bench.claim()[0]), 1);
    bench.nodes[0].session = None;
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.claim(), []);
    bench.pass(Duration::from_secs(30));
    let claims = bench.claim();
    let Plan::Miss(reason) = &claims[0].plan else { panic!("{claims:?}") };
    assert!(reason.contains("role=db"), "{reason}");
}

#[test]
fn a_count_takes_so_many_no_count_takes_all_and_no_tags_takes_every_node() {
    let web: &[(&str, &str)] = &[("role", "web")];
    let mut bench = Bench::new(&[("a", web), ("b", web), ("c", web), ("d", &[])]);
    let cases: [(&[(&str, &str)], usize); 6] = [
        (&[("role", "web:1")], 1),
        (&[("role", "web:2")], 2),
        (&[("role", "web:9")], 3),
        (&[("role", "web")], 3),
        (&[], 4),
        (&[("role", "web:x")], 0),
    ];
    for (tags, expected) in cases {
        let tags = tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let nodes = bench.nodes.clone();
        assert_eq!(bench.leader.choose(&tags, &nodes).len(), expected, "{tags:?}");
    }
}

#[test]
fn an_order_goes_out_once_a_session_and_again_when_its_start_stays_unknown() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@every 10s", &[]);
    bench.pass(Duration::from_secs(10));
    bench.claim();
    let orders = bench.step().orders;
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].1.term, Term(3));
    assert_eq!(bench.step().orders.len(), 0);
    bench.nodes[0].session = Some(SessionId(99));
    assert_eq!(bench.step().orders.len(), 1, "a new session may not have heard it");
    bench.pass(ORDER_REPEAT);
    assert_eq!(bench.step().orders.len(), 1);
    let execution = orders[0].1.spec.execution;
    let at = bench.now.wall;
    bench.apply(Command::Started { execution, at });
    bench.pass(ORDER_REPEAT);
    assert_eq!(bench.step().orders.len(), 0);
}

#[test]
fn an_execution_is_lost_when_its_node_is_silent_or_comes_back_without_its_disk() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@every 10m", &[]);
    bench.pass(MINUTE * 10);
    bench.claim();
    bench.nodes[0].session = None;
    assert_eq!(bench.step().lost, []);
    bench.pass(Patience::default().lost_after);
    let lost = bench.step().lost;
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].1.outcome, Outcome::Lost);
    bench.leader.on_reported(lost[0].0);
    bench.nodes[0] =
        NodeView { id: NodeId(77), session: Some(SessionId(5)), ..bench.nodes[0].clone() };
    bench.leader.silent_since.clear();
    assert!(bench.step().lost[0].1.reason.contains("without its disk"));
}

#[test]
fn a_report_is_proposed_once_while_it_is_under_way() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    let execution = ExecutionId { claim: LogIndex(4), slot: 0 };
    let report = Report { execution, progress: Progress::Finished(lost("x")) };
    assert!(bench.leader.on_report(report.clone()).is_some());
    assert!(bench.leader.on_report(report.clone()).is_none());
    bench.leader.on_reported(execution);
    assert!(bench.leader.on_report(report).is_some());
}

#[test]
fn a_node_with_a_full_disk_is_ordered_only_where_no_other_is_there() {
    let mut bench = Bench::new(&[("alpha", &[]), ("beta", &[])]);
    bench.put("@manually", &[]);
    let name = crate::id::JobName::new("job").unwrap();
    let job = bench.state.job(&name).unwrap().clone();
    let mut targets = |nodes: &[NodeView]| {
        let claim = bench.leader.claim_manual(bench.now.wall, &job, nodes).unwrap();
        let Plan::Run(targets) = claim.plan else { panic!("{claim:?}") };
        targets.iter().map(|target| target.name.to_string()).collect::<Vec<_>>()
    };
    let mut nodes = bench.nodes.clone();
    assert_eq!(targets(&nodes), ["alpha", "beta"]);
    nodes[0].disk_full = true;
    assert_eq!(targets(&nodes), ["beta"]);
    nodes[1].disk_full = true;
    assert_eq!(targets(&nodes), ["alpha", "beta"]);
}

#[test]
fn a_manual_run_without_a_node_says_which_tags_do_not_match() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@manually", &[("role", "db:1")]);
    let name = crate::id::JobName::new("job").unwrap();
    let job = bench.state.job(&name).unwrap().clone();
    let nodes = bench.nodes.clone();
    let error = bench.leader.claim_manual(bench.now.wall, &job, &nodes).unwrap_err();
    assert_eq!(error, "no node that answers matches the tags role=db:1");
    assert_ne!(job.revision, Revision(0));
}

#[test]
fn before_a_job_is_changed_everything_that_was_due_is_claimed_and_waits_no_longer() {
    let mut bench = Bench::new(&[("alpha", &[])]);
    bench.put("@every 10s", &[]);
    let overdue = |bench: &mut Bench| {
        let job = Arc::clone(bench.state.jobs().next().unwrap());
        bench.leader.claim_before_change(bench.now, &bench.state, &job, &bench.nodes)
    };
    assert_eq!(overdue(&mut bench), Some(Vec::new()));
    bench.pass(Duration::from_secs(25));
    let claims = overdue(&mut bench).unwrap();
    assert_eq!(dues(&claims), [1_010, 1_020]);
    assert!(claims.iter().all(|claim| targets(claim) == 1));
    bench.nodes[0].session = None;
    let claims = overdue(&mut bench).unwrap();
    let changed = |plan: &Plan| matches!(plan, Plan::Miss(reason) if reason.contains("changed"));
    assert!(claims.len() == 2 && claims.iter().all(|claim| changed(&claim.plan)));
    bench.pass(Duration::from_secs(10 * CLAIMS_MAX as u64));
    assert_eq!(overdue(&mut bench), None, "they need more than one entry");
}
