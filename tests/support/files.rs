//! Files of documents in every format that a backfill reads.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::Value;
use tempfile::TempDir;

use super::broker::document;

/// A folder with files of documents.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path as the program gets and shows it.
    pub fn name(&self, name: &str) -> String {
        self.path(name).canonicalize().unwrap().to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.name(name)
    }

    /// Documents of these numbers, in the format and the compression that the name says.
    pub fn documents(&self, name: &str, indexes: impl IntoIterator<Item = usize>) -> String {
        let documents: Vec<Value> = indexes.into_iter().map(document).collect();
        let mut extensions = name.split('.').skip(1);
        let (format, compression) = (extensions.next().unwrap(), extensions.next());
        let text = match format {
            "parquet" => {
                write_parquet(&self.path(name), &documents, 50);
                return self.name(name);
            }
            "csv" => csv(&documents),
            _ => jsonl(&documents),
        };
        match compression {
            Some("gz") => self.write(name, gzip(&text)),
            Some(_) => self.write(name, zstd::encode_all(text.as_bytes(), 3).unwrap()),
            None => self.write(name, text),
        }
    }
}

pub fn jsonl(documents: &[Value]) -> String {
    documents.iter().flat_map(|document| [document.to_string(), "\n".into()]).collect()
}

fn csv(documents: &[Value]) -> String {
    let row = |document: &Value| {
        let field = |name: &str| document[name].as_str().map_or_else(|| document[name].to_string(), str::to_owned);
        format!("{},{},\"{}\",{}\n", field("id"), field("item"), field("text"), field("rating"))
    };
    std::iter::once("id,item,text,rating\n".to_owned()).chain(documents.iter().map(row)).collect()
}

pub fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Id, item and text of each document as columns, in row groups of so many.
pub fn write_parquet(path: &Path, documents: &[Value], group_rows: usize) {
    let schema =
        "message review { required binary id (UTF8); required binary item (UTF8); required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in documents.chunks(group_rows) {
        let mut group = writer.next_row_group().unwrap();
        for name in ["id", "item", "text"] {
            let values: Vec<_> = rows.iter().map(|row| ByteArray::from(row[name].as_str().unwrap())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}
