//! Bugs that tests plant.

/// A bug, named for what is then wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A process that hasn't failed doesn't ask whether others have.
    AgreeAlone,
    /// Alarms that others have raised are never received.
    AlarmsKept,
    /// A process that is asked for a rank's slice sends that of the rank before.
    AnswerOfOther,
    /// The last byte of a window isn't written.
    ByteLost,
    /// What was read isn't compared with what the source's manifest says.
    DigestUnasked,
    /// What an interrupted run has done isn't counted when it is taken up.
    DoneForgotten,
    /// A process that can't create its files leaves before the others are told.
    EarlyReturn,
    /// A worker's failure is taken for success.
    ErrorSwallowed,
    /// Leftovers are taken up that are not all there.
    IntactUnasked,
    /// An interrupted call isn't made again.
    InterruptFatal,
    /// The journal names what is not written yet.
    JournalFirst,
    /// The last short writes are never made.
    LastWindowKept,
    /// Only the process that puts a result in place learns that it failed.
    LeaderAlone,
    /// A lock outlives its holder.
    LockForEver,
    /// What another node has made must be seen at once.
    NoPatience,
    /// The old is removed before the new takes its place.
    OldFirst,
    /// Two exchanges that follow each other use the same tag.
    OneTag,
    /// Each process leaves the rounds when it has no more work itself.
    RoundsApart,
    /// A read that gives less than was asked for is taken for all.
    ShortIsWhole,
    /// A process leaves an exchange before all messages have been met.
    UnmetReturn,
}
