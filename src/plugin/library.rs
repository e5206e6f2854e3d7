//! From a name to a loaded library: found, verified, loaded; or refused, with the reason and a way out.
//!
//! Laws
//! - Nothing of a library runs before its file is verified: constructors run on load, so the hash comes first.
//! - The bytes that were hashed are the bytes that are loaded: they are read once, and written to a private copy that is opened.
//! - No search: the project file or the caller says where a library is.
//! - A loaded library stays for the life of the program, whoever asks for it again.
#![allow(unsafe_code)]

use super::elf::{self, Problem};
use super::isolate::{self, Isolation};
use super::note::{self, Note};
use super::project::{Entry, LOCK_FILE, Locked, PROJECT_FILE, Project};
use super::{Contents, DOES_NOT_LOAD, NOT_FOUND, NOT_TRUSTED, WRONG_ABI, contents_of, is_name, text};
use crate::expr::{AggregateSpec, FunctionSpec};
use sha2::{Digest, Sha256};
use standpipe_sdk::Code;
use standpipe_sdk::ffi;
use standpipe_sdk::spec::StageSpec;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The longest library that is read, in bytes.
const MOST: u64 = 1 << 30;

/// Why a plugin is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    pub help: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Refusal {
        self.help = Some(help.into());
        self
    }

    /// A file that is not trusted, and that trusting would not help: `plugin lock` refuses it for the other reason.
    fn and(self, unloadable: Refusal) -> Refusal {
        let help = unloadable
            .help
            .map(|help| format!("{help}; then `standpipe plugin lock`"));
        Refusal {
            code: self.code,
            message: format!(
                "{}; it could not be loaded anyway: {}",
                self.message, unloadable.message
            ),
            help: help.or(self.help),
        }
    }
}

/// A loaded plugin.
pub struct Library {
    /// What scripts call it.
    pub name: String,
    pub version: String,
    pub sha256: String,
    /// The limits of its processes, if it runs in such.
    pub isolation: Option<Isolation>,
    contents: Contents,
}

impl Library {
    /// The stage `name`, without the plugin's name.
    pub fn stage(&self, name: &str) -> Option<&'static StageSpec> {
        let mut stages = self.contents.stages.iter().copied();
        stages.find(|spec| bare(spec.name) == name)
    }

    /// The function `name`, without the plugin's name.
    pub fn function(&self, name: &str) -> Option<&'static FunctionSpec> {
        let mut functions = self.contents.functions.iter().copied();
        functions.find(|spec| bare(spec.name) == name)
    }

    /// The aggregate `name`, without the plugin's name.
    pub fn aggregate(&self, name: &str) -> Option<&'static AggregateSpec> {
        let mut aggregates = self.contents.aggregates.iter().copied();
        aggregates.find(|spec| bare(spec.name) == name)
    }

    /// The bare names of all aggregates.
    pub fn aggregates(&self) -> impl Iterator<Item = &'static str> {
        self.contents.aggregates.iter().map(|spec| bare(spec.name))
    }

    /// The source `name`, without the plugin's name.
    pub fn source(&self, name: &str) -> Option<&'static StageSpec> {
        let mut sources = self.contents.sources.iter().copied();
        sources.find(|spec| bare(spec.name) == name)
    }

    /// The bare names of all sources.
    pub fn sources(&self) -> impl Iterator<Item = &'static str> {
        self.contents.sources.iter().map(|spec| bare(spec.name))
    }

    /// The sink `name`, without the plugin's name.
    pub fn sink(&self, name: &str) -> Option<&'static StageSpec> {
        let mut sinks = self.contents.sinks.iter().copied();
        sinks.find(|spec| bare(spec.name) == name)
    }

    /// The bare names of all sinks.
    pub fn sinks(&self) -> impl Iterator<Item = &'static str> {
        self.contents.sinks.iter().map(|spec| bare(spec.name))
    }

    /// The bare names of all stages.
    pub fn stages(&self) -> impl Iterator<Item = &'static str> {
        self.contents.stages.iter().map(|spec| bare(spec.name))
    }

    /// The bare names of all functions.
    pub fn functions(&self) -> impl Iterator<Item = &'static str> {
        self.contents.functions.iter().map(|spec| bare(spec.name))
    }
}

