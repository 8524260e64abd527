//! Which promises are proved, and by which tests.

use std::collections::{BTreeMap, BTreeSet};

/// The page that numbers them.
const PAGE: &str = "docs/promises.md";

/// What the page says: of each number the page and its sentence; and those that nothing proves.
#[derive(Default)]
struct Promises {
    said: BTreeMap<u32, (String, String)>,
    unproved: BTreeSet<u32>,
    wrong: Vec<String>,
}

fn number(text: &str) -> Option<u32> {
    text.trim().strip_prefix('P')?.parse().ok()
}

fn read(page: &str) -> Promises {
    let mut promises = Promises::default();
    let mut source = String::new();
    for (index, line) in page.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            source = match heading {
                "README" => "README.md".to_owned(),
                name => format!("docs/{name}.md"),
            };
        }
        let Some((key, text)) = line
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix(" |"))
            .and_then(|row| row.split_once(" | "))
        else {
            continue;
        };
        let Some(key) = number(key) else { continue };
        let fresh = if source == "docs/Not proved by a test.md" {
            promises.unproved.insert(key)
        } else {
            let row = (source.clone(), text.to_owned());
            promises.said.insert(key, row).is_none()
        };
        if !fresh {
            promises
                .wrong
                .push(format!("{PAGE}:{}: P{key} stands twice", index + 1));
        }
    }
    promises
}

/// The numbers that a file's tests name, and lines that name some and stand above no test.
fn proved(file: &str, text: &str, wrong: &mut Vec<String>) -> BTreeSet<u32> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = BTreeSet::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(named) = line.strip_prefix("// proves ") else {
            continue;
        };
        let numbers: Option<Vec<u32>> = named.split(',').map(number).collect();
        let above = lines.get(index + 1).is_some_and(|next| *next == "#[test]");
        match numbers {
            Some(numbers) if above => found.extend(numbers),
            Some(_) => wrong.push(format!("{file}:{}: stands above no test", index + 1)),
            None => wrong.push(format!("{file}:{}: names no numbers: {named}", index + 1)),
        }
    }
    found
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn promises_that_nothing_proves_are_found() {
    let page = "## README\n| P1 | a |\n| P2 | b |\n## cli\n| P3 | c |\n## Not proved by a test\n| P3 | why |\n| P3 | why |\n";
    let promises = read(page);
    assert_eq!(promises.said[&3], ("docs/cli.md".into(), "c".into()));
    assert_eq!(promises.unproved, [3].into());
    assert_eq!(promises.wrong.len(), 1);
    let mut wrong = Vec::new();
    let text = "// proves P1, P7\n#[test]\n// proves P2\nfn x() {}\n// proves all\n#[test]\n";
    assert_eq!(proved("x", text, &mut wrong), [1, 7].into());
    assert_eq!(wrong.len(), 2);
}

#[test]
fn promises_are_proved_or_listed_as_unproved() {
    let promises = read(&super::read(PAGE));
    let mut found = promises.wrong;
    assert!(
        promises.said.len() > 100,
        "{} promises",
        promises.said.len()
    );
    let mut named = BTreeSet::new();
    let files = ["src", "tests"].map(|folder| super::files(folder, ".rs"));
    for file in files
        .iter()
        .flatten()
        .filter(|file| !file.contains("tidy/promises"))
    {
        named.extend(proved(file, &super::read(file), &mut found));
    }
    for (key, (page, sentence)) in &promises.said {
        if !plain(&super::read(page)).contains(&plain(sentence)) {
            found.push(format!("{PAGE}: P{key}: {page} doesn't say so: {sentence}"));
        }
        match (named.contains(key), promises.unproved.contains(key)) {
            (false, false) => found.push(format!("{PAGE}: nothing proves P{key}: {sentence}")),
            (true, true) => found.push(format!("{PAGE}: P{key} is proved, and listed as unproved")),
            _ => {}
        }
    }
    let all = named.iter().chain(&promises.unproved);
    let unknown = all.filter(|key| !promises.said.contains_key(key));
    found.extend(unknown.map(|key| format!("P{key} is named, and {PAGE} hasn't it")));
    super::nothing(&found);
}
