//! What stands in a directory of full weights, by the names of its files.

use crate::fault::{Fault, Kind};
use crate::plan::inventory::HYPER_STEM;
use crate::store::io;
use crate::store::{Format, full_dir};
use std::path::Path;

/// The name of weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Beginnings of files that are a model's weights, whatever their form.
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
pub(super) const UNFINISHED: [&str; 6] = [
    ".incomplete",
    ".aria2",
    ".crdownload",
    ".part",
    ".download",
    ".tmp",
];
/// Where Hugging Face's downloader keeps what isn't whole yet.
const DOWNLOADS: &str = ".cache/huggingface/download";
/// What stands in a directory of full weights.
pub(super) struct Contents<'a> {
    pub(super) path: &'a Path,
    pub(super) names: &'a [(String, bool)],
    /// Its files of weights, without those of hyper parameters.
    pub(super) weights: Vec<&'a str>,
    /// Those.
    pub(super) hyper: Vec<&'a str>,
    /// Files in PyTorch's form beside weights in another; or what lies beside a model in that form.
    pub(super) torch: Vec<&'a str>,
}

/// Whether a file of this name lies beside a model's weights, and is something else.
pub(super) fn lies_beside(name: &str) -> bool {
    BESIDE.iter().any(|begin| name.starts_with(begin))
}

/// Whether a file is called as a model's.
pub(super) fn is_model(name: &str) -> bool {
    MODELS.iter().any(|begin| name.starts_with(begin))
}

impl<'a> Contents<'a> {
    pub(super) fn of(path: &'a Path, names: &'a [(String, bool)]) -> Contents<'a> {
        let files = names.iter().filter(|(_, directory)| !directory);
        let files = files.map(|(name, _)| name.as_str());
        let found = Format::weights(files.clone());
        let rest = files.filter(|name| !found.contains(name));
        let rest: Vec<&str> = rest.collect();
        let torch = Format::weights(rest.into_iter()).into_iter();
        let torch = torch.filter(|name| !lies_beside(name));
        let mut torch: Vec<&str> = torch.collect();
        let (hyper, mut weights): (Vec<&str>, Vec<&str>) = found
            .into_iter()
            .partition(|name| name.starts_with(HYPER_STEM));
        // A model's files are its weights, whatever the form of what lies beside them.
        if torch.iter().any(|name| is_model(name)) && weights.iter().all(|name| lies_beside(name)) {
            std::mem::swap(&mut torch, &mut weights);
        }
        Contents {
            path,
            names,
            weights,
            hyper,
            torch,
        }
    }

    /// Its index. One of files that are passed over says nothing.
    pub(super) fn map(&self) -> Option<&'static str> {
        let map = full_dir::MAPS.into_iter().find(|map| self.has(map));
        map.filter(|map| *map != full_dir::TORCH_MAP || self.is_torch())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|(n, directory)| n == name && !directory)
    }

    /// Whether its weights are PyTorch's files.
    pub(super) fn is_torch(&self) -> bool {
        let own = |name: &&str| Format::of(name).is_some();
        !self.weights.iter().any(own)
    }

    pub(super) fn fault(&self, kind: Kind, message: String) -> Fault {
        Fault::new(kind, message).file(self.path.display().to_string())
    }

    /// A file that Hugging Face's downloader has begun: it keeps it in a directory of its own until it is whole.
    pub(super) fn begun_download(&self) -> Option<String> {
        let inside = io::list(&self.path.join(DOWNLOADS)).ok()?.into_iter();
        let mut names = inside.map(|(name, _)| name);
        let begun = |name: &String| UNFINISHED.iter().any(|end| name.ends_with(end));
        Some(format!("{DOWNLOADS}/{}", names.find(begun)?))
    }
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
        let model = Format::of(name).is_some() || is_model(name);
        model && !lies_beside(name) && !own(name)
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
