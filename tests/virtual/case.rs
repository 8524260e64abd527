//! A job, a cluster and what is to befall it, drawn from a seed.

use crate::destination::Writing;
use crate::host::cluster::draw::Draw;
use crate::host::cluster::ill::{Hazard, Ill, Ills};
use crate::job::{Goal, Job, Write};
use crate::plan::arrange::{FULL_FILE_BYTES_MAX, Files, Naming, RankName};
use crate::plan::build::{Leftovers, Unmatched};
use crate::plan::reach::ExchangeMode;
use crate::source::{Reading, Verify};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Doing {
    Reshard,
    Overwrite,
    InPlace,
    Resume,
    Unify,
    Split,
}

/// A case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) doing: Doing,
    /// Number of the checkpoint.
    pub(super) model: usize,
    pub(super) processes: u32,
    pub(super) nodes: u32,
    /// Whether each node has a disk of its own.
    pub(super) own_disks: bool,
    pub(super) collective: bool,
    pub(super) flush: bool,
    pub(super) verify: Verify,
    /// Where a byte of a source file is flipped: a number for the file, one for the byte.
    pub(super) rot: Option<(u64, u64)>,
    pub(super) ills: Ills,
}

/// Checkpoints that cases are of.
pub(super) const MODELS: usize = 3;

impl Case {
    pub(super) fn of(seed: u64) -> Case {
        let mut draw = Draw::new(seed, 3);
        let doing = draw.of(&[
            Doing::Reshard,
            Doing::Overwrite,
            Doing::InPlace,
            Doing::Resume,
            Doing::Unify,
            Doing::Split,
        ]);
        let processes = draw.of(&[1, 2, 2, 3, 3, 4, 4, 5]);
        let nodes = draw.of(&[1, 1, 2, 3]).min(processes);
        let rot = draw.one_in(16).then(|| (draw.next(), draw.next()));
        // What takes the source's place is nothing to compare a mended source with.
        let rot = rot.filter(|_| doing != Doing::InPlace);
        let ills = if rot.is_some() {
            Vec::new()
        } else {
            hazards(&mut draw, processes)
        };
        Case {
            doing,
            model: if draw.one_in(5) { 2 } else { draw.index(2) },
            processes,
            nodes,
            // In place every node must get some of the new ranks.
            own_disks: nodes > 1
                && draw.one_in(3)
                && (doing != Doing::InPlace || (nodes, processes % 2) == (2, 0)),
            collective: draw.one_in(2),
            flush: draw.one_in(2),
            verify: match draw.below(4) {
                0 => Verify::All,
                1 if rot.is_none() => Verify::None,
                _ => Verify::Sample,
            },
            rot,
            ills: Ills::Drawn(ills),
        }
    }

    /// The node of each process.
    pub(super) fn node_of(&self) -> Vec<u32> {
        let node = |process| process * self.nodes / self.processes;
        (0..self.processes).map(node).collect()
    }

    /// The job; once more after one that was disturbed, if `again`.
    pub(super) fn job(&self, again: bool) -> Job {
        let place = if self.doing == Doing::InPlace {
            "src"
        } else {
            "out"
        };
        let mut writing = Writing::into(place);
        writing.unflushed = !self.flush;
        // A source that was mended is another one: nothing of before is taken up.
        writing.resume = self.doing == Doing::Resume && !(again && self.rot.is_some());
        writing.in_place = self.doing == Doing::InPlace;
        writing.overwrite =
            self.doing == Doing::Overwrite || (again && !writing.resume && !writing.in_place);
        let (mut source, mut cut) = ("src", Some("four.ckpt".into()));
        if self.doing == Doing::Split {
            (source, cut) = ("full", None);
        }
        if self.doing != Doing::Unify {
            writing.strategy = Some("two.ckpt".into());
        }
        let ranks = Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy: false,
        };
        let full = Files::Full {
            naming: Naming::Hf,
            file_bytes_max: FULL_FILE_BYTES_MAX,
        };
        let (command, leftovers, files) = match self.doing {
            Doing::Unify => ("unify", Leftovers::Unify(Unmatched::Fail), full),
            Doing::Split => ("split", Leftovers::Split(Unmatched::Fail), ranks),
            _ => ("reshard", Leftovers::Reshard(Unmatched::Fail), ranks),
        };
        let write = Write::new(leftovers, files, writing);
        let mut reading = Reading::checkpoint(source.into(), cut, None);
        reading.verify = self.verify;
        let mut job = Job::new(command, reading, Goal::Write(Box::new(write)));
        job.moving.threads = 1;
        job.moving.memory_bytes = 1 << 20;
        if self.collective {
            job.moving.exchange = ExchangeMode::Collective;
        }
        job
    }
}

/// What is to befall: light things now and then, and often one or two that are not.
fn hazards(draw: &mut Draw, processes: u32) -> Vec<Hazard> {
    let mut hazards = Vec::new();
    for ill in [Ill::Interrupted, Ill::Short, Ill::Late] {
        if draw.one_in(3) {
            hazards.push(Hazard {
                ill,
                process: None,
                phase: None,
                one_in: draw.of(&[2, 5, 30]),
                left: u32::MAX,
            });
        }
    }
    let heavy = draw.of(&[0, 1, 1, 1, 1, 2]);
    for _ in 0..heavy {
        let ill = draw.of(&[
            Ill::Failed,
            Ill::Failed,
            Ill::Full,
            Ill::Full,
            Ill::Lost,
            Ill::Lost,
            Ill::AllLost,
            Ill::Stopped,
        ]);
        let phase = draw.of(&super::PHASES);
        let one_in = match phase {
            "starting" => draw.of(&[2, 8]),
            _ => draw.of(&[3, 10, 30, 100]),
        };
        hazards.push(Hazard {
            ill,
            process: draw.one_in(2).then(|| draw.below(processes.into()) as u32),
            phase: (!draw.one_in(4)).then_some(phase),
            one_in,
            left: 1,
        });
    }
    hazards
}
