//! The communicators of a cluster, and the collectives under way in each.

use super::imagined::is_alone;
use super::post::Post;
use crate::host::cluster::desk::Desk;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All communicators, by number.
#[derive(Default)]
pub(super) struct Board {
    groups: Vec<Group>,
    /// Communicators by the one that they are made of, at which of its collectives, and of which side.
    made: BTreeMap<(usize, usize, usize), usize>,
}

/// A communicator.
#[derive(Default)]
pub(super) struct Group {
    /// Member → process.
    pub(super) members: Vec<usize>,
    /// Member → collectives begun.
    pub(super) begun: Vec<usize>,
    pub(super) freed: usize,
    meetings: BTreeMap<usize, Meeting>,
    pub(super) post: Post,
}

/// A collective.
pub(super) struct Meeting {
    what: String,
    pub(super) given: Vec<Option<Given>>,
    /// Member → when it is complete there.
    due: Vec<Option<u64>>,
    taken: usize,
}

/// What a member gives.
#[derive(Clone, Default)]
pub(super) struct Given {
    pub(super) bytes: Arc<[u8]>,
    /// To each member, or just one length.
    pub(super) lengths: Arc<[usize]>,
    /// Whose part it needs: those with `true`.
    pub(super) needs: Vec<bool>,
}

impl Board {
    /// The communicator of number `number`; the first is that of all.
    pub(super) fn group(&mut self, number: usize, desk: &Desk<'_>) -> &mut Group {
        if self.groups.is_empty() {
            let all = (0..desk.processes()).collect();
            self.groups.push(Group::of(all));
        }
        &mut self.groups[number]
    }

    /// The number of the communicator that `members` make.
    pub(super) fn made(&mut self, key: (usize, usize, usize), members: Vec<usize>) -> usize {
        let next = self.groups.len();
        let number = *self.made.entry(key).or_insert(next);
        if number == next {
            self.groups.push(Group::of(members));
        }
        number
    }

    /// Notes what is left once all have ended well.
    pub(super) fn close(&mut self, desk: &mut Desk<'_>) {
        let open = desk.open();
        if open > 0 {
            desk.find(format!(
                "process {} leaves {open} requests open",
                desk.process
            ));
        }
        let all = self.groups.iter().enumerate();
        let last = all
            .clone()
            .all(|(_, group)| group.freed == group.members.len());
        for (number, group) in all.filter(|_| last) {
            if group.begun.iter().any(|begun| *begun != group.begun[0]) {
                let begun = &group.begun;
                desk.find(format!(
                    "communicator {number}: collectives begun: {begun:?}"
                ));
            }
            if let Some(left) = group.post.left() {
                desk.find(format!("communicator {number}: {left}"));
            }
        }
    }
}

impl Meeting {
    /// All others give the same as `me`, at once.
    fn imagine(&mut self, me: usize, desk: &mut Desk<'_>) {
        let same = self.given[me].clone().map(|given| Given {
            needs: Vec::new(),
            ..given
        });
        for given in self.given.iter_mut().filter(|given| given.is_none()) {
            given.clone_from(&same);
        }
        self.due[me] = Some(desk.now());
        desk.wake_at(desk.process, desk.now());
    }
}

impl Group {
    pub(super) fn of(members: Vec<usize>) -> Group {
        Group {
            begun: vec![0; members.len()],
            members,
            ..Group::default()
        }
    }

    /// Which member a process is.
    pub(super) fn member(&self, process: usize) -> usize {
        self.members
            .iter()
            .position(|member| *member == process)
            .unwrap_or(usize::MAX)
    }

    /// Begins the next collective of this process; gives its number.
    pub(super) fn enter(&mut self, what: String, given: Given, desk: &mut Desk<'_>) -> usize {
        let (me, size) = (self.member(desk.process), self.members.len());
        let number = self.begun[me];
        self.begun[me] += 1;
        let meeting = self.meetings.entry(number).or_insert_with(|| Meeting {
            what: what.clone(),
            given: vec![None; size],
            due: vec![None; size],
            taken: 0,
        });
        if meeting.what != what {
            let (process, other) = (desk.process, &meeting.what);
            desk.find(format!(
                "collective {number} is '{what}' on process {process}, and '{other}' elsewhere"
            ));
        }
        meeting.given[me] = Some(given);
        if is_alone() {
            meeting.imagine(me, desk);
            return number;
        }
        for (member, process) in self.members.iter().enumerate() {
            let Some(own) = &meeting.given[member] else {
                continue;
            };
            let missing = own.needs.iter().zip(&meeting.given);
            if meeting.due[member].is_none()
                && missing
                    .clone()
                    .all(|(needs, given)| !needs || given.is_some())
            {
                let due = desk.arrival();
                meeting.due[member] = Some(due);
                desk.wake_at(*process, due);
            }
        }
        number
    }

    /// The collective, if it is complete on this process. To be asked once more after that by nobody.
    pub(super) fn take<T>(
        &mut self,
        number: usize,
        desk: &mut Desk<'_>,
        read: impl FnOnce(&mut Meeting, usize, &mut Desk<'_>) -> T,
    ) -> Option<T> {
        let (me, size) = (self.member(desk.process), self.members.len());
        let meeting = self.meetings.get_mut(&number)?;
        let due = meeting.due[me]?;
        if due > desk.now() {
            return None;
        }
        let value = read(meeting, me, desk);
        meeting.taken += 1;
        if meeting.taken == size || is_alone() {
            self.meetings.remove(&number);
        }
        Some(value)
    }
}
