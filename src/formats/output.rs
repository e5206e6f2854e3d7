//! Where text goes: files that get their name when the run succeeds, compressed files, standard output.
//!
//! Laws
//! - A file is written beside its name and renamed by `publish`; until then, and after a failed run, the name shows what it
//!   showed before. Devices and pipes are written directly.
//! - Bytes are written in the chunks' turn only, one `write` per chunk.

use crate::formats::input::Packing;
use crate::formats::out::Out;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Batch, Error, Faults, Published, Result, Sink, Writer};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tempfile::TempPath;

/// The name of standard output.
pub const STDOUT: &str = "-";

/// Turns rows into bytes; one per lane.
pub trait RowEncoder: Send {
    /// Appends the rows of `batch` to `out`.
    fn encode(&mut self, batch: Batch<'_>, out: &mut Out) -> Result<()>;
}

/// What a text sink is made of.
pub struct TextSinkPlan {
    /// As written in the script.
    pub path: String,
    pub folder: PathBuf,
    pub append: bool,
    /// Bytes before the first row.
    pub header: Vec<u8>,
    /// Makes a lane's encoder.
    pub encoder: Box<dyn Fn() -> Box<dyn RowEncoder> + Send + Sync>,
    /// What to tell people after the run.
    pub notes: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// A text file being written.
pub struct TextSink {
    plan: Arc<TextSinkPlan>,
    sync: bool,
    open: Mutex<Open>,
}

struct Open {
    to: To,
    target: Target,
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    header_written: bool,
    rows: u64,
    bytes: u64,
    /// Bytes that the system was told to begin writing to disk; `None` = nobody will wait for the disk.
    begun: Option<u64>,
}

/// The system is told to write after so many bytes, so that the disk works while the run does and the sync at its end is short.
const WRITEBACK: u64 = 8 << 20;

enum To {
    Stdout,
    Plain(File),
    Gzip(Steady<flate2::write::GzEncoder<File>>),
    Zstd(Steady<zstd::stream::write::Encoder<'static, File>>),
    Closed,
}

/// Gives a compressor blocks of one size: what it makes of a text depends on how the text is cut, and that must not depend on the
/// chunks of a run.
struct Steady<W> {
    packer: Box<W>,
    block: Vec<u8>,
}

impl<W: io::Write> Steady<W> {
    const BLOCK_BYTES: usize = 64 << 10;

