use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn server(id: u64, role: Role) -> Server {
    Server {
        id: NodeId(id),
        name: name(&format!("s{id}")),
        addr: format!("10.0.0.{id}:6868"),
        role,
        matched: Some(LogIndex(100)),
        health: Health::Alive,
        wish: Wish::Stay,
    }
}

fn dead(id: u64) -> Server {
    Server { health: Health::Dead { since: Mono::ZERO }, ..server(id, Role::Voter) }
}

fn present(server: &Server) -> Present {
    Present {
        id: server.id,
        name: server.name.clone(),
        addr: server.addr.clone(),
        wish: server.wish,
    }
}

fn voters<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
    ids.map(NodeId).into()
}

fn view<'a>(servers: &'a [Server], present: &'a [Present]) -> View<'a> {
    let committed = LogIndex(100);
    View { leader: NodeId(1), servers, present, change: Change::Settled, committed }
}

fn step(servers: &[Server], present: &[Present]) -> Option<Step> {
    Autopilot::new(72 * HOUR).next_step(Mono::ZERO + HOUR, &view(servers, present))
}

fn three() -> Vec<Server> {
    [1, 2, 3].map(|id| server(id, Role::Voter)).to_vec()
}

#[test]
fn a_new_server_follows_first_and_votes_when_it_has_what_was_committed_as_it_came() {
    let mut servers = three();
    let mut newcomer = server(4, Role::Learner);
    let add = step(&servers, &[present(&newcomer)]);
    let addr = newcomer.addr.clone();
    assert_eq!(add, Some(Step::AddLearner { id: NodeId(4), name: name("s4"), addr }));

    let mut autopilot = Autopilot::new(72 * HOUR);
    newcomer.matched = None;
    servers.push(newcomer);
    assert_eq!(autopilot.next_step(Mono::ZERO, &view(&servers, &[])), None);
    servers[3].matched = Some(LogIndex(99));
    assert_eq!(autopilot.next_step(Mono::ZERO, &view(&servers, &[])), None);
    servers[3].matched = Some(LogIndex(100));
    let later = View { committed: LogIndex(500), ..view(&servers, &[]) };
    let promote = Step::Promote { id: NodeId(4), voters: voters([1, 2, 3, 4]) };
    assert_eq!(autopilot.next_step(Mono::ZERO, &later), Some(promote));
}

#[test]
fn nothing_is_changed_while_a_change_is_under_way() {
    let (servers, newcomers) = (three(), [present(&server(4, Role::Learner))]);
    let busy = View { change: Change::InFlight, ..view(&servers, &newcomers) };
    assert_eq!(Autopilot::new(HOUR).next_step(Mono::ZERO, &busy), None);
}

#[test]
fn the_new_life_of_a_server_takes_the_place_of_its_dead_one() {
    let mut reborn = server(9, Role::Learner);
    reborn.name = name("s3");
    let mut servers = vec![server(1, Role::Voter), server(2, Role::Voter), dead(3)];
    assert!(matches!(step(&servers, &[present(&reborn)]), Some(Step::AddLearner { .. })));
    servers.push(reborn);
    let replace = Step::Replace { old: NodeId(3), new: NodeId(9), voters: voters([1, 2, 9]) };
    assert_eq!(step(&servers, &[]), Some(replace));
}

#[test]
fn a_second_server_of_a_living_ones_name_is_not_let_in() {
    let mut twin = server(9, Role::Learner);
    twin.name = name("s3");
    let mut servers = three();
    assert_eq!(step(&servers, &[present(&twin)]), None);
    servers.push(twin);
    assert_eq!(step(&servers, &[]), None);
}

#[test]
fn a_dead_server_is_removed_after_the_grace_and_only_while_a_quorum_stays() {
    let mut autopilot = Autopilot::new(72 * HOUR);
    let one_dead = [server(1, Role::Voter), server(2, Role::Voter), dead(3)];
    let (early, late) = (Mono::ZERO + 71 * HOUR, Mono::ZERO + 72 * HOUR);
    assert_eq!(autopilot.next_step(early, &view(&one_dead, &[])), None);
    let remove = Step::Remove { id: NodeId(3), voters: voters([1, 2]) };
    assert_eq!(autopilot.next_step(late, &view(&one_dead, &[])), Some(remove));

    let two_dead = [server(1, Role::Voter), dead(2), dead(3)];
    assert_eq!(autopilot.next_step(late, &view(&two_dead, &[])), None);
}

#[test]
fn who_was_asked_to_leave_is_removed_and_the_leader_hands_over_first() {
    let mut servers = three();
    servers[1].wish = Wish::Leave;
    let remove = Step::Remove { id: NodeId(2), voters: voters([1, 3]) };
    assert_eq!(step(&servers, &[]), Some(remove));
    servers[0].wish = Wish::Leave;
    servers[1].wish = Wish::Stay;
    servers[2].matched = Some(LogIndex(101));
    assert_eq!(step(&servers, &[]), Some(Step::HandOver { to: NodeId(3) }));
    assert_eq!(step(&servers[..1], &[]), None);
}

#[test]
fn who_was_asked_to_leave_is_not_taken_in_again() {
    let leaver = Server { wish: Wish::Leave, ..server(4, Role::Learner) };
    assert_eq!(step(&three(), &[present(&leaver)]), None);
}

#[test]
fn a_server_that_moved_gets_its_new_address() {
    let servers = three();
    let mut moved = present(&servers[1]);
    moved.addr = "10.9.9.9:6868".to_owned();
    let (id, name, addr) = (moved.id, moved.name.clone(), moved.addr.clone());
    assert_eq!(step(&servers, &[moved]), Some(Step::Readdress { id, name, addr }));
}

#[test]
fn a_dead_learner_goes_when_its_new_life_is_there() {
    let mut servers = three();
    servers.push(Server { role: Role::Learner, ..dead(4) });
    assert_eq!(step(&servers, &[]), None);
    let mut reborn = server(9, Role::Learner);
    reborn.name = name("s4");
    servers.push(Server { matched: None, ..reborn.clone() });
    let reborn = [present(&reborn)];
    assert_eq!(step(&servers, &reborn), Some(Step::RemoveLearner { id: NodeId(4) }));
}
