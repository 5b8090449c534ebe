use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::codec::frame::{FRAME_LEN_MAX, HEADER_LEN, preface};

#[tokio::test]
async fn sessions_carry_frames_both_ways() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    alpha.net.send(at_alpha, Lane::Control, Bytes::from_static(b"hello"));
    beta.net.send(at_beta, Lane::Control, Bytes::from_static(b"hello yourself"));
    assert_eq!(beta.event().await, frame(at_beta, b"hello"));
    assert_eq!(alpha.event().await, frame(at_alpha, b"hello yourself"));
}

#[tokio::test]
async fn a_higher_lane_goes_first() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    // On one thread nothing is written before this task waits.
    alpha.net.send(at_alpha, Lane::Bulk, Bytes::from_static(b"bulk"));
    alpha.net.send(at_alpha, Lane::Append, Bytes::from_static(b"append"));
    alpha.net.send(at_alpha, Lane::Control, Bytes::from_static(b"control"));
    for expected in [&b"control"[..], b"append", b"bulk"] {
        assert_eq!(beta.event().await, frame(at_beta, expected));
    }
}

#[tokio::test]
async fn the_longest_frames_arrive_whole_and_in_order() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    for fill in [1, 2, 3] {
        alpha.net.send(at_alpha, Lane::Bulk, Bytes::from(vec![fill; FRAME_LEN_MAX]));
        alpha.net.send(at_alpha, Lane::Bulk, Bytes::from(vec![fill]));
    }
    for fill in [1, 2, 3] {
        for len in [FRAME_LEN_MAX, 1] {
            assert!(beta.event().await == frame(at_beta, &vec![fill; len]), "{fill} {len}");
        }
    }
}

#[tokio::test]
async fn the_end_of_one_side_is_told_on_both_after_the_last_frame() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    alpha.net.send(at_alpha, Lane::Control, Bytes::from_static(b"you are refused"));
    alpha.net.close(at_alpha);
    alpha.net.send(at_alpha, Lane::Control, Bytes::from_static(b"too late"));
    assert_eq!(beta.event().await, frame(at_beta, b"you are refused"));
    assert_eq!(beta.event().await, disconnected(at_beta, "closed by the other side"));
    assert_eq!(alpha.event().await, disconnected(at_alpha, "closed by this side"));
    // What is sent to a session that is no more is lost in silence.
    alpha.net.send(at_alpha, Lane::Control, Bytes::new());
    alpha.net.close(at_alpha);
}

#[tokio::test]
async fn session_ids_are_never_used_again() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (first, _) = connect_nodes(&mut alpha, &mut beta).await;
    let (second, _) = connect_nodes(&mut alpha, &mut beta).await;
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_peer_that_does_not_read_ends_the_session_and_holds_nobody_up() {
    let mut alpha = node(NetLimits { queue_len_max: 10_000_000, ..limits() }).await;
    let (_peer, session) = stranger(&mut alpha, &preface()).await;
    for _ in 0..1_000 {
        alpha.net.send(session, Lane::Bulk, Bytes::from(vec![0; 1_000_000]));
    }
    let reason = "more than 10000000 bytes wait to be sent";
    assert_eq!(alpha.event().await, disconnected(session, reason));
}

#[tokio::test]
async fn a_peer_that_does_not_read_does_not_hold_up_a_close() {
    let mut alpha = node(limits()).await;
    let (_peer, session) = stranger(&mut alpha, &preface()).await;
    for _ in 0..30 {
        alpha.net.send(session, Lane::Bulk, Bytes::from(vec![0; 1_000_000]));
    }
    alpha.net.close(session);
    assert_eq!(alpha.event().await, disconnected(session, "closed by this side"));
}

#[tokio::test]
async fn a_frame_too_long_ends_the_session_with_that_reason() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, _) = connect_nodes(&mut alpha, &mut beta).await;
    alpha.net.send(at_alpha, Lane::Bulk, Bytes::from(vec![0; FRAME_LEN_MAX + 1]));
    let reason = "a frame of 8388609 bytes, at most 8388608 are allowed";
    assert_eq!(alpha.event().await, disconnected(at_alpha, reason));
}

