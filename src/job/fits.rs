//! Whether a source is what its strategy and its manifests say.

use crate::exchange::{Topology, World, agree, all_gather_agreed};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::job::copies::{self, Compared, Stranger};
use crate::job::origin::Origin;
use crate::job::spec::{Goal, Job};
use crate::job::unsaved;
use crate::plan::build::{Leftovers, Unmatched};
use crate::plan::unmatched::near;
use crate::source::{
    Opened, Reading, Verify, Weights, Which, fragment, lies, parts_aside, pattern,
};
use crate::store::manifest::{Manifest, NAME};
use crate::strategy::StrategyInput;
use std::borrow::Cow;
use std::sync::Arc;

/// What is known of a source that fits.
pub(super) struct Fitted {
    /// What its manifests say of it.
    pub(super) origin: Origin,
    /// How copies were compared, or which differ: to be told once all is planned, since a plan that can't
    /// be made says more of what is wrong. The same on every process.
    compared: Result<Compared>,
}

impl Fitted {
    /// How copies were compared. Local.
    ///
    /// # Errors
    /// [`Kind::Differs`] naming the tensor and ranks, the same on every process.
    pub(super) fn compared(&self) -> Result<Compared> {
        self.compared.clone()
    }
}

/// Checks it. Tensors that are left out because the strategy doesn't know them are taken from its
/// inventory. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Differs`], [`Kind::Strategy`], [`Kind::UnknownTensor`],
/// [`Kind::Corrupt`], each naming tensors and files.
pub(super) fn fit(
    world: &World,
    topology: &Topology,
    job: &Job,
    opened: &mut Opened,
) -> Result<Fitted> {
    let written = match &job.goal {
        // That compares everything anyway, and tells it.
        Goal::Compare(_) => {
            all_of_it(world, opened, &job.reading)?;
            let origin = Origin::default();
            let compared = Ok(Compared::default());
            return Ok(Fitted { origin, compared });
        }
        Goal::Convert(_) => None,
        Goal::Write(write) => Some(write),
    };
    let leftovers = written.map(|write| write.leftovers);
    let (verify, path) = (job.reading.verify, job.reading.strategy.as_ref());
    let origin = match verify {
        Verify::None => Origin::default(),
        _ => {
            written_by(world, topology, opened, verify)?;
            Origin::read(world, topology, opened)?
        }
    };
    if verify != Verify::None {
        told_beside(world, topology, opened)?;
    }
    origin.check_shapes(opened)?;
    origin.check_types(opened)?;
    if !origin.tells() {
        opened.source.notes.extend(whether_all(opened));
    }
    if verify != Verify::None {
        agree(world, check_laid(opened, path))?;
    }
    let chosen = matches!(job.reading.weights, Weights::Named(_));
    let full = opened.strategy.is_none() && verify != Verify::None;
    if leftovers.is_some() && full {
        agree(world, fragment::refuse(&opened.source, chosen))?;
    }
    no_parts(world, opened, &job.reading)?;
    // A view says itself what it lacks.
    if let Some(write) = written.filter(|write| write.view.is_none())
        && write.leftovers.unmatched() != Unmatched::Drop
    {
        let affixes = &job.reading.derived.affixes;
        let needed = |name: &str| write.select.keeps(name);
        let how = (path, write.leftovers.unmatched(), full && !chosen);
        unsaved::refuse(opened, affixes, how, needed).map_err(|f| with_strategy(f, path))?;
    }
    let compared = copies::check(world, topology, opened, &origin, verify, &job.moving);
    let compared = compared.map_err(|fault| with_strategy(fault, path));
    if let Some(leftovers) = leftovers {
        let strangers = copies::strangers(world, opened)?;
        settle(opened, &strangers, leftovers).map_err(|f| with_strategy(f, path))?;
    }
    Ok(Fitted { origin, compared })
}

/// Refuses a source of which only a part is compared, as its directories tell. Collective.
///
/// # Errors
/// The same on every process: [`Kind::MissingShard`], [`Kind::Ambiguous`].
pub(super) fn all_of_it(world: &World, opened: &Opened, reading: &Reading) -> Result<()> {
    if reading.verify != Verify::None && opened.strategy.is_none() {
        agree(world, fragment::refuse_one_of_ranks(&opened.source))?;
    }
    no_parts(world, opened, reading)
}

/// Refuses parts of ranks that were taken for steps. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Ambiguous`].
fn no_parts(world: &World, opened: &Opened, reading: &Reading) -> Result<()> {
    match reading.which {
        Which::Checkpoint(None) if reading.verify != Verify::None => {
            let named = pattern::is_one(&reading.path);
            agree(world, parts_aside::refuse(&opened.source, named))
        }
        _ => Ok(()),
    }
}

/// Asks the manifests for the layout of a source that a given strategy is read by. Collective.
///
/// # Errors
/// The same on every process: as [`lies`].
fn written_by(
    world: &World,
    topology: &Topology,
    opened: &mut Opened,
    verify: Verify,
) -> Result<()> {
    if opened.strategy.is_some() && opened.laid.is_none() {
        let lies = lies(world, topology, &opened.source, verify, true)?;
        (opened.laid, opened.manifest) = (lies.laid, lies.manifest);
    }
    Ok(())
}

