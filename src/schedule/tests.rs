//! Schedules against a table of changed clocks, a scan of every minute, and `croner`.

use chrono::{TimeZone, Timelike, Utc};
use chrono_tz::TZ_VARIANTS;
use proptest::prelude::*;

use super::*;

fn name() -> JobName {
    JobName::new("abc").unwrap()
}

fn parse(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone, Tz::UTC, &name()).unwrap()
}

fn wall(text: &str) -> Wall {
    Wall::from_utc(&DateTime::parse_from_rfc3339(text).unwrap())
}

/// Asserts the due instants that follow `after`, all in UTC without the final `Z`.
fn check(zone: &str, text: &str, after: &str, expected: &[&str]) {
    let schedule = parse(text, zone);
    let mut after = wall(&format!("{after}Z"));
    for expected in expected {
        let due = schedule.next_after(after, Wall::EPOCH).unwrap();
        assert_eq!(due.to_string(), format!("{expected}Z"), "{text} in {zone} after {after}");
        after = due;
    }
}

#[test]
fn a_fixed_time_in_a_gap_runs_once_at_the_first_valid_instant() {
    let after = "2024-03-30T12:00:00";
    let berlin = "Europe/Berlin";
    check(berlin, "0 30 2 * * *", after, &["2024-03-31T01:00:00", "2024-04-01T00:30:00"]);
    check(berlin, "0 0 3 * * *", after, &["2024-03-31T01:00:00", "2024-04-01T01:00:00"]);
    check(
        berlin,
        "*/10 30 2 * * *",
        after,
        &["2024-03-31T01:00:00", "2024-04-01T00:30:00", "2024-04-01T00:30:10"],
    );
    check(
        berlin,
        "0 0,30 2,3 * * *",
        after,
        &["2024-03-31T01:00:00", "2024-03-31T01:30:00", "2024-04-01T00:00:00"],
    );
    check("Antarctica/Troll", "0 30 1 * * *", after, &["2024-03-31T01:00:00"]);
}

#[test]
fn a_fixed_time_in_an_overlap_runs_once_at_its_first_instant() {
    let berlin = "Europe/Berlin";
    let fixed = "0 30 2 * * *";
    check(berlin, fixed, "2024-10-26T12:00:00", &["2024-10-27T00:30:00", "2024-10-28T01:30:00"]);
    check(berlin, fixed, "2024-10-27T01:10:00", &["2024-10-28T01:30:00"]);
    check(berlin, "0 0 3 * * *", "2024-10-27T01:10:00", &["2024-10-27T02:00:00"]);
    check(
        berlin,
        "0 */20 2 * * *",
        "2024-10-27T00:20:00",
        &["2024-10-27T00:40:00", "2024-10-28T01:00:00"],
    );
}

#[test]
fn every_real_hour_runs_where_the_hour_is_not_restricted() {
    let berlin = "Europe/Berlin";
    let spring = ["2024-03-31T00:30:00", "2024-03-31T01:30:00", "2024-03-31T02:30:00"];
    let autumn = ["2024-10-27T00:30:00", "2024-10-27T01:30:00", "2024-10-27T02:30:00"];
    for text in ["0 30 * * * *", "0 30 */1 * * *", "0 30 0-23 * * *"] {
        check(berlin, text, "2024-03-31T00:00:00", &spring);
        check(berlin, text, "2024-10-26T23:45:00", &autumn);
    }
    // The last Sunday of October only, asked a year ahead: the change lies between.
    check(
        berlin,
        "0 30 * 27 10 *",
        "2023-10-28T12:00:00",
        &["2024-10-26T22:30:00", "2024-10-26T23:30:00", autumn[0], autumn[1], autumn[2]],
    );
}

#[test]
fn a_clock_that_moves_by_half_an_hour_is_no_exception() {
    let lord_howe = "Australia/Lord_Howe";
    check(
        lord_howe,
        "0 45 1 * * *",
        "2024-04-06T00:00:00",
        &["2024-04-06T14:45:00", "2024-04-07T15:15:00"],
    );
    check(
        lord_howe,
        "0 45 * * * *",
        "2024-04-06T14:00:00",
        &["2024-04-06T14:45:00", "2024-04-06T15:15:00", "2024-04-06T16:15:00"],
    );
    check(
        lord_howe,
        "0 15 2 * * *",
        "2024-10-05T00:00:00",
        &["2024-10-05T15:30:00", "2024-10-06T15:15:00"],
    );
}

