//! Rows of a Parquet file, page by page. The only importer of `parquet`.
//!
//! Times become RFC 3339 text, decimals their digits, structs objects, lists arrays. Bytes that are marked as text or
//! not at all are text where they are UTF-8, as writers that predate the mark left them.

use std::{
    fs::File,
    ops::{Bound, Range, RangeBounds},
    path::Path,
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat, Utc};
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type as PhysicalType},
    file::{
        metadata::ParquetMetaDataReader,
        reader::FileReader,
        serialized_reader::{ReadOptionsBuilder, SerializedFileReader},
    },
    record::{
        Field, Row,
        reader::{ReaderIter, TreeBuilder},
    },
    schema::types::{SchemaDescriptor, Type, TypePtr},
};
use serde_json::{Map, Value};

use super::{Consumed, FileError, FileRecord, Place, RECORD_BYTES_MAX, Unit, display};
use crate::crash::contain;

/// What a Parquet file begins and ends with.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// Values of a column that are decoded ahead. At most so many of the largest size are in memory for each column.
const BATCH_ROWS: usize = 64;

/// An opened file, its footer read.
pub(super) struct ParquetFile {
    name: String,
    /// The schema as the file has it.
    schema: TypePtr,
    /// It reads by a schema without the marks on bytes: what is not UTF-8 is then one bad row, and not the end of the
    /// reading.
    reader: SerializedFileReader<File>,
}

impl ParquetFile {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let name = display(path);
        let file = File::open(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
        let footer = |problem: String| FileError::Footer { name: name.clone(), problem };
        let metadata =
            ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| footer(error.to_string()))?;
        let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
        let plain = without_marks(&schema).map_err(|error| footer(error.to_string()))?;
        let plain = Arc::new(SchemaDescriptor::new(Arc::new(plain)));
        let options = ReadOptionsBuilder::new().with_parquet_schema(plain).build();
        let reader =
            SerializedFileReader::new_with_options(file, options).map_err(|error| footer(error.to_string()))?;
        Ok(Self { name, schema, reader })
    }

    /// Rows and bytes of each row group.
    pub(super) fn row_groups(&self) -> Vec<(u64, u64)> {
        let size = |size: i64| u64::try_from(size).unwrap_or(0);
        let groups = self.reader.metadata().row_groups().iter();
        groups.map(|group| (size(group.num_rows()), size(group.compressed_size()))).collect()
    }

    /// The rows of these row groups.
    pub(super) fn records(self, groups: impl RangeBounds<usize>, consumed: Consumed) -> ParquetRecords {
        let sizes = self.row_groups();
        let start = match groups.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match groups.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => sizes.len(),
        };
        let row = sizes.iter().take(start).map(|(rows, _)| rows).sum();
        ParquetRecords { file: self, groups: start..end.min(sizes.len()), rows: None, row, failed: false, consumed }
    }
}

/// See [`ParquetFile::records`].
pub(super) struct ParquetRecords {
    file: ParquetFile,
    groups: Range<usize>,
    rows: Option<Rows>,
    /// Rows of the file before the next one.
    row: u64,
    failed: bool,
    consumed: Consumed,
}

/// The rows of a row group.
struct Rows {
    rows: ReaderIter,
    bytes_each: u64,
}

impl Iterator for ParquetRecords {
    type Item = Result<FileRecord, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        contain(|| self.step()).unwrap_or_else(|panic| Some(Err(self.fail(&panic))))
    }
}

impl ParquetRecords {
    fn step(&mut self) -> Option<Result<FileRecord, FileError>> {
        loop {
            if let Some(rows) = &mut self.rows
                && let Some(row) = rows.rows.next()
            {
                self.consumed.add(rows.bytes_each);
                return Some(match row {
                    Ok(row) => {
                        self.row += 1;
                        self.record(row)
                    }
                    Err(error) => Err(self.fail(&error)),
                });
            }
            let group = self.groups.next()?;
            if self.file.reader.metadata().row_group(group).num_rows() == 0 {
                continue;
            }
            match self.open_group(group) {
                Ok(rows) => self.rows = Some(rows),
                Err(error) => return Some(Err(self.fail(&error))),
            }
        }
    }

