//! Low-rank pairs of a parameter that holds a matrix for each of several experts, as PEFT makes them for
//! `target_parameters`.
//!
//! Of a parameter `[experts, rows, columns]` A is `[experts * rank, columns]`, an expert's rows together, and B
//! `[rows, rank * experts]`, the experts of a rank together; older versions of PEFT have rows and columns the other
//! way round. A pair's name has its module, with `.base_layer` once for every parameter of it that was wrapped
//! before, but not the parameter: shapes tell that. The parameter may lie in the source as one tensor, or
//! as one for each expert and matrix.

use crate::catalog::{Catalog, Place};
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::lora_meaning::Meaning;
use crate::plan::lora_told::is_called;
use crate::plan::patch::Patch;
use crate::plan::patched::of_patches;
use crate::plan::source_tensor::{SourceTensor, Step};
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What PEFT puts into the name of a module for each parameter of it that is wrapped.
const INNER: &str = ".base_layer";
/// Parameters told of many.
const TOLD: usize = 3;

/// Which way round a pair may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ways {
    /// A has the parameter's columns, B its rows.
    straight: bool,
    /// The other way round.
    turned: bool,
}

/// Where a parameter of experts lies in the source.
#[derive(Clone, Debug)]
enum Lies {
    /// In one tensor.
    Together(Arc<str>),
    /// Expert by expert: the matrices whose rows follow each other in it.
    Apart(Vec<Vec<Arc<str>>>),
}

/// A parameter that an adapter may be for.
#[derive(Clone, Debug)]
struct Parameter {
    /// Its name as the adapter's model has it.
    name: String,
    experts: u64,
    rows: u64,
    columns: u64,
    lies: Lies,
}

/// A pair, and where its elements are.
pub(super) struct Pair<'a> {
    pub(super) a: &'a Arc<SourceTensor>,
    pub(super) b: &'a Arc<SourceTensor>,
}

/// What a pair of module `module` does: the parameter's name, its rank, and the steps, given the factor,
/// for the tensors of the source.
pub(super) struct Found<'a> {
    /// The parameter that it is of, as the adapter's model calls it.
    pub(super) parameter: String,
    /// Its rank for one expert.
    pub(super) rank: u64,
    found: Parameter,
    turned: bool,
    places: [Place; 2],
    pair: Pair<'a>,
}

/// Finds the parameter of a pair of `module` among those that `meaning` names.
///
/// # Errors
/// [`Kind::UnknownTensor`] if the source has none, [`Kind::Shape`] if none fits, [`Kind::Ambiguous`] if several
/// do.
pub(super) fn find<'a>(
    inventory: &Inventory,
    catalog: &Catalog,
    module: &str,
    pair: Pair<'a>,
    meaning: &Meaning,
) -> Result<Found<'a>> {
    let base = module.replace(INNER, "");
    let known = parameters(inventory, &base, meaning);
    let named = |fault: Fault| fault.tensor(&*pair.a.name);
    if known.is_empty() {
        let message = format!("is for a parameter of '{base}', of which the source has none");
        return Err(named(Fault::new(Kind::UnknownTensor, message)));
    }
    let fitting = known
        .iter()
        .filter_map(|one| Some((one, ways(one, &pair)?)));
    let fitting: Vec<(&Parameter, Ways)> = fitting.collect();
    let [(parameter, ways)] = fitting[..] else {
        let shown = |one: &Parameter| {
            let (experts, rows, columns) = (one.experts, one.rows, one.columns);
            format!("'{}' [{experts}, {rows}, {columns}]", one.name)
        };
        let all: Vec<String> = known.iter().map(shown).collect();
        let of = format!("B {} and A {}", pair.b.shape, pair.a.shape);
        let told = first(&all, TOLD);
        return Err(named(match fitting.is_empty() {
            true => Fault::new(Kind::Shape, format!("{of} don't fit {told}")),
            false => Fault::new(
                Kind::Ambiguous,
                format!("{of} fit several parameters: {told}"),
            ),
        }));
    };
    let turned = match (ways.straight, ways.turned, meaning.turned) {
        (true, false, _) => false,
        (false, true, _) => true,
        (_, _, Some(turned)) => turned,
        _ => {
            let message = format!(
                "'{}' is as high as wide, and adapter_config.json doesn't tell by its peft_version which way round \
                 A and B lie",
                parameter.name
            );
            return Err(named(Fault::new(Kind::Ambiguous, message)));
        }
    };
    let places = [place(pair.a, catalog)?, place(pair.b, catalog)?];
    Ok(Found {
        parameter: parameter.name.clone(),
        rank: pair.a.shape.0.first().copied().unwrap_or_default() / parameter.experts.max(1),
        found: parameter.clone(),
        turned,
        places,
        pair,
    })
}

