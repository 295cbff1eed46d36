//! Guesses from sample records which field is the text, the id, the rating and so on: a mapping to start from.
//!
//! Names decide between fields whose values would do; values decide whether a field can be what its name says. What is
//! not clear is left out rather than guessed, except for the text and the id, which a stream cannot do without.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{fields, mapping::TimeUnit};

/// How deep a record is looked into. Deeper fields are rarely what a text is about.
const DEPTH_MAX: usize = 6;
/// Fields looked at in one record. A record with more is a table of its own.
const FIELDS_MAX: usize = 500;
/// A field that a stream's records should have stands in so large a share of the samples.
const SHARE_MIN: f64 = 0.5;

/// Names by which fields are known, the surest first; compared in lower case, without `_` and `-`.
const TEXT: [&str; 12] = [
    "text",
    "body",
    "reviewtext",
    "reviewbody",
    "content",
    "message",
    "comment",
    "review",
    "description",
    "abstract",
    "article",
    "snippet",
];
const TITLE: [&str; 5] = ["title", "subject", "headline", "summary", "reviewtitle"];
const ID: [&str; 6] = ["id", "uuid", "documentid", "reviewid", "messageid", "key"];
const ITEM: [&str; 9] = ["item", "itemid", "product", "productid", "asin", "sku", "productname", "articleid", "movie"];
const USER: [&str; 9] =
    ["user", "userid", "username", "author", "authorid", "reviewer", "reviewerid", "customer", "customerid"];
const RATING: [&str; 7] = ["rating", "stars", "starrating", "score", "overall", "grade", "rating10"];
const TIME: [&str; 12] = [
    "occurredat",
    "createdat",
    "created",
    "time",
    "timestamp",
    "date",
    "publishedat",
    "updatedat",
    "datetime",
    "ts",
    "reviewtime",
    "unixreviewtime",
];
const LANGUAGE: [&str; 5] = ["language", "lang", "locale", "languagecode", "langcode"];

/// A field that was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// As the configuration writes it.
    pub path: String,
    /// What was seen, such as `20 of 20 records, 31 words on average`.
    pub evidence: String,
}

/// A mapping to start from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    pub id: Option<Choice>,
    /// A title before the text, where there is one.
    pub text: Vec<Choice>,
    pub item: Option<Choice>,
    pub user: Option<Choice>,
    pub rating: Option<Choice>,
    pub occurred_at: Option<(Choice, TimeUnit)>,
    pub language: Option<Choice>,
}

/// A sample: the record's key, and its value as decoded.
pub type Sample = (Option<Vec<u8>>, Value);

/// Proposes a mapping for records like these. `is_language` says whether a word names a language.
pub fn propose(samples: &[Sample], is_language: impl Fn(&str) -> bool) -> Proposal {
    if !samples.is_empty() && samples.iter().all(|(_, value)| value.is_string()) {
        return plain_text(samples);
    }
    let fields = Fields::of(samples);
    let text = fields.best(&TEXT, |field| field.is_prose().then(|| field.words()));
    let title = text.as_ref().and_then(|text| {
        fields
            .best(&TITLE, |field| (field.path != text.path && field.is_named(&TITLE) && field.is_text()).then_some(0.0))
    });
    let id = fields.id(samples);
    let taken: BTreeSet<&str> = [&text, &title, &id].into_iter().flatten().map(|field| field.path.as_str()).collect();
    let named = |names: &[&str], fits: &dyn Fn(&Field<'_>) -> bool| {
        fields.best(names, |field| {
            (field.is_named(names) && !taken.contains(field.path.as_str()) && fits(field)).then_some(0.0)
        })
    };
    let time = named(&TIME, &|field| field.time_unit().is_some());
    Proposal {
        occurred_at: time.as_ref().and_then(|field| Some((field.choice(""), field.time_unit()?))),
        text: title
            .iter()
            .chain(&text)
            .map(|field| field.choice(&format!(", {:.0} words on average", field.words())))
            .collect(),
        item: named(&ITEM, &|field| field.is_identifier())
            .map(|field| field.choice(&format!(", {} different", field.distinct()))),
        user: named(&USER, &|field| field.is_identifier())
            .map(|field| field.choice(&format!(", {} different", field.distinct()))),
        rating: named(&RATING, &|field| field.numbers().is_some()).map(|field| field.choice(&field.range())),
        language: named(&LANGUAGE, &|field| {
            field.all_strings().is_some_and(|values| values.into_iter().all(&is_language))
        })
        .map(|field| field.choice("")),
        id: id.map(|field| field.choice(", all different")),
    }
}

