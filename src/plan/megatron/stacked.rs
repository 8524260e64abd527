//! Layers of their own names as Megatron-Core has them: stacked.

use super::names::{
    EXPERTS, JOINED_EXPERTS, LAYERS, LOCAL_EXPERTS, MASTER, MOMENT, also, before_part, down_of,
    number, numbered, part_of_theirs, to_theirs,
};
use super::rows::{Experts, Rows};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::strategy::{StageLayout, Strategy};
use crate::tensor::dtype::Dtype;
use crate::tensor::quantise::Form;
use crate::tensor::shape::Shape;
use crate::view::{AxisMap, MadeOf, Piece, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What MindSpore calls tensors that Megatron has in one only.
const SEPARATE: [&str; 5] = [
    ".self_attention.linear_q.",
    ".self_attention.linear_k.",
    ".self_attention.linear_v.",
    ".mlp.gating.",
    ".mlp.hidden.",
];
/// What makes Megatron's form of a network of MindSpore's.
pub const REMAKE: &str = "`shardloom reshard --model DIR --names mcore --qkv interleaved --ffn interleaved --format megatron` \
                         remakes them";

/// What MindSpore calls latent queries, keys and values whose rows are in one.
const JOINED: [&str; 2] = [".self_attention.linear_qb.", ".self_attention.linear_kvb."];

/// What one tensor of Megatron's is of: a state's beginning, what stands before the part where layers aren't
/// stacked, and the part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    state: &'static str,
    before: Option<String>,
    part: String,
}

/// Of each layer the parts that go into one tensor, by expert where it has such.
type Stack = BTreeMap<u64, BTreeMap<Option<u64>, MadeOf>>;

/// What Megatron's tensors are made of, where `table` makes MindSpore's under the mcore names, with gates and
/// ups as `rows` says. What is Megatron's already stays.
///
/// # Errors
/// [`Kind::Unsupported`] for other names, and for what lies in several tensors there and in one here;
/// [`Kind::MissingShard`] for a layer that isn't there; [`Kind::Shape`].
pub fn stack(table: &Table, rows: Rows) -> Result<Table> {
    check_names(table)?;
    let table = &with_masters(table);
    let (mut stacks, mut made): (BTreeMap<Key, Stack>, Table) = Default::default();
    for (name, of) in table {
        let (theirs, _, weight) = to_theirs(name);
        let Some((before, part)) = before_part(weight) else {
            let own: Arc<str> = format!("{theirs}{weight}").into();
            made.insert(own, of.clone());
            continue;
        };
        plain(name, of)?;
        let of = with_gates_first(table, name, (before, part), of, rows)?;
        let layer = numbered(weight).map(|(layer, _)| layer);
        for (part, expert, of) in parts(table, (before, part), of).map_err(|f| f.tensor(&**name))? {
            let key = Key {
                state: theirs,
                before: layer.is_none().then(|| before.to_owned()),
                part,
            };
            let stack = stacks.entry(key).or_default();
            let layer = stack.entry(layer.unwrap_or_default()).or_default();
            layer.insert(expert, of);
        }
    }
    let even = even(&stacks)?;
    for (key, stack) in stacks {
        put(&mut made, &key, &stack, even)?;
    }
    Ok(made)
}

/// Refuses a network of other names, and one in which tensors are separate.
fn check_names(table: &Table) -> Result<()> {
    let weights = || table.keys().map(|name| to_theirs(name).2);
    if let Some(name) = weights().find(|name| SEPARATE.iter().any(|part| name.contains(part))) {
        let message = "is by itself, and Megatron has it in one tensor with others";
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(name)
            .hint(REMAKE));
    }
    if let Some(name) = weights().find(|name| JOINED.iter().any(|part| name.contains(part))) {
        let message =
            "is of attention whose latent rows are joined, and Megatron has each by itself";
        let hint = "shardloom reshard --model DIR --names mcore --mla separate --qkv interleaved --ffn interleaved \
                    --format megatron makes them so on the way";
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(name)
            .hint(hint));
    }
    let known = |name: &str| name.starts_with(LAYERS) || name.contains(LAYERS);
    if weights().any(known) {
        return Ok(());
    }
    let message =
        "no tensor is called decoder.layers.…, as Megatron and MindSpore's mcore networks do";
    Err(Fault::new(Kind::Unsupported, message).hint(
        "of a Hugging Face model `shardloom import --names mcore` makes such; legacy names become so by \
         `reshard --names mcore --model DIR --format megatron`",
    ))
}

/// The same, with a master in 32 bits for each weight that has moments: Megatron's optimizer wants one.
fn with_masters(table: &Table) -> Table {
    let mut all = table.clone();
    for weight in table.keys().filter_map(|name| name.strip_prefix(MOMENT)) {
        let master: Arc<str> = format!("{MASTER}{weight}").into();
        if let (Some(of), false) = (table.get(weight), table.contains_key(&master)) {
            let of = MadeOf {
                dtype: Some(Dtype::F32),
                ..of.clone()
            };
            all.insert(master, of);
        }
    }
    all
}

