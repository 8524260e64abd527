//! The log. A line looks like an error, `warning: …`; on a terminal without a clock.

use crate::fault::{Result, plain};
use crate::report::{Notes, is_logged, log, open_log};
use std::fmt;
use std::path::Path;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log: on stderr what is asked for, and in a file, if one is named, what is done at least.
///
/// # Errors
/// As [`open_log`]; what goes to stderr does so all the same.
pub(super) fn start(quiet: bool, verbose: u8, file: Option<&Path>) -> Result<()> {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let opened = file.map_or(Ok(()), open_log);
    let lines = || {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(LogLine)
    };
    let mut layers = vec![lines().with_writer(log).with_filter(level).boxed()];
    if is_logged() {
        let level = level.max(LevelFilter::INFO);
        let kept = lines().with_writer(|| plain::Log(Notes));
        layers.push(kept.with_filter(level).boxed());
    }
    let _ = tracing_subscriber::registry().with(layers).try_init();
    opened
}

/// How lines of the log look.
pub(super) struct LogLine;

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let kind = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "note",
            Level::DEBUG | Level::TRACE => "debug",
        };
        write!(writer, "{kind}: ")?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
