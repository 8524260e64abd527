//! The third step: what is made of what, and the files it goes to.

use crate::catalog::{Catalog, SmallFile};
use crate::destination::in_place_files;
use crate::exchange::{World, agree};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::job::as_source::write_as_source;
use crate::job::fused;
use crate::job::laid::{laid, unkept};
use crate::job::megatron::formed;
use crate::job::metadata::{format_of, metadata, noted};
use crate::job::spec::{ViewMaker, Viewed, Write};
use crate::job::unsaved;
use crate::plan::TensorPlan;
use crate::plan::arrange::{Arranged, Files, Kept, Ranks, arrange};
use crate::plan::build::{Build, Leftovers, Select, build};
use crate::plan::inventory::Inventory;
use crate::plan::select::idle;
use crate::plan::state::is_state;
use crate::plan::unmatched::is_held_by;
use crate::source::{Opened, Source, counts, left, missing};
use crate::store::Format;
use crate::store::formats::COUNT_NAMES;
use crate::store::formats::{Count, Progress};
use crate::strategy::Strategy;
use crate::strategy::json::Document;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The plan of a job, as far as this process needs it.
#[derive(Default)]
pub(super) struct Planned {
    /// All tensors, in file order.
    pub(super) plans: Vec<TensorPlan>,
    /// So many of them, the first, are the same on every process.
    pub(super) common: usize,
    /// The files of this process's ranks.
    pub(super) catalog: Catalog,
    /// Who keeps what.
    pub(super) kept: Kept,
    /// What the files are cut by, for those who read them.
    pub(super) laid: Option<Document>,
    /// What is noted of how tensors lie.
    pub(super) told: BTreeMap<String, String>,
    /// Small files beside them.
    pub(super) extras: Vec<SmallFile>,
    /// Distinct tensors.
    pub(super) tensors: u64,
    /// Names that a strategy has and the files don't.
    pub(super) without_data: BTreeMap<&'static str, Vec<String>>,
    /// Names that are left out.
    pub(super) dropped: Vec<String>,
    /// Source tensors that are left out as copies of others, and these.
    pub(super) copies: Vec<(Arc<str>, Arc<str>)>,
    /// What is to be said of what is made.
    pub(super) notes: Vec<String>,
    /// All but the source that the result depends on.
    pub(super) depends_on: String,
    /// What the files are.
    pub(super) format: Option<Format>,
    /// Append a CRC-32 to each file, as ckpt files have it.
    pub(super) trailers: bool,
    /// Ranks stand for files.
    pub(super) by_file: bool,
}

impl Planned {
    /// What `write` makes of `source`, in the files of `ranks`. Collective.
    ///
    /// # Errors
    /// The same on every process.
    pub(super) fn of_write(
        world: &World,
        write: &Write,
        source: &Opened,
        strategy: Option<&Strategy>,
        ranks: Ranks<'_>,
    ) -> Result<Planned> {
        let files = counts::settle(world, &source.source, &write.files)?;
        let select = write.select.followed(&source.inventory, strategy);
        let select = select.map_err(|fault| source.source.place(fault))?;
        let renumbered = match write.step {
            Some(said) => counts::renumbered(world, &source.source, (said, &files), |name| {
                select.keeps(name)
            })?,
            None => None,
        };
        let (files, left) = values_kept(write, &select, files, source);
        let planned = arranged(write, &select, &files, source, strategy, ranks);
        let mut planned = agree(world, planned)?;
        planned.notes.extend(left.into_iter().chain(renumbered));
        planned.depends_on = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {} {} {}",
            source.laid.as_ref().map(|laid| laid.crc),
            select,
            write.leftovers,
            files,
            write.format,
            write.step,
            write.writing.in_place,
            write.writing.link,
            planned.depends_on
        );
        Ok(planned)
    }
}

