//! What arrives from a peer.

use bytes::{Bytes, BytesMut};

use crate::codec::frame::{FrameError, FrameReader, Lane, write_frame};

/// Reads `data` as a peer's stream: whole, and in pieces. Both must see the same frames and the
/// same error, and the frames must be found again when they are written and read back.
pub fn fuzz_wire_frames(data: &[u8]) {
    fuzz_stream(data);
    // With a preface in front the mutator need not find it first.
    let mut stream = crate::codec::frame::preface().to_vec();
    stream.extend_from_slice(data);
    let frames = fuzz_stream(&stream);
    let mut again = BytesMut::from(&crate::codec::frame::preface()[..]);
    for (lane, payload) in &frames {
        write_frame(&mut again, *lane, payload).expect("what was read is not too long");
    }
    let (read_back, error) = read(&again, again.len().max(1));
    assert_eq!(read_back, frames, "frames change when they are written");
    assert_eq!(error, None, "our own frames are refused");
}

fn fuzz_stream(stream: &[u8]) -> Vec<(Lane, Bytes)> {
    let whole = read(stream, stream.len().max(1));
    let piece = 1 + stream.last().map_or(0, |&byte| usize::from(byte));
    assert_eq!(read(stream, piece), whole, "pieces of {piece} bytes change what is read");
    whole.0
}

fn read(stream: &[u8], piece: usize) -> (Vec<(Lane, Bytes)>, Option<FrameError>) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece) {
        reader.buffer().extend_from_slice(bytes);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            data in proptest::collection::vec(any::<u8>(), 0..512),
        ) {
            fuzz_wire_frames(&data);
        }

        #[test]
        fn well_formed_frames_are_read_without_a_panic(
            payloads in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 0..10),
        ) {
            let mut out = BytesMut::new();
            for (count, payload) in payloads.iter().enumerate() {
                write_frame(&mut out, Lane::ALL[count % Lane::COUNT], payload).unwrap();
            }
            fuzz_wire_frames(&out);
        }
    }
}
