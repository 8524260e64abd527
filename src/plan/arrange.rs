//! Which tensor goes into which destination file, and where in it.

use crate::catalog::{Catalog, SmallFile};
use crate::fault::Result;
use crate::plan::build::Build;
use crate::plan::directory::by_directory;
use crate::plan::full::full;
use crate::plan::rank_files::by_rank;
use crate::plan::tensor_plan::TensorPlan;
use crate::store::Format;
use std::collections::{BTreeMap, HashMap};

pub use crate::plan::arranged::{Arranged, Ranks};
pub use crate::plan::files::{FULL_FILE_BYTES_MAX, Files, Naming, RankName};
pub use crate::plan::kept::Kept;
pub use crate::plan::listing::element_shape;

/// Lays out the files of `ranks`.
///
/// # Errors
/// [`crate::fault::Kind::Dtype`] if the format doesn't know a tensor's type.
pub fn arrange(
    mut build: Build,
    files: &Files,
    format: Format,
    metadata: &BTreeMap<String, String>,
    ranks: Ranks<'_>,
) -> Result<Arranged> {
    let mut arranged = match files {
        Files::Ranks {
            name:
                RankName {
                    before,
                    numbered,
                    after,
                },
            remove_redundancy,
        } => {
            let mut metadata = metadata.clone();
            if *remove_redundancy {
                metadata.insert("remove_redundancy".into(), "True".into());
            }
            let name = |rank: u32| {
                let number = if *numbered {
                    rank.to_string()
                } else {
                    String::new()
                };
                format!("rank_{rank}/{before}{number}{after}.{}", format.extension())
            };
            by_rank(
                &build,
                *remove_redundancy,
                format,
                &metadata,
                ranks.built,
                name,
            )?
        }
        Files::Directory { format: own, asked } => {
            by_directory(&mut build, *own, asked, metadata, ranks.built)?
        }
        Files::Resume {
            prefix,
            ending,
            position,
            remove_redundancy,
        } => {
            let named = (prefix.as_str(), ending.as_str(), *position);
            to_resume(&build, named, *remove_redundancy, format, metadata, ranks)?
        }
        Files::AsSource(otherwise) => {
            return arrange(build, otherwise, format, metadata, ranks);
        }
        Files::Full {
            naming,
            file_bytes_max,
        } => full(&build, *naming, *file_bytes_max, format, metadata)?,
    };
    let mut private: Vec<TensorPlan> = build.private.into_values().flatten().collect();
    arranged.plans = build.stages.into_iter().flatten().collect();
    if ranks.together {
        arranged.plans.append(&mut private);
    }
    arranged.common = arranged.plans.len();
    in_file_order(&mut arranged.plans, &arranged.catalog, files);
    in_file_order(&mut private, &arranged.catalog, files);
    arranged.plans.append(&mut private);
    Ok(arranged)
}

/// Puts tensors into the order of the files of `catalog` that they go to.
fn in_file_order(plans: &mut [TensorPlan], catalog: &Catalog, files: &Files) {
    let position: HashMap<&str, usize> = match files {
        Files::Ranks { .. }
        | Files::Resume { .. }
        | Files::AsSource(_)
        | Files::Directory { .. } => HashMap::new(),
        Files::Full { .. } => {
            let files = catalog.ranks.values().flatten().enumerate();
            files
                .flat_map(|(i, f)| f.schema.entries.iter().map(move |e| (&*e.name, i)))
                .collect()
        }
    };
    plans.sort_by(|a, b| {
        let key = |plan: &TensorPlan| {
            let file = position.get(&*plan.name).copied().unwrap_or_default();
            (file, plan.written.file_order())
        };
        let rank = |plan: &TensorPlan| plan.destination.first_rank;
        key(a)
            .cmp(&key(b))
            .then_with(|| a.name.cmp(&b.name))
            .then_with(|| rank(a).cmp(&rank(b)))
    });
}

/// Lays out the files of `ranks` for a trainer that resumes at `position` (epoch, step in it).
fn to_resume(
    build: &Build,
    (prefix, ending, position): (&str, &str, (u64, u64)),
    remove_redundancy: bool,
    format: Format,
    metadata: &BTreeMap<String, String>,
    ranks: Ranks<'_>,
) -> Result<Arranged> {
    let file = |rank: u32| format!("{prefix}_rank_{rank}{ending}.{}", format.extension());
    let name = |rank: u32| format!("rank_{rank}/{}", file(rank));
    let mut metadata = metadata.clone();
    if remove_redundancy {
        metadata.insert("remove_redundancy".into(), "True".into());
    }
    let mut arranged = by_rank(
        build,
        remove_redundancy,
        format,
        &metadata,
        ranks.built,
        name,
    )?;
    let meta = |rank: &u32| {
        let meta = serde_json::json!({
            "last_epoch": position.0, "last_step": position.1, "last_ckpt_file": file(*rank),
        });
        SmallFile::new(format!("rank_{rank}/meta.json"), meta.to_string().into())
    };
    arranged.extras = ranks.beside.iter().map(meta).collect();
    Ok(arranged)
}
