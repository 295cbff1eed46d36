//! Decodes records written in Avro, with the schema of their writer.
//!
//! The schema is parsed by `apache-avro`, the data is read here: that crate takes a string or a union that is cut off for a
//! null, reads nested data to any depth until the stack is used up, and reserves memory for as many elements as the data
//! claim, once a level. Here what is cut off is an error, depth and the number of values are bounded, and nothing is
//! reserved before it was read.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{
        DecimalSchema, EnumSchema, InnerDecimalSchema, Name, NamespaceRef, RecordSchema, ResolvedSchema, UnionSchema,
        UuidSchema,
    },
};
use chrono::DateTime;
use serde_json::{Map, Value};

use super::{convert, reject, schema::SchemaSource, varint};
use crate::domain::rejection::Rejection;

/// Records, arrays and maps in each other. As deep as JSON is read; each level takes stack.
const LEVELS_MAX: usize = 128;

/// Values that a record may have beyond one a byte. Nulls and empty records take no bytes, so that a few bytes could claim
/// billions of them in an array; what a writer means has some in each record.
const VALUES_WITHOUT_BYTES_MAX: usize = 4096;

/// An Avro schema, with those it refers to.
#[derive(Debug)]
pub struct AvroSchema {
    root: Schema,
    names: HashMap<Name, Schema>,
}

impl AvroSchema {
    /// # Errors
    /// What is wrong with it, as the parser says.
    pub fn compile(source: &SchemaSource) -> Result<Self, String> {
        let references = source.references.iter().map(|reference| reference.text.as_str());
        let (root, schemata) =
            Schema::parse_str_with_list(&source.text, references).map_err(|error| error.to_string())?;
        let resolved = ResolvedSchema::new_with_schemata(schemata.iter().chain([&root]).collect())
            .map_err(|error| error.to_string())?;
        let names = resolved.get_names().iter().map(|(name, schema)| (name.clone(), (*schema).clone())).collect();
        Ok(Self { root, names })
    }

    /// Reads the whole of a record's data.
    ///
    /// # Errors
    /// A [`Rejection`] with the byte at which it is not what the schema says.
    pub fn value(&self, data: &[u8]) -> Result<Value, Rejection> {
        let mut reader = Reader { left: data, names: &self.names, values_left: data.len() + VALUES_WITHOUT_BYTES_MAX };
        let value = reader.read(&self.root, None, LEVELS_MAX).and_then(|value| match reader.left.len() {
            0 => Ok(value),
            more => Err(format!("{more} bytes follow the end of the record")),
        });
        value.map_err(|problem| {
            let message = format!(
                "the value is not of its Avro schema, at byte {} after the framing: {problem}; was it written with the schema whose id it carries?",
                data.len() - reader.left.len()
            );
            reject("avro_invalid", message)
        })
    }
}

struct Reader<'a> {
    left: &'a [u8],
    names: &'a HashMap<Name, Schema>,
    values_left: usize,
}

