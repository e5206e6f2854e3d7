//! `standpipe plugin new`: a plugin that builds, is tested and runs at once.

use super::{FAILED, fail, print_data, say};
use clap::ValueEnum;
use standpipe::syntax::is_reserved;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What a plugin is written in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    C,
}

/// The header, as it stands beside the SDK.
const HEADER: &str = include_str!("../../plugins/sdk/include/standpipe_plugin.h");
/// The SDK that this program was built with, if it is still there.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/sdk");

/// Files by name, `{{name}}` and `{{sdk}}` in them to be replaced.
fn files(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Rust => &[
            ("Cargo.toml", include_str!("new/rust_manifest.txt")),
            ("src/lib.rs", include_str!("new/rust_lib.txt")),
            ("sample.pipe", include_str!("new/rust_sample.txt")),
            (".gitignore", "/target\n"),
        ],
        Language::C => &[
            ("{{name}}.c", include_str!("new/c_plugin.txt")),
            ("standpipe_plugin.h", HEADER),
            ("Makefile", include_str!("new/c_makefile.txt")),
            ("sample.pipe", include_str!("new/c_sample.txt")),
            (".gitignore", "/lib{{name}}.so\n"),
        ],
    }
}

pub(super) fn new(name: &str, language: Language, sdk: Option<&Path>) -> u8 {
    if !is_name(name) {
        return fail(&format!(
            "`{name}` is no name for a plugin: small letters, digits and `_`, a letter first"
        ));
    }
    if is_reserved(name) {
        return fail(&format!(
            "`{name}` is a reserved word: scripts could not say `use plugin {name}`"
        ));
    }
    let folder = PathBuf::from(name);
    if folder.exists() {
        return fail(&format!("`{name}` is there already"));
    }
    let fill = |text: &str| text.replace("{{name}}", name).replace("{{sdk}}", &dependency(sdk));
    let (library, steps) = match language {
        Language::Rust => (
            format!("target/release/lib{name}.so"),
            "cargo test\ncargo build --release",
        ),
        Language::C => (format!("lib{name}.so"), "make"),
    };
    let project = format!("[plugins.{name}]\npath = \"{library}\"\n");
    let all = files(language)
        .iter()
        .copied()
        .chain([("standpipe.toml", project.as_str())]);
    for (file, text) in all {
        let file = folder.join(fill(file));
        let written = file.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = written.and_then(|()| fs::write(&file, fill(text))) {
            say(&format!("error: cannot write `{}`: {error}", file.display()));
            return FAILED;
        }
    }
    let mut hints = format!("cd {name}\n{steps}\nstandpipe plugin lock\nstandpipe plugin test {name}\n");
    if language == Language::C {
        hints.push_str("make test\n");
    }
    let _ = writeln!(hints, "standpipe run sample.pipe");
    say(&format!("{name} is written; it builds, is tested and runs with"));
    print_data(hints.as_bytes())
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(plain)
}

/// Where the SDK is: as told, where this program was built, or in the registry.
fn dependency(sdk: Option<&Path>) -> String {
    let here = Path::new(SDK);
    let path = match sdk {
        Some(path) => Some(fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())),
        None => here.is_dir().then(|| here.to_path_buf()),
    };
    match path {
        Some(path) => format!("{{ path = {:?} }}", path.to_string_lossy()),
        None => format!("{:?}", env!("CARGO_PKG_VERSION")),
    }
}
