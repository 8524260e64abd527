//! Hints in the words of the command that was typed: not all commands have the flags that a hint names.
//!
//! A hint is made where a fault is found, and names flags. A part of it that names one which the running
//! command hasn't is said otherwise ([`OTHERWISE`]) or left out; if nothing remains, the commands are named
//! that have it.

use crate::fault::Fault;
use clap::Command;
use std::collections::BTreeSet;

/// What is said in the place of flags: for this command, these words, others.
const OTHERWISE: [(&str, &str, &str); 10] = [
    ("diff", "--src-strategy", "--a-strategy or --b-strategy"),
    ("strategy", "--src-strategy", "--strategy"),
    (
        "load",
        "', with --src-strategy,",
        "' of `shardloom reshard --src`",
    ),
    (
        "load",
        "--src-strategy",
        "src_strategy_path_or_dir in the configuration",
    ),
    ("verify", "--src-strategy", "--strategy and --from-strategy"),
    ("reshard", "--hf-config", "--model"),
    ("to", "--hf-config", "--model"),
    ("convert", "--file-suffix", "--file-name-contains"),
    (
        "convert",
        "--name-map must give",
        "--name-map FILE must give",
    ),
    ("export", "--name-map gives", "export's own table gives"),
];
/// What is said for a command in the place of all that names this flag.
const INSTEAD: [(&str, &str, &str); 2] = [
    (
        "split",
        "--src-strategy",
        "split takes full weights; `shardloom reshard` takes rank directories and their strategy",
    ),
    (
        "import",
        "--src-strategy",
        "import takes a model in full: --weights NAME where it lies beside rank directories; `shardloom unify` makes full weights of \
         these",
    ),
];
/// Commands named of those that have a flag.
const NAMED: usize = 3;

/// The fault, with its hint for `command`, of the program's `line`.
pub(super) fn fitted(line: &Command, command: &str, mut fault: Fault) -> Fault {
    let Some(hint) = fault.hint.take() else {
        return fault;
    };
    let Some(own) = line.find_subcommand(command) else {
        return fault.hint(hint);
    };
    // Of a command that has others in it the one that was typed.
    let mut typed = std::env::args().skip_while(|word| word != command).skip(1);
    let inner = typed.next().and_then(|word| own.find_subcommand(word));
    let own = inner.unwrap_or(own);
    if let Some((.., instead)) = INSTEAD
        .iter()
        .find(|(known, flag, _)| *known == command && hint.contains(flag))
    {
        return fault.hint(*instead);
    }
    let hint = otherwise(command, hint);
    let own = flags(own);
    let has = |part: &str| named(part).all(|flag| takes(line, &own, &flag));
    let parts = parts(&hint);
    let kept: String = parts.iter().copied().filter(|part| has(part)).collect();
    let kept = kept.trim_end_matches(END).to_owned();
    if !kept.is_empty() {
        return fault.hint(kept);
    }
    fault.hint(elsewhere(line, parts.first().copied().unwrap_or_default()))
}

/// What ends a part that others follow.
const END: [char; 2] = [';', ' '];

/// The parts of a hint that say something by themselves.
fn parts(hint: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = hint;
    while !rest.is_empty() {
        let ends = ["; ", "? "].iter().filter_map(|end| rest.find(end));
        let end = ends.min().map_or(rest.len(), |at| at + 2);
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
    }
    parts
}

fn otherwise(command: &str, hint: String) -> String {
    let own = OTHERWISE.iter().filter(|(known, ..)| *known == command);
    own.fold(hint, |hint, (_, theirs, ours)| hint.replace(theirs, ours))
}

/// A flag that is named, and of which command if it stands in one that could be typed.
struct Named<'a> {
    flag: &'a str,
    of: Option<&'a str>,
}