/// The names of all parameters that `meaning` names, as the source has them.
pub(super) fn all(inventory: &Inventory, meaning: &Meaning) -> BTreeSet<String> {
    let together = inventory.tensors.iter().filter_map(|(name, tensor)| {
        let (module, _) = name.rsplit_once('.')?;
        (tensor.shape.0.len() == 3).then_some(module.to_owned())
    });
    let mut modules: BTreeSet<String> = together.collect();
    for row in &meaning.apart {
        let Some((module, _)) = row.parameter.rsplit_once('.') else {
            continue;
        };
        let first = row
            .matrices
            .iter()
            .map(|part| part.replace("{expert}", "0"));
        for end in first.take(1) {
            let before = inventory
                .tensors
                .keys()
                .filter_map(|name| name.strip_suffix(&*end));
            modules.extend(before.map(|before| format!("{before}{module}")));
        }
    }
    let found = modules
        .iter()
        .flat_map(|base| parameters(inventory, base, meaning));
    found.map(|parameter| parameter.name).collect()
}

/// The parameters of module `base` that targets name, as the source has them.
fn parameters(inventory: &Inventory, base: &str, meaning: &Meaning) -> Vec<Parameter> {
    let targets = &meaning.parameters;
    let is_target = |name: &str| targets.iter().any(|target| is_called(name, target));
    let mut found = Vec::new();
    for (name, tensor) in &inventory.tensors {
        let own = name
            .strip_prefix(base)
            .and_then(|rest| rest.strip_prefix('.'));
        let own = own.filter(|rest| !rest.contains('.') && is_target(name));
        if let (Some(_), [experts, rows, columns]) = (own, &tensor.shape.0[..]) {
            found.push(Parameter {
                name: name.to_string(),
                experts: *experts,
                rows: *rows,
                columns: *columns,
                lies: Lies::Together(name.clone()),
            });
        }
    }
    for row in &meaning.apart {
        let Some((module, parameter)) = row.parameter.rsplit_once('.') else {
            continue;
        };
        let (name, before) = (format!("{base}.{parameter}"), base.strip_suffix(module));
        let known = found.iter().any(|one| one.name == name);
        if let Some(before) = before.filter(|_| !known && is_target(&name)) {
            found.extend(apart(inventory, before, name, &row.matrices));
        }
    }
    found
}

/// A parameter whose experts' matrices are tensors of their own.
fn apart(inventory: &Inventory, before: &str, name: String, parts: &[String]) -> Option<Parameter> {
    let of = |expert: usize| {
        let names = parts.iter().map(|part| {
            let name = format!("{before}{part}").replace("{expert}", &expert.to_string());
            let found = inventory.tensors.get_key_value(name.as_str());
            found.map(|(name, _)| name.clone())
        });
        names.collect::<Option<Vec<Arc<str>>>>()
    };
    let experts: Vec<Vec<Arc<str>>> = (0..).map_while(of).collect();
    let first = experts.first()?.first()?;
    let [rows, columns] = inventory.tensors.get(first)?.shape.0[..] else {
        return None;
    };
    Some(Parameter {
        name,
        experts: experts.len() as u64,
        rows: rows.checked_mul(parts.len() as u64)?,
        columns,
        lies: Lies::Apart(experts),
    })
}

/// Which ways round a pair fits a parameter; none if it doesn't.
fn ways(parameter: &Parameter, pair: &Pair<'_>) -> Option<Ways> {
    let ([tall, wide], [rows, ranks]) = (&pair.a.shape.0[..], &pair.b.shape.0[..]) else {
        return None;
    };
    let experts = parameter.experts;
    if tall != ranks || *tall == 0 || experts == 0 || !tall.is_multiple_of(experts) {
        return None;
    }
    let ways = Ways {
        straight: (rows, wide) == (&parameter.rows, &parameter.columns),
        turned: (rows, wide) == (&parameter.columns, &parameter.rows),
    };
    (ways.straight || ways.turned).then_some(ways)
}

