//! Megatron's older checkpoints as a row of the table: a directory for each rank, `mp_rank_00` or with its
//! pipeline stage and its expert's rank behind, and a file of PyTorch's in it.

use super::format::meant;
use super::part::parts;
use super::stand;
use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::directory::{DirectoryFormat, Names, Own, RankFiles, TRACKER, Text};
use crate::store::formats::handle::Format;
use crate::store::formats::megatron::format::{Megatron, iteration};
use crate::store::formats::megatron::split::Split;
use crate::store::formats::progress::Progress;
use crate::store::formats::torch::TorchFile;
use crate::store::io::{self, ReadFile, Standing};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// What a rank's directory begins with, and what its file is called; the second where the optimizer's state
/// lies apart.
const ROOM: &str = "mp_rank_";
const FILES: [&str; 2] = ["model_optim_rng.pt", "model_rng.pt"];

/// What the optimizer's state is in, where it lies apart.
const OPTIMIZERS: [&str; 2] = ["distrib_optim.pt", "optim.pt"];

/// Directories of ranks.
pub(in crate::store::formats) struct MegatronRanks;

/// The ranks that a directory's name tells: of tensors, then up to two others.
pub(super) fn numbers(room: &str) -> Option<Vec<u64>> {
    let numbers = room.strip_prefix(ROOM)?.split('_');
    let numbers = numbers.map(|digits| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    });
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    (1..=3).contains(&numbers.len()).then_some(numbers)
}

/// The files of ranks in `place`. Local.
fn found(place: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for (room, folder) in io::list(place)? {
        if !folder || numbers(&room).is_none() {
            continue;
        }
        for name in FILES {
            let file = format!("{room}/{name}");
            if io::standing(&place.join(&file))? == Standing::File {
                files.insert(file);
                break;
            }
        }
    }
    Ok(files)
}

impl DirectoryFormat for MegatronRanks {
    fn name(&self) -> &'static str {
        "megatron-ranks"
    }

    fn called(&self) -> &'static str {
        "a Megatron checkpoint of the older form"
    }

    fn about(&self) -> &'static str {
        "Megatron's older form: mp_rank_<n>/model_optim_rng.pt, weights without the optimizer's state"
    }

    fn recognise(
        &self,
        path: &Path,
        names: &Names,
        number: Option<&str>,
    ) -> Result<Option<String>> {
        let rooms = |names: &Names| {
            names
                .iter()
                .any(|(name, folder)| *folder && numbers(name).is_some())
        };
        if rooms(names) {
            return Ok((!found(path)?.is_empty()).then(String::new));
        }
        let there = |room: &str| Ok(!found(&path.join(room))?.is_empty());
        meant(path, names, number, there)
    }

    fn numbers(&self, names: &Names) -> Vec<u64> {
        Megatron.numbers(names)
    }

    fn directory(&self, number: u64) -> String {
        Megatron.directory(number)
    }

    fn last(&self, base: &Path) -> Result<(Option<u64>, &'static str)> {
        Megatron.last(base)
    }

    /// All that the first of them says there are.
    fn list(&self, place: &Path) -> Result<RankFiles> {
        let files = found(place)?;
        if let Some(first) = files.first() {
            let path = place.join(first);
            let at = |fault: Fault| fault.file(path.display().to_string());
            let split = Split::read(&ReadFile::open(&path)?).map_err(at)?;
            let rooms: BTreeSet<&str> = files
                .iter()
                .filter_map(|file| file.split('/').next())
                .collect();
            let mut due = split.rooms().into_iter();
            if let Some(missing) = due.find(|room| !rooms.contains(&**room)) {
                let message = format!(
                    "there is no {} in it, though {first} tells of that rank",
                    FILES[0]
                );
                let fault = Fault::new(Kind::MissingShard, message);
                return Err(fault.file(place.join(missing).display().to_string()));
            }
        }
        Ok(RankFiles::from([(0, files)]))
    }

    fn texts(&self) -> &'static [Text] {
        &[]
    }

    fn read(&self, _: &[Option<Vec<u8>>]) -> Result<Own> {
        Ok(Own::default())
    }

    fn stand(&self, _: &Own, files: &[&str]) -> Option<(String, Range<u64>)> {
        Some(((*files.first()?).to_owned(), 0..stand::BYTES_MAX))
    }

    fn stands(&self, bytes: &[u8]) -> Progress {
        stand::read(bytes)
    }

    fn stacks_layers(&self) -> bool {
        true
    }

    fn tells_structure(&self) -> bool {
        true
    }

    fn structure(&self, _: &Own, name: &str, file: &ReadFile) -> Result<Option<FileSchema>> {
        let named = |fault: Fault| fault.file(file.path().display().to_string());
        let room = name.split('/').next().and_then(numbers);
        let odd = || named(Fault::new(Kind::Internal, "is no rank's file"));
        parts(&room.ok_or_else(odd)?, file).map(Some).map_err(named)
    }

    fn check_unlisted(&self, _: &[&str]) -> Result<()> {
        Ok(())
    }

    fn files(&self) -> Format {
        Format::of_row(&TorchFile)
    }

    fn is_written(&self) -> bool {
        false
    }

    fn is_part(&self, name: &str, _: &FileSchema) -> bool {
        FILES.contains(&name)
    }

    fn holds(&self, path: &str) -> bool {
        let inside = path.split_once('/');
        let below = inside.filter(|(room, _)| iteration(room).is_some());
        let (room, name) = match below {
            Some((_, rest)) => rest.split_once('/').unwrap_or_default(),
            None => inside.unwrap_or_default(),
        };
        path == TRACKER
            || (numbers(room).is_some() && (FILES.contains(&name) || OPTIMIZERS.contains(&name)))
    }
}
