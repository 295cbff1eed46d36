//! Settings that may hold passwords, and never show them.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

/// librdkafka settings by their own names. `Debug` shows the names only: any of them may be a secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClientSettings(pub BTreeMap<String, String>);

impl fmt::Debug for ClientSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let settings = ClientSettings(BTreeMap::from([("sasl.password".into(), "hunter2".into())]));
        assert_eq!(format!("{settings:?}"), r#"{"sasl.password"}"#);
    }
}
