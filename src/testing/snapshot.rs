//! Snapshots: what a stream was when somebody last looked at it, in the form that `insta` has.
//!
//! `insta` itself is a test library whose reader and writer are private; its file form is small and written down here. `cargo insta
//! review` works on what this writes, and this reads what that leaves: only the body behind the header is compared.
//!
//! ```text
//! ---
//! source: orders.pipe
//! description: unpaid orders do not count
//! expression: paid
//! info:
//!   schema: "id: int?, total: float"
//!   rows: 2
//! ---
//! id   | total
//! int? | float
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is done where a snapshot is another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Write what came beside the snapshot, for somebody to look at.
    #[default]
    Propose,
    /// Make it what is expected.
    Accept,
    /// Write nothing.
    Frozen,
}

/// What stands at the top of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub script: String,
    pub test: String,
    /// The stream, the path of an output, or `plan`.
    pub stream: String,
    pub schema: Option<String>,
    pub rows: Option<usize>,
}

/// How a snapshot and what came compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    Same,
    Accepted,
    Differs {
        /// The body of the snapshot, if there is one.
        old: Option<String>,
        /// It waits to be accepted.
        pending: bool,
    },
}

/// The file that waits for somebody to accept it.
pub fn pending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// A snapshot as text.
pub fn render(header: &Header, body: &str) -> String {
    let mut text = String::from("---\n");
    let _ = writeln!(text, "source: {}", quoted(&header.script));
    let _ = writeln!(text, "description: {}", quoted(&header.test));
    let _ = writeln!(text, "expression: {}", quoted(&header.stream));
    if header.schema.is_some() || header.rows.is_some() {
        text.push_str("info:\n");
    }
    if let Some(schema) = &header.schema {
        let _ = writeln!(text, "  schema: {}", quoted(schema));
    }
    if let Some(rows) = header.rows {
        let _ = writeln!(text, "  rows: {rows}");
    }
    text.push_str("---\n");
    text.push_str(body.trim_end());
    text.push('\n');
    text
}

/// A text in YAML as `insta` writes it: in quotes where it could be taken for something else.
fn quoted(text: &str) -> String {
    let words = [
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf",
    ];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with(' ')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/'))
        && !words.contains(&text.to_ascii_lowercase().as_str());
    match plain {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// The body of a snapshot: what stands behind its header.
pub fn body(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("---\n") else {
        return text;
    };
    match rest.find("\n---\n") {
        Some(at) => &rest[at + 5..],
        None => text,
    }
}

/// The body of the snapshot in this file, if it is there.
///
/// # Errors
/// A file that cannot be read; a text for people.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(body(&text.replace("\r\n", "\n")).to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Compares what came with the snapshot, and does what `mode` says.
///
/// # Errors
/// A file that cannot be read or written; a text for people.
pub fn compare(path: &Path, header: &Header, new: &str, mode: Mode) -> Result<Compared, String> {
    let old = read(path)?;
    let waiting = pending(path);
    if old.as_deref().is_some_and(|old| old.trim_end() == new.trim_end()) {
        if mode != Mode::Frozen {
            remove(&waiting)?;
        }
        return Ok(Compared::Same);
    }
    match mode {
        Mode::Frozen => Ok(Compared::Differs { old, pending: false }),
        Mode::Propose => {
            write(&waiting, &render(header, new))?;
            Ok(Compared::Differs { old, pending: true })
        }
        Mode::Accept => {
            write(path, &render(header, new))?;
            remove(&waiting)?;
            Ok(Compared::Accepted)
        }
    }
}

/// Makes what waits the snapshot.
///
/// # Errors
/// Files that cannot be moved; a text for people.
pub fn accept(path: &Path) -> Result<(), String> {
    fs::rename(pending(path), path).map_err(|error| format!("cannot accept {}: {error}", path.display()))
}

/// Forgets what waits.
///
/// # Errors
/// A file that cannot be removed; a text for people.
pub fn reject(path: &Path) -> Result<(), String> {
    remove(&pending(path))
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let wrong = |error: io::Error| format!("cannot write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(wrong)?;
    }
    // All or nothing: another process may read it now.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(wrong)
}

/// Snapshots and proposals of a script that none of its tests refers to.
pub fn unreferenced(folder: &Path, stem: &str, referred: &[PathBuf]) -> Vec<PathBuf> {
    let prefix = format!("{}__", super::script::slug(stem));
    let Ok(entries) = fs::read_dir(folder.join("snapshots")) else {
        return vec![];
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let ours = name.starts_with(&prefix) && (name.ends_with(".snap") || name.ends_with(".snap.new"));
            let of = path.with_file_name(name.trim_end_matches(".new"));
            ours && !referred.contains(&of)
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            script: "orders.pipe".into(),
            test: "says \"no\": often".into(),
            stream: "paid".into(),
            schema: Some("id: int?".into()),
            rows: Some(1),
        }
    }

    #[test]
    fn what_is_proposed_becomes_what_is_expected_only_when_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshots/a__b__c.snap");
        let compare = |body: &str, mode| compare(&path, &header(), body, mode).unwrap();
        let differs = |old: Option<&str>, pending| Compared::Differs {
            old: old.map(str::to_owned),
            pending,
        };
        assert_eq!(compare("a\n", Mode::Frozen), differs(None, false));
        assert!(!pending(&path).exists());
        assert_eq!(compare("a\n", Mode::Propose), differs(None, true));
        assert!(!path.exists());
        accept(&path).unwrap();
        assert_eq!(compare("a", Mode::Frozen), Compared::Same);
        assert_eq!(compare("b", Mode::Propose), differs(Some("a\n"), true));
        assert_eq!(compare("a", Mode::Propose), Compared::Same);
        assert!(!pending(&path).exists(), "what was proposed is out of date");
        assert_eq!(compare("b", Mode::Accept), Compared::Accepted);
        assert_eq!(read(&path).unwrap().as_deref(), Some("b\n"));
        assert_eq!(unreferenced(folder.path(), "a", &[]), vec![path.clone()]);
        assert!(unreferenced(folder.path(), "a", std::slice::from_ref(&path)).is_empty());
        assert!(unreferenced(folder.path(), "other", &[]).is_empty());
    }

    #[test]
    fn a_body_may_hold_rules_of_its_own() {
        let text = render(&header(), "a\n---\nb\n");
        assert_eq!(body(&text), "a\n---\nb\n");
    }

    /// What `insta` makes of a snapshot of ours: a header that it can read and the same body, or its assertion fails.
    #[test]
    fn insta_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = insta::Settings::new();
        settings.set_snapshot_path(folder.path());
        settings.set_prepend_module_to_snapshot(false);
        let names = [
            "says \"no\": often",
            "null",
            "12",
            "- a # b",
            "größer: \u{1F600} \\ 'x' {y} [z] & *",
            "two\nlines\ttab",
            "@x",
            "a",
        ];
        for name in names {
            let header = Header {
                script: format!("folder/{name}.pipe"),
                test: name.into(),
                stream: name.into(),
                schema: Some(format!("`{name}`: int?")),
                rows: Some(1),
            };
            let text = render(&header, "id   | name\nint? | string\n\n1    | \"a: b\"\n");
            fs::write(folder.path().join("paid.snap"), &text).unwrap();
            settings.bind(|| insta::assert_snapshot!("paid", "id   | name\nint? | string\n\n1    | \"a: b\""));
            assert!(!folder.path().join("paid.snap.new").exists(), "{text}");
        }
    }
}
