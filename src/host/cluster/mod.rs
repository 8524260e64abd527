//! A cluster in one test: each process a thread (or some), of which one alone goes on at a time.
//!
//! At every call of the exchange, and at every system call on a file, another may come on. Who does is drawn
//! from a seed, as is what befalls them; so a seed shows the same run again. The time is the cluster's own: it
//! goes on with each call, and jumps where all wait.
//!
//! The threads of one process come between each other only where one of them waits (for a message, for
//! the end of another, for time), never at a system call: one may hold a mutex there.

pub(crate) mod channel;
pub(crate) mod desk;
pub(crate) mod draw;
pub(crate) mod ill;
mod state;
pub(crate) mod thread;

use crate::host::bug::Bug;
use ill::{Call, Event, Ill};
pub(crate) use state::{Schedule, Setting};
use state::{State, Status, Turn};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A cluster.
pub(crate) struct Cluster {
    state: Mutex<State>,
}

/// Where a thread is.
#[derive(Clone)]
pub(super) struct Seat {
    cluster: Arc<Cluster>,
    process: usize,
    task: usize,
    turn: Arc<Turn>,
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// Why a thread unwinds whose process is killed.
struct Killed;

/// What is there once for each process, at most.
pub(crate) const SLOTS: usize = 64;

/// The first number of a virtual process: the system has none so large.
static NUMBERS: AtomicU32 = AtomicU32::new(5_000_000);
static LIVING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// How a process has ended.
#[derive(Debug)]
pub(crate) enum End<T> {
    Done(T),
    Killed,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Run<T> {
    pub(crate) ends: Vec<End<T>>,
    /// What befell, in order.
    pub(crate) events: Vec<Event>,
    /// What must not be.
    pub(crate) findings: Vec<String>,
    /// How often what was met, in which phase.
    pub(crate) met: BTreeMap<(String, &'static str), u64>,
    /// Calls of all processes.
    pub(crate) steps: u64,
    /// The same for the same order of calls.
    pub(crate) trace: u64,
    /// How many could go on, at each choice of a schedule that was said.
    pub(crate) choices: Vec<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a process of each node of the setting; `prepare` is called on its thread first.
pub(crate) fn run<T: Send>(
    setting: &Setting,
    prepare: impl Fn(u32) + Sync,
    work: impl Fn() -> T + Sync,
) -> Run<T> {
    let count = u32::try_from(setting.nodes.len()).unwrap_or(0);
    let first = NUMBERS.fetch_add(count, Ordering::Relaxed);
    let numbers: Vec<u32> = (first..first + count).collect();
    lock(&LIVING).extend(&numbers);
    let cluster = Arc::new(Cluster {
        state: Mutex::new(State::new(setting, &numbers)),
    });
    let real = |process: &usize| setting.alone.is_none_or(|alone| alone == *process);
    let seats: Vec<Seat> = (0..numbers.len())
        .filter(real)
        .map(|process| {
            let (task, turn) = lock(&cluster.state).task(process);
            Seat {
                cluster: Arc::clone(&cluster),
                process,
                task,
                turn,
            }
        })
        .collect();
    let ends = std::thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .map(|seat| {
                let (prepare, work) = (&prepare, &work);
                let node = setting.nodes.get(seat.process).copied().unwrap_or_default();
                scope.spawn(move || {
                    prepare(node);
                    live(seat, work)
                })
            })
            .collect();
        cluster.pass_on();
        let join = |thread: std::thread::ScopedJoinHandle<'_, std::thread::Result<T>>| match thread
            .join()
            .and_then(|ended| ended)
        {
            Ok(value) => End::Done(value),
            Err(_) => End::Killed,
        };
        threads.into_iter().map(join).collect()
    });
    lock(&LIVING).retain(|number| !numbers.contains(number));
    let mut state = lock(&cluster.state);
    Run {
        ends,
        events: std::mem::take(&mut state.events),
        findings: std::mem::take(&mut state.findings),
        met: std::mem::take(&mut state.met),
        steps: state.steps,
        trace: state.trace,
        choices: std::mem::take(&mut state.choices),
    }
}

/// Lives as the task of `seat`, from its first turn to its end.
pub(super) fn live<T>(seat: Seat, work: impl FnOnce() -> T) -> std::thread::Result<T> {
    let _ = seat.turn.thread.set(std::thread::current());
    SEAT.set(Some(seat.clone()));
    let lived = catch_unwind(AssertUnwindSafe(|| {
        seat.take_turn();
        work()
    }));
    SEAT.set(None);
    let mut state = lock(&seat.cluster.state);
    let process = seat.process;
    if let Err(why) = &lived
        && !why.is::<Killed>()
    {
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_default();
        state
            .findings
            .push(format!("process {process} panics: {text}"));
        state.doom = Some(state.now);
    }
    state.tasks[seat.task].status = Status::Ended;
    if state.processes[process].alive {
        state.processes[process].current = None;
        state.wake(process);
        drop(state);
        seat.cluster.pass_on();
    }
    lived
}

impl Cluster {
    /// Lets the next one come on.
    fn pass_on(&self) {
        pass_on(lock(&self.state), None);
    }
}

/// Lets the next one come on; tells whether that is `own`, which is there already. Whoever wakes finds `state` free.
fn pass_on(mut state: MutexGuard<'_, State>, own: Option<usize>) -> bool {
    let next = state.next();
    let other = next.filter(|_| next != own);
    let turn = other.map(|next| Arc::clone(&state.tasks[next].turn));
    drop(state);
    if let Some(turn) = turn {
        turn.give();
    }
    next.is_some() && next == own
}

impl Seat {
    /// Waits until it is this task's turn.
    fn take_turn(&self) {
        if !self.turn.wait() {
            self.die();
        }
    }

