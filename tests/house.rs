//! Keeps the house in order: floors, lists, and what may stand where.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from low to high. A room may use those of lower floors only; rooms of one floor never use each other.
const FLOORS: &[&[&str]] = &[
    &["diag"],
    &["syntax", "expr"],
    &["stages", "formats"],
    &["graph", "plugin"],
    &["compile", "runtime"],
    &["engine"],
    &["testing"],
    &["cli", "main", "lib"],
];

/// Files in which `unsafe` may stand, each with its argument.
const UNSAFE: &[&str] = &[
    "plugins/sdk/src/arena.rs",
    "plugins/sdk/src/build.rs",
    "plugins/sdk/src/counting.rs",
    "plugins/sdk/src/ffi.rs",
    "plugins/sdk/src/ffi/import.rs",
    "plugins/sdk/src/ffi/lend.rs",
    "plugins/sdk/src/ffi/schema.rs",
    "plugins/sdk/src/guest.rs",
    "plugins/sdk/src/guest/aggregate.rs",
    "plugins/sdk/src/guest/function.rs",
    "plugins/sdk/src/guest/sink.rs",
    "plugins/sdk/src/guest/source.rs",
    "plugins/sdk/src/guest/transform.rs",
    "plugins/sdk/src/kept.rs",
    "plugins/sdk/src/lib.rs",
    "plugins/sdk/src/text.rs",
    "plugins/sdk/src/interleave.rs",
    "src/cli/memory.rs",
    "src/expr/json/lexer.rs",
    "src/formats/csv/index/isa.rs",
    "src/formats/csv/read.rs",
    "src/formats/jsonl/decode.rs",
    "src/plugin.rs",
    "src/plugin/aggregate.rs",
    "src/plugin/aggregate/states.rs",
    "src/plugin/bind.rs",
    "src/plugin/conform/memory.rs",
    "src/plugin/conform/spy.rs",
    "src/plugin/conform/spy/aggregate.rs",
    "src/plugin/host.rs",
    "src/plugin/isolate/arrays.rs",
    "src/plugin/isolate/last_words.rs",
    "src/plugin/isolate/proxy.rs",
    "src/plugin/isolate/proxy/aggregate.rs",
    "src/plugin/isolate/proxy/bound.rs",
    "src/plugin/isolate/proxy/instance.rs",
    "src/plugin/isolate/proxy/serving.rs",
    "src/plugin/isolate/proxy/sink.rs",
    "src/plugin/isolate/proxy/source.rs",
    "src/plugin/isolate/serve.rs",
    "src/plugin/isolate/serve/call.rs",
    "src/plugin/isolate/serve/describe.rs",
    "src/plugin/isolate/serve/region.rs",
    "src/plugin/library.rs",
    "src/plugin/run.rs",
    "src/plugin/scalar.rs",
    "src/plugin/sink.rs",
    "src/plugin/source.rs",
];

fn files(folder: &str) -> Vec<PathBuf> {
    let mut out = vec![];
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// The room of a file under `src`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a text names as `crate::room`.
fn used(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = &list[..list.find("};").unwrap_or(list.len())];
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars().chain([',']) {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        let first = name.trim().split("::").next().unwrap_or_default().to_string();
                        rooms.insert(first);
                        name.clear();
                    }
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
        } else {
            rooms.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms.into_iter().filter(|room| floor(room).is_some()).collect()
}

#[test]
fn dependencies_point_down() {
    let mut wrong = vec![];
    for path in files("src") {
        let own = room(&path);
        let Some(here) = floor(&own) else {
            wrong.push(format!("{}: room `{own}` has no floor", path.display()));
            continue;
        };
        for other in used(&fs::read_to_string(&path).unwrap()) {
            if other != own && floor(&other).is_some_and(|there| there >= here) {
                wrong.push(format!("{} uses `{other}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_floor_is_read_from_every_form_of_use() {
    let rooms = |text: &str| used(text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(
        rooms("use crate::stages::take;\nfn f() { crate::graph::x() }"),
        "graph stages"
    );
    assert_eq!(rooms("use crate::{diag::{self, Code}, engine};"), "diag engine");
    assert_eq!(rooms("// crate::engine\nuse other_crate::engine;"), "");
}

#[test]
fn every_stage_and_format_is_listed() {
    let list = fs::read_to_string("src/stages/list.rs").unwrap();
    for path in files("src/stages") {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if text.contains("pub const SPEC: StageSpec") || text.contains("pub static SPEC: StageSpec") {
            assert!(
                list.contains(&format!("{name}::SPEC")),
                "`{name}` is not in src/stages/list.rs"
            );
        }
    }
    let specs = standpipe::stages::list::list();
    let names: BTreeSet<&str> = specs.iter().map(|s| s.name).collect();
    assert_eq!(names.len(), specs.len(), "a stage name stands twice");
    for spec in specs {
        assert!(
            !spec.about.is_empty() && !spec.about.ends_with('.'),
            "`{}` says nothing of itself",
            spec.name
        );
    }
    assert!(!standpipe::formats::list().is_empty());
}

#[test]
fn unsafe_code_stands_where_the_style_says() {
    for path in files("src").into_iter().chain(files("plugins/sdk/src")) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.to_string_lossy().replace('\\', "/");
        if name.ends_with("/tests.rs") {
            continue;
        }
        if text.contains("allow(unsafe_code)") {
            assert!(UNSAFE.contains(&name.as_str()), "{name} must do without unsafe code");
            assert!(text.contains("SAFETY"), "{name} gives no argument");
        }
    }
}

#[test]
fn the_top_level_is_what_the_design_says() {
    let allowed = [
        "Cargo.toml",
        "grammar",
        "src",
        "plugins",
        "examples",
        "tests",
        "README.md",
        "LICENSE",
        "Cargo.lock",
        "target",
        "proptest-regressions",
    ];
    for entry in fs::read_dir(".").unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let configuration = name.starts_with('.') || name == "rustfmt.toml" || name == "clippy.toml";
        assert!(
            configuration || allowed.contains(&name.as_str()),
            "`{name}` does not belong at the top level"
        );
    }
}
