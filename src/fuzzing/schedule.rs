//! Any text as a schedule, at any instant, in any zone.

use chrono_tz::TZ_VARIANTS;

use crate::id::JobName;
use crate::schedule::Schedule;
use crate::time::Wall;

/// How many due instants in a row are asked for.
const STEPS: usize = 3;

/// Reads `after` (8 bytes, microseconds), the anchor (8), a zone's number (2) and the text (the
/// rest); the due instants have to rise strictly, and the canonical text has to read back.
pub fn fuzz_schedule(bytes: &[u8]) {
    let Some((after, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((anchor, rest)) = rest.split_first_chunk::<8>() else { return };
    let Some((zone, rest)) = rest.split_first_chunk::<2>() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let zone = TZ_VARIANTS[usize::from(u16::from_le_bytes(*zone)) % TZ_VARIANTS.len()];
    let name = JobName::new("fuzz").expect("four lowercase letters are a job's name");
    let Ok(schedule) = Schedule::parse(text, "", zone, &name) else { return };

    let again = Schedule::parse(&schedule.to_string(), "", chrono_tz::UTC, &name);
    assert_eq!(again.as_ref(), Ok(&schedule), "the canonical text reads back");

    let anchor = Wall::from_micros(i64::from_le_bytes(*anchor));
    let mut after = Wall::from_micros(i64::from_le_bytes(*after));
    for _ in 0..STEPS {
        let Some(due) = schedule.next_after(after, anchor) else { return };
        assert!(due > after, "a due instant is strictly after the one before it");
        after = due;
    }
}
