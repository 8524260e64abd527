//! Whether what is taken for full weights is a part of more: one of several files, or one rank's.

use crate::catalog::{Catalog, Entry, FileSchema, ShardFile};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::source::around::{around_number, leading_number};
use crate::source::flat::RANK;
use crate::source::found::{Source, place};
use crate::source::meta::Name;
use crate::source::sets::Set;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::rank_dir::rank_of;
use crate::store::{Directory, Format};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};

/// Tensors of which bytes are compared with another rank's: the largest.
const TENSORS_COMPARED: usize = 8;
/// Bytes of each of them.
const BYTES_COMPARED: u64 = 4 << 10;

/// Refuses full weights of a source that are a part of more, as [`refuse_part`]. Files that were `chosen` one by
/// one may be some of several. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the file, or a rank.
pub(crate) fn refuse(source: &Source, chosen: bool) -> Result<()> {
    if source.told.is_some() {
        return Ok(());
    }
    let together = source.index.is_some() || chosen;
    let read_here = source.reach.owner(0) == Some(source.reach.process);
    refuse_part(&source.base, &source.catalog, together, read_here)
}

/// Refuses full weights that are a part of more, as their files, their names or the ranks beside them tell.
/// `together` are files that may be some of several; `read_here`: by this process, which then looks at the
/// ranks beside them. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the file, or a rank.
pub(crate) fn refuse_part(
    base: &Path,
    catalog: &Catalog,
    together: bool,
    read_here: bool,
) -> Result<()> {
    if catalog.ranks.len() > 1 {
        return Ok(());
    }
    let Some((rank, files)) = catalog.ranks.first_key_value() else {
        return Ok(());
    };
    if *rank > 0 {
        let message =
            format!("of all ranks only rank {rank} is here, and there is no source strategy");
        let fault = Fault::new(Kind::MissingShard, message).rank(*rank);
        return Err(place(base, fault).hint(format!(
            "bring all ranks' directories together and give --src-strategy; if each rank has all of the \
             weights, give rank_{rank} itself, with --verify none"
        )));
    }
    for file in files {
        of_several(file, together).map_err(|fault| place(base, fault))?;
    }
    if !read_here {
        return Ok(());
    }
    of_ranks(base, files)?;
    beside_nothing(base, files)
}

/// Refuses a source without a strategy where one rank alone has files among several directories of ranks. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming a rank that has none.
pub(crate) fn refuse_one_of_ranks(source: &Source) -> Result<()> {
    let files = source.catalog.ranks.values().next();
    let read_here = source.reach.owner(0) == Some(source.reach.process);
    match files {
        Some(files) if source.told.is_none() && source.catalog.ranks.len() == 1 && read_here => {
            beside_nothing(&source.base, files)
        }
        _ => Ok(()),
    }
}

/// Refuses the one rank that has files among several directories of ranks.
fn beside_nothing(base: &Path, files: &[ShardFile]) -> Result<()> {
    let room = files.first().and_then(|file| file.path.split_once('/'));
    let Some((room, rank)) = room.and_then(|(room, _)| Some((room, rank_of(room)?))) else {
        return Ok(());
    };
    let rooms = io::list(base)?.into_iter().filter(|(_, folder)| *folder);
    let others = rooms.filter_map(|(other, _)| Some((rank_of(&other)?, other)));
    let Some((other, empty)) = others.filter(|(other, _)| *other != rank).min() else {
        return Ok(());
    };
    let message = format!("has no weights, as {room} has");
    Err(Fault::new(Kind::MissingShard, message)
        .rank(other)
        .file(base.join(empty).display().to_string())
        .hint(format!(
            "bring all ranks' files together and give --src-strategy; if each rank has all of the weights, give \
             {room} itself"
        )))
}

/// Refuses a file that says that it is one of several. `together` with the others it may be.
fn of_several(file: &ShardFile, together: bool) -> Result<()> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let part = |format: &Directory| format.is_part(name, &file.schema);
    if let Some(format) = Directory::all().find(part) {
        let message = format!("is a part of {}", format.called());
        let fault = Fault::new(Kind::MissingShard, message).file(file.path.as_str());
        return Err(fault.hint("give its directory, with all of its files"));
    }
    let of = Set::of(name).and_then(|(set, _)| set.files);
    match of.filter(|_| !together) {
        None => Ok(()),
        Some(of) => {
            let message = format!("is one of {of} files");
            let fault = Fault::new(Kind::MissingShard, message).file(file.path.as_str());
            Err(fault.hint(
                "give the directory with all of them and their index; --weights there takes this one alone",
            ))
        }
    }
}