/// Takes what the manifests note of how tensors lie, where the files have no place for it and are as they were written.
/// Collective.
///
/// # Errors
/// The same on every process: as reading them.
fn told_beside(world: &World, topology: &Topology, opened: &mut Opened) -> Result<()> {
    if opened.source.format.keeps_metadata() {
        return Ok(());
    }
    let source = &opened.source;
    let mine = match (&opened.manifest, topology.leads(world.process())) {
        (Some(manifest), _) => Ok(Some(Cow::Borrowed(manifest))),
        (None, true) => Manifest::read_sound(&source.base).map(|read| read.map(Cow::Owned)),
        (None, false) => Ok(None),
    };
    let mine = mine.map(|manifest| {
        let sound = manifest.filter(|manifest| manifest.first_untold(source.seen()).is_none());
        sound
            .map(|manifest| manifest.told.clone())
            .unwrap_or_default()
    });
    for (key, value) in all_gather_agreed(world, mine)?.into_iter().flatten() {
        opened.metadata.entry(key).or_insert(value);
    }
    Ok(())
}

/// Whether the strategy that was `given` cuts tensors as they were written. Local: a process knows that.
///
/// # Errors
/// [`Kind::Strategy`] naming one.
fn check_laid(opened: &Opened, given: Option<&StrategyInput>) -> Result<()> {
    let (Some(laid), Some(given)) = (&opened.laid, given) else {
        return Ok(());
    };
    let Some(name) = laid.differs(&opened.inventory) else {
        return Ok(());
    };
    let message =
        format!("the source strategy {given} gives ranks other parts of it than they were written");
    let manifest = opened.source.base.join(NAME).display().to_string();
    let fault = Fault::new(Kind::Strategy, message).tensor(&**name);
    Err(fault.file(manifest).hint(
        "leave --src-strategy out: the manifest keeps the layout. If other files have been written in their place, \
         remove shardloom.json",
    ))
}

/// Says which strategy it is that doesn't fit.
fn with_strategy(mut fault: Fault, path: Option<&StrategyInput>) -> Fault {
    if let Some(path) = path {
        let named = format!("the source strategy {}", path);
        fault.message = fault.message.replacen("the source strategy", &named, 1);
    }
    fault
}

/// That nothing tells whether all files are there, where nothing does: the last ones may lack, and with them the ends of
/// tensors. Local.
fn whether_all(opened: &Opened) -> Option<String> {
    let told = opened.source.told.as_ref();
    let format = told
        .map(|told| told.format)
        .filter(|format| !format.tells_files())?;
    let files = counted(opened.source.catalog.paths().len() as u64, "file");
    Some(format!(
        "{files} read: {} doesn't tell how many there were to be; without the last ones tensors are shorter",
        format.called()
    ))
}

/// What becomes of tensors that the strategy doesn't know and ranks hold differently. Local.
fn settle(opened: &mut Opened, unlike: &[Stranger], leftovers: Leftovers) -> Result<()> {
    let viewed = matches!(leftovers, Leftovers::View(_));
    match (unlike, leftovers.unmatched()) {
        ([], _) => Ok(()),
        // Of what it doesn't know a view makes nothing.
        (_, Unmatched::Copy) if viewed => {
            let names = unlike.iter().map(|unlike| unlike.name.clone());
            opened.inventory.left_out.extend(names);
            Ok(())
        }
        (_, Unmatched::Copy) => {
            let names: Vec<&Arc<str>> = unlike.iter().map(|unlike| &unlike.name).collect();
            opened.source.notes.push(format!(
                "{} copied as one rank has it, though not all have the same: {}",
                match names.len() {
                    1 => "1 tensor was".to_owned(),
                    count => format!("{count} tensors were"),
                },
                first(&names, NAMES_TOLD)
            ));
            Ok(())
        }
        (_, Unmatched::Drop) => {
            for Stranger { name, .. } in unlike {
                opened.inventory.private.remove(name);
                opened.inventory.left_out.push(name.clone());
            }
            Ok(())
        }
        ([first, ..], Unmatched::Fail) => Err(unknown(opened, first, unlike)),
    }
}

/// Names told of many.
const NAMES_TOLD: usize = 3;

fn unknown(opened: &Opened, first: &Stranger, unlike: &[Stranger]) -> Fault {
    let source = &opened.source;
    let mut names: Vec<&str> = unlike.iter().map(|unlike| &*unlike.name).collect();
    let count = names.len();
    names.truncate(NAMES_TOLD);
    let listed = match count {
        1 => String::new(),
        _ => format!(
            " ({count} such tensors: {}{})",
            names.join(", "),
            if count > NAMES_TOLD { ", …" } else { "" }
        ),
    };
    let [one, other] = first.ranks;
    let file = |rank| {
        let place = source.catalog.find(rank, &first.name);
        place.map_or_else(String::new, |place| source.catalog.file(place).path.clone())
    };
    let message = format!(
        "the source strategy doesn't know it, and rank {one} ({}) and rank {other} ({}) hold different \
         ones: it can't be told which part of it each has{listed}",
        file(one),
        file(other)
    );
    let near = near(&first.name, opened.strategy.as_ref());
    Fault::new(Kind::UnknownTensor, message)
        .tensor(&*first.name)
        .rank(other)
        .file(source.base.join(file(other)).display().to_string())
        .hint(format!(
            "{near}is it the strategy that these files were saved by? --unmatched drop leaves such \
             tensors out, --unmatched copy takes one rank's as they are"
        ))
}