/// The mapping of records whose value is the text itself.
fn plain_text(samples: &[Sample]) -> Proposal {
    let texts: Vec<&Value> = samples.iter().map(|(_, value)| value).collect();
    let whole = Field { path: "value".into(), name: "value".into(), values: texts, samples: samples.len() };
    let position = || Choice { path: "position".into(), evidence: "not every record has a key of its own".into() };
    Proposal {
        id: Some(unique_key(samples).map_or_else(position, |key| key.choice(", all different"))),
        text: vec![whole.choice(&format!(", {:.0} words on average", whole.words()))],
        ..Proposal::default()
    }
}

/// The key, where each record has one of its own.
fn unique_key(samples: &[Sample]) -> Option<Field<'_>> {
    let keys: Vec<&str> =
        samples.iter().map(|(key, _)| std::str::from_utf8(key.as_deref()?).ok()).collect::<Option<_>>()?;
    let is_id = |key: &&str| !key.trim().is_empty() && !key.contains('\0') && key.len() <= fields::IDENTIFIER_BYTES_MAX;
    let are_unique = keys.len() > 1 && keys.iter().collect::<BTreeSet<_>>().len() == keys.len();
    (are_unique && keys.iter().all(is_id)).then(|| Field {
        path: "key".into(),
        name: "key".into(),
        values: Vec::new(),
        samples: samples.len(),
    })
}

/// All values that stand at one path.
#[derive(Debug, Clone)]
struct Field<'a> {
    path: String,
    /// Its name in lower case, without `_` and `-`; of `a/b` the last part.
    name: String,
    values: Vec<&'a Value>,
    samples: usize,
}

struct Fields<'a>(Vec<Field<'a>>);

impl<'a> Fields<'a> {
    fn of(samples: &'a [Sample]) -> Self {
        let mut by_path: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        // In the order of their first appearance: writers put first what matters.
        let mut order = Vec::new();
        for (_, value) in samples {
            let mut found = Vec::new();
            leaves(value, "", DEPTH_MAX, &mut found);
            for (path, value) in found {
                let values = by_path.entry(path.clone()).or_default();
                if values.is_empty() {
                    order.push(path);
                }
                values.push(value);
            }
        }
        let fields = order.into_iter().filter_map(|path| {
            let values = by_path.remove(&path)?;
            let name = plain(path.rsplit('/').next().unwrap_or_default());
            Some(Field { path, name, values, samples: samples.len() })
        });
        Self(fields.filter(|field| field.share() >= SHARE_MIN).collect())
    }