/// `locate` of `geo.locate`.
fn bare(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Where plugins may come from.
#[derive(Clone, Debug, Default)]
pub struct Plugins {
    /// Libraries that the caller names: trusted by being named.
    pub paths: Vec<PathBuf>,
    /// Where the project is looked for, from here upwards.
    pub folder: PathBuf,
    /// The program that the processes of isolated plugins are: one that gives its first argument [`super::WORKER_COMMAND`] to
    /// [`super::work`].
    pub worker: Option<PathBuf>,
}

impl Plugins {
    /// The plugin `name`, of a version that `wanted` allows.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn open(&self, name: &str, wanted: Option<&str>) -> Result<&'static Library, Refusal> {
        let wanted = wanted.map(|text| {
            semver::VersionReq::parse(text).map_err(|e| {
                Refusal::new(WRONG_ABI, format!("`{text}` says no versions: {e}"))
                    .help("`\">=1.2, <2\"`, `\"^1.4\"`, `\"=1.0.3\"`")
            })
        });
        let wanted = wanted.transpose()?;
        let verified = self.verified(name)?;
        if let (Some(wanted), Some(note)) = (&wanted, &verified.note) {
            suits(name, wanted, &note.version)?;
        }
        let library = load(name, &verified, self.worker.as_deref())?;
        if let Some(wanted) = &wanted {
            suits(name, wanted, &library.version)?;
        }
        Ok(library)
    }

    /// The file of the plugin `name`, found and seen to be trusted; nothing of it has run.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn verified(&self, name: &str) -> Result<Verified, Refusal> {
        for path in &self.paths {
            let verified = Verified::read(path, None)?;
            // Before its name is asked for: a file that is cut off has lost its description, and with it its name.
            verified.runs_here()?;
            if verified.name() == name {
                return Ok(verified);
            }
        }
        let Some(project) = Project::find(&self.folder)? else {
            return Err(
                Refusal::new(NOT_FOUND, format!("plugin `{name}` not found: there is no `{PROJECT_FILE}` here or above"))
                    .help(format!("`[plugins.{name}]` and `path = \"…\"` in `{PROJECT_FILE}`, then `standpipe plugin lock`; or `--plugin PATH`")),
            );
        };
        let Some(entry) = project.plugins.get(name) else {
            let near = crate::diag::suggest(name, project.plugins.keys().map(String::as_str));
            let near = near.map(|near| format!("; `{near}` is close")).unwrap_or_default();
            return Err(Refusal::new(
                NOT_FOUND,
                format!("plugin `{name}` not found in `{PROJECT_FILE}`{near}"),
            )
            .help(format!(
                "`[plugins.{name}]` and `path = \"…\"` there, then `standpipe plugin lock`"
            )));
        };
        let verified = verify(&project, name, entry)?;
        let locked = project.lock()?;
        let runs = verified.runs_here();
        match trusted(name, &verified, locked.get(name)) {
            Ok(()) => runs.map(|()| verified),
            Err(untrusted) => Err(match runs {
                Ok(()) => untrusted,
                Err(refusal) => untrusted.and(refusal),
            }),
        }
    }
}

/// Reads the library of a project's plugin; whether it is trusted is another question.
///
/// # Errors
/// If it is not there or must not be read.
pub fn verify(project: &Project, name: &str, entry: &Entry) -> Result<Verified, Refusal> {
    if !is_name(name) {
        return Err(Refusal::new(DOES_NOT_LOAD, format!("`{name}` is no name for a plugin"))
            .help("small letters, digits and `_`"));
    }
    let isolation = entry
        .isolation()
        .map_err(|what| Refusal::new(DOES_NOT_LOAD, format!("plugin `{name}` in `{PROJECT_FILE}`: {what}")))?;
    let mut verified = Verified::read(
        &project.folder.join(&entry.path),
        Some(&project.folder).filter(|_| entry.path.is_relative()),
    )?;
    let own = verified.name();
    if verified.note.is_some() && own != name {
        return Err(Refusal::new(
            DOES_NOT_LOAD,
            format!("`{}` is the plugin `{own}`, not `{name}`", entry.path.display()),
        )
        .help(format!("`[plugins.{own}]` in `{PROJECT_FILE}`")));
    }
    verified.isolation = isolation;
    Ok(verified)
}

