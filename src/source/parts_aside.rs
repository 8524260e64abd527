//! Whether a rank's file is one of several that are read together, and was taken for the newest of steps.

use crate::catalog::{FileSchema, ShardFile};
use crate::fault::{Fault, Kind, Result};
use crate::source::found::Source;
use crate::source::meta::Name;
use crate::store::Format;
use crate::store::io::{self, ReadFile};
use crate::store::rank_dir::rank_of;
use std::collections::HashSet;

/// Refuses the file of the lowest rank, which was chosen among others by its number, if one of these has tensors of which
/// it has none: of another step it would have the same ones. Names that trainers give tell steps. Of what a pattern names
/// (`named`) only what is called alike but for a number. Local.
///
/// # Errors
/// [`Kind::Ambiguous`] naming both.
pub(crate) fn refuse(source: &Source, named: bool) -> Result<()> {
    let Some((rank, [own])) = source
        .catalog
        .ranks
        .first_key_value()
        .map(|(rank, files)| (rank, &files[..]))
    else {
        return Ok(());
    };
    let here = source.reach.owner(*rank) == Some(source.reach.process);
    let Some((room, name)) = own
        .path
        .rsplit_once('/')
        .filter(|(room, _)| here && rank_of(room).is_some())
    else {
        return Ok(());
    };
    if source.told.is_some() || Name::parse(name).is_some() {
        return Ok(());
    }
    let inside = io::list(&source.base.join(room))?;
    let files = inside
        .iter()
        .filter(|(_, folder)| !folder)
        .map(|(file, _)| file.as_str());
    for other in Format::weights(files) {
        if other != name
            && Name::parse(other).is_none()
            && !(named && with_part(name, other).is_none())
            && is_other_part(source, own, &format!("{room}/{other}"))
        {
            return Err(refused(source, name, (room, other), named));
        }
    }
    Ok(())
}

/// Whether the file at `path` has tensors, and none that `own` has. One that can't be read is none of a checkpoint's.
fn is_other_part(source: &Source, own: &ShardFile, path: &str) -> bool {
    let read = ReadFile::open(&source.base.join(path))
        .and_then(|file| Format::recognise(&file)?.read(&file));
    let Ok(other) = read else { return false };
    let (own, other) = (tensors(&own.schema), tensors(&other));
    !own.is_empty() && !other.is_empty() && own.is_disjoint(&other)
}

/// Its tensors, but what a job counts.
fn tensors(schema: &FileSchema) -> HashSet<&str> {
    let entries = schema.entries.iter();
    let entries = entries.filter(|entry| entry.shape.0.iter().product::<u64>() > 1);
    entries.map(|entry| &*entry.name).collect()
}

fn refused(source: &Source, name: &str, (room, other): (&str, &str), named: bool) -> Fault {
    let path = source.base.join(room).join(other);
    let message =
        format!("has other tensors than {name} beside it: the files are parts, and no steps");
    let base = source.base.display();
    let pattern = with_part(name, other).map(|name| with_rank(&name, room)).map_or_else(
        || format!("name them by numbers: '{base}/rank_{{rank}}/net-{{part}}.safetensors' reads all parts of each rank"),
        |name| format!("'{base}/rank_{{rank}}/{name}' reads all parts of each rank"),
    );
    Fault::new(Kind::Ambiguous, message)
        .file(path.display().to_string())
        .hint(match named {
            true => format!("{pattern}; --verify none takes one of them alone"),
            false => format!("{pattern}; --file-suffix takes one of them alone"),
        })
}

/// Both names with `{part}` in the place of the number by which they differ.
fn with_part(one: &str, other: &str) -> Option<String> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut places = one.char_indices().filter(|(at, c)| {
        c.is_ascii_digit() && !one[..*at].ends_with(|before: char| before.is_ascii_digit())
    });
    places.find_map(|(at, _)| {
        let rest = other.strip_prefix(&one[..at])?;
        let (own, theirs) = (digits(&one[at..]), digits(rest));
        let same = theirs > 0 && one[at + own..] == rest[theirs..];
        same.then(|| format!("{}{{part}}{}", &one[..at], &rest[theirs..]))
    })
}

/// The same with `{rank}` in the place of the number of the rank whose directory is `room`, where it is called a rank's.
fn with_rank(name: &str, room: &str) -> String {
    let Some(rank) = rank_of(room.rsplit('/').next().unwrap_or(room)) else {
        return name.to_owned();
    };
    let mut all = name.to_owned();
    for word in ["rank_", "rank-", "rank"] {
        let (own, place) = (format!("{word}{rank}"), format!("{word}{{rank}}"));
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
        if let Some((before, rest)) = all.split_once(&own).filter(|(_, rest)| ends(rest)) {
            all = format!("{before}{place}{rest}");
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_the_number_in_which_they_differ() {
        let name = |one, other| with_part(one, other);
        let found = name(
            "m-00001-of-00002.safetensors",
            "m-00002-of-00002.safetensors",
        );
        assert_eq!(found.as_deref(), Some("m-{part}-of-00002.safetensors"));
        assert_eq!(
            name("net_9.ckpt", "net_10.ckpt").as_deref(),
            Some("net_{part}.ckpt")
        );
        assert_eq!(name("layers.ckpt", "rest.ckpt"), None);
        for (name, due) in [
            ("part{part}_rank0.ckpt", "part{part}_rank{rank}.ckpt"),
            (
                "net_rank_0_part{part}.ckpt",
                "net_rank_{rank}_part{part}.ckpt",
            ),
            ("shard{part}-of-2.rank0", "shard{part}-of-2.rank{rank}"),
            ("rank01-{part}.ckpt", "rank01-{part}.ckpt"),
        ] {
            assert_eq!(with_rank(name, "a/rank_0"), due);
        }
        assert_eq!(name("a1.ckpt", "b2.ckpt"), None);
    }
}
