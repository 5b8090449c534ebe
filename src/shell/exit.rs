//! How the process ends: [`ExitError`], and the exit code of each kind.

use crate::shell::disk::{ExitClass, ToolError};

/// Why the process ends with another code than 0. The text is one sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExitError {
    /// The machine does not give what is needed: a taken port, a full disk, a bad file. Exit
    /// code 1.
    #[error("{0}")]
    Environment(String),
    /// The command line or a setting is wrong. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Data on disk is damaged, and going on could lose what was acknowledged. Exit code 3.
    #[error("{0}")]
    Damaged(String),
}

impl ExitError {
    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Environment(_) => 1,
            Self::Usage(_) => 2,
            Self::Damaged(_) => 3,
        }
    }
}

impl From<ToolError> for ExitError {
    fn from(error: ToolError) -> Self {
        let text = error.to_string();
        match error {
            ToolError::Dir(cause) => match cause.exit_class() {
                ExitClass::Environment => Self::Environment(text),
                ExitClass::Damaged => Self::Damaged(text),
            },
            ToolError::Damaged(_) => Self::Damaged(text),
            ToolError::Rescue { .. } | ToolError::Refused(_) => Self::Environment(text),
        }
    }
}
