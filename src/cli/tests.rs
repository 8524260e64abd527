#![allow(clippy::unwrap_used)]

use super::Cli;
use clap::{CommandFactory, Parser};

/// The examples at the beginning of a help: what follows `shardloom` in each, as words.
fn examples(help: &str) -> Vec<Vec<String>> {
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let words = |line: &str| {
        let words = line.split_whitespace();
        let words = words.skip_while(|word| *word != "shardloom");
        words
            .map(|word| word.trim_matches('\'').to_owned())
            .collect()
    };
    lines.map(words).collect()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_begins_with_examples_that_parse() {
    let mut found = Vec::new();
    for mut command in Cli::command().get_subcommands().cloned() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        if !help.starts_with("Examples:\n") {
            found.push(format!("{name}: the help doesn't begin with examples"));
        }
        let examples = examples(&help);
        if !(2..=3).contains(&examples.len()) {
            found.push(format!("{name}: {} examples", examples.len()));
        }
        for words in examples {
            if words.get(1) != Some(&name) {
                found.push(format!("{name}: an example of another command: {words:?}"));
            }
            if let Err(error) = Cli::try_parse_from(&words) {
                found.push(format!("{name}: {words:?}: {error}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Those of the hidden flags apart, which are others' names for ours.
#[test]
fn completions_and_pages_have_every_flag() {
    let written = |shell| {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "shardloom", &mut bytes);
        String::from_utf8(bytes).unwrap()
    };
    let shells = [
        clap_complete::Shell::Bash,
        clap_complete::Shell::Zsh,
        clap_complete::Shell::Fish,
    ];
    let completions = shells.map(written);
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    super::generate::all_pages(&command, "shardloom", &mut pages).unwrap();
    let mut seen = 0;
    let mut found = Vec::new();
    let mut commands = vec![(command, "shardloom".to_owned())];
    while let Some((command, name)) = commands.pop() {
        let page = pages.iter().find(|(file, _)| *file == format!("{name}.1"));
        let page = String::from_utf8_lossy(&page.unwrap().1).replace('\\', "");
        let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
        for long in shown.filter_map(clap::Arg::get_long) {
            seen += 1;
            let everywhere = completions.iter().all(|text| text.contains(long));
            if !everywhere || !page.contains(&format!("--{long}")) {
                found.push(format!("{name} --{long}"));
            }
        }
        for inside in command.get_subcommands() {
            if inside.get_name() != "help" {
                commands.push((inside.clone(), format!("{name}-{}", inside.get_name())));
            }
        }
    }
    assert!(seen > 100 && found.is_empty(), "{found:?}");
}