/// Refuses files of a rank's directory if another rank's, beside it, has something else in them.
fn of_ranks(base: &Path, files: &[ShardFile]) -> Result<()> {
    for file in files {
        let path = base.join(&file.path);
        let led = io::resolve(&path)?;
        let here = io::resolve(io::room(&path))?;
        let here = here.join(path.file_name().unwrap_or_default());
        let mut found = beside(&here)?;
        if found.is_none() && led != here {
            // What a link leads to may lie among ranks.
            found = beside(&led)?;
        }
        let Some((rank, other, theirs)) = found else {
            of_a_later_rank(&path, &led)?;
            continue;
        };
        if !alike(&path, &file.schema, &theirs)? {
            let message = format!(
                "is rank {rank}'s, and rank {other} beside it has something else ({}): it is no full weights",
                theirs.display()
            );
            let pattern = pattern_of(&here, &theirs).map(|name| path.with_file_name(name));
            let all = pattern.map_or_else(
                || "the directory with all ranks".to_owned(),
                |pattern| format!("'{}'", pattern.display()),
            );
            return Err(Fault::new(Kind::MissingShard, message)
                .rank(rank)
                .file(path.display().to_string())
                .hint(format!(
                    "give {all} and --src-strategy; --verify none takes this rank's as they are"
                )));
        }
    }
    Ok(())
}

/// The pattern of the names of two ranks' files in one directory, whose names differ in their numbers; none for others. Both
/// are resolved.
fn pattern_of(path: &Path, other: &Path) -> Option<String> {
    let [own, theirs] = [path, other].map(|file| file.file_name()?.to_str());
    let (own, theirs) = (own?, theirs?);
    let is_digit = |c: char| c.is_ascii_digit();
    let same = own.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b);
    let before = own.get(..same.count())?.trim_end_matches(is_digit);
    let [after, others] =
        [own, theirs].map(|name| name[before.len()..].trim_start_matches(is_digit));
    let alike = after == others && own != theirs && path.parent() == other.parent();
    alike.then(|| format!("{before}{{rank}}{after}"))
}

/// Refuses a file that is a later rank's by its name or its directory's, where `path` has `led`, without any other's to
/// compare it with: there was a rank 0, and the weights may be cut or dealt among all.
fn of_a_later_rank(path: &Path, led: &Path) -> Result<()> {
    let Some(rank) = named_for(led).filter(|rank| *rank > 0) else {
        return Ok(());
    };
    let message =
        format!("is rank {rank}'s, and nothing here shows that it has all of the weights");
    Err(Fault::new(Kind::MissingShard, message)
        .rank(rank)
        .file(path.display().to_string())
        .hint(
            "give the directory with all ranks and --src-strategy; if each rank has all of the weights, --verify none \
             takes this rank's as they are",
        ))
}

/// The rank whose the file at `path` is, by its directory's name or by its own, as a trainer has given it.
pub(crate) fn named_for(path: &Path) -> Option<u32> {
    let room = path.parent().and_then(Path::file_name);
    let by_room = room.and_then(|room| rank_of(room.to_str()?));
    by_room.or_else(|| Name::parse(path.file_name()?.to_str()?)?.1)
}

