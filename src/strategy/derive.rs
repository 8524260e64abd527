//! A strategy written by hand: a mesh, and rules that name the axes which cut each dimension.

use super::ends::assign_stages;
use super::layouts::Strategy;
use super::name::matches;
use super::stage_layout::{StageLayout, check_even};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::layout::{Layout, OptimizerShard};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Name of the axis that means pipeline stages; it is not part of the device matrix.
const STAGES: &str = "pp";

/// Named mesh axes of one stage, and the number of stages.
///
/// `dp=2,tp=4,pp=2` is the device matrix `[2, 4]` in each of two stages. The first axis is the
/// slowest, the last varies fastest; stages are always slower than any axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    axes: Vec<(String, u64)>,
    stages: u32,
}

/// Which axes cut each dimension of the tensors whose names match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As it was given.
    text: String,
    glob: String,
    /// Names of the axes of each dimension, outermost first.
    cuts: Vec<Vec<String>>,
}

/// What [`derive`](fn@derive) makes.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The strategy of all tensors.
    pub strategy: Strategy,
    /// Its protobuf form: merged if there are several stages.
    pub bytes: Vec<u8>,
    /// What cuts how many tensors.
    pub counts: Counts,
}

/// How many tensors are cut by what.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Each rule as given, with the number of tensors that it was the first to match.
    pub rules: Vec<(String, u64)>,
    /// Tensors that no rule matches, and the optimizer shard cuts.
    pub sharded: u64,
    /// Tensors that nothing cuts by name.
    pub whole: u64,
}

fn usage(message: String) -> Fault {
    Fault::new(Kind::Usage, message)
}

impl Mesh {
    /// Reads `dp=2,tp=4` or `dp=2,tp=4,pp=2`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for anything but distinct names with positive sizes.
    pub fn parse(text: &str) -> Result<Self> {
        let mut mesh = Mesh {
            axes: Vec::new(),
            stages: 1,
        };
        let mut seen = BTreeSet::new();
        for part in text.split(',') {
            let bad = || {
                usage(format!(
                    "--mesh: '{part}' is not AXIS=SIZE with a size from 1"
                ))
            };
            let (name, size) = part.split_once('=').ok_or_else(bad)?;
            let (name, size) = (name.trim(), size.trim().parse::<u32>().map_err(|_| bad())?);
            let proper = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(proper) || size == 0 {
                return Err(bad());
            }
            if !seen.insert(name) {
                return Err(usage(format!("--mesh: axis '{name}' is given twice")));
            }
            if name == STAGES {
                mesh.stages = size;
            } else {
                mesh.axes.push((name.to_string(), u64::from(size)));
            }
        }
        Ok(mesh)
    }

    pub(super) fn stages(&self) -> u32 {
        self.stages
    }

    /// The size of the axis `name`, if it is one.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        let axis = self.axes.iter().find(|axis| axis.0 == name);
        axis.map(|axis| axis.1)
    }

    /// The same without the axis `name`.
    pub(super) fn without(&self, name: &str) -> Mesh {
        let mut mesh = self.clone();
        mesh.axes.retain(|axis| axis.0 != name);
        mesh
    }

    /// What its axes are called, the first one first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.axes.iter().map(|axis| &*axis.0)
    }

    pub(super) fn device_matrix(&self) -> Vec<u64> {
        match self.axes[..] {
            [] => vec![1],
            _ => self.axes.iter().map(|axis| axis.1).collect(),
        }
    }

    /// The number of axis `name` from the right, as strategy files count.
    fn number(&self, name: &str, rule: &Rule) -> Result<i64> {
        let place = self.axes.iter().position(|axis| axis.0 == name);
        let number = place.map(|place| self.axes.len() - 1 - place);
        number.and_then(|n| i64::try_from(n).ok()).ok_or_else(|| {
            let text = &rule.text;
            if name == STAGES {
                return usage(format!("--rule {text}: '{STAGES}' can't cut a dimension"));
            }
            let fault = usage(format!("--rule {text}: the mesh has no axis '{name}'"));
            let known = self.axes.iter().map(|axis| &*axis.0);
            match nearest(name, known).first() {
                Some(near) => fault.hint(format!("did you mean '{near}'?")),
                None => fault,
            }
        })
    }
}