    fn new(packer: W) -> Self {
        let block = Vec::with_capacity(Self::BLOCK_BYTES);
        Steady {
            packer: Box::new(packer),
            block,
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (fits, rest) = bytes.split_at(bytes.len().min(Self::BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(fits);
            bytes = rest;
            if self.block.len() == Self::BLOCK_BYTES {
                self.packer.write_all(&self.block)?;
                self.block.clear();
            }
        }
        Ok(())
    }

    /// The compressor, once it has everything.
    fn whole(mut self) -> io::Result<W> {
        self.packer.write_all(&self.block)?;
        Ok(*self.packer)
    }
}

enum Target {
    /// Written directly: standard output, a device.
    Direct,
    /// Becomes `name` on success.
    Rename { temp: Option<TempPath>, name: PathBuf },
    /// Is appended to `name` on success.
    Append { temp: Option<TempPath>, name: PathBuf },
}

impl TextSink {
    /// Opens the output under a temporary name.
    ///
    /// # Errors
    /// The folder is not there or cannot be written to.
    pub fn open(plan: Arc<TextSinkPlan>, setup: &Setup) -> Result<Arc<dyn Sink>> {
        let failed = |e| Error::io("write", plan.path.as_str(), e);
        let full = plan.folder.join(&plan.path);
        let mut made = Vec::new();
        let (file, target, header_written) = if plan.path == STDOUT {
            (None, Target::Direct, false)
        } else if fs::metadata(&full).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            (
                Some(File::options().write(true).open(&full).map_err(failed)?),
                Target::Direct,
                false,
            )
        } else {
            if full.is_dir() {
                return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
            }
            // A link stays a link: what it points to is replaced.
            let name = fs::canonicalize(&full).unwrap_or(full);
            made = make_folders(&name).map_err(failed)?;
            let (file, temp) = beside(&name).map_err(failed)?;
            let temp = Some(temp);
            if plan.append {
                let has_rows = fs::metadata(&name).is_ok_and(|m| m.len() > 0);
                (Some(file), Target::Append { temp, name }, has_rows)
            } else {
                (Some(file), Target::Rename { temp, name }, false)
            }
        };
        let to = match (file, Packing::of(&plan.path)) {
            (None, _) => To::Stdout,
            (Some(file), Packing::Plain) => To::Plain(file),
            (Some(file), Packing::Gzip) => To::Gzip(Steady::new(flate2::write::GzEncoder::new(
                file,
                flate2::Compression::new(6),
            ))),
            (Some(file), Packing::Zstd) => {
                To::Zstd(Steady::new(zstd::stream::write::Encoder::new(file, 3).map_err(failed)?))
            }
        };
        let open = Mutex::new(Open {
            to,
            target,
            made,
            header_written,
            rows: 0,
            bytes: 0,
            begun: setup.sync.then_some(0),
        });
        Ok(Arc::new(TextSink {
            plan,
            sync: setup.sync,
            open,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: io::Error) -> Error {
        let name = if self.plan.path == STDOUT {
            "standard output"
        } else {
            self.plan.path.as_str()
        };
        Error::io("write", name, error)
    }

    fn write(&self, bytes: &[u8], rows: u64) -> Result<()> {
        let mut open = self.lock();
        if !open.header_written {
            open.header_written = true;
            open.write_all(&self.plan.header).map_err(|e| self.failed(e))?;
        }
        open.rows += rows;
        open.write_all(bytes).map_err(|e| self.failed(e))
    }
}

impl Open {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        match &mut self.to {
            To::Stdout => {
                while !bytes.is_empty() {
                    match rustix::io::write(rustix::stdio::stdout(), bytes) {
                        Ok(n) => bytes = &bytes[n..],
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            }
            To::Plain(file) => {
                file.write_all(bytes)?;
                if let Some(begun) = &mut self.begun
                    && self.bytes - *begun >= WRITEBACK
                {
                    // Only a hint: where it does nothing, the sync does it all.
                    let len = std::num::NonZeroU64::new(self.bytes - *begun);
                    let _ = rustix::fs::fadvise(&*file, *begun, len, rustix::fs::Advice::DontNeed);
                    *begun = self.bytes;
                }
                Ok(())
            }
            To::Gzip(file) => file.write_all(bytes),
            To::Zstd(file) => file.write_all(bytes),
            To::Closed => Ok(()),
        }
    }
}

/// Makes the folders a file is to be in; gives those that were not there, the innermost first.
fn make_folders(name: &Path) -> io::Result<Vec<PathBuf>> {
    let missing = name
        .ancestors()
        .skip(1)
        .filter(|f| !f.as_os_str().is_empty())
        .take_while(|f| !f.exists());
    let missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
    if let Some(folder) = missing.first() {
        fs::create_dir_all(folder)?;
    }
    Ok(missing)
}

/// A new file in the folder of `name`, with the permissions a new file has there.
fn beside(name: &Path) -> io::Result<(File, TempPath)> {
    let folder = match name.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let stem = name.file_name().unwrap_or_default().to_string_lossy();
    let open = |path: &Path| File::options().write(true).create_new(true).open(path);
    // tempfile would add its own path to what the system says.
    let mut refused = None;
    let temp = tempfile::Builder::new()
        .prefix(&format!(".{stem}."))
        .suffix(".part")
        .make_in(folder, |path| open(path).inspect_err(|e| refused = e.raw_os_error()));
    match temp {
        Ok(temp) => Ok(temp.into_parts()),
        Err(error) => Err(refused.map_or(error, io::Error::from_raw_os_error)),
    }
}

impl Sink for TextSink {
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>> {
        let encoder = (self.plan.encoder)();
        Ok(Box::new(TextWriter {
            sink: self,
            encoder,
            buffer: Out::new(),
            rows: 0,
        }))
    }

    fn finish(&self) -> Result<()> {
        self.write(&[], 0)?;
        let mut open = self.lock();
        let file = match std::mem::replace(&mut open.to, To::Closed) {
            To::Stdout | To::Closed => None,
            To::Plain(file) => Some(file),
            To::Gzip(file) => Some(
                file.whole()
                    .and_then(|file| file.finish())
                    .map_err(|e| self.failed(e))?,
            ),
            To::Zstd(file) => Some(
                file.whole()
                    .and_then(|file| file.finish())
                    .map_err(|e| self.failed(e))?,
            ),
        };
        match (file, &open.target) {
            (Some(file), Target::Rename { .. } | Target::Append { .. }) if self.sync => {
                file.sync_all().map_err(|e| self.failed(e))
            }
            _ => Ok(()),
        }
    }

    fn publish(&self) -> Result<Vec<Published>> {
        let mut open = self.lock();
        let failed = |e| Error::io("publish", self.plan.path.as_str(), e);
        match &mut open.target {
            Target::Direct => {}
            Target::Rename { temp, name } => {
                if let Some(temp) = temp.take() {
                    temp.persist(&*name).map_err(|e| failed(e.error))?;
                    if self.sync
                        && let Some(folder) = name.parent().and_then(|folder| File::open(folder).ok())
                    {
                        folder.sync_all().map_err(failed)?;
                    }
                }
            }
            Target::Append { temp, name } => {
                if let Some(temp) = temp.take() {
                    let mut to = File::options().append(true).create(true).open(&*name).map_err(failed)?;
                    io::copy(&mut File::open(&temp).map_err(failed)?, &mut to).map_err(failed)?;
                    if self.sync {
                        to.sync_all().map_err(failed)?;
                    }
                }
            }
        }
        Ok(vec![Published {
            path: self.plan.path.clone(),
            rows: open.rows,
            bytes: open.bytes,
        }])
    }

    fn notes(&self) -> Vec<String> {
        (self.plan.notes)()
    }

    fn discard(&self) {
        let mut open = self.lock();
        open.to = To::Closed;
        if let Target::Rename { temp, .. } | Target::Append { temp, .. } = &mut open.target {
            // Dropping a temporary path removes the file.
            drop(temp.take());
        }
        for folder in open.made.drain(..) {
            // Only an empty folder goes: another output may be in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// One lane's buffer of encoded rows.
struct TextWriter {
    sink: Arc<TextSink>,
    encoder: Box<dyn RowEncoder>,
    buffer: Out,
    rows: u64,
}

impl Writer for TextWriter {
    fn encode(&mut self, batch: Batch<'_>, _faults: &Faults<'_>) -> Result<()> {
        let before = self.buffer.len();
        if let Err(error) = self.encoder.encode(batch, &mut self.buffer) {
            self.buffer.truncate(before);
            return Err(error);
        }
        self.rows += batch.rows() as u64;
        Ok(())
    }

    fn pending(&self) -> usize {
        self.buffer.len()
    }

    fn write(&mut self) -> Result<()> {
        let outcome = self.sink.write(self.buffer.as_slice(), self.rows);
        self.forget();
        outcome
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.rows = 0;
    }
}
