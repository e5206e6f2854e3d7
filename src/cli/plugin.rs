//! `standpipe plugin`: what a library is, which ones the project trusts.

use super::new::{Language, new};
use super::{FAILED, fail, files, print_data, say};
use clap::Subcommand;
use serde_json::Value as Json;
use standpipe::plugin::{LOCK_FILE, Lock, Note, NoteStage, PROJECT_FILE, Plugins, Project, Refusal, Verified, verify};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// Show what a library brings, without running any of it
    Inspect {
        /// The library
        file: PathBuf,
    },
    /// Trust the project's plugins as they are now: write `standpipe.lock`
    Lock {
        /// Change nothing; exit status 1 if the lock is not up to date
        #[arg(long)]
        check: bool,
    },
    /// The project's plugins, and why one is refused
    List,
    /// Try out what a library promises: every stage, every check, each in a process of its own
    ///
    /// Arguments and rows come from the examples in the library's description (`EXAMPLES` of a stage, `example` of a function; in C
    /// "examples" in SP_NOTE), and are made up from the declared types. A stage that needs special arguments needs an example.
    Test(super::plugin_test::TestArgs),
    /// Write a plugin that builds, is tested and runs, to start from
    New {
        /// Its name, and the folder's
        name: String,
        #[arg(long, value_enum, default_value = "rust")]
        lang: Language,
        /// Where the SDK for Rust is [default: beside this program's sources, else the registry's]
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
}

pub(super) fn run(command: &PluginCommand) -> u8 {
    match command {
        PluginCommand::Inspect { file } => inspect(file),
        PluginCommand::Lock { check } => lock(*check),
        PluginCommand::List => list(),
        PluginCommand::Test(args) => super::plugin_test::test(args),
        PluginCommand::New { name, lang, sdk } => new(name, *lang, sdk.as_deref()),
    }
}

pub(super) fn refused(refusal: &Refusal) -> u8 {
    let help = refusal.help.iter().map(|help| format!("\n  = help: {help}"));
    say(&format!(
        "error[{}]: {}{}",
        refusal.code,
        refusal.message,
        help.collect::<String>()
    ));
    FAILED
}

fn inspect(file: &Path) -> u8 {
    let verified = match Verified::read(file, None) {
        Ok(verified) => verified,
        Err(refusal) => return refused(&refusal),
    };
    let status = match verified.runs_here() {
        Ok(()) => 0,
        Err(refusal) => refused(&refusal),
    };
    let mut out = match &verified.note {
        Some(note) => described(note),
        None => "The library carries no description.\n".to_owned(),
    };
    let _ = writeln!(out, "\nsha256 {}", verified.sha256);
    print_data(out.as_bytes()).max(status)
}

fn described(note: &Note) -> String {
    let mut out = format!("{} {}\n", note.id, note.version);
    let [major, minor] = note.abi;
    let target = note
        .target
        .as_ref()
        .map(|target| format!(", {target}"))
        .unwrap_or_default();
    let license = match note.license.as_str() {
        "" => String::new(),
        license => format!(", {license}"),
    };
    let _ = writeln!(out, "ABI {major}.{minor}{target}{license}");
    let _ = writeln!(out, "in scripts: use plugin {}", note.name());
    for stage in &note.stages {
        let _ = writeln!(out, "\n{} {}{}", stage.kind, note.name(), usage(stage));
        if !stage.about.is_empty() {
            let _ = writeln!(out, "  {}", stage.about.trim_end_matches('.'));
        }
        arguments(&stage.params, &mut out);
        for example in &stage.examples {
            let mut lines = example.lines();
            let _ = writeln!(out, "  example: {}", lines.next().unwrap_or_default());
            for line in lines {
                let _ = writeln!(out, "           {line}");
            }
        }
    }
    out
}

/// `.haversine(lat1: float, …)`, `.locate ITEM, …`
fn usage(stage: &NoteStage) -> String {
    let mut out = format!(".{}", stage.name);
    if let Some(params) = stage.params.get("params").and_then(Json::as_array) {
        let shown: Vec<String> = params
            .iter()
            .map(|param| {
                let default = text(param, "default").map(|d| format!(" = {d}")).unwrap_or_default();
                format!(
                    "{}: {}{default}",
                    text(param, "name").unwrap_or("?"),
                    text(param, "type").unwrap_or("any")
                )
            })
            .collect();
        let _ = write!(out, "({})", shown.join(", "));
        if let Some(returns) = text(&stage.params, "returns") {
            let _ = write!(out, " -> {returns}");
        }
    }
    out
}

