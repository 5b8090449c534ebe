use crate::id::{ClusterId, Incarnation, LogIndex, Term};

use super::*;

const CLUSTER: ClusterId = ClusterId(7);

fn hello(name: &str, boot: u64, nonce: u64) -> Hello {
    let name = NodeName::new(name).unwrap();
    Hello {
        id: NodeId::derive(&name, Incarnation(1)),
        peer_addr: format!("{name}:6868"),
        gossip_addr: format!("{name}:8946"),
        name,
        incarnation: Incarnation(1),
        boot: Boot(boot),
        nonce,
        server: true,
        version: String::new(),
        cluster: Some(CLUSTER),
        expect: 3,
        virgin: false,
        standing: Standing::default(),
        footing: Footing::default(),
        left: false,
        disk_full: false,
        tags: BTreeMap::new(),
    }
}

/// Two sides of sessions: what one has to say is carried to the other.
struct Pair {
    a: Links,
    b: Links,
    sessions: u64,
    known: Known,
}

impl Pair {
    fn new(a: Hello, b: Hello) -> Self {
        let links = |me| Links::new(me, BTreeMap::new(), 1);
        Self { a: links(a), b: links(b), sessions: 0, known: Known::default() }
    }

    /// Begins a session, and gives what each side makes of it.
    fn meet(&mut self) -> (Vec<LinkEvent>, Vec<LinkEvent>) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let now = Now { mono: Mono::from_micros(self.sessions), wall: Wall::from_micros(0) };
        let remote = "127.0.0.1:1".parse().unwrap();
        for links in [&mut self.a, &mut self.b] {
            links.on_connected(now.mono, session, None, remote);
        }
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (from_a, from_b) = (self.a.flush(now), self.b.flush(now));
            let known = self.known.clone();
            at_a.extend(take(&mut self.a, now.mono, from_b, &Known::default()));
            at_b.extend(take(&mut self.b, now.mono, from_a, &known));
        }
        (at_a, at_b)
    }

    fn part(&mut self) {
        let (now, session) = (Mono::from_micros(self.sessions), SessionId(self.sessions));
        for links in [&mut self.a, &mut self.b] {
            links.on_disconnected(now, session);
        }
    }

    /// Side A starts again as `me`, which has forgotten everything.
    fn restart(&mut self, me: Hello) {
        self.part();
        self.a = Links::new(me, BTreeMap::new(), 1);
    }
}

fn take(links: &mut Links, now: Mono, outputs: Vec<Output>, known: &Known) -> Vec<LinkEvent> {
    let sent = outputs.into_iter().filter_map(|output| {
        if let Output::Send { session, payload, .. } = output {
            Some((session, payload))
        } else {
            None
        }
    });
    let mut events = Vec::new();
    for (session, payload) in sent {
        events.extend(links.on_frame(now, session, &payload, |_| known.clone()));
    }
    events
}

fn seen(events: &[LinkEvent]) -> Option<Boot> {
    events.iter().find_map(|event| {
        if let LinkEvent::SetBack { seen, .. } = event { Some(*seen) } else { None }
    })
}

fn refusal(events: &[LinkEvent]) -> Option<&str> {
    events.iter().find_map(|event| {
        if let LinkEvent::Refused(reason) = event { Some(reason.as_str()) } else { None }
    })
}

fn is_up(events: &[LinkEvent]) -> bool {
    events.iter().any(|event| matches!(event, LinkEvent::Up(_)))
}

#[test]
fn a_later_boot_is_heard_and_an_earlier_or_repeated_one_is_told_that_it_was_set_back() {
    let mut pair = Pair::new(hello("a", 5, 1), hello("b", 1, 1));
    let (at_a, at_b) = pair.meet();
    assert!(is_up(&at_a) && is_up(&at_b));
    pair.restart(hello("a", 6, 2));
    assert!(is_up(&pair.meet().1));
    for (boot, nonce) in [(4, 3), (6, 3)] {
        pair.restart(hello("a", boot, nonce));
        let (at_a, at_b) = pair.meet();
        assert_eq!(seen(&at_a), Some(Boot(6)));
        assert!(!is_up(&at_b) && refusal(&at_b).unwrap().contains("set back"));
    }
}

