//! A snapshot as a file: [`Header`], what it covers, the state, the history; in pieces of any size.
//!
//! The bytes are described in `docs/snapshot-format.md`. A file is a header of [`HEADER_LEN`]
//! bytes, then what the snapshot covers ([`Snapshot::meta`]), then the state ([`Snapshot::data`]),
//! then the history of executions in blocks, each behind its length. The header holds one checksum
//! over all that follows, so it is known last and written first: an [`Encoder`] takes the parts as
//! they are written and gives the header at the end, a [`Decoder`] takes a file as it is read.
//!
//! **Invariants**
//! - Only what covers and the state are ever held in memory; a block has at most
//!   [`BLOCK_LEN_MAX`] bytes.
//! - Reading is total: any bytes give a snapshot or a [`SnapshotDamage`].
//!
//! **Left out on purpose**
//! - What is in a block: the store of the history writes and reads them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::Snapshot;
use crate::id::{ClusterId, LogIndex, NodeId};

/// How long the header of a snapshot file is, in bytes.
pub const HEADER_LEN: usize = 80;

/// The most bytes that a block of history may have.
pub const BLOCK_LEN_MAX: usize = 4 << 20;

/// How many bytes stand before each block: its length.
pub const BLOCK_PREFIX_LEN: usize = 4;

/// The most bytes that what a snapshot covers may have: a few hundred for each member.
pub const META_LEN_MAX: u64 = 1 << 20;

const MAGIC: [u8; 8] = *b"CRONSNAP";
/// The version of the format. A change of the bytes raises it, and that of `node.json`.
pub const FORMAT: u32 = 1;
/// Where the header's own checksum stands.
const CHECK_AT: usize = HEADER_LEN - 4;

/// Which snapshot file: no two with the same three hold other bytes after their headers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct SnapshotFile {
    /// The last entry that it covers.
    pub index: LogIndex,
    /// The length of the file in bytes.
    pub len: u64,
    /// CRC-32C of everything after the header.
    pub crc: u32,
}

/// Who made a snapshot, for people. A cluster that was made anew from what was left of another goes
/// on with its snapshots, so nothing is refused for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The cluster, or 0 if it was not known.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// Why a file is not a whole snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotDamage {
    /// It is too short or too long, or a checksum is wrong.
    #[error("the snapshot does not have its checksum or its length")]
    Checksum,
    /// Its checksum is right, and its parts do not fit together.
    #[error("the snapshot is whole but makes no sense")]
    Unreadable,
    /// It was written by a newer version.
    #[error("the snapshot has format {0}, this version knows only format {FORMAT}")]
    NewerFormat(u32),
}

/// The first bytes of a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last entry covered.
    pub index: LogIndex,
    /// CRC-32C of everything after the header.
    pub crc: u32,
    /// The length of what it covers, in bytes.
    pub meta_len: u64,
    /// The length of the state, in bytes.
    pub state_len: u64,
    /// The length of the history, in bytes, with the lengths before the blocks.
    pub history_len: u64,
    /// Who made it.
    pub origin: Origin,
    /// The last entry whose changes are in the history; `None` if it holds none. It may be ahead of
    /// the state.
    pub history_upto: Option<LogIndex>,
}

impl Header {
    /// The file that it begins.
    pub fn file(&self) -> SnapshotFile {
        let len = HEADER_LEN as u64 + self.body_len();
        SnapshotFile { index: self.index, len, crc: self.crc }
    }

