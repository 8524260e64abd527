//! A job: a source, a destination, and the run from one to the other.

use crate::engine::compare::verify_replicas;
use crate::engine::derived::Derived;
use crate::engine::discover::{Source, discover};
use crate::engine::fill::{IoMode, Readers};
use crate::engine::in_place::{self, Carried, carry};
use crate::engine::iteration;
use crate::engine::mover::{Moved, Mover, Observer};
use crate::engine::outcome::{Outcome, PlanFigures, ProcessFigures, Seconds};
use crate::engine::output::Output;
use crate::engine::place::{Destination, Placement};
use crate::engine::resume::fingerprint;
use crate::engine::rounds::Exchange;
use crate::engine::sink::FileSink;
use crate::engine::strategy_files::read_strategy;
use crate::engine::tally;
use crate::exchange::{Topology, World, agree};
use crate::fault::{Kind, Result};
use crate::plan::arrange::{Arranged, Files, arrange};
use crate::plan::build::{Build, Leftovers, Select, build};
use crate::plan::inventory::Inventory;
use crate::plan::machine::Machine;
use crate::plan::reach::{ExchangeMode, equal_share};
use crate::plan::survey::Survey;
use crate::plan::turns::Sharing;
use crate::plan::work::{Skip, Work};
use crate::store::Format;
use crate::strategy::Strategy;
use crate::view::Table;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How a job is run, whatever it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most memory for buffers, in bytes a process.
    pub memory_bytes: u64,
    /// How slices travel.
    pub exchange: ExchangeMode,
    /// Worker threads a process; 0 means the cores divided by the processes of the node.
    pub threads: usize,
    /// Plan only.
    pub dry_run: bool,
    /// How source files are read.
    pub io: IoMode,
    /// Which process builds what.
    pub placement: Placement,
    /// Replace what stands at the destination.
    pub overwrite: bool,
    /// Take up what an interrupted run of the same job has left.
    pub resume: bool,
    /// Replace the source: its directory is the destination.
    pub in_place: bool,
    /// Compare all replicas of the source before anything is written.
    pub verify: bool,
    /// Flush at commit.
    pub flush: bool,
    /// What the nodes can do, to choose by how slices travel.
    pub machine: Machine,
}

/// A view of a source that is known only when its files are: what to make, and what the files say.
#[derive(Clone, Debug, Default)]
pub struct Viewed {
    /// What each tensor written is made of.
    pub table: Table,
    /// The metadata of the files written.
    pub metadata: BTreeMap<String, String>,
}

type MakeView = dyn Fn(&Inventory, &BTreeMap<String, String>) -> Result<Viewed> + Send + Sync;

/// Makes the view of a source from its tensors and its files' metadata. A pure function: every
/// process makes the same.
#[derive(Clone)]
pub struct ViewMaker(Arc<MakeView>);

impl ViewMaker {
    /// A maker that calls `make`.
    pub fn new(
        make: impl Fn(&Inventory, &BTreeMap<String, String>) -> Result<Viewed> + Send + Sync + 'static,
    ) -> Self {
        ViewMaker(Arc::new(make))
    }
}

impl std::fmt::Debug for ViewMaker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("ViewMaker")
    }
}

/// What to make of what.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the command, for the outcome.
    pub command: &'static str,
    /// Where the source is.
    pub source: PathBuf,
    /// Strategy of the source; none means full weights.
    pub source_strategy: Option<PathBuf>,
    /// Which of several files in a rank directory.
    pub file_suffix: Option<String>,
    /// Where to write.
    pub destination: PathBuf,
    /// Strategy of the destination; none means full weights.
    pub destination_strategy: Option<PathBuf>,
    /// Which tensors, and their names.
    pub select: Select,
    /// How tensors outside the destination's strategy travel.
    pub leftovers: Leftovers,
    /// The files to write.
    pub files: Files,
    /// Their format; none means the source's.
    pub format: Option<Format>,
    /// What the source's tensors are, beside what is stored.
    pub derived: Derived,
    /// What the tensors written are made of; none: each of itself.
    pub view: Option<ViewMaker>,
    /// Small files to write beside the others: path and contents.
    pub extras: Vec<(String, Vec<u8>)>,
    /// How it is run.
    pub options: Options,
}

