//! A snapshot as a file: [`Snapshot`] ⇄ bytes.
//!
//! All numbers are little-endian. A file is a header of 64 bytes, then what the snapshot covers
//! ([`Snapshot::meta`]), then the state ([`Snapshot::data`]).
//!
//! | header | what |
//! |---|---|
//! | 0..8 | `CRONSNAP` |
//! | 8..12 | the format version |
//! | 12..16 | CRC-32C of everything after the header |
//! | 16..24 | the index of the last entry covered |
//! | 24..32 | the length of `meta` |
//! | 32..40 | the length of `data` |
//! | 40..60 | zero |
//! | 60..64 | CRC-32C of the 60 bytes before |

use bytes::Bytes;

use super::record::Snapshot;
use crate::id::LogIndex;

/// How long the header of a snapshot file is, in bytes.
pub const HEADER_LEN: usize = 64;

const MAGIC: [u8; 8] = *b"CRONSNAP";
const FORMAT: u32 = 1;

/// Why a file is not a whole snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotDamage {
    /// It is too short or too long, or a checksum is wrong.
    #[error("the snapshot does not have its checksum or its length")]
    Checksum,
    /// It was written by a newer version.
    #[error("the snapshot has format {0}, this version knows only format {FORMAT}")]
    NewerFormat(u32),
}

/// The header of the file of `snapshot`; its `meta` and its `data` follow.
pub fn header(snapshot: &Snapshot) -> [u8; HEADER_LEN] {
    let check = crc32c::crc32c_append(crc32c::crc32c(&snapshot.meta), &snapshot.data);
    let mut bytes = [0; HEADER_LEN];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&check.to_le_bytes());
    bytes[16..24].copy_from_slice(&snapshot.index.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&(snapshot.meta.len() as u64).to_le_bytes());
    bytes[32..40].copy_from_slice(&(snapshot.data.len() as u64).to_le_bytes());
    let check = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The whole file of `snapshot`.
pub fn encode(snapshot: &Snapshot) -> Bytes {
    let header = header(snapshot);
    Bytes::from([&header[..], &snapshot.meta, &snapshot.data].concat())
}

/// Reads a whole file; the snapshot shares its memory.
///
/// # Errors
/// If it is not whole, or of a newer version.
pub fn decode(file: &Bytes) -> Result<Snapshot, SnapshotDamage> {
    let header = file.get(..HEADER_LEN).ok_or(SnapshotDamage::Checksum)?;
    let u32_at = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("four bytes of a header");
        u32::from_le_bytes(bytes)
    };
    let u64_at = |at: usize| {
        let bytes = header[at..at + 8].try_into().expect("eight bytes of a header");
        u64::from_le_bytes(bytes)
    };
    if header[..8] != MAGIC || u32_at(60) != crc32c::crc32c(&header[..60]) {
        return Err(SnapshotDamage::Checksum);
    }
    if u32_at(8) != FORMAT {
        return Err(SnapshotDamage::NewerFormat(u32_at(8)));
    }
    let body = file.slice(HEADER_LEN..);
    let meta_len = usize::try_from(u64_at(24)).map_err(|_| SnapshotDamage::Checksum)?;
    let len = u64_at(24).checked_add(u64_at(32));
    let is_whole = len == Some(body.len() as u64) && u32_at(12) == crc32c::crc32c(&body);
    if !is_whole {
        return Err(SnapshotDamage::Checksum);
    }
    let index = LogIndex(u64_at(16));
    Ok(Snapshot { meta: body.slice(..meta_len), index, data: body.slice(meta_len..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let (meta, data) = (Bytes::from_static(b"meta"), Bytes::from_static(b"state"));
        Snapshot { meta, index: LogIndex(7), data }
    }

    #[test]
    fn a_snapshot_reads_back_from_its_file() {
        assert_eq!(decode(&encode(&snapshot())), Ok(snapshot()));
    }

    #[test]
    fn no_flipped_bit_and_no_other_length_passes() {
        let file = encode(&snapshot());
        for bit in 0..file.len() * 8 {
            let mut bytes = file.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&Bytes::from(bytes)).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(decode(&file.slice(..len)).is_err(), "length {len}");
        }
        assert!(decode(&Bytes::from([&file[..], &[0]].concat())).is_err());
    }

    #[test]
    fn a_newer_snapshot_is_named_as_such() {
        let mut file = encode(&snapshot()).to_vec();
        file[8] = 2;
        let check = crc32c::crc32c(&file[..60]).to_le_bytes();
        file[60..64].copy_from_slice(&check);
        assert_eq!(decode(&Bytes::from(file)), Err(SnapshotDamage::NewerFormat(2)));
    }
}
