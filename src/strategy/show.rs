//! What `strategy show` and `strategy diff` tell: plain data, and its text.

use super::axes;
use super::draw;
use super::layouts::Strategy;
use super::name::matches;
use super::stage_layout::StageLayout;
use crate::fault::plain::{Text, counted};
use crate::fault::{Fault, Kind, Result, nearest};
use crate::layout::{Layout, OptimizerShard};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// A strategy, or one parameter of it, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Number of pipeline stages.
    pub stages: u32,
    /// Ranks of each stage.
    pub ranks_per_stage: u32,
    /// One entry a parameter and stage, ascending by name.
    pub parameters: Vec<Parameter>,
}

/// One parameter in one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: Arc<str>,
    /// Pipeline stage.
    pub stage: u32,
    /// Mesh (device matrix), the last axis varying fastest.
    pub mesh: Vec<u64>,
    /// What its axes are called: `dp`, `tp` and so on where the names of the network's tensors tell, else `axis 0`.
    pub axes: Vec<String>,
    /// For each dimension the axes that cut it, numbered from the right as in the file.
    pub map: Vec<Vec<i64>>,
    /// Optimizer shard as the file has it.
    pub optimizer_shard: Option<OptimizerShard>,
    /// Number of pieces of each dimension.
    pub parts: Vec<u64>,
    /// Number of ranks that hold the same piece.
    pub replicas: u64,
    /// What single ranks hold, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<Held>,
}

/// What one rank holds of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Global rank.
    pub rank: u32,
    /// Piece number of each dimension.
    pub cell: Vec<u64>,
    /// All global ranks that hold the same, ascending.
    pub holders: Vec<u32>,
    /// `start..end` of each dimension in elements, if the shape is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Vec<Range<u64>>>,
}

/// Lists a strategy; with `parameter` only those whose names match it, with what each rank (or only `rank`) holds of
/// it; with `rank` alone what it holds of every parameter. `shape` is `parameter`'s full shape.
///
/// # Errors
/// [`Kind::UnknownTensor`] and [`Kind::Usage`] for a parameter or rank that isn't there;
/// [`Kind::Shape`] if `shape` can't be cut as the layout says.
pub fn show(
    strategy: &Strategy,
    parameter: Option<&str>,
    rank: Option<u32>,
    shape: Option<&[u64]>,
) -> Result<Shown> {
    if let Some(rank) = rank.filter(|rank| *rank >= strategy.ranks()) {
        let message = format!(
            "there is no rank {rank}, the strategy has {}",
            strategy.ranks()
        );
        return Err(Fault::new(Kind::Usage, message));
    }
    let known = |glob: &str| strategy.names().any(|name| matches(glob, name));
    if let Some(name) = parameter.filter(|glob| !known(glob)) {
        let fault = Fault::new(Kind::UnknownTensor, "is not in the strategy").tensor(name);
        let near = nearest(name, strategy.names().map(|name| &**name));
        return Err(match near[..] {
            [] => fault,
            _ => fault.hint(format!("did you mean {}?", near.join(" or "))),
        });
    }
    let size = strategy.ranks_per_stage();
    let mut shown = Shown {
        stages: strategy.stages(),
        ranks_per_stage: size,
        parameters: Vec::new(),
    };
    let wanted = |name: &Arc<str>| parameter.is_none_or(|glob| matches(glob, name));
    for (name, layout) in strategy.iter().filter(|(name, _)| wanted(name)) {
        let fitted = match shape {
            Some(shape) => layout.fit_full(shape).map_err(|f| f.tensor(&**name))?,
            None => Arc::clone(&layout.layout),
        };
        let mut entry = entry(name, layout.stage, &fitted);
        let first = layout.stage * size;
        let ranks = match (rank, parameter) {
            (Some(rank), _) if (first..first + size).contains(&rank) => rank..rank + 1,
            (None, Some(_)) => first..first + size,
            (Some(_), None) => continue,
            _ => 0..0,
        };
        for rank in ranks {
            let held = held(&fitted, rank, first, shape);
            entry
                .ranks
                .push(held.map_err(|fault| fault.tensor(&**name))?);
        }
        shown.parameters.push(entry);
    }
    Ok(shown)
}

fn entry(name: &Arc<str>, stage: u32, layout: &Layout) -> Parameter {
    let map = layout.axis_numbers();
    Parameter {
        name: Arc::clone(name),
        stage,
        mesh: layout.mesh().to_vec(),
        axes: axes::named(name, layout.mesh(), &map),
        map,
        optimizer_shard: layout.optimizer(),
        parts: layout.parts(),
        replicas: layout.replicas(),
        ranks: Vec::new(),
    }
}

