//! What the nodes see: the configuration, and what lies where it points.

use crate::config::train_yaml::{Shape, YAML_BYTES_MAX};
use crate::exchange::{Topology, World, agree, all_gather_bytes, broadcast_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, ReadFile, Standing};
use std::path::Path;

/// All processes and their nodes, which may see different disks.
pub(super) struct Sight<'a> {
    pub(super) world: &'a World,
    pub(super) topology: Topology,
}

/// The configuration as process 0 reads it. Collective.
pub(super) fn read_config(world: &World, path: &Path) -> Result<String> {
    let bytes = if world.process() == 0 {
        ReadFile::open(path).and_then(|file| file.read_all(YAML_BYTES_MAX))
    } else {
        Ok(Vec::new())
    };
    let bytes = broadcast_bytes(world, 0, agree(world, bytes)?)?;
    String::from_utf8(bytes)
        .map_err(|_| Fault::new(Kind::Config, "is no UTF-8 text").file(path.display().to_string()))
}

impl Sight<'_> {
    /// What the first node that sees something at `path` finds there. Collective.
    pub(super) fn shape(&self, path: &Path, format: &str) -> Result<Shape> {
        let leads = self.topology.leads(self.world.process());
        let mine = if leads { look(path, format) } else { Ok(None) };
        let mine = agree(self.world, mine)?;
        let bytes = agree(self.world, encode(&mine.map(code)))?;
        let all = all_gather_bytes(self.world, &bytes)?;
        let all: Result<Vec<Option<u8>>> = all.iter().map(|bytes| decode(bytes)).collect();
        let found = agree(self.world, all)?.into_iter().flatten().min();
        found.map(shape_of).ok_or_else(|| {
            Fault::new(
                Kind::Config,
                format!("load_checkpoint has no .{format} weights, or doesn't exist"),
            )
            .file(path.display().to_string())
            .hint("expected a file, a directory of full weights, or one with rank_<n>/ directories")
        })
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
    if has("metadata.json") || has("latest_checkpointed_iteration.txt") {
        return Ok(Some(Shape::Iteration));
    }
    let map = has("param_name_map.json");
    if !map && (has("model.safetensors.index.json") || has("config.json")) {
        return Ok(Some(Shape::HuggingFace));
    }
    let any = names
        .iter()
        .any(|(name, directory)| !directory && name.ends_with(&format!(".{format}")));
    Ok(any.then_some(Shape::Complete))
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
