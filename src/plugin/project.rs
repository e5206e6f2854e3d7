//! The project's word on plugins: `standpipe.toml` says where they are, `standpipe.lock` which files are trusted.
//!
//! Laws
//! - Scripts only name plugins. Where a file is and whether it is trusted is said here, by whoever owns the project.
//! - Neither file is read if anyone can change it: whoever writes here says which code runs.
//! - The lock is written by `standpipe plugin lock` alone, sorted, so that it can be reviewed as a diff.

use super::Isolation;
use super::library::{Refusal, not_for_anyone, open};
use super::{DOES_NOT_LOAD, NOT_FOUND};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The project file.
pub const PROJECT_FILE: &str = "standpipe.toml";
/// What pins the files.
pub const LOCK_FILE: &str = "standpipe.lock";

/// A folder with a project file.
#[derive(Clone, Debug)]
pub struct Project {
    pub folder: PathBuf,
    pub plugins: BTreeMap<String, Entry>,
}

/// `[plugins.geo]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where the library is: relative to the project, or absolute.
    pub path: PathBuf,
    /// `"process"`: in child processes.
    #[serde(default)]
    isolate: Option<Isolate>,
    /// Of those: how long a call may be silent, as `"10s"` or `"500ms"`.
    #[serde(default)]
    timeout: Option<String>,
    /// Of those: what each may take beside the program and the library, as `"256MiB"`.
    #[serde(default)]
    memory: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Isolate {
    Process,
}

impl Entry {
    /// The limits of the plugin's processes; `None` if it runs in the host's.
    ///
    /// # Errors
    /// What is said of them and not understood.
    pub fn isolation(&self) -> Result<Option<Isolation>, String> {
        let usual = Isolation::default();
        if self.isolate.is_none() {
            return match self.timeout.is_some() || self.memory.is_some() {
                true => Err(
                    "`timeout` and `memory` are limits of a plugin in processes of its own: `isolate = \"process\"`"
                        .into(),
                ),
                false => Ok(None),
            };
        }
        let timeout = match &self.timeout {
            None => usual.timeout,
            Some(text) => {
                let time = time_of(text).filter(|time| !time.is_zero());
                time.ok_or_else(|| format!("`timeout = \"{text}\"` is no time: `\"10s\"`, `\"500ms\"`, `\"2m\"`"))?
            }
        };
        let memory = match &self.memory {
            None => usual.memory,
            Some(text) => {
                let bytes = bytes_of(text).filter(|bytes| (LEAST_MEMORY..=MOST_MEMORY).contains(bytes));
                bytes.ok_or_else(|| {
                    format!("`memory = \"{text}\"` is no size from 1MiB to 1TiB: `\"256MiB\"`, `\"2GiB\"`")
                })?
            }
        };
        Ok(Some(Isolation { timeout, memory }))
    }
}

const LEAST_MEMORY: u64 = 1 << 20;
const MOST_MEMORY: u64 = 1 << 40;

/// `10s`
fn time_of(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// `256MiB`
fn bytes_of(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit))
}

#[derive(Deserialize)]
struct ProjectText {
    #[serde(default)]
    plugins: BTreeMap<String, Entry>,
}

impl Project {
    /// The project that `folder` is in; `None` if neither it nor a folder above has a project file.
    ///
    /// # Errors
    /// If the project file cannot be read.
    pub fn find(folder: &Path) -> Result<Option<Project>, Refusal> {
        let start = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let Ok(start) = start.canonicalize() else {
            return Ok(None);
        };
        for folder in start.ancestors() {
            let file = folder.join(PROJECT_FILE);
            if file.is_file() {
                let text = read(&file)?.unwrap_or_default();
                let parsed: ProjectText = toml::from_str(&text).map_err(|e| not_understood(&file, &e.to_string()))?;
                return Ok(Some(Project {
                    folder: folder.to_path_buf(),
                    plugins: parsed.plugins,
                }));
            }
        }
        Ok(None)
    }

    /// The lock, empty if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn lock(&self) -> Result<Lock, Refusal> {
        let file = self.folder.join(LOCK_FILE);
        match read(&file)? {
            None => Ok(Lock::default()),
            Some(text) => {
                let lock: Lock = toml::from_str(&text).map_err(|e| not_understood(&file, &e.to_string()))?;
                match lock.version {
                    1 => Ok(lock),
                    other => Err(not_understood(&file, &format!("its version is {other}, not 1"))),
                }
            }
        }
    }
}

/// The lock file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lock {
    pub version: u32,
    /// By name.
    #[serde(default, rename = "plugin")]
    pub plugins: Vec<Locked>,
}

impl Default for Lock {
    fn default() -> Self {
        Lock {
            version: 1,
            plugins: vec![],
        }
    }
}

/// One trusted file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    pub name: String,
    pub version: String,
    pub sha256: String,
    /// `1.0`
    pub abi: String,
    /// What it brings, for whoever reads the diff.
    #[serde(default)]
    pub stages: Vec<String>,
}

impl Lock {
    pub fn get(&self, name: &str) -> Option<&Locked> {
        self.plugins.iter().find(|locked| locked.name == name)
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let body = toml::to_string(self).unwrap_or_default();
        format!("# Written by `standpipe plugin lock`: the files that this project trusts.\n{body}")
    }
}

/// A file that says which code is trusted: nobody else may change it.
fn read(file: &Path) -> Result<Option<String>, Refusal> {
    let shown = file.display();
    let cannot = |error: std::io::Error| Refusal::new(NOT_FOUND, format!("cannot read `{shown}`: {error}"));
    let mut opened = match open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let about = opened.metadata().map_err(cannot)?;
    if !about.is_file() {
        return Err(Refusal::new(DOES_NOT_LOAD, format!("`{shown}` is no file")));
    }
    not_for_anyone(&about, &format!("`{shown}`"), file)?;
    let mut text = String::new();
    opened.read_to_string(&mut text).map_err(cannot)?;
    Ok(Some(text))
}

fn not_understood(file: &Path, what: &str) -> Refusal {
    Refusal::new(
        DOES_NOT_LOAD,
        format!("`{}` is not understood: {}", file.display(), what.trim_end()),
    )
}
