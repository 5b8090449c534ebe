//! Tests of the page that need no browser.

use cronclave::consensus::Role;
use cronclave::id::{LogIndex, Term};

use super::why::{LEAD_LEN, lead};
use super::*;

/// What a moment of the test costs in the page, at most, in bytes.
const MOMENT_LEN_MAX: usize = 40;

fn at(micros: u64, host: Option<usize>, what: What) -> Moment {
    Moment { at: Mono::from_micros(micros), host, what }
}

fn story(moments: Vec<Moment>) -> Story {
    let hosts = ["n1", "n2", "n3", "a1"].map(str::to_owned).to_vec();
    let options = vec![("seed".to_owned(), "7".to_owned())];
    Story { hosts, servers: 3, agents: 1, options, moments }
}

fn fault(micros: u64, line: &str) -> Moment {
    at(micros, None, What::Fault(line.to_owned()))
}

fn violation(micros: u64, checker: &str, text: &str) -> Moment {
    at(micros, Some(0), What::Violation { checker: checker.to_owned(), text: text.to_owned() })
}

fn leads(micros: u64, host: usize, term: u64) -> Moment {
    let last = Some(LogIndex(micros));
    let what = What::Stands {
        role: Role::Leader,
        term: Term(term),
        leader: Some(host),
        last,
        committed: last,
        applied: last,
    };
    at(micros, Some(host), what)
}

/// The part of a page that is read without a script.
fn plain(page: &str) -> &str {
    page.split("<script").next().unwrap()
}

#[test]
fn every_text_is_escaped() {
    let bad = "<script>alert(\"1\")</script><!-- & '\u{0}";
    let mut story = story(vec![
        fault(1, &format!("cut {bad}")),
        at(2, Some(0), What::Down { why: bad.into() }),
        at(3, None, What::Client(bad.into())),
        at(4, Some(1), What::Event(bad.into())),
        at(5, Some(1), What::Process(bad.into())),
        at(6, Some(1), What::Message { to: 0, label: bad.into(), arrives: None }),
        at(7, None, What::Violation { checker: bad.into(), text: bad.into() }),
    ]);
    story.hosts[0] = bad.to_owned();
    story.options.push((bad.to_owned(), bad.to_owned()));
    story.options.push((REPLAY.to_owned(), bad.to_owned()));
    let page = render(&story);
    assert!(!page.contains("alert(\"1\")"), "a quote is written as it is");
    assert!(!page.contains("<script>alert"), "markup is written as it is");
    // The two scripts of the page, and no third.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("<!--"));
    assert!(!page.contains('\u{0}'));
    assert!(plain(&page).contains("&lt;script&gt;alert(&quot;1&quot;)"));
}

