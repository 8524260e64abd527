//! The manifest that a repair goes by: the directory's own; one that a copy of the directory lends; or one made
//! anew of the same checkpoint in another layout.

use crate::exchange::{Operation, World, agree, all_gather, all_reduce};
use crate::fault::Result;
use crate::fault::plain::counted;
use crate::job::repair::lent::{Lent, lent};
use crate::job::repair::parts::is_sound;
use crate::job::repair::relayout::{Missing, Origin, beside, relayout};
use crate::job::repair::remade::{Model, remade};
use crate::job::verify::checked::{Checked, check};
use crate::job::verify::found::{Found, look};
use crate::job::verify::{Subset, bad_shards};
use crate::store::Format;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{BYTES_MAX, Manifest, NAME};
use crate::store::rank_dir::rank_of;
use crate::strategy::StrategyInput;
use crate::transport::Observer;
use std::path::{Path, PathBuf};

/// Why what stands is kept where most shards of sound files, or of one, are bad: the manifest may be older.
pub(super) const STALE: &str = "most of what stands is sound, and not what the manifest tells of";

/// What to repair.
#[derive(Clone, Debug)]
pub struct Repair {
    /// A directory with a manifest.
    pub directory: PathBuf,
    /// Its strategy, if another layout is to be brought into its own; none means full weights.
    pub strategy: Option<StrategyInput>,
    /// Where copies may be, besides the directory itself.
    pub origin: Option<Origin>,
    /// A part of the files to look for damage in; none: all.
    pub subset: Option<Subset>,
}

/// What a repair begins with.
pub(super) struct Given {
    /// The files, compared with the manifest.
    pub(super) checked: Checked,
    /// The manifest, if it is none of the directory's own and is to be put there.
    pub(super) fresh: Option<Lent>,
    /// Why files that are replaced are kept, if they are: what is to be right may be another checkpoint's word.
    pub(super) keeps: Option<&'static str>,
}

/// Whether `directory` has directories of ranks, as any process sees it. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Io`].
pub(super) fn is_tree(world: &World, directory: &Path) -> Result<bool> {
    let own = match io::standing(directory) {
        Ok(Standing::Directory) => io::list(directory).map(|names| {
            let mut names = names.iter();
            names.any(|(name, is_directory)| *is_directory && rank_of(name).is_some())
        }),
        other => other.map(|_| false),
    };
    any(world, agree(world, own)?)
}

/// Whether it is so for any process. Collective.
fn any(world: &World, own: bool) -> Result<bool> {
    let mut all = [u64::from(own)];
    all_reduce(world, &mut all, Operation::Max)?;
    Ok(all[0] == 1)
}

/// Finds the manifest and compares the files with it; `observer` hears how far that is. Collective.
///
/// # Errors
/// The same on every process, if there is no manifest and none can be made, or the other checkpoint can't be read
/// as said.
pub(super) fn given(
    world: &World,
    repair: &Repair,
    directory: &Path,
    tree: bool,
    observer: &mut Observer<'_>,
) -> Result<Given> {
    let lent = agree(world, lent(directory, repair.origin.as_ref()))?;
    let own = matches!(agree(world, look(directory))?, Found::Manifest(_));
    let here = agree(world, io::standing(directory))? == Standing::Directory;
    let mut first = None;
    if !any(world, here && !own && lent.is_none())? || repair.origin.is_none() {
        let manifest = lent.as_ref().map(|lent| &lent.manifest);
        let mut checked = check(world, directory, repair.subset, manifest, observer)?;
        let all = repair.subset.is_none();
        let (bad, shards) = unlike(world, directory, &checked.manifest, &checked, &is_sound)?;
        let fresh = lent.filter(|lent| lent.is_believed(&mut checked, all));
        let known = own || fresh.is_some() || !here;
        let given = Given {
            checked,
            fresh,
            keeps: (bad * 2 > shards).then_some(STALE),
        };
        if !any(world, !known)? {
            return Ok(given);
        }
        first = Some(given);
    }
    if let Some(made) = anew(world, repair, directory, tree)? {
        let mut checked = check(
            world,
            directory,
            repair.subset,
            Some(&made.manifest),
            observer,
        )?;
        let believed = is_believed(world, directory, repair, &made, &mut checked)?;
        return Ok(Given {
            checked,
            fresh: Some(made).filter(|_| believed && !own && here),
            keeps: Some("no manifest was there that says which is right"),
        });
    }
    match first {
        Some(given) => Ok(given),
        None => Ok(Given {
            checked: check(world, directory, repair.subset, None, observer)?,
            fresh: None,
            keeps: None,
        }),
    }
}

