//! Where the links lead that lie with a run's checkpoints: what they lead to stays with them.

use crate::exchange::{Topology, World, agree, all_gather};
use crate::fault::Result;
use crate::source::meta::{NETWORK, TRAINABLE};
use crate::source::saved::{Checkpoint, Survey};
use crate::store::io::{self, Standing};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// So many links may lead from one to the next.
const HOPS_MAX: usize = 40;

/// A link, and all that it leads to and through, by path inside the surveyed directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Led {
    link: String,
    to: Vec<String>,
}

/// The links in the surveyed directory and its own, and in what lies beside it with weights of the same checkpoints.
/// Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Io`].
pub fn led(world: &World, topology: &Topology, survey: &Survey) -> Result<Vec<Led>> {
    let mine = match topology.leads(world.process()) {
        true => look(&survey.directory),
        false => Ok(Vec::new()),
    };
    let mine = agree(world, mine)?;
    let all = all_gather(world, &mine)?.into_iter().flatten();
    let all: BTreeSet<(String, Vec<String>)> = all.collect();
    Ok(all.into_iter().map(|(link, to)| Led { link, to }).collect())
}

/// Of `removed` those to which no link leads that stays; and of the others why they stay.
#[must_use]
pub fn unled<'a>(
    mut removed: Vec<&'a Checkpoint>,
    led: &[Led],
    companions: impl Fn(&Checkpoint) -> Vec<String>,
) -> (Vec<&'a Checkpoint>, Vec<String>) {
    let mut stays = Vec::new();
    let has = |old: &Checkpoint, path: &str| {
        let inside = |own: &String| path == own || path.starts_with(&format!("{own}/"));
        old.directory.as_ref().is_some_and(inside)
            || old
                .files
                .iter()
                .chain(&companions(old))
                .any(|file| file == path)
    };
    loop {
        let goes = |path: &str| removed.iter().any(|old| has(old, path));
        let kept = led.iter().filter(|led| !goes(&led.link));
        let kept: Vec<&Led> = kept.collect();
        let leads = |old: &Checkpoint| {
            let leads = |led: &&&Led| led.to.iter().any(|path| has(old, path));
            kept.iter().find(leads).map(|led| led.link.clone())
        };
        let found = removed.iter().enumerate();
        let mut found = found.filter_map(|(index, old)| Some((index, leads(old)?)));
        let Some((index, link)) = found.next_back() else {
            return (removed, stays);
        };
        let old = removed.remove(index);
        stays.push(format!("{} stays: {link} leads to it", old.name.suffix()));
    }
}

/// The links of a directory as [`led`] tells them. Local.
fn look(directory: &Path) -> Result<Vec<(String, Vec<String>)>> {
    if io::standing(directory)? != Standing::Directory {
        return Ok(Vec::new());
    }
    let base = io::resolve(directory)?;
    let mut rooms = vec![String::new()];
    rooms.extend(rooms_in(&base, "")?);
    if directory.ends_with("checkpoint") {
        rooms.push("..".to_owned());
        for (beside, _) in [NETWORK, TRAINABLE] {
            let beside = format!("../{beside}");
            rooms.extend(rooms_in(&base, &beside)?);
            rooms.push(beside);
        }
    }
    let mut found = Vec::new();
    for room in rooms {
        let place = base.join(&room);
        if io::standing(&place)? != Standing::Directory {
            continue;
        }
        for (name, _) in io::list(&place)? {
            let link = match room.as_str() {
                "" => name.clone(),
                room => format!("{room}/{name}"),
            };
            let to = leads_to(&base, &place.join(&name))?;
            if !to.is_empty() {
                found.push((link, to));
            }
        }
    }
    Ok(found)
}

/// The directories, no links, in `base`/`inside`, by path inside `base`. Local.
fn rooms_in(base: &Path, inside: &str) -> Result<Vec<String>> {
    let place = base.join(inside);
    if io::standing(&place)? != Standing::Directory {
        return Ok(Vec::new());
    }
    let mut rooms = Vec::new();
    for (name, is_directory) in io::list(&place)? {
        if is_directory && io::link_target(&place.join(&name))?.is_none() {
            rooms.push(match inside {
                "" => name,
                inside => format!("{inside}/{name}"),
            });
        }
    }
    Ok(rooms)
}

/// All that the link at `path` leads to, one link after the other. Local.
fn leads_to(base: &Path, path: &Path) -> Result<Vec<String>> {
    let mut to = Vec::new();
    let mut path = path.to_path_buf();
    while let Some(target) = io::link_target(&path)?
        && to.len() < HOPS_MAX
    {
        let next = path.parent().unwrap_or(base).join(target);
        // What leads nowhere holds nothing.
        let Some(real) = entered(&next) else {
            break;
        };
        to.extend(told(base, &real));
        path = real;
    }
    Ok(to)
}

/// `path` with the links of its directories resolved, and not its last. Local.
fn entered(path: &Path) -> Option<PathBuf> {
    match (path.components().next_back()?, path.parent()) {
        (Component::Normal(name), Some(parent)) => Some(io::resolve(parent).ok()?.join(name)),
        _ => io::resolve(path).ok(),
    }
}

/// How the surveyed directory `base` calls what stands at `path`, in it or beside it.
fn told(base: &Path, path: &Path) -> Option<String> {
    let inside = |room: &Path| Some(path.strip_prefix(room).ok()?.to_str()?.to_owned());
    let beside = || Some(format!("../{}", inside(base.parent()?)?));
    inside(base).or_else(beside)
}