fn text<'j>(json: &'j Json, key: &str) -> Option<&'j str> {
    json.get(key).and_then(Json::as_str)
}

/// What a stage takes, an argument a line.
fn arguments(params: &Json, out: &mut String) {
    for key in ["items", "by", "on"] {
        if let Some(items) = params.get(key) {
            let about = text(items, "about").unwrap_or("");
            let kind = items.get("arg").map(shown).unwrap_or_default();
            let _ = writeln!(out, "  {key:12} {kind:14} {about}");
        }
    }
    for option in params.get("options").and_then(Json::as_array).into_iter().flatten() {
        let name = format!("{}:", text(option, "name").unwrap_or("?"));
        let kind = option.get("arg").map(shown).unwrap_or_default();
        let about = text(option, "about").unwrap_or("");
        let default = match text(option, "default") {
            Some(default) => format!(" (default {default})"),
            None if option.get("required") == Some(&Json::Bool(true)) => " (required)".into(),
            None => String::new(),
        };
        let _ = writeln!(out, "  {name:12} {kind:14} {about}{default}");
    }
}

fn shown(arg: &Json) -> String {
    match arg {
        Json::String(text) => text.clone(),
        Json::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn project() -> Result<Project, u8> {
    match Project::find(Path::new("")) {
        Ok(Some(project)) => Ok(project),
        Ok(None) => Err(fail(&format!(
            "there is no `{PROJECT_FILE}` here or above; `[plugins.NAME]` and `path = \"…\"` in it name a plugin"
        ))),
        Err(refusal) => Err(refused(&refusal)),
    }
}

fn lock(check: bool) -> u8 {
    let project = match project() {
        Ok(project) => project,
        Err(status) => return status,
    };
    let mut lock = Lock::default();
    let mut status = 0;
    for (name, entry) in &project.plugins {
        let verified = verify(&project, name, entry).and_then(|verified| verified.runs_here().map(|()| verified));
        match verified {
            Ok(verified) => lock.plugins.push(verified.locked(name)),
            Err(refusal) => status = status.max(refused(&refusal)),
        }
    }
    if status > 0 {
        return status;
    }
    let before = match project.lock() {
        Ok(before) => before,
        Err(refusal) => return refused(&refusal),
    };
    if before.plugins == lock.plugins {
        say(&format!("{LOCK_FILE} is up to date"));
        return 0;
    }
    for locked in &lock.plugins {
        match before.get(&locked.name) {
            Some(old) if old == locked => {}
            Some(_) => say(&format!("changed: {} {}", locked.name, locked.version)),
            None => say(&format!("new: {} {}", locked.name, locked.version)),
        }
    }
    for gone in before.plugins.iter().filter(|old| lock.get(&old.name).is_none()) {
        say(&format!("gone: {}", gone.name));
    }
    if check {
        say(&format!(
            "{LOCK_FILE} is not up to date; `standpipe plugin lock` makes it so"
        ));
        return FAILED;
    }
    match files::replace(&project.folder.join(LOCK_FILE), lock.text().as_bytes()) {
        Ok(()) => 0,
        Err(message) => {
            say(&format!("error: {message}"));
            FAILED
        }
    }
}

fn list() -> u8 {
    let project = match project() {
        Ok(project) => project,
        Err(status) => return status,
    };
    let plugins = Plugins {
        paths: vec![],
        folder: project.folder.clone(),
        worker: None,
    };
    let (mut out, mut status) = (String::new(), 0);
    let width = project.plugins.keys().map(String::len).max().unwrap_or(0);
    for (name, entry) in &project.plugins {
        let path = entry.path.display();
        match plugins.verified(name) {
            Ok(verified) => {
                let version = verified.note.as_ref().map_or("", |note| note.version.as_str());
                let isolated = verified
                    .isolation
                    .map(|limits| format!("  {limits}"))
                    .unwrap_or_default();
                let _ = writeln!(out, "{name:width$}  {version:10} {path}{isolated}");
            }
            Err(refusal) => {
                status = FAILED;
                let _ = writeln!(
                    out,
                    "{name:width$}  {:10} {path}\n{:width$}  {}",
                    "refused", "", refusal.message
                );
                if let Some(help) = &refusal.help {
                    let _ = writeln!(out, "{:width$}  help: {help}", "");
                }
            }
        }
    }
    print_data(out.as_bytes()).max(status)
}