    /// Where the history begins in the file.
    pub fn history_at(&self) -> u64 {
        HEADER_LEN as u64 + self.meta_len + self.state_len
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.crc.to_le_bytes());
        let numbers = [
            self.index.0,
            self.meta_len,
            self.state_len,
            self.history_len,
            self.origin.cluster.0,
            self.origin.node.0,
            self.history_upto.map_or(0, |upto| upto.0.saturating_add(1)),
        ];
        for (place, number) in bytes[16..72].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let check = crc32c::crc32c(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `file`, which may go on or be too short.
    ///
    /// # Errors
    /// If it is not whole, or of a newer version, or its lengths cannot be.
    pub fn decode(file: &[u8]) -> Result<Self, SnapshotDamage> {
        let bytes = file.get(..HEADER_LEN).ok_or(SnapshotDamage::Checksum)?;
        if bytes[..8] != MAGIC || u32_at(bytes, CHECK_AT) != crc32c::crc32c(&bytes[..CHECK_AT]) {
            return Err(SnapshotDamage::Checksum);
        }
        if u32_at(bytes, 8) != FORMAT {
            return Err(SnapshotDamage::NewerFormat(u32_at(bytes, 8)));
        }
        let header = Self {
            index: LogIndex(u64_at(bytes, 16)),
            crc: u32_at(bytes, 12),
            meta_len: u64_at(bytes, 24),
            state_len: u64_at(bytes, 32),
            history_len: u64_at(bytes, 40),
            origin: Origin {
                cluster: ClusterId(u64_at(bytes, 48)),
                node: NodeId(u64_at(bytes, 56)),
            },
            history_upto: u64_at(bytes, 64).checked_sub(1).map(LogIndex),
        };
        // Above this no sum of lengths overflows.
        let is_bounded = [header.meta_len, header.state_len, header.history_len]
            .iter()
            .all(|&len| len <= u64::MAX >> 8);
        if !is_bounded || header.meta_len > META_LEN_MAX {
            return Err(SnapshotDamage::Unreadable);
        }
        Ok(header)
    }

    fn body_len(&self) -> u64 {
        self.meta_len + self.state_len + self.history_len
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of a header"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of a header"))
}

/// Follows a file while it is written.
#[derive(Debug)]
pub struct Encoder {
    index: LogIndex,
    meta_len: u64,
    state_len: u64,
    history_len: u64,
    check: u32,
}

impl Encoder {
    /// A file that begins, after its header, with `meta` and `state`.
    pub fn new(index: LogIndex, meta: &[u8], state: &[u8]) -> Self {
        let check = crc32c::crc32c_append(crc32c::crc32c(meta), state);
        let (meta_len, state_len) = (meta.len() as u64, state.len() as u64);
        Self { index, meta_len, state_len, history_len: 0, check }
    }

    /// Takes in a block of history that comes next; gives what is to be written before it.
    ///
    /// # Panics
    /// If the block is longer than [`BLOCK_LEN_MAX`].
    pub fn block(&mut self, block: &[u8]) -> [u8; BLOCK_PREFIX_LEN] {
        assert!(block.len() <= BLOCK_LEN_MAX, "a block of history is bounded");
        let len = u32::try_from(block.len()).expect("a bounded length fits");
        let prefix = len.to_le_bytes();
        self.check = crc32c::crc32c_append(crc32c::crc32c_append(self.check, &prefix), block);
        self.history_len += (prefix.len() + block.len()) as u64;
        prefix
    }

    /// The header, to be written in front of everything.
    ///
    /// `history_upto` is the last entry whose changes are in the blocks.
    pub fn finish(self, origin: Origin, history_upto: Option<LogIndex>) -> Header {
        let Self { index, meta_len, state_len, history_len, check: crc } = self;
        Header { index, crc, meta_len, state_len, history_len, origin, history_upto }
    }
}

/// Follows a file while it is read, and keeps what it covers and its state.
#[derive(Debug)]
pub struct Decoder {
    header: Header,
    check: u32,
    /// Bytes after the header that have come.
    seen: u64,
    /// What it covers, and the state.
    kept: Vec<u8>,
    /// What has come of the length before a block.
    prefix: Vec<u8>,
    /// What is to come of a block.
    block_left: usize,
}

impl Decoder {
    /// A file with this header, of which the rest follows.
    pub fn new(header: Header) -> Self {
        let check = crc32c::crc32c(&[]);
        Self { header, check, seen: 0, kept: Vec::new(), prefix: Vec::new(), block_left: 0 }
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// If more come than the header says, or the blocks do not fit into each other.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotDamage> {
        let left = self.header.body_len() - self.seen;
        if bytes.len() as u64 > left {
            return Err(SnapshotDamage::Checksum);
        }
        self.check = crc32c::crc32c_append(self.check, bytes);
        let wanted = (self.header.meta_len + self.header.state_len).saturating_sub(self.seen);
        self.seen += bytes.len() as u64;
        let of_kept = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
        let (kept, history) = bytes.split_at(of_kept);
        self.kept.extend_from_slice(kept);
        self.follow_blocks(history)
    }

