//! Scripts in; formatted scripts and reports out, whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The longest script that is read, in bytes; the parser says what is too long.
const MOST: u64 = 17 << 20;

/// The name and text of a script.
pub(super) fn script(file: &Path) -> Result<(String, String), String> {
    let name = if file.as_os_str() == "-" {
        "stdin".to_string()
    } else {
        file.display().to_string()
    };
    let cannot = |error: io::Error| format!("cannot read `{name}`: {error}");
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        io::stdin().lock().take(MOST).read_to_end(&mut bytes).map_err(cannot)?;
    } else {
        File::open(file)
            .and_then(|f| f.take(MOST).read_to_end(&mut bytes))
            .map_err(cannot)?;
    }
    match standpipe::syntax::decode(&bytes) {
        Ok(text) => Ok((name, text.to_string())),
        Err(diagnostic) => Err(format!("`{name}`: {}", diagnostic.message)),
    }
}

/// Puts `bytes` in the place of a file, whole or not at all.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> Result<(), String> {
    NewFile::begin(file)?.finish(bytes)
}

/// A file that gets its name once it is whole.
pub(super) struct NewFile {
    shown: String,
    to: To,
}

enum To {
    Beside(NamedTempFile, PathBuf),
    /// A device or a pipe.
    Direct(File),
}

impl NewFile {
    /// Makes sure that the file can be written; nothing is seen under its name yet.
    pub(super) fn begin(file: &Path) -> Result<NewFile, String> {
        let shown = file.display().to_string();
        let to = To::begin(file).map_err(|error| cannot(&shown, &error))?;
        Ok(NewFile { shown, to })
    }

    /// Writes the file and gives it its name.
    pub(super) fn finish(self, bytes: &[u8]) -> Result<(), String> {
        self.to.finish(bytes).map_err(|error| cannot(&self.shown, &error))
    }
}

fn cannot(shown: &str, error: &io::Error) -> String {
    format!("cannot write `{shown}`: {error}")
}

impl To {
    fn begin(file: &Path) -> io::Result<To> {
        let found = fs::metadata(file);
        if found.as_ref().is_ok_and(fs::Metadata::is_dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if found.as_ref().is_ok_and(|found| !found.is_file()) {
            return Ok(To::Direct(File::options().write(true).open(file)?));
        }
        // A link stays a link: what it points to is replaced.
        let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its folder is not there"));
        }
        let mode = found.map_or(0o666, |found| found.permissions().mode());
        let mut temp = tempfile::Builder::new();
        temp.prefix(".standpipe.").permissions(Permissions::from_mode(mode));
        Ok(To::Beside(temp.tempfile_in(folder)?, target))
    }

    fn finish(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            To::Direct(mut file) => file.write_all(bytes),
            To::Beside(mut temp, target) => {
                temp.write_all(bytes)?;
                if let Ok(found) = fs::metadata(&target) {
                    // What the umask took from the new file, the old one may have had.
                    temp.as_file().set_permissions(found.permissions())?;
                }
                temp.persist(target).map(drop).map_err(|error| error.error)
            }
        }
    }
}
