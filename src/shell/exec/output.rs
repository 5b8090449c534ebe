//! The end of what a process wrote: [`Tail`].

use std::collections::VecDeque;

use crate::jobs::job::OUTPUT_LEN_MAX;

/// The last [`OUTPUT_LEN_MAX`] bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    ring: VecDeque<u8>,
    lost: Lost,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Finished,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lost {
    #[default]
    Nothing,
    Beginning,
}

/// What a [`Tail`] held, as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// At most [`OUTPUT_LEN_MAX`] bytes; what was no UTF-8 is replaced.
    pub(super) text: String,
    /// Whether it lacks its beginning.
    pub(super) truncated: bool,
}

impl Tail {
    /// Takes the next bytes, and lets go of the oldest. Keeps nothing once it is finished.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.phase == Phase::Finished {
            return;
        }
        let kept = &bytes[bytes.len().saturating_sub(OUTPUT_LEN_MAX)..];
        let excess = (self.ring.len() + kept.len()).saturating_sub(OUTPUT_LEN_MAX);
        if excess > 0 || kept.len() < bytes.len() {
            self.lost = Lost::Beginning;
        }
        self.ring.drain(..excess);
        self.ring.extend(kept);
    }

    /// All of it as text; nothing more is kept.
    pub(super) fn finish(&mut self) -> Text {
        let finished = Self { phase: Phase::Finished, ..Self::default() };
        let Self { ring, lost, .. } = std::mem::replace(self, finished);
        let bytes = Vec::from(ring);
        let start = match lost {
            Lost::Nothing => 0,
            // The cut may lie within a character, of which at most 3 bytes are left.
            Lost::Beginning => bytes.iter().take(3).take_while(|&b| b & 0xc0 == 0x80).count(),
        };
        let mut text = String::from_utf8_lossy(&bytes[start..]).into_owned();
        // A replaced byte takes three, so the text may be longer than the bytes were.
        let mut excess = text.len().saturating_sub(OUTPUT_LEN_MAX);
        while !text.is_char_boundary(excess) {
            excess += 1;
        }
        text.drain(..excess);
        Text { text, truncated: lost == Lost::Beginning || excess > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_output_is_kept_whole() {
        let mut tail = Tail::default();
        tail.push(b"one ");
        tail.push(b"two \xff");
        assert_eq!(tail.finish(), Text { text: "one two \u{fffd}".to_owned(), truncated: false });
        tail.push(b"late");
        assert_eq!(tail.finish(), Text { text: String::new(), truncated: false });
    }

    #[test]
    fn long_output_loses_its_beginning() {
        let mut tail = Tail::default();
        tail.push(&vec![b'a'; OUTPUT_LEN_MAX]);
        tail.push(b"end");
        let text = tail.finish();
        assert_eq!(text.text.len(), OUTPUT_LEN_MAX);
        assert!(text.text.ends_with("aend"));
        assert!(text.truncated);
    }

    #[test]
    fn one_piece_longer_than_the_ring_keeps_its_end() {
        let mut tail = Tail::default();
        tail.push(b"gone");
        let mut long = vec![b'x'; OUTPUT_LEN_MAX + 7];
        long.extend_from_slice(b"last");
        tail.push(&long);
        let text = tail.finish();
        assert_eq!(text.text.len(), OUTPUT_LEN_MAX);
        assert!(text.text.starts_with('x'));
        assert!(text.text.ends_with("xlast"));
        assert!(text.truncated);
    }

    #[test]
    fn a_character_cut_in_half_is_left_out() {
        let mut tail = Tail::default();
        // Four bytes a character, and three bytes of the first fall off.
        tail.push("\u{1f600}".repeat(OUTPUT_LEN_MAX / 4).as_bytes());
        tail.push(b"abc");
        let text = tail.finish();
        assert!(text.text.starts_with('\u{1f600}'));
        assert_eq!(text.text.len(), OUTPUT_LEN_MAX - 4 + 3);
    }

    #[test]
    fn replaced_bytes_do_not_make_the_text_longer_than_allowed() {
        let mut tail = Tail::default();
        tail.push(&vec![0xff; OUTPUT_LEN_MAX]);
        let text = tail.finish();
        assert!(text.text.len() <= OUTPUT_LEN_MAX);
        assert!(text.text.chars().all(|c| c == '\u{fffd}'));
        assert!(text.truncated);
    }
}