    /// What the snapshot covers and its state, now that all has come.
    ///
    /// # Errors
    /// If something is missing, or the checksum is wrong.
    pub fn finish(self) -> Result<Snapshot, SnapshotDamage> {
        if self.seen != self.header.body_len() || self.check != self.header.crc {
            return Err(SnapshotDamage::Checksum);
        }
        if self.block_left > 0 || !self.prefix.is_empty() {
            return Err(SnapshotDamage::Unreadable);
        }
        let meta_len = usize::try_from(self.header.meta_len);
        let meta_len = meta_len.map_err(|_| SnapshotDamage::Unreadable)?;
        let kept = Bytes::from(self.kept);
        let (meta, data) = (kept.slice(..meta_len), kept.slice(meta_len..));
        Ok(Snapshot { file: self.header.file(), meta, data })
    }

    fn follow_blocks(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotDamage> {
        while !bytes.is_empty() {
            if self.block_left == 0 {
                let missing = (BLOCK_PREFIX_LEN - self.prefix.len()).min(bytes.len());
                self.prefix.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                if let Ok(prefix) = self.prefix.as_slice().try_into() {
                    self.block_left = block_len(prefix)?;
                    self.prefix.clear();
                }
                continue;
            }
            let here = self.block_left.min(bytes.len());
            self.block_left -= here;
            bytes = &bytes[here..];
        }
        Ok(())
    }
}

/// The length of the block behind `prefix`, in bytes.
///
/// # Errors
/// If it is empty, or longer than a block may be.
pub fn block_len(prefix: [u8; BLOCK_PREFIX_LEN]) -> Result<usize, SnapshotDamage> {
    match usize::try_from(u32::from_le_bytes(prefix)) {
        Ok(len) if (1..=BLOCK_LEN_MAX).contains(&len) => Ok(len),
        Ok(_) | Err(_) => Err(SnapshotDamage::Unreadable),
    }
}

/// The history that goes into a snapshot, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The last entry whose changes are in it.
    pub upto: Option<LogIndex>,
    /// Its blocks.
    pub blocks: Vec<Bytes>,
}

/// A whole file in memory.
pub fn encode(
    index: LogIndex,
    meta: &[u8],
    state: &[u8],
    history: &History,
    origin: Origin,
) -> (SnapshotFile, Bytes) {
    let mut encoder = Encoder::new(index, meta, state);
    let mut body = [meta, state].concat();
    for block in &history.blocks {
        body.extend_from_slice(&encoder.block(block));
        body.extend_from_slice(block);
    }
    let header = encoder.finish(origin, history.upto);
    (header.file(), Bytes::from([&header.encode()[..], &body].concat()))
}

/// Reads a whole file in memory.
///
/// # Errors
/// If it is not whole, or of a newer version.
pub fn decode(file: &[u8]) -> Result<Snapshot, SnapshotDamage> {
    let header = Header::decode(file)?;
    let mut decoder = Decoder::new(header);
    decoder.push(&file[HEADER_LEN..])?;
    decoder.finish()
}

