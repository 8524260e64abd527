//! The last two steps of a job that writes: move, commit.

use crate::course::{self, Leaves};
use crate::destination::{
    Carried, Commit, Destination, Replaced, Shown, Staged, Wanted, Writing, carry,
};
use crate::fault::Result;
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::job::adapter;
use crate::job::clock::Clock;
use crate::job::linked;
use crate::job::linked_bytes;
use crate::job::origin::Origin;
use crate::job::pieces::Proving;
use crate::job::planned::Planned;
use crate::job::request::request;
use crate::job::route::{Into, Route, Surveyed};
use crate::job::same;
use crate::job::sealed;
use crate::job::steps::Run;
use crate::plan::SourceTensor;
use crate::plan::work::Skip;
use crate::source::{Opened, Verify, fingerprint, meta};
use crate::transport::{Done, FileSink, Ledger, Moved, Observer, Readers, Trace, Traced};

/// The last two steps of a job that writes.
pub(super) struct Written<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) source: &'a Opened,
    pub(super) origin: &'a Origin,
    pub(super) destination: &'a Destination,
    pub(super) planned: &'a Planned,
}

impl Written<'_> {
    /// Creates the files, fills them and puts them in place. Collective.
    pub(super) fn all(
        &self,
        route: &Route<'_>,
        surveyed: &Surveyed<'_>,
        readers: &Readers<'_>,
        observer: &mut Observer<'_>,
        clock: &mut Clock,
    ) -> Result<Moved> {
        let (world, job) = (self.run.world, self.run.job);
        let (destination, planned) = (self.destination, self.planned);
        let Some(writing) = job.goal.writing() else {
            return Ok(Moved::default());
        };
        let mut carried = self.carried(writing)?;
        let mut extras = planned.extras.clone();
        extras.append(&mut carried.extras);
        let wanted = self.wanted(writing)?;
        let (replace, flush) = (wanted.replace, wanted.flush);
        course::phase("making files");
        let partial = destination.staging.partial().to_path_buf();
        course::leaves(Leaves::Staged(partial));
        let staged = Staged::create(world, destination, &planned.catalog, &wanted)?;
        course::phase("moving");
        clock.lap(|seconds| &mut seconds.write);
        let proving = Proving {
            world,
            topology: self.run.topology,
            opened: self.source,
            moving: &job.moving,
            verify: job.reading.verify,
        };
        let known = |tensor: &SourceTensor| self.origin.digest(tensor).is_some();
        let traced = Traced::new(&planned.plans, Trace::InPieces, proving.share(), known);
        let known = self.known()?;
        let linked = known.is_none();
        let proof = |shown: &Shown<'_>| {
            carried.check_all(world, &self.source.source.base)?;
            self.prove(&proving, &traced, linked, shown)
        };
        let commit = Commit {
            proof: &proof,
            command: job.command,
            job: wanted.job,
            request: request(job, &self.run.layouts),
            ranks: self.run.ranks_written(self.source),
            layouts: self.run.layouts,
            destination,
            catalog: &planned.catalog,
            plans: &planned.plans,
            extras: &extras,
            links: &carried.links,
            replace,
            flush,
            trailers: planned.trailers,
            by_file: planned.by_file,
        };
        let with = (surveyed, readers, &traced, known);
        let moved = self.fill(route, with, &staged, &commit, observer, clock);
        // A run that takes up leftovers leaves them to be taken up again.
        if moved.is_err() && !writing.resume {
            destination.discard();
        }
        moved
    }

    /// How the destination is prepared. Collective.
    fn wanted(&self, writing: &Writing) -> Result<Wanted> {
        // Links are names, and a source that is replaced may be half moved.
        let keeps = !writing.link && !writing.in_place;
        let depends = self.run.depends_on(self.planned);
        let source = &self.source.source;
        Ok(Wanted {
            job: fingerprint(self.run.world, source, &depends, keeps)?,
            resume: writing.resume,
            replace: writing.replaces(),
            flush: !writing.unflushed,
        })
    }

    /// What goes along when the source is replaced. Collective.
    fn carried(&self, writing: &Writing) -> Result<Carried> {
        if !writing.in_place {
            return Ok(Carried::default());
        }
        let source = &self.source.source;
        let replaced = Replaced {
            base: &source.base,
            catalog: &source.catalog,
            reach: &source.reach,
            suffix: meta::suffix_of,
        };
        carry(
            self.run.world,
            &replaced,
            self.destination,
            &self.planned.catalog,
        )
    }

    /// Whether files that are the source's may be linked: the same on every process.
    fn links(&self) -> bool {
        self.run
            .job
            .goal
            .writing()
            .is_some_and(|writing| writing.link)
    }

    /// Whether what has been written may be put in place; files that are `linked` are looked at for it. Collective.
    fn prove(
        &self,
        proving: &Proving<'_>,
        traced: &Traced,
        linked: bool,
        shown: &Shown<'_>,
    ) -> Result<()> {
        let (world, job) = (self.run.world, self.run.job);
        adapter::check(world, self.run.topology, &job.reading)?;
        if planted(Bug::DigestUnasked) {
            return Ok(());
        }
        if linked && self.links() && job.reading.verify != Verify::None {
            linked_bytes::check(world, self.destination, self.planned, shown)?;
        }
        let plans = &self.planned.plans;
        let unlike = match job.reading.verify {
            Verify::None => Vec::new(),
            _ => same::unlike(world, plans, &self.planned.catalog, shown)?,
        };
        let told = |name: &str| self.origin.of(name).is_some();
        let damaged = same::sources(plans, &unlike, &told)?;
        self.origin.check(proving, plans, traced, shown, damaged)
    }

    /// What is known of the result beforehand, where it is all of linked files that stand as their manifest says.
    /// Collective.
    fn known(&self) -> Result<Option<Done>> {
        // Where every byte is to be verified, those that are linked are read, too.
        if !self.links() || self.run.job.reading.verify == Verify::All {
            return Ok(None);
        }
        let (world, source) = (self.run.world, &self.source.source);
        linked::known(world, self.origin, source, self.destination, self.planned)
    }

    /// Fills the staged files, then commits them. Collective.
    #[allow(
        clippy::too_many_arguments,
        reason = "the values of all steps meet here"
    )]
    fn fill(
        &self,
        route: &Route<'_>,
        (surveyed, readers, traced, known): (&Surveyed<'_>, &Readers<'_>, &Traced, Option<Done>),
        staged: &Staged,
        commit: &Commit<'_>,
        observer: &mut Observer<'_>,
        clock: &mut Clock,
    ) -> Result<Moved> {
        let (world, staging) = (self.run.world, &self.destination.staging);
        let shared = self.destination.site.division.is_some();
        let catalog = &self.planned.catalog;
        let linked = &self.destination.linked;
        let sink = FileSink::new(staging.partial(), catalog, shared);
        let sink = sink.without(linked.keys().copied());
        let source = &self.source.source;
        let ledger = Ledger::new(
            catalog,
            &self.destination.site,
            (&self.planned.kept, traced),
            staging.partial(),
            staging.journals(),
            commit.flush,
        );
        let into = Into {
            sink: &sink,
            witness: Some(&ledger),
            skip: known.as_ref().map_or(staged.skip(), |_| &Skip::All),
        };
        let mut moved = route.go(world, surveyed, readers, &into, observer)?;
        moved.written_bytes = moved.written_bytes.saturating_sub(sink.passed_bytes());
        clock.lap(|seconds| &mut seconds.exchange);
        source.still.check(world)?;
        sealed::check(world, source, readers)?;
        course::phase("putting in place");
        if !self.destination.leads {
            course::leaves(Leaves::Unknown);
        }
        commit.make(world, staged, known.unwrap_or_else(|| ledger.close()))?;
        course::leaves(Leaves::Placed(None));
        clock.lap(|seconds| &mut seconds.commit);
        Ok(moved)
    }
}
