//! Snapshots on real files: [`SnapshotFiles`].
//!
//! A snapshot has its name only when it is whole and synced. Until then it is a temporary file,
//! which the next start removes: one for each that is being built, one for the one that comes in.
//!
//! A file that is being read stays open, so that it can be read to its end when a newer one has
//! taken its place and its name is gone. The system frees it when it is closed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::files::{TEMPORARY, at, create_file, file_path, list, remove_if_there, sync_dir};
use super::snapshots::PutBlock;
use crate::codec::record::Snapshot;
use crate::codec::snapshot::{
    BLOCK_PREFIX_LEN, Decoder, Encoder, HEADER_LEN, Header, Origin, SnapshotDamage, SnapshotFile,
    block_len,
};
use crate::consensus::SnapshotSource;
use crate::id::{ClusterId, LogIndex};

/// What the names of snapshots end with.
pub(super) const SNAPSHOT: &str = "snap";

/// How much of a file is read at once.
const PIECE_LEN: usize = 256 << 10;

/// How much is gathered before it is written.
const BUFFER_LEN: usize = 1 << 20;

/// Gives all blocks of history, and then the last entry whose changes are in them.
type Export<'a> = &'a mut dyn FnMut(PutBlock<'_>) -> io::Result<Option<LogIndex>>;

/// The snapshot files of one node. See the module.
#[derive(Debug)]
pub struct SnapshotFiles {
    place: Place,
    open: BTreeMap<SnapshotFile, File>,
    incoming: Option<Incoming>,
}

/// Where snapshots lie, and what is written into them.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
    pub(super) origin: Origin,
    /// Held as long as anything may be written.
    _lock: Arc<File>,
}

/// The snapshot that comes in.
#[derive(Debug)]
struct Incoming {
    file: SnapshotFile,
    handle: File,
    len: u64,
}

