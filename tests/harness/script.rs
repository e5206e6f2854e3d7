//! Runs one script in a folder of its own and gives everything of it that can be seen from outside.
//!
//! Laws
//! - The clock stands still, paths are relative to the folder: what is seen is the same on every machine.
//! - A last pipeline without a sink is written to a file, so that its bytes are seen like those of any other output.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use standpipe::engine::{Engine, EngineBuilder, Failure, Pipeline};
use standpipe::runtime::settings::Hooks;
use standpipe::syntax::{self, ast};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// 2026-01-31T12:00:00Z
const NOW_MICROS: i64 = 1_769_860_800_000_000;
/// The file of the pipeline without a sink.
pub(crate) const PRINTED: &str = "(printed)";

/// A script with what it is run with.
pub(crate) struct Script {
    /// `family/case`.
    pub(crate) name: String,
    pub(crate) text: String,
    /// Where its paths start.
    pub(crate) folder: PathBuf,
    /// Where it writes.
    pub(crate) out: PathBuf,
    pub(crate) params: Vec<(String, String)>,
}

/// How it is run.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) workers: usize,
    pub(crate) chunk_bytes: usize,
    pub(crate) hooks: Hooks,
}

impl Setting {
    /// Two workers, chunks as usual.
    pub(crate) fn usual() -> Setting {
        Setting {
            name: "usual".into(),
            workers: 2,
            chunk_bytes: 256 << 10,
            hooks: Hooks::default(),
        }
    }
}

/// What can be seen.
#[derive(Default, PartialEq)]
pub(crate) struct Seen {
    /// What the check says: errors, or warnings.
    pub(crate) checked: String,
    /// Empty if the script cannot be run.
    pub(crate) explained: String,
    /// Bytes by path.
    pub(crate) outputs: BTreeMap<String, Vec<u8>>,
    /// What `tap` said.
    pub(crate) said: String,
    /// Why the run failed.
    pub(crate) failed: String,
    /// `cast: 3 bad rows` for each stage that had some, and what the run notes.
    pub(crate) counts: Vec<String>,
}

impl Script {
    /// `# -p name=value` lines give parameters.
    pub(crate) fn new(name: &str, text: String, folder: &Path) -> Script {
        let given = text
            .lines()
            .filter_map(|line| line.strip_prefix("# -p ")?.split_once('='));
        let params = given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Script {
            name: name.into(),
            text,
            folder: folder.into(),
            out: folder.join("out"),
            params,
        }
    }

    fn engine(&self, said: &Arc<Mutex<String>>) -> EngineBuilder {
        let said = said.clone();
        let engine = Engine::builder();
        // A memory set here wins over the script's own.
        let engine = if self.text.contains("@budget(memory:") {
            engine
        } else {
            engine.memory_bytes(64 << 20)
        };
        engine
            .folder(&self.folder)
            .sync(false)
            .now_micros(NOW_MICROS)
            .say(Arc::new(move |text| said.lock().unwrap().push_str(text)))
    }

    fn compile(&self, engine: &Engine, text: &str) -> Result<Pipeline, String> {
        let name = format!("{}.pipe", self.name.rsplit('/').next().unwrap_or(&self.name));
        let mut pipeline = engine.compile(&name, text).map_err(|problems| problems.render(false))?;
        for (name, value) in &self.params {
            pipeline.param_text(name, value);
        }
        Ok(pipeline)
    }

    /// What `check` and `explain` say.
    pub(crate) fn check(&self) -> Seen {
        self.check_with(Hooks::default())
    }

    /// The same where graphs are made under some hooks.
    pub(crate) fn check_with(&self, hooks: Hooks) -> Seen {
        let mut seen = Seen::default();
        match self.compile(&self.engine(&Arc::default()).hooks(hooks).build(), &self.text) {
            Ok(pipeline) => {
                seen.checked = pipeline.render_warnings(false);
                match pipeline.explain() {
                    Ok(text) => seen.explained = text,
                    Err(problems) => seen.checked = problems.render(false),
                }
            }
            Err(problems) => seen.checked = problems,
        }
        seen
    }

