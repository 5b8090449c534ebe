//! Frames on the byte stream between two peers.
//!
//! Each side begins with a [`preface`], which names the protocol and its version, and goes on with
//! frames: a header of [`HEADER_LEN`] bytes (length of the payload as `u32`, kind as `u8`, CRC-32C
//! of both and of the payload as `u32`, all little-endian), then the payload. The kind is the
//! frame's [`Lane`], or says that the frame only keeps the stream alive.
//!
//! [`FrameReader`] takes bytes as they come, in pieces of any size.
//!
//! **Invariants**
//! - Reading is total: any bytes give frames or one [`FrameError`], which stays.
//! - The reader holds no more than was received, whatever length a header announces.
//!
//! **Left out on purpose**
//! - Compression and encryption: they belong around the stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Which frames go first where several wait. Order is kept within a lane only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, orders and answers: small, and late ones cost an election.
    Control,
    /// Log entries.
    Append,
    /// Snapshots and outputs.
    Bulk,
}

impl Lane {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// Every lane, the one that goes first before the others.
    pub const ALL: [Self; Self::COUNT] = [Self::Control, Self::Append, Self::Bulk];

    /// Its place in [`Lane::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Append => 1,
            Self::Bulk => 2,
        }
    }
}

/// The most bytes that a frame's payload may have.
pub const FRAME_LEN_MAX: usize = 8 * 1024 * 1024;

/// The bytes before each payload.
pub const HEADER_LEN: usize = 9;

/// The bytes before the first frame.
pub const PREFACE_LEN: usize = 8;

/// The version that this build speaks. Raised with every change that an older build cannot read.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 6] = *b"CRNCLV";
const KIND_KEEP_ALIVE: u8 = 0xff;

/// What each side sends first.
pub fn preface() -> [u8; PREFACE_LEN] {
    let mut bytes = [0; PREFACE_LEN];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Why a stream is not, or no longer, one of frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side speaks something else.
    #[error("the other side is no cronclave peer")]
    Magic,
    /// The other side speaks another version.
    #[error("the other side speaks version {0} of the peer protocol, this one version {VERSION}")]
    Version(u16),
    /// The kind is none that this version knows.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// The payload is too long.
    #[error("a frame of {0} bytes, at most {FRAME_LEN_MAX} are allowed")]
    TooLong(usize),
    /// The checksum does not match.
    #[error("a frame with a wrong checksum")]
    Checksum,
}

/// Appends one frame to `out`.
///
/// # Errors
/// [`FrameError::TooLong`], and `out` is unchanged.
pub fn write_frame(out: &mut BytesMut, lane: Lane, payload: &[u8]) -> Result<(), FrameError> {
    let kind = match lane {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Bulk => 2,
    };
    write_kind(out, kind, payload)
}

/// Appends a frame that says nothing but that its sender lives. Readers skip it.
pub fn write_keep_alive(out: &mut BytesMut) {
    write_kind(out, KIND_KEEP_ALIVE, &[]).expect("an empty payload is not too long");
}

fn write_kind(out: &mut BytesMut, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
    let len = match u32::try_from(payload.len()) {
        Ok(len) if payload.len() <= FRAME_LEN_MAX => len,
        Ok(_) | Err(_) => return Err(FrameError::TooLong(payload.len())),
    };
    out.reserve(HEADER_LEN + payload.len());
    out.put_u32_le(len);
    out.put_u8(kind);
    out.put_u32_le(checksum(len, kind, payload));
    out.put_slice(payload);
    Ok(())
}

/// Takes a stream apart into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
    preface_seen: PrefaceSeen,
    failed: Option<FrameError>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PrefaceSeen {
    #[default]
    No,
    Yes,
}