/// Runs a job. Collective.
///
/// # Errors
/// The same fault on every process; then nothing is visible at the destination.
pub fn run(world: &World, job: &Job, observer: &mut Observer<'_>) -> Result<Outcome> {
    let start = Instant::now();
    let mut seconds = Seconds::default();
    let topology = Topology::discover(world)?;
    let (source_strategy, source_crc) =
        read_strategy(world, &topology, job.source_strategy.as_deref())?;
    let (strategy, strategy_crc) =
        read_strategy(world, &topology, job.destination_strategy.as_deref())?;
    let layouts = [("source", source_crc), ("destination", strategy_crc)];
    let ranks = strategy.as_ref().map_or(1, Strategy::ranks);
    let find = || {
        let home = |rank| equal_share(rank, ranks, world.size());
        let to = &job.destination;
        Destination::find(world, &topology, to, ranks, home, &job.options)
    };
    let mut replaced = None;
    if job.options.in_place && !job.options.dry_run {
        let directory = replaced.insert(find()?);
        if let Some(done) = done_before(job, world, &topology, directory, &layouts)? {
            return Ok(done);
        }
    }
    let suffix = job.file_suffix.as_deref();
    let mut source = discover(world, &topology, &job.source, suffix, job.options.exchange)?;
    let source_strategy = agree(world, source.strategy(source_strategy))?;
    let files = iteration::settle(world, &source, &job.files)?;
    seconds.discover = start.elapsed().as_secs_f64();
    if job.options.verify {
        verify_replicas(world, &source, source_strategy.as_ref(), &job.options)?;
    }

    let planning = Instant::now();
    let destination = replaced.map_or_else(find, Ok)?;
    let stock = Stock::take(world, job, &mut source, source_strategy.as_ref())?;
    let planned = plan(
        job,
        &files,
        &source,
        &stock,
        strategy.as_ref(),
        &destination,
    );
    let planned = agree(world, planned)?;
    let readers = Readers::new(&source.base, &source.catalog, job.options.io);
    let sink = FileSink::new(destination.staging.partial(), &planned.arranged.catalog);
    let skip = Skip::Nothing;
    let mut mover = Mover {
        world,
        work: Work {
            plans: &planned.arranged.plans,
            source: &source.catalog,
            destination: &planned.arranged.catalog,
            site: &destination.site,
            reach: &source.reach,
            skip: &skip,
            sharing: Some(Sharing {
                homes: &destination.homes,
                kept: &planned.arranged.kept,
                machine: &job.options.machine,
            }),
        },
        readers: &readers,
        sink: &sink,
        ledger: None,
        threads: threads(&job.options, &topology, world),
        memory_bytes: job.options.memory_bytes,
        total_bytes: 0,
    };
    let survey = agree(world, mover.survey().map_err(|fault| source.place(fault)))?;
    mover.total_bytes = tally::sum(world, survey.written_bytes)?;
    let exchange = Exchange::choose(world, &survey, job.options.memory_bytes)?;
    seconds.plan = planning.elapsed().as_secs_f64();

    let mut outcome = describe(job, &planned, &source, world, &topology);
    let mut moved = Moved::default();
    if job.options.dry_run {
        moved.written_bytes = survey.written_bytes;
    } else {
        let end = End {
            job,
            source: &source,
            destination: &destination,
            planned: &planned,
            layouts,
        };
        moved = end.reach(&mover, exchange, observer, &mut seconds)?;
        outcome.bytes.reused = tally::sum(world, survey.written_bytes - moved.written_bytes)?;
    }
    seconds.total = start.elapsed().as_secs_f64();
    tally::total(world, &mut outcome, &survey, &moved, &readers, &seconds)?;
    if job.options.dry_run {
        foretell(world, &mut outcome, &survey, exchange)?;
    }
    outcome.ok = true;
    Ok(outcome)
}

