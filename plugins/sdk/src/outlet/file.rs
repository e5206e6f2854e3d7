//! A file that has its name only once it is complete.
//!
//! Laws
//! - It is written beside its name and renamed by `publish`; until then, and after a failed run, the name shows what it showed before.
//! - Dropped without `publish` it is gone.

use crate::error::{Error, Result};
use crate::ffi::PLUGIN_FAILED;
use crate::stage::Published;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A file being written.
pub struct NewFile {
    /// As the script says it.
    shown: String,
    name: PathBuf,
    /// Where it is until then.
    temp: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    bytes: u64,
    sync: bool,
}

/// Names of temporary files must differ within a process, too.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl NewFile {
    /// Makes it in the folder where `path` is to be; a relative path starts in `folder`
    /// ([`Setup::folder`](crate::spec::Setup::folder)).
    ///
    /// # Errors
    /// `Io`: the folder is not there, or cannot be written to; `path` is a folder.
    pub fn beside(folder: &Path, path: &str) -> Result<NewFile> {
        let full = folder.join(path);
        if full.is_dir() {
            let what = io::Error::new(io::ErrorKind::IsADirectory, "it is a folder");
            return Err(Error::io("write", path, what));
        }
        // A link stays a link: what it points to is replaced.
        let name = std::fs::canonicalize(&full).unwrap_or(full);
        let stem = name.file_name().unwrap_or_default().to_string_lossy();
        let number = NEXT.fetch_add(1, Relaxed);
        let temp = name.with_file_name(format!(".{stem}.{}-{number}.part", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&temp);
        let file = file.map_err(|error| Error::io("write", path, error))?;
        Ok(NewFile {
            shown: path.to_owned(),
            name,
            temp: Some(temp),
            file: Some(BufWriter::with_capacity(64 << 10, file)),
            bytes: 0,
            sync: true,
        })
    }

    /// Whether `finish` waits until it is on the disk, which it does by default:
    /// [`Setup::sync`](crate::spec::Setup::sync) says what the run wants.
    #[must_use]
    pub fn sync(mut self, on: bool) -> NewFile {
        self.sync = on;
        self
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("write", self.shown.as_str(), error)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Io`, as the system says; `Failed` once it is complete.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Err(Error::failed(PLUGIN_FAILED, "the file is complete already"));
        };
        let outcome = file.write_all(bytes);
        self.bytes += bytes.len() as u64;
        outcome.map_err(|error| self.failed(error))
    }

    /// Appends text: `file.write(format_args!("{x}\n"))`.
    ///
    /// # Errors
    /// As [`NewFile::write_bytes`].
    pub fn write(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        /// Keeps what the formatter cannot pass on.
        struct Counting<'f>(&'f mut NewFile, Result<()>);
        impl fmt::Write for Counting<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.1 = self.0.write_bytes(text.as_bytes());
                self.1.as_ref().map(drop).map_err(|_| fmt::Error)
            }
        }
        let mut to = Counting(self, Ok(()));
        match fmt::write(&mut to, text) {
            Ok(()) => Ok(()),
            Err(fmt::Error) => {
                (to.1).and_then(|()| Err(Error::failed(PLUGIN_FAILED, "a value cannot be written as text")))
            }
        }
    }

    /// It is complete: brings it to the disk, unless it need not, still under no name.
    ///
    /// # Errors
    /// `Io`, as the system says.
    pub fn finish(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        let done = file.and_then(|file| if self.sync { file.sync_all() } else { Ok(()) });
        done.map_err(|error| self.failed(error))
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// `Io`, as the system says.
    pub fn publish(&mut self, rows: u64) -> Result<Published> {
        self.finish()?;
        if let Some(temp) = &self.temp {
            std::fs::rename(temp, &self.name).map_err(|error| Error::io("publish", self.shown.as_str(), error))?;
            self.temp = None;
        }
        Ok(Published {
            path: self.shown.clone(),
            rows,
            bytes: self.bytes,
        })
    }

    /// Removes it.
    pub fn discard(&mut self) {
        self.file = None;
        if let Some(temp) = self.temp.take() {
            let _ = std::fs::remove_file(temp);
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.discard();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_shows_only_what_is_complete() {
        let folder = std::env::temp_dir().join(format!("standpipe-new-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = folder.join("out.txt");
        std::fs::write(&name, "before").unwrap();
        let read = || std::fs::read_to_string(&name).unwrap();
        let mut file = NewFile::beside(&folder, "out.txt").unwrap().sync(false);
        file.write(format_args!("{}-", 12)).unwrap();
        file.write_bytes(b"after").unwrap();
        file.finish().unwrap();
        assert!(file.write_bytes(b"late").is_err());
        assert_eq!(read(), "before");
        let published = file.publish(3).unwrap();
        assert_eq!(
            (published.path.as_str(), published.rows, published.bytes),
            ("out.txt", 3, 8)
        );
        assert_eq!(read(), "12-after");
        let mut file = NewFile::beside(&folder, "out.txt").unwrap();
        file.write_bytes(b"never").unwrap();
        drop(file);
        assert_eq!(read(), "12-after");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let refused = NewFile::beside(&folder, "no/out.txt").err().unwrap();
        assert!(refused.to_string().contains("no/out.txt"), "{refused}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