fn held(layout: &Layout, rank: u32, first: u32, shape: Option<&[u64]>) -> Result<Held> {
    let cell = layout.cell(rank - first);
    let region = shape.map(|shape| {
        let cuts = layout.parts();
        let range = |d: usize| {
            let size = shape[d] / cuts[d];
            if !shape[d].is_multiple_of(cuts[d]) {
                let message = format!(
                    "dimension {d} of shape {shape:?} can't be cut into {} equal parts",
                    cuts[d]
                );
                return Err(Fault::new(Kind::Shape, message));
            }
            Ok(cell[d] * size..(cell[d] + 1) * size)
        };
        (0..cuts.len()).map(range).collect::<Result<Vec<_>>>()
    });
    let region = region.transpose()?;
    Ok(Held {
        rank,
        holders: layout.holders(&cell).map(|local| first + local).collect(),
        cell,
        region,
    })
}

/// How two strategies differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Ranks of A and of B.
    pub ranks: [u32; 2],
    /// Stages of A and of B.
    pub stages: [u32; 2],
    /// Parameters that only A has.
    pub only_in_a: Vec<Arc<str>>,
    /// Parameters that only B has.
    pub only_in_b: Vec<Arc<str>>,
    /// Parameters of both of which some rank holds something else.
    pub different: Vec<Different>,
    /// Number of parameters that every rank holds alike.
    pub same: u64,
}

/// A parameter that two strategies lay out differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Different {
    /// Its name.
    pub name: Arc<str>,
    /// Its layouts in A, by stage.
    pub a: Vec<Parameter>,
    /// Its layouts in B, by stage.
    pub b: Vec<Parameter>,
}

impl Differences {
    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.only_in_b.is_empty() && self.is_part()
    }

    /// Whether the second has all that the first has, and as that has it.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.only_in_a.is_empty()
            && self.different.is_empty()
            && self.ranks[0] == self.ranks[1]
            && self.stages[0] == self.stages[1]
    }
}

/// Compares two strategies by what each rank holds, not by how the mesh is written: a replicated
/// tensor is the same on meshes `[8]` and `[2, 4]`.
#[must_use]
pub fn diff(a: &Strategy, b: &Strategy) -> Differences {
    let mut differences = Differences {
        ranks: [a.ranks(), b.ranks()],
        stages: [a.stages(), b.stages()],
        only_in_a: Vec::new(),
        only_in_b: Vec::new(),
        different: Vec::new(),
        same: 0,
    };
    let mut known = HashMap::new();
    let names: BTreeSet<&Arc<str>> = a.names().chain(b.names()).collect();
    for name in names {
        let (in_a, in_b) = (a.layouts(name), b.layouts(name));
        if in_b.is_empty() {
            differences.only_in_a.push(Arc::clone(name));
        } else if in_a.is_empty() {
            differences.only_in_b.push(Arc::clone(name));
        } else if in_a.len() == in_b.len()
            && in_a.iter().zip(in_b).all(|(x, y)| same(x, y, &mut known))
        {
            differences.same += 1;
        } else {
            let entries = |layouts: &[StageLayout]| {
                let layouts = layouts.iter();
                layouts.map(|l| entry(name, l.stage, &l.layout)).collect()
            };
            differences.different.push(Different {
                name: Arc::clone(name),
                a: entries(in_a),
                b: entries(in_b),
            });
        }
    }
    differences
}

type Known = HashMap<(*const Layout, *const Layout), bool>;

/// Whether two layouts of one tensor mean the same; `known` remembers pairs, as layouts are shared.
fn same(a: &StageLayout, b: &StageLayout, known: &mut Known) -> bool {
    let pair = (Arc::as_ptr(&a.layout), Arc::as_ptr(&b.layout));
    let (stages, a, b) = ((a.stage, b.stage), &*a.layout, &*b.layout);
    stages.0 == stages.1
        && *known.entry(pair).or_insert_with(|| {
            if a.dimensions() == b.dimensions() {
                return a.is_cut_like(b);
            }
            // JSON gives each axis of a dimension a dimension of its own.
            a.mesh() == b.mesh()
                && a.optimizer() == b.optimizer()
                && a.axis_numbers().concat() == b.axis_numbers().concat()
        })
}

impl Parameter {
    /// What the mesh's axes are for, if it is known.
    fn meaning(&self) -> String {
        let unknown = self.axes.iter().any(|axis| axis.starts_with("axis "));
        match self.axes.join(", ") {
            axes if !unknown && !axes.is_empty() => format!(" ({axes})"),
            _ => String::new(),
        }
    }

    /// A picture of who holds what, where all ranks are told and no region in elements is.
    fn grid(&self) -> Option<Text> {
        if self.ranks.len() < 2 || self.ranks.iter().any(|held| held.region.is_some()) {
            return None;
        }
        let fields = self.ranks.iter();
        draw::grid(&draw::Drawn {
            axes: &self.axes,
            map: &self.map,
            parts: &self.parts,
            optimizer: self.optimizer_shard.map(|shard| shard.size),
            fields: fields.map(|held| (&*held.cell, &*held.holders)).collect(),
        })
    }
}

