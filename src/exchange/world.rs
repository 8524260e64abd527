//! All processes of this run. Nobody leaves silently: see [`World::finish`] and [`World::abort`].

use super::backend::{self, Communicator, Flight, Session};
use super::pause::Patience;
use super::threads::Threads;
use crate::fault::{Result, plain};
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::marker::PhantomData;

/// Exit code after a bug of ours.
const CODE_INTERNAL: i32 = 101;

/// Largest number of bytes in one call that carries control messages.
const CHUNK_BYTES_MAX: usize = 1 << 30;

/// All processes of this run.
///
/// It ends with [`World::finish`] where all processes have agreed to end, else with
/// [`World::abort`]. Dropped otherwise it aborts: a process that just leaves would let the others
/// wait for ever.
pub struct World {
    session: Option<Session>,
    process: u32,
    size: u32,
    hostname: String,
    /// Control messages.
    pub(super) control: Communicator,
    /// Data rounds.
    pub(super) data: Communicator,
    /// Alarms and progress.
    pub(super) signal: Communicator,
    /// Control messages that are longer travel in pieces.
    pub(super) chunk_bytes_max: usize,
    /// Whose turn it is of the tags of an exchange: 0 or 1.
    pub(super) exchanges: Cell<usize>,
    /// Whose turn it is of the tags of an alarm: 0 or 1.
    pub(super) agreements: Cell<usize>,
    /// Alarms this process has sent since the last agreement.
    pub(super) alarms: RefCell<Vec<Flight<Vec<u8>>>>,
    /// Whether there was an alarm since the last agreement, as far as known.
    pub(super) alarmed: Cell<bool>,
    /// Whether it was this process that raised it.
    pub(super) raised: Cell<bool>,
    /// How many processes failed by themselves when all agreed last.
    pub(super) failed: Cell<u32>,
    /// Progress reports begun, for their tags.
    pub(super) reports: Cell<i32>,
    /// MPI is for the thread that started it.
    _one_thread: PhantomData<*const ()>,
}

impl World {
    /// *Collective.* Starts MPI, once in a process's life, before it has other threads. Built without
    /// the feature `mpi` it is a world of one process.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Mpi`] if MPI has been started already.
    pub fn start() -> Result<Self> {
        World::start_while(Threads::Several, || true)
    }

    /// *Collective.* The same, for so many threads and while the launcher lives: an MPI library that is just starting may
    /// wait for ever for one that has ended. `lives`, on a thread of its own, is asked once a second until MPI has started; if it says no
    /// twice, this process ends by SIGTERM.
    ///
    /// # Errors
    /// As [`World::start`].
    pub fn start_while(
        threads: Threads,
        lives: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self> {
        let (session, processes) = Session::start(threads, lives)?;
        World::over(session, processes)
    }

    /// *Collective.* Joins the processes of `communicator`, in a program that has started MPI itself
    /// (with `MPI_THREAD_FUNNELED` at least) and that ends it. What is sent here can't meet the
    /// program's own messages. Call it on the thread that has started MPI.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Unsupported`] if MPI was started for one thread alone.
    #[cfg(all(feature = "mpi", not(test)))]
    pub fn from_communicator(communicator: &impl mpi::traits::Communicator) -> Result<Self> {
        let (session, processes) = Session::join(communicator)?;
        World::over(session, processes.duplicate()?)
    }

    /// *Collective.* A world of the processes that say `inside`, in their order; none on the others.
    /// [`World::finish`] ends it, on its processes; faults of it are to be agreed on in this world, too.
    pub fn part(&self, inside: bool) -> Result<Option<Self>> {
        let side = self.control.split(inside, self.process)?;
        if !inside {
            side.free()?;
            return Ok(None);
        }
        World::over(Session::part(), side).map(Some)
    }

    fn over(session: Session, control: Communicator) -> Result<Self> {
        let (process, size) = control.place()?;
        if session.is_own() {
            abort_on_panic(process);
        }
        Ok(World {
            session: Some(session),
            process,
            size,
            hostname: backend::hostname(),
            control,
            data: control.duplicate()?,
            signal: control.duplicate()?,
            chunk_bytes_max: CHUNK_BYTES_MAX,
            exchanges: Cell::new(0),
            agreements: Cell::new(0),
            alarms: RefCell::default(),
            alarmed: Cell::new(false),
            raised: Cell::new(false),
            failed: Cell::new(0),
            reports: Cell::new(0),
            _one_thread: PhantomData,
        })
    }

    /// *Local.* Number of this process, below [`World::size`].
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process
    }