#[test]
fn midnight_may_be_missing_or_come_twice() {
    check(
        "America/Sao_Paulo",
        "@daily",
        "2018-11-03T12:00:00",
        &["2018-11-04T03:00:00", "2018-11-05T02:00:00"],
    );
    check("America/Sao_Paulo", "@daily", "2018-02-17T12:00:00", &["2018-02-18T03:00:00"]);
    check(
        "America/Sao_Paulo",
        "0 30 23 * * *",
        "2018-02-17T12:00:00",
        &["2018-02-18T01:30:00", "2018-02-19T02:30:00"],
    );
    check(
        "Asia/Beirut",
        "@midnight",
        "2024-03-30T12:00:00",
        &["2024-03-30T22:00:00", "2024-03-31T21:00:00"],
    );
}

#[test]
fn a_day_that_a_country_skips_runs_at_the_midnight_that_follows() {
    let apia = "Pacific/Apia";
    let after = "2011-12-29T12:00:00";
    check(apia, "@daily", after, &["2011-12-30T10:00:00", "2011-12-31T10:00:00"]);
    check(
        apia,
        "0 0 9 * * *",
        after,
        &["2011-12-29T19:00:00", "2011-12-30T10:00:00", "2011-12-30T19:00:00"],
    );
    check(
        apia,
        "@hourly",
        "2011-12-30T08:30:00",
        &["2011-12-30T09:00:00", "2011-12-30T10:00:00", "2011-12-30T11:00:00"],
    );
}

#[test]
fn two_restricted_day_fields_are_an_or() {
    check(
        "",
        "0 0 0 13 * 5",
        "2026-11-10T00:00:00",
        &["2026-11-13T00:00:00", "2026-11-20T00:00:00", "2026-11-27T00:00:00"],
    );
    check(
        "",
        "0 0 0 13 * fri",
        "2026-12-11T00:00:00",
        &["2026-12-13T00:00:00", "2026-12-18T00:00:00"],
    );
    check("", "0 0 0 */31 * 0", "2026-11-23T00:00:00", &["2026-11-29T00:00:00"]);
}

#[test]
fn the_search_ends_after_five_years() {
    check("", "0 0 0 29 2 *", "2024-03-01T00:00:00", &["2028-02-29T00:00:00"]);
    for (text, after) in [
        ("0 0 0 30 2 *", "2024-01-01T00:00:00Z"),
        ("* * * 31 4,6,9,11 *", "2024-01-01T00:00:00Z"),
        ("0 0 0 29 2 *", "2096-03-01T00:00:00Z"),
        ("* * * * * *", "2101-01-01T00:00:00Z"),
    ] {
        assert_eq!(parse(text, "").next_after(wall(after), Wall::EPOCH), None, "{text}");
    }
    let last = Wall::from_micros(i64::MAX);
    assert_eq!(parse("* * * * * *", "").next_after(last, last), None);
    let first = Wall::from_micros(i64::MIN);
    let due = parse("* * * * * *", "Europe/Berlin").next_after(first, first);
    assert_eq!(due, Some(wall("1970-01-01T00:00:00+01:00")));
}

#[test]
fn fractions_of_a_second_neither_skip_nor_repeat_an_instant() {
    let schedule = parse("* * * * * *", "");
    let second = wall("2026-11-23T02:00:00Z").as_micros();
    let next = |micros| schedule.next_after(Wall::from_micros(micros), Wall::EPOCH);
    assert_eq!(next(second - 1), Some(Wall::from_micros(second)));
    assert_eq!(next(second), Some(Wall::from_micros(second + 1_000_000)));
    assert_eq!(next(second + 999_999), Some(Wall::from_micros(second + 1_000_000)));
}

#[test]
fn every_counts_from_its_anchor_whenever_it_is_asked() {
    let schedule = parse("@every 1h30m", "");
    let anchor = wall("2026-11-23T00:10:00.250Z");
    let next = |after: &str| schedule.next_after(wall(after), anchor).unwrap().to_string();
    assert_eq!(next("2026-11-22T00:00:00Z"), "2026-11-23T01:40:00.250Z");
    assert_eq!(next("2026-11-23T00:10:00.250Z"), "2026-11-23T01:40:00.250Z");
    assert_eq!(next("2026-11-23T01:40:00.250Z"), "2026-11-23T03:10:00.250Z");
    assert_eq!(next("2026-11-24T00:00:00Z"), "2026-11-24T00:10:00.250Z");
    let end = Wall::from_micros(i64::MAX);
    assert_eq!(schedule.next_after(end, Wall::from_micros(i64::MIN)), None);
}

