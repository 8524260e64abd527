//! Directories of full weights: which of their files are meant, and what is left aside.
//!
//! A directory often has more than one model's files: an older save with its index, another project's
//! form of the same weights, an adapter, an optimizer. What is taken is what an index lists, or the one
//! file of weights; what can't be told is refused, and `--weights` tells it.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::HYPER_STEM;
use crate::source::adapter;
use crate::source::aside::{TOLD, are, left_aside};
use crate::source::flat;
use crate::source::listed::{Listed, Listing};
use crate::source::sets::{self, Set};
use crate::store::io::{self, Standing};
use crate::store::{Format, full_dir, json};
use crate::strategy::name::matches;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The name of weights in one file.
const SINGLE: &str = "model.safetensors";
/// Beginnings of files in PyTorch's form that are a model's weights.
const MODELS: [&str; 2] = ["pytorch_model", "model"];
/// Beginnings of files that lie beside a model's weights and are something else.
const BESIDE: [&str; 9] = [
    "adapter_model",
    "consolidated",
    "optimizer",
    "scheduler",
    "training_args",
    "random_states",
    "rng_state",
    "scaler",
    "non_lora_trainables",
];
/// What follows the name of a file that isn't downloaded yet.
const UNFINISHED: [&str; 6] = [
    ".incomplete",
    ".aria2",
    ".crdownload",
    ".part",
    ".download",
    ".tmp",
];
/// Where Hugging Face's downloader keeps what isn't whole yet.
const DOWNLOADS: &str = ".cache/huggingface/download";
/// What a file has beside it, of the same name, until all its bytes are there: its size is right before.
const CONTROL: &str = ".aria2";

/// What stands in a directory of full weights.
struct Contents<'a> {
    path: &'a Path,
    names: &'a [(String, bool)],
    /// Its files of weights, without those of hyper parameters.
    weights: Vec<&'a str>,
    /// Those.
    hyper: Vec<&'a str>,
    /// Files in PyTorch's form beside weights in another.
    torch: Vec<&'a str>,
}

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

/// The files among `names`, of the directory `path`, that are full weights by their names and not somebody's `own`; of
/// PyTorch's form only what is called as a model's.
pub(super) fn beside<'a>(
    path: &'a Path,
    names: &'a [(String, bool)],
    own: impl Fn(&str) -> bool,
) -> Vec<&'a str> {
    let contents = Contents::of(path, names);
    let mut weights = contents.weights;
    weights.extend(contents.torch);
    weights.retain(|name| {
        let other = BESIDE.iter().any(|begin| name.starts_with(begin));
        let model =
            Format::of(name).is_some() || MODELS.iter().any(|begin| name.starts_with(begin));
        model && !other && !own(name)
    });
    weights
}

/// The files in PyTorch's form among `names`, of the directory `path`, beside weights in another.
pub(super) fn torch_beside<'a>(path: &'a Path, names: &'a [(String, bool)]) -> Vec<&'a str> {
    let contents = Contents::of(path, names);
    match contents.is_torch() {
        true => Vec::new(),
        false => contents.torch,
    }
}

/// Refuses a directory with these `names` whose index lists a file that isn't there. Local.
///
/// # Errors
/// [`Kind::MissingShard`]; as the index is read.
pub(super) fn refuse_missing(path: &Path, names: &[(String, bool)]) -> Result<()> {
    let contents = Contents::of(path, names);
    contents
        .map()
        .map_or(Ok(()), |map| contents.all_there(map).map(|_| ()))
}

/// The fault of a directory with `files` of two formats, of which it names one each.
pub(super) fn both_formats<'f>(path: &Path, files: impl Iterator<Item = &'f str>) -> Fault {
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for file in files {
        if let Some(format) = Format::of(file) {
            named.entry(format.extension()).or_insert(file);
        }
    }
    let named: Vec<&str> = named.into_values().collect();
    let message = format!(
        "has both .ckpt and .safetensors files: {}",
        named.join(" and ")
    );
    Fault::new(Kind::Ambiguous, message)
        .file(path.display().to_string())
        .hint("keep one format in the directory, or give a single file")
}

