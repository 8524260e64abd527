//! What may befall a virtual process, and when.

use super::draw::Draw;
use std::fmt;

/// What may befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ill {
    /// A system call is interrupted (EINTR).
    Interrupted,
    /// It moves half of its bytes.
    Short,
    /// It fails (EIO).
    Failed,
    /// There is no room (ENOSPC).
    Full,
    /// What another process has made isn't seen yet.
    Late,
    /// The process is killed; its launcher kills the others some time later.
    Lost,
    /// All are killed at once.
    AllLost,
    /// It never goes on; in the end somebody kills all.
    Stopped,
}

impl fmt::Display for Ill {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Ill::Interrupted => "EINTR",
            Ill::Short => "short",
            Ill::Failed => "EIO",
            Ill::Full => "ENOSPC",
            Ill::Late => "seen late",
            Ill::Lost => "lost",
            Ill::AllLost => "all lost",
            Ill::Stopped => "stopped",
        })
    }
}

impl Ill {
    /// Whether a run must get over it.
    pub(crate) fn is_light(self) -> bool {
        matches!(self, Ill::Interrupted | Ill::Short | Ill::Late)
    }

    /// Whether it can befall a call of this kind.
    pub(super) fn befalls(self, call: Call) -> bool {
        match self {
            Ill::Interrupted | Ill::Short | Ill::Failed | Ill::Full => call == Call::File,
            Ill::Late => call == Call::Look,
            Ill::Lost | Ill::AllLost | Ill::Stopped => true,
        }
    }
}

/// What a process does at a point where another may come on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A system call on a file.
    File,
    /// One for what another process has made.
    Look,
    /// A call of the exchange.
    Exchange,
}

/// Something that befell: at which call of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) process: u32,
    /// Number of the call, from 1.
    pub(crate) call: u64,
    pub(crate) ill: Ill,
    pub(crate) phase: &'static str,
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (process, call, phase) = (self.process, self.call, self.phase);
        write!(
            out,
            "{} at call {call} of process {process} ({phase})",
            self.ill
        )
    }
}

/// What happens now and then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hazard {
    pub(crate) ill: Ill,
    /// Whom it befalls; none: anybody.
    pub(crate) process: Option<u32>,
    /// In which phase alone.
    pub(crate) phase: Option<&'static str>,
    /// Once in so many calls.
    pub(crate) one_in: u64,
    /// How often still.
    pub(crate) left: u32,
}

/// What befalls the processes of a run.
#[derive(Clone, Debug)]
pub(crate) enum Ills {
    /// As drawn.
    Drawn(Vec<Hazard>),
    /// Just these.
    Listed(Vec<Event>),
}

impl Ills {
    /// What befalls `call` number `number` of a process in `phase`.
    pub(super) fn at(
        &mut self,
        (process, number): (u32, u64),
        call: Call,
        phase: &'static str,
        draw: &mut Draw,
    ) -> Option<Ill> {
        match self {
            Ills::Listed(events) => {
                let here = |event: &&Event| (event.process, event.call) == (process, number);
                events.iter().find(here).map(|event| event.ill)
            }
            Ills::Drawn(hazards) => hazards.iter_mut().find_map(|hazard| {
                let meant = hazard.left > 0
                    && hazard.process.is_none_or(|meant| meant == process)
                    && hazard.phase.is_none_or(|meant| meant == phase)
                    && hazard.ill.befalls(call);
                if !meant || !draw.one_in(hazard.one_in) {
                    return None;
                }
                hazard.left -= 1;
                Some(hazard.ill)
            }),
        }
    }
}
