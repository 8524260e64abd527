//! What is left of an earlier run of the same job, and how much of it need not be done again.

use crate::catalog::Catalog;
use crate::destination::place::Destination;
use crate::exchange::{Operation, World, agree, all_gather_agreed, all_reduce};
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::plan::work::Skip;
use crate::store::Format;
use crate::store::commit::Left;
use crate::store::io;
use crate::store::manifest::Manifest;
use crate::store::replaceable::Replace;
use crate::transport::{Done, read_journals};
use std::path::Path;

/// How far a site's earlier run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of use is there.
    Fresh,
    /// Files are there, and journals of what is done.
    Begun,
    /// All files are there, to be put in place.
    Staged,
    /// They are in place.
    Placed,
}

const STATES: [State; 4] = [State::Fresh, State::Begun, State::Staged, State::Placed];

/// What this process takes up.
pub(crate) struct Resumed {
    /// How far its site is.
    pub(crate) state: State,
    /// What is done.
    pub(crate) skip: Skip,
    /// What that contributes, on one process of the site.
    pub(crate) done: Done,
    /// For a site that is complete, on the process that leads it.
    pub(crate) manifest: Option<Manifest>,
    /// What the bytes that are written survive, on the process that leads them; none if they are flushed.
    pub(crate) survives: Option<String>,
}

impl Resumed {
    /// Nothing.
    fn fresh() -> Resumed {
        Resumed {
            state: State::Fresh,
            skip: Skip::Nothing,
            done: Done::default(),
            manifest: None,
            survives: None,
        }
    }
}

/// How a job wants its destination prepared.
pub(crate) struct Wanted {
    /// The job's fingerprint.
    pub(crate) job: u64,
    /// Take up what is left of it.
    pub(crate) resume: bool,
    /// What it replaces of what stands at the destination.
    pub(crate) replace: Replace,
    /// Flush what is written.
    pub(crate) flush: bool,
}

/// Looks what is left, and makes an empty staging directory where nothing of use is. Collective.
///
/// # Errors
/// [`Kind::Exists`] for a destination, or leftovers, of another job; [`Kind::Io`].
pub(super) fn take_up(
    world: &World,
    destination: &Destination,
    catalog: &Catalog,
    wanted: &Wanted,
) -> Result<Resumed> {
    let survives = survives(destination, wanted.flush);
    let mut resumed = Resumed::fresh();
    let state = look(destination, wanted, &survives).map(|found| {
        resumed = found;
        resumed.state as u8
    });
    let states = all_gather_agreed(world, state)?;
    resumed.survives = survives.first().filter(|_| !wanted.flush).cloned();
    let state_of = |process: u32| {
        let number = states.get(process as usize).copied().unwrap_or_default();
        STATES.get(usize::from(number)).copied()
    };
    resumed.state = state_of(destination.leader).unwrap_or(State::Fresh);
    let begun = states.contains(&(State::Begun as u8));
    let broken = begun && go_on(world, destination, catalog, &mut resumed)?;
    match resumed.state {
        State::Begun if !broken => {}
        State::Staged | State::Placed => resumed.skip = Skip::All,
        State::Fresh | State::Begun => {
            resumed.state = State::Fresh;
            resumed.skip = Skip::Nothing;
            resumed.done = Done::default();
        }
    }
    let staging = &destination.staging;
    let made = match resumed.state {
        State::Fresh if destination.leads => staging
            .prepare(
                wanted.job,
                survives.first().map_or("", String::as_str),
                destination.denied,
            )
            .and_then(|()| destination.check_room(catalog)),
        State::Begun | State::Staged if destination.leads => staging.own(),
        _ => Ok(()),
    };
    let made = agree(world, made);
    if made.is_err() && resumed.state == State::Fresh {
        destination.discard();
    }
    made.map(|()| resumed)
}

