//! What MPI is told of a process's threads.

/// The threads of a process that matter to an MPI library, though one alone calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// None but the one that calls it (`MPI_THREAD_SINGLE`); others wait, or print. A library may leave out its locks,
    /// as it does for a program that calls `MPI_Init`: in Open MPI 4 a tenth of a microsecond a message.
    One,
    /// Others read, write and copy meanwhile (`MPI_THREAD_FUNNELED`).
    Several,
}

impl Threads {
    /// How MPI calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Threads::One => "single",
            Threads::Several => "funneled",
        }
    }
}
