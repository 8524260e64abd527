//! ZeRO checkpoints as a row of the table.

use super::due::of_zero;
use super::entries::{Entries, Meant};
use super::model::{Model, some};
use super::names::{File, Side, UNIVERSAL, file, is_ours};
use super::optimizer::Optimizer;
use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::directory::{DirectoryFormat, Names, Own, RankFiles, Text, has};
use crate::store::formats::handle::Format;
use crate::store::formats::pickle::{self, Pickle};
use crate::store::formats::torch::{Saved, TorchFile, gather, tensor};
use crate::store::full_dir::check_inside;
use crate::store::io::{self, ReadFile, Standing};
use std::collections::BTreeSet;
use std::path::Path;

/// The file that names the last checkpoint.
const LATEST: &str = "latest";
/// What a checkpoint's directory is called where nobody says otherwise, before its number.
const STEP: &str = "global_step";
/// The directory that a universal checkpoint has, with the model's states beside it.
const OTHER: &str = "zero";
/// Ranks beyond this are none.
const RANKS_MAX: u32 = 1 << 20;
/// What the model's states have beside weights and is no use to show: shapes of these.
const SHAPES: [&str; 4] = [
    "param_shapes",
    "frozen_param_shapes",
    "buffer_names",
    "shared_params",
];
/// Where the job stands, by all of them alike.
const STANDS: [&str; 2] = ["global_steps", "global_samples"];
/// Where weights are in them, and those that aren't trained.
const MODULE: &str = "module";
const FROZEN: &str = "frozen_param_fragments";

/// DeepSpeed's ZeRO.
pub(in crate::store::formats) struct Zero;

/// The files in `place` that DeepSpeed has written.
fn ours(place: &Path) -> Result<Vec<String>> {
    let names = io::list(place)?.into_iter();
    let ours = names.filter(|(name, folder)| !folder && is_ours(name));
    Ok(ours.map(|(name, _)| name).collect())
}

/// Which directory in `path` is meant, by its number or name, or by the file that names the last one.
pub(super) fn meant(
    path: &Path,
    names: &Names,
    number: Option<&str>,
    latest: &str,
) -> Result<Option<String>> {
    let called = |name: &str| has(names, name, true).then(|| name.to_owned());
    if let Some(number) = number {
        // A universal checkpoint is called after the one that it is made of.
        let names = [
            number.to_owned(),
            format!("{STEP}{number}"),
            format!("{STEP}{number}_universal"),
        ];
        return Ok(names.iter().find_map(|name| called(name)));
    }
    if !has(names, latest, false) {
        return Ok(None);
    }
    let text = ReadFile::open(&path.join(latest))?.read_all(4096);
    let text = text.unwrap_or_default();
    let name = String::from_utf8_lossy(&text).trim().to_owned();
    let inside = check_inside(&name).is_ok() && !name.contains('/');
    Ok(inside.then(|| called(&name)).flatten())
}

impl DirectoryFormat for Zero {
    fn name(&self) -> &'static str {
        "deepspeed"
    }

    fn called(&self) -> &'static str {
        "a DeepSpeed checkpoint"
    }

    fn about(&self) -> &'static str {
        "DeepSpeed's ZeRO 1 to 3: weights, and their float32 copies and moments cut over ranks"
    }

    fn recognise(
        &self,
        path: &Path,
        names: &Names,
        number: Option<&str>,
    ) -> Result<Option<String>> {
        if has(names, OTHER, true) {
            return Ok(None);
        }
        let mut files = names.iter().filter(|(_, folder)| !folder);
        if files.any(|(name, _)| is_ours(name)) {
            return Ok(Some(String::new()));
        }
        let Some(name) = meant(path, names, number, LATEST)? else {
            return Ok(None);
        };
        let place = path.join(&name);
        let other = io::standing(&place.join(OTHER))? == Standing::Directory;
        let found = !other && !ours(&place)?.is_empty();
        Ok(found.then(|| format!("{name}/")))
    }

    fn numbers(&self, names: &Names) -> Vec<u64> {
        let folders = names.iter().filter(|(_, folder)| *folder);
        let numbers = folders.filter_map(|(name, _)| name.strip_prefix(STEP)?.parse().ok());
        numbers
            .filter(|number| has(names, &self.directory(*number), true))
            .collect()
    }

    fn directory(&self, number: u64) -> String {
        format!("{STEP}{number}")
    }

    fn last(&self, base: &Path) -> Result<(Option<u64>, &'static str)> {
        let path = base.join(LATEST);
        if io::standing(&path)? != Standing::File {
            return Ok((None, LATEST));
        }
        let text = ReadFile::open(&path)?.read_all(4096).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let digits = text.trim().strip_prefix(STEP);
        Ok((digits.and_then(|digits| digits.parse().ok()), LATEST))
    }

    fn list(&self, place: &Path) -> Result<RankFiles> {
        let mut files = RankFiles::new();
        let ours = ours(place)?;
        for (rank, name) in of_zero(place, &ours)? {
            files.entry(rank).or_default().insert(name);
        }
        for name in ours {
            let rank = file(&name).and_then(|file| file.rank).unwrap_or_default();
            let rank = if rank < RANKS_MAX { rank } else { 0 };
            files.entry(rank).or_default().insert(name);
        }
        Ok(files)
    }

    fn absent(&self, rank: u32, file: &str) -> Fault {
        let message = "is missing: the others tell of it, and no process finds it";
        let fault = Fault::new(Kind::MissingShard, message);
        match file.contains("zero_pp_rank_") {
            true => fault.rank(rank),
            false => fault,
        }
    }

    fn texts(&self) -> &'static [Text] {
        &[]
    }

    fn read(&self, _: &[Option<Vec<u8>>]) -> Result<Own> {
        Ok(Own::default())
    }

    fn tells_structure(&self) -> bool {
        true
    }

    fn structure(&self, _: &Own, name: &str, open: &ReadFile) -> Result<Option<FileSchema>> {
        let named = |fault: Fault| match fault.file {
            None => fault.file(open.path().display().to_string()),
            Some(_) => fault,
        };
        structure(name, open).map(Some).map_err(named)
    }

    fn check_unlisted(&self, files: &[&str]) -> Result<()> {
        check(files)
    }

    fn files(&self) -> Format {
        Format::of_row(&TorchFile)
    }

    fn is_written(&self) -> bool {
        false
    }

    fn shares(&self, other: &dyn DirectoryFormat) -> bool {
        other.name() == UNIVERSAL
    }

    fn is_part(&self, name: &str, _: &FileSchema) -> bool {
        is_ours(name) && name.contains("zero_pp_rank_")
    }

    fn holds(&self, _: &str) -> bool {
        false
    }
}

