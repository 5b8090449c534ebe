//! The steps of a log on real files: [`LogFiles`].

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::files::{self, SEGMENT, TEMPORARY, file_path};
use crate::codec::log::{LogLimits, LogWriter, SegmentNumber, Step};
use crate::codec::record::Record;
use crate::id::ClusterId;
use crate::shell::counters::Counters;

/// What a file is called that was a segment, or is made to be one. What it holds means nothing.
pub(super) const SPARE: &str = "spare";

/// The files of a log, and the writer that goes on with them.
#[derive(Debug)]
pub struct LogFiles {
    log_dir: PathBuf,
    writer: LogWriter,
    /// What the writer wants done, from the step on that could not be done for lack of space.
    steps: VecDeque<Step>,
    /// The segment that was written last.
    open: Option<(SegmentNumber, File)>,
    spares: Spares,
    counters: Arc<Counters>,
    /// Held as long as anything may be written.
    _lock: Arc<File>,
}

/// Files that become segments.
#[derive(Debug, Default)]
struct Spares {
    count_max: usize,
    ready: VecDeque<PathBuf>,
    /// Their new names may not be on the disk, and a crash could bring them back as the segments
    /// that they were: until then nothing may be written to them.
    renamed: VecDeque<PathBuf>,
    /// The segment during which a spare was made, or tried to, so that it is tried once in each.
    made_in: Option<SegmentNumber>,
}

/// Why a write is not durable.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no space, and nothing is lost: [`LogFiles::go_on`] tries again.
    Full(String),
    /// It never will be. Nobody knows what is on the disk.
    Failed(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Full(reason) => Self::new(ErrorKind::StorageFull, reason),
            WriteError::Failed(error) => error,
        }
    }
}

impl LogFiles {
    pub(super) fn new(
        log_dir: PathBuf,
        writer: LogWriter,
        limits: LogLimits,
        lock: Arc<File>,
    ) -> io::Result<Self> {
        let spares = Spares { count_max: limits.spare_segments, ..Spares::default() };
        let (steps, open, counters) = (VecDeque::new(), None, Arc::default());
        let mut new = Self { log_dir, writer, steps, open, spares, counters, _lock: lock };
        for path in files::list(&new.log_dir, SPARE)?.into_values() {
            new.spares.renamed.push_back(path);
        }
        // A log that begins anew knows of no life before, and could not tell what is left of one.
        let kept = new.writer.end().map_or(0, |_| new.spares.count_max);
        while new.spares.renamed.len() > kept {
            let path = new.spares.renamed.pop_back();
            path.map_or(Ok(()), |path| files::remove_if_there(&path))?;
        }
        Ok(new)
    }

    /// What is counted while they are written. The rest of the node may count in it too.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Makes `batch` durable.
    pub(super) fn write(&mut self, batch: &[Record]) -> Result<(), WriteError> {
        let steps = self.writer.encode(batch);
        let steps = steps.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        self.perform(steps)
    }

    /// Marks everything written so far as synced; see [`LogWriter::seal`].
    pub(super) fn seal(&mut self) -> Result<(), WriteError> {
        let steps = self.writer.seal();
        self.perform(steps)
    }

    /// Whether there is nothing to seal.
    pub(super) fn is_sealed(&self) -> bool {
        self.writer.is_sealed()
    }

    /// The node is a member of `cluster`; see [`LogWriter::set_cluster`].
    pub(super) fn set_cluster(&mut self, cluster: ClusterId) {
        self.writer.set_cluster(cluster);
    }

    /// Does `steps` in order, after those that wait.
    pub(super) fn perform(&mut self, steps: Vec<Step>) -> Result<(), WriteError> {
        self.steps.extend(steps);
        self.go_on()
    }

    /// Does the steps that wait. One for which there is no space is tried again by the next call:
    /// it writes to places of its own, so it may be done twice.
    pub(super) fn go_on(&mut self) -> Result<(), WriteError> {
        while let Some(step) = self.steps.pop_front() {
            match self.perform_one(&step) {
                Ok(()) => {}
                Err(error) if is_full(&error) && needs_space(&step).is_some() => {
                    let len = needs_space(&step).unwrap_or(0);
                    self.steps.push_front(step);
                    return Err(WriteError::Full(format!("{error}; {len} bytes are needed")));
                }
                Err(error) => return Err(WriteError::Failed(error)),
            }
        }
        Ok(())
    }

    /// Has a file ready to become the next segment, so that a group need not wait for it. For a
    /// moment in which nobody waits. What fails here is tried again when the segment is begun.
    pub(super) fn prepare(&mut self) {
        if !self.spares.renamed.is_empty() && self.sync_dir().is_err() {
            return;
        }
        let Some((segment, end)) = self.writer.end() else { return };
        let (is_due, len) = match self.open.as_ref().map(|(_, file)| file.metadata()) {
            Some(Ok(metadata)) => (end > metadata.len() / 2, metadata.len()),
            Some(Err(_)) | None => return,
        };
        let has_one = !self.spares.ready.is_empty() || self.spares.count_max == 0;
        if !is_due || has_one || self.spares.made_in == Some(segment) {
            return;
        }
        self.spares.made_in = Some(segment);
        let path = file_path(&self.log_dir, segment.next().0, SPARE);
        match make_file(&path, len) {
            Ok(_) => self.spares.ready.push_back(path),
            Err(error) => tracing::debug!(%error, "no segment is made ahead of time"),
        }
    }

