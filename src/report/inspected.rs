//! What `inspect` shows of weights: one screen, each tensor, or a tree of names.

use crate::fault::plain::{Text, counted, first, in_stages, line, short};
use crate::job::inspected::{Inspected, InspectedLayout, InspectedTensor};
use crate::job::overview::{Group, Overview};
use crate::report::text::bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Rows of a screen.
const ROWS: usize = 40;
/// Columns of a name on one.
const NAME_COLUMNS: usize = 60;
/// Columns of a terminal on which a name and what is told of it stand in one row.
const WIDE: usize = 80;

/// Lines of metadata.
const METADATA: usize = 16;
/// Device matrices told of many.
const MESHES: usize = 3;

/// How much is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Every row.
    pub all: bool,
    /// Every tensor of every file.
    pub each: bool,
    /// The names as a tree.
    pub tree: bool,
    /// Columns of the terminal, if it is one.
    pub columns: Option<usize>,
}

/// For people.
pub(super) fn inspected(inspected: &Inspected, overview: &Overview, shown: Shown) -> Text {
    let out = if shown.tree {
        tree(inspected)
    } else if shown.each {
        each(inspected, shown.columns)
    } else {
        screen(inspected, overview, shown)
    };
    match shown.columns {
        Some(columns) => out.cut(columns, is_told),
        None => out,
    }
}

/// `rank 0`, `ranks 0-3`.
pub(super) fn ranked(ranges: &str) -> String {
    let several = ranges.contains(['-', ',']);
    format!("rank{} {ranges}", if several { "s" } else { "" })
}

/// Whether a row is of one thing alone, or a sentence, which is not cut.
fn is_told(row: &str) -> bool {
    let begins = [
        "note ", "odd ", "… ", "tensors ", "a rank ", "layout ", "step ",
    ];
    let text = row.trim_start();
    text == row || begins.iter().any(|begin| text.starts_with(begin))
}

/// Files, ranks and tensors in all.
fn total(inspected: &Inspected) -> String {
    let tensors: usize = inspected.files.iter().map(|file| file.tensors.len()).sum();
    let mut told = String::new();
    if inspected.files.len() > 1 || inspected.ranks > 1 {
        let _ = write!(told, "{}, ", counted(inspected.files.len() as u64, "file"));
    }
    if inspected.ranks > 1 {
        let _ = write!(told, "{}, ", counted(inspected.ranks as u64, "rank"));
    }
    let tensors = counted(tensors as u64, "tensor");
    format!("{told}{tensors}, {}", bytes(inspected.tensor_bytes))
}

fn screen(inspected: &Inspected, overview: &Overview, shown: Shown) -> Text {
    let mut out = Text::default();
    let distributed = inspected.ranks > 1;
    out.line(format_args!("{}: {}", overview.layout, total(inspected)));
    if distributed {
        let [most, least] = overview.rank_bytes;
        out.line(format_args!(
            "  tensors    {} of different names",
            overview.tensors
        ));
        out.line(format_args!(
            "  a rank     {} at most, {} at least",
            bytes(most),
            bytes(least)
        ));
    }
    if let Some(laid) = &inspected.layout {
        layout(&mut out, laid);
    }
    if let Some(steps) = &inspected.steps {
        for (step, ranks) in steps {
            out.line(format_args!("  step       {} on {}", step, ranked(ranks)));
        }
    }
    metadata(&mut out, inspected);
    let rows = if shown.all {
        overview.groups.len()
    } else {
        ROWS
    };
    let groups = &overview.groups[..overview.groups.len().min(rows)];
    table(&mut out, groups, distributed, shown.columns);
    if groups.len() < overview.groups.len() {
        let more = overview.groups.len() - groups.len();
        out.line(format_args!(
            "  … {} (--all shows them)",
            counted(more as u64, "more row")
        ));
    }
    for note in &inspected.notes {
        out.line(format_args!("  note       {}", note));
    }
    for odd in &overview.odd {
        out.line(format_args!("  odd        {}", odd));
    }
    out
}

/// What the files are cut by.
fn layout(out: &mut Text, laid: &InspectedLayout) {
    let meshes = laid.meshes.iter().map(|mesh| format!("{mesh:?}"));
    let meshes: Vec<String> = meshes.collect();
    out.line(format_args!(
        "  layout     {}, device matrix {}, told by its manifest",
        in_stages(laid.ranks, laid.stages),
        first(&meshes, MESHES)
    ));
}

/// What the files say of themselves, each once.
fn metadata(out: &mut Text, inspected: &Inspected) {
    let all = inspected.files.iter().flat_map(|file| &file.metadata);
    let once: BTreeSet<(&String, &String)> = all.collect();
    for (key, value) in once.iter().take(METADATA) {
        out.line(format_args!("  {}: {}", short(key), short(value)));
    }
    if once.len() > METADATA {
        let more = counted((once.len() - METADATA) as u64, "more line");
        out.line(format_args!("  … {more} of metadata (--all shows them)"));
    }
}