/// The files to write with those of the source's values that are meant, and what is to be said of the others.
fn values_kept(
    write: &Write,
    select: &Select,
    files: Files,
    source: &Opened,
) -> (Files, Option<String>) {
    let named = source
        .source
        .values
        .iter()
        .filter(|name| select.keeps(name));
    let named: Vec<String> = named.cloned().collect();
    let Files::Directory { format, mut asked } = files else {
        return (files, left(&named));
    };
    // What a view makes has other names.
    let keeps = |name: &str| write.view.is_none() && select.keeps(name);
    let mut kept = missing(&named, &asked.values.archives);
    let adapter = asked.adapter.as_deref().map(|(name, _)| *name);
    kept.retain(|name| Some(&**name) != adapter);
    let lost = if write.view.is_none() { kept } else { named };
    let values = asked
        .values
        .selected(keeps, |name| select.written.get(name).cloned());
    asked.values = Arc::new(values);
    (Files::Directory { format, asked }, left(&lost))
}

/// Lays out what `write` asks for, of the names of `select`. Local.
fn arranged(
    write: &Write,
    select: &Select,
    files: &Files,
    opened: &Opened,
    strategy: Option<&Strategy>,
    ranks: Ranks<'_>,
) -> Result<Planned> {
    let (source, inventory) = (&opened.source, &opened.inventory);
    let (viewed, made) = seen(write, select, opened)?;
    let formed = formed(write, select, files, opened, strategy, made);
    let formed = formed.map_err(|fault| source.place(fault))?;
    let (strategy, made) = (formed.strategy.as_ref().or(strategy), formed.viewed);
    let select = Select {
        view: formed.is_view.then_some(made.table),
        ..select.clone()
    };
    let built = build(
        inventory,
        &source.catalog,
        strategy,
        &select,
        write.leftovers,
        ranks.built,
    );
    let mut build = built.map_err(|fault| unmade(write, source, fault))?;
    unsaved::refuse_unfilled(write, &select, opened, &build)?;
    let fused = fused::refuse(files, (&made.metadata, formed.is_view), &build);
    let checked = fused.and_then(|()| check_copied(write, files, &build, inventory));
    checked.map_err(|fault| source.place(fault))?;
    build.count(counts(write, &select, opened).map_err(|fault| source.place(fault))?);
    let without_data = BTreeMap::from([
        ("source", texts(&inventory.without_data)),
        ("destination", texts(&build.without_data)),
    ]);
    let dropped = texts(&build.dropped);
    let mut notes = made.notes;
    notes.extend(unmet(write, &build, opened, strategy));
    let tensors = distinct(&build, inventory, formed.is_view);
    let format = write.format.unwrap_or_else(|| usual(files, source));
    notes.extend(written_as(write, format, source));
    let renamed;
    let as_source = write_as_source(files, source);
    let files = match as_source.as_ref().unwrap_or(files) {
        Files::Ranks {
            remove_redundancy, ..
        } if write.writing.in_place => {
            let named = in_place_files(&source.base, &source.catalog, *remove_redundancy);
            renamed = named?;
            &renamed
        }
        files => files,
    };
    let laid = laid(files, &build, strategy);
    notes.extend(unkept(files, strategy, laid.as_ref()));
    let mut arranged = arrange(build, files, format, &made.metadata, ranks)?;
    arranged.extras.extend(made.extras);
    Ok(Planned {
        laid,
        told: noted(&made.metadata),
        depends_on: format!("{} {viewed:016x}", arranged.extras.len()),
        format: Some(written(files, format)),
        tensors,
        without_data,
        dropped,
        notes,
        copies: made.copies,
        ..Planned::from(arranged)
    })
}

impl From<Arranged> for Planned {
    fn from(arranged: Arranged) -> Planned {
        Planned {
            plans: arranged.plans,
            common: arranged.common,
            catalog: arranged.catalog,
            kept: arranged.kept,
            extras: arranged.extras,
            ..Planned::default()
        }
    }
}

/// What the files are, of which `format` are those of a layout that has none of its own.
fn written(files: &Files, format: Format) -> Format {
    match files {
        Files::Directory { format, .. } => format.files(),
        _ => format,
    }
}

