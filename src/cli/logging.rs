//! Log lines to stderr, with a level that can be changed while the process runs.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::shell::config::{LogFormat, LogLevel};

/// Crates whose lines say nothing to an operator: theirs from `error` on (a peer that
/// is down makes a warning a heartbeat), and all of them only at
/// `trace`.
const ENGINES: [&str; 2] = ["openraft", "foca"];
/// Crates whose details are of no use at any level.
const PLUMBING: [&str; 5] = ["hyper", "hyper_util", "reqwest", "mio", "tower_http"];

/// Changes the level. A handle, cheap to clone.
#[derive(Clone)]
pub struct LogHandle(Arc<dyn Fn(LogLevel) + Send + Sync>);

impl LogHandle {
    /// From now on logs from `level` on.
    pub fn set_level(&self, level: LogLevel) {
        (self.0)(level);
    }
}

/// Starts logging to stderr. Called once; where a subscriber is set already, it stays.
pub fn init(level: LogLevel, format: LogFormat) -> LogHandle {
    let (subscriber, handle) = subscriber(level, format);
    // Fails only where a subscriber is set already.
    let _ = subscriber.try_init();
    handle
}

fn subscriber(
    level: LogLevel,
    format: LogFormat,
) -> (impl Subscriber + Send + Sync + 'static, LogHandle) {
    let (filter, handle) = reload::Layer::new(targets(level));
    // A line that cannot be written (closed pipe, full disk) is lost; it must not end the process.
    let lines = fmt::layer::<Registry>().with_writer(io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let handle = LogHandle(Arc::new(move |level| {
        // Fails only when the subscriber is gone, and then there is nothing to change.
        let _ = handle.reload(targets(level));
    }));
    (tracing_subscriber::registry().with(lines.with_filter(filter)), handle)
}

fn targets(level: LogLevel) -> Targets {
    let all = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let quiet = all.min(LevelFilter::WARN);
    let engines = if level < LogLevel::Trace { LevelFilter::ERROR } else { all };
    let engines = ENGINES.map(|name| (name, engines));
    let plumbing = PLUMBING.map(|name| (name, quiet));
    Targets::new().with_default(all).with_targets(engines).with_targets(plumbing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn the_engines_are_quiet_unless_details_are_asked_for() {
        let info = targets(LogLevel::Info);
        assert!(info.would_enable("cronclave::shell", &Level::INFO));
        assert!(!info.would_enable("cronclave::shell", &Level::DEBUG));
        assert!(!info.would_enable("openraft::engine", &Level::INFO));
        assert!(info.would_enable("openraft::engine", &Level::ERROR));
        let debug = targets(LogLevel::Debug);
        assert!(!debug.would_enable("openraft::engine", &Level::INFO));
        assert!(targets(LogLevel::Trace).would_enable("openraft::engine", &Level::DEBUG));
        assert!(!debug.would_enable("hyper::proto", &Level::INFO));
        assert!(!targets(LogLevel::Error).would_enable("foca", &Level::WARN));
    }

    #[test]
    fn the_level_changes_while_lines_are_written() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (subscriber, handle) = subscriber(LogLevel::Info, format);
            tracing::subscriber::with_default(subscriber, || {
                assert!(!tracing::enabled!(Level::DEBUG));
                handle.set_level(LogLevel::Debug);
                assert!(tracing::enabled!(Level::DEBUG));
                handle.set_level(LogLevel::Error);
                assert!(!tracing::enabled!(Level::WARN));
            });
        }
    }
}
