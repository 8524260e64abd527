//! The house rules that a compiler doesn't check: layers, lengths, words, and whether the docs tell the truth.
//!
//! Every check collects all it finds and fails once, with `file:line: what` a line.

#![allow(clippy::unwrap_used, reason = "a test may stop on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/promises.rs"]
mod promises;
#[path = "tidy/words.rs"]
mod words;

const FILE_LINES_MAX: usize = 450;
const FUNCTION_LINES_MAX: usize = 70;

/// Files longer than that which are being divided: none may be added, and a short one is struck off.
const LONG_FILES: &[&str] = &[];
/// The same of functions.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];
/// What even these may not exceed: lines of a file, and of a function.
const EXCEPTION_LINES_MAX: (usize, usize) = (640, 100);
/// Rooms with circles of files that are being opened.
const ROOMS_WITH_CIRCLES: &[&str] = &[];

/// What no file of a room may name.
const ABSENT: &[(&[&str], &[&str])] = &[
    (
        &["tensor", "layout", "view", "strategy", "plan"],
        &[
            "std::fs",
            "std::net",
            "std::time::Instant",
            "std::time::SystemTime",
            "Instant::now",
        ],
    ),
    (
        &["tensor", "layout", "view", "strategy", "plan", "config"],
        &["crate::exchange", "crate::store::io"],
    ),
    (&["model"], &["crate::exchange"]),
    (&["source"], &["crate::destination"]),
    (
        &["destination"],
        &["crate::source::open", "crate::source::listing"],
    ),
    (
        &["exchange"],
        &[
            "crate::tensor",
            "crate::layout",
            "crate::catalog",
            "crate::view",
        ],
    ),
    (&["config"], &["crate::plan", "crate::job"]),
];

/// Modules by layer. A module imports from lower layers only, and from itself.
const LAYERS: &[&[&str]] = &[
    &["host"],
    &["fault", "course"],
    &["tensor"],
    &["layout", "view"],
    &["strategy", "catalog"],
    &["plan", "exchange", "store"],
    &["transport"],
    &["source", "destination"],
    &["job", "config"],
    &["checkpoint", "model", "measure"],
    &["front", "report"],
    &["cli"],
    &["main"],
];

/// What may cross a boundary all the same: who, and what.
const CROSSINGS: &[(&str, &str)] = &[
    // A plan lays files out, so it knows their kinds; it never opens one.
    ("plan", "store::Format"),
    ("plan", "store::Directory"),
    // What such a format is told.
    ("plan", "store::formats::laid"),
    ("plan", "store::formats::Count"),
    ("plan", "store::formats::COUNT_NAMES"),
];

/// Rooms whose contents nobody can name have no place in the house.
const BANNED_MODULES: &[&str] = &[
    "utils", "util", "helpers", "helper", "common", "manager", "misc",
];

/// Assembled, so that this file doesn't find itself.
const BANNED_MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("db", "g!("),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` that ends with `ending`, as a path relative to the repository.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(
                    path.strip_prefix(root())
                        .unwrap()
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Source files that end up in the program: all but those of unit tests.
fn sources() -> impl Iterator<Item = String> {
    files("src", ".rs")
        .into_iter()
        .filter(|file| !file.ends_with("/tests.rs"))
}

/// The lines of a source file as `(number, code)`: without comments, and without the unit tests at its end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
    });
    let end = tests.unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .enumerate()
        .filter_map(|(index, line)| {
            let code = match line.find("//") {
                // A `//` inside a text, such as an address, is no comment.
                Some(start) if !line[..start].ends_with(':') => &line[..start],
                _ => line,
            };
            (!code.trim().is_empty()).then_some((index + 1, code))
        })
}

/// The places in `code` where the path `path` begins, i.e. not inside a longer word or path.
fn paths<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(path).filter_map(move |(start, _)| {
        let before = code[..start].chars().next_back();
        let inside = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        (!inside).then_some(&code[start + path.len()..])
    })
}

fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..end]
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn module_of(file: &str) -> &str {
    let path = file.strip_prefix("src/").unwrap();
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn nothing(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// What is not among the exceptions, and exceptions that are none.
fn but_for(found: BTreeMap<String, String>, exceptions: &[String]) -> Vec<String> {
    let needless = exceptions.iter().filter(|name| !found.contains_key(*name));
    let needless: Vec<String> = needless
        .map(|name| format!("{name}: no longer an exception: strike it off in tests/tidy.rs"))
        .collect();
    let left = found
        .into_iter()
        .filter(|(name, _)| !exceptions.contains(name));
    left.map(|(_, text)| text).chain(needless).collect()
}

#[test]
fn exceptions_are_needed() {
    let found =
        || BTreeMap::from([("a", "long"), ("b", "long")].map(|(a, b)| (a.into(), b.into())));
    let left = |names: &[&str]| {
        but_for(
            found(),
            &names.iter().map(|n| (*n).into()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(left(&["a"]), ["long"]);
    assert!(left(&["a", "b"]).is_empty());
    assert_eq!(left(&["a", "b", "c"]).len(), 1);
}

#[test]
fn files_are_short_enough_to_read() {
    let mut long = BTreeMap::new();
    let mut found = Vec::new();
    for file in files("src", ".rs") {
        let lines = read(&file).lines().count();
        if lines > FILE_LINES_MAX {
            let text = format!("{file}: {lines} lines, at most {FILE_LINES_MAX}: two nouns?");
            if lines > EXCEPTION_LINES_MAX.0 {
                found.push(text.clone());
            }
            long.insert(file, text);
        }
    }
    let exceptions: Vec<String> = LONG_FILES.iter().map(ToString::to_string).collect();
    found.extend(but_for(long, &exceptions));
    nothing(&found);
}

/// rustfmt puts a function's closing brace under its first line, so the shape of the text is enough.
#[test]
fn functions_are_short_enough_to_read() {
    let mut long = BTreeMap::new();
    let mut found = Vec::new();
    for file in files("src", ".rs") {
        let text = read(&file);
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words: Vec<&str> = line.split_whitespace().take(6).collect();
            let Some(at) = words.iter().position(|word| *word == "fn") else {
                continue;
            };
            let qualifiers = [
                "pub", "crate::", "const", "async", "unsafe", "extern", "\"C\"",
            ];
            if !words[..at]
                .iter()
                .all(|word| qualifiers.iter().any(|q| word.starts_with(q)))
            {
                continue;
            }
            let closing = format!("{}}}", &line[..indent]);
            let rest = &lines[start..];
            let ends = rest
                .iter()
                .position(|line| line.ends_with(['{', ';', '}']))
                .unwrap_or(0);
            if !rest[ends].ends_with('{') {
                continue;
            }
            let length = rest
                .iter()
                .position(|line| *line == closing)
                .map_or(0, |end| end + 1);
            if length > FUNCTION_LINES_MAX {
                let name = word(line.split("fn ").nth(1).unwrap_or_default());
                let text = format!(
                    "{file}:{}: a function of {length} lines, at most {FUNCTION_LINES_MAX}",
                    start + 1
                );
                if length > EXCEPTION_LINES_MAX.1 {
                    found.push(text.clone());
                }
                long.insert(format!("{file} {name}"), text);
            }
        }
    }
    let exceptions: Vec<String> = LONG_FUNCTIONS
        .iter()
        .map(|(file, name)| format!("{file} {name}"))
        .collect();
    found.extend(but_for(long, &exceptions));
    nothing(&found);
}

#[test]
fn modules_have_names_that_say_something() {
    let found: Vec<String> = files("src", ".rs")
        .into_iter()
        .filter(|file| {
            let path = file.trim_end_matches(".rs");
            path.split('/').any(|part| BANNED_MODULES.contains(&part))
        })
        .collect();
    nothing(&found);
}

/// What users read, and where words of the inside are told: what the program prints and its help, and the docs
/// that aren't for those who build it.
#[test]
fn users_read_no_word_of_the_inside() {
    let seen = words::texts(
        "// a cell\nlet x = \"a {cell} of \\\"cells\\\"\"; '\"'; \"b\"\n/// c",
        true,
    );
    let seen: Vec<&str> = seen.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(seen, ["a  of cells", "b", " c"]);
    assert_eq!(words::inside(seen[0]), Some("cell"));
    let mut found = Vec::new();
    let mut tell = |file: &str, line: usize, text: &str| {
        if let Some(word) = words::inside(text) {
            found.push(format!(
                "{file}:{line}: '{word}', which a user isn't told: {}",
                text.trim()
            ));
        }
    };
    for file in files("src", ".rs")
        .iter()
        .filter(|file| !file.ends_with("tests.rs"))
    {
        for (line, text) in words::texts(&read(file), file.starts_with("src/cli/")) {
            tell(file, line, &text);
        }
    }
    let inside = ["architecture", "design-log", "testing"];
    let docs = files("docs", ".md")
        .into_iter()
        .chain(["README.md".to_owned()]);
    for file in docs.filter(|file| !inside.iter().any(|name| file.contains(name))) {
        let mut block = false;
        for (line, text) in read(&file).lines().enumerate() {
            block ^= text.trim_start().starts_with("```");
            let plain: String = text.split('`').step_by(2).collect();
            tell(&file, line + 1, if block { "" } else { &plain });
        }
    }
    nothing(&found);
}

#[test]
fn nothing_is_left_open_in_the_code() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "bench", "examples"] {
        for file in files(folder, ".rs") {
            for (index, line) in read(&file).lines().enumerate() {
                for mark in BANNED_MARKS {
                    let start = mark.trim_end_matches("!(");
                    if line.contains(mark)
                        && line
                            .split(|c: char| !c.is_alphanumeric())
                            .any(|word| word == start)
                    {
                        found.push(format!("{file}:{}: {mark}", index + 1));
                    }
                }
            }
        }
    }
    nothing(&found);
}

#[test]
fn every_source_file_is_part_of_the_crate() {
    let mut found = Vec::new();
    for file in files("src", ".rs") {
        let path = Path::new(&file);
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (name, parent) = match stem.as_str() {
            "lib" | "main" => continue,
            "mod" => {
                let folder = path.parent().unwrap();
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                (name, folder.parent().unwrap().to_path_buf())
            }
            _ => (stem, path.parent().unwrap().to_path_buf()),
        };
        let declared = ["mod.rs", "lib.rs", "main.rs"]
            .iter()
            .map(|file| root().join(&parent).join(file))
            .chain([root().join(&parent).with_extension("rs")])
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .any(|text| paths(&text, "mod ").any(|rest| word(rest) == name));
        if !declared {
            found.push(format!("{file}: no module declares it"));
        }
    }
    nothing(&found);
}

#[test]
fn modules_import_lower_layers_only() {
    let mut found = Vec::new();
    for file in sources() {
        let own = module_of(&file);
        if own == "lib" {
            continue;
        }
        let Some(own_layer) = layer(own) else {
            found.push(format!(
                "{file}: module `{own}` has no layer in tests/tidy.rs"
            ));
            continue;
        };
        let text = read(&file);
        for (number, line) in code(&text) {
            let uses = paths(line, "crate::").chain(paths(line, "shardloom::"));
            let crosses = |used: &&str| {
                CROSSINGS
                    .iter()
                    .any(|(who, what)| *who == own && used.starts_with(what))
            };
            let uses = uses.filter(|used| !crosses(used));
            for used in uses.map(word).filter(|used| *used != own) {
                if layer(used).is_some_and(|used| used >= own_layer) {
                    found.push(format!(
                        "{file}:{number}: `{own}` imports `{used}`, which isn't below it"
                    ));
                }
            }
        }
    }
    nothing(&found);
}

#[test]
fn files_of_a_room_import_each_other_one_way() {
    let files = sources().filter(|file| file != "src/main.rs").map(|file| {
        let text = read(&file);
        let lines: Vec<&str> = code(&text).map(|(_, line)| line).collect();
        (file, lines.join("\n"))
    });
    let graph = circles::House::new(files).imports();
    let edges: usize = graph.values().map(BTreeSet::len).sum();
    assert!(
        edges > graph.len() / 2,
        "{edges} imports in {} files",
        graph.len()
    );
    let mut found = BTreeMap::new();
    for circle in circles::circles(&graph) {
        let text = format!("import each other: {}", circle.join(", "));
        let key = module_of(&circle[0]).to_owned();
        let known: &mut String = found.entry(key).or_default();
        known.push_str(&text);
    }
    let exceptions: Vec<String> = ROOMS_WITH_CIRCLES.iter().map(ToString::to_string).collect();
    nothing(&but_for(found, &exceptions));
}

/// The folders of `src`.
fn rooms() -> BTreeSet<String> {
    let inside = |file: &String| file.matches('/').count() > 1;
    let files = sources().filter(inside);
    files.map(|file| module_of(&file).to_owned()).collect()
}

#[test]
fn rooms_say_what_is_absent_on_purpose() {
    let rooms = rooms();
    assert!(rooms.len() > 10, "{rooms:?}");
    let mut found = Vec::new();
    for room in rooms {
        let module = format!("src/{room}/mod.rs");
        let file = format!("src/{room}.rs");
        let module = if root().join(&file).exists() {
            file
        } else {
            module
        };
        let text = read(&module);
        let mut head = text.lines().take_while(|line| line.starts_with("//!"));
        if !head.any(|line| line.starts_with("//! *Absent on purpose*: ")) {
            found.push(format!(
                "{module}: its head doesn't say what is absent on purpose"
            ));
        }
    }
    nothing(&found);
}

/// A function that takes the world says whether all processes must call it; a file may say it of all of its own.
#[test]
fn functions_say_whether_all_processes_call_them() {
    let mut found = Vec::new();
    let mut checked = 0;
    for file in sources() {
        let text = read(&file);
        let all = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line == "//! Every function here is collective.");
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            if !(line.starts_with("pub") && line.contains("fn ")) || all {
                continue;
            }
            let until = |line: &&&str| !line.trim_end().ends_with(['{', ';']);
            let rest = lines[number..].iter().take_while(until).count();
            let signature = lines[number..=(number + rest).min(lines.len() - 1)].concat();
            if !signature.contains(": &World") {
                continue;
            }
            checked += 1;
            let above = lines[..number].iter().rev();
            let mut above = above.take_while(|line| line.trim_start().starts_with(['/', '#']));
            if !above.any(|line| line.contains("Collective") || line.contains("Local")) {
                found.push(format!(
                    "{file}:{}: say Collective or Local of a function that takes the world",
                    number + 1
                ));
            }
        }
    }
    assert!(checked > 100, "{checked}");
    nothing(&found);
}