#[test]
fn faults_and_violations_are_there_without_a_script() {
    let story = story(vec![
        fault(1_000_000, "t=1.000 partition n1 n2,n3"),
        at(1_500_000, Some(1), What::Fault("crash n2 keep=torn".into())),
        leads(2_000_000, 0, 3),
        violation(2_500_000, "election safety", "n1 and n2 lead in term 3"),
        fault(3_000_000, "heal all"),
        fault(4_000_000, "wipe n3"),
        violation(5_000_000, "log matching", "entry 9 differs"),
    ]);
    let page = render(&story);
    let text = plain(&page);
    for expected in [
        "<h1>Violation: election safety</h1>",
        "n1 and n2 lead in term 3",
        "<li><b>partition n1 n2,n3</b> since <a href=\"#t=1.000000\">1.000000</a></li>",
        "<li>crash n2 keep=torn at ",
        "<td class=\"leader\">leader<td>3<td>n1<td>2000000",
        "In words: 3 faults, 2 violations",
        "<td>n1 n2 n3<td>partition n1 n2,n3<td>heal all\n",
        "<td>n2<td>crash n2 keep=torn<td>\n",
        "<td>n3<td>wipe n3<td>\n",
        "VIOLATION of log matching: entry 9 differs",
        "<span>seed</span> 7",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn a_run_without_violation_says_so() {
    let page = render(&story(vec![leads(5, 1, 1)]));
    assert!(plain(&page).contains("<h1>No violation</h1>"));
    assert!(!plain(&page).contains("id=\"why\""));
    assert!(plain(&render(&Story::default())).contains("0 moments"));
}

#[test]
fn the_command_stands_apart_from_the_options() {
    let mut story = story(Vec::new());
    story.options.push((REPLAY.to_owned(), "sim replay a.plan".to_owned()));
    let page = render(&story);
    assert_eq!(plain(&page).matches("sim replay a.plan").count(), 1);
    assert!(plain(&page).contains("<code id=\"command\">sim replay a.plan</code>"));
}

fn follows(micros: u64, host: usize) -> Moment {
    let (role, term, leader) = (Role::Follower, Term(3), Some(0));
    let what = What::Stands { role, term, leader, last: None, committed: None, applied: None };
    at(micros, Some(host), what)
}

fn starts(micros: u64, run: &str) -> Moment {
    at(micros, Some(3), What::Process(format!("starts {run}, due 02:00:00")))
}

#[test]
fn what_led_to_a_violation_leaves_out_what_has_nothing_to_do_with_it() {
    let mut moments = vec![starts(1, "nightly#7"), starts(2, "hourly#9"), leads(3, 0, 3)];
    moments.extend([follows(4, 1), follows(5, 2)]);
    moments.extend((0..30).map(|n| at(10 + n, Some(1), What::Event(format!("event {n}")))));
    moments.push(violation(90, "run ledger", "n1 and a1: nightly#7 was started twice"));
    let story = story(moments);
    let moments: Vec<&Moment> = story.moments.iter().collect();
    let lead = lead(&story, &moments, moments.len() - 1);
    assert_eq!(lead.len(), LEAD_LEN + 1);
    assert_eq!(lead[0].what, "starts nightly#7, due 02:00:00");
    assert_eq!(lead[1].what, "event 18");
    assert_eq!(lead[LEAD_LEN].what, "event 29");
}

#[test]
fn the_followers_of_a_leader_are_one_line_of_what_led_to_it() {
    let moments = vec![leads(3, 0, 3), follows(4, 1), follows(5, 2), violation(9, "a", "b")];
    let page = render(&story(moments));
    let row = "0.000004</a><th scope=\"row\">n2 n3<td>follows n1, term 3";
    assert!(plain(&page).contains(row), "{}", plain(&page));
}

#[test]
fn many_options_and_violations_do_not_push_the_rest_away() {
    let mut story = story((1..20).map(|n| violation(n, "log matching", "differs")).collect());
    story.options = (0..40).map(|n| (format!("option-{n}"), n.to_string())).collect();
    let page = render(&story);
    assert!(plain(&page).contains("<summary>26 more options</summary>"));
    assert!(plain(&page).contains("<span>option-39</span> 39"));
    assert_eq!(plain(&page).matches("class=\"more\"").count(), TOP_VIOLATIONS_MAX - 1);
    assert!(plain(&page).contains("and 14 more, in the table below"));
    assert_eq!(plain(&page).matches("VIOLATION of log matching").count(), 19);
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let page = render(&story(vec![violation(1, "a", "b")]));
    for address in ["http:", "https:", "//cdn", "src=", "url(", "@import", "fetch("] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_page_grows_with_its_moments_only() {
    let of = |count: u64| {
        let message = |n: u64| What::Message {
            to: 1,
            label: "append".to_owned(),
            arrives: Some(Mono::from_micros(n * 100 + 700)),
        };
        let moments = (0..count).flat_map(|n| {
            let event = What::Event("member n2 does not answer".to_owned());
            [at(n * 100, Some(0), message(n)), at(n * 100 + 50, Some(2), event)]
        });
        render(&story(moments.collect())).len()
    };
    let (none, many) = (of(0), of(50_000));
    let cost = (many - none) / 100_000;
    assert!(cost <= MOMENT_LEN_MAX, "{cost} bytes for each moment");
    assert!(none < 100_000, "an empty page has {none} bytes");
}

#[test]
fn moments_that_come_out_of_order_are_put_in_order() {
    let page = render(&story(vec![leads(9, 1, 2), leads(4, 0, 1)]));
    assert!(page.contains(r#""t":[4,5],"h":[0,1]"#));
}