impl<'a> Reader<'a> {
    fn read(&mut self, schema: &Schema, namespace: NamespaceRef<'_>, levels: usize) -> Result<Value, String> {
        self.values_left = self.values_left.checked_sub(1).ok_or("it claims more values than its bytes can hold")?;
        Ok(match schema {
            Schema::Null => Value::Null,
            Schema::Boolean => match self.take(1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other, ..] => return Err(format!("a boolean is {other}")),
                [] => return Err("a boolean is missing".into()),
            },
            Schema::Int | Schema::TimeMillis => Value::from(self.int()?),
            Schema::Long | Schema::TimeMicros => Value::from(self.long()?),
            Schema::Float => convert::float(f32::from_le_bytes(self.array()?)),
            Schema::Double => convert::double(f64::from_le_bytes(self.array()?)),
            Schema::Bytes | Schema::BigDecimal => convert::bytes(self.bytes()?),
            Schema::String | Schema::Uuid(UuidSchema::String) => Value::from(self.string()?),
            Schema::Fixed(fixed) | Schema::Duration(fixed) => convert::bytes(self.take(fixed.size)?),
            Schema::Uuid(UuidSchema::Bytes) => uuid(self.bytes()?)?,
            Schema::Uuid(UuidSchema::Fixed(fixed)) => uuid(self.take(fixed.size)?)?,
            Schema::Decimal(DecimalSchema { scale, inner, .. }) => {
                let unscaled = match inner {
                    InnerDecimalSchema::Bytes => self.bytes()?,
                    InnerDecimalSchema::Fixed(fixed) => self.take(fixed.size)?,
                };
                convert::decimal(unscaled, *scale)
            }
            Schema::Date => {
                let midnight = DateTime::from_timestamp(i64::from(self.int()?) * 86_400, 0);
                midnight.map_or_else(|| convert::time(None), |time| time.format("%Y-%m-%d").to_string().into())
            }
            Schema::TimestampMillis | Schema::LocalTimestampMillis => {
                convert::time(DateTime::from_timestamp_millis(self.long()?))
            }
            Schema::TimestampMicros | Schema::LocalTimestampMicros => {
                convert::time(DateTime::from_timestamp_micros(self.long()?))
            }
            Schema::TimestampNanos | Schema::LocalTimestampNanos => {
                convert::time(Some(DateTime::from_timestamp_nanos(self.long()?)))
            }
            Schema::Enum(symbols) => self.symbol(symbols)?,
            Schema::Union(union) => {
                let branch = self.branch(union)?;
                self.read(branch, namespace, levels)?
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace);
                let names = self.names;
                let schema = names.get(&name).ok_or_else(|| format!("the schema does not say what `{name}` is"))?;
                self.read(schema, name.namespace(), levels)?
            }
            Schema::Record(record) => self.record(record, namespace, deeper(levels)?)?,
            Schema::Array(array) => {
                let levels = deeper(levels)?;
                let mut items = Vec::new();
                self.blocks(|reader| {
                    items.push(reader.read(&array.items, namespace, levels)?);
                    Ok(())
                })?;
                Value::Array(items)
            }
            Schema::Map(map) => {
                let levels = deeper(levels)?;
                let mut entries = Map::new();
                self.blocks(|reader| {
                    let key = reader.string()?.to_owned();
                    entries.insert(key, reader.read(&map.types, namespace, levels)?);
                    Ok(())
                })?;
                Value::Object(entries)
            }
        })
    }

    fn record(&mut self, record: &RecordSchema, namespace: NamespaceRef<'_>, levels: usize) -> Result<Value, String> {
        let name = record.name.fully_qualified_name(namespace);
        let mut fields = Map::with_capacity(record.fields.len());
        for field in &record.fields {
            fields.insert(field.name.clone(), self.read(&field.schema, name.namespace(), levels)?);
        }
        Ok(Value::Object(fields))
    }

    fn symbol(&mut self, schema: &EnumSchema) -> Result<Value, String> {
        let index = self.int()?;
        let symbol = usize::try_from(index).ok().and_then(|index| schema.symbols.get(index));
        let symbol =
            symbol.ok_or_else(|| format!("an enum has {} symbols and none at {index}", schema.symbols.len()))?;
        Ok(symbol.as_str().into())
    }

    fn branch<'s>(&mut self, union: &'s UnionSchema) -> Result<&'s Schema, String> {
        let index = self.long()?;
        let branches = union.variants();
        let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
        branch.ok_or_else(|| format!("a union has {} branches and none at {index}", branches.len()))
    }

    /// The elements of an array or a map, which come in blocks; a negative count is followed by the block's size.
    fn blocks(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                element(self)?;
            }
        }
    }

    fn long(&mut self) -> Result<i64, String> {
        varint::take(&mut self.left).ok_or_else(|| "a number is cut off or too long".into())
    }

    fn int(&mut self) -> Result<i32, String> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| format!("{long} is no 32-bit number"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| format!("a length is {length}"))?)
    }

    fn string(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|error| format!("a string is not UTF-8: {error}"))
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], String> {
        self.take(SIZE)?.try_into().map_err(|_| "a number is cut off".into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or_else(|| format!("it is cut off: {count} bytes should follow, and {} do", self.left.len()))?;
        self.left = left;
        Ok(taken)
    }
}

fn deeper(levels: usize) -> Result<usize, String> {
    levels.checked_sub(1).ok_or_else(|| format!("it is nested more than {LEVELS_MAX} levels deep"))
}

