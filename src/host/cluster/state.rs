//! What is known of a cluster: its tasks, the time, whose turn it is.

use super::draw::Draw;
use super::ill::{Call, Event, Ill, Ills};
use crate::host::bug::Bug;
use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

/// How a cluster is, and what is to befall it.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    /// Process → its node.
    pub(crate) nodes: Vec<u32>,
    /// The one process that there is, where the others are imagined.
    pub(crate) alone: Option<usize>,
    pub(crate) ills: Ills,
    /// Whether processes come on in order, and messages at once.
    pub(crate) calm: bool,
    pub(crate) bug: Option<Bug>,
    /// The schedule, where it isn't drawn.
    pub(crate) schedule: Option<Schedule>,
}

/// A schedule that is said: whoever goes on does so until it waits, and then comes the first that can, but for the
/// departures. Nobody goes on for ever.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// Choice → which of those that can go on there does, if not the first.
    pub(crate) departures: BTreeMap<usize, usize>,
    /// Whether at every call another process may come on; else only where a thread waits or wakes another.
    pub(crate) at_calls: bool,
}

/// Whether a task's thread waits, goes on or dies.
#[derive(Default)]
pub(super) struct Turn {
    state: AtomicU32,
    pub(super) thread: OnceLock<Thread>,
}

const WAITS: u32 = 0;
const GOES: u32 = 1;
const DIES: u32 = 2;

impl Turn {
    /// Waits for the turn; tells whether it is one to go on.
    pub(super) fn wait(&self) -> bool {
        loop {
            match self.state.load(Ordering::Acquire) {
                GOES => {
                    let took = self.state.compare_exchange(
                        GOES,
                        WAITS,
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    );
                    if took.is_ok() {
                        return true;
                    }
                }
                DIES => return false,
                _ => std::thread::park(),
            }
        }
    }

    pub(super) fn give(&self) {
        let given = self
            .state
            .compare_exchange(WAITS, GOES, Ordering::AcqRel, Ordering::Acquire);
        if given.is_ok() {
            self.wake();
        }
    }