impl SnapshotFiles {
    /// The files in `dir`, of a node that writes `origin` into them. `lock` is held as long as
    /// anything may be written.
    pub(super) fn new(dir: PathBuf, origin: Origin, lock: Arc<File>) -> Self {
        let place = Place { dir, origin, _lock: lock };
        Self { place, open: BTreeMap::new(), incoming: None }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The node belongs to this cluster.
    pub(super) fn set_cluster(&mut self, cluster: ClusterId) {
        self.place.origin.cluster = cluster;
    }

    /// A part of a file, shorter at its end. The file stays open until it is closed.
    pub(super) fn read(
        &mut self,
        file: SnapshotFile,
        offset: u64,
        len: usize,
    ) -> io::Result<Bytes> {
        if !self.open.contains_key(&file) {
            let (handle, header) = open(&self.place.path(file))?;
            if header.file() != file {
                return Err(self.place.error(file, "another snapshot has its name"));
            }
            self.open.insert(file, handle);
        }
        let handle = self.open.get(&file).expect("it was opened");
        let left = usize::try_from(file.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = BytesMut::zeroed(len.min(left));
        handle
            .read_exact_at(&mut data, offset)
            .map_err(|error| at(&self.place.path(file), error))?;
        Ok(data.freeze())
    }

    /// Nobody reads `file` any more.
    pub(super) fn close(&mut self, file: SnapshotFile) {
        self.open.remove(&file);
    }

    /// Writes a part of a snapshot that comes in, without a sync. At offset 0 it begins, and what
    /// came in before is dropped. After an error what came in is dropped, and what follows is
    /// refused as [`ErrorKind::InvalidInput`].
    pub(super) fn receive(
        &mut self,
        file: SnapshotFile,
        offset: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let path = self.place.incoming();
        if offset == 0 {
            let handle = create_file(&path)?;
            self.incoming = Some(Incoming { file, handle, len: 0 });
        }
        let incoming = self.incoming.as_mut().filter(|known| known.file == file);
        let Some(incoming) = incoming.filter(|known| known.len == offset) else {
            let reason = format!("nothing of it is there before byte {offset}");
            return Err(at(&path, io::Error::new(ErrorKind::InvalidInput, reason)));
        };
        let written = incoming.handle.write_all(data).map_err(|error| at(&path, error));
        incoming.len += data.len() as u64;
        if written.is_err() {
            self.discard(file)?;
        }
        written
    }

    /// Reads the snapshot that came in, and checks that it is whole and is `file`.
    ///
    /// # Errors
    /// If it is damaged, or another, or cannot be read.
    pub(super) fn verify(&self, file: SnapshotFile) -> Result<Snapshot, String> {
        let path = self.place.incoming();
        let incoming = self.incoming.as_ref().filter(|known| known.file == file);
        incoming.ok_or_else(|| "it did not come in".to_owned())?;
        let handle = File::open(&path).map_err(|error| at(&path, error).to_string())?;
        let read = read_whole(handle).map_err(|error| at(&path, error).to_string())?;
        match read {
            Ok(snapshot) if snapshot.file == file => Ok(snapshot),
            Ok(_) => Err("it is another snapshot than was announced".to_owned()),
            Err(damage) => Err(damage.to_string()),
        }
    }

    /// Makes the snapshot that came in durable, with its name, and then removes older ones.
    pub(super) fn install(&mut self, file: SnapshotFile) -> io::Result<()> {
        let path = self.place.incoming();
        let incoming = self.incoming.take_if(|known| known.file == file);
        let missing = || io::Error::other("the snapshot that is to be installed did not come in");
        let incoming = incoming.ok_or_else(|| at(&path, missing()))?;
        incoming.handle.sync_all().map_err(|error| at(&path, error))?;
        self.place.name(&path, file)
    }

    /// Drops what came in of `file`. Nothing if that was installed.
    pub(super) fn discard(&mut self, file: SnapshotFile) -> io::Result<()> {
        match self.incoming.take_if(|known| known.file == file) {
            Some(_) => remove_if_there(&self.place.incoming()),
            None => Ok(()),
        }
    }
}

impl Place {
    /// Writes a snapshot, with the history that `export` gives, and makes it durable. Then older
    /// ones are removed. `task` tells what is being built at the same time apart.
    pub(super) fn build(
        &self,
        task: u64,
        source: &SnapshotSource,
        export: Export<'_>,
    ) -> io::Result<SnapshotFile> {
        let path = self.dir.join(format!("build-{task}.{TEMPORARY}"));
        let built = self.write(&path, source, export);
        match built {
            Ok(file) => self.name(&path, file).map(|()| file),
            Err(error) => {
                remove_if_there(&path)?;
                Err(error)
            }
        }
    }

    fn write(
        &self,
        path: &Path,
        source: &SnapshotSource,
        export: Export<'_>,
    ) -> io::Result<SnapshotFile> {
        let named = |error| at(path, error);
        let state = source.encode();
        let mut encoder = Encoder::new(source.index, &source.meta, &state);
        let mut out = BufWriter::with_capacity(BUFFER_LEN, create_file(path)?);
        // The header is known when all the rest is written.
        for part in [&[0; HEADER_LEN][..], &source.meta, &state] {
            out.write_all(part).map_err(named)?;
        }
        drop(state);
        let history_upto = export(&mut |block| {
            let prefix = encoder.block(&block);
            out.write_all(&prefix).and_then(|()| out.write_all(&block)).map_err(named)
        })?;
        let header = encoder.finish(self.origin, history_upto);
        let mut handle = out.into_inner().map_err(|error| named(error.into_error()))?;
        let written = handle.seek(SeekFrom::Start(0));
        written.and_then(|_| handle.write_all(&header.encode())).map_err(named)?;
        handle.sync_all().map_err(named)?;
        Ok(header.file())
    }

    /// Gives the file `path`, which is synced, the name of `file`, and removes older ones.
    fn name(&self, path: &Path, file: SnapshotFile) -> io::Result<()> {
        let named = self.path(file);
        fs::rename(path, &named).map_err(|error| at(&named, error))?;
        sync_dir(&self.dir)?;
        let files = list(&self.dir, SNAPSHOT)?;
        // Another may have been installed while this one was built.
        let newest = files.keys().next_back().copied();
        for (index, path) in files {
            if Some(index) != newest {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// The blocks of history in `file`, which was verified.
    pub(super) fn history(&self, file: SnapshotFile) -> io::Result<Blocks> {
        history(&self.dir, file)
    }

    fn path(&self, file: SnapshotFile) -> PathBuf {
        file_path(&self.dir, file.index.0, SNAPSHOT)
    }

    fn incoming(&self) -> PathBuf {
        self.dir.join(format!("incoming.{TEMPORARY}"))
    }

    fn error(&self, file: SnapshotFile, reason: &str) -> io::Error {
        at(&self.path(file), io::Error::new(ErrorKind::InvalidData, reason.to_owned()))
    }
}

/// The blocks of history in the snapshot `file` in `dir`, which was verified.
pub(super) fn history(dir: &Path, file: SnapshotFile) -> io::Result<Blocks> {
    let path = file_path(dir, file.index.0, SNAPSHOT);
    let (mut handle, header) = open(&path)?;
    handle.seek(SeekFrom::Start(header.history_at())).map_err(|error| at(&path, error))?;
    let reader = BufReader::with_capacity(BUFFER_LEN, handle);
    let (upto, left) = (header.history_upto, header.history_len);
    Ok(Blocks { path, reader, upto, left })
}

fn open(path: &Path) -> io::Result<(File, Header)> {
    let mut handle = File::open(path).map_err(|error| at(path, error))?;
    let mut bytes = [0; HEADER_LEN];
    handle.read_exact(&mut bytes).map_err(|error| at(path, error))?;
    let header = Header::decode(&bytes);
    let header = header.map_err(|damage| at(path, io::Error::other(damage)))?;
    Ok((handle, header))
}

/// The blocks of history in a snapshot, read one at a time.
#[derive(Debug)]
pub struct Blocks {
    path: PathBuf,
    reader: BufReader<File>,
    upto: Option<LogIndex>,
    left: u64,
}

impl Blocks {
    /// The last entry whose changes are in them; `None` if the snapshot holds no history.
    pub fn upto(&self) -> Option<LogIndex> {
        self.upto
    }

    /// How many bytes are to come, with the lengths before the blocks.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    fn next_block(&mut self) -> io::Result<Bytes> {
        let mut prefix = [0; BLOCK_PREFIX_LEN];
        self.reader.read_exact(&mut prefix)?;
        let len = block_len(prefix).map_err(io::Error::other)?;
        let taken = (BLOCK_PREFIX_LEN + len) as u64;
        let left = self.left.checked_sub(taken);
        self.left = left.ok_or_else(|| io::Error::other(SnapshotDamage::Unreadable))?;
        let mut block = BytesMut::zeroed(len);
        self.reader.read_exact(&mut block)?;
        Ok(block.freeze())
    }
}

impl Iterator for Blocks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let block = self.next_block().map_err(|error| at(&self.path, error));
        if block.is_err() {
            self.left = 0;
        }
        Some(block)
    }
}

/// A snapshot file that is not what was written.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) path: PathBuf,
    pub(super) damage: SnapshotDamage,
}

/// The newest whole snapshot in `dir`, and those that are damaged and newer, or of a newer format.
pub(super) fn newest(dir: &Path) -> io::Result<(Option<Snapshot>, Vec<Damaged>)> {
    let mut damaged = Vec::new();
    for path in list(dir, SNAPSHOT)?.into_values().rev() {
        match read(&path)? {
            Ok(snapshot) => return Ok((Some(snapshot), damaged)),
            Err(damage) => damaged.push(Damaged { path, damage }),
        }
    }
    Ok((None, damaged))
}

/// Reads the file `path` to its end; the inner error says why it is no whole snapshot.
pub(super) fn read(path: &Path) -> io::Result<Result<Snapshot, SnapshotDamage>> {
    let file = OpenOptions::new().read(true).open(path).map_err(|error| at(path, error))?;
    read_whole(file).map_err(|error| at(path, error))
}

/// Reads a file to its end, and keeps what it covers and its state.
fn read_whole(mut file: File) -> io::Result<Result<Snapshot, SnapshotDamage>> {
    let mut piece = vec![0; PIECE_LEN];
    let mut head = [0; HEADER_LEN];
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Ok(Err(SnapshotDamage::Checksum));
        }
        Err(error) => return Err(error),
    }
    let header = match Header::decode(&head) {
        Ok(header) => header,
        Err(damage) => return Ok(Err(damage)),
    };
    let mut decoder = Decoder::new(header);
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            return Ok(decoder.finish());
        }
        if let Err(damage) = decoder.push(&piece[..len]) {
            return Ok(Err(damage));
        }
    }
}