/// Where a tensor of the adapter lies.
fn place(tensor: &SourceTensor, catalog: &Catalog) -> Result<Place> {
    let spread = tensor.spreads.first().filter(|_| tensor.patches.is_none());
    let place = spread.and_then(|spread| catalog.find(spread.first_rank, &tensor.name));
    place.ok_or_else(|| {
        let message = "of several experts, it must lie row after row in the adapter's file";
        let fault = Fault::new(Kind::Unsupported, message).tensor(&*tensor.name);
        fault.hint("save the adapter as safetensors")
    })
}

impl Found<'_> {
    /// The steps, by the source's tensors that they are for.
    ///
    /// # Errors
    /// [`Kind::Shape`] if matrices of the source aren't alike.
    pub(super) fn steps(
        &self,
        inventory: &Inventory,
        factor: f32,
    ) -> Result<Vec<(Arc<str>, Step)>> {
        let Parameter {
            experts,
            rows,
            columns,
            ref lies,
            ..
        } = self.found;
        let names = match lies {
            Lies::Apart(names) => names,
            Lies::Together(name) => {
                let pairs = (0..experts).map(|expert| self.pair_of(expert, 0..rows));
                let step = Step::AddEach {
                    pairs: pairs.collect::<Result<_>>()?,
                    factor,
                    transposed: self.turned,
                };
                return Ok(vec![(name.clone(), step)]);
            }
        };
        let mut steps = Vec::new();
        for (expert, parts) in (0..).zip(names) {
            let height = rows / (parts.len() as u64).max(1);
            for (part, name) in (0..).zip(parts) {
                let shape = inventory.tensors.get(name).map(|tensor| &tensor.shape);
                let due = Shape(vec![height, columns]);
                if shape != Some(&due) {
                    let message = format!("isn't {due}, as that of the first expert");
                    return Err(Fault::new(Kind::Shape, message).tensor(&**name));
                }
                let (a, b) = self.pair_of(expert, part * height..(part + 1) * height)?;
                let step = Step::Add {
                    a,
                    b,
                    factor,
                    transposed: self.turned,
                };
                steps.push((name.clone(), step));
            }
        }
        Ok(steps)
    }

    /// A and B of one expert, for these rows of its matrix.
    fn pair_of(
        &self,
        expert: u64,
        rows: Range<u64>,
    ) -> Result<(Arc<SourceTensor>, Arc<SourceTensor>)> {
        let (a, b, rank) = (self.pair.a, self.pair.b, self.rank);
        let width = |tensor: &SourceTensor| u64::from(tensor.dtype.bits() / 8);
        let (a_width, b_width) = (width(a), width(b));
        let last = |tensor: &SourceTensor| tensor.shape.0.last().copied().unwrap_or_default();
        let (a_row, b_row) = (last(a) * a_width, last(b) * b_width);
        let all = b.shape.0.first().copied().unwrap_or_default();
        let count = rows.end - rows.start;
        // The rows are A's columns where the pair lies the other way round.
        let ([a_from, a_count], [b_from, b_count]) = match self.turned {
            true => ([rows.start, count], [0, all]),
            false => ([0, last(a)], [rows.start, count]),
        };
        let part = rows.start;
        let called = |tensor: &SourceTensor| {
            Arc::from(format!(
                "{} of expert {expert} from row {part}",
                tensor.name
            ))
        };
        let left = Patch {
            region: Region::whole(&Shape(vec![rank, a_count])),
            strides: vec![a_row, a_width],
            first: expert * rank * a_row + a_from * a_width,
            place: self.places[0],
        };
        let right = Patch {
            region: Region::whole(&Shape(vec![b_count, rank])),
            strides: vec![b_row, self.found.experts * b_width],
            first: b_from * b_row + expert * b_width,
            place: self.places[1],
        };
        let make = |tensor: &SourceTensor, patch: Patch| {
            let (shape, rank) = (patch.region.shape.clone(), patch.place.rank);
            let made = of_patches(&called(tensor), tensor.dtype, shape, vec![patch], rank);
            made.map(Arc::new)
        };
        Ok((make(a, left)?, make(b, right)?))
    }
}