    fn perform_one(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Create { segment, len, header } => {
                self.create(*segment, *len)?;
                self.on_file(*segment, |file| file.write_all_at(header, 0))
            }
            // One buffer and one call: a group is hundreds of records of some hundred bytes each,
            // whose checksums pass over all their bytes anyway, so copying them together costs
            // less than it would cost the system to gather so many slices.
            Step::Write { segment, at, bytes } => {
                self.on_file(*segment, |file| file.write_all_at(bytes, *at))?;
                self.counters.log.bytes.add(bytes.len() as u64);
                Ok(())
            }
            Step::Sync { segment } => {
                self.on_file(*segment, File::sync_data)?;
                self.counters.log.syncs.add(1);
                Ok(())
            }
            Step::SyncDir => self.sync_dir(),
            Step::Remove { segment } => self.remove(*segment),
        }
    }

    /// Opens the segment, and makes it of a spare or anew if there is none of its name.
    fn create(&mut self, segment: SegmentNumber, len: u64) -> io::Result<()> {
        let path = file_path(&self.log_dir, segment.0, SEGMENT);
        self.open = None;
        let file = match open_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => {
                if self.spares.ready.is_empty() && !self.spares.renamed.is_empty() {
                    self.sync_dir()?;
                }
                match self.spares.ready.front() {
                    Some(spare) => {
                        let file = open_file(spare)?;
                        fs::rename(spare, &path).map_err(|error| files::at(spare, error))?;
                        self.spares.ready.pop_front();
                        file
                    }
                    None => make_file(&path, len)?,
                }
            }
        };
        allocate(&file, len).map_err(|error| files::at(&path, error))?;
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
            Some(_) | None => open_file(&path)?,
        };
        let (_, file) = self.open.insert((segment, file));
        run(file).map_err(|error| files::at(&path, error))
    }

    /// Keeps the segment as a spare if there are few, else removes it.
    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()> {
        let path = file_path(&self.log_dir, segment.0, SEGMENT);
        if self.spares.ready.len() + self.spares.renamed.len() >= self.spares.count_max {
            return files::remove_if_there(&path);
        }
        let spare = file_path(&self.log_dir, segment.0, SPARE);
        match fs::rename(&path, &spare) {
            Ok(()) => self.spares.renamed.push_back(spare),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(files::at(&path, error)),
        }
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        files::sync_dir(&self.log_dir)?;
        self.spares.ready.append(&mut self.spares.renamed);
        Ok(())
    }
}

/// The numbers of the segments in `dir`, ascending.
pub(super) fn segment_numbers(dir: &Path) -> io::Result<Vec<SegmentNumber>> {
    let files = files::list(dir, SEGMENT)?;
    Ok(files.into_keys().map(SegmentNumber).collect())
}

/// Reads a segment in `dir`, without the end of its file that was never written.
pub(super) fn read_segment(dir: &Path, number: SegmentNumber) -> io::Result<Bytes> {
    let path = file_path(dir, number.0, SEGMENT);
    let read = || {
        let mut file = File::open(&path)?;
        let len = file.metadata()?.len();
        let len = data_end(&file, len).unwrap_or(len);
        seek(&file, SeekFrom::Start(0))?;
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        Read::by_ref(&mut file).take(len).read_to_end(&mut bytes)?;
        Ok(Bytes::from(bytes))
    };
    read().map_err(|error| files::at(&path, error))
}

/// Where the last part of a file ends that is not a hole; `None` if the system does not say.
fn data_end(file: &File, len: u64) -> Option<u64> {
    let mut end = 0;
    loop {
        match seek(file, SeekFrom::Data(end)) {
            Ok(data) => end = seek(file, SeekFrom::Hole(data)).ok()?,
            Err(Errno::NXIO) => return Some(end),
            Err(_) => return None,
        }
        if end >= len {
            return Some(len);
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(|error| files::at(path, error))
}

/// Makes a file of `len` bytes that has its name only when it has its space.
fn make_file(path: &Path, len: u64) -> io::Result<File> {
    let beside = path.with_extension(TEMPORARY);
    let made = files::create_file(&beside).and_then(|file| {
        allocate(&file, len).map_err(|error| files::at(path, error))?;
        fs::rename(&beside, path).map_err(|error| files::at(path, error))?;
        Ok(file)
    });
    if made.is_err() {
        // What is left of it takes space that something else may need.
        let _ = files::remove_if_there(&beside);
    }
    made
}

/// Gives a file `len` bytes of space, if it has fewer. A file system that cannot do that ahead of
/// time gives the length alone, and a write may find that there is no space.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    if file.metadata()?.len() >= len {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(len),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Whether a step that failed may succeed when there is space, and how many bytes it needs. A sync
/// never does: the system may have dropped what it could not write.
fn needs_space(step: &Step) -> Option<u64> {
    match step {
        Step::Create { len, .. } => Some(*len),
        Step::Write { bytes, .. } => Some(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
        Step::Sync { .. } | Step::SyncDir | Step::Remove { .. } => None,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