#[test]
fn what_is_absent_on_purpose_is_absent() {
    let mut found = Vec::new();
    let rooms = rooms();
    for (absent_in, what) in ABSENT {
        let unknown = absent_in.iter().filter(|room| !rooms.contains(**room));
        found.extend(unknown.map(|room| format!("tests/tidy.rs: there is no room {room}")));
        for file in sources().filter(|file| absent_in.contains(&module_of(file))) {
            let text = read(&file);
            for (number, line) in code(&text) {
                let named = what
                    .iter()
                    .filter(|what| paths(line, what).any(|rest| word(rest).is_empty()));
                found.extend(named.map(|what| {
                    format!(
                        "{file}:{number}: {what} is absent from src/{} on purpose",
                        module_of(&file)
                    )
                }));
            }
        }
    }
    nothing(&found);
}

#[test]
fn mpi_lives_in_the_exchange_only() {
    let mut found = Vec::new();
    for file in sources().filter(|file| module_of(file) != "exchange") {
        let text = read(&file);
        for (number, line) in code(&text) {
            if paths(line, "mpi::").next().is_some() || paths(line, "mpi_sys::").next().is_some() {
                found.push(format!("{file}:{number}: MPI outside src/exchange"));
            }
        }
    }
    nothing(&found);
}

#[test]
fn the_command_line_is_read_in_cli_only() {
    let mut found = Vec::new();
    for file in sources().filter(|file| module_of(file) != "cli") {
        let text = read(&file);
        for (number, line) in code(&text) {
            if paths(line, "clap::").next().is_some() {
                found.push(format!("{file}:{number}: clap outside src/cli"));
            }
        }
    }
    nothing(&found);
}

