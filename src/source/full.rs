//! Directories of full weights: which of their files are meant, and what is left aside.
//!
//! A directory often has more than one model's files: an older save with its index, another project's
//! form of the same weights, an adapter, an optimizer. What is taken is what an index lists, or the one
//! file of weights; what can't be told is refused, and `--weights` tells it.

use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::source::adapter;
use crate::source::aside::{TOLD, are, left_aside};
use crate::source::contents::{Contents, SINGLE, UNFINISHED, is_model, lies_beside};
use crate::source::flat;
use crate::source::listed::{Listed, Listing};
use crate::source::sets::{self, Set};
use crate::store::{Format, full_dir, json, rank_dir};
use crate::strategy::name::matches;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a file has beside it, of the same name, until all its bytes are there: its size is right before.
const CONTROL: &str = ".aria2";

/// Lists the files that are meant in the directory `path` with these `names`, of which only those
/// that match `wanted`, if it is given. Local.
///
/// # Errors
/// [`Kind::Ambiguous`] if it can't be told, [`Kind::MissingShard`] for a file that an index lists and
/// that isn't there, [`Kind::Unsupported`] for what is no full weights.
pub(super) fn list_full(
    path: &Path,
    names: &[(String, bool)],
    wanted: Option<&str>,
    listing: &mut Listing,
) -> Result<()> {
    let contents = Contents::of(path, names);
    let mut taken = match (wanted, contents.map()) {
        (Some(glob), _) => contents.matching(glob)?,
        (None, Some(map)) => {
            listing.index = Some(map.to_owned());
            contents.refuse_other_maps(map)?;
            contents.indexed(map)?
        }
        (None, None) => contents.only()?,
    };
    if wanted.is_none() && contents.has(full_dir::TORCH_MAP) && !contents.is_torch() {
        let taken: Vec<&String> = taken.iter().collect();
        let note = format!("{} and its files are left aside", full_dir::TORCH_MAP);
        listing.notes.push(format!("{note}: {} taken", are(&taken)));
    }
    let torch = (!contents.has(full_dir::TORCH_MAP)).then_some(&contents.torch);
    let aside = contents.weights.iter().chain(torch.into_iter().flatten());
    let aside: Vec<&str> = aside
        .filter(|name| !taken.contains(**name))
        .copied()
        .collect();
    if !aside.is_empty() && !taken.is_empty() {
        listing
            .notes
            .push(left_aside(&taken, &aside, wanted.is_none()));
    }
    if let (true, [hyper, ..]) = (taken.is_empty(), &contents.hyper[..]) {
        let message = format!("has {hyper} and no weights");
        let fault = contents.fault(Kind::MissingShard, message);
        return Err(fault.hint("were the files of weights lost? Bring them together; to read that file itself give its path"));
    }
    taken.extend(contents.hyper.iter().map(|name| (*name).to_owned()));
    if let Some(file) = taken
        .iter()
        .find(|file| contents.has(&format!("{file}{CONTROL}")))
    {
        let message = format!("{file} isn't downloaded to its end: {file}{CONTROL} is beside it");
        let fault = contents.fault(Kind::MissingShard, message);
        return Err(fault.hint(
            "wait until it is done, or start it again; remove the file beside it if it is old",
        ));
    }
    let formats = taken.iter().filter_map(|file| Format::of(file));
    let formats: BTreeSet<_> = formats.map(Format::extension).collect();
    if formats.len() > 1 {
        return Err(both_formats(path, taken.iter().map(|name| &**name)));
    }
    let mut listed = Vec::new();
    for file in taken {
        json::refuse_dangling(&path.join(&file))?;
        listed.push(Listed::new(path, file)?);
    }
    if !listed.is_empty() {
        listing.ranks.insert(0, listed);
    }
    Ok(())
}

/// The files that the index lists of a directory with these `names`. Local.
///
/// # Errors
/// [`Kind::MissingShard`] for one that isn't there; as the index is read.
pub(super) fn indexed(path: &Path, names: &[(String, bool)]) -> Result<BTreeSet<String>> {
    let contents = Contents::of(path, names);
    contents
        .map()
        .map_or_else(|| Ok(BTreeSet::new()), |map| contents.all_there(map))
}