    /// The text with a sink for the pipeline that lacks one.
    fn printing(&self) -> String {
        let parsed = syntax::parse(&self.text);
        let last = parsed.script.items.iter().rev().find_map(|item| match &item.kind {
            ast::ItemKind::Pipeline(pipeline) => Some(pipeline),
            _ => None,
        });
        let ends = |name: &str| matches!(name, "write" | "route");
        match last {
            Some(pipeline)
                if !pipeline
                    .stages
                    .last()
                    .is_some_and(|s| s.name.iter().any(|n| ends(&n.text))) =>
            {
                let (before, behind) = self.text.split_at(pipeline.span.end as usize);
                let path = self.out.join(PRINTED).display().to_string();
                format!(
                    "{before}\n  | write csv {path:?}\n{}",
                    behind.strip_prefix('\n').unwrap_or(behind)
                )
            }
            _ => self.text.clone(),
        }
    }

    /// What the run leaves behind.
    pub(crate) fn run(&self, setting: &Setting) -> Seen {
        let said = Arc::<Mutex<String>>::default();
        let _ = std::fs::remove_dir_all(&self.out);
        std::fs::create_dir_all(&self.out).unwrap();
        let engine = self
            .engine(&said)
            .workers(setting.workers)
            .chunk_bytes(setting.chunk_bytes);
        let mut seen = Seen::default();
        match self.compile(&engine.hooks(setting.hooks.clone()).build(), &self.printing()) {
            Err(problems) => seen.failed = problems,
            Ok(mut pipeline) => match pipeline.run() {
                Ok(report) => {
                    let count =
                        |rows: u64, what: &str, name: &str| (rows > 0).then(|| format!("{name}: {rows} {what}"));
                    for stage in &report.stages {
                        seen.counts.extend(count(stage.bad_rows, "bad rows", &stage.name));
                        seen.counts
                            .extend(count(stage.discarded_rows, "rows discarded", &stage.name));
                    }
                    seen.counts.extend(report.notes);
                }
                Err(Failure::Script(problems)) => seen.failed = problems.render(false),
                Err(Failure::Run(error)) => seen.failed = error.render(false),
            },
        }
        seen.said = said.lock().unwrap().clone();
        collect(&self.out, &self.out, &mut seen.outputs);
        seen
    }
}

fn collect(root: &Path, folder: &Path, outputs: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, outputs);
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            outputs.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// Bytes for a snapshot: unpacked, with carriage returns and what is no text made visible.
pub(crate) fn visible(name: &str, bytes: &[u8]) -> String {
    use std::io::Read as _;
    let mut unpacked = vec![];
    let bytes = match name.rsplit('.').next() {
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(bytes)
                .read_to_end(&mut unpacked)
                .unwrap();
            &unpacked
        }
        Some("zst") => {
            unpacked = zstd::decode_all(bytes).unwrap();
            &unpacked
        }
        _ => bytes,
    };
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(
            &chunk
                .valid()
                .replace('\r', "␍")
                .replace('\0', "␀")
                .replace('\u{feff}', "(BOM)"),
        );
        chunk
            .invalid()
            .iter()
            .for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str("(no newline)\n");
    }
    text
}

/// The scripts of `tests/scripts`, each in a folder of its own below `root` that has the corpus' `data`.
pub(crate) fn corpus(root: &Path) -> Vec<Script> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut found = vec![];
    for family in sorted(&scripts) {
        let name = family.file_name().unwrap().to_string_lossy().into_owned();
        if name == "data" || !family.is_dir() {
            continue;
        }
        for path in sorted(&family)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "pipe"))
        {
            let case = path.file_stem().unwrap().to_string_lossy().into_owned();
            let folder = root.join(&name).join(&case);
            std::fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(scripts.join("data"), folder.join("data")).unwrap();
            found.push(Script::new(
                &format!("{name}/{case}"),
                std::fs::read_to_string(&path).unwrap(),
                &folder,
            ));
        }
    }
    found
}

/// The scripts of `examples`, which run from the root of the repository and write to a folder below `root`.
pub(crate) fn examples(root: &Path) -> Vec<Script> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    for path in sorted(&repository.join("examples")) {
        if path.extension().is_none_or(|end| end != "pipe") || path.to_string_lossy().ends_with("_test.pipe") {
            continue;
        }
        let case = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut script = Script::new(
            &format!("examples/{case}"),
            std::fs::read_to_string(&path).unwrap(),
            repository,
        );
        script.out = root.join(&case);
        if script.text.contains("param out") {
            script.params.push(("out".into(), script.out.display().to_string()));
        }
        found.push(script);
    }
    found
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}