/// Checks that all `files` are of a kind that is read, and that no rank's are missing.
fn check(files: &[&str]) -> Result<()> {
    let mut ranks: [BTreeSet<u32>; 2] = Default::default();
    for path in files {
        let name = path.rsplit('/').next().unwrap_or(path);
        let unsupported = |message: &str| {
            let fault = Fault::new(Kind::Unsupported, message).file(name);
            fault.hint(
                "DeepSpeed's ds_to_universal.py makes a universal checkpoint of it, which is read",
            )
        };
        let Some(File {
            side,
            rank,
            of_weight,
        }) = file(name)
        else {
            let message = "has weights of one layer or expert, in a form that is not read";
            return Err(unsupported(message));
        };
        if of_weight > 0 {
            let message = "has a part of each weight, and nothing says how these are cut";
            return Err(unsupported(message));
        }
        ranks[usize::from(side == Side::Optimizer)].extend(rank);
    }
    for (side, ranks) in ["model", "optim"].into_iter().zip(&ranks) {
        let last = ranks.last().copied().unwrap_or_default();
        if let Some(rank) = (0..last).find(|rank| !ranks.contains(rank)) {
            let message = format!("is missing, and there is one of rank {last}");
            let fault = Fault::new(Kind::MissingShard, message).rank(rank);
            return Err(fault.file(format!("…zero_pp_rank_{rank}_mp_rank_00_{side}_states.pt")));
        }
    }
    Ok(())
}

fn structure(name: &str, open: &ReadFile) -> Result<FileSchema> {
    let short = name.rsplit('/').next().unwrap_or(name);
    let unknown = || Fault::new(Kind::Unsupported, "is no part of a checkpoint that is read");
    let part = file(short).ok_or_else(unknown)?;
    let saved = Saved::open(open, 0..open.size())?;
    let pickle = pickle::read(&saved.pickle)?;
    let mut entries = Entries::default();
    match part.side {
        Side::Model => {
            let mut model = Model::read(&pickle)?;
            model.take_aliases(open.path(), part.rank, part.of_weight)?;
            weights(&pickle, &saved, part.rank, &model, &mut entries)?;
            for told in STANDS {
                let count = some(&pickle, pickle.root(), told);
                if let Some(count) = count.and_then(|count| pickle.count(count)) {
                    entries.agree(told, count.to_string());
                }
            }
        }
        Side::Optimizer => {
            let rank = part.rank.ok_or_else(unknown)?;
            let model = beside(open.path(), rank, part.of_weight)?;
            Optimizer::of(&pickle, &saved, rank)?.take(&model, &mut entries)?;
        }
    }
    entries.schema(open.size())
}

/// What the model's states say that belong to a file of the optimizer's. Local.
fn beside(optimizer: &Path, rank: u32, of_weight: u32) -> Result<Model> {
    let own = of_rank(rank, of_weight);
    let all = format!("mp_rank_{of_weight:02}_model_states.pt");
    for name in [&own, &all] {
        if let Some(mut model) = read(&optimizer.with_file_name(name))? {
            model.take_aliases(optimizer, Some(rank), of_weight)?;
            return Ok(model);
        }
    }
    let message = format!(
        "isn't here, and {} can't be read without it",
        shown(optimizer)
    );
    let path = optimizer.with_file_name(all).display().to_string();
    Err(Fault::new(Kind::MissingShard, message).file(path))
}

