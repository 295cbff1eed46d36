//! Cuts files into parts that workers read side by side, and reads one part.
//!
//! Parquet is cut between row groups, files of lines between lines. CSV and compressed files are one part each: where a
//! row begins in them is known only to who has read everything before it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::{
    Consumed, Counted, FileError, FileFormat, Records, compression, display, format_of, lines, open, open_file, parquet,
};
use crate::domain::backfill::FilePart;

/// The files that a pattern names, in the order of their names; a path without `*`, `?` and `[` is itself.
///
/// # Errors
/// Where the pattern is none, or a folder cannot be read.
pub fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_str().ok_or_else(|| format!("`{}` is not UTF-8", pattern.display()))?;
    // A file may have such a name.
    if pattern.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let paths = glob::glob(text).map_err(|error| format!("`{text}` is not a pattern: {error}"))?;
    let files = paths.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    Ok(files.into_iter().filter(|path| path.is_file()).collect())
}

/// Cuts a file into parts of about `part_bytes`. What cannot be read as its format is one part: whoever reads it finds
/// out why.
///
/// # Errors
/// [`FileError::Open`] where there is no such file.
pub fn parts(path: &Path, format: Option<FileFormat>, part_bytes: u64) -> Result<Vec<FilePart>, FileError> {
    let failed = |source| FileError::Open { path: path.to_owned(), source };
    let (file_bytes, file_modified) = stamp(path).map_err(failed)?;
    let format = format.or_else(|| format_of(Some(path)));
    let whole = |format: FileFormat| FilePart {
        file: display(path),
        format: format.name().to_owned(),
        start: 0,
        end: file_bytes,
        before: 0,
        file_bytes,
        file_modified,
        bytes: file_bytes,
        records: None,
        records_max: None,
    };
    let format = match format {
        Some(format) => format,
        // What cannot be opened now is a failure of its part.
        None => open(Some(path)).and_then(|mut input| input.detect_format()).unwrap_or(FileFormat::Jsonl),
    };
    let whole = whole(format);
    Ok(match format {
        FileFormat::Parquet => row_groups(path, &whole, part_bytes).unwrap_or_else(|_| vec![whole]),
        FileFormat::Jsonl | FileFormat::Lines => line_ranges(path, &whole, part_bytes).unwrap_or_else(|_| vec![whole]),
        FileFormat::Csv => vec![whole],
    })
}

/// Size and time of a file, the time as exact as Postgres keeps it.
fn stamp(path: &Path) -> std::io::Result<(i64, DateTime<Utc>)> {
    let metadata = path.metadata()?;
    let modified = DateTime::<Utc>::from(metadata.modified()?);
    let modified = modified.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(modified);
    Ok((i64::try_from(metadata.len()).unwrap_or(i64::MAX), modified))
}

fn row_groups(path: &Path, whole: &FilePart, part_bytes: u64) -> Result<Vec<FilePart>, FileError> {
    let mut parts: Vec<FilePart> = Vec::new();
    let mut before = 0;
    for (index, (rows, bytes)) in (0_i64..).zip(parquet::ParquetFile::open(path)?.row_groups()) {
        let (rows, bytes) = (signed(rows), signed(bytes));
        match parts.last_mut().filter(|part| part.bytes + bytes <= signed(part_bytes)) {
            Some(part) => {
                part.end = index + 1;
                part.bytes += bytes;
                part.records = part.records.map(|records| records + rows);
            }
            None => parts.push(FilePart {
                start: index,
                end: index + 1,
                before,
                bytes,
                records: Some(rows),
                ..whole.clone()
            }),
        }
        before += rows;
    }
    if parts.is_empty() {
        parts.push(FilePart { end: 0, records: Some(0), ..whole.clone() });
    }
    Ok(parts)
}

fn line_ranges(path: &Path, whole: &FilePart, part_bytes: u64) -> std::io::Result<Vec<FilePart>> {
    let mut file = BufReader::new(File::open(path)?);
    if whole.bytes <= signed(part_bytes) || compression::is_compressed(&mut file)? {
        return Ok(vec![whole.clone()]);
    }
    file.rewind()?;
    let (mut parts, mut start, mut before) = (Vec::new(), 0, 0);
    loop {
        // Counting the lines needs every byte; it is a small part of the time that labelling them takes.
        let mut counted = LineCount { inner: file.by_ref().take(part_bytes), lines: 0 };
        let mut bytes = std::io::copy(&mut counted, &mut std::io::sink())?;
        let mut lines = counted.lines;
        let rest = file.skip_until(b'\n')? as u64;
        lines += i64::from(rest > 0);
        bytes += rest;
        if bytes == 0 {
            return Ok(parts);
        }
        let end = start + signed(bytes);
        parts.push(FilePart { start, end, before, bytes: signed(bytes), ..whole.clone() });
        (start, before) = (end, before + lines);
    }
}

struct LineCount<R> {
    inner: R,
    lines: i64,
}