#[test]
fn a_boot_is_remembered_across_a_restart_of_who_met_it() {
    let mut pair = Pair::new(hello("a", 5, 1), hello("b", 1, 1));
    let (_, at_b) = pair.meet();
    let met: BTreeMap<NodeId, Met> = at_b
        .into_iter()
        .filter_map(
            |event| {
                if let LinkEvent::Met(id, met) = event { Some((id, met)) } else { None }
            },
        )
        .collect();
    pair.restart(hello("a", 5, 2));
    pair.b = Links::new(hello("b", 2, 2), met, 1);
    assert_eq!(seen(&pair.meet().0), Some(Boot(5)));
}

#[test]
fn the_log_that_all_share_knows_a_later_boot() {
    let mut pair = Pair::new(hello("a", 5, 1), hello("b", 1, 1));
    pair.known.admitted = Some(Admitted { boot: Boot(9), addr: Some("a:6868".to_owned()) });
    assert_eq!(seen(&pair.meet().0), Some(Boot(9)));
    pair.part();
    pair.known.admitted = Some(Admitted { boot: Boot(5), addr: Some("a:6868".to_owned()) });
    assert!(is_up(&pair.meet().1));
}

#[test]
fn at_another_address_nothing_is_certain() {
    for seen_at in [Some("elsewhere:6868".to_owned()), None] {
        let mut pair = Pair::new(hello("a", 5, 1), hello("b", 1, 1));
        pair.known.admitted = Some(Admitted { boot: Boot(9), addr: seen_at });
        let (at_a, at_b) = pair.meet();
        assert_eq!(seen(&at_a), None);
        assert!(refusal(&at_a).is_some() && !is_up(&at_b));
    }
}

#[test]
fn a_copy_of_a_living_node_is_refused_by_name_and_address() {
    let mut pair = Pair::new(hello("a", 5, 1), hello("b", 1, 1));
    pair.meet();
    let elsewhere = Hello { peer_addr: "copy:6868".to_owned(), ..hello("a", 6, 2) };
    pair.a = Links::new(elsewhere, BTreeMap::new(), 1);
    let (at_a, at_b) = pair.meet();
    assert_eq!(seen(&at_a), None);
    assert!(refusal(&at_a).unwrap().contains("a lives at a:6868"));
    assert!(!is_up(&at_b));
}

#[test]
fn only_a_server_of_the_same_cluster_that_speaks_of_this_boot_is_believed() {
    let told = |by: Hello, boot: u64| {
        let mut links = Links::new(hello("a", 5, 1), BTreeMap::new(), 1);
        let (now, session) = (Mono::from_micros(1), SessionId(1));
        links.on_connected(now, session, None, "127.0.0.1:1".parse().unwrap());
        let said = Message::SetBack { boot: Boot(boot), seen: Boot(9) };
        let messages = vec![Message::Hello(Box::new(by)), said];
        let payload = encode(&Envelope { wall: Wall::from_micros(0), messages });
        seen(&links.on_frame(now, session, &payload, |_| Known::default()))
    };
    assert_eq!(told(hello("b", 1, 1), 5), Some(Boot(9)));
    assert_eq!(told(hello("b", 1, 1), 4), None);
    assert_eq!(told(Hello { server: false, ..hello("b", 1, 1) }, 5), None);
    assert_eq!(told(Hello { cluster: None, ..hello("b", 1, 1) }, 5), None);
    assert_eq!(told(Hello { cluster: Some(ClusterId(8)), ..hello("b", 1, 1) }, 5), None);
}