    fn die(&self) {
        if !std::thread::panicking() {
            resume_unwind(Box::new(Killed));
        }
    }

    /// Lets another come on, as `state` has it, and waits for the next turn.
    fn hand_over(&self, state: MutexGuard<'_, State>) {
        if !pass_on(state, Some(self.task)) {
            self.take_turn();
        }
    }

    /// Waits, and lets the other threads of this process come on meanwhile.
    fn wait(&self, status: Status) {
        let mut state = lock(&self.cluster.state);
        if !state.processes[self.process].alive {
            drop(state);
            return self.die();
        }
        let news = state.processes[self.process].news;
        // What has come since it waited last may be what it waits for.
        let came = std::mem::replace(&mut state.tasks[self.task].heard, news) != news;
        if !(came && matches!(status, Status::Rests(_))) {
            state.tasks[self.task].status = status;
        }
        state.processes[self.process].current = None;
        self.hand_over(state);
        let mut state = lock(&self.cluster.state);
        state.tasks[self.task].heard = state.processes[self.process].news;
    }

    /// Passes a point where others may come on; gives what befalls the call.
    fn point(&self, call: Call) -> Option<Ill> {
        let mut state = lock(&self.cluster.state);
        if !state.processes[self.process].alive {
            drop(state);
            self.die();
            return Some(Ill::Failed);
        }
        let ill = state.step(self.task, call);
        match ill {
            Some(Ill::Lost) => {
                let after = state.schedule.below(1 << 36) >> state.schedule.below(36);
                state.doom = Some(state.now + after);
                state.kill(self.process);
            }
            Some(Ill::AllLost) => state.kill_all(),
            Some(Ill::Stopped) => state.processes[self.process].stopped = true,
            _ => {}
        }
        if !state.processes[self.process].alive {
            pass_on(state, None);
            self.die();
            return Some(Ill::Failed);
        }
        if ill == Some(Ill::Stopped) || state.gives_way(self.task) {
            self.hand_over(state);
        }
        ill
    }
}

fn seat() -> Option<Seat> {
    SEAT.with_borrow(Clone::clone)
}

fn asked<T>(ask: impl FnOnce(&Seat, &mut State) -> T) -> Option<T> {
    seat().map(|seat| ask(&seat, &mut lock(&seat.cluster.state)))
}

/// What may befall a system call on a file; none outside a cluster.
pub(crate) fn at_file() -> Option<Option<Ill>> {
    seat().map(|seat| seat.point(Call::File))
}

/// Whether what another process has made isn't seen yet.
pub(crate) fn is_late() -> bool {
    seat().is_some_and(|seat| seat.point(Call::Look) == Some(Ill::Late))
}

/// A call of the exchange.
pub(crate) fn at_exchange() {
    if let Some(seat) = seat() {
        seat.point(Call::Exchange);
    }
}

/// Waits for an event of this process, at most for so long; false outside a cluster.
pub(crate) fn rest(patience: Option<Duration>) -> bool {
    let Some(seat) = seat() else { return false };
    let until = patience.map(|patience| lock(&seat.cluster.state).now + nanoseconds(patience));
    seat.wait(Status::Rests(until));
    true
}

/// Sleeps; false outside a cluster.
pub(super) fn sleep(time: Duration) -> bool {
    let Some(seat) = seat() else { return false };
    let until = lock(&seat.cluster.state).now + nanoseconds(time);
    seat.wait(Status::Sleeps(until));
    true
}

/// An event of this process: those of its threads that rest look again. One of them may come on at once.
pub(super) fn wake() {
    let Some(seat) = seat() else { return };
    let mut state = lock(&seat.cluster.state);
    if state.processes[seat.process].alive {
        state.wake(seat.process);
        if !std::thread::panicking() && state.may_give_way() {
            state.processes[seat.process].current = None;
            seat.hand_over(state);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// The cluster's time.
pub(super) fn now() -> Option<Instant> {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    let zero = *ZERO.get_or_init(Instant::now);
    asked(|_, state| zero + Duration::from_nanos(state.now))
}

pub(super) fn slot() -> Option<usize> {
    let number = asked(|seat, state| state.processes[seat.process].number)?;
    Some(1 + usize::try_from(number).unwrap_or(0) % (SLOTS - 1))
}

/// This process's number.
pub(super) fn number() -> Option<u32> {
    asked(|seat, state| state.processes[seat.process].number)
}

/// Whether the process of this number lives, if it is a virtual one.
pub(super) fn lives(number: u32) -> Option<bool> {
    let virtual_one = (5_000_000..NUMBERS.load(Ordering::Relaxed)).contains(&number);
    virtual_one.then(|| lock(&LIVING).contains(&number))
}

pub(super) fn is_alive() -> bool {
    asked(|seat, state| state.processes[seat.process].alive).unwrap_or(true)
}

pub(crate) fn node() -> Option<u32> {
    asked(|seat, state| state.processes[seat.process].node)
}

pub(super) fn random() -> Option<u64> {
    asked(|_, state| state.fortune.next())
}

pub(super) fn phase(phase: &'static str) {
    asked(|seat, state| {
        state.processes[seat.process].phase = phase;
        state.meet("", seat.process);
    });
}

pub(super) fn planted() -> Option<Bug> {
    asked(|_, state| state.bug).flatten()
}

/// Ends all processes, which should never be.
pub(crate) fn abort(why: &str) -> ! {
    if let Some(seat) = seat() {
        let mut state = lock(&seat.cluster.state);
        if state.processes[seat.process].alive {
            let process = seat.process;
            state
                .findings
                .push(format!("process {process} ends all: {why}"));
            state.kill_all();
        }
        drop(state);
        resume_unwind(Box::new(Killed));
    }
    panic_any("nobody is there to be ended")
}
