//! Records of one line each.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

use super::{FileError, FileRecord, Place, RECORD_BYTES_MAX, Unit};

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A JSON object.
    Json,
    /// A text.
    Text,
}

/// The lines of `reader`, of which `before` lines stand before it in its file. Blank ones are skipped.
pub(super) fn records(
    reader: impl Read + Send,
    name: String,
    kind: Kind,
    before: u64,
) -> impl Iterator<Item = Result<FileRecord, FileError>> + Send {
    Lines { reader: BufReader::new(reader), name: name.clone(), line: before, failed: false }.filter_map(move |line| {
        let (line, text) = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        if text.trim().is_empty() {
            return None;
        }
        let place = place(line);
        Some(
            parse(&text, kind)
                .map(|fields| FileRecord { place, fields, bytes: text.len() })
                .map_err(|problem| FileError::Record { name: name.clone(), place, problem }),
        )
    })
}

fn place(number: u64) -> Place {
    Place { unit: Unit::Line, number }
}

fn parse(text: &str, kind: Kind) -> Result<Map<String, Value>, String> {
    if kind == Kind::Text {
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
        let read = (&mut self.reader).take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
        self.line += 1;
        match read {
            Ok(0) => None,
            Ok(_) if bytes.len() > RECORD_BYTES_MAX && bytes.last() != Some(&b'\n') => Some(self.skip_rest()),
            Ok(_) => Some(self.text(bytes)),
            Err(source) => Some(Err(self.fail(self.line - 1, &source))),
        }
    }
}

impl<R: Read> Lines<R> {
    fn text(&self, mut bytes: Vec<u8>) -> Result<(u64, String), FileError> {
        /// The mark that some programs put before UTF-8.
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if self.line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        // The error of the whole would hold the bytes.
        String::from_utf8(bytes)
            .map(|text| (self.line, text))
            .map_err(|error| self.problem(format!("is not UTF-8: {}", error.utf8_error())))
    }

    fn problem(&self, problem: String) -> FileError {
        FileError::Record { name: self.name.clone(), place: place(self.line), problem }
    }

    fn fail(&mut self, line: u64, source: &std::io::Error) -> FileError {
        self.failed = true;
        FileError::Read { name: self.name.clone(), place: place(line), problem: source.to_string() }
    }

    fn skip_rest(&mut self) -> Result<(u64, String), FileError> {
        match self.reader.skip_until(b'\n') {
            Ok(_) => Err(self.problem(format!("has more than {RECORD_BYTES_MAX} bytes"))),
            Err(source) => Err(self.fail(self.line, &source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, kind: Kind) -> Vec<Result<(u64, String), String>> {
        records(std::io::Cursor::new(text.to_owned()), "in".into(), kind, 0)
            .map(|record| {
                record
                    .map(|record| (record.place.number, Value::Object(record.fields).to_string()))
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
        assert_eq!(read("\u{feff}{\"text\":\"a\"}\r\n\n[1]\nnope\n{\"text\":\"b\"}", Kind::Json), expected);
    }

    #[test]
    fn plain_lines_become_texts() {
        assert_eq!(
            read("one\n\ntwo\n", Kind::Text),
            [Ok((1, r#"{"text":"one"}"#.to_owned())), Ok((3, r#"{"text":"two"}"#.to_owned())),]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole() {
        let read = read(&format!("{}\nnext\n", "x".repeat(RECORD_BYTES_MAX + 5)), Kind::Text);
        assert_eq!(read[0], Err(format!("`in` line 1: has more than {RECORD_BYTES_MAX} bytes")));
        assert_eq!(read[1], Ok((2, r#"{"text":"next"}"#.to_owned())));
    }

    #[test]
    fn what_is_not_utf_8_is_named_by_its_line_and_not_shown() {
        let bytes: &[u8] = b"secret \xff\nnext\n";
        let mut read = records(bytes, "in".into(), Kind::Text, 7);
        let error = read.next().unwrap().unwrap_err().to_string();
        assert_eq!(error, "`in` line 8: is not UTF-8: invalid utf-8 sequence of 1 bytes from index 7");
        assert_eq!(read.next().unwrap().unwrap().place.number, 9);
    }
}