    /// *Local.* How many processes there are.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// *Local.* The same as an index's type.
    pub(super) fn processes(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    /// *Local.* Name of the machine this process runs on.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// *Local.* How many processes failed by themselves when [`agree`](super::agree()) last
    /// returned a fault, the one reported included; 0 before.
    #[must_use]
    pub fn failed_count(&self) -> u32 {
        self.failed.get()
    }

    /// *Local.* The name and version of the MPI library.
    #[must_use]
    pub fn library() -> String {
        let version = backend::library();
        let name = version.lines().next().unwrap_or_default();
        name.split(", package")
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// *Local.* What MPI was told of this process's threads.
    #[must_use]
    pub fn threads() -> Threads {
        backend::threads()
    }

    /// *Local.* What the MPI library is built for to move bytes, where it says so, as MPICH does (`ch4:ofi`).
    #[must_use]
    pub fn device() -> Option<String> {
        device_in(&backend::library())
    }

    /// *Local.* Cuts control messages at `bytes` from now on; the same on all processes. For tests
    /// of the cutting: the limit of MPI is what it is set to.
    pub fn limit_chunks(&mut self, bytes: usize) {
        self.chunk_bytes_max = bytes.clamp(1, CHUNK_BYTES_MAX);
    }

    /// *Local.* Ends all processes now, with exit code `code`. For errors that can't be agreed on.
    pub fn abort(&self, code: u8) -> ! {
        Communicator::abort_all(i32::from(code))
    }

    /// *Collective.* Ends MPI, after success or a fault that all have agreed on; then the process
    /// may exit with the code it likes.
    ///
    /// What a process has to say it says before: launchers kill the rest of a job when one process
    /// has exited with a failure, and nobody exits before all have come here.
    pub fn finish(self) -> Result<()> {
        self.end(None)
    }

    /// *Collective.* The same where this process exits with `code` afterwards, as all have agreed: it does so in any case,
    /// though the MPI library should stay in its own end for ever.
    ///
    /// # Errors
    /// As [`World::finish`].
    pub fn finish_with(self, code: u8) -> Result<()> {
        self.end(Some(code))
    }

    fn end(mut self, code: Option<u8>) -> Result<()> {
        self.control.barrier()?.wait(Patience::Long)?;
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        self.alarms.get_mut().clear();
        let mut freed = self.signal.free().and(self.data.free());
        if !session.is_own() {
            freed = freed.and(self.control.free());
        }
        // After what was made for it is freed.
        session.end(code, self.process, self.size);
        freed
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // A program that has started MPI itself may go on; what was made for it stays.
        let own = session.is_own();
        session.forget();
        if own {
            complain(self.process, "left without an agreement of all");
            Communicator::abort_all(CODE_INTERNAL);
        }
    }
}

/// *Local.* Ends this process at once.
#[cfg(not(any(feature = "mpi", test)))]
#[allow(clippy::exit, reason = "there are no other processes that would wait")]
pub(super) fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// Lets a panic end all processes: one that unwinds would let the others wait for ever.
fn abort_on_panic(process: u32) {
    let main = std::thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        complain(process, &format!("internal error: {message} ({place})"));
        // Another thread must not call MPI; the launcher ends the job when this process dies.
        if std::thread::current().id() == main && !Session::has_ended() {
            Communicator::abort_all(CODE_INTERNAL);
        }
        std::process::abort();
    }));
}

/// What a library says of its device in the text with its version: `MPICH Device:    ch4:ofi`.
fn device_in(text: &str) -> Option<String> {
    let told = text.lines().find_map(|line| line.split_once("Device:"));
    let device = told?.1.trim();
    (!device.is_empty()).then(|| device.to_owned())
}

/// Last words of a process, in one write, so that they don't mix with others'.
pub(super) fn complain(process: u32, message: &str) {
    let line = format!("shardloom: process {process}: {}\n", plain::line(message));
    // Nobody is left to be told that nobody can be told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_may_tell_its_device() {
        let mpich = "MPICH Version:      5.0.2\nMPICH Device:       ch4:ofi\nMPICH configure: -x\n";
        assert_eq!(device_in(mpich).as_deref(), Some("ch4:ofi"));
        assert_eq!(device_in("Open MPI v4.1.4, package: Debian"), None);
    }
}
