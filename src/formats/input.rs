//! Where text comes from: files, globs, compressed files, standard input.
//!
//! Laws
//! - Paths are shown as they were written; a glob's files come in byte order of their paths.
//! - Standard input is read once: what the checker took as a sample is read again first by the run.

use standpipe_sdk::{Error, Result};
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// The name of standard input.
pub const STDIN: &str = "-";

/// One input file, not yet open.
#[derive(Clone)]
pub struct Input {
    /// As written, or as the glob found it.
    pub path: Arc<str>,
    full: PathBuf,
    packing: Packing,
    encoding: Encoding,
    /// Bytes on disk, for a plain regular file.
    size: Option<u64>,
    /// What was read of a stream that cannot be read twice.
    sample: Arc<Mutex<Vec<u8>>>,
}

/// How a file is compressed, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// By the ending of the file's name.
    pub fn of(path: &str) -> Packing {
        match path.rsplit_once('.') {
            Some((_, "gz")) => Packing::Gzip,
            Some((_, "zst")) => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// How bytes become text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encoding {
    /// Invalid bytes are row errors.
    #[default]
    Utf8,
    /// Invalid bytes become U+FFFD.
    Lossy,
    Latin1,
}

/// What was taken of standard input to look at it. The process has one standard input: a script that is checked twice, or checked
/// and then run, reads on behind what it took and gets that first again.
static STDIN_SAMPLE: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(Arc::default);

/// The files behind `paths`, relative to `folder`.
///
/// # Errors
/// A path that is not there, is a folder, cannot be read, or a glob without a match (unless `may_be_empty`).
pub fn resolve(paths: &[&str], folder: &Path, encoding: Encoding, may_be_empty: bool) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for &path in paths {
        if path == STDIN {
            inputs.push(Input::new(path, PathBuf::from(path), None, encoding));
        } else if path.contains(['*', '?', '[']) && !folder.join(path).exists() {
            let found = matches_of(path, folder)?;
            if found.is_empty() && !may_be_empty {
                let source = io::Error::new(io::ErrorKind::NotFound, "no file matches");
                return Err(Error::io("read", path, source));
            }
            for (name, full) in found {
                inputs.push(Input::open(&name, full, encoding)?);
            }
        } else {
            inputs.push(Input::open(path, folder.join(path), encoding)?);
        }
    }
    Ok(inputs)
}

/// What the files behind `paths` take on disk, packed as they are; `None` where that is not known before they are read, or not to be found
/// out.
pub fn bytes_on_disk(paths: &[&str], folder: &Path) -> Option<u64> {
    let inputs = match paths.contains(&STDIN) {
        true => return None,
        false => resolve(paths, folder, Encoding::Utf8, true).ok()?,
    };
    let bytes = inputs.iter().map(|input| {
        let meta = fs::metadata(&input.full).ok()?;
        meta.is_file().then_some(meta.len())
    });
    bytes.sum()
}

fn matches_of(path: &str, folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let pattern = folder.join(path);
    let bad = |message: &str| {
        Error::io(
            "read",
            path,
            io::Error::new(io::ErrorKind::InvalidInput, message.to_string()),
        )
    };
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        case_sensitive: true,
    };
    let found = glob::glob_with(&pattern.to_string_lossy(), options).map_err(|e| bad(e.msg))?;
    let mut files = Vec::new();
    for entry in found {
        let full =
            entry.map_err(|e| Error::io("read", e.path().to_string_lossy(), io::Error::from(e.error().kind())))?;
        if full.is_dir() {
            continue;
        }
        let name = full
            .strip_prefix(folder)
            .unwrap_or(&full)
            .to_string_lossy()
            .into_owned();
        files.push((name, full));
    }
    files.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(files)
}

impl Input {
    fn new(path: &str, full: PathBuf, size: Option<u64>, encoding: Encoding) -> Self {
        Input {
            path: path.into(),
            full,
            packing: Packing::of(path),
            encoding,
            size,
            sample: if path == STDIN {
                STDIN_SAMPLE.clone()
            } else {
                Arc::default()
            },
        }
    }

    fn open(path: &str, full: PathBuf, encoding: Encoding) -> Result<Self> {
        let failed = |e| Error::io("read", path, e);
        let meta = fs::metadata(&full).map_err(failed)?;
        if meta.is_dir() {
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
        }
        // Opening once now tells about permissions before the run.
        fs::File::open(&full).map_err(failed)?;
        let plain = meta.is_file() && Packing::of(path) == Packing::Plain && encoding == Encoding::Utf8;
        Ok(Input::new(path, full, plain.then_some(meta.len()), encoding))
    }

    /// Bytes on disk, if it can be read at any place by any worker.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The open file, for reading at any place.
    pub fn file(&self) -> Result<fs::File> {
        fs::File::open(&self.full).map_err(|e| Error::io("read", &*self.path, e))
    }

    /// Whether each read gives what there is, so that a claim should not wait for more.
    pub fn is_live(&self) -> bool {
        &*self.path == STDIN || (self.size.is_none() && self.packing == Packing::Plain)
    }

