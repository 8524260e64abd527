//! What stands after a cut, and what the next run makes of it.

use crate::Asked;
use crate::cut::{Cuts, State};
use crate::dice::Dice;
use crate::disk::{Disk, Kind, Node, Step, children};
use crate::place::{Image, hidden, image};
use shardloom::World;
use shardloom::checkpoint::monitor::{CheckpointMonitor, MonitorConfig};
use shardloom::exchange::Topology;
use shardloom::source::latest::latest;
use shardloom::source::survey::survey;
use shardloom::tensor::dtype::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The next run on each state.
pub struct Next<'a> {
    pub asked: &'a Asked,
    pub world: &'a World,
    /// What stood at the destination before, and what stands there in the end.
    pub old: Option<Image>,
    pub new: Image,
}

/// What was seen, for counting; or what is wrong.
type Seen = Result<Vec<String>, String>;

impl Next<'_> {
    /// Looks at a state that is placed at `root`, and runs on it.
    pub fn look(&self, cuts: &Cuts<'_>, state: &State, root: &Path, dice: &mut Dice) -> Seen {
        match self.asked.kind.as_str() {
            "job" | "place" | "loose" => self.job(cuts, state, root, dice),
            "prune" => self.prune(root),
            "save" => self.save(cuts, state, root, dice),
            other => panic!("{other} is no kind"),
        }
    }

    fn destination(&self, root: &Path) -> PathBuf {
        root.join(&self.asked.destination)
    }

    /// What stands at the destination, in a word.
    fn stands(&self, root: &Path) -> Result<&'static str, String> {
        let mut found = image(&self.destination(root));
        if let Some(found) = found.as_mut().filter(|_| self.asked.kind == "loose") {
            // Nothing is flushed, so what a run kept beside its files may be back in a result that is whole: nobody reads it.
            let own = |path: &Path| path.to_string_lossy().starts_with(".shardloom-");
            found.retain(|path, _| !own(path));
        }
        if found.as_ref() == Some(&self.new) {
            return Ok("new");
        }
        if found == self.old {
            return Ok("old");
        }
        let Some(found) = found else {
            // Where nothing can be swapped the old is aside for a moment.
            let name = self.destination(root);
            let aside = format!(
                ".{}.shardloom-old",
                name.file_name().expect("a name").display()
            );
            let aside = image(&name.with_file_name(aside));
            return match aside == self.old {
                true => Ok("aside"),
                false => Err("the old contents are gone".into()),
            };
        };
        let old = self.old.as_ref();
        let old = old.filter(|_| !found.contains_key(Path::new("shardloom.json")));
        let other = old.unwrap_or(&self.new);
        Err(format!(
            "what stands there is neither: {}",
            difference(&found, other)
        ))
    }

    fn job(&self, cuts: &Cuts<'_>, state: &State, root: &Path, dice: &mut Dice) -> Seen {
        let loose = self.asked.kind == "loose";
        let mut seen = Vec::new();
        let stands = match self.stands(root) {
            Err(why) if !loose => return Err(why),
            // Whoever asks is told that it is damaged.
            Err(why) => {
                let verified = shardloom::verify(self.world, self.destination(root));
                match verified {
                    Ok(outcome) if outcome.ok => return Err(format!("nobody notices: {why}")),
                    _ => "damaged",
                }
            }
            Ok(stands) => stands,
        };
        seen.push(stands.to_owned());
        if state.cut == cuts.disk.steps.len() && stands != "new" && !loose {
            return Err(format!(
                "all was done, and the {stands} contents stand there"
            ));
        }
        let mut words = self.asked.words(root);
        let has = |flag: &str| words.iter().any(|word| word == flag);
        let (overwrites, in_place) = (has("--overwrite"), has("--in-place"));
        // Without either what stands there is refused.
        let must = stands != "old" && stands != "aside" && !overwrites && !in_place;
        let resumes = has("--resume") || dice.of_hundred(50) || (must && !loose);
        if resumes && !has("--resume") {
            words.push("--resume".into());
        }
        if must && loose && !overwrites {
            words.push("--overwrite".into());
        }
        seen.push(if resumes { "resumed" } else { "begun anew" }.to_owned());
        match self.run(&words) {
            // What is not known for a result is kept, and told of: somebody has to move it away.
            Err(why) if stands == "damaged" && why.contains("no earlier run has written") => {
                seen.push("moved away".to_owned());
                std::fs::remove_dir_all(self.destination(root)).expect("it stands");
                self.run(&words)?;
            }
            ran => ran?,
        }
        match self.stands(root) {
            Ok("new") => {}
            Err(_) if loose && self.is_new_by_its_manifest(root) => {}
            Ok(other) => return Err(format!("after the next run ({words:?}): the {other} one")),
            Err(why) => return Err(format!("after the next run ({words:?}): {why}")),
        }
        self.litter(root, &mut seen)?;
        Ok(seen)
    }

    /// Whether all stands there but for what the manifest says of when it was written.
    fn is_new_by_its_manifest(&self, root: &Path) -> bool {
        let manifest = Path::new("shardloom.json");
        let without = |image: &Image| {
            let mut image = image.clone();
            image.remove(manifest);
            image
        };
        let found = image(&self.destination(root)).unwrap_or_default();
        let verified = shardloom::verify(self.world, self.destination(root));
        without(&found) == without(&self.new) && verified.is_ok_and(|outcome| outcome.ok)
    }

    fn run(&self, words: &[String]) -> Result<(), String> {
        match shardloom::cli::within(self.world, words) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("the next run ({words:?}) finds a difference")),
            Err(fault) => Err(format!(
                "the next run ({words:?}) fails: {fault}: {:?}",
                fault.hint
            )),
        }
    }

    /// Weights that a dead run has staged must not stay; small files with names of their own may.
    fn litter(&self, root: &Path, seen: &mut Vec<String>) -> Result<(), String> {
        let stays = hidden(root);
        for path in &stays {
            let name = path.to_string_lossy();
            let mut small = name.contains(".shardloom-lock") || name.contains(".shardloom-probe");
            // In a result that nobody has flushed nobody reads it.
            let inside = path.strip_prefix(&self.asked.destination).is_ok();
            small |= inside && self.asked.kind == "loose";
            if !small {
                return Err(format!("{name} stays"));
            }
        }
        if !stays.is_empty() {
            seen.push("small files stay".to_owned());
        }
        Ok(())
    }

    /// The newest complete checkpoint below `directory`: its step.
    fn newest(&self, directory: &Path, ranks: Option<u32>) -> Result<u64, String> {
        let topology = Topology::discover(self.world).map_err(|fault| fault.to_string())?;
        let survey = survey(self.world, &topology, directory, ranks, true);
        let survey = survey.map_err(|fault| fault.to_string())?;
        latest(&survey)
            .map(|found| found.name.step)
            .map_err(|fault| fault.to_string())
    }

    fn prune(&self, root: &Path) -> Seen {
        let place = self.destination(root);
        let before = self.newest(
            &self.asked.room.join("work").join(&self.asked.destination),
            None,
        )?;
        let now = self.newest(&place, None)?;
        if now != before {
            return Err(format!("step {now} is the newest, {before} was"));
        }
        let all = image(&place).unwrap_or_default();
        let lost = self
            .new
            .iter()
            .find(|(path, bytes)| all.get(*path) != Some(bytes));
        if let Some((path, _)) = lost {
            return Err(format!("{} is lost, which should stay", path.display()));
        }
        self.run(&self.asked.words(root))?;
        let mut all = image(&place).unwrap_or_default();
        all.retain(|path, _| !path.to_string_lossy().contains(".shardloom"));
        match all == self.new {
            true => Ok(vec!["pruned".into()]),
            false => Err(format!(
                "after the next run: {}",
                difference(&all, &self.new)
            )),
        }
    }

    fn save(&self, cuts: &Cuts<'_>, state: &State, root: &Path, dice: &mut Dice) -> Seen {
        whole(cuts.disk, state)?;
        let words = self.asked.words(root);
        let [_, source, _, config, _, last, ..] = words.as_slice() else {
            panic!("monitor_check OUTPUT STATE STRATEGY CONFIG FIRST LAST")
        };
        let ranks = std::fs::read_dir(source).expect("a state").count() as u32;
        let place = self.destination(root).join("checkpoint");
        let promised = promised(cuts.disk, state, ranks);
        let found = self.newest(&place, Some(ranks));
        let found = match found {
            Err(_) if promised == 0 => 0,
            Err(why) => return Err(format!("step {promised} was recorded: {why}")),
            Ok(found) if found < promised => {
                return Err(format!("step {found} is found, {promised} was recorded"));
            }
            Ok(found) => found,
        };
        let mut seen = vec![format!("step {found}")];
        let last: u64 = last.parse().expect("a step");
        if ranks == 1 {
            self.train(&self.destination(root), source, config, last)?;
        } else if dice.below(self.asked.count) < 2 {
            // Several processes are slow to start: now and then.
            if !self.asked.launch(root, None) {
                return Err("the next training fails".into());
            }
            seen.push("trained on".into());
        } else {
            return Ok(seen);
        }
        match self.newest(&place, Some(ranks)) {
            Ok(step) if step >= last => Ok(seen),
            other => Err(format!("after the next training: {other:?}")),
        }
    }

    /// A training of one rank that goes on.
    fn train(&self, output: &Path, source: &str, config: &str, last: u64) -> Result<(), String> {
        let bytes =
            std::fs::read(Path::new(source).join("rank_0/net.safetensors")).expect("a state");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let owned: Vec<(String, Vec<u64>, safetensors::Dtype, &[u8])> = tensors
            .iter()
            .map(|(name, view)| {
                let shape = view.shape().iter().map(|dim| *dim as u64).collect();
                (name.to_owned(), shape, view.dtype(), view.data())
            })
            .collect();
        let described = owned.iter().map(|(name, shape, dtype, bytes)| {
            let dtype = Dtype::from_safetensors(&dtype.to_string()).expect("a type");
            shardloom::monitor::StateTensor::new(name, dtype, shape, bytes)
        });
        let described: Vec<_> = described.collect();
        let words = |fault: shardloom::Fault| format!("the next training: {fault}");
        let config = MonitorConfig::parse(config).map_err(words)?;
        let mut monitor =
            CheckpointMonitor::new(self.world, config, output, None).map_err(words)?;
        let at = |step: u64| shardloom::monitor::State::new(&described, step);
        for step in last + 1..=last + 2 {
            monitor.step(self.world, || at(step)).map_err(words)?;
        }
        monitor.finish(self.world, &at(last + 2)).map_err(words)
    }
}

