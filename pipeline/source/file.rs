//! Reads texts from a file or the standard input, one record a line: JSON lines, plain lines, or CSV
//! with a header. For the commands that take files; it has no checkpoint.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// How a file's records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// One JSON object a line.
    Jsonl,
    /// One text a line.
    Lines,
    /// Comma-separated values with a header.
    Csv,
}

/// The longest line, in bytes. Also the largest record a broker takes by default is about this size.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A record with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRecord {
    /// Counted from one.
    pub line: u64,
    pub fields: Map<String, Value>,
}

/// A file, or one of its records, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot open `{}`: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot read `{name}` after line {line}: {source}")]
    Read { name: String, line: u64, source: std::io::Error },
    #[error("`{name}` line {line}: {problem}")]
    Record { name: String, line: u64, problem: String },
}

impl FileError {
    /// Whether only one record is bad, so that reading can go on.
    pub fn is_one_record(&self) -> bool {
        matches!(self, Self::Record { .. })
    }
}

/// Something to read records from.
pub struct Input {
    pub reader: Box<dyn Read + Send>,
    /// For messages.
    pub name: String,
    /// In bytes, where it is known.
    pub size: Option<u64>,
}

/// Opens a file, or the standard input for `-` and for no path.
///
/// # Errors
/// [`FileError::Open`].
pub fn open(path: Option<&Path>) -> Result<Input, FileError> {
    match path.filter(|path| *path != Path::new("-")) {
        None => Ok(Input { reader: Box::new(std::io::stdin()), name: "standard input".into(), size: None }),
        Some(path) => {
            let failed = |source| FileError::Open { path: path.to_owned(), source };
            let file = File::open(path).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            Ok(Input { reader: Box::new(file), name: path.display().to_string(), size: Some(size) })
        }
    }
}

/// The format a file's name suggests.
pub fn format_of(path: Option<&Path>) -> Option<FileFormat> {
    match path?.extension()?.to_str()? {
        "jsonl" | "ndjson" | "json" => Some(FileFormat::Jsonl),
        "csv" => Some(FileFormat::Csv),
        "txt" => Some(FileFormat::Lines),
        _ => None,
    }
}

/// The format a stream of bytes looks like: JSON where the first character that is not blank is `{`, else
/// plain lines. Gives the reader back with nothing consumed.
///
/// # Errors
/// [`FileError::Read`].
pub fn detect_format(
    reader: Box<dyn Read + Send>,
    name: &str,
) -> Result<(FileFormat, Box<dyn Read + Send>), FileError> {
    let mut reader = BufReader::new(reader);
    let start = reader.fill_buf().map_err(|source| FileError::Read { name: name.into(), line: 0, source })?;
    let format = match start.trim_ascii_start().first() {
        Some(b'{') => FileFormat::Jsonl,
        _ => FileFormat::Lines,
    };
    Ok((format, Box::new(reader)))
}

/// The records of `reader`, in order. Blank lines are skipped. Plain lines become `{"text": line}`.
pub fn records(
    reader: Box<dyn Read + Send>,
    name: String,
    format: FileFormat,
) -> Box<dyn Iterator<Item = Result<FileRecord, FileError>> + Send> {
    match format {
        FileFormat::Csv => Box::new(csv_records(reader, name)),
        FileFormat::Jsonl | FileFormat::Lines => {
            Box::new(Lines { reader: BufReader::new(reader), name: name.clone(), line: 0, failed: false }.filter_map(
                move |line| {
                    let (line, text) = match line {
                        Ok(line) => line,
                        Err(error) => return Some(Err(error)),
                    };
                    if text.trim().is_empty() {
                        return None;
                    }
                    Some(
                        parse_line(&text, format)
                            .map(|fields| FileRecord { line, fields })
                            .map_err(|problem| FileError::Record { name: name.clone(), line, problem }),
                    )
                },
            ))
        }
    }
}

