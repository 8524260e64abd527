//! Circles of files: those of one room that import each other, told from their text alone.
//!
//! A room's `mod.rs` that only declares files and hands on their names (`pub use`) imports nothing by
//! that, and what is taken by such a name is taken from the file that has it.

use std::collections::{BTreeMap, BTreeSet};

/// A module's path below the crate, and a path in general, word by word.
type Words = Vec<String>;

/// Who imports whom.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// All files of a crate, as they are named below it (`src/room/file.rs`), with their code.
pub(crate) struct House {
    modules: BTreeMap<Words, (String, String)>,
    /// What a `mod.rs` hands on: the name, and where it is from.
    handed_on: BTreeMap<Words, BTreeMap<String, Words>>,
}

impl House {
    /// A crate of these files.
    pub(crate) fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let modules: BTreeMap<Words, (String, String)> = files
            .into_iter()
            .map(|(file, text)| (module(&file), (file, text)))
            .collect();
        let faces = modules.iter().filter(|(_, (file, _))| is_face(file));
        let handed_on = faces
            .map(|(module, (_, text))| {
                let mut names = BTreeMap::new();
                for (start, end) in hand_ons(text) {
                    let mut found = Vec::new();
                    spell(&text[start..end], &[], &mut found);
                    for (path, name) in found {
                        names.insert(name, absolute(module, &path));
                    }
                }
                (module.clone(), names)
            })
            .collect();
        House { modules, handed_on }
    }

    /// Which files of the same room each file imports.
    pub(crate) fn imports(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, (file, text)) in &self.modules {
            let edges = graph.entry(file.clone()).or_default();
            let used = self.paths(module, file, text);
            let used = used.iter().filter_map(|path| self.file_of(path, 0));
            edges.extend(
                used.filter(|used| *used != file && room(used) == room(file))
                    .map(str::to_owned),
            );
        }
        graph
    }

    /// All paths that a file names.
    fn paths(&self, module: &Words, file: &str, text: &str) -> Vec<Words> {
        let mut text = text.to_owned();
        let mut starts: Vec<String> = ["crate::", "super::", "self::"].map(String::from).into();
        if is_face(file) {
            for (start, end) in hand_ons(&text) {
                text.replace_range(start..end, &" ".repeat(end - start));
            }
            let children = self.modules.keys().filter(|other| {
                other.len() == module.len() + 1 && other.starts_with(module) && !module.is_empty()
            });
            starts.extend(children.filter_map(|child| Some(format!("{}::", child.last()?))));
        }
        let mut found = Vec::new();
        for start in starts {
            for (at, _) in text.match_indices(&start) {
                let before = text[..at].chars().next_back();
                if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    spell(&text[at..], &[], &mut found);
                }
            }
        }
        found
            .into_iter()
            .map(|(path, _)| absolute(module, &path))
            .collect()
    }

    /// The file that what `path` names is in, as far as it can be told.
    fn file_of(&self, path: &[String], followed: usize) -> Option<&str> {
        let length = (1..=path.len())
            .rev()
            .find(|length| self.modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let from = rest.first().and_then(|name| {
            let names = self.handed_on.get(module)?;
            names.get(name)
        });
        match from {
            Some(from) if followed < 8 => {
                let from: Words = from.iter().chain(&rest[1..]).cloned().collect();
                self.file_of(&from, followed + 1)
            }
            _ => self.modules.get(module).map(|(file, _)| file.as_str()),
        }
    }
}

fn is_face(file: &str) -> bool {
    file.ends_with("/mod.rs") || file == "src/lib.rs"
}

fn room(file: &str) -> &str {
    let path = file.trim_start_matches("src/");
    path.split('/').next().unwrap_or(path)
}

fn module(file: &str) -> Words {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" => Words::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

/// Where the paths of `pub use`, `pub(super) use` lie in `text`.
fn hand_ons(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        if text[line..at].trim_start().starts_with("pub") {
            let start = at + "use ".len();
            let end = text[start..]
                .find(';')
                .map_or(text.len(), |end| start + end);
            found.push((start, end));
        }
    }
    found
}

fn absolute(module: &[String], path: &[String]) -> Words {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate") => {
            base.clear();
            rest = &path[1..];
        }
        Some("self") => rest = &path[1..],
        _ => {}
    }
    while rest.first().is_some_and(|word| word == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend(rest.iter().cloned());
    base
}

/// Reads the path at the start of `text`, of which `before` has been read: `a::{b, c::d as e}` is two.
/// Each comes with the name that it has from then on. Gives what follows.
fn spell<'t>(text: &'t str, before: &[String], found: &mut Vec<(Words, String)>) -> &'t str {
    let mut path = before.to_vec();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                let next = spell(rest, &path, found).trim_start();
                if next.len() == rest.len() {
                    return next;
                }
                rest = next.strip_prefix(',').unwrap_or(next).trim_start();
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let word = super::word(rest);
        rest = &rest[word.len()..];
        if !word.is_empty() && (word != "self" || path.is_empty()) {
            path.push(word.to_owned());
        }
        match rest.strip_prefix("::").filter(|_| !word.is_empty()) {
            Some(next) => rest = next,
            None => break,
        }
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some(other) = rest.trim_start().strip_prefix("as ") {
        super::word(other).clone_into(&mut name);
        rest = &other[name.len()..];
    }
    found.push((path, name));
    rest
}

