//! The steps of a log on real files: [`LogFiles`].

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::log::{LogWriter, SegmentNumber, Step};
use crate::codec::record::Record;
use crate::shell::counters::Counters;

/// What a file is called while it is not whole.
pub(super) const TEMPORARY: &str = "tmp";

const SEGMENT: &str = "log";

/// The files of a log, and the writer that goes on with them.
#[derive(Debug)]
pub struct LogFiles {
    log_dir: PathBuf,
    writer: LogWriter,
    /// The segment that was written last.
    open: Option<(SegmentNumber, File)>,
    counters: Arc<Counters>,
    /// Held as long as anything may be written.
    _lock: Arc<File>,
}

impl LogFiles {
    pub(super) fn new(log_dir: PathBuf, writer: LogWriter, lock: Arc<File>) -> Self {
        Self { log_dir, writer, open: None, counters: Arc::default(), _lock: lock }
    }

    /// What is counted while they are written. The rest of the node may count in it too.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Makes `batch` durable.
    pub(super) fn write(&mut self, batch: &[Record]) -> io::Result<()> {
        let steps = self.writer.encode(batch);
        let steps = steps.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        self.perform(steps)
    }

    /// Marks everything written so far as synced; see [`LogWriter::seal`].
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let steps = self.writer.seal();
        self.perform(steps)
    }

    /// Does `steps` in order, up to the first that fails.
    pub(super) fn perform(&mut self, steps: Vec<Step>) -> io::Result<()> {
        for step in steps {
            match step {
                Step::Create { segment, header } => self.create(segment, &header)?,
                Step::Append { segment, bytes } => {
                    self.counters.log.bytes.add(bytes.len() as u64);
                    self.on_file(segment, |mut file| file.write_all(&bytes))?;
                }
                Step::Cut { segment, len } => self.on_file(segment, |file| file.set_len(len))?,
                Step::Sync { segment } => {
                    self.on_file(segment, File::sync_data)?;
                    self.counters.log.syncs.add(1);
                }
                Step::SyncDir => sync_dir(&self.log_dir)?,
                Step::Remove { segment } => {
                    remove_if_there(&file_path(&self.log_dir, segment.0, SEGMENT))?;
                }
            }
        }
        Ok(())
    }

    fn create(&mut self, segment: SegmentNumber, header: &[u8]) -> io::Result<()> {
        let path = file_path(&self.log_dir, segment.0, SEGMENT);
        let mut file = create_file(&path)?;
        file.write_all(header).map_err(|error| at(&path, error))?;
        self.open = Some((segment, file));
        Ok(())
    }

    fn on_file(
        &mut self,
        segment: SegmentNumber,
        run: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = file_path(&self.log_dir, segment.0, SEGMENT);
        let file = match self.open.take() {
            Some((number, file)) if number == segment => file,
            Some(_) | None => {
                let file = OpenOptions::new().append(true).open(&path);
                file.map_err(|error| at(&path, error))?
            }
        };
        let (_, file) = self.open.insert((segment, file));
        run(file).map_err(|error| at(&path, error))
    }
}

/// Reads all segments in `dir`.
pub(super) fn read_segments(dir: &Path) -> io::Result<BTreeMap<SegmentNumber, Bytes>> {
    let files = list(dir, SEGMENT)?.into_iter();
    files.map(|(number, path)| Ok((SegmentNumber(number), read(&path)?))).collect()
}

/// Makes the directory `path` for the owner alone, and what is above it; syncs its name.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| at(path, error))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => sync_dir(Path::new(".")),
    }
}

/// Writes the file `path` so that a crash leaves either the old one or the new one, whole.
pub(super) fn write_beside(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TEMPORARY);
    let beside = PathBuf::from(name);
    let mut file = create_file(&beside)?;
    for part in parts {
        file.write_all(part).map_err(|error| at(&beside, error))?;
    }
    file.sync_all().map_err(|error| at(&beside, error))?;
    fs::rename(&beside, path).map_err(|error| at(path, error))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Removes the files in `dir` that a crash left half written.
pub(super) fn remove_temporary(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(|error| at(dir, error))? {
        let path = entry.map_err(|error| at(dir, error))?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(&path).map_err(|error| at(&path, error))?;
        }
    }
    Ok(())
}

/// Removes the file `path`, unless it is gone already.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Names `path` in an error of the system, which does not.
pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the file `path` for the owner alone, or empties it.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.map_err(|error| at(path, error))
}

/// Waits until the names in the directory `path` are on the disk.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| at(path, error))
}

fn read(path: &Path) -> io::Result<Bytes> {
    fs::read(path).map(Bytes::from).map_err(|error| at(path, error))
}

/// Twenty digits hold every number, and sort as the numbers do.
pub(super) fn file_path(dir: &Path, number: u64, extension: &str) -> PathBuf {
    dir.join(format!("{number:020}.{extension}"))
}

/// The files in `dir` that are named by a number and end with `extension`.
pub(super) fn list(dir: &Path, extension: &str) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| at(dir, error))? {
        let path = entry.map_err(|error| at(dir, error))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let Some(number) = stem.and_then(|stem| stem.parse().ok()) else { continue };
        if path == file_path(dir, number, extension) {
            files.insert(number, path);
        }
    }
    Ok(files)
}