#[tokio::test]
async fn a_stranger_is_turned_away_before_anybody_hears_of_it() {
    let mut alpha = node(limits()).await;
    let mut stranger = TcpStream::connect(alpha.peers).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    read_to_end(&mut stranger).await;
    assert_eq!(alpha.net.connections_refused(), 1);
    assert!(alpha.events.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_turned_away() {
    let alpha = node(NetLimits { connect_timeout: Duration::from_millis(50), ..limits() }).await;
    let mut stranger = TcpStream::connect(alpha.peers).await.unwrap();
    read_to_end(&mut stranger).await;
    assert_eq!(alpha.net.connections_refused(), 1);
}

#[tokio::test]
async fn garbage_after_the_preface_ends_the_session_with_its_name() {
    let mut alpha = node(limits()).await;
    let (mut peer, session) = stranger(&mut alpha, &preface()).await;
    peer.write_all(&[0xff; HEADER_LEN]).await.unwrap();
    let reason = "a frame of 4294967295 bytes, at most 8388608 are allowed";
    assert_eq!(alpha.event().await, disconnected(session, reason));
}

#[tokio::test]
async fn half_a_frame_is_never_delivered() {
    let mut alpha = node(limits()).await;
    let (mut peer, session) = stranger(&mut alpha, &preface()).await;
    peer.write_all(&[200, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]).await.unwrap();
    drop(peer);
    let NetEvent::Disconnected { session: ended, .. } = alpha.event().await else {
        panic!("expected the end of the session");
    };
    assert_eq!(ended, session);
}

#[tokio::test]
async fn a_peer_that_vanished_is_noticed() {
    let silence_max = Duration::from_millis(100);
    let mut alpha = node(NetLimits { silence_max, ..limits() }).await;
    // It stays connected, and neither says nor takes anything.
    let (_peer, session) = stranger(&mut alpha, &preface()).await;
    assert_eq!(alpha.event().await, disconnected(session, "silent for 100ms"));
}

#[tokio::test]
async fn an_idle_session_lives_by_its_signs_of_life() {
    let silence_max = Duration::from_secs(1);
    let keep_alive = Duration::from_millis(20);
    let idle = NetLimits { silence_max, keep_alive, ..limits() };
    let (mut alpha, mut beta) = (node(idle.clone()).await, node(idle).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    assert!(timeout(2 * silence_max, alpha.events.recv()).await.is_err(), "nothing happens");
    alpha.net.send(at_alpha, Lane::Control, Bytes::from_static(b"still here"));
    assert_eq!(beta.event().await, frame(at_beta, b"still here"));
}

#[tokio::test]
async fn a_slow_owner_holds_the_other_side_back_and_loses_nothing() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    let count = 20 * EVENTS_MAX;
    for number in 0..count {
        alpha.net.send(at_alpha, Lane::Append, Bytes::from(number.to_string()));
    }
    for number in 0..count {
        tokio::task::yield_now().await;
        assert_eq!(beta.event().await, frame(at_beta, number.to_string().as_bytes()));
    }
}

#[tokio::test]
async fn sessions_beyond_the_maximum_are_turned_away() {
    let mut alpha = node(NetLimits { sessions_max: 1, ..limits() }).await;
    let (first, session) = stranger(&mut alpha, &preface()).await;
    let mut second = TcpStream::connect(alpha.peers).await.unwrap();
    read_to_end(&mut second).await;
    assert_eq!(alpha.net.connections_refused(), 1);
    drop(first);
    let NetEvent::Disconnected { session: ended, .. } = alpha.event().await else {
        panic!("the first session was left alone until its end");
    };
    assert_eq!(ended, session);
}

#[tokio::test]
async fn a_failed_dial_says_why() {
    let mut alpha = node(limits()).await;
    // Bound and not listening: nobody else gets the port, and connecting to it is refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let closed = socket.local_addr().unwrap();
    alpha.net.dial(DialId(3), closed.to_string());
    assert_eq!(alpha.event().await, failed(3, format!("{closed}: refused")));

    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = other.local_addr().unwrap();
    alpha.net.dial(DialId(4), address.to_string());
    let (mut stream, _) = other.accept().await.unwrap();
    stream.write_all(b"SSH-2.0").await.unwrap();
    let reason = format!("{address}: the other side is no cronclave peer");
    assert_eq!(alpha.event().await, failed(4, reason));

    alpha.net.dial(DialId(5), "no port".to_owned());
    let NetEvent::ConnectFailed { dial: DialId(5), reason } = alpha.event().await else {
        panic!("expected a failure");
    };
    assert!(reason.starts_with("cannot resolve no port: "), "{reason}");
}

#[tokio::test]
async fn a_taken_port_is_an_error_and_a_port_that_was_left_is_free_at_once() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let error = listen(beta.peers).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    // The side that ends first is the one whose port is remembered by the system.
    let (_, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    beta.net.clone().shutdown().await;
    assert_eq!(beta.event().await, disconnected(at_beta, "closed by this side"));
    listen(beta.peers).unwrap();
}

#[tokio::test]
async fn datagrams_arrive_with_their_sender() {
    let (alpha, mut beta) = (node(limits()).await, node(limits()).await);
    alpha.net.datagram(beta.gossip, Bytes::from_static(b"ping"));
    let bytes = Bytes::from_static(b"ping");
    assert_eq!(beta.event().await, NetEvent::Datagram { from: alpha.gossip, bytes });
    assert_eq!(alpha.net.datagrams_dropped(), 0);
}

#[tokio::test]
async fn names_are_resolved_with_the_gossip_port() {
    let mut alpha = node(limits()).await;
    for (name, address) in [
        ("127.0.0.1", "127.0.0.1:8946"),
        ("127.0.0.1:7", "127.0.0.1:7"),
        ("::1", "[::1]:8946"),
        ("[::1]", "[::1]:8946"),
        ("[::1]:7", "[::1]:7"),
    ] {
        alpha.net.resolve(name.to_owned());
        let expected = NetEvent::Resolved {
            name: name.to_owned(),
            result: Ok(vec![address.parse().unwrap()]),
        };
        assert_eq!(alpha.event().await, expected);
    }
    alpha.net.resolve("name:no-port".to_owned());
    assert!(matches!(alpha.event().await, NetEvent::Resolved { result: Err(_), .. }));
}

#[tokio::test]
async fn a_shutdown_writes_what_waits() {
    let (mut alpha, mut beta) = (node(limits()).await, node(limits()).await);
    let (at_alpha, at_beta) = connect_nodes(&mut alpha, &mut beta).await;
    alpha.net.datagram(beta.gossip, Bytes::from_static(b"leaving"));
    alpha.net.send(at_alpha, Lane::Bulk, Bytes::from(vec![1; 3_000_000]));
    alpha.net.clone().shutdown().await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(beta.event().await);
    }
    seen.retain(|event| !matches!(event, NetEvent::Datagram { .. }));
    assert!(seen[0] == frame(at_beta, &vec![1; 3_000_000]));
    assert_eq!(seen[1], disconnected(at_beta, "closed by the other side"));
    assert_eq!(alpha.event().await, disconnected(at_alpha, "closed by this side"));
    assert!(TcpStream::connect(alpha.peers).await.is_err(), "nobody listens any more");
}

/// Small, so that tests see what happens when it is full.
const EVENTS_MAX: usize = 8;

struct TestNode {
    net: Net,
    events: mpsc::Receiver<NetEvent>,
    peers: SocketAddr,
    gossip: SocketAddr,
}

impl TestNode {
    async fn event(&mut self) -> NetEvent {
        self.events.recv().await.expect("the network runs")
    }
}

fn limits() -> NetLimits {
    NetLimits::default()
}

async fn node(limits: NetLimits) -> TestNode {
    let peers = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let gossip = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (peers_at, gossip_at) = (peers.local_addr().unwrap(), gossip.local_addr().unwrap());
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let net = Net::start(peers, gossip, sender, limits);
    TestNode { net, events, peers: peers_at, gossip: gossip_at }
}

/// Connects two nodes, and says what each calls the session.
async fn connect_nodes(alpha: &mut TestNode, beta: &mut TestNode) -> (SessionId, SessionId) {
    alpha.net.dial(DialId(7), beta.peers.to_string());
    let NetEvent::Connected { session: at_alpha, remote, dialed } = alpha.event().await else {
        panic!("expected a session at alpha");
    };
    assert_eq!((remote, dialed), (beta.peers, Some(DialId(7))));
    let NetEvent::Connected { session: at_beta, dialed: None, .. } = beta.event().await else {
        panic!("expected a session at beta");
    };
    (at_alpha, at_beta)
}

/// A bare connection to a node that has begun with `greeting`.
async fn stranger(node: &mut TestNode, greeting: &[u8]) -> (TcpStream, SessionId) {
    let mut stream = TcpStream::connect(node.peers).await.unwrap();
    stream.write_all(greeting).await.unwrap();
    let NetEvent::Connected { session, .. } = node.event().await else {
        panic!("expected a session");
    };
    (stream, session)
}

/// Reads until the other side ends the connection, in good order or not.
async fn read_to_end(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
}

fn frame(session: SessionId, bytes: &[u8]) -> NetEvent {
    NetEvent::Frame { session, bytes: Bytes::copy_from_slice(bytes) }
}

fn disconnected(session: SessionId, reason: &str) -> NetEvent {
    NetEvent::Disconnected { session, reason: reason.to_owned() }
}

fn failed(dial: u64, reason: String) -> NetEvent {
    NetEvent::ConnectFailed { dial: DialId(dial), reason }
}
