//! Where a command writes its result: the standard output, a file that is never seen half-written, or what stands at a path
//! and is no file, such as a pipe or `/dev/null`.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

/// The standard output, or a file that appears under its name once it is whole.
pub enum Destination {
    Stdout(BufWriter<std::io::Stdout>),
    /// Written to as it stands: it must not be replaced.
    Stream {
        stream: BufWriter<File>,
        path: PathBuf,
    },
    File {
        file: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
}

impl Destination {
    /// The file at `path`, or the standard output where there is none.
    ///
    /// # Errors
    /// Where no file can be made in its folder, or there is a folder of that name.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(BufWriter::new(std::io::stdout()))) };
        if path.is_dir() {
            bail!("cannot create `{}`: it is a folder; name a file", path.display());
        }
        // A link leads to what is written.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let failed = || format!("cannot create `{}`", path.display());
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let stream = BufWriter::new(OpenOptions::new().write(true).open(&path).with_context(failed)?);
            return Ok(Self::Stream { stream, path });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        // Like any new file: the umask decides who may read it.
        let file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .with_context(failed)?;
        Ok(Self::File { file: BufWriter::new(file), path })
    }

    pub fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(stdout) => stdout,
            Self::Stream { stream, .. } => stream,
            Self::File { file, .. } => file,
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// Where the rest cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush()?,
            Self::Stream { mut stream, path } => {
                stream.flush().with_context(|| format!("cannot write `{}`", path.display()))?;
            }
            Self::File { file, path } => {
                let failed = || format!("cannot write `{}`", path.display());
                let file = file.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
                file.persist(&path).with_context(failed)?;
            }
        }
        Ok(())
    }
}