#[test]
fn files_are_opened_in_one_place_only() {
    let mut found = Vec::new();
    for file in sources().filter(|file| !file.starts_with("src/store/io/")) {
        let text = read(&file);
        for (number, line) in code(&text) {
            if paths(line, "std::fs").next().is_some() {
                found.push(format!("{file}:{number}: std::fs outside src/store/io"));
            }
        }
    }
    nothing(&found);
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    for folder in ["launch", "bench", ".ci"] {
        for file in files(folder, "") {
            let path = root().join(&file);
            let script = std::fs::read(&path).unwrap().starts_with(b"#!");
            let executable = path.metadata().unwrap().permissions().mode() & 0o111 != 0;
            if script != executable {
                found.push(format!(
                    "{file}: starts with #!: {script}, executable: {executable}"
                ));
            }
        }
    }
    nothing(&found);
}

/// The Markdown files that people read: those in the root and those in `docs/`.
fn pages() -> Vec<String> {
    let mut pages = files("docs", ".md");
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            pages.push(name);
        }
    }
    pages
}

/// What a heading is called in a link, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    for page in pages() {
        let folder = Path::new(&page).parent().unwrap().to_path_buf();
        for (index, line) in read(&page).lines().enumerate() {
            for target in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
            {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let file = if path.is_empty() {
                    PathBuf::from(&page)
                } else {
                    folder.join(path)
                };
                let full = root().join(&file);
                let missing = !full.exists()
                    || (!heading.is_empty()
                        && !std::fs::read_to_string(&full)
                            .unwrap_or_default()
                            .lines()
                            .any(|line| line.starts_with('#') && anchor(line) == heading));
                if missing {
                    found.push(format!("{page}:{}: {target} leads nowhere", index + 1));
                }
            }
        }
    }
    nothing(&found);
}

