//! Wrong usage, and help: what is said of words that are no command.

use crate::cli::start::USAGE;
use crate::fault::{Fault, Kind, plain};
use crate::report::Report;
use clap::error::{ContextValue, ErrorKind};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// What a command is called where none was recognised.
const NONE: &str = "shardloom";
/// The flag that asks for an object.
const JSON: &str = "--json";

/// What was typed.
pub(super) fn typed() -> impl Iterator<Item = String> {
    let words = std::env::args_os().skip(1);
    words.map(|word| word.to_string_lossy().into_owned())
}

/// Tells of wrong usage, or helps: as text, and of wrong usage as an object if one was asked for. `name` knows the
/// commands. Local, on one process.
pub(super) fn tell(
    error: &mut clap::Error,
    name: impl Fn(&str) -> Option<&'static str>,
) -> ExitCode {
    print(error);
    let words: Vec<String> = typed().take_while(|word| word != "--").collect();
    if error.use_stderr() && words.iter().any(|word| word == JSON) {
        let report = Report {
            json: true,
            quiet: true,
            command: words.iter().find_map(|word| name(word)).unwrap_or(NONE),
        };
        report.fault_object(&fault(error));
    }
    exit(error)
}

/// The exit code. Local.
pub(super) fn exit(error: &clap::Error) -> ExitCode {
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

/// The same as a fault: its first paragraph in a line, and what is proposed in place of it.
pub(super) fn fault(error: &clap::Error) -> Fault {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Fault::new(Kind::Usage, "a command is missing")
            .hint("`shardloom help` says which there are");
    }
    let text = error.render().to_string();
    let text = text.trim_start_matches("error: ");
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    let fault = Fault::new(Kind::Usage, paragraphs.next().unwrap_or_default());
    let tip = paragraphs.find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    fault.hint(tip.unwrap_or_else(|| "`shardloom help` says what can be typed".to_owned()))
}

/// Prints wrong usage, or help, in one write: what a launcher has to say doesn't come between.
fn print(error: &mut clap::Error) {
    in_their_lines(error);
    let (rendered, to_stderr) = (error.render(), error.use_stderr());
    let terminal = if to_stderr {
        std::io::stderr().is_terminal()
    } else {
        std::io::stdout().is_terminal()
    };
    let bare = rendered.to_string();
    let typed: Vec<String> = typed().collect();
    let safe = plain::lines(&bare, &typed);
    let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    // A file's name that acts on a terminal may have been typed by a pattern.
    let text = if coloured && safe == bare {
        rendered.ansi().to_string()
    } else {
        safe.into_owned()
    };
    // A pipe that nobody reads any more is no error.
    let _ = if to_stderr {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    };
}

/// Keeps the words that it names, which may be names of files, each in its line.
fn in_their_lines(error: &mut clap::Error) {
    let safe = |word: &String| plain::line(word).into_owned();
    let named = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(word) => Some((kind, ContextValue::String(safe(word)))),
        ContextValue::Strings(words) => {
            let words = words.iter().map(safe).collect();
            Some((kind, ContextValue::Strings(words)))
        }
        _ => None,
    });
    for (kind, value) in named.collect::<Vec<_>>() {
        error.insert(kind, value);
    }
}
