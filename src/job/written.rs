//! The last two steps of a job that writes: move, commit.

use crate::course::{self, Leaves};
use crate::destination::{
    Carried, Commit, Destination, Replaced, Shown, Staged, Wanted, Writing, carry,
};
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::job::adapter;
use crate::job::inputs;
use crate::job::linked;
use crate::job::linked_bytes;
use crate::job::ready::Ready;
use crate::job::request::request;
use crate::job::route::{Into, Surveyed};
use crate::job::same;
use crate::job::sealed;
use crate::plan::SourceTensor;
use crate::plan::work::Skip;
use crate::source::{Verify, fingerprint, meta};
use crate::transport::{Done, FileSink, Ledger, Moved, Observer, Readers, Trace, Traced};

/// The last two steps of a job that writes.
pub(super) struct Written<'a> {
    ready: &'a Ready<'a>,
    destination: &'a Destination,
    writing: &'a Writing,
}

/// Files that stand beside the destination, to be filled and put in place.
pub(super) struct Standing {
    carried: Carried,
    wanted: Wanted,
    staged: Staged,
    traced: Traced,
    /// What is known of the result beforehand.
    known: Option<Done>,
}

impl<'a> Written<'a> {
    /// Those of what is planned.
    ///
    /// # Errors
    /// [`Kind::Internal`] for a job that writes nothing.
    pub(super) fn of(ready: &'a Ready<'a>) -> Result<Self> {
        let writing = ready.run.job.goal.writing();
        let ends = writing.zip(ready.place.directory());
        let (writing, destination) =
            ends.ok_or_else(|| Fault::new(Kind::Internal, "nothing is written"))?;
        Ok(Written {
            ready,
            destination,
            writing,
        })
    }

    /// Creates the files. Collective.
    pub(super) fn stage(&self) -> Result<Standing> {
        let Ready {
            run,
            source,
            fitted,
            planned,
            ..
        } = self.ready;
        let destination = self.destination;
        let carried = self.carried()?;
        let wanted = self.wanted()?;
        course::phase("making files");
        let partial = destination.staging.partial().to_path_buf();
        course::leaves(Leaves::Staged(partial));
        let staged = Staged::create(run.world, destination, &planned.catalog, &wanted)?;
        let known = |tensor: &SourceTensor| fitted.origin.digest(tensor).is_some();
        let share = run.proving(source).share();
        Ok(Standing {
            carried,
            wanted,
            staged,
            traced: Traced::new(&planned.plans, Trace::InPieces, share, known),
            known: self.known()?,
        })
    }

