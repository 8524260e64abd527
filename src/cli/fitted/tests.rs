use super::*;
use crate::cli::Cli;
use crate::fault::Kind;
use clap::CommandFactory;
use regex_lite::Regex;
use std::path::Path;

/// All texts in the sources that name a flag, but for examples and tests.
fn texts(directory: &Path, found: &mut BTreeSet<String>) {
    let literal = Regex::new(r#""(?:[^"\\]|\\.|\\\n)*""#).unwrap();
    let broken = Regex::new(r"\\\n\s*").unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // What doctor says is for launchers.
            if !path.ends_with("doctor") {
                texts(&path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]").next().unwrap();
            let source = Regex::new(r"(?m)^\s*//.*$")
                .unwrap()
                .replace_all(source, "");
            for text in literal.find_iter(&source) {
                let text = text.as_str().trim_matches('"');
                let text = broken.replace_all(text, "").into_owned();
                let other = ["Examples:", "var(--"]
                    .iter()
                    .any(|mark| text.contains(mark));
                if named(&text).next().is_some() && !other {
                    found.insert(text);
                }
            }
        }
    }
}

/// Whatever is hinted at, nobody is told to type a flag that the command hasn't.
#[test]
fn a_hint_names_flags_that_the_command_has() {
    let line = Cli::command();
    let mut all = BTreeSet::new();
    texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 100, "{}", all.len());
    let mut wrong = BTreeSet::new();
    let every: BTreeSet<String> = line.get_subcommands().flat_map(flags).collect();
    for text in &all {
        let unknown = named(text).find(|flag| !takes(&line, &every, flag));
        if let Some(unknown) = unknown {
            wrong.insert(format!("--{} is no flag: {text}", unknown.flag));
        }
    }
    for command in line.get_subcommands() {
        let (name, own) = (command.get_name(), flags(command));
        for text in &all {
            let fault = fitted(
                &line,
                name,
                Fault::new(Kind::Usage, "x").hint(text.as_str()),
            );
            let told = fault.hint.unwrap();
            let foreign = named(&told).find(|flag| !takes(&line, &own, flag));
            if let Some(foreign) = foreign {
                wrong.insert(format!("{name} hasn't --{}: {told}", foreign.flag));
            }
            if told.is_empty() {
                wrong.insert(format!("{name} says nothing: {text}"));
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_command_cant_follow_is_left_out_or_said_otherwise() {
    let line = Cli::command();
    for (command, hint, told) in [
        (
            "diff",
            "give --src-strategy",
            "give --a-strategy or --b-strategy",
        ),
        (
            "reshard",
            "ulimit -f unlimited; or smaller files: --max-shard-size",
            "ulimit -f unlimited",
        ),
        (
            "import",
            "one; two, by --max-shard-size",
            "one; two, by --max-shard-size",
        ),
        (
            "verify",
            "is it so? --allow-extra leaves it out",
            "is it so?",
        ),
        (
            "load",
            "`shardloom reshard --format checkpoint2` makes one",
            "`shardloom reshard --format checkpoint2` makes one",
        ),
        (
            "checkpoints",
            "the newest is 1_10: --file-suffix 1_10",
            "what could do it: `shardloom reshard --file-suffix 1_10`, `shardloom unify --file-suffix 1_10`, `shardloom export \
             --file-suffix 1_10`",
        ),
        (
            "split",
            "--max-shard-size N",
            "what could do it: `shardloom unify --max-shard-size <SIZE>`, `shardloom import --max-shard-size <SIZE>`, `shardloom export --max-shard-size <SIZE>`",
        ),
    ] {
        let fault = fitted(&line, command, Fault::new(Kind::Usage, "x").hint(hint));
        assert_eq!(fault.hint.as_deref(), Some(told), "{command}");
    }
}