fn parse_line(text: &str, format: FileFormat) -> Result<Map<String, Value>, String> {
    if format == FileFormat::Lines {
        return Ok(Map::from_iter([("text".to_owned(), Value::String(text.to_owned()))]));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("must be a JSON object".into()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

struct Lines<R> {
    reader: BufReader<R>,
    name: String,
    line: u64,
    failed: bool,
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Result<(u64, String), FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
        self.line += 1;
        match read {
            Ok(0) => None,
            Ok(_) if bytes.len() > LINE_BYTES_MAX && bytes.last() != Some(&b'\n') => Some(self.skip_rest()),
            Ok(_) => {
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
                Some(
                    String::from_utf8(bytes)
                        .map(|text| (self.line, text))
                        .map_err(|error| self.problem(format!("is not UTF-8: {error}"))),
                )
            }
            Err(source) => {
                self.failed = true;
                Some(Err(FileError::Read { name: self.name.clone(), line: self.line - 1, source }))
            }
        }
    }
}

impl<R: Read> Lines<R> {
    fn problem(&self, problem: String) -> FileError {
        FileError::Record { name: self.name.clone(), line: self.line, problem }
    }

    fn skip_rest(&mut self) -> Result<(u64, String), FileError> {
        match self.reader.skip_until(b'\n') {
            Ok(_) => Err(self.problem(format!("has more than {LINE_BYTES_MAX} bytes"))),
            Err(source) => {
                self.failed = true;
                Err(FileError::Read { name: self.name.clone(), line: self.line, source })
            }
        }
    }
}

fn csv_records(
    reader: Box<dyn Read + Send>,
    name: String,
) -> impl Iterator<Item = Result<FileRecord, FileError>> + Send {
    let mut reader = csv::Reader::from_reader(reader);
    let header = reader.headers().cloned();
    reader.into_records().scan(false, move |failed, record| {
        if *failed {
            return None;
        }
        let header = header.as_ref().map_err(ToString::to_string);
        let row = record.map_err(|error| {
            *failed = error.is_io_error();
            (error.position().map_or(0, csv::Position::line), error.to_string())
        });
        let result = match (header, row) {
            (Err(problem), _) => {
                *failed = true;
                Err((1, format!("the header cannot be read: {problem}")))
            }
            (Ok(header), Ok(row)) => {
                let fields =
                    header.iter().zip(&row).map(|(name, value)| (name.to_owned(), Value::String(value.to_owned())));
                Ok(FileRecord { line: row.position().map_or(0, csv::Position::line), fields: fields.collect() })
            }
            (Ok(_), Err(error)) => Err(error),
        };
        Some(result.map_err(|(line, problem)| FileError::Record { name: name.clone(), line, problem }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str, format: FileFormat) -> Vec<Result<(u64, String), String>> {
        records(Box::new(text.as_bytes()), "in".into(), format)
            .map(|record| {
                record
                    .map(|record| (record.line, Value::Object(record.fields).to_string()))
                    .map_err(|error| error.to_string())
            })
            .collect()
    }

    #[test]
    fn json_lines_keep_their_numbers_and_bad_ones_stop_nothing() {
        let expected = vec![
            Ok((1, r#"{"text":"a"}"#.to_owned())),
            Err("`in` line 3: must be a JSON object".to_owned()),
            Err("`in` line 4: is not JSON: expected ident at line 1 column 2".to_owned()),
            Ok((5, r#"{"text":"b"}"#.to_owned())),
        ];
        assert_eq!(read("{\"text\":\"a\"}\r\n\n[1]\nnope\n{\"text\":\"b\"}", FileFormat::Jsonl), expected);
    }

    #[test]
    fn plain_lines_become_texts() {
        assert_eq!(
            read("one\n\ntwo\n", FileFormat::Lines),
            [Ok((1, r#"{"text":"one"}"#.to_owned())), Ok((3, r#"{"text":"two"}"#.to_owned())),]
        );
    }

    #[test]
    fn csv_rows_take_their_names_from_the_header() {
        assert_eq!(read("id,text\n1,\"a, b\"\n2\n3,c\n", FileFormat::Csv), [
            Ok((2, r#"{"id":"1","text":"a, b"}"#.to_owned())),
            Err("`in` line 3: CSV error: record 2 (line: 3, byte: 17): found record with 1 fields, but the previous record has 2 fields".to_owned()),
            Ok((4, r#"{"id":"3","text":"c"}"#.to_owned())),
        ]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole() {
        let text: &'static str = Box::leak(format!("{}\nnext\n", "x".repeat(LINE_BYTES_MAX + 5)).into_boxed_str());
        let read = read(text, FileFormat::Lines);
        assert_eq!(read[0], Err(format!("`in` line 1: has more than {LINE_BYTES_MAX} bytes")));
        assert_eq!(read[1], Ok((2, r#"{"text":"next"}"#.to_owned())));
    }
}
