#![allow(clippy::unwrap_used)]

use super::Cli;
use super::settings::{Origin, Settings};
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

// proves P132
#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_begins_with_examples_that_parse() {
    let mut found = Vec::new();
    let inside = |command: &clap::Command, names: &[String]| {
        let all = command
            .get_subcommands()
            .filter(|inside| inside.get_name() != "help");
        let named = |inside: &clap::Command| {
            let names = names.iter().cloned();
            (
                inside.clone(),
                names
                    .chain([inside.get_name().to_owned()])
                    .collect::<Vec<_>>(),
            )
        };
        all.map(named).collect::<Vec<_>>()
    };
    let mut commands = inside(&Cli::command(), &[]);
    while let Some((mut command, names)) = commands.pop() {
        commands.extend(inside(&command, &names));
        let name = names.join(" ");
        let help = command.render_long_help().to_string();
        if !help.starts_with("Examples:\n") {
            found.push(format!("{name}: the help doesn't begin with examples"));
        }
        let examples = examples(&help);
        if !(2..=3).contains(&examples.len()) {
            found.push(format!("{name}: {} examples", examples.len()));
        }
        for words in examples {
            if words.get(1..=names.len()) != Some(&names) {
                found.push(format!("{name}: an example of another command: {words:?}"));
            }
            if let Err(error) = Cli::try_parse_from(&words) {
                found.push(format!("{name}: {words:?}: {error}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Every command that has the flag; what was typed goes before what is set.
#[test]
fn settings_hold_where_no_flag_is_given() {
    let mut settings = Settings::default();
    let from = || Origin::Environment("SHARDLOOM_MEMORY");
    settings.set("memory", "3GiB".to_owned(), from()).unwrap();
    settings.set("threads", "7".to_owned(), from()).unwrap();
    assert!(settings.set("threads", "many".to_owned(), from()).is_err());
    for (line, memory, threads) in [
        ("diff a b", 3 << 30, 7),
        ("diff a b --memory 1MiB", 1 << 20, 7),
        ("unify --src a --dst b --threads 2", 3 << 30, 2),
    ] {
        let words = ["shardloom"].into_iter().chain(line.split(' '));
        let plain = Cli::command().get_matches_from(words.clone());
        let settings = settings.clone().without(&plain);
        let all = settings.given(Cli::command()).get_matches_from(words);
        let (_, found) = all.subcommand().unwrap();
        assert_eq!(found.get_one::<u64>("memory"), Some(&memory), "{line}");
        assert_eq!(found.get_one::<usize>("threads"), Some(&threads), "{line}");
    }
    let inside = ["shardloom", "bench", "exchange", "--shapes", "s"];
    let all = settings.given(Cli::command()).get_matches_from(inside);
    let found = all.subcommand().unwrap().1.subcommand().unwrap().1;
    assert_eq!(found.get_one::<u64>("memory"), Some(&(3 << 30)));
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
