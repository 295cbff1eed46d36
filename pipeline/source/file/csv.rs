//! Comma-separated values with a header (RFC 4180). A field in quotes may hold line breaks.

use std::io::{BufRead, BufReader, Read};

use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value};

use super::{FileError, FileRecord, Place, RECORD_BYTES_MAX, Unit};

/// The most columns a file may have: a record of the largest size with a field of eight bytes each.
const FIELDS_MAX: usize = RECORD_BYTES_MAX / 8;

/// The rows of `reader` as objects by the names in the header.
pub(super) fn records(
    reader: impl Read + Send,
    name: String,
) -> impl Iterator<Item = Result<FileRecord, FileError>> + Send {
    let mut rows = Rows {
        reader: BufReader::new(reader),
        parser: Reader::new(),
        name,
        line: 0,
        text: vec![0; RECORD_BYTES_MAX],
        ends: vec![0; FIELDS_MAX],
        done: false,
    };
    let mut header: Option<Vec<String>> = None;
    std::iter::from_fn(move || {
        if header.is_none() {
            match rows.next()? {
                Ok(row) => header = Some(row),
                // Without a header nothing can be read.
                Err(error) => {
                    rows.done = true;
                    let problem = match error {
                        FileError::Record { problem, .. } => format!("the header {problem}"),
                        other => return Some(Err(other)),
                    };
                    return Some(Err(FileError::Read { name: rows.name.clone(), place: place(0), problem }));
                }
            }
        }
        let row = rows.next()?;
        Some(row.and_then(|row| rows.record(header.as_deref().unwrap_or_default(), row)))
    })
}

fn place(number: u64) -> Place {
    Place { unit: Unit::Line, number }
}

struct Rows<R> {
    reader: BufReader<R>,
    parser: Reader,
    name: String,
    /// Where the row begins that was read last.
    line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
    done: bool,
}

impl<R: Read> Rows<R> {
    fn record(&self, header: &[String], row: Vec<String>) -> Result<FileRecord, FileError> {
        if row.len() != header.len() {
            return Err(self.problem(format!("has {} field(s), and the header has {}", row.len(), header.len())));
        }
        let bytes = row.iter().map(String::len).sum();
        let fields: Map<String, Value> = header.iter().cloned().zip(row.into_iter().map(Value::String)).collect();
        Ok(FileRecord { place: place(self.line), fields, bytes })
    }

    fn problem(&self, problem: String) -> FileError {
        FileError::Record { name: self.name.clone(), place: place(self.line), problem }
    }

    /// The fields of the next row. One that is too large is read to its end all the same, so that the next one is a row.
    fn next(&mut self) -> Option<Result<Vec<String>, FileError>> {
        if self.done {
            return None;
        }
        // The parser counts a line when it is at its end, and passes over blank ones.
        let before = self.parser.line();
        let (mut length, mut fields, mut is_too_large, mut begins) = (0, 0, false, None);
        loop {
            let input = match self.reader.fill_buf() {
                Ok(input) => input,
                Err(source) => {
                    self.done = true;
                    let (name, place) = (self.name.clone(), place(begins.unwrap_or(before).saturating_sub(1)));
                    return Some(Err(FileError::Read { name, place, problem: source.to_string() }));
                }
            };
            begins = begins.or_else(|| Some(before + blank_lines(input)));
            let (result, read, written, ended) =
                self.parser.read_record(input, &mut self.text[length..], &mut self.ends[fields..]);
            self.reader.consume(read);
            (length, fields) = (length + written, fields + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (is_too_large, length, fields) = (true, 0, 0);
                }
                ReadRecordResult::End => {
                    self.done = true;
                    return None;
                }
                ReadRecordResult::Record => break,
            }
        }
        self.line = begins.unwrap_or(before);
        if is_too_large {
            let problem = format!("has more than {RECORD_BYTES_MAX} bytes; is a quotation mark missing before it?");
            return Some(Err(self.problem(problem)));
        }
        Some(self.fields(fields))
    }

    fn fields(&self, count: usize) -> Result<Vec<String>, FileError> {
        let mut start = 0;
        let texts = self.ends[..count].iter().map(|&end| {
            let text = &self.text[start..end];
            start = end;
            std::str::from_utf8(text).map(str::to_owned)
        });
        texts.collect::<Result<_, _>>().map_err(|error| self.problem(format!("is not UTF-8: {error}")))
    }
}

/// Line breaks before the first field.
fn blank_lines(input: &[u8]) -> u64 {
    let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    blank.filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl Into<Vec<u8>>) -> Vec<Result<(u64, String), String>> {
        records(std::io::Cursor::new(text.into()), "in".into())
            .map(|record| {
                record
                    .map(|record| (record.place.number, Value::Object(record.fields).to_string()))
                    .map_err(|error| error.to_string())
            })
            .collect()
    }

    #[test]
    fn rows_take_their_names_from_the_header() {
        assert_eq!(
            read("\u{feff}id,text\n1,\"a, b\"\n2\n\n3,\"c\nd\"\n4,e"),
            [
                Ok((2, r#"{"id":"1","text":"a, b"}"#.to_owned())),
                Err("`in` line 3: has 1 field(s), and the header has 2".to_owned()),
                Ok((5, r#"{"id":"3","text":"c\nd"}"#.to_owned())),
                Ok((7, r#"{"id":"4","text":"e"}"#.to_owned())),
            ]
        );
        assert_eq!(read(""), []);
        assert_eq!(read("id,text\n"), []);
    }

    #[test]
    fn a_row_that_is_too_large_or_not_utf_8_stops_nothing() {
        let text = [b"id,text\n1,".as_slice(), &vec![b'x'; RECORD_BYTES_MAX + 5], b"\n2,\"\xff\"\n3,c\n"].concat();
        assert_eq!(
            read(text),
            [
                Err(format!(
                    "`in` line 2: has more than {RECORD_BYTES_MAX} bytes; is a quotation mark missing before it?"
                )),
                Err("`in` line 3: is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0".to_owned()),
                Ok((4, r#"{"id":"3","text":"c"}"#.to_owned())),
            ]
        );
    }

    #[test]
    fn a_header_that_cannot_be_read_ends_the_file() {
        assert_eq!(read(b"id,\xff\n1,a\n".to_vec()), [Err(
            "cannot read `in` after line 0: the header is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"
                .to_owned()
        )]);
    }
}