#[test]
fn every_is_whole_seconds_and_at_least_one() {
    assert_eq!(parse("@every 300ms", "").to_string(), "@every 1s");
    assert_eq!(parse("@every 0", "").to_string(), "@every 1s");
    assert_eq!(parse("@every 2.9s", "").to_string(), "@every 2s");
    assert_eq!(parse("@every  90m", "").to_string(), "@every 1h30m0s");
}

#[test]
fn at_is_due_once_even_if_it_is_past() {
    let schedule = parse("@at 2018-01-02T15:04:00+01:00", "");
    let at = wall("2018-01-02T14:04:00Z");
    assert_eq!(schedule.next_after(Wall::EPOCH, wall("2026-01-01T00:00:00Z")), Some(at));
    assert_eq!(schedule.next_after(at, Wall::EPOCH), None);
    assert_eq!(schedule.to_string(), "@at 2018-01-02T14:04:00Z");
}

#[test]
fn manually_is_never_due() {
    assert_eq!(parse("@manually", "").next_after(Wall::EPOCH, Wall::EPOCH), None);
}

#[test]
fn the_prefix_wins_over_the_job_and_the_job_over_the_cluster() {
    let text = |text: &str, timezone: &str| {
        Schedule::parse(text, timezone, Tz::Asia__Tokyo, &name()).unwrap().to_string()
    };
    let tokyo = "CRON_TZ=Asia/Tokyo 0 0 0 * * *";
    let berlin = "CRON_TZ=Europe/Berlin 0 0 0 * * *";
    assert_eq!(text("@daily", ""), tokyo);
    assert_eq!(text("@daily", "Europe/Berlin"), berlin);
    assert_eq!(text("TZ=Europe/Berlin @daily", "America/New_York"), berlin);
    assert_eq!(text("CRON_TZ=Europe/Berlin  0 0 0 * * *", ""), berlin);
    assert_eq!(text("TZ=Europe/Berlin @manually", ""), "@manually");
}

#[test]
fn descriptors_are_abbreviations() {
    for (text, fields) in [
        ("@yearly", "0 0 0 1 1 *"),
        ("@annually", "0 0 0 1 1 *"),
        ("@monthly", "0 0 0 1 * *"),
        ("@weekly", "0 0 0 * * 0"),
        ("@midnight", "0 0 0 * * *"),
        ("@hourly", "0 0 * * * *"),
        ("@minutely", "0 * * * * *"),
    ] {
        assert_eq!(parse(text, ""), parse(fields, ""), "{text}");
    }
}

#[test]
fn an_error_says_what_is_wrong_and_what_would_be_right() {
    let error = |text: &str, timezone: &str| {
        Schedule::parse(text, timezone, Tz::UTC, &name()).unwrap_err().to_string()
    };
    assert_eq!(error("", ""), "empty spec string");
    assert_eq!(
        error("TZ=UTC  ", ""),
        "no schedule after the time zone in TZ=UTC; \
        expected for example TZ=UTC 0 0 2 * * *"
    );
    assert_eq!(
        error("TZ=x", ""),
        "no schedule after the time zone in TZ=x; \
        expected for example TZ=UTC 0 0 2 * * *"
    );
    assert_eq!(
        error("TZ=Mars/Olympus @daily", ""),
        "provided bad location Mars/Olympus: unknown time zone Mars/Olympus"
    );
    assert_eq!(
        error("@daily", "berlin"),
        "provided bad location berlin: unknown time zone berlin; did you mean Europe/Berlin?"
    );
    assert_eq!(
        error("@every 3", ""),
        "failed to parse duration @every 3: time: missing unit in duration \"3\"; \
        expected for example @every 1h30m"
    );
    assert!(error("@every -1h", "").contains("negative"));
    assert!(error("@at tomorrow", "").starts_with("failed to parse date @at tomorrow: "));
    assert!(error("@at 9999-12-31T23:59:59-01:00", "").contains("four digits"));
    assert!(error("@fortnightly", "").starts_with("unrecognized descriptor: @fortnightly; "));
    assert!(error("@every", "").starts_with("unrecognized descriptor: @every; "));
    assert!(error(&"1,".repeat(SCHEDULE_LEN_MAX), "").contains("at most 2048"));
}

/// Shows at `at`, in minutes of the wall clock since 1970; `None` if its offset has seconds.
fn shown_minute(zone: Tz, at_minute: i64) -> Option<i64> {
    let offset = Clock { zone }.show(at_minute * 60)?.0 - at_minute * 60;
    (offset % 60 == 0).then_some(at_minute + offset / 60)
}

