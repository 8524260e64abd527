//! What may be on a disk when the power goes: what was flushed, and of the rest any part that a
//! journalling file system may have written by itself.

use crate::dice::Dice;
use crate::disk::{Disk, Name, Names, Node, Step};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

/// In which order changes of names reach the disk, where nothing is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In that of one journal; a flush of anything writes all of it.
    Journal,
    /// In each directory by itself.
    Directories,
    /// In any, but for those of one name.
    Any,
}

/// How much of what was written to a file and not flushed has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Nothing,
    All,
    /// Blocks, and sizes without them.
    Some,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub order: Order,
    pub data: Data,
    /// Bytes that are written as one.
    pub block: usize,
    /// A flush is of what its own process has written, as where each node has a cache of its own.
    pub apart: bool,
    /// How often, out of 100 times, a change of names that need not be there is.
    pub often: usize,
}

/// What is found after a cut.
#[derive(Clone, Debug)]
pub struct State {
    /// Steps that had been begun.
    pub cut: usize,
    pub rules: Rules,
    pub names: Names,
    pub contents: BTreeMap<Node, Content>,
}

#[derive(Clone, Debug)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub modified: Modified,
}

#[derive(Clone, Copy, Debug)]
pub enum Modified {
    Before(SystemTime),
    Step(usize),
}

/// A flush that has ended.
struct Flush {
    begin: usize,
    end: usize,
    node: Node,
    process: u32,
}

/// A run, ready to be cut.
pub struct Cuts<'a> {
    pub disk: &'a Disk,
    flushes: Vec<Flush>,
    /// The steps of each file's bytes.
    data: BTreeMap<Node, Vec<usize>>,
}

