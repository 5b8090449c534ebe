//! A file that waits for space: [`PatientFile`].
//!
//! The database writes late, into a file that is longer than what the disk has given it. Somebody
//! else may have taken that space by then, and an error in the middle of its work is the end of
//! a database. So the thread waits here until there is space, or until it is told to stop.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::StorageBackend;

/// How long to wait until a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// Whether a file waits for space, or gives the error. It gives the error at first.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// Wait from here on.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Give the error from here on, also where somebody waits.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn lasts(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A file, or what stands for one, that waits for space. A write has a place of its own, so it may
/// be done again.
#[derive(Debug)]
pub(super) struct PatientFile<B> {
    inner: B,
    patience: Patience,
}

impl<B> PatientFile<B> {
    pub(super) fn new(inner: B, patience: Patience) -> Self {
        Self { inner, patience }
    }

    fn retry(&self, run: impl Fn(&B) -> io::Result<()>) -> io::Result<()> {
        let mut told = false;
        loop {
            let error = match run(&self.inner) {
                Err(error) if is_full(&error) && self.patience.lasts() => error,
                result => return result,
            };
            if !told {
                tracing::warn!(%error, "the disk is full, and the history of executions waits");
                told = true;
            }
            std::thread::sleep(FULL_PAUSE);
        }
    }
}

impl<B: StorageBackend> StorageBackend for PatientFile<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.retry(|inner| inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Never again after an error: the system may have dropped what it could not write.
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.retry(|inner| inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    /// A disk that has no space for so many writes, and then has.
    #[derive(Debug)]
    struct Full {
        left: Mutex<usize>,
        patience: Patience,
        /// At which of them nobody waits any more.
        ends: usize,
    }

    impl StorageBackend for Full {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn read(&self, _offset: u64, _out: &mut [u8]) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(ErrorKind::StorageFull.into())
        }

        fn write(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
            let mut left = held(&self.left);
            if *left == 0 {
                return Ok(());
            }
            *left -= 1;
            if *left == self.ends {
                self.patience.end();
            }
            Err(ErrorKind::StorageFull.into())
        }
    }

    fn file(left: usize, ends: usize) -> (PatientFile<Full>, Patience) {
        let patience = Patience::default();
        let full = Full { left: Mutex::new(left), patience: patience.clone(), ends };
        (PatientFile::new(full, patience.clone()), patience)
    }

    #[test]
    fn a_write_waits_for_space_and_a_sync_is_never_done_again() {
        let (file, patience) = file(3, usize::MAX);
        patience.begin();
        file.write(0, b"row").unwrap();
        assert_eq!(*file.inner.left.lock().unwrap(), 0);
        assert_eq!(file.sync_data().unwrap_err().kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn nobody_waits_at_the_start_and_after_the_end() {
        let (file, patience) = file(9, 6);
        assert_eq!(file.write(0, b"row").unwrap_err().kind(), ErrorKind::StorageFull);
        patience.begin();
        assert_eq!(file.write(0, b"row").unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(*file.inner.left.lock().unwrap(), 6);
    }
}