fn trusted(name: &str, verified: &Verified, locked: Option<&Locked>) -> Result<(), Refusal> {
    let shown = verified.path.display();
    let Some(locked) = locked else {
        return Err(
            Refusal::new(NOT_TRUSTED, format!("plugin `{name}` is not in `{LOCK_FILE}`")).help(format!(
                "`standpipe plugin inspect {shown}` shows what it is, `standpipe plugin lock` trusts it"
            )),
        );
    };
    if locked.sha256 != verified.sha256 {
        return Err(Refusal::new(
            NOT_TRUSTED,
            format!("plugin `{name}` is not the file that `{LOCK_FILE}` names: `{shown}` has changed"),
        )
        .help(format!(
            "`standpipe plugin inspect {shown}` shows what it is now, `standpipe plugin lock` trusts that"
        )));
    }
    Ok(())
}

fn suits(name: &str, wanted: &semver::VersionReq, version: &str) -> Result<(), Refusal> {
    match semver::Version::parse(version) {
        Ok(version) if wanted.matches(&version) => Ok(()),
        Ok(version) => Err(Refusal::new(
            WRONG_ABI,
            format!("plugin `{name}` is version {version}, the script wants `{wanted}`"),
        )),
        Err(_) => Err(Refusal::new(
            WRONG_ABI,
            format!("plugin `{name}` says no version that can be compared: `{version}`"),
        )),
    }
}

/// A library's file, read and looked at; nothing of it has run.
pub struct Verified {
    pub path: PathBuf,
    pub sha256: String,
    pub note: Option<Note>,
    /// The limits of its processes, if the project wants such.
    pub isolation: Option<Isolation>,
    bytes: Vec<u8>,
}