/// Refuses what can't be a part of another tensor.
fn plain(name: &Arc<str>, of: &MadeOf) -> Result<()> {
    if of.form == Form::Elements && of.zeros_from.is_none() {
        return Ok(());
    }
    let message = "is computed or filled up, and can't be put into one with other layers";
    Err(Fault::new(Kind::Unsupported, message).tensor(&**name))
}

/// The same tensor, with all gates before all ups if it has such.
fn with_gates_first(
    table: &Table,
    name: &Arc<str>,
    (before, part): (&str, &str),
    of: &MadeOf,
    rows: Rows,
) -> Result<MadeOf> {
    let of_expert = part.starts_with(LOCAL_EXPERTS) || part.starts_with(EXPERTS);
    let Some(down) = down_of(part).filter(|_| !of_expert) else {
        return Ok(of.clone());
    };
    let down = format!("{before}{down}");
    let columns = table.get(&*down).and_then(|of| of.shape.0.last());
    let both = of.shape.0.first().copied().unwrap_or_default();
    match columns {
        Some(columns) if both == *columns => Ok(of.clone()),
        Some(columns) if Some(both) == columns.checked_mul(2) => {
            let after = rows.gates_first(name, &of.shape)?;
            Ok(typed(
                of.dtype,
                of.shape.clone(),
                composed(&after, &of.pieces),
            ))
        }
        Some(columns) => {
            let message = format!("has {both} rows, and {down} {columns} columns");
            Err(Fault::new(Kind::Shape, message).tensor(&**name))
        }
        None => {
            let message = format!("nothing tells whether it has gates: {down} isn't there");
            Err(Fault::new(Kind::MissingShard, message).tensor(&**name))
        }
    }
}

/// A tensor of these pieces that is written in `dtype`; none: that of its sources.
fn typed(dtype: Option<Dtype>, shape: Shape, pieces: Vec<Piece>) -> MadeOf {
    MadeOf {
        dtype,
        ..MadeOf::new(shape, pieces)
    }
}

/// `after` of what `before` makes.
fn composed(after: &[Piece], before: &[Piece]) -> Vec<Piece> {
    let pairs = after
        .iter()
        .flat_map(|piece| before.iter().map(move |b| piece.after(b)));
    pairs.flatten().collect()
}

/// What a part is called at Megatron, of which expert it is, and what it is made of; each expert of one that
/// has all.
fn parts(
    table: &Table,
    (before, part): (&str, &str),
    of: MadeOf,
) -> Result<Vec<(String, Option<u64>, MadeOf)>> {
    if let Some((expert, own)) = part.strip_prefix(LOCAL_EXPERTS).and_then(number) {
        return Ok(vec![(format!("{EXPERTS}{own}"), Some(expert), of)]);
    }
    let Some((_, own)) = JOINED_EXPERTS.iter().find(|(joined, _)| *joined == part) else {
        let again = also(part, |other| {
            table.contains_key(&*format!("{before}{other}"))
        });
        let mut all: Vec<_> = again
            .map(|name| (name.to_owned(), None, of.clone()))
            .into_iter()
            .collect();
        all.push((part_of_theirs(part).to_owned(), None, of));
        return Ok(all);
    };
    let router = format!("{before}mlp.router.weight");
    let count = table
        .get(&*router)
        .and_then(|of| of.shape.0.first().copied());
    let none = || {
        Fault::new(
            Kind::MissingShard,
            format!("nothing tells how many experts it has: {router} isn't there"),
        )
    };
    let count = count.ok_or_else(none)?;
    let odd = || {
        Fault::new(
            Kind::Shape,
            format!("is {}, and no tensor of {count} experts", of.shape),
        )
    };
    let experts = Experts::of(count, &of.shape).ok_or_else(odd)?;
    let mut all = Vec::new();
    for expert in 0..count {
        let piece = experts.piece(&"".into(), expert);
        let pieces = composed(&[piece], &of.pieces);
        let made = typed(of.dtype, Shape(experts.own.to_vec()), pieces);
        all.push((format!("{EXPERTS}{own}"), Some(expert), made));
    }
    Ok(all)
}