/// The shell commands of a page: fenced blocks, continued lines joined and comments removed, and spans in the
/// text that start with the program's name.
fn commands(page: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    let mut shell = false;
    let mut continues = false;
    for (index, line) in read(page).lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            shell = !inside && ["sh", "bash", "shell", "console"].contains(&language.trim());
            inside = !inside;
            continues = false;
        } else if inside && shell {
            let line = line.trim().trim_start_matches("$ ");
            let line = line.split(" #").next().unwrap();
            if line.starts_with('#') {
                continue;
            }
            let (text, more) = line
                .strip_suffix('\\')
                .map_or((line, false), |text| (text.trim(), true));
            match found.last_mut() {
                Some((_, last)) if continues => {
                    last.push(' ');
                    last.push_str(text);
                }
                _ => found.push((index + 1, text.to_owned())),
            }
            continues = more;
        } else if !inside {
            let spans = line.split('`').skip(1).step_by(2);
            let spans = spans.filter(|span| span.starts_with("shardloom "));
            found.extend(spans.map(|span| (index + 1, span.to_owned())));
        }
    }
    found
}

/// What `shardloom WORDS --help` prints, or nothing if there is no such command.
fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_shardloom"))
        .args(words)
        .arg("--help")
        .output();
    let output = output.unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn commands_in_the_docs_exist() {
    let mut found = Vec::new();
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    for page in pages() {
        for (number, line) in commands(&page) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for word in &words {
                let local = ["launch/", "bench/", "tests/"]
                    .iter()
                    .any(|dir| word.starts_with(dir));
                if local && !root().join(word).exists() {
                    found.push(format!("{page}:{number}: there is no {word}"));
                }
            }
            for command in line.split("shardloom ").skip(1) {
                let words: Vec<&str> = command
                    .split_whitespace()
                    .take_while(|word| !["|", "&&", "||", ">", ";", "--"].contains(word))
                    .collect();
                // `shardloom COMMAND --help` speaks of any command.
                let real = |word: &&&str| !word.starts_with('-') && **word != "COMMAND";
                let Some(first) = words.first().filter(real) else {
                    continue;
                };
                let mut name = vec![*first];
                if ["strategy", "bench"].contains(first) {
                    name.extend(words.get(1));
                }
                let text = known.entry(name.join(" ")).or_insert_with(|| help(&name));
                let Some(text) = text else {
                    found.push(format!(
                        "{page}:{number}: no command `shardloom {}`",
                        name.join(" ")
                    ));
                    continue;
                };
                let flags: BTreeSet<&str> = text
                    .split(|c: char| !c.is_alphanumeric() && c != '-')
                    .filter(|word| word.starts_with('-'))
                    .collect();
                for flag in words.iter().filter(|word| word.starts_with("--")) {
                    let flag = flag
                        .split('=')
                        .next()
                        .unwrap()
                        .trim_end_matches([',', ';', ')']);
                    if !flags.contains(flag) {
                        found.push(format!(
                            "{page}:{number}: `shardloom {}` has no {flag}",
                            name.join(" ")
                        ));
                    }
                }
            }
        }
    }
    nothing(&found);
}