    fn open_group(&self, group: usize) -> parquet::errors::Result<Rows> {
        let reader = self.file.reader.get_row_group(group)?;
        let metadata = reader.metadata();
        let bytes_each = u64::try_from(metadata.compressed_size() / metadata.num_rows().max(1)).unwrap_or(0);
        let schema = self.file.reader.metadata().file_metadata().schema_descr_ptr();
        let rows = TreeBuilder::new().with_batch_size(BATCH_ROWS).as_iter(schema, &*reader)?;
        Ok(Rows { rows, bytes_each })
    }

    fn fail(&mut self, error: &impl ToString) -> FileError {
        self.failed = true;
        FileError::Read { name: self.file.name.clone(), place: place(self.row), problem: error.to_string() }
    }

    fn record(&self, row: Row) -> Result<FileRecord, FileError> {
        let place = place(self.row);
        let problem = |problem: String| FileError::Record { name: self.file.name.clone(), place, problem };
        let fields = object(row, Some(&self.file.schema)).map_err(problem)?;
        let bytes = fields.iter().map(|(name, value)| name.len() + size(value)).sum();
        if bytes > RECORD_BYTES_MAX {
            return Err(problem(format!("has more than {RECORD_BYTES_MAX} bytes")));
        }
        Ok(FileRecord { place, fields, bytes })
    }
}

fn place(number: u64) -> Place {
    Place { unit: Unit::Row, number }
}

/// The same schema with no mark on bytes that are no decimals.
fn without_marks(schema: &Type) -> parquet::errors::Result<Type> {
    let basic = schema.get_basic_info();
    let id = basic.has_id().then(|| basic.id());
    if schema.is_group() {
        let fields = schema.get_fields().iter().map(|field| without_marks(field).map(Arc::new));
        let group = Type::group_type_builder(schema.name())
            .with_fields(fields.collect::<Result<_, _>>()?)
            .with_converted_type(basic.converted_type())
            .with_logical_type(basic.logical_type_ref().cloned())
            .with_id(id);
        // The root has no repetition.
        return if basic.has_repetition() { group.with_repetition(basic.repetition()).build() } else { group.build() };
    }
    let Type::PrimitiveType { physical_type, type_length, .. } = *schema else { return Ok(schema.clone()) };
    let is_bytes = matches!(physical_type, PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY);
    if !is_bytes || basic.converted_type() == ConvertedType::DECIMAL {
        return Ok(schema.clone());
    }
    Type::primitive_type_builder(schema.name(), physical_type)
        .with_repetition(basic.repetition())
        .with_length(type_length)
        .with_id(id)
        .build()
}

fn object(row: Row, schema: Option<&Type>) -> Result<Map<String, Value>, String> {
    let kind = |name: &str| {
        let fields = schema.filter(|schema| schema.is_group())?.get_fields();
        fields.iter().find(|field| field.name() == name).map(|field| &**field)
    };
    let fields = row.into_columns().into_iter().map(|(name, field)| {
        let value = json(field, kind(&name)).map_err(|problem| format!("column `{name}` {problem}"))?;
        Ok((name, value))
    });
    fields.collect()
}

/// A value, whose type the file says is `kind`, as JSON.
fn json(field: Field, kind: Option<&Type>) -> Result<Value, String> {
    let converted = kind.map(|kind| kind.get_basic_info().converted_type());
    let logical = kind.and_then(|kind| kind.get_basic_info().logical_type_ref());
    let time = |time: Option<DateTime<Utc>>| {
        time.map_or(Value::Null, |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into())
    };
    Ok(match field {
        Field::Group(row) => Value::Object(object(row, kind)?),
        Field::ListInternal(list) => {
            let kind = kind.and_then(element);
            list.elements().iter().map(|element| json(element.clone(), kind)).collect::<Result<_, _>>()?
        }
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) if !matches!(logical, Some(LogicalType::Uuid)) => text.into(),
            Err(error)
                if matches!(converted, Some(ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)) =>
            {
                return Err(format!("is not UTF-8: {error}"));
            }
            _ => match uuid::Uuid::from_slice(bytes.data()) {
                Ok(id) if matches!(logical, Some(LogicalType::Uuid)) => id.to_string().into(),
                _ => serde_json::json!({"hex": hex::encode(bytes.data())}),
            },
        },
        // The shortest decimal that reads back as the same number.
        Field::Float(number) => number.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        Field::TimestampMillis(count) => time(DateTime::from_timestamp_millis(count)),
        Field::TimestampMicros(count) => time(DateTime::from_timestamp_micros(count)),
        Field::Long(count) if is_nanoseconds(logical) => time(Some(DateTime::from_timestamp_nanos(count))),
        other => other.to_json_value(),
    })
}