impl Parameter {
    /// Adds a line of it, after `before`, and what its ranks hold.
    fn tell(&self, before: &str, out: &mut Text) {
        out.line(format_args!(
            "{before}{}  stage {}  mesh {:?}{}  map {:?}  parts {:?}  replicas {}",
            self.name,
            self.stage,
            self.mesh,
            self.meaning(),
            self.map,
            self.parts,
            self.replicas
        ));
        if let Some(shard) = self.optimizer_shard {
            out.add(format_args!(
                "  optimizer shard {} step {}",
                shard.size, shard.step
            ));
        }
        if let Some(grid) = self.grid() {
            out.append(&grid);
            return;
        }
        for held in &self.ranks {
            out.line(format_args!("  rank {}:", held.rank));
            for (d, (number, parts)) in held.cell.iter().zip(&self.parts).enumerate() {
                match &held.region {
                    Some(region) => {
                        out.add(format_args!(" {}..{}", region[d].start, region[d].end))
                    }
                    None if *parts == 1 => out.add(" all"),
                    None => out.add(format_args!(" {number}/{parts}..{}/{parts}", number + 1)),
                }
            }
            out.add(format_args!("  held by {:?}", held.holders));
        }
    }
}

impl Shown {
    /// For people.
    #[must_use]
    pub fn text(&self) -> Text {
        let ranks = counted(self.ranks_per_stage.into(), "rank");
        let stages = counted(self.stages.into(), "stage");
        let mut out = Text::new(format_args!("{stages} of {ranks}"));
        for parameter in &self.parameters {
            parameter.tell("", &mut out);
        }
        out
    }
}

impl Differences {
    /// For people.
    #[must_use]
    pub fn text(&self) -> Text {
        let mut out = Text::default();
        let sides = [("ranks", self.ranks), ("stages", self.stages)];
        for (what, [a, b]) in sides.iter().filter(|(_, sides)| sides[0] != sides[1]) {
            out.line(format_args!("{what}: {a} in A, {b} in B"));
        }
        for name in &self.only_in_a {
            out.line(format_args!("only in A: {name}"));
        }
        for name in &self.only_in_b {
            out.line(format_args!("only in B: {name}"));
        }
        for different in &self.different {
            out.line(format_args!("different: {}", different.name));
            for (side, entries) in [("A", &different.a), ("B", &different.b)] {
                for entry in entries {
                    entry.tell(&format!("  {side}: "), &mut out);
                }
            }
        }
        out.line(format_args!("alike: {}", counted(self.same, "parameter")));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy(mesh: &[u64], tensors: &[(&str, &[i64])]) -> Strategy {
        let layout = |map: &[i64]| {
            let map: Vec<Vec<i64>> = map.iter().map(|axis| vec![*axis]).collect();
            StageLayout::new(0, Layout::new(mesh, &map, None).unwrap())
        };
        let ranks = u32::try_from(mesh.iter().product::<u64>()).unwrap();
        let tensors = tensors
            .iter()
            .map(|(name, map)| ((*name).into(), layout(map)));
        Strategy::from_layouts(1, ranks, tensors).unwrap()
    }

    #[test]
    fn tells_what_a_rank_holds() {
        let strategy = strategy(&[2, 2], &[("w", &[-1, 0]), ("v", &[1])]);
        let shown = show(&strategy, Some("w"), Some(3), None).unwrap();
        let text = "1 stage of 2 ranks";
        assert!(!shown.text().as_str().contains(text));
        assert_eq!(
            shown.text().as_str(),
            "1 stage of 4 ranks\n\
             w  stage 0  mesh [2, 2]  map [[-1], [0]]  parts [1, 2]  replicas 2\n  \
             rank 3: all 1/2..2/2  held by [1, 3]"
        );
        let shown = show(&strategy, Some("w"), None, Some(&[3, 8])).unwrap();
        assert_eq!(shown.parameters[0].ranks.len(), 4);
        assert_eq!(shown.parameters[0].ranks[1].region, Some(vec![0..3, 4..8]));
        assert_eq!(
            show(&strategy, None, Some(1), None)
                .unwrap()
                .parameters
                .len(),
            2
        );
        let kinds = [
            show(&strategy, Some("x"), None, None).unwrap_err().kind,
            show(&strategy, None, Some(4), None).unwrap_err().kind,
            show(&strategy, Some("w"), None, Some(&[3, 7]))
                .unwrap_err()
                .kind,
        ];
        assert_eq!(kinds, [Kind::UnknownTensor, Kind::Usage, Kind::Shape]);
    }

    #[test]
    fn compares_what_ranks_hold() {
        let a = strategy(&[2, 2], &[("same", &[-1]), ("cut", &[0]), ("a", &[-1])]);
        let b = strategy(&[4], &[("same", &[-1]), ("cut", &[0]), ("b", &[-1])]);
        let differences = diff(&a, &b);
        assert!(!differences.is_empty());
        assert_eq!(differences.same, 1);
        assert_eq!(*differences.only_in_a, [Arc::from("a")]);
        assert_eq!(*differences.only_in_b, [Arc::from("b")]);
        assert_eq!(&*differences.different[0].name, "cut");
        assert!(differences.text().as_str().contains("different: cut"));
        assert!(diff(&a, &a).is_empty());
    }
}
