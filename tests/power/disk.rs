//! What a run did to files, as inodes and steps: the tree before, and each call of the record that
//! `src/store/io/trace.rs` keeps.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// An inode's number here: each that ever was has one of its own.
pub type Node = usize;
pub type Name = Vec<u8>;
pub type Names = BTreeMap<(Node, Name), Node>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Link(Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Inode {
    pub kind: Kind,
    /// Its bytes before the run, and when they were written; none of what the run has made.
    pub before: Option<(Vec<u8>, SystemTime)>,
}

/// One call, or a part of one that another can come between.
#[derive(Clone, Debug)]
pub enum Step {
    /// Names that change together.
    Names(Vec<(Node, Name, Option<Node>)>),
    Size(Node, u64),
    Write(Node, u64, Vec<u8>),
    Begin(Node, String),
    End(String),
}

#[derive(Clone, Debug)]
pub struct Told {
    pub process: u32,
    pub step: Step,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub root: Node,
    pub inodes: Vec<Inode>,
    pub before: Names,
    pub steps: Vec<Told>,
    /// Names after all steps.
    pub after: Names,
    known: HashMap<String, Node>,
}

pub fn children(names: &Names, directory: Node) -> impl Iterator<Item = (&Name, Node)> {
    let from = (directory, Name::new());
    let below = names
        .range(from..)
        .take_while(move |((parent, _), _)| *parent == directory);
    below.map(|((_, name), node)| (name, *node))
}

fn key(metadata: &std::fs::Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

impl Disk {
    /// The tree below `root`, before a run.
    pub fn of(root: &Path) -> Disk {
        let mut disk = Disk {
            root: 0,
            inodes: Vec::new(),
            before: Names::new(),
            steps: Vec::new(),
            after: Names::new(),
            known: HashMap::new(),
        };
        disk.root = disk.take(root);
        disk.after = disk.before.clone();
        disk
    }

    fn take(&mut self, path: &Path) -> Node {
        let metadata = std::fs::symlink_metadata(path).expect("it stands");
        if let Some(known) = self.known.get(&key(&metadata)) {
            return *known;
        }
        let modified = metadata.modified().expect("a time");
        let (kind, bytes) = if metadata.is_dir() {
            (Kind::Directory, Vec::new())
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(path).expect("a link");
            (
                Kind::Link(target.as_os_str().as_bytes().to_vec()),
                Vec::new(),
            )
        } else {
            (Kind::File, std::fs::read(path).expect("a file"))
        };
        let is_directory = kind == Kind::Directory;
        let node = self.make(key(&metadata), kind, Some((bytes, modified)));
        if is_directory {
            for entry in std::fs::read_dir(path).expect("a directory") {
                let entry = entry.expect("an entry");
                let child = self.take(&entry.path());
                let name = entry.file_name().as_bytes().to_vec();
                self.before.insert((node, name), child);
            }
        }
        node
    }

    fn make(&mut self, key: String, kind: Kind, before: Option<(Vec<u8>, SystemTime)>) -> Node {
        self.inodes.push(Inode { kind, before });
        self.known.insert(key, self.inodes.len() - 1);
        self.inodes.len() - 1
    }

    /// Takes up what the record says was done below the root.
    pub fn read(&mut self, record: &str) {
        for line in record.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let process = words[0].parse().expect("a process");
            for step in self.steps_of(words[1], &words[2..]) {
                if let Step::Names(changes) = &step {
                    for (directory, name, node) in changes {
                        let place = (*directory, name.clone());
                        match node {
                            Some(node) => self.after.insert(place, *node),
                            None => self.after.remove(&place),
                        };
                    }
                }
                self.steps.push(Told { process, step });
            }
        }
    }

    fn steps_of(&mut self, what: &str, words: &[&str]) -> Vec<Step> {
        // A name without bytes is an empty word.
        let name = |at: usize| unhex(words.get(at).copied().unwrap_or_default());
        let directory = |disk: &Disk, at: usize| disk.known.get(words[at]).copied();
        match what {
            "create" | "mkdir" | "soft" => {
                let Some(parent) = directory(self, 1) else {
                    return Vec::new();
                };
                let place = (parent, name(2));
                let stands = self.after.get(&place).copied();
                let known = self.known.get(words[0]).copied();
                if what == "mkdir" && stands.is_some() && stands == known {
                    return Vec::new();
                }
                let kind = match what {
                    "create" => Kind::File,
                    "mkdir" => Kind::Directory,
                    _ => Kind::Link(name(3)),
                };
                let node = self.make(words[0].to_owned(), kind, None);
                vec![Step::Names(vec![(place.0, place.1, Some(node))])]
            }
            "link" => match (self.known.get(words[0]).copied(), directory(self, 1)) {
                (Some(node), Some(parent)) => {
                    vec![Step::Names(vec![(parent, name(2), Some(node))])]
                }
                _ => Vec::new(),
            },
            "gone" => match directory(self, 0) {
                Some(parent) => self.removal((parent, name(1))),
                None => Vec::new(),
            },
            "rename" | "swap" => {
                let (Some(from), Some(to)) = (directory(self, 0), directory(self, 2)) else {
                    return Vec::new();
                };
                let (from, to) = ((from, name(1)), (to, name(3)));
                let node = self.after.get(&from).copied();
                assert!(node.is_some(), "what was renamed is not known: {words:?}");
                let other = self.after.get(&to).copied().filter(|_| what == "swap");
                vec![Step::Names(vec![
                    (from.0, from.1, other),
                    (to.0, to.1, node),
                ])]
            }
            "size" | "write" | "begin" => {
                let Some(node) = self.known.get(words[0]).copied() else {
                    return Vec::new();
                };
                let number = || words[1].parse().expect("a number");
                vec![match what {
                    "size" => Step::Size(node, number()),
                    "write" => Step::Write(node, number(), name(2)),
                    _ => Step::Begin(node, words[1].to_owned()),
                }]
            }
            "end" => vec![Step::End(words[1].to_owned())],
            "mode" | "open" | "list" => Vec::new(),
            other => unreachable!("{other} is no step"),
        }
    }

    /// A name that goes, after all that lies below it.
    fn removal(&self, place: (Node, Name)) -> Vec<Step> {
        let Some(node) = self.after.get(&place).copied() else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        if self.inodes[node].kind == Kind::Directory {
            for (name, _) in children(&self.after, node) {
                steps.extend(self.removal((node, name.clone())));
            }
        }
        steps.push(Step::Names(vec![(place.0, place.1, None)]));
        steps
    }

    /// The bytes of a file after the steps of it that `counts` says.
    pub fn bytes(&self, node: Node, until: usize, counts: impl Fn(usize) -> bool) -> Vec<u8> {
        let before = self.inodes[node].before.as_ref();
        let mut bytes = before.map_or_else(Vec::new, |(bytes, _)| bytes.clone());
        for (index, told) in self.steps[..until].iter().enumerate() {
            match &told.step {
                Step::Size(of, size) if *of == node && counts(index) => {
                    bytes.resize(usize::try_from(*size).expect("small"), 0);
                }
                Step::Write(of, offset, more) if *of == node && counts(index) => {
                    let offset = usize::try_from(*offset).expect("small");
                    let end = offset + more.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[offset..end].copy_from_slice(more);
                }
                _ => {}
            }
        }
        bytes
    }
}