/// Names in texts.
fn texts(names: &[Arc<str>]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// `fault` of what can't be made, with the file that it is of.
fn unmade(write: &Write, source: &Source, fault: Fault) -> Fault {
    match (&write.writing.strategy, fault.kind) {
        (Some(strategy), Kind::UnknownTensor) => fault.file(strategy.to_string()),
        _ => source.place(fault),
    }
}

/// Checks that no shard that is copied as it is goes where a layout is told of each tensor.
///
/// # Errors
/// [`Kind::UnknownTensor`] naming the tensor.
fn check_copied(write: &Write, files: &Files, build: &Build, inventory: &Inventory) -> Result<()> {
    let Files::Directory { format, .. } = files else {
        return Ok(());
    };
    let cut = |name: &&Arc<str>| {
        let tensor = inventory.tensors.get(*name);
        tensor.is_some_and(|tensor| tensor.is_cut())
    };
    match build.copied.iter().find(cut) {
        Some(name) if !matches!(write.leftovers, Leftovers::Unify(_)) => {
            let message = format!(
                "the destination strategy doesn't know it, and {} can't have its shards as they are",
                format.called()
            );
            let fault = Fault::new(Kind::UnknownTensor, message).tensor(&**name);
            Err(fault.hint(
                "--unmatched drop leaves it out; or give a destination strategy that describes it",
            ))
        }
        _ => Ok(()),
    }
}

/// Names told of many.
const NAMES_TOLD: usize = 3;

/// What is said of names that the two sides don't have in common.
fn unmet(
    write: &Write,
    build: &Build,
    opened: &Opened,
    strategy: Option<&Strategy>,
) -> impl Iterator<Item = String> {
    let inventory = &opened.inventory;
    let names = inventory.tensors.keys().chain(&inventory.private);
    let names = names.map(|name| &**name).chain(COUNT_NAMES);
    let values = opened.source.values.iter().map(String::as_str);
    let left = strategy.and_then(|strategy| left_behind(write, build, inventory, strategy));
    let told = [
        lacking(&build.without_data),
        copied_as_they_are(&build.copied),
        left,
        idle(&write.select.filter_out_prefixes, names.chain(values)),
    ];
    told.into_iter().flatten()
}

/// What is said of tensors whose shards are copied as they are, by fewer ranks than hold their parts.
fn left_behind(
    write: &Write,
    build: &Build,
    inventory: &Inventory,
    strategy: &Strategy,
) -> Option<String> {
    let ranks = strategy.ranks();
    if ranks >= inventory.ranks || matches!(write.leftovers, Leftovers::Unify(_)) {
        return None;
    }
    let left = |name: &&Arc<str>| {
        let tensor = inventory.tensors.get(*name);
        tensor.is_some_and(|tensor| !is_held_by(tensor, ranks))
    };
    let left: Vec<Arc<str>> = build.copied.iter().filter(left).cloned().collect();
    (!left.is_empty()).then(|| {
        format!(
            "of the tensors copied as they are the result lacks parts, which no rank of it takes: {}",
            first(&left, NAMES_TOLD)
        )
    })
}

/// What is said of weights that the destination's strategy has, and the source hasn't.
fn lacking(names: &[Arc<str>]) -> Option<String> {
    let weights = names
        .iter()
        .filter(|name| name.contains('.') && !is_state(name));
    let weights: Vec<Arc<str>> = weights.cloned().collect();
    let are = match weights.len() {
        0 => return None,
        1 => "1 tensor of the destination's network isn't".to_owned(),
        count => format!("{count} tensors of the destination's network aren't"),
    };
    let them = if weights.len() == 1 { "it" } else { "them" };
    let first = first(&weights, NAMES_TOLD);
    Some(format!(
        "{are} in the source, so the result lacks {them}: {first}"
    ))
}

/// What is said of tensors that the destination's strategy doesn't know.
fn copied_as_they_are(names: &[Arc<str>]) -> Option<String> {
    let verb = match names.len() {
        0 => return None,
        1 => "isn't in the destination strategy and was copied as it is",
        _ => "aren't in the destination strategy and were copied as they are",
    };
    let count = counted(names.len() as u64, "tensor");
    Some(format!("{count} {verb}: {}", first(names, NAMES_TOLD)))
}

/// What a source keeps apart from its tensors and rank directories have among them. One that is a tensor
/// there, too, is written as one.
fn counted_apart(opened: &Opened) -> Result<Vec<Count>> {
    let Some(told) = &opened.source.told else {
        return Ok(Vec::new());
    };
    let mut counts = told.own.progress.counts()?;
    counts.retain(|count| !opened.inventory.tensors.contains_key(count.name));
    Ok(counts)
}

/// What is counted beside the tensors: as the source keeps it, else as it is said.
fn counts(write: &Write, select: &Select, opened: &Opened) -> Result<Vec<Count>> {
    let carried = matches!(write.leftovers, Leftovers::Reshard(_)) || write.view.is_none();
    let mut counts = match carried {
        true => counted_apart(opened)?,
        false => Vec::new(),
    };
    let said = write.step.and_then(Progress::at);
    let said = said.as_ref().map(Progress::counts).transpose()?;
    let inventory = &opened.inventory;
    for count in said.into_iter().flatten() {
        let (written, read) = (&select.written, &select.read);
        let own =
            inventory.tensors.contains_key(count.name) || inventory.private.contains(count.name);
        let named =
            written.values().any(|name| name == count.name) || read.contains_key(count.name);
        let there = named || own && !written.contains_key(count.name);
        if !there && counts.iter().all(|known| known.name != count.name) {
            counts.push(count);
        }
    }
    counts.retain(|count| select.keeps(count.name));
    Ok(counts)
}

/// What the view of `write` makes, together with the files that it writes anyway, and a number of all
/// that. Local.
fn seen(write: &Write, select: &Select, opened: &Opened) -> Result<(u64, Viewed)> {
    let mut extras = write.extras.clone();
    let Some(ViewMaker(make)) = &write.view else {
        let format = format_written(select, &opened.inventory);
        let nothing = Viewed {
            metadata: metadata(&write.files, &opened.metadata, format),
            extras,
            ..Viewed::default()
        };
        return Ok((0, nothing));
    };
    let mut made = make(&opened.inventory, &opened.metadata).map_err(|f| opened.source.place(f))?;
    // What the view makes takes the place of what is there.
    extras.retain(|file| made.extras.iter().all(|other| other.path != file.path));
    made.extras.extend(extras);
    let mut hasher = DefaultHasher::new();
    (&made.table, &made.metadata, &made.extras).hash(&mut hasher);
    Ok((hasher.finish(), made))
}

/// The `format` of the files that are written: as their names are.
fn format_written(select: &Select, inventory: &Inventory) -> &'static str {
    let names = inventory.tensors.keys();
    let names: Vec<Arc<str>> = names.map(|name| select.written_name(name)).collect();
    format_of(names.iter().map(|name| &**name))
}

/// The format where none is asked for: full weights are for all who read them, of ranks in .ckpt, too; what
/// is only read, and what isn't written alone, becomes the default.
fn usual(files: &Files, source: &Source) -> Format {
    let own = source.format;
    match files {
        Files::Full { .. } => Format::SAFETENSORS,
        _ if own.tells_itself() && own.is_written() => own,
        _ => Format::default(),
    }
}

/// What is said where nobody has asked for another format than the source's, which isn't written.
fn written_as(write: &Write, format: Format, source: &Source) -> Option<String> {
    let own = source.format;
    let kept = write.format.is_some() || own.is_written() || own == format;
    (!kept).then(|| {
        format!(
            "the source has {} files; {} files are written",
            own.name(),
            format.name()
        )
    })
}

/// How many tensors are written: of a view only what it makes.
fn distinct(build: &Build, inventory: &Inventory, viewed: bool) -> u64 {
    let stages = build.stages.iter().flatten();
    let made = stages.map(|plan| &plan.name);
    let private = inventory.private.iter().filter(|_| !viewed);
    let all = made.chain(private).chain(&build.copied);
    all.collect::<BTreeSet<_>>().len() as u64
}
