//! The parts of a tensor as a grid, with the ranks that hold each.

use crate::fault::plain::Text;
use std::collections::BTreeMap;

/// Rows and columns that are drawn at most.
const SIDE_MAX: u64 = 32;
/// Ranks named in a field.
const RANKS_NAMED: usize = 6;

/// What is drawn of a parameter.
pub(super) struct Drawn<'a> {
    /// What the axes of the mesh are called.
    pub(super) axes: &'a [String],
    /// For each dimension the axes that cut it, numbered from the right.
    pub(super) map: &'a [Vec<i64>],
    /// Parts of each dimension.
    pub(super) parts: &'a [u64],
    /// Parts that the optimizer's shards add to dimension 0.
    pub(super) optimizer: Option<i64>,
    /// The parts that ranks hold, and all ranks that hold the same.
    pub(super) fields: Vec<(&'a [u64], &'a [u32])>,
}

/// The grid of a parameter whose ranks are all known; none if it is too large, or cut along more than
/// two dimensions.
pub(super) fn grid(parameter: &Drawn<'_>) -> Option<Text> {
    let cut: Vec<usize> = (0..parameter.parts.len())
        .filter(|dimension| parameter.parts[*dimension] > 1)
        .collect();
    let (down, across) = match cut[..] {
        [down] => (down, None),
        [down, across] => (down, Some(across)),
        [] => {
            let ranks = parameter.fields.len();
            return Some(Text::new(format_args!("  whole on each of {ranks} ranks")));
        }
        _ => return None,
    };
    let parts = |dimension: Option<usize>| dimension.map_or(1, |d| parameter.parts[d]);
    let (rows, columns) = (parts(Some(down)), parts(across));
    if rows > SIDE_MAX || columns > SIDE_MAX {
        return None;
    }
    let mut fields: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for (cell, holders) in &parameter.fields {
        let place = (cell[down], across.map_or(0, |across| cell[across]));
        fields.entry(place).or_insert_with(|| named(holders));
    }
    let field = |row, column| fields.get(&(row, column)).map_or("", String::as_str);
    let width = fields.values().map(String::len).max().unwrap_or(0).max(3);
    let mut out = Text::new(format_args!("  down: {}", axis(parameter, down)));
    if let Some(across) = across {
        out.add(format_args!("; across: {}", axis(parameter, across)));
    }
    out.add("; in each field the ranks that hold it");
    if across.is_some() {
        out.line("      ");
        for column in 0..columns {
            out.add(format_args!("  {column:^width$} "));
        }
    }
    for row in 0..rows {
        out.line(format_args!("  {row:>3} "));
        for column in 0..columns {
            out.add(format_args!("| {:^width$} ", field(row, column)));
        }
        out.add('|');
    }
    Some(out)
}

/// A dimension, and the axes of the mesh that cut it.
fn axis(parameter: &Drawn<'_>, dimension: usize) -> String {
    let axes = parameter.axes;
    let numbers = parameter.map.get(dimension).into_iter().flatten();
    let mut by: Vec<String> = numbers
        .filter_map(|number| usize::try_from(*number).ok())
        .filter_map(|number| axes.get(axes.len().checked_sub(number + 1)?))
        .map(|axis| match axis.starts_with("axis ") {
            true => format!("{axis} of the mesh"),
            false => axis.clone(),
        })
        .collect();
    if dimension == 0
        && let Some(size) = parameter.optimizer
    {
        by.push(format!("optimizer shards ({size})"));
    }
    let by = by.join(" and ");
    format!(
        "dimension {dimension} in {} parts by {by}",
        parameter.parts[dimension]
    )
}

/// The first ranks of a field.
fn named(ranks: &[u32]) -> String {
    let mut told: Vec<String> = ranks.iter().take(RANKS_NAMED).map(u32::to_string).collect();
    if ranks.len() > RANKS_NAMED {
        told.push("…".into());
    }
    told.join(" ")
}