/// The outcome if an earlier run has left nothing to do in place, which is said. Collective.
fn done_before(
    job: &Job,
    world: &World,
    topology: &Topology,
    destination: &Destination,
    layouts: &[(&'static str, Option<u64>); 2],
) -> Result<Option<Outcome>> {
    let flush = job.options.flush;
    let Some(manifest) = in_place::finished(world, destination, job.command, layouts, flush)?
    else {
        return Ok(None);
    };
    if world.process() == 0 {
        let directory = job.destination.display();
        tracing::warn!("{directory} has the destination's layout already: nothing is moved");
    }
    Ok(Some(Outcome {
        ok: true,
        tensors: manifest.tensors.len() as u64,
        files: manifest.files.into_iter().map(|file| file.path).collect(),
        ..tally::outcome(world, topology, job.command)
    }))
}

/// Where a job's bytes go, once everything is planned.
struct End<'a> {
    job: &'a Job,
    source: &'a Source,
    destination: &'a Destination,
    planned: &'a Planned,
    layouts: [(&'static str, Option<u64>); 2],
}

impl End<'_> {
    /// Writes the files and puts them in place. Collective.
    fn reach(
        &self,
        mover: &Mover<'_>,
        exchange: Option<Exchange>,
        observer: &mut Observer<'_>,
        seconds: &mut Seconds,
    ) -> Result<Moved> {
        let (world, options) = (mover.world, &self.job.options);
        let arranged = &self.planned.arranged;
        let carried = if options.in_place {
            let one_of_several = self.job.file_suffix.is_some();
            carry(
                world,
                self.source,
                self.destination,
                &arranged.catalog,
                one_of_several,
            )?
        } else {
            Carried::default()
        };
        let mut extras = arranged.extras.clone();
        extras.extend(carried.extras);
        let rest = self.job.fingerprint_text(&self.layouts, self.planned);
        let output = Output {
            command: self.job.command,
            job: fingerprint(world, self.source, &rest)?,
            layouts: self.layouts,
            destination: self.destination,
            catalog: &arranged.catalog,
            extras: &extras,
            links: &carried.links,
            kept: &arranged.kept,
            options,
            trailers: false,
            by_file: false,
        };
        output.write(mover, exchange, observer, seconds)
    }
}

/// Fills in what a dry run tells. Collective.
fn foretell(
    world: &World,
    outcome: &mut Outcome,
    survey: &Survey,
    exchange: Option<Exchange>,
) -> Result<()> {
    outcome.per_process = tally::per_process(world, survey)?;
    let rounds = tally::rounds(world, survey, exchange)?;
    outcome.plan = Some(PlanFigures {
        transfers: tally::sum(world, survey.transfers)?,
        rounds,
    });
    outcome.bytes.read = tally::sum(world, survey.read_bytes)?;
    outcome.bytes.sent = tally::sum(world, survey.received_bytes)?;
    Ok(())
}

impl Job {
    /// All but the source that the result depends on.
    fn fingerprint_text(
        &self,
        layouts: &[(&'static str, Option<u64>)],
        planned: &Planned,
    ) -> String {
        let format = self.format;
        format!(
            "{} {layouts:?} {:?} {:?} {:?} {format:?} {} {} {:016x} {:?} {:?}",
            self.command,
            self.select,
            self.leftovers,
            self.files,
            self.options.in_place,
            planned.arranged.extras.len(),
            planned.viewed,
            self.derived.block,
            self.derived.lora.as_ref().map(|lora| &lora.factor),
        )
    }
}

/// The plan of a job, as far as this process needs it.
struct Planned {
    arranged: Arranged,
    /// A number for the view and the small files beside it.
    viewed: u64,
    tensors: u64,
    without_data: BTreeMap<&'static str, Vec<String>>,
    dropped: Vec<String>,
}

/// What a source holds and says.
struct Stock {
    inventory: Inventory,
    metadata: BTreeMap<String, String>,
}

impl Stock {
    /// Takes stock of `source`, which an adapter's file becomes a part of. Collective.
    fn take(
        world: &World,
        job: &Job,
        source: &mut Source,
        strategy: Option<&Strategy>,
    ) -> Result<Stock> {
        let inventory = Inventory::new(&source.catalog, strategy);
        let mut inventory = agree(world, inventory.map_err(|fault| source.place(fault)))?;
        let metadata = source_metadata(source);
        let beside = job.derived.join(world, source)?;
        let applied = job.derived.apply(&mut inventory, source, beside);
        agree(world, applied.map_err(|fault| source.place(fault)))?;
        Ok(Stock {
            inventory,
            metadata,
        })
    }
}

fn plan(
    job: &Job,
    files: &Files,
    source: &Source,
    stock: &Stock,
    strategy: Option<&Strategy>,
    destination: &Destination,
) -> Result<Planned> {
    let inventory = &stock.inventory;
    let ranks = &destination.site.ranks;
    let mut select = job.select.clone();
    let mut viewed = 0;
    let mut metadata = metadata(job, &stock.metadata);
    if let Some(ViewMaker(make)) = &job.view {
        let made = make(inventory, &stock.metadata).map_err(|f| source.place(f))?;
        let mut hasher = DefaultHasher::new();
        (&made.table, &made.metadata, &job.extras).hash(&mut hasher);
        viewed = hasher.finish();
        select.view = Some(made.table);
        metadata = made.metadata;
    }
    let mut build: Build = build(
        inventory,
        &source.catalog,
        strategy,
        &select,
        job.leftovers,
        ranks,
    )
    .map_err(|fault| match (&job.destination_strategy, fault.kind) {
        (Some(strategy), Kind::UnknownTensor) => fault.file(strategy.display().to_string()),
        _ => source.place(fault),
    })?;
    // A checkpoint 2.0 has its counts beside its tensors, a 1.0 among them.
    if let (Some(iteration), None) = (&source.iteration, &job.view) {
        let counts = iteration.common.counts()?.into_iter();
        build.counts = counts.filter(|count| select.keeps(count.name)).collect();
    }
    let texts = |names: &[std::sync::Arc<str>]| names.iter().map(|n| n.to_string()).collect();
    let without_data = BTreeMap::from([
        ("source", texts(&inventory.without_data)),
        ("destination", texts(&build.without_data)),
    ]);
    let dropped = texts(&build.dropped);
    let mut names: Vec<_> = build
        .stages
        .iter()
        .flatten()
        .map(|plan| plan.name.clone())
        .collect();
    if job.view.is_none() {
        names.extend(inventory.private.iter().cloned());
    }
    names.sort_unstable();
    names.dedup();
    let format = job.format.unwrap_or(source.format);
    let files = if let (
        true,
        Files::Ranks {
            remove_redundancy, ..
        },
    ) = (job.options.in_place, files)
    {
        &in_place::files(source, *remove_redundancy)?
    } else {
        files
    };
    let mut arranged = arrange(build, files, format, &metadata, ranks)?;
    arranged.extras.extend(job.extras.iter().cloned());
    Ok(Planned {
        arranged,
        viewed,
        tensors: names.len() as u64,
        without_data,
        dropped,
    })
}

/// What the source's files say beside their tensors.
fn source_metadata(source: &Source) -> BTreeMap<String, String> {
    let schemas = source.catalog.distinct_schemas();
    let all = schemas.flat_map(|(_, schema)| schema.metadata.clone());
    all.collect()
}

/// Beginning of the keys that tell how tensors were made of others.
pub const OWN_KEYS: &str = "shardloom.";

/// The files' metadata as MindSpore writes it: unify carries the source's along (docs/formats.md). Our
/// own keys always go along.
fn metadata(job: &Job, source: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut metadata = source.clone();
    if !matches!(job.files, Files::Full { .. }) {
        metadata.retain(|key, _| key.starts_with(OWN_KEYS));
    } else {
        if let Some(value) = metadata.get_mut("remove_redundancy") {
            *value = "False".into();
        }
    }
    metadata.insert("format".into(), "ms".into());
    metadata
}

fn describe(
    job: &Job,
    planned: &Planned,
    source: &Source,
    world: &World,
    topology: &Topology,
) -> Outcome {
    let mut files = planned.arranged.catalog.paths();
    files.extend(planned.arranged.extras.iter().map(|(path, _)| path.clone()));
    Outcome {
        tensors: planned.tensors,
        files,
        source_files: source.catalog.paths(),
        names_without_data: planned.without_data.clone(),
        names_dropped: planned.dropped.clone(),
        ..tally::outcome(world, topology, job.command)
    }
}

/// Worker threads of this process.
pub(super) fn threads(options: &Options, topology: &Topology, world: &World) -> usize {
    if options.threads > 0 {
        return options.threads;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let node = topology.node_of[world.process() as usize] as usize;
    (cores / topology.nodes[node].len()).max(1)
}

/// A survey of one process, for a dry run.
impl ProcessFigures {
    /// What `survey` says of `process`.
    #[must_use]
    pub fn of(process: u32, survey: &Survey) -> Self {
        ProcessFigures {
            process,
            read: survey.needed_bytes - survey.received_bytes,
            received: survey.received_bytes,
            written: survey.written_bytes,
        }
    }
}
