//! Scripts with their tests, and one run of a test.
//!
//! A script and its file of tests are read as one text, one behind the other: so every span has one place, and what a diagnostic points
//! at is told by where it lies.

use super::judge::{self, Verdict};
use super::matrix::Setting;
use super::snapshot::Mode;
use crate::diag::{self, Diagnostic, FileId, Label, Source, Span};
use crate::engine::{EngineBuilder, Failure, TestRun};
use crate::runtime::settings::Hooks;
use crate::syntax::ast::{ItemKind, Test};
use crate::syntax::{self, Parsed};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What `now()` gives where a test does not say: 2000-01-01T00:00:00Z.
const NOW_MICROS: i64 = 946_684_800_000_000;
/// How the name of a file of tests ends.
const ENDING: &str = "_test.pipe";

/// A script, its tests, and where they are.
pub struct Script {
    /// As shown.
    pub name: String,
    /// Its file name without the ending.
    pub stem: String,
    /// Where it is; snapshots and files of its tests are beside it.
    pub folder: PathBuf,
    script: Source,
    tests: Option<Source>,
    /// Both texts.
    text: String,
    parsed: Parsed,
}

/// The scripts below `path` that may have tests: a file by itself, all of a folder. A file of tests stands for its script.
///
/// # Errors
/// A path that is not there or cannot be read.
pub fn find(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        fs::metadata(path)?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        return Ok(vec![match name.strip_suffix(ENDING) {
            Some(stem) => path.with_file_name(format!("{stem}.pipe")),
            None => path.to_owned(),
        }]);
    }
    let mut found = vec![];
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if name.ends_with(".pipe") && !name.ends_with(ENDING) {
                found.push(path);
            } else if let Some(stem) = name.strip_suffix(ENDING) {
                // Tests without a script are said so when the script is opened.
                found.push(path.with_file_name(format!("{stem}.pipe")));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

impl Script {
    /// Reads a script and its file of tests.
    ///
    /// # Errors
    /// A file that cannot be read; a text for people.
    pub fn open(path: &Path) -> Result<Script, String> {
        let read = |path: &Path| match fs::read(path) {
            Ok(bytes) => match syntax::decode(&bytes) {
                Ok(text) => Ok(Some(text.to_string())),
                Err(diagnostic) => Err(format!("{}: {}", path.display(), diagnostic.message)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        };
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let tests_path = path.with_file_name(format!("{stem}{ENDING}"));
        let tests = read(&tests_path)?;
        let script = read(path)?.ok_or_else(|| match &tests {
            Some(_) => format!("{} has no script {}", tests_path.display(), path.display()),
            None => format!("{} is not there", path.display()),
        })?;
        let tests = tests.map(|text| Source::new(tests_path.display().to_string(), text));
        Ok(Script::new(
            &path.display().to_string(),
            &stem,
            path.parent().unwrap_or(Path::new("")),
            script,
            tests,
        ))
    }

    /// A script whose texts are at hand.
    pub fn new(name: &str, stem: &str, folder: &Path, mut script: String, tests: Option<Source>) -> Script {
        if !script.ends_with('\n') {
            script.push('\n');
        }
        let text = match &tests {
            Some(tests) => format!("{script}{}", tests.text),
            None => script.clone(),
        };
        let mut parsed = syntax::parse(&text);
        let mut wrong = vec![];
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        for item in &parsed.script.items {
            let ItemKind::Test(test) = &item.kind else {
                if item.span.start as usize >= script.len() {
                    wrong.push(
                        Diagnostic::error("E1005", item.span, "only tests stand in a file of tests")
                            .labelled("this belongs into the script"),
                    );
                }
                continue;
            };
            if let Some(earlier) = seen.insert(slug(&test.name.value), test.name.span) {
                wrong.push(
                    Diagnostic::error(
                        "E0201",
                        test.name.span,
                        format!("the test {:?} is defined twice", test.name.value),
                    )
                    .labelled("the second")
                    .also(earlier, "the first; names of tests differ in a letter or a digit"),
                );
            }
        }
        parsed.diagnostics.extend(wrong);
        parsed.diagnostics.sort_by_key(|d| d.primary.span.start);
        Script {
            name: name.to_owned(),
            stem: stem.to_owned(),
            folder: folder.to_owned(),
            script: Source::new(name, script),
            tests,
            text,
            parsed,
        }
    }

    /// Its tests in the order of the text.
    pub fn tests(&self) -> Vec<&Test> {
        let items = self.parsed.script.items.iter();
        let tests = items.filter_map(|item| match &item.kind {
            ItemKind::Test(test) => Some(test),
            _ => None,
        });
        tests.collect()
    }

    /// Whether somebody wrote tests for it, even if they cannot be read.
    pub fn means_tests(&self) -> bool {
        let begins = |line: &str| line.starts_with("test ") || line.starts_with("test\"");
        self.tests.is_some() || self.text.lines().any(begins)
    }

    /// Whether something keeps all of its tests from running.
    pub fn is_wrong(&self) -> bool {
        self.parsed.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// What keeps all of its tests from running; empty if nothing does.
    pub fn mistakes(&self, colour: bool) -> String {
        let errors: Vec<Diagnostic> = self
            .parsed
            .diagnostics
            .iter()
            .filter(|d| d.is_error())
            .cloned()
            .collect();
        self.render(&errors, colour)
    }

    /// Diagnostics, each with the file that it points into.
    pub fn render(&self, diagnostics: &[Diagnostic], colour: bool) -> String {
        let at = self.script.text.len();
        let placed = |label: &Label| {
            let mut label = label.clone();
            if self.tests.is_some() && label.span.start as usize >= at {
                label.file = FileId(1);
                label.span = Span::new(
                    label.span.start as usize - at,
                    (label.span.end as usize).saturating_sub(at),
                );
            }
            label
        };
        let moved: Vec<Diagnostic> = (diagnostics.iter())
            .map(|diagnostic| {
                let mut moved = diagnostic.clone();
                moved.primary = placed(&diagnostic.primary);
                moved.labels = diagnostic.labels.iter().map(placed).collect();
                moved
            })
            .collect();
        let sources: Vec<Source> = std::iter::once(self.script.clone()).chain(self.tests.clone()).collect();
        diag::render_all(&moved, &sources, colour)
    }

    /// `orders_test.pipe:12`
    pub fn place(&self, span: Span) -> String {
        let at = self.script.text.len();
        let (source, start) = match &self.tests {
            Some(tests) if span.start as usize >= at => (tests, span.start as usize - at),
            _ => (&self.script, span.start as usize),
        };
        format!("{}:{}", source.name, diag::line_column(&source.text, start).0)
    }

    /// The text of a step on one line, for reports.
    pub fn quote(&self, span: Span) -> String {
        let text = self.text.get(span.range()).unwrap_or("");
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(60) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None => line,
        }
    }

    /// The file of a snapshot of one of its tests.
    pub fn snapshot(&self, test: &str, key: &str) -> PathBuf {
        let what = if key == "\"-\"" {
            "printed".to_owned()
        } else {
            slug(key)
        };
        let name = format!("{}__{}__{what}.snap", slug(&self.stem), slug(test));
        self.folder.join("snapshots").join(name)
    }

    /// Runs a test once.
    ///
    /// # Errors
    /// There is no folder for it.
    pub fn once(&self, test: &Test, engine: EngineBuilder, setting: &Setting) -> io::Result<TestRun> {
        let scratch = tempfile::Builder::new().prefix("standpipe-test-").tempdir()?;
        let hooks = Hooks {
            chunk_rows: setting.chunk_rows,
            spill_rows: setting.spill_rows,
            poison: setting.poison,
            ..Hooks::default()
        };
        // Files, too, are read in pieces, so that there is something to do for every worker.
        let engine = match setting.chunk_rows {
            Some(rows) => engine.chunk_bytes(rows.saturating_mul(48)),
            None => engine,
        };
        let engine = engine
            .workers(setting.workers)
            .hooks(hooks)
            .now_micros(NOW_MICROS)
            .spill_dir(scratch.path())
            .sync(false)
            .say(std::sync::Arc::new(|_: &str| {}))
            .build();
        let pipeline = engine.open(&self.name, &self.text);
        Ok(pipeline.test(&self.parsed, test, &self.folder, scratch.path()))
    }

    /// Runs a test and says whether all is as it expects; under many settings if `matrix`.
    pub fn run(&self, test: &Test, engine: &EngineMaker<'_>, mode: Mode, matrix: bool) -> Verdict {
        let started = std::time::Instant::now();
        let plain = Setting::plain();
        let mut verdict = match self.once(test, engine(), &plain) {
            Err(error) => Verdict::broken(format!("cannot make a folder for the test: {error}")),
            Ok(run) => {
                let mut verdict = judge::judge(self, test, &run, mode);
                if matrix && !matches!(&run.outcome, Err(Failure::Script(_))) {
                    verdict
                        .faults
                        .extend(super::matrix::differences(self, test, engine, &run));
                }
                verdict
            }
        };
        verdict.elapsed = started.elapsed();
        verdict
    }

    /// What a failure says, with places in the files of the script.
    pub(super) fn explain(&self, failure: &Failure, colour: bool) -> String {
        match failure {
            Failure::Script(problems) => self.render(&problems.diagnostics, colour),
            Failure::Run(error) => error.render(colour),
        }
    }
}

/// Makes an engine that knows where plugins are; tests set the rest.
pub type EngineMaker<'e> = dyn Fn() -> EngineBuilder + Sync + 'e;

/// A name for a part of a file name: letters, digits and `_`.
pub(super) fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
    let text: String = name.chars().map(plain).collect();
    let text = text
        .split('_')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("_");
    // Names of files end somewhere.
    text.chars().take(80).collect()
}
