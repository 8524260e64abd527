//! What must hold after a run.

use super::case::{Case, Doing};
use super::room::{Kept, Nodes, has, holds, inside, listed, models, old};
use super::tensors::{self, Tensors};
use crate::fault::Fault;
use crate::host::cluster::ill::Ill;
use crate::host::cluster::{End, Run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a process gives.
pub(super) type Ended = std::result::Result<(), Fault>;

/// What stands at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Nothing,
    Old,
    New,
}

/// Looks what stands at the destination of a node.
fn stands(case: &Case, nodes: &Nodes, node: usize) -> Result<Stands, String> {
    let root = &nodes.roots[node];
    let place = root.join(if case.doing == Doing::InPlace {
        "src"
    } else {
        "out"
    });
    if !place.exists() {
        return Ok(Stands::Nothing);
    }
    let found = listed(&place);
    if found.is_empty() {
        return Ok(Stands::Nothing);
    }
    let before = match case.doing {
        Doing::Overwrite => old(),
        Doing::InPlace => inside(&nodes.before[node], "src"),
        _ => Kept::new(),
    };
    if holds(&place, &before) {
        return Ok(Stands::Old);
    }
    if !found.contains(Path::new("shardloom.json")) {
        return Err(format!("half a destination: {found:?}"));
    }
    Ok(Stands::New)
}

/// A model, and its rank; none: its full weights.
type Of = (usize, Option<usize>);

/// Files that were found to be right, of each model and rank, or its full weights. Another one of the same bytes is
/// right, too, and most seeds give just these.
static RIGHT: Mutex<BTreeMap<Of, Vec<Arc<[u8]>>>> = Mutex::new(BTreeMap::new());

/// Checks that one file is there, and has these tensors.
fn check(files: &[PathBuf], key: Of, expected: &Tensors) -> Result<(), String> {
    let [file] = files else {
        return Err(format!("{} files", files.len()));
    };
    let all = || RIGHT.lock().unwrap_or_else(PoisonError::into_inner);
    let known = all().get(&key).cloned().unwrap_or_default();
    if known.iter().any(|bytes| has(file, bytes)) {
        return Ok(());
    }
    tensors::compare(expected, &tensors::read(file)?.tensors)?;
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    all().entry(key).or_default().push(bytes.into());
    Ok(())
}

/// Whether the new files of all nodes together are what the layout says.
fn right(case: &Case, nodes: &Nodes) -> Result<(), String> {
    let model = &models()[case.model];
    let name = if case.doing == Doing::InPlace {
        "src"
    } else {
        "out"
    };
    let places: Vec<PathBuf> = nodes.roots.iter().map(|root| root.join(name)).collect();
    if case.doing == Doing::Unify {
        let all = places
            .iter()
            .flat_map(|place| listed(place).into_iter().map(|path| place.join(path)));
        let is_weights = |path: &PathBuf| path.extension().is_some_and(|end| end == "safetensors");
        let files: Vec<PathBuf> = all.filter(is_weights).collect();
        return check(&files, (case.model, None), &model.whole);
    }
    for (rank, expected) in model.shards.iter().enumerate() {
        let inside = format!("rank_{rank}/net.safetensors");
        let paths = places.iter().map(|place| place.join(&inside));
        let files: Vec<PathBuf> = paths.filter(|path| path.exists()).collect();
        check(&files, (case.model, Some(rank)), expected)
            .map_err(|error| format!("rank {rank}: {error}"))?;
    }
    Ok(())
}

/// What is wrong after a run.
pub(super) fn judge(case: &Case, nodes: &Nodes, run: &Run<Ended>) -> Vec<String> {
    let mut bad = run.findings.clone();
    let heavy = |ill: Ill| matches!(ill, Ill::Lost | Ill::AllLost | Ill::Stopped);
    let killed = run.events.iter().any(|event| heavy(event.ill));
    let mut told: Vec<Option<String>> = Vec::new();
    for (process, end) in run.ends.iter().enumerate() {
        match end {
            End::Done(Ok(())) => told.push(None),
            End::Done(Err(fault)) => told.push(Some(format!("{fault}"))),
            End::Killed if killed || !run.findings.is_empty() => {}
            End::Killed => bad.push(format!("process {process} ends without a word")),
        }
    }
    if told.windows(2).any(|pair| pair[0] != pair[1]) && !killed {
        bad.push(format!("processes tell different stories: {told:?}"));
    }
    let light = run.events.iter().all(|event| event.ill.is_light()) && case.rot.is_none();
    if light && told.iter().any(Option::is_some) {
        bad.push(format!("fails where it should get over it: {told:?}"));
    }
    let succeeded = told.iter().any(Option::is_none);
    let found: Result<Vec<Stands>, String> = (0..nodes.roots.len())
        .map(|node| stands(case, nodes, node))
        .collect();
    match found {
        Err(error) => bad.push(error),
        Ok(found) => {
            let new = found.contains(&Stands::New);
            let all = found.iter().all(|stands| *stands == Stands::New) || case.own_disks;
            if succeeded && !(new && all) {
                bad.push(format!("success without a result: {found:?}"));
            }
            // Each node puts its own in place: together they are whole when all have.
            let whole = new && (succeeded || !case.own_disks);
            if whole && let Err(error) = right(case, nodes) {
                bad.push(format!("wrong bytes: {error}"));
            }
            let gone = matches!(case.doing, Doing::Overwrite | Doing::InPlace);
            if gone && !case.own_disks && found.contains(&Stands::Nothing) {
                bad.push("the old is gone".to_owned());
            }
        }
    }
    if case.doing != Doing::InPlace && !nodes.keep_sources() {
        bad.push("the source has changed".to_owned());
    }
    bad
}

/// What is wrong after a run that nothing disturbed.
pub(super) fn judge_clean(case: &Case, nodes: &Nodes, run: &Run<Ended>) -> Vec<String> {
    let mut bad = run.findings.clone();
    for end in &run.ends {
        if !matches!(end, End::Done(Ok(()))) {
            bad.push(format!("the next run fails: {end:?}"));
        }
    }
    if let Err(error) = right(case, nodes) {
        bad.push(format!("after the next run: {error}"));
    }
    for root in &nodes.roots {
        for entry in std::fs::read_dir(root).expect("a root").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // What a run that was killed had under names of its own is small, and in nobody's way.
            let own = ["-heir", "shardloom-lock-", "shardloom-probe-"];
            if name.starts_with('.') && !own.iter().any(|own| name.contains(own)) {
                bad.push(format!("{name} stays"));
            }
        }
    }
    bad
}
