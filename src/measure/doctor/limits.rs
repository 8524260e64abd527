//! What the system lets a process have.

use super::finding::Finding;
use super::groups;
use super::system::{Machine, Seat};
use crate::store::io::OPEN_FILES;

const TOPIC: &str = "limits";
/// Bytes of stack below which MPI libraries have been seen to die.
const STACK_BYTES: u64 = 1 << 20;
/// Locked memory that network cards ask for.
const LOCKED_BYTES: u64 = 1 << 30;
/// Threads and helpers of one process.
const TASKS: u64 = 64;

/// The limits of a process. Local.
pub(super) fn checks(machine: &Machine, seat: &Seat) -> Vec<Finding> {
    let found = machine
        .limits
        .iter()
        .filter_map(|(letter, what, soft, hard)| {
            let (letter, soft, hard) = (*letter, *soft, *hard);
            let shown = |limit: Option<u64>| {
                limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string())
            };
            let line = format!("{what} (ulimit -{letter}): {}", shown(soft));
            let below = |least: u64| soft.is_some_and(|soft| soft < least);
            let raise = |least: u64| match hard {
                Some(hard) if hard < least => format!(
                    "the hard limit is {hard}: raise it in /etc/security/limits.conf, or where the \
                 launcher's daemon is started"
                ),
                _ => format!("ulimit -{letter} {least}"),
            };
            Some(match letter {
                'n' if below(64) => Finding::wrong(TOPIC, line, raise(OPEN_FILES)),
                'n' if below(OPEN_FILES) => Finding::odd(TOPIC, line, raise(OPEN_FILES)),
                'f' if soft.is_some() => {
                    let advice = "no file may be longer: ulimit -f unlimited, or --max-shard-size";
                    Finding::odd(TOPIC, line, advice)
                }
                's' if below(STACK_BYTES) => Finding::wrong(TOPIC, line, "ulimit -s 8192"),
                'u' if below(TASKS * seat.neighbours) => {
                    Finding::odd(TOPIC, line, raise(1024 * seat.neighbours))
                }
                'v' if soft.is_some() => {
                    let advice = "MPI reserves more than it uses: ulimit -v unlimited";
                    Finding::odd(TOPIC, line, advice)
                }
                // Of interest where a network card is used, which only several nodes do.
                'l' if seat.nodes > 1 && below(LOCKED_BYTES) => {
                    let advice = "InfiniBand and RoCE want to lock memory: ulimit -l unlimited";
                    Finding::odd(TOPIC, line, advice)
                }
                'n' | 'l' | 's' => Finding::right(TOPIC, line),
                _ => return None,
            })
        });
    let found = found.chain(group(machine, seat));
    let node = &seat.node;
    found.map(|finding| finding.on(node)).collect()
}

/// The tasks that a container may have.
fn group(machine: &Machine, seat: &Seat) -> Option<Finding> {
    let tasks = groups::tasks(&*machine.text)?;
    let few = tasks < TASKS * seat.neighbours;
    few.then(|| {
        let found = format!("the control group allows {tasks} processes and threads");
        let advice =
            "raise it (docker: --pids-limit), or start fewer processes with fewer --threads";
        Finding::odd(TOPIC, found, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn state(letter: char, soft: u64, hard: u64) -> Option<State> {
        let limits = vec![(letter, "it", Some(soft), Some(hard))];
        let machine = Machine {
            limits,
            ..Machine::sound()
        };
        let found = checks(&machine, &Seat::pair());
        found.first().map(|finding| finding.state)
    }

    #[test]
    fn small_limits_are_seen() {
        assert_eq!(state('n', 32, 32), Some(State::Wrong));
        assert_eq!(state('n', 256, 4096), Some(State::Odd));
        assert_eq!(state('n', 65536, 65536), Some(State::Right));
        assert_eq!(state('s', 4096, 4096), Some(State::Wrong));
        assert_eq!(state('s', 8 << 20, 8 << 20), Some(State::Right));
        assert_eq!(state('l', 1 << 16, 1 << 16), Some(State::Right));
        assert_eq!(state('f', 1 << 30, 1 << 30), Some(State::Odd));
        assert_eq!(state('u', 1 << 20, 1 << 20), None);
    }

    #[test]
    fn locked_memory_counts_between_nodes() {
        let machine = Machine {
            limits: vec![('l', "locked memory", Some(1 << 16), Some(1 << 16))],
            ..Machine::sound()
        };
        let seat = Seat {
            nodes: 2,
            ..Seat::pair()
        };
        assert_eq!(checks(&machine, &seat)[0].state, State::Odd);
    }

    #[test]
    fn a_container_s_few_tasks_are_odd() {
        let texts = |path: &str| match path {
            "/proc/self/cgroup" => Some("0::/\n".to_owned()),
            "/sys/fs/cgroup/pids.max" => Some("100\n".to_owned()),
            _ => None,
        };
        let machine = Machine {
            text: Box::new(texts),
            limits: Vec::new(),
            ..Machine::sound()
        };
        assert_eq!(checks(&machine, &Seat::pair())[0].state, State::Odd);
    }

    #[test]
    fn a_hard_limit_is_told() {
        let machine = Machine {
            limits: vec![('n', "open files", Some(100), Some(100))],
            ..Machine::sound()
        };
        let found = checks(&machine, &Seat::pair());
        assert!(
            found[0]
                .advice
                .as_ref()
                .unwrap()
                .contains("hard limit is 100")
        );
    }
}