/// The history in a whole file in memory.
///
/// # Errors
/// If its lengths do not fit.
pub fn history(file: &Bytes) -> Result<History, SnapshotDamage> {
    let header = Header::decode(file)?;
    let start = usize::try_from(header.history_at()).map_err(|_| SnapshotDamage::Checksum)?;
    if header.file().len != file.len() as u64 {
        return Err(SnapshotDamage::Checksum);
    }
    let mut rest = file.slice(start..);
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let prefix = rest.get(..BLOCK_PREFIX_LEN).ok_or(SnapshotDamage::Unreadable)?;
        let len = block_len(prefix.try_into().map_err(|_| SnapshotDamage::Unreadable)?)?;
        let end = BLOCK_PREFIX_LEN + len;
        if rest.len() < end {
            return Err(SnapshotDamage::Unreadable);
        }
        blocks.push(rest.slice(BLOCK_PREFIX_LEN..end));
        rest = rest.slice(end..);
    }
    Ok(History { upto: header.history_upto, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORIGIN: Origin = Origin { cluster: ClusterId(5), node: NodeId(9) };

    fn rows() -> History {
        let blocks = vec![Bytes::from_static(b"rows"), Bytes::from_static(b"x")];
        History { upto: Some(LogIndex(8)), blocks }
    }

    fn file() -> (SnapshotFile, Bytes) {
        encode(LogIndex(7), b"meta", b"state", &rows(), ORIGIN)
    }

    #[test]
    fn a_snapshot_reads_back_from_its_file() {
        let (name, bytes) = file();
        let (meta, data) = (Bytes::from_static(b"meta"), Bytes::from_static(b"state"));
        assert_eq!(decode(&bytes), Ok(Snapshot { file: name, meta, data }));
        assert_eq!(history(&bytes), Ok(rows()));
        assert_eq!((name.index, name.len), (LogIndex(7), bytes.len() as u64));
        assert_eq!(Header::decode(&bytes).unwrap().origin, ORIGIN);
    }

    /// Made apart from this program, from the description of the format. It must never change.
    const GOLDEN: &[u8] =
        include_bytes!("../../tests/golden/v1/snapshots/00000000000000000007.snap");

    #[test]
    fn a_file_of_version_1_is_read_and_written() {
        let read = decode(GOLDEN).unwrap();
        assert_eq!(read.file, SnapshotFile { index: LogIndex(7), len: 139, crc: 0x91d8_cb1d });
        assert_eq!(
            (&read.meta[..], &read.data[..]),
            (&b"what it covers"[..], &b"the replicated state"[..])
        );
        let header = Header::decode(GOLDEN).unwrap();
        assert_eq!((header.origin, header.history_upto), (ORIGIN, Some(LogIndex(9))));
        let rows = history(&Bytes::from_static(GOLDEN)).unwrap();
        assert_eq!(rows.blocks, ["first block", "second"]);
        let (_, written) = encode(LogIndex(7), &read.meta, &read.data, &rows, ORIGIN);
        assert_eq!(written, GOLDEN);
    }

    #[test]
    fn no_flipped_bit_and_no_other_length_passes() {
        let (_, file) = file();
        for bit in 0..file.len() * 8 {
            let mut bytes = file.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(decode(&file[..len]).is_err(), "length {len}");
        }
        assert!(decode(&[&file[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_newer_snapshot_is_named_as_such() {
        let (_, file) = file();
        let mut newer = file.to_vec();
        newer[8] = 2;
        let check = crc32c::crc32c(&newer[..CHECK_AT]).to_le_bytes();
        newer[CHECK_AT..HEADER_LEN].copy_from_slice(&check);
        assert_eq!(decode(&newer), Err(SnapshotDamage::NewerFormat(2)));
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused_though_the_checksum_is_right() {
        for (body, is_whole) in [
            (&[1, 0, 0, 0, 7][..], true),
            (&[2, 0, 0, 0, 7], false),
            (&[1, 0, 0, 0, 7, 9], false),
            (&[0, 0, 0, 0], false),
            (&[0, 0, 0, 0xff, 7], false),
        ] {
            let header = Header {
                index: LogIndex(7),
                crc: crc32c::crc32c(body),
                meta_len: 0,
                state_len: 0,
                history_len: body.len() as u64,
                origin: ORIGIN,
                history_upto: None,
            };
            let file = Bytes::from([&header.encode()[..], body].concat());
            let refused = (!is_whole).then_some(SnapshotDamage::Unreadable);
            assert_eq!(decode(&file).err(), refused, "{body:?}");
            assert_eq!(history(&file).err(), refused, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn a_file_reads_back_in_pieces_of_any_size(
            meta in proptest::collection::vec(any::<u8>(), 0..20),
            state in proptest::collection::vec(any::<u8>(), 0..50),
            blocks in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..30).prop_map(Bytes::from), 0..6,
            ),
            piece in 1..40_usize,
        ) {
            let rows = History { upto: None, blocks };
            let (_, file) = encode(LogIndex(3), &meta, &state, &rows, ORIGIN);
            let mut decoder = Decoder::new(Header::decode(&file).unwrap());
            for bytes in file[HEADER_LEN..].chunks(piece) {
                decoder.push(bytes).unwrap();
            }
            let read = decoder.finish().unwrap();
            prop_assert_eq!((&read.meta[..], &read.data[..]), (&meta[..], &state[..]));
            prop_assert_eq!(history(&file).unwrap(), rows);
        }

        #[test]
        fn any_bytes_are_read_without_an_unwind(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            lens in any::<[u64; 3]>(),
        ) {
            prop_assert!(decode(&bytes).is_err());
            let [meta_len, state_len, history_len] = lens;
            let header = Header {
                index: LogIndex(1), crc: 0, meta_len, state_len, history_len, origin: ORIGIN,
                history_upto: None,
            };
            let file = Bytes::from([&header.encode()[..], &bytes].concat());
            drop((decode(&file), history(&file)));
        }
    }
}