impl Rule {
    /// Reads `GLOB=tp,-`: for each dimension `-`, an axis, or axes joined by `+`, outermost first.
    /// In the glob `*` stands for any text and `?` for one character. `GLOB=` is for scalars.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is no `=`, no glob, or an empty name of an axis.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: &str| usage(format!("--rule {text}: {what}"));
        let (glob, cuts) = text
            .rsplit_once('=')
            .filter(|(glob, _)| !glob.is_empty())
            .ok_or_else(|| bad("is not GLOB=CUT,CUT…"))?;
        let mut rule = Rule {
            text: text.to_string(),
            glob: glob.to_string(),
            cuts: Vec::new(),
        };
        for cut in cuts.split(',').filter(|_| !cuts.is_empty()) {
            let axes: Vec<String> = match cut.trim() {
                "-" => Vec::new(),
                cut => cut.split('+').map(|axis| axis.trim().into()).collect(),
            };
            if axes.iter().any(String::is_empty) {
                return Err(bad("has an empty cut; write '-' for a dimension not cut"));
            }
            let known = rule.cuts.concat();
            if axes.iter().any(|axis| known.contains(axis)) {
                return Err(bad("cuts by an axis twice"));
            }
            rule.cuts.push(axes);
        }
        Ok(rule)
    }
}

/// Makes a strategy for tensors of the given names and full shapes.
///
/// The first rule that matches a tensor's name cuts it; a tensor that none matches is replicated.
/// `optimizer_shard` cuts dimension 0 of each tensor once more over that many of its replicas (-1:
/// all), where they and the dimension divide. It is written as an explicit number, as MindSpore
/// 2.10 loses tensors with -1 on some meshes (docs/wrong-results.md).
///
/// With several stages the layers (the first number between dots of a name) are spread evenly;
/// the embedding goes to the first stage, the norm behind the last layer and the head to the last, as trainers call them;
/// other tensors go to the first stage if they sort before the first layer, else to the last.
///
/// # Errors
/// [`Kind::Usage`] for rules that don't fit the mesh or fewer layers than stages; [`Kind::Shape`],
/// naming the tensor, for cuts that don't fit its shape.
pub fn derive(
    mesh: &Mesh,
    rules: &[Rule],
    optimizer_shard: Option<i64>,
    tensors: &[(String, Vec<u64>)],
) -> Result<Derived> {
    if optimizer_shard.is_some_and(|size| size < -1 || size == 0) {
        return Err(usage("--optimizer-shard takes a size from 1, or -1".into()));
    }
    if tensors.iter().any(|(name, _)| name.is_empty()) {
        let fault = usage("the weights have a tensor without a name".into());
        return Err(fault.hint("give it one: --name-map of `unify`"));
    }
    let mut used = vec![0u64; rules.len()];
    let mut layouts = Vec::new();
    let mut counts = Counts::default();
    let mut sharded = false;
    for (name, shape) in tensors {
        let rule = rules.iter().position(|rule| matches(&rule.glob, name));
        let map = match rule {
            Some(number) => {
                used[number] += 1;
                cut(mesh, &rules[number], shape).map_err(|fault| fault.tensor(&**name))?
            }
            None => vec![vec![-1]; shape.len()],
        };
        let layout = Layout::new(&mesh.device_matrix(), &map, None);
        let mut layout = layout.map_err(|fault| fault.tensor(&**name))?;
        check_even(&layout, shape).map_err(|fault| fault.tensor(&**name))?;
        if let Some(shard) = optimizer_shard.and_then(|size| shard(&layout, shape, size)) {
            layout = Layout::new(&mesh.device_matrix(), &map, Some(shard))?;
            sharded = true;
            counts.sharded += u64::from(rule.is_none());
        } else {
            counts.whole += u64::from(rule.is_none());
        }
        layouts.push(layout);
    }
    if let Some(size) = optimizer_shard.filter(|size| *size != 1 && !sharded) {
        return Err(usage(format!(
            "--optimizer-shard {size} fits no tensor: the replicas or dimension 0 don't divide"
        )));
    }
    check_used(rules, &used, tensors)?;
    let stages = assign_stages(mesh.stages, tensors)?;
    let ranks = u32::try_from(mesh.axes.iter().map(|axis| axis.1).product::<u64>());
    let ranks = ranks.map_err(|_| usage("--mesh is too large".into()))?;
    let layouts = tensors.iter().zip(stages).zip(layouts);
    let layouts = layouts.map(|(((name, _), stage), layout)| {
        let name: Arc<str> = (&**name).into();
        (name, StageLayout::new(stage, layout))
    });
    let strategy = Strategy::from_layouts(mesh.stages, ranks, layouts)?;
    let bytes = strategy.to_protobuf()?;
    let used = rules.iter().zip(used);
    counts.rules = used.map(|(rule, used)| (rule.text.clone(), used)).collect();
    Ok(Derived {
        strategy,
        bytes,
        counts,
    })
}