    /// Fills the files, of a source that has stood still. Collective.
    pub(super) fn go(
        &self,
        standing: &Standing,
        surveyed: &Surveyed,
        readers: &Readers<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<(Moved, Done)> {
        course::phase("moving");
        let gone = self.filled(standing, surveyed, readers, observer);
        self.destination.or_discard(self.writing.resume, gone)
    }

    fn filled(
        &self,
        standing: &Standing,
        surveyed: &Surveyed,
        readers: &Readers<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<(Moved, Done)> {
        let Ready {
            run,
            source,
            planned,
            ..
        } = self.ready;
        let destination = self.destination;
        let (world, source) = (run.world, &source.source);
        let (site, staging) = (&destination.site, &destination.staging);
        let sink = FileSink::new(staging.partial(), &planned.catalog, site.division.is_some());
        let sink = sink.without(destination.linked.keys().copied());
        let ledger = Ledger::new(
            &planned.catalog,
            site,
            (&planned.kept, &standing.traced),
            staging.partial(),
            staging.journals(),
            standing.wanted.flush,
        );
        let skip = match standing.known {
            Some(_) => &Skip::All,
            None => standing.staged.skip(),
        };
        let into = Into {
            sink: &sink,
            witness: Some(&ledger),
            skip,
        };
        let route = self.ready.route();
        let mut moved = route.go(world, surveyed, readers, &into, observer)?;
        moved.written_bytes = moved.written_bytes.saturating_sub(sink.passed_bytes());
        source.still.check(world)?;
        sealed::check(world, source, readers)?;
        Ok((moved, ledger.close()))
    }

    /// Proves what was `done`, and puts it in place. Collective.
    pub(super) fn commit(&self, standing: Standing, done: Done) -> Result<()> {
        course::phase("putting in place");
        if !self.destination.leads {
            course::leaves(Leaves::Unknown);
        }
        self.committed(standing, done)?;
        course::leaves(Leaves::Placed(None));
        Ok(())
    }

    fn committed(&self, standing: Standing, done: Done) -> Result<()> {
        let Ready {
            run,
            source,
            planned,
            ..
        } = self.ready;
        let destination = self.destination;
        let (world, job) = (run.world, run.job);
        let Standing {
            mut carried,
            wanted,
            staged,
            traced,
            known,
        } = standing;
        let mut extras = planned.extras.clone();
        extras.append(&mut carried.extras);
        let linked = known.is_none();
        let proof = |shown: &Shown<'_>| {
            carried.check_all(world, &source.source.base)?;
            self.prove(&traced, linked, shown)
        };
        let commit = Commit {
            proof: &proof,
            command: job.command,
            job: wanted.job,
            request: self.request(),
            origin: self.writing.again.then(|| self.origin()),
            ranks: run.ranks_written(source),
            layouts: run.layouts_of(source),
            strategy: planned.laid.as_ref(),
            told: &planned.told,
            destination,
            catalog: &planned.catalog,
            plans: &planned.plans,
            common: planned.common,
            extras: &extras,
            links: &carried.links,
            replace: wanted.replace,
            flush: wanted.flush,
            trailers: planned.trailers,
            by_file: planned.by_file,
            resume: self.writing.resume,
        };
        commit.make(world, &staged, known.unwrap_or(done))
    }

    /// The number of what is asked for. Local.
    fn request(&self) -> u64 {
        request(self.ready.run.job, &self.ready.run.layouts)
    }

    /// The same, and of what. Local.
    fn origin(&self) -> u64 {
        inputs::origin(self.ready.run.job, self.request())
    }

    /// How the destination is prepared. Collective.
    fn wanted(&self) -> Result<Wanted> {
        let (run, writing) = (self.ready.run, self.writing);
        // Links are names, and a source that is replaced may be half moved.
        let keeps = !writing.link && !writing.in_place;
        let depends = run.depends_on(&self.ready.planned);
        let source = &self.ready.source.source;
        Ok(Wanted {
            job: fingerprint(run.world, source, &depends, keeps)?,
            resume: writing.resume,
            replace: writing.replaces(self.origin()),
            flush: !writing.unflushed,
        })
    }

    /// What goes along when the source is replaced. Collective.
    fn carried(&self) -> Result<Carried> {
        if !self.writing.in_place {
            return Ok(Carried::default());
        }
        let ready = self.ready;
        let source = &ready.source.source;
        let replaced = Replaced {
            base: &source.base,
            catalog: &source.catalog,
            reach: &source.reach,
            suffix: meta::suffix_of,
        };
        carry(
            ready.run.world,
            &replaced,
            self.destination,
            (&ready.planned.catalog, &ready.planned.extras),
        )
    }

    /// Whether what has been written may be put in place; files that are `linked` are looked at for it. Collective.
    fn prove(&self, traced: &Traced, linked: bool, shown: &Shown<'_>) -> Result<()> {
        let Ready {
            run,
            source,
            fitted,
            planned,
            ..
        } = self.ready;
        let (world, job, origin) = (run.world, run.job, &fitted.origin);
        adapter::check(world, run.topology, &job.reading)?;
        if planted(Bug::DigestUnasked) {
            return Ok(());
        }
        if linked && self.writing.link && job.reading.verify != Verify::None {
            linked_bytes::check(world, self.destination, planned, shown)?;
        }
        let plans = &planned.plans;
        let unlike = match job.reading.verify {
            Verify::None => Vec::new(),
            _ => same::unlike(world, plans, &planned.catalog, shown)?,
        };
        let told = |name: &str| origin.of(name).is_some();
        let damaged = same::sources(plans, &unlike, &told)?;
        origin.check(&run.proving(source), plans, traced, shown, damaged)
    }

    /// What is known of the result beforehand, where it is all of linked files that stand as their manifest says.
    /// Collective.
    fn known(&self) -> Result<Option<Done>> {
        // Where every byte is to be verified, those that are linked are read, too.
        let Ready {
            run,
            source,
            fitted,
            planned,
            ..
        } = self.ready;
        if !self.writing.link || run.job.reading.verify == Verify::All {
            return Ok(None);
        }
        let (origin, source) = (&fitted.origin, &source.source);
        linked::known(run.world, origin, source, self.destination, planned)
    }
}
