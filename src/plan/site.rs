//! Who shares the work.

use crate::plan::division::Division;

/// The processes that can write the same destination files, and those files' ranks.
#[derive(Clone, Debug)]
pub struct Site {
    /// Destination ranks built here, ascending.
    pub ranks: Vec<u32>,
    /// Number of processes that share the work.
    pub processes: u32,
    /// Which of them this is.
    pub index: u32,
    /// Whether they are all processes that there are.
    pub everybody: bool,
    /// Where several nodes write these files: how they divide them.
    pub division: Option<Division>,
}

impl Site {
    /// This process's work divided over `threads`: the site as thread `thread` has it.
    #[must_use]
    pub fn of_thread(&self, thread: u32, threads: u32) -> Site {
        Site {
            ranks: self.ranks.clone(),
            processes: self.processes * threads,
            index: self.index * threads + thread,
            everybody: self.everybody,
            division: self.division,
        }
    }
}
