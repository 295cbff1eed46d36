//! Reads records from files: JSON lines, plain lines, CSV with a header, or Parquet; compressed or not.
//!
//! Guarantee: what is read is bounded in memory, whatever the file holds: a record that is too large is reported and
//! passed over. A bad record has its place in the file and stops nothing; what ends the reading (a truncated archive, a
//! bad footer, a disk that fails) is told apart from it. It has no checkpoint: whoever reads on counts the records.

mod compression;
mod csv;
mod lines;
mod parquet;
pub mod shards;

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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
    /// Columns.
    Parquet,
}

impl FileFormat {
    pub const ALL: [Self; 4] = [Self::Jsonl, Self::Lines, Self::Csv, Self::Parquet];

    /// The word for it on the command line and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Lines => "lines",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// What a bad record is counted in.
    fn unit(self) -> Unit {
        if self == Self::Parquet { Unit::Row } else { Unit::Line }
    }
}

/// The largest record, in bytes. Also the largest record a broker takes by default is about this size.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRecord {
    pub place: Place,
    pub fields: Map<String, Value>,
    /// The size it was read from, about.
    pub bytes: usize,
}

/// Where in its file a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub unit: Unit,
    /// Counted from one.
    pub number: u64,
}

/// What the records of a file are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Line,
    Row,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
        };
        write!(formatter, "{unit} {}", self.number)
    }
}

/// A file, or one of its records, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot open `{}`: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("`{name}` has changed since the backfill was started; start a new one for it")]
    Changed { name: String },
    #[error("cannot read `{name}` as Parquet: {problem}")]
    Footer { name: String, problem: String },
    #[error("cannot read `{name}` after {place}: {problem}")]
    Read { name: String, place: Place, problem: String },
    #[error("`{name}` {place}: {problem}")]
    Record { name: String, place: Place, problem: String },
}

impl FileError {
    /// Whether only one record is bad, so that reading can go on.
    pub fn is_one_record(&self) -> bool {
        matches!(self, Self::Record { .. })
    }
}

/// Records in the order of the file. After an error that is not of one record there are no more.
pub type Records = Box<dyn Iterator<Item = Result<FileRecord, FileError>> + Send>;

/// Something to read records from.
pub struct Input {
    reader: Box<dyn Read + Send>,
    path: Option<PathBuf>,
    /// For messages.
    pub name: String,
    /// In bytes, as it lies on the disk, where that is known.
    pub size: Option<u64>,
    /// So much of it was read.
    pub consumed: Consumed,
}

/// Counts the bytes that were read, for whoever shows the progress.
#[derive(Debug, Clone, Default)]
pub struct Consumed(Arc<AtomicU64>);

impl Consumed {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

struct Counted<R> {
    inner: R,
    consumed: Consumed,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.consumed.add(read as u64);
        Ok(read)
    }
}

/// Opens a file, or the standard input for `-` and for no path, and decompresses what is compressed.
///
/// # Errors
/// [`FileError::Open`].
pub fn open(path: Option<&Path>) -> Result<Input, FileError> {
    let consumed = Consumed::default();
    match path.filter(|path| *path != Path::new("-")) {
        None => {
            let inner = Counted { inner: std::io::stdin(), consumed: consumed.clone() };
            let reader = compression::decompress(inner, None)
                .map_err(|source| FileError::Open { path: "standard input".into(), source })?;
            Ok(Input { reader, path: None, name: "standard input".into(), size: None, consumed })
        }
        Some(path) => open_file(path, consumed),
    }
}

fn open_file(path: &Path, consumed: Consumed) -> Result<Input, FileError> {
    let failed = |source| FileError::Open { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let inner = Counted { inner: file, consumed: consumed.clone() };
    let reader = compression::decompress(inner, Some(path)).map_err(failed)?;
    Ok(Input { reader, path: Some(path.to_owned()), name: display(path), size: Some(size), consumed })
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// The format a file's name suggests, compressed or not.
pub fn format_of(path: Option<&Path>) -> Option<FileFormat> {
    let name = compression::without_extension(path?);
    match name.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" | "json" => Some(FileFormat::Jsonl),
        "csv" => Some(FileFormat::Csv),
        "txt" => Some(FileFormat::Lines),
        "parquet" => Some(FileFormat::Parquet),
        _ => None,
    }
}

impl Input {
    /// How the records are written: as `told`, else as the file's name suggests, else as the content looks.
    ///
    /// # Errors
    /// [`FileError::Read`].
    pub fn format(&mut self, told: Option<FileFormat>) -> Result<FileFormat, FileError> {
        match told.or_else(|| format_of(self.path.as_deref())) {
            Some(format) => Ok(format),
            None => self.detect_format(),
        }
    }

    /// The format that the content looks like: Parquet by its first bytes, JSON where the first character that is not
    /// blank is `{`, else plain lines.
    fn detect_format(&mut self) -> Result<FileFormat, FileError> {
        let (start, reader) = compression::peek(std::mem::replace(&mut self.reader, Box::new(std::io::empty())))
            .map_err(|source| self.unreadable(FileFormat::Lines, &source))?;
        self.reader = reader;
        Ok(match start.trim_ascii_start() {
            text if text.starts_with(parquet::MAGIC) => FileFormat::Parquet,
            text if text.starts_with(b"{") => FileFormat::Jsonl,
            _ => FileFormat::Lines,
        })
    }

    fn unreadable(&self, format: FileFormat, source: &std::io::Error) -> FileError {
        let place = Place { unit: format.unit(), number: 0 };
        FileError::Read { name: self.name.clone(), place, problem: source.to_string() }
    }

    /// The records, in order. Blank lines are skipped. Plain lines become `{"text": line}`.
    ///
    /// # Errors
    /// [`FileError::Footer`] where it is to be Parquet and is none.
    pub fn records(self, format: FileFormat) -> Result<Records, FileError> {
        match format {
            FileFormat::Csv => Ok(Box::new(csv::records(self.reader, self.name))),
            FileFormat::Jsonl => Ok(Box::new(lines::records(self.reader, self.name, lines::Kind::Json, 0))),
            FileFormat::Lines => Ok(Box::new(lines::records(self.reader, self.name, lines::Kind::Text, 0))),
            FileFormat::Parquet => match self.path {
                Some(path) => Ok(Box::new(parquet::ParquetFile::open(&path)?.records(.., self.consumed))),
                None => Err(FileError::Footer {
                    name: self.name,
                    problem: "its footer stands at the end: give it as a file".into(),
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_by_the_name_also_of_a_compressed_file() {
        let of = |name: &str| format_of(Some(Path::new(name)));
        assert_eq!(of("a/b.jsonl"), Some(FileFormat::Jsonl));
        assert_eq!(of("b.JSONL.gz"), Some(FileFormat::Jsonl));
        assert_eq!(of("b.csv.zst"), Some(FileFormat::Csv));
        assert_eq!(of("b.parquet"), Some(FileFormat::Parquet));
        assert_eq!(of("b.txt"), Some(FileFormat::Lines));
        for unknown in ["b", "b.gz", "b.xlsx"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }
}
