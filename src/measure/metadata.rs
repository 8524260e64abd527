//! What a file system does with many small files, and what a commit needs of it.

use crate::course;
use crate::exchange::{World, agree};
use crate::fault::Result;
use crate::measure::bench::{Repeat, Row};
use crate::measure::sampling::{is_over, timed};
use crate::store::ability::{self, Ability};
use crate::store::io::{self, ReadFile};
use std::path::Path;
use std::time::{Duration, Instant};

/// A step with all files: what it is called, and what becomes of one of them.
type Step = (&'static str, fn(&Path, u32) -> Result<()>);

const STEPS: &[Step] = &[
    ("create", |room, file| {
        io::write_small(&room.join(file.to_string()), b"1", false)
    }),
    ("open", |room, file| {
        ReadFile::open(&room.join(file.to_string())).map(|_| ())
    }),
    ("stat", |room, file| {
        io::size(&room.join(file.to_string())).map(|_| ())
    }),
    ("list", |room, file| match file {
        0 => io::list(room).map(|_| ()),
        _ => Ok(()),
    }),
    ("rename", |room, file| {
        let name = room.join(file.to_string());
        io::rename(&name, &name.with_extension("renamed"))
    }),
    ("unlink", |room, file| {
        let name = room.join(file.to_string());
        io::remove(&name.with_extension("renamed"))
    }),
];

/// Each process creates, opens, asks for, lists, renames and removes so many small `files` in a directory of its
/// own; the rates are of all processes. And what there is, and what is missing, of what a commit needs, in words.
/// Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub(super) fn metadata(
    world: &World,
    repeat: Repeat,
    directory: &Path,
    files: u32,
) -> Result<(Vec<Row>, Vec<String>)> {
    let room = directory.join(format!("shardloom-bench-files-{}", world.process()));
    let _scratch = course::tries_with(&room);
    agree(world, io::make_directory(&room))?;
    let mut spent = vec![Vec::new(); STEPS.len()];
    let mut failed = Ok(());
    let begun = Instant::now();
    for _ in 0..repeat.iterations.min(5) {
        for ((_, act), spent) in STEPS.iter().zip(&mut spent) {
            let start = Instant::now();
            let done = (0..files).try_for_each(|file| act(&room, file));
            failed = failed.and(done);
            spent.push(start.elapsed());
        }
        if is_over(world, begun, repeat.time)? {
            break;
        }
    }
    let able = able(&room);
    let removed = io::remove_directory(&room);
    let able = agree(world, failed.and(removed).and(able))?;
    let mut rows = Vec::new();
    for ((name, _), spent) in STEPS.iter().zip(&spent) {
        let times = if *name == "list" { 1 } else { files };
        let each: Vec<Duration> = spent.iter().map(|time| *time / times).collect();
        let mut row = Row::new(name, 0, timed(world, &each)?, 0, 1.0);
        row.processes = world.size();
        if row.seconds.median > 0.0 {
            let rate = f64::from(world.size()) / row.seconds.median;
            row.operations_per_second = Some(rate);
        }
        rows.push(row);
    }
    Ok((rows, able))
}

/// What this file system can and can't do of what a commit makes use of.
fn able(room: &Path) -> Result<Vec<String>> {
    let abilities = ability::each(room)?.into_iter();
    let (lacks, has): (Vec<Ability>, Vec<Ability>) =
        abilities.partition(|ability| ability.lacking.is_some());
    let told = |ability: Ability| match ability.way_round {
        Some(way) => format!("it can't {} here: {way}", ability.what),
        None => format!("it can't {} here, and nothing can be written", ability.what),
    };
    let has: Vec<&str> = has.iter().map(|ability| ability.what).collect();
    let has =
        (!has.is_empty()).then(|| format!("of what a commit needs it can {} here", has.join(", ")));
    Ok(has.into_iter().chain(lacks.into_iter().map(told)).collect())
}