/// Shards that aren't as `manifest` has them in those files that `counts` takes, and all shards of the files that
/// stand. Collective.
fn unlike(
    world: &World,
    directory: &Path,
    manifest: &Manifest,
    checked: &Checked,
    counts: &dyn Fn(&Path) -> bool,
) -> Result<(u64, u64)> {
    let own = checked.own();
    let bad = own.iter().filter_map(|number| manifest.files.get(*number));
    let bad = bad.filter(|record| counts(&directory.join(&record.path)));
    let bad = bad.map(|record| bad_shards(directory, manifest, record, &|_| true).len());
    let files = manifest.files.iter();
    let files = files.filter(|record| stands(&directory.join(&record.path)));
    let shards: usize = files.map(|record| record.shards.len()).sum();
    let mut sums = [
        bad.sum::<usize>() as u64,
        if checked.speaks() { shards as u64 } else { 0 },
    ];
    all_reduce(world, &mut sums, Operation::Sum)?;
    Ok((sums[0], sums[1]))
}

fn stands(path: &Path) -> bool {
    matches!(io::size(path), Ok(Some(_)))
}

/// A manifest made of the other checkpoint, brought into this layout; none if that needs a strategy. Collective.
fn anew(world: &World, repair: &Repair, directory: &Path, tree: bool) -> Result<Option<Lent>> {
    let Some(origin) = repair
        .origin
        .as_ref()
        .filter(|_| tree == repair.strategy.is_some())
    else {
        return Ok(None);
    };
    let hidden = beside(directory);
    let all = Missing::from([None]);
    let strategy = repair.strategy.as_ref();
    let none = Manifest::default();
    let format = agree(world, format_of(directory))?;
    relayout(world, origin, strategy, &hidden, (&none, format), &all)?;
    let made = look(&hidden).and_then(|found| match found {
        Found::Manifest(manifest) => {
            let model = Model {
                directory: &hidden,
                manifest: &manifest,
            };
            remade(directory, &model).map(Some)
        }
        _ => Ok(None),
    });
    let made = made.and_then(|made| {
        let made = made.map(|manifest| {
            Ok(Lent {
                bytes: manifest.to_bytes()?,
                same_job: false,
                manifest,
                from: PathBuf::from(format!("{}, resharded", origin.path.display())),
            })
        });
        made.transpose()
    });
    all_gather(world, &())?;
    let removed = io::remove_directory(&hidden);
    let made = agree(world, made)?;
    agree(world, removed)?;
    Ok(made)
}

/// The format of the files of weights in `directory`; none where there are none. Local.
fn format_of(directory: &Path) -> Result<Option<Format>> {
    if io::standing(directory)? != Standing::Directory {
        return Ok(None);
    }
    let files = io::list_files(directory)?;
    Ok(files.iter().find_map(|path| Format::of(path)))
}

/// Whether the files are those that `made` is of: what is left of their own manifest says so, or, if nothing
/// is, most shards are alike. Else `checked` forgets it. Collective.
fn is_believed(
    world: &World,
    directory: &Path,
    repair: &Repair,
    made: &Lent,
    checked: &mut Checked,
) -> Result<bool> {
    let manifest = &made.manifest;
    let (bad, shards) = unlike(world, directory, manifest, checked, &stands)?;
    let left = agree(world, left(directory, manifest))?;
    let alike = left.unwrap_or(bad * 2 < shards);
    let from = repair
        .origin
        .as_ref()
        .map_or(Path::new(""), |origin| &origin.path);
    let reason = if repair.subset.is_some() {
        format!(
            "{} stands for it only if all files are compared",
            from.display()
        )
    } else if any(world, !alike)? {
        format!(
            "{} is another checkpoint: {} of {} are not as it has them",
            from.display(),
            bad,
            counted(shards, "shard")
        )
    } else {
        return Ok(true);
    };
    checked.forget(format!("the manifest is damaged or gone, and {reason}"));
    Ok(false)
}

/// Whether what is left of the manifest in `directory` is of the tensors of `manifest`; none if it doesn't say.
/// Local.
fn left(directory: &Path, manifest: &Manifest) -> Result<Option<bool>> {
    let own = directory.join(NAME);
    if io::standing(&own)? != Standing::File {
        return Ok(None);
    }
    let bytes = ReadFile::open(&own)?.read_all(BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let told: std::collections::HashSet<&str> = text
        .split("\"digest\":\"")
        .skip(1)
        .filter_map(|rest| rest.get(..16))
        .collect();
    if told.is_empty() {
        return Ok(None);
    }
    let tensors = manifest.tensors.values();
    let known = tensors
        .filter(|tensor| told.contains(&*tensor.digest.to_string()))
        .count();
    Ok(Some(known * 2 > told.len()))
}