/// The due minutes in `(from, to]` by looking at the clock every minute, as a person would.
fn scan(zone: Tz, fields: &Fields, from: i64, to: i64) -> Option<Vec<i64>> {
    let hours = fields.hours.iter().collect::<Vec<_>>();
    let minutes = fields.minutes.iter().collect::<Vec<_>>();
    let is_match = |shown: i64| {
        let (hour, minute) = (shown / 60 % 24, shown % 60);
        hours.iter().any(|&h| i64::from(h) == hour)
            && minutes.iter().any(|&m| i64::from(m) == minute)
    };
    let mut latest = shown_minute(zone, from)?;
    let mut due = Vec::new();
    for at in from + 1..=to {
        let shown = shown_minute(zone, at)?;
        let is_due =
            if hours.len() == 24 { is_match(shown) } else { (latest + 1..=shown).any(is_match) };
        if is_due {
            due.push(at);
        }
        latest = latest.max(shown);
    }
    Some(due)
}

const SCANNED: [&str; 5] = [
    "0 */30 0-3,22,23 * * *",
    "0 17 * * * *",
    "0 0 0 * * *",
    "0 15,45 1,2 * * *",
    "0 */7 */2 * * *",
];

/// Compares the due minutes around each change of `zone`'s clock in the years from `first` to
/// `last` with [`scan`]; returns how many changes there were.
fn compare_with_scan(zone: Tz, first: i32, last: i32, margin: i64) -> usize {
    let start = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap().timestamp();
    let clock = Clock { zone };
    let mut changes = 0;
    let mut from = start(first);
    while let Some(change) = clock.next_change(from, start(last + 1)).unwrap() {
        from = change;
        changes += 1;
        let (begin, end) = (change.div_euclid(60) - margin, change.div_euclid(60) + margin);
        for text in SCANNED {
            let schedule = parse(text, zone.name());
            let fields = Fields::parse(text, &name()).unwrap();
            let Some(expected) = scan(zone, &fields, begin, end) else { continue };
            let mut found = Vec::new();
            let mut after = Wall::from_secs(begin * 60);
            loop {
                after = schedule.next_after(after, Wall::EPOCH).unwrap();
                if after.as_secs() > end * 60 {
                    break;
                }
                found.push(after.as_secs() / 60);
            }
            assert_eq!(found, expected, "{text} in {zone} around {}", Wall::from_secs(change));
        }
    }
    changes
}

#[test]
fn around_every_change_of_every_zone_due_is_what_a_look_at_the_clock_says() {
    // Three hours on either side hold every shift of these years.
    let changes = TZ_VARIANTS.iter().map(|&zone| compare_with_scan(zone, 2024, 2025, 180));
    assert!(changes.sum::<usize>() > 500);
}

#[test]
fn since_1970_odd_zones_are_due_as_a_look_at_the_clock_says() {
    for (zone, first, last) in [
        (Tz::Pacific__Apia, 2010, 2013),
        (Tz::Pacific__Kwajalein, 1990, 1995),
        (Tz::Australia__Lord_Howe, 1980, 1990),
        (Tz::America__Sao_Paulo, 2015, 2020),
        (Tz::Africa__Casablanca, 2010, 2014),
        (Tz::Africa__Cairo, 2010, 2014),
        (Tz::Antarctica__Casey, 2009, 2023),
        (Tz::Asia__Pyongyang, 2014, 2019),
        (Tz::America__Caracas, 2006, 2017),
        (Tz::Asia__Kathmandu, 1985, 1987),
    ] {
        assert!(compare_with_scan(zone, first, last, 1_800) > 0, "{zone}");
    }
}

/// One item of a list in both syntaxes: ours, and plain ranges for `croner`. Its numbers go up to
/// `top`, its open ranges to `max`.
fn item(min: u32, top: u32, max: u32) -> impl Strategy<Value = (String, String)> {
    (0..4_u8, min..=top, min..=top, 1..=9_u32).prop_map(move |(kind, a, b, step)| {
        let (low, high) = (a.min(b), a.max(b));
        match kind {
            0 => (low.to_string(), low.to_string()),
            1 => (format!("{low}-{high}"), format!("{low}-{high}")),
            2 => (format!("{low}-{high}/{step}"), format!("{low}-{high}/{step}")),
            3.. => (format!("{low}/{step}"), format!("{low}-{max}/{step}")),
        }
    })
}

