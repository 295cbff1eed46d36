//! A record that cannot be labelled: where it stood, at which stage it failed, and why.
//!
//! A rejected record is a finished record. It takes its place in the tracker like any other, so it never
//! moves a position early and never blocks its partition. Too many of them mean that something else is wrong than the
//! records: [`RejectionWatch`] tells.

use std::collections::VecDeque;

/// The stage that gave up on the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Decode,
    Tokenize,
    Infer,
    Store,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Tokenize => "tokenize",
            Self::Infer => "infer",
            Self::Store => "store",
        }
    }
}

/// Why a record was rejected. The message never holds the record's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub stage: Stage,
    /// A stable word to group by, such as `text_missing`.
    pub reason: &'static str,
    /// What was expected and what was found, with the field.
    pub message: String,
}

impl Rejection {
    pub fn new(stage: Stage, reason: &'static str, message: impl Into<String>) -> Self {
        Self { stage, reason, message: message.into() }
    }

    /// With the place in a file that the record was read from.
    pub fn at(mut self, place: Option<&str>) -> Self {
        if let Some(place) = place {
            self.message = format!("{place}: {}", self.message);
        }
        self
    }
}

/// Records over which the share of rejections is taken: enough that a burst of bad ones among many good is none.
const SHARE_RECORDS: usize = 10_000;

/// How many rejections a stream bears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RejectionLimits {
    /// In a row; 0 for any number.
    pub streak_max: usize,
    /// Of the last 10,000 records; 1 for any share.
    pub share_max: f64,
}

impl RejectionLimits {
    /// Anything is borne.
    pub const NONE: Self = Self { streak_max: 0, share_max: 1.0 };
}

/// A stream bears no more rejections.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum LimitExceeded {
    #[error("{0} records in a row were rejected")]
    Streak(usize),
    #[error("{rejected} of the last {records} records were rejected")]
    Share { rejected: usize, records: usize },
}

/// Counts rejections in the order in which records are stored.
#[derive(Debug)]
pub struct RejectionWatch {
    limits: RejectionLimits,
    streak: usize,
    last: VecDeque<bool>,
    rejected: usize,
}

impl RejectionWatch {
    pub fn new(limits: RejectionLimits) -> Self {
        Self { limits, streak: 0, last: VecDeque::new(), rejected: 0 }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`LimitExceeded`] where it was one rejection too many.
    pub fn see(&mut self, rejected: bool) -> Result<(), LimitExceeded> {
        self.streak = if rejected { self.streak + 1 } else { 0 };
        self.last.push_back(rejected);
        self.rejected += usize::from(rejected);
        if self.last.len() > SHARE_RECORDS {
            self.rejected -= usize::from(self.last.pop_front() == Some(true));
        }
        let RejectionLimits { streak_max, share_max } = self.limits;
        let records = self.last.len();
        if streak_max > 0 && self.streak >= streak_max {
            return Err(LimitExceeded::Streak(self.streak));
        }
        if records == SHARE_RECORDS && self.rejected as f64 > share_max * records as f64 {
            return Err(LimitExceeded::Share { rejected: self.rejected, records });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(streak_max: usize, share_max: f64) -> RejectionWatch {
        RejectionWatch::new(RejectionLimits { streak_max, share_max })
    }

    #[test]
    fn a_streak_ends_with_the_first_record_that_is_not_rejected() {
        let mut watch = watch(3, 1.0);
        for rejected in [true, true, false, true, true] {
            assert_eq!(watch.see(rejected), Ok(()));
        }
        assert_eq!(watch.see(true), Err(LimitExceeded::Streak(3)));
    }

    #[test]
    fn the_share_is_that_of_the_last_records_once_there_are_enough() {
        let mut watch = watch(0, 0.5);
        for _ in 0..=SHARE_RECORDS / 2 {
            assert_eq!(watch.see(true), Ok(()));
        }
        for _ in SHARE_RECORDS / 2 + 1..SHARE_RECORDS - 1 {
            assert_eq!(watch.see(false), Ok(()));
        }
        assert_eq!(watch.see(false), Err(LimitExceeded::Share { rejected: 5001, records: 10_000 }));
        assert_eq!(watch.see(false), Ok(()), "the oldest is forgotten, and half is borne");
    }

    #[test]
    fn without_limits_everything_is_borne() {
        let mut watch = watch(0, 1.0);
        assert!((0..3 * SHARE_RECORDS).all(|_| watch.see(true).is_ok()));
    }
}