/// Refuses a rule that cuts no tensor: its name is mistyped, or an earlier rule matches all of its own.
fn check_used(rules: &[Rule], used: &[u64], tensors: &[(String, Vec<u64>)]) -> Result<()> {
    let unused = rules.iter().zip(used).find(|(_, used)| **used == 0);
    let Some((rule, _)) = unused else {
        return Ok(());
    };
    let matched = tensors
        .iter()
        .filter(|(name, _)| matches(&rule.glob, name))
        .count();
    if matched > 0 {
        let message = format!(
            "--rule {}: earlier rules match all that it matches",
            rule.text
        );
        return Err(usage(message).hint("the first rule that matches wins: put it before them"));
    }
    let fault = usage(format!(
        "--rule {}: no tensor matches '{}'",
        rule.text, rule.glob
    ));
    let near = nearest(&rule.glob, tensors.iter().map(|(name, _)| &**name));
    Err(match near.first() {
        Some(near) => fault.hint(format!(
            "the nearest name is {near}; `*` stands for any text"
        )),
        None => fault.hint("`shardloom inspect` shows the names; `*` stands for any text"),
    })
}

/// The tensor map that `rule` gives a tensor of `shape`.
fn cut(mesh: &Mesh, rule: &Rule, shape: &[u64]) -> Result<Vec<Vec<i64>>> {
    if rule.cuts.len() != shape.len() {
        let (cuts, has) = (counted(rule.cuts.len() as u64, "dimension"), shape.len());
        let rule = &rule.text;
        let message = format!("--rule {rule} gives {cuts}, shape {shape:?} has {has}");
        return Err(Fault::new(Kind::Shape, message));
    }
    let cuts = rule.cuts.iter().map(|axes| match axes[..] {
        [] => Ok(vec![-1]),
        _ => axes.iter().map(|axis| mesh.number(axis, rule)).collect(),
    });
    cuts.collect()
}

/// The optimizer shard of `size` pieces for a tensor; none if it doesn't fit.
fn shard(layout: &Layout, shape: &[u64], size: i64) -> Option<OptimizerShard> {
    let replicas = layout.replicas();
    let pieces = u64::try_from(size).unwrap_or(replicas);
    let rows = shape.first()? / layout.parts().first()?;
    if pieces < 2 || !replicas.is_multiple_of(pieces) || !rows.is_multiple_of(pieces) {
        return None;
    }
    let step = innermost_step(layout)?;
    Some(OptimizerShard {
        step,
        size: i64::try_from(pieces).ok()?,
    })
}

