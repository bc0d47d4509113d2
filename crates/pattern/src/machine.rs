//! The declared state machines: of a work, and of a controller's row in it.
//!
//! A work (the store's `CHECK` has the same states, and a test compares them):
//!
//! ```text
//!               claim                      the last required controller settles
//!   accepted ───────────► running ───────────────────────────► completed
//!      │                   │  ▲                                completed_with_gaps
//!      │ park              │  │ redrive, cancel                failed
//!      │                   ▼  │                                cancelled
//!      └───────────────► parked
//! ```
//!
//! A controller's row:
//!
//! ```text
//!             claim              advance: again, release
//!   waiting ─────────► running ─────────────────────────► waiting
//!      ▲                │ │ └──── advance: idle ────────► idle ──── message ────► waiting
//!      │ redrive        │ └────── advance: done ────────► done
//!      └── parked ◄─────┘ park
//! ```

use serde::{Deserialize, Serialize};

/// Where a work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Logged durably; nobody has begun.
    Accepted,
    /// A controller has claimed it at least once.
    Running,
    /// It stopped at its stage and waits for a redrive.
    Parked,
    /// It did all that was asked.
    Completed,
    /// It did what could be done, and says what could not.
    CompletedWithGaps,
    /// It could not be done.
    Failed,
    /// Its client did not want it any more.
    Cancelled,
}

/// What happens to a work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A controller claims its row.
    Claim,
    /// A controller's row is parked.
    Park,
    /// A parked row is sent on its way again.
    Redrive,
    /// The last required controller has settled, with this outcome.
    Settle(Status),
}

impl Status {
    /// Every status, in the order in which a work can have them.
    pub const ALL: [Status; 7] = [
        Status::Accepted,
        Status::Running,
        Status::Parked,
        Status::Completed,
        Status::CompletedWithGaps,
        Status::Failed,
        Status::Cancelled,
    ];

    /// As it stands in the store and in what clients see.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Accepted => "accepted",
            Status::Running => "running",
            Status::Parked => "parked",
            Status::Completed => "completed",
            Status::CompletedWithGaps => "completed_with_gaps",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether a work in it changes no more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::CompletedWithGaps | Status::Failed | Status::Cancelled)
    }

    /// Where the verb takes a work; `None` where there is no such transition.
    pub const fn after(self, verb: Verb) -> Option<Status> {
        match (self, verb) {
            (Status::Accepted | Status::Running, Verb::Claim) => Some(Status::Running),
            // One controller may be parked while another still works.
            (Status::Parked, Verb::Claim) => Some(Status::Parked),
            (Status::Accepted | Status::Running | Status::Parked, Verb::Park) => Some(Status::Parked),
            (Status::Parked, Verb::Redrive) => Some(Status::Running),
            // What is parked beside those that must settle does not keep a work from its end.
            (Status::Running | Status::Parked, Verb::Settle(outcome)) if outcome.is_terminal() => {
                Some(outcome)
            }
            // What runs after the end, such as a second sweep, changes nothing of the work.
            (terminal, Verb::Claim | Verb::Park | Verb::Redrive) if terminal.is_terminal() => Some(terminal),
            _ => None,
        }
    }
}

/// Where a controller's row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// There is something to do when it is due.
    Waiting,
    /// Claimed: it has an owner and a lease.
    Running,
    /// Nothing to do until a message comes.
    Idle,
    /// Stopped until a redrive.
    Parked,
    /// Nothing to do ever again.
    Done,
}

impl Step {
    /// Every step.
    pub const ALL: [Step; 5] = [Step::Waiting, Step::Running, Step::Idle, Step::Parked, Step::Done];

    /// As it stands in the store and in what clients see.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Waiting => "waiting",
            Step::Running => "running",
            Step::Idle => "idle",
            Step::Parked => "parked",
            Step::Done => "done",
        }
    }

    /// The step of that name.
    pub fn parse(name: &str) -> Option<Step> {
        Step::ALL.into_iter().find(|step| step.name() == name)
    }
}

/// How a kind of work goes: its stages in order, and who must settle before it ends.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// The kind of work.
    pub kind: &'static str,
    /// Stages in order; a work's stage only advances.
    pub stages: &'static [&'static str],
    /// Controllers that must settle; the last one to do so ends the work.
    pub required: &'static [&'static str],
    /// The topic that is told of each work's end, in the transaction that ends it.
    pub ended: Option<&'static str>,
}

impl Machine {
    /// Whether a work may go from one stage to the other.
    pub fn advances(&self, from: &str, to: &str) -> bool {
        let place = |stage: &str| self.stages.iter().position(|known| *known == stage);
        matches!((place(from), place(to)), (Some(from), Some(to)) if from <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_is_the_declared_one() {
        use Status::*;
        let verbs = [Verb::Claim, Verb::Park, Verb::Redrive, Verb::Settle(Completed), Verb::Settle(Running)];
        let table = [
            (Accepted, [Some(Running), Some(Parked), None, None, None]),
            (Running, [Some(Running), Some(Parked), None, Some(Completed), None]),
            (Parked, [Some(Parked), Some(Parked), Some(Running), Some(Completed), None]),
            (Completed, [Some(Completed), Some(Completed), Some(Completed), None, None]),
            (
                CompletedWithGaps,
                [Some(CompletedWithGaps), Some(CompletedWithGaps), Some(CompletedWithGaps), None, None],
            ),
            (Failed, [Some(Failed), Some(Failed), Some(Failed), None, None]),
            (Cancelled, [Some(Cancelled), Some(Cancelled), Some(Cancelled), None, None]),
        ];
        assert_eq!(table.map(|(status, _)| status), Status::ALL);
        for (status, expected) in table {
            assert_eq!(verbs.map(|verb| status.after(verb)), expected, "{status:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.name()), Some(status));
        }
        for step in Step::ALL {
            assert_eq!(Step::parse(step.name()), Some(step));
        }
    }

    #[test]
    fn a_stage_only_advances() {
        let machine = Machine { kind: "k", stages: &["a", "b", "c"], required: &[], ended: None };
        let table =
            [("a", "b", true), ("a", "c", true), ("b", "b", true), ("b", "a", false), ("a", "x", false)];
        for (from, to, expected) in table {
            assert_eq!(machine.advances(from, to), expected, "{from} to {to}");
        }
    }
}
