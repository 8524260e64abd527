//! How all processes learn of the first error, and stop together.
//!
//! A collective step that can fail is followed by [`agree`]. In a long phase without collectives a
//! process that fails raises an [`Alarm`]; the others look for it between two pieces of work, stop,
//! and all meet in [`agree`]:
//!
//! ```text
//! process 0   piece  piece  raised?─yes─┐
//! process 1   piece  fails  raise ──────┼── agree: all get process 1's fault
//! process 2   piece  piece  piece  yes──┘
//! ```

use super::control::{all_reduce, broadcast_bytes};
use super::operation::Operation;
use super::pause::{Patience, Pause};
use super::wire::{decode, encode};
use super::world::{World, complain};
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;

/// Tags of an alarm before and after an agreement, used in turns.
const TAG_ALARM: [i32; 2] = [1, 2];

/// *Collective.* `result`, if it is `Ok` on all processes; else the same fault on all.
///
/// That is the fault of the lowest process that failed by itself (not for an alarm,
/// [`Kind::Peer`]), with its process and node filled in; [`World::failed_count`] tells how many
/// there were. Alarms are forgotten, so the next phase can begin.
///
/// A fault of MPI itself ([`Kind::Mpi`]) can't be agreed on: it aborts the world.
pub fn agree<T>(world: &World, result: Result<T>) -> Result<T> {
    match agreed(world, result.as_ref().err()) {
        Some(fault) => Err(fault),
        None => result,
    }
}

/// The fault of all, if one has failed: this process with `mine`.
fn agreed(world: &World, mine: Option<&Fault>) -> Option<Fault> {
    if let Some(fault) = mine.filter(|fault| fault.kind == Kind::Mpi) {
        give_up(world, &placed(world, fault));
    }
    settle(world, mine).unwrap_or_else(|fault| give_up(world, &fault))
}

/// Where there is nobody left to talk to.
fn give_up(world: &World, fault: &Fault) -> ! {
    let hint = fault.hint.as_deref();
    let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    complain(world.process(), &format!("{}{hint}", fault.message));
    world.abort(1)
}

/// The fault that all have agreed on, if any has failed; an error is about MPI.
fn settle(world: &World, mine: Option<&Fault>) -> Result<Option<Fault>> {
    let peer = mine.is_some_and(|fault| fault.kind == Kind::Peer);
    let own = mine.is_some() && !peer;
    let raised = world.raised.get();
    if planted(Bug::AgreeAlone) && mine.is_none() {
        return Ok(None);
    }
    let mut counts = [u64::from(own), u64::from(peer), u64::from(raised)];
    all_reduce(world, &mut counts, Operation::Sum)?;
    let [failed, stopped, alarms] = counts;
    forget_alarms(world, alarms - u64::from(raised))?;
    if failed + stopped == 0 {
        return Ok(None);
    }
    // Those that failed by themselves come first, then the lowest process.
    let class = if failed > 0 { own } else { peer };
    let place = if class { world.process() } else { u32::MAX };
    let mut lowest = [u64::from(place)];
    all_reduce(world, &mut lowest, Operation::Min)?;
    let root = u32::try_from(lowest[0])
        .map_err(|_| Fault::new(Kind::Internal, "no process says that it failed"))?;
    let bytes = match mine {
        Some(fault) if root == world.process() => encode(&placed(world, fault))?,
        _ => Vec::new(),
    };
    let fault: Fault = decode(&broadcast_bytes(world, root, bytes)?)?;
    world.failed.set(u32::try_from(failed).unwrap_or(u32::MAX));
    Ok(Some(fault))
}

/// *Local.* The fault with this process and node, unless it tells others.
fn placed(world: &World, fault: &Fault) -> Fault {
    let mut fault = fault.clone();
    if fault.process.is_none() {
        fault.process = Some(world.process());
        fault
            .node
            .get_or_insert_with(|| world.hostname().to_owned());
    }
    fault
}

/// *Local.* Receives the `alarms` that others have raised before they came here, and begins anew.
fn forget_alarms(world: &World, alarms: u64) -> Result<()> {
    let tag = TAG_ALARM[world.agreements.get()];
    let kept = planted(Bug::AlarmsKept);
    let alarms = if kept { 0 } else { alarms };
    let (mut left, mut pause) = (alarms, Pause::new(Patience::Long));
    while left > 0 {
        match world.signal.receive_any(tag)? {
            Some(_) => left -= 1,
            None => pause.rest(),
        }
    }
    for sent in world.alarms.take() {
        sent.wait(Patience::Long)?;
    }
    world.raised.set(false);
    world.alarmed.set(false);
    world.agreements.set(1 - world.agreements.get());
    Ok(())
}

/// How a process calls the others out of a phase without collectives.
#[derive(Clone, Copy)]
pub struct Alarm<'w> {
    world: &'w World,
}

impl<'w> Alarm<'w> {
    /// *Local.* The alarm of `world`; the same whoever asks.
    #[must_use]
    pub fn of(world: &'w World) -> Self {
        Alarm { world }
    }

    /// *Local.* Calls all others to [`agree`]. Does nothing if they have been called already.
    pub fn raise(&self) {
        if self.raised() {
            return;
        }
        self.world.alarmed.set(true);
        self.world.raised.set(true);
        let tag = TAG_ALARM[self.world.agreements.get()];
        let mut sent = self.world.alarms.borrow_mut();
        for other in (0..self.world.size()).filter(|other| *other != self.world.process()) {
            match self.world.signal.send(other, tag, Vec::new(), false) {
                Ok(flight) => sent.push(flight),
                Err(fault) => give_up(self.world, &fault),
            }
        }
    }

    /// *Local.* Whether someone has raised it since the last [`agree`]. Costs less than a
    /// microsecond.
    #[must_use]
    pub fn raised(&self) -> bool {
        if !self.world.alarmed.get() {
            let tag = TAG_ALARM[self.world.agreements.get()];
            // A broken MPI is a reason to stop as well.
            let alarmed = self
                .world
                .signal
                .probe(tag)
                .map_or(true, |found| found.is_some());
            self.world.alarmed.set(alarmed);
        }
        self.world.alarmed.get()
    }

    /// *Local.* A fault of [`Kind::Peer`] if someone has raised it.
    pub fn check(&self) -> Result<()> {
        if self.raised() {
            return Err(Fault::new(Kind::Peer, "stopped, as another process failed"));
        }
        Ok(())
    }
}
