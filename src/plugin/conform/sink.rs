//! What a sink leaves: the files of a folder that is its own.
//!
//! How it works: each trial starts with an empty folder, where relative paths start and the process is. What stands in it once the
//! instances are gone is what came out; a sink that writes elsewhere gives nothing to compare.

use super::Case;
use super::drive::{Driven, ROOM, Trial, Way};
use super::spy::{self, Refuse};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::testing;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names and what they say, in the order of a report. Those of stages do the same here.
pub const CHECKS: &[(&str, &str)] = &[
    ("works", "it takes its arguments and rows"),
    (
        "bind",
        "the same arguments give the same plan; missing and wrong ones are named",
    ),
    ("newer host", "a longer table of services changes nothing"),
    ("no rows", "batches without rows"),
    ("one row", "batches of one row"),
    ("nulls", "nothing but nulls"),
    ("pieces", "batches that are pieces of longer ones"),
    ("many rows", "batches as long as they get"),
    ("batch sizes", "where batches end makes no difference"),
    ("deterministic", "the same rows give the same, as declared"),
    ("lent memory", "nothing is looked at once its call is over"),
    ("refused memory", "every `alloc` and `grow` may give nothing"),
    ("refused reserve", "every `reserve` may be refused"),
    ("own memory", "what it keeps is what it declares"),
    ("leaks", "nothing stays when instances go"),
    (ABORTED, "a run that fails anywhere leaves nothing behind"),
];
/// The check that only sinks have.
pub(super) const ABORTED: &str = "aborted";

/// The folder of this process's trials: whoever runs a check names it, since all files in it are deleted again and again.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

pub(super) fn try_in(folder: &Path) {
    FOLDER.get_or_init(|| folder.into());
}

fn folder() -> Result<&'static Path, String> {
    FOLDER
        .get()
        .map(PathBuf::as_path)
        .ok_or_else(|| "no folder for its files".into())
}

impl Case {
    /// What instances are made with. A sink gets an empty folder.
    pub(super) fn setup(&self) -> Result<Setup, String> {
        let setup = testing::setup(ROOM);
        if !self.is_sink() {
            return Ok(setup);
        }
        let folder = folder()?;
        empty(folder)?;
        Ok(Setup {
            folder: folder.into(),
            ..setup
        })
    }
}

fn empty(folder: &Path) -> Result<(), String> {
    for (path, _) in listed(folder)? {
        std::fs::remove_file(path).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The files below a folder and their sizes, in the order of their names.
fn listed(folder: &Path) -> Result<Vec<(PathBuf, u64)>, String> {
    let mut out = vec![];
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(about) if about.is_dir() => out.extend(listed(&entry.path())?),
            Ok(about) => out.push((entry.path(), about.len())),
            Err(_) => {}
        }
    }
    out.sort();
    Ok(out)
}

/// The lines of what came out; if it gave up, that must be nothing.
pub(super) fn files(gave_up: bool) -> Result<Vec<String>, String> {
    let folder = folder()?;
    let files = listed(folder)?;
    if let (true, Some((path, _))) = (gave_up, files.first()) {
        return Err(format!("it fails, and leaves `{}`", shown(folder, path)));
    }
    let mut out = vec![];
    for (path, _) in files {
        out.push(format!("file {}", shown(folder, &path)));
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        out.extend(
            bytes
                .split(|&byte| byte == b'\n')
                .map(|line| String::from_utf8_lossy(line).into_owned()),
        );
    }
    Ok(out)
}

fn shown(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// A run that fails: behind so many batches, or once the output is complete.
pub(super) fn aborted(trial: &Trial<'_>) -> Result<Option<String>, String> {
    if !trial.case.is_sink() {
        return super::checks::skipped("it is no sink");
    }
    spy::refuse(Refuse::Nothing);
    let folder = folder()?;
    let rows = trial.case.rows(60);
    let parts: Vec<_> = rows.chunks(16).collect();
    for behind in 0..=parts.len() + 1 {
        let is_complete = behind > parts.len();
        if is_complete && trial.publish.is_none() {
            // Then it is published as well.
            break;
        }
        let mut driven = Driven::new(trial, Way::PLAIN)?;
        driven.batches(1);
        for (at, part) in parts.iter().take(behind).enumerate() {
            driven.give(0, 0, at * 16, part)?;
        }
        if is_complete {
            driven.complete()?;
        }
        drop(driven);
        if let Some((path, _)) = listed(folder)?.first() {
            let when = match is_complete {
                true => "once its output is complete".to_owned(),
                false => format!("behind {behind} batches"),
            };
            return Err(format!("a run that ends {when} leaves `{}`", shown(folder, path)));
        }
    }
    Ok(None)
}
