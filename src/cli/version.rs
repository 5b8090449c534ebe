//! `cronclave version`.

/// The version, and that of the time zone database.
pub(crate) fn text() -> String {
    format!("cronclave {}\n", long())
}

/// The same without the program's name, which clap puts before it.
pub(crate) fn long() -> String {
    let (version, zones) = (env!("CARGO_PKG_VERSION"), chrono_tz::IANA_TZDB_VERSION);
    format!("{version}\ntime zone database {zones}")
}
