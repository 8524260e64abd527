//! The third step of a job that writes: all that it has once it is planned, and what is told of that.

use crate::course;
use crate::destination::Destination;
use crate::exchange::{agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::job::account::{Part, account};
use crate::job::alike;
use crate::job::clock::Clock;
use crate::job::compare;
use crate::job::convert;
use crate::job::fits::Fitted;
use crate::job::linked;
use crate::job::outcome::{Outcome, PlanFigures};
use crate::job::planned::Planned;
use crate::job::route::{Route, Surveyed};
use crate::job::spec::Goal;
use crate::job::steps::Run;
use crate::job::tally;
use crate::plan::arrange::Ranks;
use crate::plan::forecast::Shares;
use crate::plan::turns::Sharing;
use crate::plan::work::Site;
use crate::source::Opened;
use crate::source::derived::Derived;
use crate::transport::{Moved, Observer, Readers};
use std::collections::BTreeSet;

/// What a plan foretells, over all processes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Foretold {
    /// Bytes to read.
    pub read: u64,
    /// Bytes to write.
    pub written: u64,
}

/// Who is told of a plan before anything is moved. Collective; an error, the same on every process, ends the job.
pub type Told<'a> = dyn FnMut(Foretold) -> Result<()> + 'a;

/// Where a result goes.
pub(super) enum Place {
    /// Files of a directory.
    Directory(Box<Destination>),
    /// Buffers of this process.
    Memory(Site),
}

impl Place {
    /// Who shares the work with this process.
    pub(super) fn site(&self) -> &Site {
        match self {
            Place::Directory(destination) => &destination.site,
            Place::Memory(site) => site,
        }
    }

    /// The directory, if it is one.
    pub(super) fn directory(&self) -> Option<&Destination> {
        match self {
            Place::Directory(destination) => Some(destination),
            Place::Memory(_) => None,
        }
    }
}

/// Both sides, and the plan.
pub(super) struct Ready<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) source: Opened,
    pub(super) fitted: Fitted,
    pub(super) place: Place,
    pub(super) planned: Planned,
}

impl Run<'_> {
    /// The third step. Collective.
    pub(super) fn plan(
        &self,
        (source, fitted): (Opened, Fitted),
        mut place: Place,
    ) -> Result<Ready<'_>> {
        let (world, topology, job) = (self.world, self.topology, self.job);
        course::phase("planning");
        let planned = self.planned(&source, &place);
        // Shapes of another layout are no shapes of another model.
        let mut planned = planned.or_else(|fault| match fault.kind {
            Kind::Shape => fitted.compared().and(Err(fault)),
            _ => Err(fault),
        })?;
        if let Place::Directory(destination) = &mut place
            && job.goal.writing().is_some_and(|writing| writing.link)
        {
            linked::find(world, &source.source, destination, &mut planned)?;
        }
        let common = planned.plans.get(..planned.common);
        alike::check(world, topology, common.unwrap_or_default(), &self.meant())?;
        fitted.compared()?;
        if !job.dry_run {
            compare::left_out(world, topology, &source, &planned.copies, &job.moving)?;
        }
        Ok(Ready {
            run: self,
            source,
            fitted,
            place,
            planned,
        })
    }

    /// What is written of the source, as the destination is cut. Collective.
    fn planned(&self, source: &Opened, place: &Place) -> Result<Planned> {
        let ranks = &place.site().ranks;
        match &self.job.goal {
            Goal::Convert(goal) => {
                let checked = convert::all_of_whole_tensors(&source.source.catalog);
                let checked = checked.map_err(|fault| source.source.place(fault));
                let planned = checked.and_then(|()| convert::plan(goal, source, ranks));
                agree(self.world, planned)
            }
            Goal::Write(write) => {
                let strategy = self.strategies[1].as_ref();
                let directory = place.directory();
                let ranks = Ranks {
                    built: ranks,
                    beside: directory.map_or(ranks, |directory| &directory.beside),
                    together: place.site().everybody,
                };
                Planned::of_write(self.world, write, source, strategy, ranks)
            }
            Goal::Compare(_) => Err(Fault::new(Kind::Internal, "nothing is written")),
        }
    }

    /// All but the source that the result depends on. Local.
    pub(super) fn depends_on(&self, planned: &Planned) -> String {
        format!("{} {}", self.meant(), planned.depends_on)
    }

    /// What is the same on every process, but for the plans. Local.
    fn meant(&self) -> String {
        // All of it counts: the adapter's file does as one of the source's.
        let Derived {
            block,
            lora,
            affixes,
            tied,
        } = &self.job.reading.derived;
        let lora = lora.as_ref().map(|lora| &lora.meaning);
        let (command, layouts) = (self.job.command, &self.layouts);
        format!("{command} {layouts:?} {block:?} {lora:?} {affixes:?} {tied:?}")
    }
}

