//! The index of full weights: which files it lists, and whether it is of the same save as these.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::source::aside::TOLD;
use crate::source::contents::{Contents, SINGLE, UNFINISHED};
use crate::source::sets::Set;
use crate::store::io::{self, Standing};
use crate::store::{full_dir, json};
use std::collections::{BTreeMap, BTreeSet};

impl Contents<'_> {
    /// The files that the index `map` lists.
    pub(super) fn indexed(&self, map: &str) -> Result<BTreeSet<String>> {
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
    pub(super) fn all_there(&self, map: &str) -> Result<BTreeSet<String>> {
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
    pub(super) fn refuse_other_maps(&self, map: &str) -> Result<()> {
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
}