impl<R: Read> Read for LineCount<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.lines += signed(memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64);
        Ok(read)
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The records of a part.
///
/// # Errors
/// [`FileError`] where the file changed since it was cut, or cannot be read.
pub fn read(part: &FilePart, consumed: Consumed) -> Result<Records, FileError> {
    let path = Path::new(&part.file);
    let failed = |source| FileError::Open { path: path.to_owned(), source };
    if stamp(path).map_err(failed)? != (part.file_bytes, part.file_modified) {
        return Err(FileError::Changed { name: part.file.clone() });
    }
    let format = FileFormat::ALL.into_iter().find(|format| format.name() == part.format).unwrap_or(FileFormat::Jsonl);
    let records_max = part.records_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    let kind = match format {
        FileFormat::Parquet => {
            let groups = usize::try_from(part.start).unwrap_or(0)..usize::try_from(part.end).unwrap_or(usize::MAX);
            let records = parquet::ParquetFile::open(path)?.records(groups, consumed);
            return Ok(Box::new(records.take(records_max)));
        }
        FileFormat::Jsonl => lines::Kind::Json,
        FileFormat::Lines => lines::Kind::Text,
        FileFormat::Csv => return Ok(Box::new(open_file(path, consumed)?.records(format)?.take(records_max))),
    };
    let is_whole = part.start == 0 && part.end == part.file_bytes;
    let reader: Box<dyn Read + Send> = if is_whole {
        open_file(path, consumed)?.reader
    } else {
        let mut file = File::open(path).map_err(failed)?;
        file.seek(SeekFrom::Start(part.start.unsigned_abs())).map_err(failed)?;
        let range = file.take((part.end - part.start).unsigned_abs());
        Box::new(Counted { inner: range, consumed })
    };
    Ok(Box::new(lines::records(reader, part.file.clone(), kind, part.before.unsigned_abs()).take(records_max)))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    fn places(parts: &[FilePart]) -> Vec<String> {
        let records = parts.iter().flat_map(|part| read(part, Consumed::default()).unwrap());
        records.map(|record| record.map_or_else(|error| error.to_string(), |record| record.place.to_string())).collect()
    }

    #[test]
    fn files_of_lines_are_cut_between_lines_and_keep_their_numbers() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.jsonl");
        let line = |index: usize| format!("{{\"text\":\"{}\"}}\n", "x".repeat(index % 90));
        let text: String = (0..500).map(line).chain(["\n".into(), "bad\n".into(), "{}".into()]).collect();
        fs::write(&path, &text).unwrap();
        let whole = parts(&path, None, 1 << 20).unwrap();
        assert_eq!((whole.len(), whole[0].bytes), (1, text.len() as i64));
        let cut = parts(&path, None, 1000).unwrap();
        assert!(cut.len() > 20, "{}", cut.len());
        assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].bytes >= 1000));
        assert_eq!(cut.last().unwrap().end, text.len() as i64);
        assert_eq!(places(&cut), places(&whole));
        let all: Vec<String> = (1..=500).map(|number| format!("line {number}")).collect();
        assert_eq!(places(&cut)[..500], all);
        assert!(places(&cut)[500].contains("line 502: is not JSON"));
        assert_eq!(places(&cut)[501], "line 503");
    }

    #[test]
    fn compressed_files_and_csv_are_one_part() {
        let folder = tempfile::TempDir::new().unwrap();
        let text = "{\"text\":\"a\"}\n".repeat(500);
        let gzip = folder.path().join("a.jsonl.gz");
        let mut encoder = flate2::write::GzEncoder::new(File::create(&gzip).unwrap(), flate2::Compression::none());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let csv = folder.path().join("a.csv");
        fs::write(&csv, format!("text\n{}", "a\n".repeat(500))).unwrap();
        for path in [gzip, csv] {
            let cut = parts(&path, None, 100).unwrap();
            assert_eq!((cut.len(), places(&cut).len()), (1, 500), "{}", path.display());
        }
    }

    #[test]
    fn a_part_gives_no_more_than_its_limit_and_a_changed_file_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let part = FilePart { records_max: Some(2), ..parts(&path, None, 100).unwrap().remove(0) };
        assert_eq!(places(std::slice::from_ref(&part)), ["line 1", "line 2"]);
        fs::write(&path, "one\ntwo\nthree\nfour\n").unwrap();
        let error = read(&part, Consumed::default()).err().unwrap().to_string();
        assert!(error.contains("has changed since the backfill was started; start a new one for it"), "{error}");
    }

    #[test]
    fn a_pattern_names_files_in_order_and_a_path_itself() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["b.jsonl", "a.jsonl", "c.csv", "[1].jsonl"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |pattern: &str| {
            let files = matching(&folder.path().join(pattern)).unwrap();
            files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("*.jsonl"), ["[1].jsonl", "a.jsonl", "b.jsonl"]);
        assert_eq!(names("[1].jsonl"), ["[1].jsonl"]);
        assert_eq!(names("nothing*"), [] as [&str; 0]);
        assert_eq!(names("missing.jsonl"), ["missing.jsonl"]);
    }
}
