//! The frames that wait to be written to one peer: [`SendQueue`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::codec::frame::{FRAME_LEN_MAX, FrameError, HEADER_LEN, Lane, write_frame};

/// Frames in the order in which they go: by lane, and in a lane as they came.
#[derive(Debug)]
pub(super) struct SendQueue {
    lanes: [VecDeque<Bytes>; Lane::COUNT],
    len: usize,
    len_max: usize,
    stage: Stage,
}

/// How far the session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Frames are taken.
    Open,
    /// No more are taken; those that wait are written.
    Closing,
    /// Nothing is written any more.
    Failed(String),
}

impl SendQueue {
    /// An empty queue that holds at most `len_max` bytes.
    pub(super) fn new(len_max: usize) -> Self {
        Self { lanes: Default::default(), len: 0, len_max, stage: Stage::Open }
    }

    /// Takes a frame. One that does not fit ends the session, because a stream with a frame missing
    /// is worth nothing.
    pub(super) fn push(&mut self, lane: Lane, payload: Bytes) {
        if self.stage != Stage::Open {
            return;
        }
        let len = self.len + payload.len() + HEADER_LEN;
        if payload.len() > FRAME_LEN_MAX {
            self.fail(FrameError::TooLong(payload.len()).to_string());
        } else if len > self.len_max {
            self.fail(format!("more than {} bytes wait to be sent", self.len_max));
        } else {
            self.len = len;
            self.lanes[lane.index()].push_back(payload);
        }
    }

    /// Takes no more; what waits is still written.
    pub(super) fn close(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing;
        }
    }

    /// How far the session is.
    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Moves the frames that go next to `out`, until it holds `batch_len` bytes or more.
    pub(super) fn take(&mut self, out: &mut BytesMut, batch_len: usize) {
        for lane in Lane::ALL {
            while out.len() < batch_len {
                let Some(payload) = self.lanes[lane.index()].pop_front() else {
                    break;
                };
                self.len -= payload.len() + HEADER_LEN;
                write_frame(out, lane, &payload).expect("checked when it was pushed");
            }
        }
    }

    fn fail(&mut self, reason: String) {
        self.lanes = Default::default();
        self.len = 0;
        self.stage = Stage::Failed(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::frame::{FrameReader, preface};

    #[test]
    fn a_higher_lane_passes_a_lower_one_and_keeps_its_own_order() {
        let mut queue = SendQueue::new(1_000);
        for (lane, text) in [
            (Lane::Bulk, "bulk 1"),
            (Lane::Append, "append 1"),
            (Lane::Control, "control 1"),
            (Lane::Append, "append 2"),
            (Lane::Control, "control 2"),
        ] {
            queue.push(lane, Bytes::from(text));
        }
        assert_eq!(
            texts(&mut queue, 1_000),
            ["control 1", "control 2", "append 1", "append 2", "bulk 1"]
        );
        assert_eq!(queue.len, 0);
    }

    #[test]
    fn a_batch_ends_with_the_frame_that_fills_it() {
        let mut queue = SendQueue::new(1_000);
        queue.push(Lane::Bulk, Bytes::from_static(b"first"));
        queue.push(Lane::Bulk, Bytes::from_static(b"second"));
        assert_eq!(texts(&mut queue, 1), ["first"]);
        assert_eq!(texts(&mut queue, 1), ["second"]);
        assert!(texts(&mut queue, 1).is_empty());
    }

    #[test]
    fn a_queue_that_is_full_fails_and_lets_go_of_everything() {
        let mut queue = SendQueue::new(100);
        queue.push(Lane::Bulk, Bytes::from(vec![0; 100 - HEADER_LEN]));
        assert_eq!(queue.stage(), &Stage::Open);
        queue.push(Lane::Control, Bytes::new());
        let failed = Stage::Failed("more than 100 bytes wait to be sent".to_owned());
        assert_eq!(queue.stage(), &failed);
        assert!(texts(&mut queue, 1_000).is_empty());
        queue.close();
        assert_eq!(queue.stage(), &failed);
    }

    #[test]
    fn a_frame_longer_than_any_peer_would_read_fails() {
        let mut queue = SendQueue::new(usize::MAX);
        queue.push(Lane::Bulk, Bytes::from(vec![0; FRAME_LEN_MAX + 1]));
        assert!(matches!(queue.stage(), Stage::Failed(_)));
    }

    #[test]
    fn a_closing_queue_takes_nothing_and_gives_what_it_has() {
        let mut queue = SendQueue::new(100);
        queue.push(Lane::Control, Bytes::from_static(b"last words"));
        queue.close();
        queue.push(Lane::Control, Bytes::from_static(b"too late"));
        assert_eq!(texts(&mut queue, 1_000), ["last words"]);
    }

    fn texts(queue: &mut SendQueue, batch_len: usize) -> Vec<String> {
        let mut out = BytesMut::new();
        queue.take(&mut out, batch_len);
        let mut reader = FrameReader::new();
        reader.buffer().extend_from_slice(&preface());
        reader.buffer().extend_from_slice(&out);
        let mut texts = Vec::new();
        while let Some((_, payload)) = reader.next_frame().unwrap() {
            texts.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        texts
    }
}