/// The distance of neighbours among the ranks that hold the same; none if each holds its own.
pub(super) fn innermost_step(layout: &Layout) -> Option<i64> {
    let used: BTreeSet<usize> = layout.map().iter().flatten().copied().collect();
    let mesh = layout.mesh();
    let innermost = (0..mesh.len()).rfind(|axis| !used.contains(axis) && mesh[*axis] > 1)?;
    let step: u64 = mesh[innermost + 1..].iter().product();
    i64::try_from(step).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(list: &[(&str, &[u64])]) -> Vec<(String, Vec<u64>)> {
        let owned = |(name, shape): &(&str, &[u64])| (name.to_string(), shape.to_vec());
        list.iter().map(owned).collect()
    }

    fn make(
        mesh: &str,
        rules: &[&str],
        shard: Option<i64>,
        list: &[(&str, &[u64])],
    ) -> Result<Derived> {
        let rules = rules.iter().map(|rule| Rule::parse(rule));
        let rules = rules.collect::<Result<Vec<_>>>()?;
        derive(&Mesh::parse(mesh)?, &rules, shard, &tensors(list))
    }

    #[test]
    fn the_first_rule_that_matches_cuts() {
        let list: &[(&str, &[u64])] = &[("a.wq", &[8, 4]), ("a.wo", &[8, 4]), ("norm", &[5])];
        let rules = ["*.wq=tp,-", "*.w?=-,dp+tp"];
        let made = make("dp=2,tp=2", &rules, None, list).unwrap();
        let parts = |name| made.strategy.layouts(name)[0].layout.parts();
        assert_eq!(parts("a.wq"), [2, 1]);
        assert_eq!(parts("a.wo"), [1, 4]);
        assert_eq!(parts("norm"), [1]);
        assert_eq!(
            made.counts
                .rules
                .iter()
                .map(|rule| rule.1)
                .collect::<Vec<_>>(),
            [1, 1]
        );
        for (rule, told) in [("x=-", "no tensor matches"), ("a.wq=-,-", "earlier rules")] {
            let fault = make("dp=2,tp=2", &[rules[0], rules[1], rule], None, list).unwrap_err();
            assert!(fault.message.contains(told), "{fault}");
        }
        let wo = &made.strategy.layouts("a.wo")[0].layout;
        assert_eq!(wo.axis_numbers(), [vec![-1], vec![1, 0]]);
        let file = super::super::StrategyFile {
            name: "made.ckpt",
            bytes: &made.bytes,
        };
        assert_eq!(Strategy::read(&[file]).unwrap(), made.strategy);
    }

    #[test]
    fn optimizer_shards_where_they_fit() {
        let list: &[(&str, &[u64])] = &[("w", &[8, 4]), ("odd", &[3]), ("scalar", &[])];
        let made = make("dp=4,tp=2", &["w=tp,-"], Some(-1), list).unwrap();
        let shard = |name| made.strategy.layouts(name)[0].layout.optimizer();
        assert_eq!(shard("w"), Some(OptimizerShard { step: 2, size: 4 }));
        assert_eq!(shard("odd"), None);
        assert_eq!(shard("scalar"), None);
        let counts = make("dp=4,tp=2", &[], Some(-1), list).unwrap().counts;
        assert_eq!((counts.sharded, counts.whole), (1, 2));
        let fault = make("dp=4", &[], Some(3), list).unwrap_err();
        assert_eq!(fault.kind, Kind::Usage);
    }

    #[test]
    fn layers_are_spread_over_the_stages() {
        let list: &[(&str, &[u64])] = &[
            ("model.embed.weight", &[8]),
            ("model.layers.0.w", &[8]),
            ("model.layers.2.w", &[8]),
            ("model.layers.10.w", &[8]),
            ("model.norm.weight", &[8]),
            ("lm_head.weight", &[8]),
            ("model.tok_embeddings.embedding_weight", &[8]),
        ];
        let made = make("pp=2,tp=2", &["*=tp"], None, list).unwrap();
        let stage = |name| made.strategy.layouts(name)[0].stage;
        assert_eq!(
            list.iter().map(|(n, _)| stage(n)).collect::<Vec<_>>(),
            [0, 0, 0, 1, 1, 1, 0]
        );
        assert_eq!((made.strategy.stages(), made.strategy.ranks()), (2, 4));
        assert!(make("pp=4", &[], None, list).is_err());
    }

    // proves P146
    #[test]
    fn refuses_what_does_not_fit() {
        let list: &[(&str, &[u64])] = &[("w", &[6, 4])];
        for (mesh, rule, kind) in [
            ("tp=4", "w=tp,-", Kind::Shape),
            ("tp=2", "w=tp", Kind::Shape),
            ("tp=2", "w=dp,-", Kind::Usage),
            ("tp=2,pp=2", "w=pp,-", Kind::Usage),
            ("tp=2", "w=tp,tp", Kind::Usage),
            ("tp=2", "w", Kind::Usage),
            ("tp=2", "w=tp,", Kind::Usage),
            ("tp=0", "w=-,-", Kind::Usage),
            ("tp=2,tp=2", "w=-,-", Kind::Usage),
            ("tp", "w=-,-", Kind::Usage),
        ] {
            let fault = make(mesh, &[rule], None, list).unwrap_err();
            assert_eq!(fault.kind, kind, "{mesh} {rule}: {fault}");
        }
        let fault = make("tp=4", &["w=tp,-"], None, list).unwrap_err();
        assert_eq!(fault.tensor.as_deref(), Some("w"));
    }
}
