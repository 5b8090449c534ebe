//! Bytes ⇄ values: messages between peers, records of the log, snapshots. Every length is bounded.
//!
//! Values are written with postcard (a compact, documented format without self-description), so
//! what is durable or crosses the network carries a version of its own: the frame header for
//! messages, the segment header for the log.
//!
//! **Invariants**
//! - Decoding is total: any bytes give a value or a [`DecodeError`], never a panic, and never more
//!   memory than a small multiple of the input.
//! - Decoding takes all of its input; trailing bytes are an error.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod frame;
pub mod log;
pub mod memory_disk;
pub mod memory_snapshots;
pub mod record;
pub mod snapshot;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    /// What was expected, for example `peer message`.
    pub what: &'static str,
    /// What was wrong.
    pub reason: String,
}

/// Writes `value` as bytes.
///
/// # Panics
/// Never for our own types: they have no maps of unknown length and no failing serializers.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_stdvec(value).expect("our own types always serialize");
    Bytes::from(bytes)
}

/// Reads a value of which `bytes` is the whole encoding; `what` names it in the error.
///
/// # Errors
/// If the bytes are no encoding of a `T`, or more follow.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => {
            Err(DecodeError { what, reason: format!("{} bytes too many", rest.len()) })
        }
        Err(error) => Err(DecodeError { what, reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u32).to_vec();
        assert_eq!(decode::<u32>("number", &bytes), Ok(7));
        bytes.push(0);
        let error = decode::<u32>("number", &bytes).unwrap_err();
        assert_eq!(error.to_string(), "cannot decode number: 1 bytes too many");
    }
}