fn is_nanoseconds(logical: Option<&LogicalType>) -> bool {
    matches!(logical, Some(LogicalType::Timestamp(time)) if time.unit == TimeUnit::NANOS)
}

/// What a list holds: the one field of its repeated group, or what is repeated itself.
fn element(list: &Type) -> Option<&Type> {
    let repeated = list.is_group().then(|| list.get_fields().first())??;
    let inner = repeated.is_group().then(|| repeated.get_fields()).filter(|fields| fields.len() == 1);
    Some(inner.and_then(|fields| fields.first()).unwrap_or(repeated))
}

/// About how much a value holds.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use parquet::{
        data_type::{
            ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
        },
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;

    const SCHEMA: &str = "message review {
        required binary id (UTF8);
        optional binary text (UTF8);
        optional group product { required int64 number; }
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
        required int64 at_ms (TIMESTAMP(MILLIS,true));
        required int64 at_ns (TIMESTAMP(NANOS,true));
        required int32 day (DATE);
        required int32 price (DECIMAL(9,2));
        required float stars;
        required binary plain;
        required fixed_len_byte_array(16) uuid (UUID);
    }";

    /// A file of row groups with these texts; a missing text is null.
    fn write(path: &Path, groups: &[&[Option<&[u8]>]]) {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        for texts in groups {
            let count = texts.len();
            let mut group = writer.next_row_group().unwrap();
            let mut index = 0;
            while let Some(mut column) = group.next_column().unwrap() {
                let bytes = |text: &[u8]| ByteArray::from(text.to_vec());
                let (defined, repeated): (Vec<i16>, Vec<i16>) = (vec![1; count], vec![0; count]);
                match index {
                    0 => {
                        let ids: Vec<_> = (0..count).map(|row| bytes(format!("d{row}").as_bytes())).collect();
                        column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
                    }
                    1 => {
                        let values: Vec<_> = texts.iter().flatten().map(|text| bytes(text)).collect();
                        let defined: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
                        column.typed::<ByteArrayType>().write_batch(&values, Some(&defined), None).unwrap();
                    }
                    2 => {
                        let values = vec![7; count];
                        column.typed::<Int64Type>().write_batch(&values, Some(&defined), None).unwrap();
                    }
                    3 => {
                        // Two tags in each row.
                        let values: Vec<_> =
                            (0..count * 2).map(|tag| bytes(format!("t{}", tag % 2).as_bytes())).collect();
                        let repeated: Vec<i16> = (0..count * 2).map(|tag| (tag % 2) as i16).collect();
                        let defined = vec![3; count * 2];
                        column.typed::<ByteArrayType>().write_batch(&values, Some(&defined), Some(&repeated)).unwrap();
                    }
                    4 => drop(
                        column.typed::<Int64Type>().write_batch(&vec![1_714_557_600_123; count], None, None).unwrap(),
                    ),
                    5 => drop(
                        column
                            .typed::<Int64Type>()
                            .write_batch(&vec![1_714_557_600_000_000_000; count], None, None)
                            .unwrap(),
                    ),
                    6 => drop(column.typed::<Int32Type>().write_batch(&vec![19_844; count], None, None).unwrap()),
                    7 => drop(column.typed::<Int32Type>().write_batch(&vec![1_999; count], None, None).unwrap()),
                    8 => drop(column.typed::<FloatType>().write_batch(&vec![4.3; count], None, None).unwrap()),
                    9 => drop(
                        column.typed::<ByteArrayType>().write_batch(&vec![bytes(b"plain"); count], None, None).unwrap(),
                    ),
                    _ => {
                        let id: FixedLenByteArray = bytes(&[0xab; 16]).into();
                        column.typed::<FixedLenByteArrayType>().write_batch(&vec![id; count], None, None).unwrap();
                    }
                }
                drop(repeated);
                column.close().unwrap();
                index += 1;
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, groups: impl RangeBounds<usize>) -> Vec<Result<(u64, Value), String>> {
        let records = ParquetFile::open(path).unwrap().records(groups, Consumed::default());
        records
            .map(|record| {
                record.map(|record| (record.place.number, record.fields.into())).map_err(|error| error.to_string())
            })
            .collect()
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.parquet");
        (folder, path)
    }

    #[test]
    fn every_kind_of_column_becomes_what_a_mapping_reads() {
        let (_folder, path) = file();
        write(&path, &[&[Some(b"A fine kettle.")]]);
        let rows = read(&path, ..);
        let expected = serde_json::json!({
            "id": "d0", "text": "A fine kettle.", "product": {"number": 7}, "tags": ["t0", "t1"],
            "at_ms": "2024-05-01T10:00:00.123Z", "at_ns": "2024-05-01T10:00:00Z", "day": "2024-05-01",
            "price": "19.99", "stars": 4.3, "plain": "plain", "uuid": "abababab-abab-abab-abab-abababababab",
        });
        assert_eq!(rows, [Ok((1, expected))]);
    }

    #[test]
    fn rows_are_counted_in_the_file_and_a_bad_one_stops_nothing() {
        let (_folder, path) = file();
        let good: Option<&[u8]> = Some(b"good");
        write(&path, &[&[good; 100], &[], &[good, Some(b"secret \xff"), None, good], &[good]]);
        assert_eq!(ParquetFile::open(&path).unwrap().row_groups().iter().map(|(rows, _)| *rows).sum::<u64>(), 105);
        let rows = read(&path, 1..3);
        let numbers: Vec<_> = rows.iter().map(|row| row.as_ref().map(|(number, _)| *number)).collect();
        let name = path.display();
        let problem =
            format!("`{name}` row 102: column `text` is not UTF-8: invalid utf-8 sequence of 1 bytes from index 7");
        assert_eq!(numbers, [Ok(101), Err(&problem), Ok(103), Ok(104)]);
        assert_eq!(rows[2].as_ref().unwrap().1["text"], Value::Null);
        assert_eq!(rows[3].as_ref().unwrap().1["text"], "good");
        assert_eq!(read(&path, ..).len(), 105);
    }

    #[test]
    fn what_is_no_parquet_and_what_has_no_rows_are_told_apart() {
        let (_folder, path) = file();
        write(&path, &[]);
        assert_eq!(read(&path, ..), []);
        fs::write(&path, "PAR1 and nothing behind it").unwrap();
        let error = ParquetFile::open(&path).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot read `{}` as Parquet: ", path.display())), "{error}");
    }

    #[test]
    fn whatever_is_broken_in_a_file_ends_its_reading_and_nothing_else() {
        let (_folder, path) = file();
        let good: Option<&[u8]> = Some(b"good");
        write(&path, &[&[good; 20], &[good, None]]);
        let bytes = fs::read(&path).unwrap();
        let hook = std::panic::take_hook();
        // What is contained would fill the screen.
        std::panic::set_hook(Box::new(move |panic| {
            if !crate::crash::is_contained() {
                hook(panic);
            }
        }));
        let mut random = fastrand::Rng::with_seed(7);
        let mut broken = 0;
        for _ in 0..2_000 {
            let mut bytes = bytes.clone();
            for _ in 0..random.usize(1..4) {
                let place = random.usize(..bytes.len());
                bytes[place] = random.u8(..);
            }
            bytes.truncate(if random.bool() { bytes.len() } else { random.usize(..bytes.len()) });
            fs::write(&path, &bytes).unwrap();
            let Ok(file) = ParquetFile::open(&path) else { continue };
            let records: Vec<_> = file.records(.., Consumed::default()).take(1_000).collect();
            let ends =
                records.iter().filter(|record| record.as_ref().is_err_and(|error| !error.is_one_record())).count();
            assert!(ends <= 1, "something was read behind the end");
            broken += ends;
        }
        assert!(broken > 100, "only {broken} files were broken");
    }
}