/// A server that came back without its disk is dialled as who it was, while it dials already.
#[test]
fn who_has_to_dial_dials_again_whoever_began_the_session_that_ended() {
    let (me, other) = (hello("a", 5, 1), hello("b", 1, 1));
    let mut links = Links::new(me, BTreeMap::new(), 1);
    let (now, session) = (Mono::from_micros(1), SessionId(1));
    links.want(now, BTreeMap::from([(other.id, other.peer_addr.clone())]));
    links.on_connected(now, session, None, "127.0.0.1:1".parse().unwrap());
    let messages = vec![Message::Hello(Box::new(other))];
    let payload = encode(&Envelope { wall: Wall::from_micros(0), messages });
    assert!(is_up(&links.on_frame(now, session, &payload, |_| Known::default())));
    links.on_timeout(now);
    let dials = |outputs: Vec<Output>| {
        outputs.iter().filter(|output| matches!(output, Output::Dial { .. })).count()
    };
    let at = |mono: Mono| Now { mono, wall: Wall::from_micros(0) };
    assert_eq!(dials(links.flush(at(now))), 0);
    links.on_disconnected(now, session);
    let later = now + BACKOFF_MAX;
    links.on_timeout(later);
    assert_eq!(dials(links.flush(at(later))), 1);
}

fn with(footing: (u64, u64), boot: u64, nonce: u64) -> Hello {
    let (term, index) = footing;
    let last = Some((Term(term), LogIndex(index)));
    let footing = Footing { term: Term(term), last, was_cut: false };
    Hello { footing, ..hello("a", boot, nonce) }
}

#[test]
fn a_later_boot_that_holds_less_than_the_one_before_was_set_back() {
    let mut pair = Pair::new(with((3, 9), 5, 1), hello("b", 1, 1));
    pair.meet();
    for (nonce, footing) in [(2, (2, 90)), (3, (3, 8))] {
        pair.restart(with(footing, 6, nonce));
        let (at_a, at_b) = pair.meet();
        assert_eq!(seen(&at_a), Some(Boot(5)));
        assert!(!is_up(&at_b) && refusal(&at_b).unwrap().contains("set back"));
    }
    pair.restart(with((3, 9), 6, 4));
    assert!(is_up(&pair.meet().1));
}

#[test]
fn what_a_node_says_of_its_disk_in_the_life_of_a_session_counts_and_so_does_what_it_confirmed() {
    let mut pair = Pair::new(with((3, 9), 5, 1), hello("b", 1, 1));
    pair.meet();
    let id = pair.a.me().id;
    pair.b.note_footing(id, with((3, 12), 5, 1).footing);
    pair.restart(with((3, 11), 6, 2));
    assert_eq!(seen(&pair.meet().0), Some(Boot(5)));
    pair.known.promise = Some(Promise { term: Term(3), upto: Some((Term(3), LogIndex(20))) });
    pair.restart(with((3, 19), 6, 3));
    assert_eq!(seen(&pair.meet().0), Some(Boot(5)));
    pair.restart(with((3, 20), 6, 4));
    assert!(is_up(&pair.meet().1));
}

#[test]
fn a_node_that_holds_what_it_is_said_to_have_lost_does_not_believe_it() {
    let told = |promise: Promise| {
        let mut links = Links::new(with((3, 9), 5, 1), BTreeMap::new(), 1);
        let (now, session) = (Mono::from_micros(1), SessionId(1));
        links.on_connected(now, session, None, "127.0.0.1:1".parse().unwrap());
        let said = Message::Outlived { boot: Boot(5), seen: Boot(4), promise };
        let messages = vec![Message::Hello(Box::new(hello("b", 1, 1))), said];
        let payload = encode(&Envelope { wall: Wall::from_micros(0), messages });
        seen(&links.on_frame(now, session, &payload, |_| Known::default()))
    };
    let upto = |index| Some((Term(3), LogIndex(index)));
    assert_eq!(told(Promise { term: Term(3), upto: upto(9) }), None);
    assert_eq!(told(Promise { term: Term(3), upto: upto(10) }), Some(Boot(4)));
}