/// The rank of a file in a rank's directory, which is resolved, and the file of the lowest other rank beside it.
fn beside(path: &Path) -> Result<Option<(u32, u32, PathBuf)>> {
    let room = match (io::standing(path)?, path.parent()) {
        (Standing::File, Some(room)) => room,
        _ => return Ok(None),
    };
    let called = room.file_name().and_then(|name| name.to_str());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (Some(rank), Some(above)) = (called.and_then(rank_of), room.parent()) else {
        for found in [beside_by_name, beside_alike, beside_numbered] {
            if let Some(found) = found(room, &name)? {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    };
    let (own, stem_end) = (format!("rank_{rank}"), format!("{rank}."));
    let mut rooms: Vec<(u32, String)> = io::list(above)?
        .into_iter()
        .filter(|(_, folder)| *folder)
        .filter_map(|(room, _)| Some((rank_of(&room)?, room)))
        .filter(|(other, _)| *other != rank)
        .collect();
    rooms.sort_unstable();
    for (other, room) in rooms {
        let room = above.join(&room);
        let numbered = name.replacen(&stem_end, &format!("{other}."), 1);
        let named = [name.replace(&own, &format!("rank_{other}")), numbered];
        for theirs in &named {
            let theirs = room.join(theirs);
            if io::standing(&theirs)? == Standing::File {
                return Ok(Some((rank, other, theirs)));
            }
        }
        if let Some(theirs) = of_another_format(&room, &named)? {
            return Ok(Some((rank, other, theirs)));
        }
    }
    Ok(None)
}

/// A file of weights that is called as one of these, but for its format.
fn of_another_format(room: &Path, named: &[String]) -> Result<Option<PathBuf>> {
    let inside = io::list(room)?;
    let files = inside.iter().filter(|(_, folder)| !folder);
    let weights = Format::weights(files.map(|(file, _)| file.as_str()));
    let stem = |name: &str| Path::new(name).file_stem().map(ToOwned::to_owned);
    let found = weights
        .into_iter()
        .find(|file| named.iter().any(|named| stem(named) == stem(file)));
    Ok(found.map(|file| room.join(file)))
}

/// The same of a file whose name has a rank, in a directory that isn't called so: another's beside it, or in a directory
/// beside that.
fn beside_by_name(room: &Path, name: &str) -> Result<Option<(u32, u32, PathBuf)>> {
    let Some((before, rest)) = name.split_once(RANK) else {
        return Ok(None);
    };
    let Some((rank, after)) = leading_number(rest) else {
        return Ok(None);
    };
    let mut rooms = vec![room.to_owned()];
    if let Some(above) = room.parent() {
        let inside = io::list(above)?.into_iter().filter(|(_, folder)| *folder);
        rooms.extend(inside.map(|(name, _)| above.join(name)));
    }
    for other in [0, 1, rank.saturating_add(1)] {
        let theirs = format!("{before}{RANK}{other}{after}");
        for room in rooms.iter().filter(|_| other != rank) {
            let theirs = room.join(&theirs);
            if io::standing(&theirs)? == Standing::File {
                return Ok(Some((rank, other, theirs)));
            }
        }
    }
    Ok(None)
}

/// The same of a file in a directory that is called as a device: another's beside that.
fn beside_alike(room: &Path, name: &str) -> Result<Option<(u32, u32, PathBuf)>> {
    let own = room.file_name().and_then(|own| numbered(own.to_str()?));
    let (Some((around, rank)), Some(above)) = (own, room.parent()) else {
        return Ok(None);
    };
    for (other_name, folder) in io::list(above)? {
        let other = numbered(&other_name).filter(|(other, _)| folder && *other == around);
        let Some((_, other)) = other.filter(|(_, other)| *other != rank) else {
            continue;
        };
        let named = name.replacen(&format!("{rank}."), &format!("{other}."), 1);
        for theirs in [name, &named] {
            let theirs = above.join(&other_name).join(theirs);
            if io::standing(&theirs)? == Standing::File {
                return Ok(Some((rank, other, theirs)));
            }
        }
    }
    Ok(None)
}

/// The same of a file that is called as a device, or as a part of what is to be consolidated: another's beside it, if one
/// of them is the first. Of others, as of adapters of rank 8 and rank 16, none is a part.
fn beside_numbered(room: &Path, name: &str) -> Result<Option<(u32, u32, PathBuf)>> {
    let Some((around, rank)) = numbered_file(name) else {
        return Ok(None);
    };
    let files = io::list(room)?.into_iter().filter(|(_, folder)| !folder);
    let others = files.filter_map(|(file, _)| {
        let (alike, other) = numbered_file(&file)?;
        (alike == around && other != rank).then_some((other, file))
    });
    let first = others.min();
    let found = first.filter(|(other, _)| rank == 0 || *other == 0);
    Ok(found.map(|(other, file)| (rank, other, room.join(file))))
}

/// What is around the number of a device in a file's name, and that.
fn numbered_file(name: &str) -> Option<((String, String), u32)> {
    let lower = name.to_ascii_lowercase();
    let words = DEVICES.iter().chain(&["consolidated"]);
    let ends = words.filter_map(|word| Some(lower.rfind(word)? + word.len()));
    // A trainer's steps count behind a dash: what is before may be a device, too.
    let step = || {
        let (before, _) = lower
            .rsplit_once('-')
            .filter(|_| Name::parse(name).is_some())?;
        Some(before.trim_end_matches(|c: char| c.is_ascii_digit()).len())
    };
    let rest = &lower[ends.max().or_else(step)?..];
    let digits = rest.trim_start_matches(['_', '-', '.']);
    let (number, after) = leading_number(digits)?;
    let before = &lower[..lower.len() - digits.len()];
    Some(((before.to_owned(), after.to_owned()), number))
}

/// Words in the names of directories of ranks.
const DEVICES: [&str; 7] = ["rank", "card", "device", "gpu", "npu", "proc", "worker"];

/// What is around the number in the name of a device's directory, and that.
fn numbered(name: &str) -> Option<((&str, &str), u32)> {
    around_number(name).filter(|((before, _), _)| {
        let lower = before.to_ascii_lowercase();
        DEVICES.iter().any(|word| lower.contains(word))
    })
}

/// Whether two files have the same tensors, as far as a sample of the largest tells.
fn alike(path: &Path, schema: &FileSchema, other: &Path) -> Result<bool> {
    let theirs_file = ReadFile::open(other)?;
    let Ok(theirs) = Format::recognise(&theirs_file).and_then(|format| format.read(&theirs_file))
    else {
        // Whoever asks for it will be told what is wrong with it.
        return Ok(true);
    };
    let file = ReadFile::open(path)?;
    let own = schema.entries.iter();
    let mut pairs: Vec<(&Entry, &Entry)> = Vec::new();
    for entry in own {
        match theirs.get(&entry.name) {
            Some(other) if (other.dtype, &other.shape) == (entry.dtype, &entry.shape) => {
                pairs.push((entry, other));
            }
            _ => return Ok(false),
        }
    }
    pairs.sort_by_key(|(entry, _)| Reverse(entry.bytes()));
    for (entry, other) in pairs.into_iter().take(TENSORS_COMPARED) {
        if middle(&file, entry)? != middle(&theirs_file, other)? {
            return Ok(false);
        }
    }
    Ok(theirs.entries.len() == schema.entries.len())
}

/// Bytes from the middle of a tensor, as they lie in its file.
fn middle(file: &ReadFile, entry: &Entry) -> Result<Vec<u8>> {
    let begin = (entry.bytes() / 2).saturating_sub(BYTES_COMPARED / 2);
    let end = (begin + BYTES_COMPARED).min(entry.bytes());
    let mut all = Vec::new();
    entry.locate(begin..end, |offset, part| {
        let mut bytes = zeroed(usize::try_from(part.end - part.start).unwrap_or(usize::MAX))?;
        file.read_at(&mut bytes, offset)?;
        all.extend(bytes);
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_names_in_one_directory_that_differ_in_one_number() {
        for (own, other, due) in [
            ("/a/net_0.ckpt", "/a/net_1.ckpt", Some("net_{rank}.ckpt")),
            ("/a/net_9.ckpt", "/a/net_10.ckpt", Some("net_{rank}.ckpt")),
            ("/a/net_10.ckpt", "/a/net_11.ckpt", Some("net_{rank}.ckpt")),
            ("/a/7.ckpt", "/a/8.ckpt", Some("{rank}.ckpt")),
            ("/a/net_0.ckpt", "/b/net_1.ckpt", None),
            ("/a/net_0.ckpt", "/a/net_0.ckpt", None),
            ("/a/net_0.ckpt", "/a/net_1.safetensors", None),
            ("/a/net_0-1_2.ckpt", "/a/net_1-1_3.ckpt", None),
        ] {
            let found = pattern_of(Path::new(own), Path::new(other));
            assert_eq!(found.as_deref(), due, "{own} and {other}");
        }
    }
}