/// What the file of a rank's model states is called, where weights are cut over the ranks.
fn of_rank(rank: u32, of_weight: u32) -> String {
    format!("zero_pp_rank_{rank}_mp_rank_{of_weight:02}_model_states.pt")
}

/// What the model's states in the file at `path` say, if there is one. Local.
pub(super) fn read(path: &Path) -> Result<Option<Model>> {
    if io::standing(path)? != Standing::File {
        return Ok(None);
    }
    let named = |fault: Fault| fault.file(path.display().to_string());
    let open = ReadFile::open(path)?;
    let saved = Saved::open(&open, 0..open.size()).map_err(named)?;
    let pickle = pickle::read(&saved.pickle).map_err(named)?;
    Model::read(&pickle).map(Some).map_err(named)
}

impl Model {
    /// Takes the other names of weights from the states of the first rank, which alone has them. Local.
    fn take_aliases(&mut self, beside: &Path, rank: Option<u32>, of_weight: u32) -> Result<()> {
        if rank.unwrap_or_default() > 0 {
            let first = read(&beside.with_file_name(of_rank(0, of_weight)))?;
            self.aliases = first.map(|first| first.aliases).unwrap_or_default();
        }
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The weights in the model's states, and what else there is: of what all ranks have, in those of the first.
fn weights(
    pickle: &Pickle<'_>,
    saved: &Saved<'_>,
    rank: Option<u32>,
    model: &Model,
    entries: &mut Entries,
) -> Result<()> {
    let root = pickle.root();
    let fragments = some(pickle, root, FROZEN).and_then(|fragments| pickle.items(fragments));
    if let Some(rank) = rank {
        let pairs = fragments.unwrap_or_default().chunks_exact(2);
        for pair in pairs {
            frozen(
                pickle,
                saved,
                u64::from(rank),
                (pair[0], pair[1]),
                model,
                entries,
            )?;
        }
    }
    if rank.unwrap_or_default() > 0 {
        return Ok(());
    }
    let cut: BTreeSet<&str> = match rank {
        Some(_) => {
            let names = model.groups.iter().flatten().chain(&model.frozen);
            names.flat_map(|(name, _)| model.names(name)).collect()
        }
        None => BTreeSet::new(),
    };
    let module = some(pickle, root, MODULE).and_then(|module| pickle.items(module));
    for pair in module.unwrap_or_default().chunks_exact(2) {
        let Some(name) = pickle.text(pair[0]).filter(|name| !cut.contains(name)) else {
            continue;
        };
        let at = |fault: Fault| fault.tensor(name);
        if let Some(found) = tensor(pickle, pair[1]).map_err(at)? {
            let window = saved.window(&found).map_err(at)?;
            entries.whole(name, found, window);
        }
    }
    let gathered = gather(pickle)?;
    let apart = |name: &str| {
        let first = name.split('.').next().unwrap_or_default();
        SHAPES.contains(&first) || [MODULE, FROZEN].contains(&first)
    };
    for (name, found) in gathered.tensors {
        if !apart(&name) {
            let window = saved
                .window(&found)
                .map_err(|fault| fault.tensor(name.as_str()))?;
            entries.whole(&name, found, window);
        }
    }
    for (name, value) in gathered.values {
        if !apart(&name) {
            entries.value(name, value.to_string());
        }
    }
    Ok(())
}

/// A rank's part of a weight that isn't trained.
fn frozen(
    pickle: &Pickle<'_>,
    saved: &Saved<'_>,
    rank: u64,
    (name, value): (pickle::Value, pickle::Value),
    model: &Model,
    entries: &mut Entries,
) -> Result<()> {
    let corrupt = |message: &str| Fault::new(Kind::Corrupt, message);
    let name = pickle.text(name);
    let name = name.ok_or_else(|| corrupt("has a weight that isn't trained without a name"))?;
    let at = |fault: Fault| fault.tensor(name);
    let shape = model.frozen.iter().find(|(known, _)| known == name);
    let (_, shape) = shape.ok_or_else(|| at(corrupt("isn't trained, and has no shape")))?;
    let found = tensor(pickle, value).map_err(at)?;
    let found = found.filter(|found| found.strides.is_none());
    let found = found.ok_or_else(|| at(corrupt("isn't trained, and its part is no tensor")))?;
    let (all, part) = (shape.elements()?, found.shape.elements()?);
    let begin = saved.window(&found).map_err(at)?.start;
    let run = part.saturating_mul(rank).min(all)..part.saturating_mul(rank + 1).min(all);
    if run.start >= run.end && !(all == 0 && rank == 0) {
        return Ok(());
    }
    for called in model.names(name) {
        let meant = Meant {
            name: called.to_owned(),
            dtype: found.dtype,
            shape: shape.clone(),
        };
        entries.run(&meant, run.clone(), begin)?;
    }
    Ok(())
}