fn uuid(bytes: &[u8]) -> Result<Value, String> {
    uuid::Uuid::from_slice(bytes).map(|uuid| uuid.to_string().into()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::schema::{Reference, SchemaKind};

    fn compile(schema: &Value, references: &[Value]) -> Result<AvroSchema, String> {
        let reference = |text: &Value| Reference { name: String::new(), text: text.to_string() };
        AvroSchema::compile(&SchemaSource {
            kind: SchemaKind::Avro,
            text: schema.to_string(),
            references: references.iter().map(reference).collect(),
        })
    }

    fn record(fields: &Value) -> Value {
        json!({"type": "record", "name": "Review", "namespace": "shop", "fields": fields})
    }

    fn read(schema: &Value, data: &[u8]) -> Result<Value, String> {
        compile(schema, &[]).unwrap().value(data).map_err(|rejection| {
            assert_eq!(rejection.reason, "avro_invalid");
            rejection.message
        })
    }

    /// As the crate's own writer writes it.
    fn written(schema: &Value, value: impl Into<apache_avro::types::Value>) -> Vec<u8> {
        let schema = Schema::parse(schema).unwrap();
        apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
            .build()
            .unwrap()
            .write_value_to_vec(value.into())
            .unwrap()
    }

    #[test]
    fn every_type_becomes_what_a_mapping_expects() {
        use apache_avro::types::Value as Avro;
        let schema = record(&json!([
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "text", "type": ["null", "string"]},
            {"name": "missing", "type": ["null", "string"]},
            {"name": "stars", "type": "float"},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "micros", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "OLD"]}},
            {"name": "raw", "type": "bytes"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "counts", "type": {"type": "map", "values": "long"}},
            {"name": "author", "type": {"type": "record", "name": "Author", "fields": [{"name": "name", "type": "string"}]}},
            {"name": "second", "type": ["null", "Author"]},
        ]));
        let author = |name: &str| Avro::Record(vec![("name".into(), Avro::String(name.into()))]);
        let data = written(
            &schema,
            Avro::Record(vec![
                ("id".into(), Avro::Uuid("67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap())),
                ("text".into(), Avro::Union(1, Box::new(Avro::String("Good.".into())))),
                ("missing".into(), Avro::Union(0, Box::new(Avro::Null))),
                ("stars".into(), Avro::Float(4.1)),
                ("price".into(), Avro::Decimal(apache_avro::Decimal::from([0x01, 0xc2]))),
                ("at".into(), Avro::TimestampMillis(1_714_557_600_000)),
                ("micros".into(), Avro::TimestampMicros(-1)),
                ("day".into(), Avro::Date(19_844)),
                ("state".into(), Avro::Enum(1, "OLD".into())),
                ("raw".into(), Avro::Bytes(vec![0xff, 0])),
                ("tags".into(), Avro::Array(vec![Avro::String("a".into()), Avro::String("b".into())])),
                ("counts".into(), Avro::Map(HashMap::from([("k".into(), Avro::Long(-3))]))),
                ("author".into(), author("Ada")),
                ("second".into(), Avro::Union(1, Box::new(author("Ben")))),
            ]),
        );
        let expected = json!({
            "id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "text": "Good.", "missing": null, "stars": 4.1, "price": "4.50",
            "at": "2024-05-01T10:00:00Z", "micros": "1969-12-31T23:59:59.999999Z", "day": "2024-05-01", "state": "OLD",
            "raw": {"bytes": 2}, "tags": ["a", "b"], "counts": {"k": -3}, "author": {"name": "Ada"}, "second": {"name": "Ben"},
        });
        assert_eq!(read(&schema, &data), Ok(expected));
        for length in 0..data.len() {
            assert!(read(&schema, &data[..length]).is_err(), "cut off after {length} bytes");
        }
        assert!(read(&schema, &[data, vec![0]].concat()).unwrap_err().contains("1 bytes follow the end"));
    }

    #[test]
    fn a_schema_may_refer_to_others() {
        let author = json!({"type": "record", "name": "Author", "namespace": "people", "fields": [{"name": "country", "type": "people.Country"}]});
        let country = json!({"type": "enum", "name": "Country", "namespace": "people", "symbols": ["DE", "FR"]});
        let schema =
            record(&json!([{"name": "author", "type": "people.Author"}, {"name": "next", "type": ["null", "Review"]}]));
        let schema = compile(&schema, &[country, author]).unwrap();
        let value = schema.value(&[2, 2, 0, 0]).unwrap();
        assert_eq!(value, json!({"author": {"country": "FR"}, "next": {"author": {"country": "DE"}, "next": null}}));
        assert!(
            compile(&record(&json!([{"name": "a", "type": "people.Nobody"}])), &[]).unwrap_err().contains("Nobody")
        );
    }

    #[test]
    fn hostile_data_are_rejected_within_small_bounds() {
        let array = json!({"type": "array", "items": "null"});
        let claimed = |count: i64, rest: &[u8]| {
            let mut data = written(&json!("long"), count);
            data.extend_from_slice(rest);
            data
        };
        assert_eq!(read(&array, &claimed(3, &[0])), Ok(json!([null, null, null])));
        assert_eq!(read(&array, &claimed(-2, &[0, 0])), Ok(json!([null, null])));
        for count in [5_000, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert!(read(&array, &claimed(count, &[0, 0])).unwrap_err().contains("more values than"), "{count}");
        }
        let nested = json!({"type": "array", "items": {"type": "array", "items": "null"}});
        let many: Vec<u8> = claimed(1_000, &claimed(4_000, &[0]).repeat(1_000));
        assert!(read(&nested, &many).unwrap_err().contains("more values than"));
        let list = record(&json!([{"name": "next", "type": ["null", "Review"]}]));
        assert!(read(&list, &[&[2; 100][..], &[0]].concat()).is_ok());
        assert!(read(&list, &vec![2; 1_000_000]).unwrap_err().contains("128 levels"));
        let endless = record(&json!([{"name": "next", "type": "Review"}]));
        assert!(read(&endless, &[]).unwrap_err().contains("128 levels"));
        for (schema, data, problem) in [
            ("string", &[0x80, 0x80, 0x80, 0x80, 0x10][..], "cut off"),
            ("bytes", &[1], "a length is -1"),
            ("string", &[4, 0xff, 0xff], "not UTF-8"),
            ("boolean", &[2], "a boolean is 2"),
            ("int", &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "no 32-bit number"),
            ("long", &[0xff; 10], "too long"),
        ] {
            let message = read(&json!(schema), data).unwrap_err();
            assert!(message.contains(problem), "{schema}: {message}");
        }
        assert!(read(&json!(["null", "long"]), &[4]).unwrap_err().contains("none at 2"));
        let letters = json!({"type": "enum", "name": "E", "symbols": ["A"]});
        assert!(read(&letters, &[1]).unwrap_err().contains("none at -1"));
    }
}