impl<'a> Contents<'a> {
    fn of(path: &'a Path, names: &'a [(String, bool)]) -> Contents<'a> {
        let files = names.iter().filter(|(_, directory)| !directory);
        let files = files.map(|(name, _)| name.as_str());
        let found = Format::weights(files.clone());
        let rest = files.filter(|name| !found.contains(name));
        let rest: Vec<&str> = rest.collect();
        let torch = Format::weights(rest.into_iter()).into_iter();
        let torch = torch.filter(|name| !BESIDE.iter().any(|begin| name.starts_with(begin)));
        let torch = torch.collect();
        let (hyper, weights) = found
            .into_iter()
            .partition(|name| name.starts_with(HYPER_STEM));
        Contents {
            path,
            names,
            weights,
            hyper,
            torch,
        }
    }

    /// Its index. One of files that are passed over says nothing.
    fn map(&self) -> Option<&'static str> {
        let map = full_dir::MAPS.into_iter().find(|map| self.has(map));
        map.filter(|map| *map != full_dir::TORCH_MAP || self.is_torch())
    }

    fn has(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|(n, directory)| n == name && !directory)
    }

    /// Whether its weights are PyTorch's files.
    fn is_torch(&self) -> bool {
        let own = |name: &&str| Format::of(name).is_some();
        !self.weights.iter().any(own)
    }

    fn fault(&self, kind: Kind, message: String) -> Fault {
        Fault::new(kind, message).file(self.path.display().to_string())
    }

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

    /// The files that the index `map` lists.
    fn indexed(&self, map: &str) -> Result<BTreeSet<String>> {
        let files = self.all_there(map)?;
        if self.has(SINGLE) && !files.contains(SINGLE) {
            let listed: Vec<&str> = files.iter().map(String::as_str).collect();
            let message = format!(
                "has {SINGLE} and {map}, which lists {} and not it: one of them is of another save",
                first(&listed, TOLD)
            );
            let glob = listed.first().copied().unwrap_or_default();
            let glob = glob
                .find(|c: char| c.is_ascii_digit())
                .map_or_else(|| glob.to_owned(), |at| format!("{}*", &glob[..at]));
            return Err(self.fault(Kind::Ambiguous, message).hint(format!(
                "--weights {SINGLE} takes the one file, --weights '{glob}' those that are listed"
            )));
        }
        self.refuse_unlisted(map, &files)?;
        Ok(files)
    }

    /// Refuses files that are called as further ones of those that the index `map` lists, and that it doesn't list.
    fn refuse_unlisted(&self, map: &str, files: &BTreeSet<String>) -> Result<()> {
        // Of files that don't say how many there are, others may be of an older save.
        let told = |name| Set::of(name).filter(|(set, _)| set.files.is_some());
        let around = |name| told(name).map(|(set, _)| (set.before, set.rest, set.extension));
        let listed: BTreeSet<_> = files.iter().filter_map(|name| around(name)).collect();
        let beside = self.weights.iter().filter(|name| !files.contains(**name));
        let more = beside.filter(|name| around(name).is_some_and(|own| listed.contains(&own)));
        let more: Vec<&str> = more.copied().collect();
        let Some((set, _)) = more.first().and_then(|name| Set::of(name)) else {
            return Ok(());
        };
        let message = format!(
            "has {map}, which lists {} and not {}, which by name belongs to them",
            counted(files.len() as u64, "file"),
            first(&more, TOLD),
        );
        Err(self.fault(Kind::Ambiguous, message).hint(format!(
            "is the index whole? --weights '{}' takes all these files without it",
            set.glob()
        )))
    }

    /// The same, whatever lies beside them.
    fn all_there(&self, map: &str) -> Result<BTreeSet<String>> {
        let index = self.index(map)?;
        if index.is_empty() && !self.weights.is_empty() {
            let place = self.path.join(map).display().to_string();
            let message = format!("lists no tensor; beside it: {}", first(&self.weights, TOLD));
            let fault = Fault::new(Kind::MissingShard, message).file(place);
            return Err(fault.hint("copy or download the index again; --weights 'GLOB' says which files are meant without it"));
        }
        let mut tensors: BTreeMap<String, usize> = BTreeMap::new();
        for file in index.into_values() {
            *tensors.entry(file).or_default() += 1;
        }
        let unlisted = self.weights.iter().copied();
        let unlisted: Vec<&str> = unlisted
            .filter(|name| !tensors.contains_key(*name))
            .collect();
        for (file, count) in &tensors {
            if io::standing(&self.path.join(file))? == Standing::Nothing {
                let place = self.path.join(map).display().to_string();
                return Err(self.missing(file, *count, &unlisted).file(place));
            }
        }
        Ok(tensors.into_keys().collect())
    }

    /// What the index `map` says.
    fn index(&self, map: &str) -> Result<BTreeMap<String, String>> {
        let path = self.path.join(map);
        let text = json::bytes(&path, full_dir::MAP_BYTES_MAX)?;
        full_dir::parse_map(&text).map_err(|fault| fault.file(path.display().to_string()))
    }

    /// Refuses a directory of which another index says something else than `map`.
    fn refuse_other_maps(&self, map: &str) -> Result<()> {
        let others = full_dir::MAPS.iter();
        let others = others.filter(|other| **other != map && **other != full_dir::TORCH_MAP);
        for other in others.filter(|other| self.has(other)) {
            let (own, others) = (self.index(map)?, self.index(other)?);
            let unlike = own.iter().find_map(|(tensor, file)| {
                let another = others.get(tensor).filter(|another| *another != file)?;
                Some((tensor, file, another))
            });
            if let Some((tensor, file, another)) = unlike {
                let message = format!("{map} says that it is in {file}, {other} in {another}");
                return Err(self
                    .fault(Kind::Ambiguous, message)
                    .tensor(tensor.as_str())
                    .hint("remove the index that is of another save, or say with --weights 'GLOB' which files are meant"));
            }
        }
        Ok(())
    }

    /// What to say of a file that an index lists and that isn't there; `unlisted` are those that it doesn't list.
    fn missing(&self, file: &str, count: usize, unlisted: &[&str]) -> Fault {
        let tensors = counted(count as u64, "tensor");
        let linked = io::link_target(&self.path.join(file)).ok().flatten();
        let what = match linked {
            Some(target) => format!("which is a link to {}, where nothing is", target.display()),
            None => "which isn't there".to_owned(),
        };
        let message = format!("lists '{file}' for {tensors}, {what}");
        let unfinished = UNFINISHED.iter().map(|ending| format!("{file}{ending}"));
        let unfinished = unfinished.into_iter().find(|name| self.has(name));
        let unfinished = unfinished.or_else(|| self.begun_download());
        Fault::new(Kind::MissingShard, message).hint(match unfinished {
            Some(name) => format!("{name} is there: the download isn't finished"),
            None if unlisted.contains(&SINGLE) => format!(
                "{SINGLE} is beside it: is the index of an older save? --weights {SINGLE} takes \
                 that file alone"
            ),
            None if !unlisted.is_empty() && unlisted.len() == self.weights.len() => format!(
                "{} lies beside it, and it lists none of that: is the index of another download? --weights 'GLOB' says \
                 which files are meant without it",
                first(unlisted, TOLD)
            ),
            None => "was the download broken off? Download the file, or all of them again".into(),
        })
    }

    /// Refuses files that are `taken` without an index and are a part of a set.
    fn refuse_part<'f>(&'f self, taken: impl Iterator<Item = &'f str>) -> Result<()> {
        let hint = "copy or download all of them, and the index";
        sets::refuse_part(self.path, &self.weights, taken).map_err(|fault| fault.hint(hint))
    }

    /// The files of a directory without an index: one, beside which others may lie.
    fn only(&self) -> Result<BTreeSet<String>> {
        self.refuse_other_kinds()?;
        let beside = |name: &&&str| BESIDE.iter().any(|begin| name.starts_with(begin));
        let one = |names: Vec<&&str>| match names[..] {
            [name] => Some(BTreeSet::from([(*name).to_owned()])),
            _ => None,
        };
        let all: Vec<&&str> = self.weights.iter().collect();
        let models = all.iter().copied().filter(|name| !beside(name)).collect();
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
            let pattern = self.path.join(newest);
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
        Err(fault.hint(
            "--weights NAME says which one, --weights 'GLOB' which ones; several files of one model \
             usually have param_name_map.json or model.safetensors.index.json beside them",
        ))
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

    /// A file that Hugging Face's downloader has begun: it keeps it in a directory of its own until it is whole.
    fn begun_download(&self) -> Option<String> {
        let inside = io::list(&self.path.join(DOWNLOADS)).ok()?.into_iter();
        let mut names = inside.map(|(name, _)| name);
        let begun = |name: &String| UNFINISHED.iter().any(|end| name.ends_with(end));
        Some(format!("{DOWNLOADS}/{}", names.find(begun)?))
    }
}
