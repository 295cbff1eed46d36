//! Documents by a field of their rows, so that each of its values has figures of its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::truth::word;
use crate::{
    commands::{UsageError, terminal::excerpt},
    domain::evaluation::{Evaluation, Judged, evaluate},
};

/// Values of the field. Where there are more, it is not one that sorts rows into kinds.
const GROUPS_MAX: usize = 200;

/// The figures of one value of the field.
pub struct Group {
    /// `None` where rows have no such field.
    pub value: Option<String>,
    pub evaluation: Evaluation,
}

impl Group {
    /// The value as people see it; a dash where there is none.
    pub fn shown(&self) -> String {
        self.value.as_deref().map_or_else(|| "-".into(), excerpt)
    }
}

/// Which documents belong together. Documents are numbered in the order in which they are added.
pub struct Groups<'a> {
    field: &'a str,
    documents: usize,
    members: BTreeMap<Option<String>, Vec<usize>>,
}

impl<'a> Groups<'a> {
    pub fn new(field: &'a str) -> Self {
        Self { field, documents: 0, members: BTreeMap::new() }
    }

    /// The next document.
    ///
    /// # Errors
    /// Where the field has too many values.
    pub fn add(&mut self, fields: &Map<String, Value>) -> Result<(), UsageError> {
        let value = fields.get(self.field).filter(|value| !value.is_null());
        let value = value.map(|value| word(value).into_owned());
        self.members.entry(value).or_default().push(self.documents);
        self.documents += 1;
        if self.members.len() > GROUPS_MAX {
            let field = self.field;
            return Err(UsageError(format!(
                "`--by {field}`: the field has more than {GROUPS_MAX} values; name one that sorts rows into kinds"
            )));
        }
        Ok(())
    }

    /// Figures of each value, in the order of the values. `judged` are the documents in their order.
    pub fn figures(&self, judged: &[Judged], classes: usize) -> Vec<Group> {
        let figures = |(value, members): (&Option<String>, &Vec<usize>)| {
            let own: Vec<Judged> = members.iter().map(|document| judged[*document]).collect();
            Some(Group { value: value.clone(), evaluation: evaluate(&own, classes)? })
        };
        self.members.iter().filter_map(figures).collect()
    }
}