/// The flags that a text names.
fn named(text: &str) -> impl Iterator<Item = Named<'_>> {
    let typed = text.split('`').enumerate();
    typed.flat_map(|(number, piece)| {
        let typed = if number % 2 == 1 { piece } else { "" };
        let mut words = typed.split_whitespace();
        let of = words.find(|word| *word != "shardloom");
        let words = piece.split(|c: char| c.is_whitespace() || "'\"(,;:?=".contains(c));
        let flags = words.filter_map(|word| {
            let name = word.strip_prefix("--")?;
            let end = name.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
            let (name, after) = name.split_at(end.unwrap_or(name.len()));
            // Those of other programs have underscores.
            let ours = !name.is_empty() && !after.starts_with('_');
            ours.then_some(name)
        });
        flags.map(move |flag| Named { flag, of })
    })
}

/// Whether the flag is one of `own`, or of the command that it is said to be of.
fn takes(line: &Command, own: &BTreeSet<String>, named: &Named<'_>) -> bool {
    let global = |flag: &str| {
        let mut all = line.get_arguments().filter_map(clap::Arg::get_long);
        all.any(|known| known == flag)
    };
    let other = named.of.and_then(|of| line.find_subcommand(of)).map(flags);
    let flags = other.as_ref().unwrap_or(own);
    // Every command says what it takes.
    named.flag == "help" || flags.contains(named.flag) || global(named.flag)
}

/// The flags of a command and of those in it.
fn flags(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments();
    let own = own.flat_map(|flag| flag.get_long_and_visible_aliases().unwrap_or_default());
    let mut all: BTreeSet<String> = own.map(str::to_owned).collect();
    all.extend(command.get_subcommands().flat_map(flags));
    all
}

/// Which commands have the flags that `part` names.
fn elsewhere(line: &Command, part: &str) -> String {
    let wanted: Vec<Named<'_>> = named(part).collect();
    let flags_wanted: BTreeSet<&str> = wanted.iter().map(|named| named.flag).collect();
    let spelled = |command: &Command| -> Vec<String> {
        let flags = flags_wanted.iter();
        flags.map(|flag| with_value(command, flag, part)).collect()
    };
    let has = |command: &&Command| {
        let own = flags(command);
        wanted.iter().all(|flag| takes(line, &own, flag))
    };
    let commands = line.get_subcommands().filter(has).take(NAMED);
    let commands: Vec<String> = commands
        .map(|command| {
            format!(
                "`shardloom {} {}`",
                command.get_name(),
                spelled(command).join(" ")
            )
        })
        .collect();
    format!("what could do it: {}", commands.join(", "))
}

/// A flag with the value that it has in `part`, or with what stands for one: `--file-suffix <FILE_SUFFIX>`.
fn with_value(command: &Command, flag: &str, part: &str) -> String {
    let mut known = command.get_arguments();
    let known = known.find(|known| known.get_long() == Some(flag));
    let taken = known.filter(|known| known.get_action().takes_values());
    let value = taken.and_then(|known| known.get_value_names()?.first().cloned());
    value.map_or_else(
        || format!("--{flag}"),
        |value| match given(part, flag) {
            Some(typed) => format!("--{flag}{typed}"),
            None => format!("--{flag} <{value}>"),
        },
    )
}

/// The value of `flag` in a text, with what is before it; a word of the sentence is none.
fn given<'a>(text: &'a str, flag: &str) -> Option<&'a str> {
    let named = format!("--{flag}");
    let mut places = text.match_indices(&named);
    places.find_map(|(at, _)| {
        let typed = &text[at + named.len()..];
        let value = typed.strip_prefix([' ', '='])?;
        let end = match value.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'')? + 2,
            None => value
                .find(|c: char| c.is_whitespace() || ",;:`".contains(c))
                .unwrap_or(value.len()),
        };
        let is_word = value[..end].chars().all(char::is_alphabetic);
        (!is_word).then(|| &typed[..=end])
    })
}

#[cfg(test)]
mod tests;