impl<'a> Cuts<'a> {
    /// All its cuts; a flush `without` which it is to be done, by its number, is taken for none.
    pub fn of(disk: &'a Disk, without: Option<usize>) -> Cuts<'a> {
        let mut data: BTreeMap<Node, Vec<usize>> = BTreeMap::new();
        let (mut begun, mut flushes) = (BTreeMap::new(), Vec::new());
        for (index, told) in disk.steps.iter().enumerate() {
            match &told.step {
                Step::Size(node, _) | Step::Write(node, ..) => {
                    data.entry(*node).or_default().push(index);
                }
                Step::Begin(node, number) => {
                    begun.insert(number, (index, *node, told.process));
                }
                // One that isn't known is of something outside.
                Step::End(number) => {
                    if let Some((begin, node, process)) = begun.remove(number) {
                        let end = index;
                        flushes.push(Flush {
                            begin,
                            end,
                            node,
                            process,
                        });
                    }
                }
                Step::Names(_) => {}
            }
        }
        if let Some(number) = without {
            flushes.remove(number);
        }
        Cuts {
            disk,
            flushes,
            data,
        }
    }

    /// How often something was flushed.
    pub fn flushes(&self) -> usize {
        self.flushes.len()
    }

    /// One of the states that a cut may leave.
    pub fn draw(&self, dice: &mut Dice) -> State {
        let steps = self.disk.steps.len();
        // The end is of interest: what was told to be done must be there.
        let cut = match dice.below(20) {
            0 => steps,
            // Most of what matters happens late.
            1..8 => steps - dice.below(steps / 3 + 1),
            _ => dice.below(steps + 1),
        };
        let rules = Rules {
            order: [Order::Journal, Order::Directories, Order::Any][dice.below(3)],
            data: [Data::Nothing, Data::All, Data::Some, Data::Some][dice.below(4)],
            block: [512, 4096][dice.below(2)],
            apart: dice.of_hundred(30),
            often: [0, 20, 50, 80, 95, 100][dice.below(6)],
        };
        self.state(cut, rules, dice)
    }

    pub fn state(&self, cut: usize, rules: Rules, dice: &mut Dice) -> State {
        let names = self.names(cut, rules, dice);
        let mut contents = BTreeMap::new();
        let files: BTreeSet<Node> = names.values().copied().collect();
        for node in files {
            contents.insert(node, self.content(node, cut, rules, dice));
        }
        State {
            cut,
            rules,
            names,
            contents,
        }
    }

    /// The names that are there.
    fn names(&self, cut: usize, rules: Rules, dice: &mut Dice) -> Names {
        let needed = self.needed_names(cut, rules);
        let mut names = self.disk.before.clone();
        let mut blocked: HashSet<(Node, Name)> = HashSet::new();
        let mut all_blocked = false;
        for (index, told) in self.disk.steps[..cut].iter().enumerate() {
            let Step::Names(changes) = &told.step else {
                continue;
            };
            let keys = keys(changes, rules.order);
            let free = !all_blocked && !keys.iter().any(|key| blocked.contains(key));
            let there = needed.contains(&index) || (free && dice.of_hundred(rules.often));
            if !there {
                blocked.extend(keys);
                all_blocked |= rules.order == Order::Journal;
                continue;
            }
            for (directory, name, node) in changes {
                let place = (*directory, name.clone());
                match node {
                    Some(node) => names.insert(place, *node),
                    None => names.remove(&place),
                };
            }
        }
        names
    }

    /// The changes of names that must be there: flushed ones, and what comes before them.
    fn needed_names(&self, cut: usize, rules: Rules) -> BTreeSet<usize> {
        let flushed = || self.flushes.iter().filter(|flush| flush.end < cut);
        let mut needed = BTreeSet::new();
        if rules.order == Order::Journal {
            let until = flushed().map(|flush| flush.begin).max().unwrap_or(0);
            needed.extend(0..until);
            return needed;
        }
        let mut before: HashSet<(Node, Name)> = HashSet::new();
        for (index, told) in self.disk.steps[..cut].iter().enumerate().rev() {
            let Step::Names(changes) = &told.step else {
                continue;
            };
            let touches = |flush: &Flush| {
                flush.begin > index && changes.iter().any(|change| change.0 == flush.node)
            };
            let keys = keys(changes, rules.order);
            if flushed().any(touches) || keys.iter().any(|key| before.contains(key)) {
                needed.insert(index);
                before.extend(keys);
            }
        }
        needed
    }

    /// The bytes of a file that are there.
    fn content(&self, node: Node, cut: usize, rules: Rules, dice: &mut Dice) -> Content {
        let steps = self.data.get(&node).map_or(&[][..], Vec::as_slice);
        let steps = &steps[..steps.partition_point(|index| *index < cut)];
        let flushed = |index: &usize| {
            let process = self.disk.steps[*index].process;
            self.flushes.iter().any(|flush| {
                let own = !rules.apart || flush.process == process;
                flush.node == node && own && flush.end < cut && *index < flush.begin
            })
        };
        let needed: Vec<bool> = steps.iter().map(flushed).collect();
        let loose = needed.iter().filter(|needed| !**needed).count();
        let data = match rules.data {
            Data::Some => [Data::Nothing, Data::All, Data::Some, Data::Some][dice.below(4)],
            data => data,
        };
        let few = |dice: &mut Dice| match data {
            Data::Nothing => 0,
            Data::All => loose,
            Data::Some => dice.below(loose + 1),
        };
        let before = self.disk.inodes[node].before.as_ref();
        let old = before.map_or(&[][..], |(bytes, _)| bytes.as_slice());
        let size = self.size(old.len(), steps, &needed, few(dice));
        let mut bytes = vec![0; size];
        for begin in (0..size).step_by(rules.block) {
            let end = (begin + rules.block).min(size);
            let part = begin..end.min(old.len()).max(begin);
            if part.end > part.start && part.start < old.len() {
                bytes[part.clone()].copy_from_slice(&old[part]);
            }
            let mut left = few(dice);
            for (index, needed) in steps.iter().zip(&needed) {
                if !*needed {
                    if left == 0 {
                        continue;
                    }
                    left -= 1;
                }
                if let Step::Write(_, offset, more) = &self.disk.steps[*index].step {
                    let offset = usize::try_from(*offset).expect("small");
                    let (from, to) = (offset.max(begin), (offset + more.len()).min(end));
                    if from < to {
                        bytes[from..to].copy_from_slice(&more[from - offset..to - offset]);
                    }
                }
            }
        }
        let mut last = steps.iter().zip(&needed).rev();
        let last = last.find(|(_, needed)| **needed || data != Data::Nothing);
        let modified = match (last, before) {
            (None, Some((_, time))) => Modified::Before(*time),
            (last, _) => Modified::Step(last.map_or(0, |(index, _)| *index)),
        };
        Content { bytes, modified }
    }

    /// The size of a file after the needed steps and so many of the others.
    fn size(&self, old: usize, steps: &[usize], needed: &[bool], mut others: usize) -> usize {
        let mut size = old;
        for (index, needed) in steps.iter().zip(needed) {
            if !*needed {
                if others == 0 {
                    continue;
                }
                others -= 1;
            }
            match &self.disk.steps[*index].step {
                Step::Size(_, bytes) => size = usize::try_from(*bytes).expect("small"),
                Step::Write(_, offset, more) => {
                    size = size.max(usize::try_from(*offset).expect("small") + more.len());
                }
                _ => {}
            }
        }
        size
    }
}

/// What a change of names touches, of which the changes stay in order.
fn keys(changes: &[(Node, Name, Option<Node>)], order: Order) -> Vec<(Node, Name)> {
    let key = |(directory, name, _): &(Node, Name, Option<Node>)| match order {
        Order::Any => (*directory, name.clone()),
        Order::Directories | Order::Journal => (*directory, Name::new()),
    };
    changes.iter().map(key).collect()
}

impl State {
    /// A number that another state hardly has: of the names that lead to something from the root, and
    /// of all bytes.
    pub fn hash(&self, disk: &Disk) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut open = vec![disk.root];
        while let Some(directory) = open.pop() {
            for (name, node) in crate::disk::children(&self.names, directory) {
                (directory, name, node).hash(&mut hasher);
                match &disk.inodes[node].kind {
                    crate::disk::Kind::Directory => open.push(node),
                    crate::disk::Kind::File => self.contents[&node].bytes.hash(&mut hasher),
                    crate::disk::Kind::Link(target) => target.hash(&mut hasher),
                }
            }
        }
        hasher.finish()
    }
}