fn field(min: u32, top: u32, max: u32) -> impl Strategy<Value = (String, String)> {
    let list = prop::collection::vec(item(min, top, max), 1..4).prop_map(|items| {
        let (ours, theirs): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        (ours.join(","), theirs.join(","))
    });
    prop_oneof![
        1 => Just(("*".to_owned(), "*".to_owned())),
        1 => Just(("?".to_owned(), "*".to_owned())),
        1 => (2..=7_u32).prop_map(move |n| (format!("*/{n}"), format!("{min}-{max}/{n}"))),
        3 => list,
    ]
}

fn expression() -> impl Strategy<Value = (String, String)> {
    let fields = (
        field(0, 59, 59),
        field(0, 59, 59),
        field(0, 23, 23),
        // No day that a month may lack, so that there always is a match.
        field(1, 28, 31),
        field(1, 12, 12),
        field(0, 6, 6),
    );
    fields.prop_map(|(a, b, c, d, e, f)| {
        let all = [a, b, c, d, e, f];
        let ours = all.iter().map(|(ours, _)| ours.as_str()).collect::<Vec<_>>().join(" ");
        let theirs = all.iter().map(|(_, theirs)| theirs.as_str()).collect::<Vec<_>>().join(" ");
        (ours, theirs)
    })
}

fn any_zone() -> impl Strategy<Value = Tz> {
    prop::sample::select(TZ_VARIANTS.to_vec())
}

/// 1975 to 2065, in microseconds.
fn any_instant() -> impl Strategy<Value = Wall> {
    (157_766_400_000_000..2_997_000_000_000_000_i64).prop_map(Wall::from_micros)
}

proptest! {
    #[test]
    fn due_instants_agree_with_croner_where_no_clock_is_changed(
        (ours, theirs) in expression(),
        zone in prop::sample::select(vec![Tz::UTC, Tz::Asia__Kolkata, Tz::America__Phoenix]),
        after in any_instant(),
    ) {
        let oracle = croner::parser::CronParser::builder()
            .seconds(croner::parser::Seconds::Required)
            .build()
            .parse(&theirs)
            .unwrap();
        let start = after.to_utc().unwrap().with_nanosecond(0).unwrap().with_timezone(&zone);
        let expected = oracle.find_next_occurrence(&start, false).unwrap();
        let due = parse(&ours, zone.name()).next_after(after, Wall::EPOCH);
        prop_assert_eq!(due, Some(Wall::from_utc(&expected)), "{} in {}", ours, zone);
    }

    #[test]
    fn the_next_instant_is_later_the_same_until_it_comes_and_never_goes_back(
        (text, _) in expression(),
        zone in any_zone(),
        after in any_instant(),
        parts in (0..=1_000_000_i64, 0..=40_000_000_000_000_i64),
    ) {
        let schedule = parse(&text, zone.name());
        let next = |after| schedule.next_after(after, Wall::EPOCH);
        let due = next(after).unwrap();
        prop_assert!(due > after);
        let wait = due.as_micros() - after.as_micros();
        let between = after.as_micros() + wait / 1_000_000 * parts.0;
        if between < due.as_micros() {
            prop_assert_eq!(next(Wall::from_micros(between)), Some(due));
        }
        let later = Wall::from_micros(after.as_micros() + parts.1);
        prop_assert!(next(later).unwrap() >= due);
    }

    #[test]
    fn the_canonical_text_reads_back((text, _) in expression(), zone in any_zone()) {
        let schedule = parse(&text, zone.name());
        prop_assert_eq!(&parse(&schedule.to_string(), ""), &schedule);
    }

    #[test]
    fn no_text_unwinds_the_parser(
        head in "(CRON_TZ=|TZ=)?[ A-Za-z/]{0,9}",
        text in r"(@every |@at |@)?[-0-9*?~/,a-z@+:. \t\u{a0}\u{e9}]{0,40}",
        wild in ".{0,20}",
    ) {
        for text in [&head, &text, &wild, &format!("{head}{text}"), &format!("TZ=UTC {text}")] {
            if let Ok(schedule) = Schedule::parse(text, "", Tz::UTC, &name()) {
                let _ = schedule.next_after(wall("2026-11-23T02:00:00Z"), Wall::EPOCH);
            }
        }
    }

    #[test]
    fn the_fuzz_body_holds_for_random_bytes(
        bytes in prop::collection::vec(any::<u8>(), 18),
        text in "[0-9*/, ]{11,30}|@every [0-9.]{1,6}[hms]",
    ) {
        crate::fuzzing::schedule::fuzz_schedule(&[bytes.as_slice(), text.as_bytes()].concat());
    }
}