impl Ready<'_> {
    /// The way of what is planned.
    pub(super) fn route(&self) -> Route<'_> {
        let planned = &self.planned;
        let shared = self.place.directory().filter(|_| !planned.by_file);
        Route {
            source: &self.source.source,
            plans: &planned.plans,
            catalog: &planned.catalog,
            site: self.place.site(),
            sharing: shared.map(|destination| Sharing {
                homes: &destination.homes,
                kept: &planned.kept,
                machine: &self.run.job.moving.machine,
            }),
        }
    }

    /// Walks the way; `told` is what it foretells. Collective.
    ///
    /// # Errors
    /// The same on every process: as [`Route::survey`], and that of `told`.
    pub(super) fn survey(&self, told: Option<&mut Told<'_>>) -> Result<Surveyed> {
        let world = self.run.world;
        let surveyed = self
            .route()
            .survey(world, self.run.topology, &self.run.job.moving)?;
        if let Some(told) = told {
            told(Foretold {
                read: tally::sum(world, surveyed.survey.read_bytes())?,
                written: surveyed.total_bytes,
            })?;
        }
        Ok(surveyed)
    }

    /// What a run comes to that has moved all this. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Mpi`].
    pub(super) fn outcome(
        &self,
        surveyed: &Surveyed,
        moved: &Moved,
        readers: &Readers<'_>,
        clock: Clock,
    ) -> Result<Outcome> {
        let reused = surveyed.survey.written_bytes - moved.written_bytes;
        let reused = tally::sum(self.run.world, reused)?;
        let mut outcome = self.told(surveyed, moved, readers, readers.read_bytes(), clock)?;
        outcome.bytes.reused = reused;
        Ok(outcome)
    }

    /// What a dry run tells. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Mpi`].
    pub(super) fn foretold(
        &self,
        surveyed: &Surveyed,
        observer: &mut Observer<'_>,
        clock: Clock,
    ) -> Result<Outcome> {
        let (world, survey) = (self.run.world, &surveyed.survey);
        let moved = Moved {
            written_bytes: survey.written_bytes,
            ..Moved::default()
        };
        observer(surveyed.total_bytes, surveyed.total_bytes);
        let readers = self.run.readers(&self.source);
        let mut outcome = self.told(surveyed, &moved, &readers, survey.read_bytes(), clock)?;
        outcome.per_process = tally::per_process(world, survey)?;
        let rounds = tally::rounds(world, survey, surveyed.exchange)?;
        let source = &self.source.source;
        let several = source.reach.nodes.len() > 1;
        let mut ranks = source.catalog.ranks.keys();
        let shares = Shares {
            source: several && ranks.all(|rank| source.reach.common().contains(rank)),
            destination: several && self.place.site().everybody,
        };
        let machine = &self.run.job.moving.machine;
        let way = (machine, shares, rounds);
        outcome.plan = Some(PlanFigures {
            transfers: tally::sum(world, survey.transfers)?,
            rounds,
            seconds_estimated: tally::seconds(world, survey, &source.reach, way)?,
        });
        outcome.bytes.read = tally::sum(world, survey.read_bytes())?;
        outcome.bytes.sent = tally::sum(world, survey.received_bytes)?;
        Ok(outcome)
    }

    /// What both have in common. Collective.
    fn told(
        &self,
        surveyed: &Surveyed,
        moved: &Moved,
        readers: &Readers<'_>,
        read: u64,
        clock: Clock,
    ) -> Result<Outcome> {
        let (world, survey) = (self.run.world, &surveyed.survey);
        let mut outcome = self.described()?;
        outcome.copies_compared = self.fitted.compared()?;
        let seconds = clock.stop();
        tally::total(world, &mut outcome, survey, moved, readers, &seconds)?;
        let part = Part {
            survey: Some(survey),
            plans: &self.planned.plans,
            read,
            written: moved.written_bytes,
        };
        outcome.account = account(world, self.run.topology, &part)?;
        outcome.ok = true;
        Ok(outcome)
    }

    /// What is known of the outcome once all is planned. Collective.
    fn described(&self) -> Result<Outcome> {
        let (source, planned) = (&self.source.source, &self.planned);
        Ok(Outcome {
            tensors: planned.tensors,
            files: self.files()?,
            source_files: source.catalog.paths(),
            names_without_data: planned.without_data.clone(),
            names_dropped: planned.dropped.clone(),
            notes: source.notes.iter().chain(&planned.notes).cloned().collect(),
            ..tally::outcome(self.run.world, self.run.topology, self.run.job.command)
        })
    }

    /// All files that are written, by whomever. Collective.
    fn files(&self) -> Result<Vec<String>> {
        let Some(destination) = self.place.directory() else {
            return Ok(Vec::new());
        };
        let (world, planned) = (self.run.world, &self.planned);
        let mut files = planned.catalog.paths();
        if !destination.site.everybody {
            // A site's processes write the same ones.
            let first = destination.head == world.process();
            let mine = if first { files } else { Vec::new() };
            let all = all_gather(world, &mine)?.into_iter().flatten();
            let mut seen = BTreeSet::new();
            files = all.filter(|path| seen.insert(path.clone())).collect();
        }
        files.extend(planned.extras.iter().map(|file| file.path.clone()));
        Ok(files)
    }
}