    fn end(&self) {
        self.state.store(DIES, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ready,
    /// For an event of its process, or until then.
    Rests(Option<u64>),
    /// For the time alone.
    Sleeps(u64),
    Ended,
}

/// A thread of a virtual process.
pub(super) struct Task {
    pub(super) process: usize,
    pub(super) status: Status,
    pub(super) turn: Arc<Turn>,
    /// What its process's `news` were when it waited last.
    pub(super) heard: u64,
    /// How often another came on instead, in a schedule that is said.
    passed_over: u32,
}

/// A virtual process.
pub(super) struct Process {
    pub(super) number: u32,
    pub(super) node: u32,
    pub(super) alive: bool,
    pub(super) stopped: bool,
    /// The task that alone may go on: no other thread of the process comes between its calls.
    pub(super) current: Option<usize>,
    pub(super) calls: u64,
    pub(super) phase: &'static str,
    /// How many times as long as others it needs.
    pub(super) slow: u64,
    /// Requests begun and not complete.
    pub(super) open: u64,
    /// How often something has come.
    pub(super) news: u64,
}

/// What is known of a cluster.
pub(super) struct State {
    pub(super) now: u64,
    pub(super) tasks: Vec<Task>,
    pub(super) processes: Vec<Process>,
    pub(super) board: Option<Box<dyn Any + Send>>,
    /// When something comes to a process.
    pub(super) comings: BinaryHeap<Reverse<(u64, usize)>>,
    /// When the launcher kills all that is left.
    pub(super) doom: Option<u64>,
    pub(super) schedule: Draw,
    pub(super) fortune: Draw,
    pub(super) ills: Ills,
    pub(super) bug: Option<Bug>,
    pub(super) calm: bool,
    /// Another comes on once in so many calls.
    burst: u64,
    /// Nanoseconds that a call takes, and at most a message.
    tick: u64,
    pub(super) delay: u64,
    pub(super) steps: u64,
    pub(super) trace: u64,
    pub(super) events: Vec<Event>,
    pub(super) met: BTreeMap<(String, &'static str), u64>,
    pub(super) findings: Vec<String>,
    said: Option<Schedule>,
    /// How many could go on, at each choice of a schedule that is said.
    pub(super) choices: Vec<usize>,
    /// Who went on last.
    last: usize,
}

/// Longest step, in nanoseconds, with which things may be seen late.
const LATE_TICK_MAX: u64 = 100_000;
/// Longest step of a slow process, in nanoseconds.
const SLOW_MAX: u64 = 200_000_000;
/// After so many choices of others a thread comes on in a schedule that is said: those who look again and again for what
/// it makes must not keep it from doing so.
const PASSED_OVER_MAX: u32 = 300;
/// More steps than any run needs.
const STEPS_MAX: u64 = 3_000_000;

impl State {
    pub(super) fn new(setting: &Setting, numbers: &[u32]) -> State {
        let mut schedule = Draw::new(setting.seed, 1);
        let nodes = setting.nodes.iter().zip(numbers);
        let mut processes: Vec<Process> = nodes
            .map(|(node, number)| Process {
                number: *number,
                node: *node,
                alive: true,
                stopped: false,
                current: None,
                calls: 0,
                phase: "starting",
                slow: 1,
                open: 0,
                news: 0,
            })
            .collect();
        let slow = schedule.index(processes.len());
        if schedule.one_in(4) && !setting.calm {
            processes[slow].slow = schedule.of(&[10, 300, 10_000]);
        }
        let tick = schedule.of(&[1_000, 20_000, 20_000, 3_000_000, 400_000_000]);
        processes[slow].slow = processes[slow].slow.min(SLOW_MAX / tick).max(1);
        let tick = setting.schedule.as_ref().map_or(tick, |_| 1_000);
        let delay = schedule.of(&[0, 10, 1_000, 100_000]) * tick.min(20_000);
        State {
            now: 0,
            tasks: Vec::new(),
            processes,
            board: None,
            comings: BinaryHeap::new(),
            doom: None,
            burst: schedule.of(&[1, 2, 8, 40]),
            tick,
            delay: if setting.calm { 0 } else { delay },
            schedule,
            fortune: Draw::new(setting.seed, 2),
            ills: setting.ills.clone(),
            bug: setting.bug,
            calm: setting.calm,
            steps: 0,
            trace: 0,
            events: Vec::new(),
            met: BTreeMap::new(),
            findings: Vec::new(),
            said: setting.schedule.clone(),
            choices: Vec::new(),
            last: 0,
        }
    }

    /// Adds a task; it may go on when its turn comes.
    pub(super) fn task(&mut self, process: usize) -> (usize, Arc<Turn>) {
        let turn = Arc::<Turn>::default();
        if !self.processes[process].alive {
            turn.end();
        }
        self.tasks.push(Task {
            process,
            status: Status::Ready,
            turn: Arc::clone(&turn),
            heard: 0,
            passed_over: 0,
        });
        (self.tasks.len() - 1, turn)
    }

    /// Counts that `what` was met.
    pub(super) fn meet(&mut self, what: &str, process: usize) {
        let phase = self.processes[process].phase;
        *self.met.entry((what.to_owned(), phase)).or_default() += 1;
    }

    /// Goes one step on in `task`; gives what befalls it.
    pub(super) fn step(&mut self, task: usize, call: Call) -> Option<Ill> {
        let number = self.tasks[task].process;
        self.steps += 1;
        self.now += self.tick;
        let process = &mut self.processes[number];
        process.calls += 1;
        let (calls, phase) = (process.calls, process.phase);
        let mark = (task as u64) << 40 | calls << 8 | call as u64;
        self.trace = (self.trace ^ mark)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17);
        if self.steps == STEPS_MAX {
            self.findings.push("the run doesn't end".to_owned());
            self.doom = Some(self.now);
        }
        let who = (u32::try_from(number).unwrap_or(0), calls);
        let ill = self.ills.at(who, call, phase, &mut self.fortune)?;
        // Nothing is late for as long as the program waits for it.
        if ill == Ill::Late && self.tick > LATE_TICK_MAX {
            return None;
        }
        self.events.push(Event {
            process: who.0,
            call: calls,
            ill,
            phase,
        });
        self.meet(&ill.to_string(), number);
        Some(ill)
    }

    /// Whether another task may come on after this step, which lasts long in a slow process.
    pub(super) fn gives_way(&mut self, task: usize) -> bool {
        let number = self.tasks[task].process;
        let slow = self.processes[number].slow;
        if slow > 1 {
            self.meet("slow", number);
            self.tasks[task].status = Status::Sleeps(self.now + slow * self.tick);
            return true;
        }
        match &self.said {
            Some(said) => said.at_calls,
            None => !self.calm && self.schedule.one_in(self.burst),
        }
    }

    /// Whether another thread of the process may come on once one has woken it.
    pub(super) fn may_give_way(&mut self) -> bool {
        self.said.is_some() || !self.calm && self.schedule.one_in(2)
    }

    /// Ends a process at once.
    pub(super) fn kill(&mut self, number: usize) {
        self.processes[number].alive = false;
        for task in self.tasks.iter().filter(|task| task.process == number) {
            task.turn.end();
        }
    }

    pub(super) fn kill_all(&mut self) {
        (0..self.processes.len()).for_each(|number| self.kill(number));
    }

    /// Tells the tasks of a process that something has come.
    pub(super) fn wake(&mut self, number: usize) {
        self.processes[number].news += 1;
        for task in self.tasks.iter_mut().filter(|task| task.process == number) {
            if matches!(task.status, Status::Rests(_)) {
                task.status = Status::Ready;
            }
        }
    }

    /// Lets pass what is due, and wakes who has waited for it.
    fn pass(&mut self) {
        if self.doom.is_some_and(|doom| doom <= self.now) {
            self.doom = None;
            self.kill_all();
        }
        while let Some(Reverse((due, number))) = self.comings.peek().copied()
            && due <= self.now
        {
            self.comings.pop();
            self.wake(number);
        }
        let now = self.now;
        for task in &mut self.tasks {
            match task.status {
                Status::Rests(Some(until)) | Status::Sleeps(until) if until <= now => {
                    task.status = Status::Ready;
                }
                _ => {}
            }
        }
    }

    /// Who comes on: none if nobody can ever.
    pub(super) fn next(&mut self) -> Option<usize> {
        loop {
            self.pass();
            let able = |(number, task): &(usize, &Task)| {
                let process = &self.processes[task.process];
                task.status == Status::Ready
                    && process.alive
                    && !process.stopped
                    && process.current.is_none_or(|current| current == *number)
            };
            let able: Vec<usize> = self
                .tasks
                .iter()
                .enumerate()
                .filter(able)
                .map(|(number, _)| number)
                .collect();
            if !able.is_empty() {
                let chosen = self.choose(able);
                self.last = chosen;
                let process = self.tasks[chosen].process;
                self.processes[process].current = Some(chosen);
                return Some(chosen);
            }
            match self.soonest() {
                Some(due) => self.now = due.max(self.now),
                None => {
                    self.stuck();
                    return None;
                }
            }
        }
    }

    /// Who of these comes on.
    fn choose(&mut self, mut able: Vec<usize>) -> usize {
        let Some(said) = &self.said else {
            return match self.calm {
                true => able[0],
                false => able[self.schedule.index(able.len())],
            };
        };
        if able.len() == 1 {
            return able[0];
        }
        let late = |task: &usize| self.tasks[*task].passed_over > PASSED_OVER_MAX;
        let next = able.iter().position(late);
        let next = next.or_else(|| able.iter().position(|task| *task == self.last));
        if let Some(at) = next {
            able[..=at].rotate_right(1);
        }
        let departure = said.departures.get(&self.choices.len());
        let chosen = able[departure.copied().unwrap_or(0)];
        self.choices.push(able.len());
        for task in able {
            self.tasks[task].passed_over += 1;
        }
        self.tasks[chosen].passed_over = 0;
        chosen
    }

    /// When something is due.
    fn soonest(&self) -> Option<u64> {
        let live = |task: &&Task| {
            let process = &self.processes[task.process];
            process.alive && !process.stopped
        };
        let tasks = self.tasks.iter().filter(live);
        let waits = tasks.filter_map(|task| match task.status {
            Status::Rests(until) => until,
            Status::Sleeps(until) => Some(until),
            _ => None,
        });
        let comings = self.comings.peek().map(|coming| coming.0.0);
        waits.chain(comings).chain(self.doom).min()
    }

    /// Nobody can go on: who is left waits for what never comes.
    fn stuck(&mut self) {
        let left: Vec<String> = self
            .tasks
            .iter()
            .filter(|task| task.status != Status::Ended && self.processes[task.process].alive)
            .map(|task| format!("{} ({})", task.process, self.processes[task.process].phase))
            .collect();
        if left.is_empty() {
            return;
        }
        if !self.processes.iter().any(|process| process.stopped) {
            let left = left.join(", ");
            self.findings
                .push(format!("threads wait for ever, of processes {left}"));
        }
        self.kill_all();
    }
}