/// The fault of a directory with `files` of two formats, of which it names one each.
pub(super) fn both_formats<'f>(path: &Path, files: impl Iterator<Item = &'f str>) -> Fault {
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for file in files {
        if let Some((_, ending)) = file.rsplit_once('.') {
            named.entry(ending).or_insert(file);
        }
    }
    let endings: Vec<String> = named.keys().map(|ending| format!(".{ending}")).collect();
    let named: Vec<&str> = named.into_values().collect();
    let message = format!(
        "has both {} files: {}",
        endings.join(" and "),
        named.join(" and ")
    );
    Fault::new(Kind::Ambiguous, message)
        .file(path.display().to_string())
        .hint("keep one format in the directory, or give a single file")
}

impl Contents<'_> {
    /// The files that are asked for by name.
    fn matching(&self, glob: &str) -> Result<BTreeSet<String>> {
        let matching = |names: &[&str]| -> BTreeSet<String> {
            let found = names.iter().filter(|name| matches(glob, name));
            found.map(|name| (*name).to_owned()).collect()
        };
        let mut found = matching(&self.weights);
        if found.is_empty() {
            found = matching(&self.torch);
        }
        if found.is_empty() {
            let message = format!("has no file of weights that matches --weights '{glob}'");
            let fault = self.fault(Kind::MissingShard, message);
            let signs = match glob.contains('[') {
                true => " (of signs only * and ? stand for others)",
                false => "",
            };
            return Err(match self.weights[..] {
                [] => fault,
                _ => fault.hint(format!("it has {}{signs}", first(&self.weights, TOLD))),
            });
        }
        // A file's own name is meant as it stands.
        if !found.contains(glob) {
            self.refuse_part(found.iter().map(String::as_str))?;
        }
        Ok(found)
    }

    /// Refuses files that are `taken` without an index and are a part of a set.
    fn refuse_part<'f>(&'f self, taken: impl Iterator<Item = &'f str>) -> Result<()> {
        let hint = "copy or download all of them, and the index";
        sets::refuse_part(self.path, &self.weights, taken).map_err(|fault| fault.hint(hint))
    }

    /// The files of a directory without an index: one, beside which others may lie.
    fn only(&self) -> Result<BTreeSet<String>> {
        self.refuse_other_kinds()?;
        let one = |names: Vec<&&str>| match names[..] {
            [name] => Some(BTreeSet::from([(*name).to_owned()])),
            _ => None,
        };
        let all: Vec<&&str> = self.weights.iter().collect();
        let models = all.iter().copied().filter(|name| !lies_beside(name));
        let models: Vec<&&str> = models.collect();
        self.refuse_two(&models)?;
        let numbered = self.weights.iter().any(|name| Set::of(name).is_some());
        let single = all.iter().copied().filter(|name| **name == SINGLE);
        let single = single.filter(|_| !numbered).collect();
        if let Some(found) = one(single).or_else(|| one(models)).or_else(|| one(all)) {
            self.refuse_part(found.iter().map(String::as_str))?;
            return Ok(found);
        }
        if self.weights.is_empty() {
            return self.unfinished().map_or(Ok(BTreeSet::new()), Err);
        }
        self.refuse_part(self.weights.iter().copied())?;
        let message = format!(
            "has {} weight files ({}) and no index of them",
            self.weights.len(),
            first(&self.weights, TOLD)
        );
        let fault = self.fault(Kind::Ambiguous, message);
        if let [(newest, _), others @ ..] = &flat::patterns(self.weights.iter().copied())[..] {
            // The files of one rank's directory are read with those of the others.
            let room = self.path.file_name().unwrap_or_default().to_string_lossy();
            let pattern = match rank_dir::rank_of(&room) {
                Some(_) => self.path.with_file_name("rank_{rank}").join(newest),
                None => self.path.join(newest),
            };
            let which = if others.is_empty() {
                "them"
            } else {
                "those of the newest step"
            };
            return Err(fault.hint(format!(
                "'{}', with --src-strategy, takes {which} for ranks' files",
                pattern.display()
            )));
        }
        if let Some((newest, pattern)) = flat::numbered(&self.weights) {
            return Err(fault.hint(format!(
                "if they are ranks' files, '{}', with --src-strategy, takes them; of one device's steps --weights {newest} takes the \
                 newest",
                self.path.join(pattern).display()
            )));
        }
        if let Some(newest) = flat::newest(&self.weights) {
            return Err(fault.hint(format!(
                "--weights {newest} takes the newest, if they are one device's steps"
            )));
        }
        if let Some(hint) = self.saves() {
            return Err(fault.hint(hint));
        }
        let one = self.weights[0];
        let ending = Path::new(one).extension().unwrap_or_default();
        Err(fault.hint(format!(
            "--weights {one} takes that one, a pattern such as --weights '*.{}' several; several files of one model \
             usually have param_name_map.json or model.safetensors.index.json beside them",
            ending.to_string_lossy()
        )))
    }

    /// Which of the saves that are whole, by the numbers in their files' names, are to be said, where there are other files.
    fn saves(&self) -> Option<String> {
        match &sets::whole(self.weights.iter().copied())[..] {
            [] => None,
            // All that there is.
            [one] if self.weights.iter().all(|name| matches(one, name)) => None,
            [one] => Some(format!("--weights '{one}' takes the files of one save")),
            [one, other, ..] => Some(format!(
                "--weights '{one}' takes the files of one save, --weights '{other}' those of another"
            )),
        }
    }

    /// Refuses `others`, of which nobody says that they are the model, beside one in PyTorch's form.
    fn refuse_two(&self, others: &[&&str]) -> Result<()> {
        let model = self.torch.iter().find(|name| is_model(name));
        let (Some(model), [other, ..]) = (model, others) else {
            return Ok(());
        };
        if others.iter().any(|name| is_model(name)) {
            return Ok(());
        }
        let pattern = match model.split_once('-') {
            Some((stem, _)) => format!("'{stem}-*'"),
            None => (*model).to_owned(),
        };
        let message = format!("has {model} and {other}: which of them is the model?");
        Err(self.fault(Kind::Ambiguous, message).hint(format!(
            "--weights {pattern} takes the one, --weights {other} the other"
        )))
    }

    /// Refuses what has files of weights that are no full weights.
    fn refuse_other_kinds(&self) -> Result<()> {
        if self.weights == [adapter::WEIGHTS] && self.has(adapter::CONFIG) {
            let message = "is a low-rank adapter, no full weights".to_owned();
            return Err(self.fault(Kind::Unsupported, message).hint(
                "--lora merges it into the weights that it was trained for; to read the pairs \
                 themselves give the file",
            ));
        }
        let shard = |name: &&&str| name.starts_with("shard-") && name.contains("-model-");
        if let Some(name) = self.weights.iter().find(shard) {
            let message = format!(
                "is a PyTorch distributed checkpoint in Hugging Face's form: {name} has parts of \
                 tensors"
            );
            return Err(self.fault(Kind::Unsupported, message).hint(
                "make full weights of it with torch.distributed.checkpoint's \
                 consolidate_safetensors_files",
            ));
        }
        Ok(())
    }

    /// The fault of a directory with nothing but a file that isn't downloaded yet.
    fn unfinished(&self) -> Option<Fault> {
        let files = self.names.iter().filter(|(_, directory)| !directory);
        let mut names = files.map(|(name, _)| name.as_str());
        let here = names.find(|name| {
            let stem = UNFINISHED.iter().find_map(|end| name.strip_suffix(end));
            stem.is_some_and(|stem| Format::of(stem).is_some())
        });
        let name = here.map(str::to_owned).or_else(|| self.begun_download())?;
        let message = format!("has no weights yet: {name} is an unfinished download");
        let fault = self.fault(Kind::MissingShard, message);
        Some(fault.hint("wait until it is done, or start it again"))
    }
}