/// A row a group.
fn table(out: &mut Text, groups: &[Group], distributed: bool, columns: Option<usize>) {
    let shapes = groups.iter().map(|group| shape(group).chars().count());
    let shapes = shapes.max().unwrap_or(0).min(40);
    let several = groups.iter().any(|group| group.tensors > 1);
    let counts = if several { 5 } else { 0 };
    let told = groups.iter().map(|group| {
        let count = if group.tensors > 1 {
            format!("×{}", group.tensors)
        } else {
            String::new()
        };
        let mut rest = format!(
            "{count:>counts$}  {:5} {:shapes$}  {}",
            group.dtype,
            shape(group),
            bytes(group.bytes)
        );
        if distributed {
            let copies = match group.holders {
                Some(1) => String::new(),
                Some(holders) => format!(", each on {holders}"),
                None => ", each on some".into(),
            };
            let _ = write!(rest, "  {}{copies}", ranked(&group.ranks));
        }
        (name(group), rest)
    });
    rows(out, &told.collect::<Vec<_>>(), NAME_COLUMNS, columns);
}

/// Names, as wide as `most` columns as a rule, and what is told of each: below it on a narrow terminal.
fn rows(out: &mut Text, told: &[(String, String)], most: usize, columns: Option<usize>) {
    let widest = |width: fn(&(String, String)) -> usize| told.iter().map(width).max().unwrap_or(0);
    let names = widest(|(name, _)| name.chars().count()).min(most);
    let rest = widest(|(_, rest)| rest.chars().count());
    let below = columns.is_some_and(|columns| columns < WIDE.min(names + rest + 4));
    for (name, rest) in told {
        if below {
            out.line(format_args!("  {name}"));
            out.line(format_args!("    {}", rest.trim_start()));
        } else {
            out.line(format_args!("  {name:names$}  {rest}"));
        }
    }
}

fn name(group: &Group) -> String {
    if group.numbers.is_empty() {
        return line(&short(&group.name)).into_owned();
    }
    let named = group
        .name
        .replacen('*', &format!("{{{}}}", group.numbers), 1);
    line(&short(&named)).into_owned()
}

fn shape(group: &Group) -> String {
    match &group.shapes[..] {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} or {two}"),
        [one, .., last] => format!("{one} to {last}"),
    }
}

fn each(inspected: &Inspected, columns: Option<usize>) -> Text {
    let mut out = Text::default();
    for file in &inspected.files {
        let tensors = counted(file.tensors.len() as u64, "tensor");
        out.line(format_args!(
            "{}  {} bytes, {tensors}",
            file.path, file.bytes
        ));
        for (key, value) in &file.metadata {
            out.line(format_args!("  {}: {}", key, value));
        }
        let told = file.tensors.iter().map(|tensor| {
            let rest = format!("{:5} {}{}", tensor.dtype, tensor.shape, figures(tensor));
            (line(&short(&tensor.name)).into_owned(), rest)
        });
        rows(&mut out, &told.collect::<Vec<_>>(), 72, columns);
    }
    out.line(total(inspected));
    out
}

fn figures(tensor: &InspectedTensor) -> String {
    let Some(figures) = &tensor.figures else {
        return String::new();
    };
    let mut told = format!(
        "  largest {:.4e}  norm {:.4e}",
        figures.largest, figures.norm
    );
    for (count, what) in [
        (figures.nan, "NaN"),
        (figures.infinite, "infinite"),
        (figures.zeros, "zero"),
    ] {
        if count > 0 {
            let _ = write!(told, "  {count} {what}");
        }
    }
    told
}

/// A part of names, with what lies below it.
#[derive(Default)]
struct Branch {
    tensors: usize,
    bytes: u64,
    leaf: Option<String>,
    below: BTreeMap<String, Branch>,
}

fn tree(inspected: &Inspected) -> Text {
    let mut root = Branch::default();
    for tensor in inspected.files.iter().flat_map(|file| &file.tensors) {
        let mut branch = &mut root;
        for part in tensor.name.split('.') {
            branch.tensors += 1;
            branch.bytes += tensor.bytes;
            branch = branch.below.entry(part.to_owned()).or_default();
        }
        branch.tensors += 1;
        branch.bytes += tensor.bytes;
        branch.leaf = Some(format!("{} {}", tensor.dtype, tensor.shape));
    }
    let mut out = Text::default();
    grow(&mut out, &root, 0);
    out.line(total(inspected));
    out
}

fn grow(out: &mut Text, branch: &Branch, depth: usize) {
    let mut below: Vec<_> = branch.below.iter().collect();
    // Numbers by their size.
    below.sort_by_key(|(part, _)| (part.parse::<u64>().unwrap_or(u64::MAX), part.to_owned()));
    for (part, inner) in below {
        let indent = "  ".repeat(depth);
        match &inner.leaf {
            Some(leaf) => out.line(format_args!(
                "{indent}{}  {leaf}  {}",
                part,
                bytes(inner.bytes)
            )),
            None => out.line(format_args!(
                "{indent}{}/  {}, {}",
                part,
                counted(inner.tensors as u64, "tensor"),
                bytes(inner.bytes)
            )),
        };
        grow(out, inner, depth + 1);
    }
}
