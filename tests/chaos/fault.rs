//! What can go wrong, and the draw of a run's faults.

use std::fmt;

use super::server;

/// Everything between two outside effects of the program, in order.
pub const BOUNDARIES: [&str; 11] = [
    "before-claim",
    "after-claim",
    "before-store",
    "after-store",
    "before-begin",
    "after-begin",
    "after-produce",
    "after-offsets",
    "after-commit",
    "before-delete",
    "after-delete",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillAt(&'static str),
    KillAtRandom,
    KillAllAtRandom,
    KillInTakeover,
    FreezeAt(&'static str),
    FreezeAtRandom,
    Join,
    Leave,
    RestartKafka,
    RestartPostgres,
    TransactionTimesOut,
    OffsetsDeleted,
    OffsetsOverwritten,
    DatabaseRestored,
    TopicRecreated,
    PartitionsAdded,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillAt(boundary) => write!(formatter, "kill -9 {}", boundary.replace('-', " ")),
            Self::KillAtRandom => formatter.write_str("kill -9 at a random moment"),
            Self::KillAllAtRandom => formatter.write_str("kill -9 of all workers"),
            Self::KillInTakeover => formatter.write_str("kill -9 in the middle of a takeover"),
            Self::FreezeAt(boundary) => write!(formatter, "zombie that froze {}", boundary.replace('-', " ")),
            Self::FreezeAtRandom => formatter.write_str("zombie that froze at a random moment"),
            Self::Join => formatter.write_str("a worker joins"),
            Self::Leave => formatter.write_str("a worker leaves"),
            Self::RestartKafka => formatter.write_str("the broker restarts"),
            Self::RestartPostgres => formatter.write_str("Postgres restarts"),
            Self::TransactionTimesOut => formatter.write_str("a transaction times out"),
            Self::OffsetsDeleted => formatter.write_str("the group's offsets are deleted"),
            Self::OffsetsOverwritten => formatter.write_str("the group's offsets are reset by hand"),
            Self::DatabaseRestored => formatter.write_str("the database is restored from an older state"),
            Self::TopicRecreated => formatter.write_str("the topic is deleted and created again"),
            Self::PartitionsAdded => formatter.write_str("partitions are added"),
        }
    }
}

/// Faults of one run.
const FAULTS: usize = 3;

impl Fault {
    fn all() -> Vec<Self> {
        let mut all = vec![
            Self::KillAtRandom,
            Self::KillAllAtRandom,
            Self::KillInTakeover,
            Self::FreezeAtRandom,
            Self::Join,
            Self::Leave,
            Self::RestartKafka,
            Self::RestartPostgres,
            Self::TransactionTimesOut,
            Self::OffsetsDeleted,
            Self::OffsetsOverwritten,
            Self::DatabaseRestored,
            Self::TopicRecreated,
            Self::PartitionsAdded,
        ];
        all.extend(BOUNDARIES.map(Self::KillAt));
        all.extend(BOUNDARIES.map(Self::FreezeAt));
        all.retain(|fault| match fault {
            Self::RestartKafka => server::is_local("kafka"),
            Self::RestartPostgres => server::is_local("postgres"),
            _ => true,
        });
        all
    }

    /// The faults of a seed. As many consecutive seeds as it takes have each fault once.
    pub fn of_seed(seed: u64) -> Vec<Self> {
        let mut all = Self::all();
        let rounds = all.len().div_ceil(FAULTS) as u64;
        fastrand::Rng::with_seed(seed / rounds).shuffle(&mut all);
        let first = (seed % rounds) as usize * FAULTS;
        all.into_iter().skip(first).take(FAULTS).collect()
    }
}
