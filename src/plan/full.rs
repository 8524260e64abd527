//! Files of full weights, and the map of what is in which.

use crate::catalog::{Catalog, ShardFile, SmallFile};
use crate::fault::{Fault, Kind, Result};
use crate::plan::arranged::Arranged;
use crate::plan::build::Build;
use crate::plan::files::Naming;
use crate::plan::inventory::HYPER_STEM;
use crate::plan::listing::{Listing, listed, with_counts};
use crate::store::Format;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// Lays out files of full weights of at most `file_bytes_max` bytes of tensors, and their maps.
///
/// # Errors
/// [`Kind::Dtype`] if the format doesn't know a tensor's type.
pub(super) fn full(
    build: &Build,
    naming: Naming,
    file_bytes_max: u64,
    format: Format,
    metadata: &BTreeMap<String, String>,
) -> Result<Arranged> {
    let tensors: Listing = build
        .stages
        .iter()
        .flatten()
        .map(listed)
        .collect::<Result<_>>()?;
    let sizes: Vec<u64> = tensors
        .iter()
        .map(|(_, dtype, shape)| shape.bytes(*dtype))
        .collect::<Result<_>>()?;
    let groups = match naming {
        Naming::Hf | Naming::HfOnly => fill_in_order(&sizes, file_bytes_max),
        Naming::Mindspore => balance(&sizes, file_bytes_max),
    };
    let extension = format.extension();
    let name = |index: usize| match naming {
        Naming::Hf | Naming::HfOnly => {
            format!("model-{:05}-of-{:05}.{extension}", index + 1, groups.len())
        }
        Naming::Mindspore => format!("part{index}.{extension}"),
    };
    let mut files = Vec::new();
    let mut weight_map = serde_json::Map::new();
    for (index, group) in groups.iter().enumerate() {
        let listing: Listing = group.iter().map(|i| tensors[*i].clone()).collect();
        for (tensor, _, _) in &listing {
            weight_map.insert(tensor.to_string(), name(index).into());
        }
        let schema = Arc::new(format.design(&listing, metadata)?);
        files.push(ShardFile {
            path: name(index),
            schema,
        });
    }
    let hyper: Listing = build
        .private
        .values()
        .flatten()
        .map(listed)
        .collect::<Result<_>>()?;
    let names = tensors.iter().chain(&hyper).map(|(name, _, _)| &**name);
    Format::check_names(names)?;
    if !hyper.is_empty() || !build.counts.is_empty() {
        let metadata = BTreeMap::from([("format".to_owned(), "ms".to_owned())]);
        let schema = Arc::new(with_counts(hyper, &build.counts, format, &metadata)?);
        files.push(ShardFile {
            path: format!("{HYPER_STEM}.{extension}"),
            schema,
        });
    }
    let extras = maps(naming, weight_map, sizes.iter().sum())?;
    let catalog = Catalog::of(BTreeMap::from([(0, files)]));
    Ok(Arranged {
        catalog,
        extras,
        ..Arranged::default()
    })
}

/// The maps beside the files: which tensor is in which.
///
/// # Errors
/// [`Kind::Internal`].
pub(crate) fn maps(
    naming: Naming,
    weight_map: serde_json::Map<String, serde_json::Value>,
    total_bytes: u64,
) -> Result<Vec<SmallFile>> {
    let map = serde_json::json!({
        "metadata": { "total_size": total_bytes },
        "weight_map": weight_map,
    });
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    serde::Serialize::serialize(&map, &mut writer)
        .map_err(|error| Fault::new(Kind::Internal, format!("index: {error}")))?;
    let index = SmallFile::new("model.safetensors.index.json", text);
    let map = SmallFile {
        path: "param_name_map.json".to_owned(),
        ..index.clone()
    };
    Ok(match naming {
        Naming::Hf => vec![map, index],
        Naming::Mindspore => vec![map],
        Naming::HfOnly => vec![index],
    })
}

/// Consecutive tensors to a file until it is full. At least one file.
fn fill_in_order(sizes: &[u64], file_bytes_max: u64) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
    let mut filled = 0u64;
    for (index, size) in sizes.iter().enumerate() {
        if filled > 0 && filled + size > file_bytes_max {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(group) = groups.last_mut() {
            group.push(index);
        }
    }
    groups
}

/// MindSpore's assignment: largest first, each to the file with the fewest bytes so far
/// (docs/formats.md). At least one file, none empty.
fn balance(sizes: &[u64], file_bytes_max: u64) -> Vec<Vec<usize>> {
    let total: u64 = sizes.iter().sum();
    let count = usize::try_from(total.div_ceil(file_bytes_max.max(1))).unwrap_or(usize::MAX);
    let count = count.min(sizes.len()).max(1);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| Reverse(sizes[*index]));
    let mut groups = vec![Vec::new(); count];
    // Fewest bytes first, of several the first file.
    let mut filled: BinaryHeap<Reverse<(u64, usize)>> =
        (0..count).map(|g| Reverse((0, g))).collect();
    for index in order {
        if let Some(mut least) = filled.peek_mut() {
            least.0.0 += sizes[index];
            groups[least.0.1].push(index);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_as_mindspore_does() {
        assert_eq!(balance(&[4, 9, 1, 5], 10), [vec![1, 2], vec![3, 0]]);
        assert_eq!(balance(&[], 10), [Vec::<usize>::new()]);
        assert_eq!(balance(&[0, 0], 10).len(), 1);
    }

    #[test]
    fn fills_files_in_order() {
        assert_eq!(
            fill_in_order(&[4, 9, 1, 5], 10),
            [vec![0], vec![1, 2], vec![3]]
        );
        assert_eq!(fill_in_order(&[], 10), [Vec::<usize>::new()]);
    }
}
