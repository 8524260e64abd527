//! What the nodes see where a configuration points.

use crate::config::train_yaml::{Asked, Shape};
use crate::exchange::{Topology, World, agree, all_gather_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::model::CONFIG;
use crate::source::{nothing, tells};
use crate::store::io::{self, Standing};
use crate::store::{Format, checkpoint2};
use std::path::Path;

/// All processes and their nodes, which may see different disks.
pub(super) struct Sight<'a> {
    pub(super) world: &'a World,
    pub(super) topology: Topology,
}

impl Sight<'_> {
    /// What the first node that sees something at the path finds there; none for a directory without
    /// weights where none need be. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Config`] if there is nothing that could be loaded.
    pub(super) fn shape(&self, asked: &Asked, format: &str) -> Result<Option<Shape>> {
        let path = asked.path.as_path();
        let leads = self.topology.leads(self.world.process());
        let mine = if leads { look(path, format) } else { Ok(None) };
        let mine = agree(self.world, mine)?;
        let bytes = agree(self.world, encode(&mine.map(code)))?;
        let all = all_gather_bytes(self.world, &bytes)?;
        let all: Result<Vec<Option<u8>>> = all.iter().map(|bytes| decode(bytes)).collect();
        let found = agree(self.world, all)?.into_iter().flatten().min();
        if let Some(code) = found {
            return Ok(Some(shape_of(code)));
        }
        if self.anywhere(path)? {
            // The trainer takes a model's directory without weights for its tokenizer alone.
            if asked.key == "pretrained_model_dir" {
                return Ok(None);
            }
            let message = format!("{} has no .{format} weights", asked.key);
            let fault = Fault::new(Kind::Config, message);
            if io::list(path).is_ok_and(|names| has_others(path, &names)) {
                return Err(fault.hint(format!(
                    "it has weights of another form, which the trainer doesn't read: `shardloom unify --src {} --dst DIR` \
                     writes them as it does, `shardloom import --hf` those of a Hugging Face model",
                    path.display()
                )));
            }
            // What is there in their place.
            let seen = nothing::refuse(path).err();
            return Err(match seen {
                Some(Fault { message, hint, .. }) => fault.hint(format!(
                    "it {message}; {}",
                    hint.unwrap_or_default()
                )),
                None => fault.hint(
                    "expected a file, a directory of full weights, or one with rank_<n>/ directories",
                ),
            });
        }
        let message = format!("{} doesn't exist", asked.key);
        Err(Fault::new(Kind::Config, message).hint(if asked.is_placeholder() {
            "this is the placeholder that the shipped configuration has: put the real path there, or ''"
        } else if path.is_absolute() {
            "is it spelled right, and can this machine see it?"
        } else {
            "a relative path is one from the directory that the trainer is started in"
        }))
    }

    /// Whether some node sees something at `path`. Collective.
    pub(super) fn anywhere(&self, path: &Path) -> Result<bool> {
        let standing = agree(self.world, io::standing(path))?;
        let seen = !matches!(standing, Standing::Nothing | Standing::EmptyDirectory);
        let all = all_gather_bytes(self.world, &[u8::from(seen)])?;
        Ok(all.iter().any(|seen| seen == &[1]))
    }
}

/// What this node finds at `path`; `None` for nothing that could be loaded. Local.
fn look(path: &Path, format: &str) -> Result<Option<Shape>> {
    match io::standing(path)? {
        Standing::Nothing | Standing::EmptyDirectory => return Ok(None),
        Standing::File => {
            let parent = path.parent().and_then(Path::file_name);
            let ranked = parent.is_some_and(|name| name.to_string_lossy().starts_with("rank_"));
            return Ok(Some(if ranked { Shape::RankFile } else { Shape::File }));
        }
        Standing::Directory => {}
    }
    let names = io::list(path)?;
    let has = |wanted: &str| {
        names
            .iter()
            .any(|(name, directory)| name == wanted && !directory)
    };
    if names.iter().any(|(name, _)| name.starts_with("rank_")) {
        return Ok(Some(Shape::Ranks));
    }
    if checkpoint2::is_or_holds_one(&names) {
        return Ok(Some(Shape::Iteration));
    }
    let map = has("param_name_map.json");
    let any = names
        .iter()
        .any(|(name, directory)| !directory && name.ends_with(&format!(".{format}")));
    let described = has(CONFIG) && (any || !has_others(path, &names));
    if !map && (has("model.safetensors.index.json") || described) {
        return Ok(Some(Shape::HuggingFace));
    }
    Ok(any.then_some(Shape::Complete))
}

/// Whether `path`, with these `names`, has weights that this program reads and the trainer doesn't.
fn has_others(path: &Path, names: &[(String, bool)]) -> bool {
    let files = names.iter().filter(|(_, directory)| !directory);
    let mut files = files.map(|(name, _)| name.as_str());
    files.any(Format::may_be_weights) || tells(path).unwrap_or(false)
}

const SHAPES: [Shape; 6] = [
    Shape::Ranks,
    Shape::RankFile,
    Shape::Iteration,
    Shape::HuggingFace,
    Shape::Complete,
    Shape::File,
];

fn code(shape: Shape) -> u8 {
    let place = SHAPES.iter().position(|known| *known == shape);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn shape_of(code: u8) -> Shape {
    SHAPES
        .get(usize::from(code))
        .cloned()
        .unwrap_or(Shape::File)
}
