//! What the exchange knows of its cluster, and the board that it keeps there.

use super::draw::Draw;
use super::state::State;
use super::{lock, seat};
use std::any::Any;
use std::cmp::Reverse;

/// What the exchange knows and does at its board.
pub(crate) struct Desk<'a> {
    state: &'a mut State,
    /// This process, from 0.
    pub(crate) process: usize,
}

impl Desk<'_> {
    pub(crate) fn now(&self) -> u64 {
        self.state.now
    }

    pub(crate) fn processes(&self) -> usize {
        self.state.processes.len()
    }

    pub(crate) fn nodes(&self) -> Vec<u32> {
        self.state
            .processes
            .iter()
            .map(|process| process.node)
            .collect()
    }

    pub(crate) fn draw(&mut self) -> &mut Draw {
        &mut self.state.schedule
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.state.calm
    }

    /// When what sets out now arrives.
    pub(crate) fn arrival(&mut self) -> u64 {
        let most = self.state.delay;
        let delay = match self.state.schedule.below(8) {
            _ if most == 0 => 0,
            0 => self.state.schedule.below(most * 20),
            1..4 => 0,
            _ => self.state.schedule.below(most),
        };
        if delay > 0 {
            self.state.meet("delayed", self.process);
        }
        self.state.now + delay
    }

    /// Lets `process` look again at that time.
    pub(crate) fn wake_at(&mut self, process: usize, time: u64) {
        self.state.comings.push(Reverse((time, process)));
    }

    /// Notes what must not be.
    pub(crate) fn find(&mut self, finding: String) {
        self.state.findings.push(finding);
    }

    /// A request begins, or is complete.
    pub(crate) fn request(&mut self, begins: bool) {
        let open = &mut self.state.processes[self.process].open;
        *open = if begins {
            *open + 1
        } else {
            open.saturating_sub(1)
        };
    }

    pub(crate) fn open(&self) -> u64 {
        self.state.processes[self.process].open
    }
}

/// Does something at the board of the exchange; none outside a cluster.
pub(crate) fn at_board<B: Default + Any + Send, T>(
    act: impl FnOnce(&mut B, &mut Desk<'_>) -> T,
) -> Option<T> {
    let seat = seat()?;
    let mut state = lock(&seat.cluster.state);
    let mut board = state.board.take().unwrap_or_else(|| Box::new(B::default()));
    let mut desk = Desk {
        state: &mut state,
        process: seat.process,
    };
    let done = board.downcast_mut::<B>().map(|board| act(board, &mut desk));
    state.board = Some(board);
    done
}
