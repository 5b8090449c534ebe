//! Why the history cannot be read or written: [`HistoryError`].

use std::io::{self, ErrorKind};

/// Why the history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The disk refused something.
    #[error("the disk failed: {0}")]
    Io(#[source] io::Error),
    /// What is on the disk is not what was written, or no history.
    #[error("the history is damaged: {0}")]
    Damaged(String),
    /// A newer version wrote it. No row was changed.
    #[error("the history has format {found}, this version knows only {known}")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The newest one that this version reads.
        known: u32,
    },
    /// Blocks of another server's history are not a whole one. The own history is as it was.
    #[error("the blocks are not a history: {0}")]
    Block(String),
    /// The database does not go on after an earlier error, or a bug.
    #[error("the database stopped: {0}")]
    Stopped(String),
}

impl From<io::Error> for HistoryError {
    fn from(error: io::Error) -> Self {
        // What redb says of a file that is none of its own, and of one that was cut.
        if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
            Self::Damaged(error.to_string())
        } else {
            Self::Io(error)
        }
    }
}

impl From<redb::Error> for HistoryError {
    fn from(error: redb::Error) -> Self {
        if let redb::Error::Io(error) = error {
            return Self::from(error);
        }
        if let redb::Error::Corrupted(reason) = error {
            return Self::Damaged(reason);
        }
        if let redb::Error::UpgradeRequired(format) = error {
            return Self::Damaged(format!("the database has the unknown format {format}"));
        }
        Self::Stopped(error.to_string())
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for HistoryError {
            fn from(error: $error) -> Self {
                Self::from(redb::Error::from(error))
            }
        })*
    };
}

from_redb!(
    redb::StorageError,
    redb::DatabaseError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

impl From<redb::TableError> for HistoryError {
    fn from(error: redb::TableError) -> Self {
        if let redb::TableError::Storage(error) = error {
            return Self::from(error);
        }
        // The tables are made in one transaction, with these types and no others.
        Self::Damaged(error.to_string())
    }
}