impl Verified {
    /// Reads a file. `inside`: the folder that it must lie in.
    ///
    /// # Errors
    /// If it is not there, could be changed by anyone, or lies elsewhere.
    pub fn read(path: &Path, inside: Option<&PathBuf>) -> Result<Verified, Refusal> {
        let shown = path.display();
        let cannot =
            |error: std::io::Error| Refusal::new(NOT_FOUND, format!("cannot read the plugin `{shown}`: {error}"));
        let real = path.canonicalize().map_err(cannot)?;
        if let Some(folder) = inside
            && !real.starts_with(folder)
        {
            return Err(Refusal::new(
                NOT_TRUSTED,
                format!("the plugin `{shown}` leads out of the project, to `{}`", real.display()),
            )
            .help(way_in(path, &real, folder)));
        }
        let file = open(&real).map_err(cannot)?;
        let about = file.metadata().map_err(cannot)?;
        if !about.is_file() {
            return Err(Refusal::new(DOES_NOT_LOAD, format!("the plugin `{shown}` is no file")));
        }
        not_for_anyone(&about, &format!("the plugin `{shown}`"), &real)?;
        if about.len() > MOST {
            return Err(Refusal::new(
                DOES_NOT_LOAD,
                format!("the plugin `{shown}` is too large"),
            ));
        }
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).map_err(cannot)?;
        let digest = Sha256::digest(&bytes);
        let sha256 = digest.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        });
        Ok(Verified {
            path: real,
            sha256,
            note: note::find(&bytes),
            isolation: None,
            bytes,
        })
    }

    /// What scripts call it: the description's word, or the file's.
    pub fn name(&self) -> String {
        if let Some(note) = &self.note {
            return note.name().to_owned();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        stem.strip_prefix("lib").unwrap_or(&stem).replace('-', "_")
    }

    /// Whether this program can load it.
    ///
    /// # Errors
    /// Another machine, another ABI, no plugin at all.
    pub fn runs_here(&self) -> Result<(), Refusal> {
        let shown = self.path.display();
        let here = std::env::consts::ARCH;
        elf::check(&self.bytes).map_err(|problem| match problem {
            Problem::NotALibrary(what) => Refusal::new(DOES_NOT_LOAD, format!("the plugin `{shown}` is {what}"))
                .help("a shared library for Linux: `cargo build --release` of a `cdylib`, or `cc -shared -fPIC`"),
            Problem::OtherMachine(other) => Refusal::new(
                WRONG_ABI,
                format!("the plugin `{shown}` is made for {other}, this is {here}"),
            )
            .help(format!(
                "`cargo build --release --target {here}-unknown-linux-gnu` builds it for this machine"
            )),
            Problem::Truncated => {
                Refusal::new(DOES_NOT_LOAD, format!("the plugin `{shown}` is cut off")).help("build or copy it again")
            }
            Problem::NoEntry => Refusal::new(
                DOES_NOT_LOAD,
                format!("the library `{shown}` is no plugin: it has no `{}`", ffi::ENTRY_SYMBOL),
            )
            .help("`standpipe plugin new` writes one that has it"),
            Problem::OtherAbi(version) => Refusal::new(
                WRONG_ABI,
                format!(
                    "the plugin `{shown}` is made for version {version} of the plugin ABI, this is {}",
                    ffi::ABI_MAJOR
                ),
            )
            .help("build it with the SDK of this version"),
        })?;
        match &self.note {
            Some(note) if note.abi[0] != ffi::ABI_MAJOR => Err(Refusal::new(
                WRONG_ABI,
                format!(
                    "the plugin `{shown}` is made for version {} of the plugin ABI, this is {}",
                    note.abi[0],
                    ffi::ABI_MAJOR
                ),
            )
            .help("build it with the SDK of this version")),
            _ => Ok(()),
        }
    }

    /// What the lock says of it.
    pub fn locked(&self, name: &str) -> Locked {
        let note = self.note.as_ref();
        let mut stages: Vec<String> = note
            .iter()
            .flat_map(|note| &note.stages)
            .map(|s| s.name.clone())
            .collect();
        stages.sort_unstable();
        Locked {
            name: name.to_owned(),
            version: note.map_or_else(String::new, |note| note.version.clone()),
            sha256: self.sha256.clone(),
            abi: note.map_or_else(String::new, |note| format!("{}.{}", note.abi[0], note.abi[1])),
            stages,
        }
    }
}

/// Not `File::open`: that waits for whoever writes to a named pipe.
pub(super) fn open(file: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)
}

/// Refuses a file that anyone can change: of a library or of what says which are trusted.
pub(super) fn not_for_anyone(about: &Metadata, what: &str, file: &Path) -> Result<(), Refusal> {
    if about.permissions().mode() & 0o002 == 0 {
        return Ok(());
    }
    let refusal = Refusal::new(NOT_TRUSTED, format!("anyone on this machine can change {what}"));
    Err(refusal.help(format!("`chmod o-w {}`", file.display())))
}

/// How a library that lies outside comes into the project.
fn way_in(path: &Path, real: &Path, folder: &Path) -> String {
    let (shown, real) = (path.display(), real.display());
    let beside = path.parent().and_then(|beside| beside.canonicalize().ok());
    if beside.is_some_and(|beside| beside.starts_with(folder)) {
        // Only its last word leads out: a link, whose place the file itself can take.
        return format!("`cp --remove-destination {real} {shown}`, or the whole path in `{PROJECT_FILE}`");
    }
    let name = Path::new(path.file_name().unwrap_or_default()).display();
    format!(
        "`cp {real} {}` and `path = \"{name}\"` in `{PROJECT_FILE}`, or `path = \"{real}\"`",
        folder.join(path.file_name().unwrap_or_default()).display()
    )
}

/// Name, hash and what limits its processes. The name is in all that a library says: the same file under another name is another plugin.
type Loaded = (String, String, Option<Isolation>);