/// Takes up the journals of what is done; whether a file that they tell of is missing somewhere, which makes all
/// of them worthless. Collective.
fn go_on(
    world: &World,
    destination: &Destination,
    catalog: &Catalog,
    resumed: &mut Resumed,
) -> Result<bool> {
    let done = match resumed.state {
        State::Begun => read_journals(&destination.staging.journals(), &destination.site),
        _ => Ok(Done::default()),
    };
    let done = agree(world, done)?;
    resumed.skip = Skip::Some(done.slabs.iter().copied().collect());
    let site = &destination.site;
    if site.division.map_or(site.index == 0, |node| node.first) {
        resumed.done = done;
    }
    let broken = match resumed.state {
        State::Begun if planted(Bug::IntactUnasked) => false,
        State::Begun => !intact(destination, catalog).unwrap_or(false),
        _ => false,
    };
    let mut broken = [u64::from(broken)];
    all_reduce(world, &mut broken, Operation::Max)?;
    Ok(broken[0] != 0)
}

/// What written bytes survive, best first: a crash of the node if they are flushed, else that of the
/// program, until this node starts again.
pub(super) fn survives(destination: &Destination, flush: bool) -> Vec<String> {
    if !destination.leads {
        return Vec::new();
    }
    let boot = io::boot();
    let mut known = vec!["flushed".to_owned()];
    if destination.one_node && !boot.is_empty() {
        known.push(format!("boot {boot}"));
    }
    if !flush {
        known.reverse();
        if known.len() == 1 {
            known.insert(0, "nothing".to_owned());
        }
    }
    known
}

/// What bytes that are there need have survived to be believed. Local.
pub(super) fn survived(survives: &[String]) -> Vec<String> {
    let known = survives.iter().filter(|known| *known != "nothing");
    known.cloned().collect()
}

/// What the leader of a destination finds. Local.
fn look(destination: &Destination, wanted: &Wanted, survives: &[String]) -> Result<Resumed> {
    let mut found = Resumed::fresh();
    if !destination.leads {
        return Ok(found);
    }
    let staging = &destination.staging;
    staging.recover()?;
    let survives = survived(survives);
    if wanted.resume
        && let Some(manifest) = staging.placed(wanted.job, &survives)?
    {
        refuse_others(&manifest, staging.destination())?;
        found.state = State::Placed;
        found.manifest = Some(manifest);
        return Ok(found);
    }
    staging.check(wanted.replace)?;
    if !wanted.resume {
        return Ok(found);
    }
    match staging.left(wanted.job, &survives)? {
        Left::Nothing | Left::Unknown => {}
        Left::Begun => found.state = State::Begun,
        Left::Complete(manifest) => {
            found.state = State::Staged;
            found.manifest = Some(*manifest);
        }
        Left::Another => {
            let message = "is left of another job, or its source has changed since";
            let fault = Fault::new(Kind::Exists, message);
            return Err(fault
                .file(staging.partial().display().to_string())
                .hint("without --resume it is discarded"));
        }
    }
    Ok(found)
}

/// Refuses a result beside whose files lie weights that `manifest` doesn't list: who reads it may take those. Local.
///
/// # Errors
/// [`Kind::Exists`] naming the first.
fn refuse_others(manifest: &Manifest, directory: &Path) -> Result<()> {
    let others = manifest.others(directory, |path| Format::of(path).is_some())?;
    let Some(other) = others.into_iter().next() else {
        return Ok(());
    };
    let message = format!("is finished, and has {other}, weights that its run hasn't written");
    let fault = Fault::new(Kind::Exists, message).file(directory.display().to_string());
    Err(fault.hint("move that file away"))
}

/// Whether the files that fall to this process are there in full size. Local.
fn intact(destination: &Destination, catalog: &Catalog) -> Result<bool> {
    for file in destination.own_files(catalog) {
        let path = destination.staging.partial().join(&file.path);
        if io::size(&path)? != Some(file.schema.size) {
            return Ok(false);
        }
    }
    Ok(true)
}
