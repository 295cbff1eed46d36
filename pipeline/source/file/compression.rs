//! gzip and Zstandard, recognised by their first bytes.

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// Buffer of a file: large enough that reading costs few calls.
const BUFFER_BYTES: usize = 1 << 17;
/// Bytes looked at to recognise a format.
const PEEK_BYTES: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstandard,
}

impl Compression {
    const ALL: [Self; 2] = [Self::Gzip, Self::Zstandard];

    /// What such a file begins with.
    fn magic(self) -> &'static [u8] {
        match self {
            Self::Gzip => &[0x1f, 0x8b],
            Self::Zstandard => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstandard => "Zstandard",
        }
    }

    /// What the name of a file says.
    fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Some(Self::Gzip),
            "zst" | "zstd" => Some(Self::Zstandard),
            _ => None,
        }
    }
}

/// The name of what is compressed.
pub(super) fn without_extension(path: &Path) -> PathBuf {
    if Compression::of_name(path).is_some() { path.with_extension("") } else { path.to_owned() }
}

/// The beginning of what is read, and a reader that still has all of it.
pub(super) fn peek<'a>(mut reader: impl Read + Send + 'a) -> io::Result<(Vec<u8>, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::new();
    reader.by_ref().take(PEEK_BYTES).read_to_end(&mut start)?;
    Ok((start.clone(), Box::new(Cursor::new(start).chain(reader))))
}

/// Whether the content is compressed.
pub(super) fn is_compressed(mut reader: impl Read) -> io::Result<bool> {
    let mut start = Vec::new();
    reader.by_ref().take(PEEK_BYTES).read_to_end(&mut start)?;
    Ok(Compression::ALL.iter().any(|compression| start.starts_with(compression.magic())))
}

/// The content, decompressed where it is compressed; several streams after each other are one. An archive that ends too
/// early is an error at its end. The memory for it is bounded: 128 MiB for Zstandard, whatever the file asks for.
pub(super) fn decompress(reader: impl Read + Send + 'static, path: Option<&Path>) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let found = {
        // What cannot be read fails again when it is read.
        let start = reader.fill_buf().unwrap_or_default();
        Compression::ALL.into_iter().find(|compression| start.starts_with(compression.magic()))
    };
    let named = path.and_then(Compression::of_name);
    match (found, named) {
        (Some(Compression::Gzip), _) => Ok(Box::new(MultiGzDecoder::new(reader))),
        (Some(Compression::Zstandard), _) => Ok(Box::new(zstd::Decoder::with_buffer(reader)?)),
        (None, Some(named)) => {
            let problem = format!("its name says {}, but it does not begin like that", named.name());
            Err(io::Error::new(io::ErrorKind::InvalidData, problem))
        }
        (None, None) => Ok(Box::new(reader)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: Vec<u8>, name: &str) -> io::Result<String> {
        let mut text = String::new();
        decompress(Cursor::new(bytes), Some(Path::new(name)))?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_compressed_is_told_by_its_bytes_whatever_its_name() {
        assert_eq!(read(gzip("one\ntwo"), "a.jsonl").unwrap(), "one\ntwo");
        assert_eq!(read([gzip("one"), gzip("two")].concat(), "a.gz").unwrap(), "onetwo");
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 3).unwrap();
        assert_eq!(read([zstd("one"), zstd("two")].concat(), "a.zst").unwrap(), "onetwo");
        assert_eq!(read(b"plain".to_vec(), "a.jsonl").unwrap(), "plain");
    }

    #[test]
    fn a_wrong_name_and_a_truncated_archive_are_errors() {
        let error = read(b"plain".to_vec(), "a.gz").unwrap_err().to_string();
        assert_eq!(error, "its name says gzip, but it does not begin like that");
        let (gzip, zstd) = (gzip(&"text".repeat(99)), zstd::encode_all("text".repeat(99).as_bytes(), 3).unwrap());
        assert_eq!(read(gzip[..gzip.len() - 4].to_vec(), "a").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(zstd[..zstd.len() - 4].to_vec(), "a").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
