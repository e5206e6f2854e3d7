//! A file that has its name only once it is complete.
//!
//! Laws
//! - Until `publish`, and after a failed run, the name shows what it showed before.
//! - Dropped without `publish` it is gone. On Linux it has no name at all before, where the file system can do that: so it is gone as
//!   well if whoever writes it is killed. Elsewhere it is written beside its name, and renamed.

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
    until: Until,
    file: Option<BufWriter<File>>,
    bytes: u64,
    sync: bool,
}

/// Where it is until it has its name.
enum Until {
    /// Under no name, as long as it is open: that is here once it is complete.
    Unnamed(Option<File>),
    Beside(PathBuf),
    /// It has its name, or is gone.
    Over,
}

/// Names of temporary files must differ within a process, too.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A name beside another one, that nobody looks at.
fn hidden_beside(name: &Path) -> PathBuf {
    let stem = name.file_name().unwrap_or_default().to_string_lossy();
    let number = NEXT.fetch_add(1, Relaxed);
    name.with_file_name(format!(".{stem}.{}-{number}.part", std::process::id()))
}

impl NewFile {
    /// Makes it in the folder where `path` is to be; a relative path starts in `folder`
    /// ([`Setup::folder`](crate::spec::Setup::folder)).
    ///
    /// # Errors
    /// `Io`: the folder is not there, or cannot be written to; `path` is a folder.
    pub fn beside(folder: &Path, path: &str) -> Result<NewFile> {
        NewFile::made(folder, path, unnamed::open)
    }

    fn made(folder: &Path, path: &str, unnamed: impl Fn(&Path) -> Option<File>) -> Result<NewFile> {
        let full = folder.join(path);
        if full.is_dir() {
            let what = io::Error::new(io::ErrorKind::IsADirectory, "it is a folder");
            return Err(Error::io("write", path, what));
        }
        // A link stays a link: what it points to is replaced.
        let name = std::fs::canonicalize(&full).unwrap_or(full);
        let (file, until) = match unnamed(&name) {
            Some(file) => (file, Until::Unnamed(None)),
            None => {
                let temp = hidden_beside(&name);
                let file = File::options().write(true).create_new(true).open(&temp);
                (
                    file.map_err(|error| Error::io("write", path, error))?,
                    Until::Beside(temp),
                )
            }
        };
        Ok(NewFile {
            shown: path.to_owned(),
            name,
            until,
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
        let done = file.and_then(|file| match self.sync {
            true => file.sync_all().map(|()| file),
            false => Ok(file),
        });
        let file = done.map_err(|error| self.failed(error))?;
        if let Until::Unnamed(complete) = &mut self.until {
            *complete = Some(file);
        }
        Ok(())
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// `Io`, as the system says.
    pub fn publish(&mut self, rows: u64) -> Result<Published> {
        self.finish()?;
        let named = match &self.until {
            Until::Unnamed(Some(file)) => unnamed::publish(file, &self.name),
            Until::Beside(temp) => std::fs::rename(temp, &self.name),
            Until::Unnamed(None) => Err(io::Error::other("it was not completed")),
            Until::Over => Ok(()),
        };
        named.map_err(|error| Error::io("publish", self.shown.as_str(), error))?;
        self.until = Until::Over;
        Ok(Published {
            path: self.shown.clone(),
            rows,
            bytes: self.bytes,
        })
    }

    /// Removes it.
    pub fn discard(&mut self) {
        self.file = None;
        if let Until::Beside(temp) = std::mem::replace(&mut self.until, Until::Over) {
            let _ = std::fs::remove_file(temp);
        }
    }
}

/// Files without a name, which are gone with whoever has them open.
#[cfg(target_os = "linux")]
mod unnamed {
    use super::hidden_beside;
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open as open_at};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::{Path, PathBuf};

    /// Where the system shows what is open: from there a file gets its name.
    fn shown(file: &File) -> PathBuf {
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    }

    /// A new file in the folder of `name`, if that can be.
    pub(super) fn open(name: &Path) -> Option<File> {
        let folder = match name.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The permissions that any new file has.
        let mode = Mode::from_raw_mode(0o666);
        let file = File::from(open_at(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode).ok()?);
        std::fs::symlink_metadata(shown(&file)).ok().map(|_| file)
    }

    /// Gives it its name, whatever has that.
    pub(super) fn publish(file: &File, name: &Path) -> io::Result<()> {
        let link = |to: &Path| linkat(CWD, shown(file), CWD, to, AtFlags::SYMLINK_FOLLOW);
        match link(name) {
            Err(rustix::io::Errno::EXIST) => {}
            other => return Ok(other?),
        }
        // Nothing but a rename puts one file in the place of another.
        let temp = hidden_beside(name);
        link(&temp)?;
        std::fs::rename(&temp, name).inspect_err(|_| drop(std::fs::remove_file(&temp)))
    }
}

#[cfg(not(target_os = "linux"))]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn open(_: &Path) -> Option<File> {
        None
    }

    pub(super) fn publish(_: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
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

    /// Both ways, whatever the file system can do; `is_unnamed` tells whether it took the first one.
    fn shows_only_what_is_complete(test: &str, unnamed: impl Fn(&Path) -> Option<File>) -> bool {
        let folder = std::env::temp_dir().join(format!("standpipe-new-file-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = folder.join("out.txt");
        let read = || std::fs::read_to_string(&name).unwrap();
        let files = || std::fs::read_dir(&folder).unwrap().count();
        let new = |path: &str| NewFile::made(&folder, path, &unnamed);
        // Where nothing has the name yet, and where something has.
        for (text, before) in [("12-before", None), ("12-after", Some("12-before"))] {
            let mut file = new("out.txt").unwrap().sync(false);
            file.write(format_args!("{}-", 12)).unwrap();
            file.write_bytes(&text.as_bytes()[3..]).unwrap();
            file.finish().unwrap();
            assert!(file.write_bytes(b"late").is_err());
            assert_eq!(std::fs::read_to_string(&name).ok().as_deref(), before);
            let published = file.publish(3).unwrap();
            assert_eq!((published.path.as_str(), published.rows), ("out.txt", 3));
            assert_eq!(published.bytes, text.len() as u64);
            assert_eq!((read().as_str(), files()), (text, 1));
        }
        let mut file = new("out.txt").unwrap();
        file.write_bytes(b"never").unwrap();
        drop(file);
        assert_eq!((read().as_str(), files()), ("12-after", 1));
        let refused = new("no/out.txt").err().unwrap();
        assert!(refused.to_string().contains("no/out.txt"), "{refused}");
        let mut file = new("out.txt").unwrap();
        file.write_bytes(b"never").unwrap();
        file.finish().unwrap();
        let is_unnamed = matches!(file.until, Until::Unnamed(_));
        // Nobody is left who could remove anything.
        Box::leak(Box::new(file));
        assert_eq!(files(), if is_unnamed { 1 } else { 2 });
        std::fs::remove_dir_all(&folder).unwrap();
        is_unnamed
    }

    #[test]
    fn the_name_shows_only_what_is_complete() {
        shows_only_what_is_complete("unnamed", unnamed::open);
        assert!(!shows_only_what_is_complete("beside", |_| None));
    }
}