/// Whether all layers have the same parts, so that they are stacked.
///
/// # Errors
/// [`Kind::MissingShard`] for a layer of which there is nothing, and for states of some layers only.
fn even(stacks: &BTreeMap<Key, Stack>) -> Result<bool> {
    let of_layers = || stacks.iter().filter(|(key, _)| key.before.is_none());
    let layers = of_layers().filter_map(|(_, stack)| stack.keys().next_back());
    let layers = layers.max().map_or(0, |last| last + 1);
    for layer in 0..layers {
        if !of_layers().any(|(_, stack)| stack.contains_key(&layer)) {
            let message = format!("nothing of {LAYERS}{layer} is there, though later layers are");
            return Err(Fault::new(Kind::MissingShard, message));
        }
    }
    let shape = |stack: &Stack, layer: u64| {
        let parts: Option<&BTreeMap<Option<u64>, MadeOf>> = stack.get(&layer);
        parts.map(|parts| {
            parts
                .iter()
                .map(|(expert, of)| (*expert, of.shape.clone()))
                .collect::<Vec<_>>()
        })
    };
    let full = |stack: &Stack| {
        let first = shape(stack, 0);
        first.is_some() && (1..layers).all(|layer| shape(stack, layer) == first)
    };
    let even = of_layers()
        .filter(|(key, _)| key.state.is_empty())
        .all(|(_, stack)| full(stack));
    if let Some((key, _)) = of_layers().find(|(_, stack)| even && !full(stack)) {
        let message = "is there of some layers only, and Megatron has one tensor for all";
        let fault = Fault::new(Kind::MissingShard, message)
            .tensor(format!("{}{LAYERS}{}", key.state, key.part));
        return Err(fault.hint("leave the states out: --filter-out-param-prefix adam_"));
    }
    Ok(even)
}

/// Enters a stack: as one tensor, or each layer for itself.
fn put(made: &mut Table, key: &Key, stack: &Stack, even: bool) -> Result<()> {
    let Key {
        state,
        before,
        part,
    } = key;
    if even && before.is_none() {
        let count = stack.len() as u64;
        let mut whole: Option<MadeOf> = None;
        for (layer, parts) in stack {
            let of = joined(key, parts)?;
            let pieces = of.pieces.into_iter().map(|piece| inside(*layer, piece));
            let all = whole.get_or_insert_with(|| {
                let mut dims = vec![count];
                dims.extend(&of.shape.0);
                typed(of.dtype, Shape(dims), Vec::new())
            });
            all.pieces.extend(pieces);
        }
        let name = format!("{state}{LAYERS}{part}");
        return whole.map_or(Ok(()), |of| enter(made, name, of));
    }
    for (layer, parts) in stack {
        let before = before
            .clone()
            .unwrap_or_else(|| format!("{LAYERS}{layer}."));
        enter(made, format!("{state}{before}{part}"), joined(key, parts)?)?;
    }
    Ok(())
}

/// The parts of a layer in one: the only one, or one for each expert.
fn joined(key: &Key, parts: &BTreeMap<Option<u64>, MadeOf>) -> Result<MadeOf> {
    let fault = |kind, message: String| Fault::new(kind, message).tensor(&*key.part);
    let mut whole: Option<MadeOf> = None;
    for ((expert, of), number) in parts.iter().zip(0u64..) {
        let Some(expert) = expert else {
            return Ok(of.clone());
        };
        if *expert != number {
            let message = format!("expert {number} isn't there, though later ones are");
            return Err(fault(Kind::MissingShard, message));
        }
        let mut dims = vec![parts.len() as u64];
        dims.extend(&of.shape.0);
        let dims = Shape(dims);
        let all = whole.get_or_insert_with(|| typed(of.dtype, dims.clone(), Vec::new()));
        if all.shape != dims {
            let message = format!(
                "expert {number} has another shape than others, {}",
                of.shape
            );
            return Err(fault(Kind::Shape, message));
        }
        let pieces = of.pieces.iter().cloned();
        all.pieces.extend(pieces.map(|piece| inside(number, piece)));
    }
    whole.ok_or_else(|| fault(Kind::Internal, "is made of nothing".into()))
}

/// The piece of a tensor with one more dimension in front, of which it is at `index`.
fn inside(index: u64, mut piece: Piece) -> Piece {
    piece.destination_map.insert(0, AxisMap::Constant(index));
    piece
}

fn enter(made: &mut Table, name: String, of: MadeOf) -> Result<()> {
    let name: Arc<str> = name.into();
    if made.insert(name.clone(), of).is_none() {
        return Ok(());
    }
    let message = "two tensors would be written under this name";
    Err(Fault::new(Kind::Ambiguous, message).tensor(&*name))
}

/// How the tensors of `table` are dealt to the files of `ranks` ranks: each by the first dimension that they
/// divide, or else to one.
///
/// # Errors
/// [`Kind::Strategy`] for no ranks.
pub fn spread(table: &Table, ranks: u32) -> Result<Strategy> {
    let layout = |of: &MadeOf| {
        let mut map = vec![vec![-1]; of.shape.0.len()];
        let mut sizes = of.shape.0.iter();
        let cut = sizes.position(|size| *size > 0 && size.is_multiple_of(u64::from(ranks.max(1))));
        if let Some(cut) = cut {
            map[cut] = vec![0];
        }
        Layout::new(&[u64::from(ranks)], &map, None)
    };
    let layouts = table
        .iter()
        .map(|(name, of)| Ok((name.clone(), StageLayout::new(0, layout(of)?))));
    let layouts: Vec<(Arc<str>, StageLayout)> = layouts.collect::<Result<_>>()?;
    Strategy::from_layouts(1, ranks, layouts)
}