    /// The text from its beginning, unpacked and decoded. What an earlier [`Input::sample`] took of a pipe comes first.
    pub fn stream(&self, cancelled: Arc<AtomicBool>) -> Result<Box<dyn Read + Send>> {
        let raw: Box<dyn Read + Send> = if &*self.path == STDIN {
            Box::new(Stdin { cancelled })
        } else {
            Box::new(self.file()?)
        };
        let sample = if self.can_repeat() {
            Vec::new()
        } else {
            std::mem::take(&mut *self.sample.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let unpacked: Box<dyn Read + Send> = match self.packing {
            Packing::Plain => raw,
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Packing::Zstd => {
                Box::new(zstd::stream::read::Decoder::new(raw).map_err(|e| Error::io("read", &*self.path, e))?)
            }
        };
        let text: Box<dyn Read + Send> = match self.encoding {
            Encoding::Utf8 => unpacked,
            encoding => Box::new(Decoded {
                inner: unpacked,
                encoding,
                ready: Vec::new(),
                at: 0,
                pending: Vec::new(),
                ended: false,
            }),
        };
        Ok(if sample.is_empty() {
            text
        } else {
            Box::new(Cursor::new(sample).chain(text))
        })
    }

    fn can_repeat(&self) -> bool {
        &*self.path != STDIN && (self.size.is_some() || self.packing != Packing::Plain || self.full.is_file())
    }

    /// The first bytes: until `enough`, which gets them and how many it has seen before, says so or the end is reached; at most `most`
    /// bytes. The flag: the end was reached.
    pub fn sample(&self, most: usize, mut enough: impl FnMut(&[u8], usize) -> bool) -> Result<(Vec<u8>, bool)> {
        const STEP: usize = 64 << 10;
        let mut stream = self.stream(Arc::default())?;
        let mut bytes: Vec<u8> = Vec::new();
        let ended = loop {
            let before = bytes.len();
            let refused = |_| Error::Memory {
                wanted: STEP,
                used: before,
                limit: most,
            };
            bytes.try_reserve(STEP).map_err(refused)?;
            bytes.resize(before + STEP, 0);
            // One read at a time: somebody may be typing.
            let read = match stream.read(&mut bytes[before..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    bytes.truncate(before);
                    continue;
                }
                other => other.map_err(|e| Error::io("read", &*self.path, e))?,
            };
            bytes.truncate(before + read);
            if read == 0 {
                break true;
            }
            if bytes.len() >= most || enough(&bytes, before) {
                break false;
            }
        };
        if !self.can_repeat() {
            *self.sample.lock().unwrap_or_else(PoisonError::into_inner) = bytes.clone();
        }
        Ok((bytes, ended))
    }
}

/// Standard input that looks at `cancelled` while it waits.
struct Stdin {
    cancelled: Arc<AtomicBool>,
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        const WAIT: Duration = Duration::from_millis(50);
        let stdin = rustix::stdio::stdin();
        loop {
            if self.cancelled.load(Relaxed) {
                return Err(io::Error::other("the run was cancelled"));
            }
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: WAIT.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(stdin, buffer)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Turns other encodings into UTF-8 on the way.
struct Decoded<R> {
    inner: R,
    encoding: Encoding,
    ready: Vec<u8>,
    at: usize,
    /// Bytes of a character that is not whole yet.
    pending: Vec<u8>,
    ended: bool,
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() && !self.ended {
            self.refill()?;
        }
        let n = (self.ready.len() - self.at).min(buffer.len());
        buffer[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl<R: Read> Decoded<R> {
    fn refill(&mut self) -> io::Result<()> {
        let mut block = [0u8; 16 << 10];
        let n = self.inner.read(&mut block)?;
        self.ended = n == 0;
        self.at = 0;
        self.ready.clear();
        if self.encoding == Encoding::Latin1 {
            for &byte in &block[..n] {
                let mut utf8 = [0u8; 4];
                self.ready
                    .extend_from_slice(char::from(byte).encode_utf8(&mut utf8).as_bytes());
            }
            return Ok(());
        }
        self.pending.extend_from_slice(&block[..n]);
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.ready.extend_from_slice(text.as_bytes());
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.ready.extend_from_slice(good);
                    let skip = match error.error_len() {
                        Some(len) => len,
                        None if self.ended => bad.len(),
                        None => {
                            rest = bad;
                            break;
                        }
                    };
                    self.ready.extend_from_slice("\u{FFFD}".as_bytes());
                    rest = &bad[skip..];
                }
            }
        }
        self.pending = rest.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: Encoding, bytes: &[u8]) -> String {
        let inner = Cursor::new(bytes.to_vec());
        let mut reader = Decoded {
            inner,
            encoding,
            ready: vec![],
            at: 0,
            pending: vec![],
            ended: false,
        };
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn other_encodings_become_utf8() {
        assert_eq!(decoded(Encoding::Latin1, b"caf\xe9"), "café");
        assert_eq!(decoded(Encoding::Lossy, b"a\xffb\xe2\x82"), "a\u{FFFD}b\u{FFFD}");
        let long = "é".repeat(40_000);
        assert_eq!(decoded(Encoding::Lossy, long.as_bytes()), long);
    }
}