    /// The field that fits best: by its rank among `names`, then by `fit`, then the first.
    fn best(&self, names: &[&str], fit: impl Fn(&Field<'_>) -> Option<f64>) -> Option<Field<'a>> {
        let mut best: Option<(&Field<'a>, (usize, f64))> = None;
        for field in &self.0 {
            let Some(fit) = fit(field) else { continue };
            let rank = names.iter().position(|name| *name == field.name).unwrap_or(names.len());
            if best.is_none_or(|(_, (best_rank, best_fit))| rank < best_rank || (rank == best_rank && fit > best_fit)) {
                best = Some((field, (rank, fit)));
            }
        }
        best.map(|(field, _)| field.clone())
    }

    /// The key, where it is as good as any field: deletions need it. Else a field whose values are all different.
    fn id(&self, samples: &'a [Sample]) -> Option<Field<'a>> {
        if let Some(key) = unique_key(samples) {
            return Some(key);
        }
        let is_unique = |field: &Field<'_>| {
            field.is_identifier() && field.values.len() == samples.len() && field.distinct() == samples.len()
        };
        let looks_like_id = |field: &Field<'_>| field.name.ends_with("id") || field.is_named(&ID);
        self.best(&ID, |field| (is_unique(field) && looks_like_id(field)).then_some(0.0))
    }
}

impl Field<'_> {
    fn share(&self) -> f64 {
        self.values.len() as f64 / self.samples.max(1) as f64
    }

    fn is_named(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    fn all_strings(&self) -> Option<Vec<&str>> {
        self.values.iter().map(|value| value.as_str()).collect()
    }

    /// Every text of the field, those of arrays one by one; `None` where anything else stands there.
    fn texts(&self) -> Option<Vec<&str>> {
        let mut texts = Vec::new();
        for value in &self.values {
            match value {
                Value::String(text) => texts.push(text.as_str()),
                Value::Array(parts) => texts.extend(parts.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?),
                _ => return None,
            }
        }
        Some(texts)
    }

    fn is_text(&self) -> bool {
        self.texts().is_some_and(|texts| texts.iter().any(|text| text.chars().any(char::is_alphabetic)))
    }

    /// Text of several words, or text under a name that says so: languages without blanks have one word a sentence.
    fn is_prose(&self) -> bool {
        let is_time = self.time_unit().is_some();
        self.is_text() && !is_time && (self.words() >= 3.0 || self.is_named(&TEXT))
    }

    /// Words of a record on average.
    fn words(&self) -> f64 {
        let words: usize = self.texts().unwrap_or_default().iter().map(|text| text.split_whitespace().count()).sum();
        words as f64 / self.values.len().max(1) as f64
    }

    fn is_identifier(&self) -> bool {
        self.values.iter().all(|value| match value {
            Value::String(text) => !text.trim().is_empty() && text.len() <= fields::IDENTIFIER_BYTES_MAX,
            Value::Number(number) => !number.is_f64(),
            _ => false,
        })
    }

    fn distinct(&self) -> usize {
        self.values.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len()
    }

    fn numbers(&self) -> Option<Vec<f64>> {
        let number = |value: &&Value| match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.values.iter().map(number).collect()
    }

    fn range(&self) -> String {
        let numbers = self.numbers().unwrap_or_default();
        let (low, high) =
            numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), n| (low.min(*n), high.max(*n)));
        format!(", from {low} to {high}")
    }

    /// The unit in which all values are times between 1980 and 2100.
    fn time_unit(&self) -> Option<TimeUnit> {
        /// 1980-01-01 and 2100-01-01.
        const SECONDS: std::ops::Range<i64> = 315_532_800..4_102_444_800;
        let fits = |unit: TimeUnit| {
            self.values.iter().all(|value| {
                let time = match value {
                    Value::String(text) => fields::time_of_text(text.trim()),
                    Value::Number(number) => number.as_i64().and_then(|count| unit.since_epoch(count)),
                    _ => None,
                };
                time.is_some_and(|time| SECONDS.contains(&time.timestamp()))
            })
        };
        [TimeUnit::Milliseconds, TimeUnit::Seconds, TimeUnit::Microseconds].into_iter().find(|unit| fits(*unit))
    }

    fn choice(&self, detail: &str) -> Choice {
        // The key has no values of its own here, and stands in every sample.
        let count = if self.values.is_empty() { self.samples } else { self.values.len() };
        Choice { path: self.path.clone(), evidence: format!("{count} of {} records{detail}", self.samples) }
    }
}

/// A name without what people write between its words.
fn plain(name: &str) -> String {
    name.chars().filter(|character| !matches!(character, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// The values that are no objects, with their JSON Pointers. Null counts as nothing; an array is one value.
fn leaves<'a>(value: &'a Value, path: &str, depth: usize, found: &mut Vec<(String, &'a Value)>) {
    if found.len() >= FIELDS_MAX {
        return;
    }
    match value {
        Value::Object(fields) if depth > 0 => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves(value, &format!("{path}/{name}"), depth - 1, found);
            }
        }
        Value::Null | Value::Object(_) => {}
        // A value that is no object has no fields.
        _ if path.is_empty() => {}
        value => found.push((path.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proposal(values: Vec<Value>) -> Proposal {
        let samples: Vec<Sample> = values.into_iter().map(|value| (None, value)).collect();
        propose(&samples, |word| ["en", "de"].contains(&word))
    }

    fn path(choice: Option<&Choice>) -> Option<&str> {
        choice.map(|choice| choice.path.as_str())
    }

    #[test]
    fn a_foreign_layout_is_mapped() {
        let record = |n: i64| {
            json!({
                "payload": {
                    "review_id": format!("R{n}"), "asin": "B0001", "reviewerID": format!("A{}", n % 2),
                    "summary": "Nice kettle", "reviewText": "It boils water fast and looks good on my shelf.",
                    "overall": n % 5 + 1, "unixReviewTime": 1_350_000_000 + n, "lang": "en", "helpful": [0, 1],
                },
                "trace": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c",
            })
        };
        let proposal = proposal((0..20).map(record).collect());
        assert_eq!(path(proposal.id.as_ref()), Some("/payload/review_id"));
        let texts: Vec<&str> = proposal.text.iter().map(|choice| choice.path.as_str()).collect();
        assert_eq!(texts, ["/payload/summary", "/payload/reviewText"]);
        assert_eq!(path(proposal.item.as_ref()), Some("/payload/asin"));
        assert_eq!(path(proposal.user.as_ref()), Some("/payload/reviewerID"));
        assert_eq!(path(proposal.rating.as_ref()), Some("/payload/overall"));
        assert_eq!(path(proposal.language.as_ref()), Some("/payload/lang"));
        let (time, unit) = proposal.occurred_at.unwrap();
        assert_eq!((time.path.as_str(), unit), ("/payload/unixReviewTime", TimeUnit::Seconds));
        assert_eq!(proposal.rating.unwrap().evidence, "20 of 20 records, from 1 to 5");
    }

    #[test]
    fn the_key_is_the_id_where_it_is_unique() {
        let sample = |n: usize| (Some(format!("k{n}").into_bytes()), json!({"id": n, "text": "A few words here."}));
        let unique: Vec<Sample> = (0..5).map(sample).collect();
        assert_eq!(path(propose(&unique, |_| false).id.as_ref()), Some("key"));
        let same: Vec<Sample> = unique.into_iter().map(|(_, value)| (Some(b"k".to_vec()), value)).collect();
        assert_eq!(path(propose(&same, |_| false).id.as_ref()), Some("/id"));
    }

    #[test]
    fn the_longest_text_is_taken_where_no_name_helps() {
        let record =
            |n: usize| json!({"a": "three short words", "b": "many more words than the other field has", "c": n});
        let proposal = proposal((0..5).map(record).collect());
        assert_eq!(proposal.text.len(), 1);
        assert_eq!(path(proposal.text.first()), Some("/b"));
        assert_eq!(proposal.id, None);
    }

    #[test]
    fn what_a_name_says_is_checked_against_the_values() {
        let record = |n: usize| {
            json!({"id": "always the same", "text": "A few words here.", "rating": "very good", "time": "soon", "lang": "xx",
                   "user": {"name": "u"}, "n": n})
        };
        let proposal = proposal((0..5).map(record).collect());
        let optional = (&proposal.id, &proposal.rating, &proposal.language, &proposal.user);
        assert_eq!(optional, (&None, &None, &None, &None));
        assert_eq!(proposal.occurred_at, None);
    }

    #[test]
    fn names_with_slashes_and_fields_in_few_records_are_handled() {
        let mut values = vec![json!({"a/b~c": {"text": "A few words here."}}); 4];
        values[0]["rating"] = json!(5);
        let proposal = proposal(values);
        assert_eq!(path(proposal.text.first()), Some("/a~1b~0c/text"));
        assert_eq!(proposal.rating, None);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(proposal(Vec::new()), Proposal::default());
        assert_eq!(proposal(vec![json!(5), json!("text"), json!([1])]), Proposal::default());
    }

    #[test]
    fn plain_texts_take_their_key_or_their_place_as_id() {
        let sample = |key: &str| (Some(key.as_bytes().to_vec()), json!("A fine kettle."));
        let keyed = propose(&[sample("a"), sample("b")], |_| false);
        assert_eq!((path(keyed.id.as_ref()), path(keyed.text.first())), (Some("key"), Some("value")));
        assert_eq!(keyed.text[0].evidence, "2 of 2 records, 3 words on average");
        assert_eq!(path(propose(&[sample("a"), sample("a")], |_| false).id.as_ref()), Some("position"));
    }
}