/// The first path in which two images differ.
fn difference(found: &Image, due: &Image) -> String {
    let paths: std::collections::BTreeSet<&PathBuf> = found.keys().chain(due.keys()).collect();
    let differs = |path: &&&PathBuf| found.get(**path) != due.get(**path);
    let Some(path) = paths.iter().find(differs) else {
        return "nothing differs".into();
    };
    let bytes = |image: &Image| match image.get(*path) {
        None => "nothing".to_owned(),
        Some(None) => "a directory".to_owned(),
        Some(Some(bytes)) => format!("{} bytes", bytes.len()),
    };
    format!(
        "{}: {}, due is {}",
        path.display(),
        bytes(found),
        bytes(due)
    )
}

/// Every file under its own name is as it was when all was written.
fn whole(disk: &Disk, state: &State) -> Result<(), String> {
    let mut open: Vec<(Node, PathBuf)> = vec![(disk.root, PathBuf::new())];
    while let Some((directory, path)) = open.pop() {
        for (name, node) in children(&state.names, directory) {
            let name = String::from_utf8_lossy(name).into_owned();
            let path = path.join(&name);
            match disk.inodes[node].kind {
                Kind::Directory => open.push((node, path)),
                Kind::File if !name.ends_with(".tmp") && !name.starts_with('.') => {
                    let due = disk.bytes(node, disk.steps.len(), |_| true);
                    if state.contents[&node].bytes != due {
                        return Err(format!("{} is not whole", path.display()));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The newest step that all `ranks` have recorded for good: the oldest of what their last flushed
/// `meta.json` name.
fn promised(disk: &Disk, state: &State, ranks: u32) -> u64 {
    let mut recorded: BTreeMap<Node, u64> = BTreeMap::new();
    let mut waiting: BTreeMap<Node, u64> = BTreeMap::new();
    let mut flushes: BTreeMap<&str, (Node, u64)> = BTreeMap::new();
    for told in &disk.steps[..state.cut.saturating_sub(1)] {
        match &told.step {
            Step::Names(changes) => {
                for (directory, name, node) in changes {
                    if let (b"meta.json", Some(node)) = (name.as_slice(), node) {
                        let bytes = disk.bytes(*node, disk.steps.len(), |_| true);
                        let meta: serde_json::Value =
                            serde_json::from_slice(&bytes).expect("a record");
                        waiting.insert(*directory, meta["last_step"].as_u64().expect("a step"));
                    }
                }
            }
            Step::Begin(node, number) => {
                if let Some(step) = waiting.get(node) {
                    flushes.insert(number, (*node, *step));
                }
            }
            Step::End(number) => {
                if let Some((node, step)) = flushes.remove(number.as_str()) {
                    recorded.insert(node, step);
                }
            }
            _ => {}
        }
    }
    match recorded.len() == ranks as usize {
        true => recorded.into_values().min().unwrap_or(0),
        false => 0,
    }
}