/// Everything that was loaded.
static LOADED: Mutex<BTreeMap<Loaded, &'static Library>> = Mutex::new(BTreeMap::new());

/// Loads a verified library, once.
fn load(name: &str, verified: &Verified, worker: Option<&Path>) -> Result<&'static Library, Refusal> {
    // Held while it loads: two threads must not initialise one library.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (name.to_owned(), verified.sha256.clone(), verified.isolation);
    if let Some(library) = loaded.get(&key) {
        return Ok(library);
    }
    let cannot = |what: String| Refusal::new(DOES_NOT_LOAD, format!("the plugin `{name}` does not load: {what}"));
    let refused = |error: standpipe_sdk::Error| match error {
        standpipe_sdk::Error::Failed { code, message, .. } => {
            Refusal::new(code, format!("the plugin `{name}` does not load: {message}"))
        }
        other => cannot(other.to_string()),
    };
    let path = verified.path.to_string_lossy();
    let plugin = match verified.isolation {
        Some(isolation) => {
            let worker = worker.ok_or_else(|| {
                cannot("it is isolated, and there is no program for its processes".into())
                    .help("`Engine::builder().plugin_worker(PATH)`: the `standpipe` program, or one that calls `standpipe::plugin::work`")
            })?;
            isolate::open(&verified.bytes, &path, worker.to_path_buf(), isolation).map_err(refused)?
        }
        None => {
            let copy = private_copy(&verified.bytes).map_err(|e| cannot(format!("no private copy: {e}")))?;
            // SAFETY: the project trusts this very file: its hash is locked, or the caller named it; and it was seen to be a library
            // for this machine, whole, with our entry point.
            unsafe { entered(&copy).map_err(cannot)? }
        }
    };
    // SAFETY: a plugin keeps to the contract of the header: that is what the project trusts it with.
    let contents = unsafe { contents_of(plugin, &path, name) }.map_err(refused)?;
    // SAFETY: strings of a plugin are NULL or end with a NUL.
    let version = unsafe { text(plugin.version) }.unwrap_or("");
    let library: &'static Library = Box::leak(Box::new(Library {
        name: name.to_owned(),
        version: version.to_owned(),
        sha256: verified.sha256.clone(),
        isolation: verified.isolation,
        contents,
    }));
    loaded.insert(key, library);
    Ok(library)
}

/// Opens a library for good, and asks its entry for what it is.
///
/// # Errors
/// What the system's loader says, or that there is nothing.
///
/// # Safety
/// Loading runs the library's constructors: somebody trusts these very bytes. What the entry gives keeps to the header.
pub(super) unsafe fn entered(path: &Path) -> Result<&'static ffi::Plugin, String> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: the caller's promise. The handle is leaked, so the library is never unloaded.
    let entry = unsafe {
        let library = Library::open(Some(path.as_os_str()), RTLD_NOW | RTLD_LOCAL).map_err(|e| e.to_string())?;
        let library: &'static Library = Box::leak(Box::new(library));
        *library
            .get::<ffi::Entry>(ffi::ENTRY_SYMBOL.as_bytes())
            .map_err(|e| e.to_string())?
    };
    // SAFETY: the symbol is the entry function, by its name; it is pure, and what it gives lives as long as the library.
    unsafe { entry().as_ref() }.ok_or_else(|| "its entry gives nothing".into())
}

/// The bytes as a file that only this user can read and nobody can change; gone when dropped.
fn private_copy(bytes: &[u8]) -> std::io::Result<tempfile::TempPath> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("standpipe-plugin-").suffix(".so");
    builder.permissions(std::fs::Permissions::from_mode(0o500));
    let cache = cache_folder().filter(|folder| std::fs::create_dir_all(folder).is_ok());
    let in_cache = cache.map(|folder| builder.tempfile_in(folder));
    let mut copy = match in_cache {
        Some(Ok(copy)) => copy,
        _ => builder.tempfile()?,
    };
    copy.write_all(bytes)?;
    copy.flush()?;
    Ok(copy.into_temp_path())
}

fn cache_folder() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("standpipe"))
}