impl FrameReader {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where received bytes are to be appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether the other side's preface has come. A wrong one is told before it is complete.
    ///
    /// # Errors
    /// [`FrameError::Magic`] or [`FrameError::Version`].
    pub fn read_preface(&mut self) -> Result<bool, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.preface_seen == PrefaceSeen::Yes {
            return Ok(true);
        }
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] != MAGIC[..known] {
            return self.fail(FrameError::Magic);
        }
        if self.buffer.len() < PREFACE_LEN {
            return Ok(false);
        }
        self.buffer.advance(MAGIC.len());
        let version = self.buffer.get_u16_le();
        if version != VERSION {
            return self.fail(FrameError::Version(version));
        }
        self.preface_seen = PrefaceSeen::Yes;
        Ok(true)
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// If the bytes are no frame; then on every further call too.
    pub fn next_frame(&mut self) -> Result<Option<(Lane, Bytes)>, FrameError> {
        if !self.read_preface()? {
            return Ok(None);
        }
        // Each turn takes a header off the buffer, so the buffer's length bounds the loop.
        while let Some((kind, payload)) = self.take()? {
            match lane_of(kind) {
                Some(lane) => return Ok(Some((lane, payload))),
                None if kind == KIND_KEEP_ALIVE && payload.is_empty() => {}
                None => return self.fail(FrameError::Kind(kind)),
            }
        }
        Ok(None)
    }

    fn take(&mut self) -> Result<Option<(u8, Bytes)>, FrameError> {
        let Some(mut header) = self.buffer.get(..HEADER_LEN) else {
            return Ok(None);
        };
        let (len, kind, sum) = (header.get_u32_le(), header.get_u8(), header.get_u32_le());
        let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
        if payload_len > FRAME_LEN_MAX {
            return self.fail(FrameError::TooLong(payload_len));
        }
        // Told from the header alone, so that a stream gone wrong ends before its length comes.
        if lane_of(kind).is_none() && kind != KIND_KEEP_ALIVE {
            return self.fail(FrameError::Kind(kind));
        }
        if self.buffer.len() < HEADER_LEN + payload_len {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(payload_len).freeze();
        if checksum(len, kind, &payload) != sum {
            return self.fail(FrameError::Checksum);
        }
        Ok(Some((kind, payload)))
    }

    fn fail<T>(&mut self, error: FrameError) -> Result<T, FrameError> {
        self.buffer = BytesMut::new();
        self.failed = Some(error.clone());
        Err(error)
    }
}

fn lane_of(kind: u8) -> Option<Lane> {
    Lane::ALL.get(usize::from(kind)).copied()
}

fn checksum(len: u32, kind: u8, payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), &[kind]);
    crc32c::crc32c_append(sum, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let frames =
            [(Lane::Bulk, vec![7; 70_000]), (Lane::Control, vec![]), (Lane::Append, vec![1, 2, 3])];
        let stream = stream_of(&frames);
        for piece in [1, 8, 9, 10, 4_096, stream.len()] {
            let mut reader = FrameReader::new();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                reader.buffer().extend_from_slice(bytes);
                while let Some((lane, payload)) = reader.next_frame().unwrap() {
                    seen.push((lane, payload.to_vec()));
                }
            }
            assert_eq!(seen, frames, "in pieces of {piece}");
        }
    }

    #[test]
    fn another_protocol_is_told_by_its_first_byte() {
        let mut reader = FrameReader::new();
        reader.buffer().extend_from_slice(b"G");
        assert_eq!(reader.read_preface(), Err(FrameError::Magic));
        reader.buffer().extend_from_slice(&preface());
        assert_eq!(reader.next_frame(), Err(FrameError::Magic), "the error stays");
    }

    #[test]
    fn another_version_is_named() {
        let mut reader = FrameReader::new();
        reader.buffer().extend_from_slice(&MAGIC);
        assert_eq!(reader.next_frame(), Ok(None));
        reader.buffer().extend_from_slice(&7_u16.to_le_bytes());
        let error = reader.next_frame().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the other side speaks version 7 of the peer protocol, this one version 1"
        );
    }

    #[test]
    fn a_length_over_the_maximum_is_refused_from_the_header() {
        let mut reader = FrameReader::new();
        reader.buffer().extend_from_slice(&preface());
        reader.buffer().extend_from_slice(&[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0]);
        assert_eq!(reader.next_frame(), Err(FrameError::TooLong(0x7fff_ffff)));
        let mut out = BytesMut::new();
        let long = vec![0; FRAME_LEN_MAX + 1];
        let error = write_frame(&mut out, Lane::Bulk, &long).unwrap_err();
        assert_eq!(error, FrameError::TooLong(FRAME_LEN_MAX + 1));
        assert!(out.is_empty());
    }

    #[test]
    fn an_unknown_kind_is_refused_from_the_header() {
        let mut reader = FrameReader::new();
        reader.buffer().extend_from_slice(&preface());
        reader.buffer().extend_from_slice(&[1, 0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(reader.next_frame(), Err(FrameError::Kind(3)));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_gives_another_frame(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut stream = stream_of(&[(Lane::Append, payload)]);
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
            let mut reader = FrameReader::new();
            reader.buffer().extend_from_slice(&stream);
            // An error, or a longer length that waits for bytes that never come.
            prop_assert!(!matches!(reader.next_frame(), Ok(Some(_))));
        }
    }

    fn stream_of(frames: &[(Lane, Vec<u8>)]) -> Vec<u8> {
        let mut out = BytesMut::from(&preface()[..]);
        for (lane, payload) in frames {
            write_keep_alive(&mut out);
            write_frame(&mut out, *lane, payload).unwrap();
        }
        out.to_vec()
    }
}