/// The circles of a graph: its strongly connected parts of two nodes or more (Tarjan's algorithm).
pub(crate) fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut search = Search {
        graph,
        places: BTreeMap::new(),
        lows: BTreeMap::new(),
        open: Vec::new(),
        found: Vec::new(),
    };
    for node in graph.keys() {
        if !search.places.contains_key(node.as_str()) {
            search.visit(node);
        }
    }
    search.found
}

struct Search<'g> {
    graph: &'g Graph,
    /// In which order the nodes were come to.
    places: BTreeMap<&'g str, usize>,
    /// The first open node that each leads back to.
    lows: BTreeMap<&'g str, usize>,
    /// Nodes whose part isn't complete.
    open: Vec<&'g str>,
    found: Vec<Vec<String>>,
}

impl<'g> Search<'g> {
    fn visit(&mut self, node: &'g str) {
        let place = self.places.len();
        self.places.insert(node, place);
        self.lows.insert(node, place);
        self.open.push(node);
        for next in self.graph.get(node).into_iter().flatten() {
            let next = next.as_str();
            let low = match self.places.get(next).copied() {
                None => {
                    self.visit(next);
                    self.lows[next]
                }
                Some(place) if self.open.contains(&next) => place,
                Some(_) => continue,
            };
            let own = self.lows[node].min(low);
            self.lows.insert(node, own);
        }
        if self.lows[node] == place {
            let start = self.open.iter().position(|open| *open == node).unwrap_or(0);
            let mut part: Vec<String> = self
                .open
                .split_off(start)
                .into_iter()
                .map(str::to_owned)
                .collect();
            if part.len() > 1 {
                part.sort();
                self.found.push(part);
            }
        }
    }
}

#[test]
fn circles_are_found_in_a_made_up_graph() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*to).to_owned()).or_default();
            let edges = graph.entry((*from).to_owned()).or_default();
            edges.insert((*to).to_owned());
        }
        graph
    };
    let none = graph(&[("a", "b"), ("b", "c"), ("a", "c"), ("d", "c"), ("e", "e")]);
    assert!(circles(&none).is_empty());
    let two = graph(&[
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("c", "d"),
        ("d", "e"),
        ("e", "d"),
        ("f", "a"),
    ]);
    let mut found = circles(&two);
    found.sort();
    assert_eq!(found, [vec!["a", "b", "c"], vec!["d", "e"]]);
}

#[test]
fn circles_are_found_in_made_up_code() {
    let found = |files: &[(&str, &str)]| {
        let files = files
            .iter()
            .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        circles(&House::new(files).imports())
    };
    let face = (
        "src/r/mod.rs",
        "mod one;\npub mod two;\npub use one::{One, Uno as Other};\n",
    );
    let [one, two] = ["src/r/one.rs", "src/r/two.rs"];
    let circle = [vec![one, two]];
    // Names that a room hands on, of any form, lead to the file that has them.
    for text in [
        "use crate::r::One;",
        "use crate::r::{self, Other};",
        "use super::one::One;",
        "fn f() -> crate::r::one::One {}",
        "use crate::{fault, r::{One as Here}};",
    ] {
        let files = [face, (one, "use super::two::{Two, Zwei};"), (two, text)];
        assert_eq!(found(&files), circle, "{text}");
    }
    // One way is no circle, nor is a file with the face that hands it on, or another room's.
    let files = [
        face,
        (one, "use crate::fault::Fault;"),
        (two, "use super::One;"),
    ];
    assert!(found(&files).is_empty());
    let files = [
        face,
        (one, "use crate::s::Three;"),
        (two, "use crate::r;"),
        ("src/s/mod.rs", "pub struct Three(crate::r::One);"),
    ];
    assert!(found(&files).is_empty());
    // A face that has things of its own, and takes what its files have, is in the circle.
    for text in [
        "mod one;\nuse one::One;\npub struct Own;",
        "mod one;\npub fn own() { one::f() }",
    ] {
        let files = [("src/r/mod.rs", text), (one, "use super::Own;")];
        assert_eq!(found(&files), [vec!["src/r/mod.rs", one]], "{text}");
    }
    // Rooms inside a room are of it.
    let files = [
        ("src/r/mod.rs", "pub mod inner;\nmod one;"),
        ("src/r/inner/mod.rs", "mod deep;\npub use deep::Deep;"),
        ("src/r/inner/deep.rs", "use crate::r::one::One;"),
        (one, "use super::inner::Deep;"),
    ];
    assert_eq!(found(&files), [vec!["src/r/inner/deep.rs", one]]);
}
