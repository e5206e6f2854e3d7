//! Sinks of plugins, from the command line: one in C whose `finish` publishes, and scripts in tests, which write nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sum(folder: &Path) -> PathBuf {
    let library = folder.join("libsum.so");
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]);
    cc.args(["-I", "plugins/sdk/include", "tests/plugins/sum.c", "-o"])
        .arg(&library);
    let output = cc
        .output()
        .expect("`cc` runs; `apt-get install build-essential` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn cli(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_standpipe"))
        .args(arguments)
        .args(["--plugin", "libsum.so"])
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), text.concat())
}

#[test]
fn a_sink_in_c_publishes_at_its_finish_and_only_behind_all_rows_of_all_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sum(folder);
    let run = |script: &str| {
        fs::write(folder.join("s.pipe"), format!("use plugin sum\n{script}")).unwrap();
        cli(folder, &["run", "s.pipe"])
    };
    let (status, said) = run("from range(1, 100000) | write sum.total \"sum.txt\", value");
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(fs::read_to_string(folder.join("sum.txt")).unwrap(), "5000050000\n");
    fs::remove_file(folder.join("sum.txt")).unwrap();
    for (script, what) in [
        // The failure comes before it publishes.
        (
            "from range(1, 9000) | derive x = 1 / (value - 8999) | write sum.total \"sum.txt\", value",
            "division",
        ),
        (
            "from range(1, 9000) | write sum.total \"no/sum.txt\", value",
            "cannot write `no/sum.txt`",
        ),
        // It fails itself, before the other output is published.
        (
            "from range(650, 650) | select x = value * 2 | write sum.total \"sum.txt\", x\n\
             from range(1, 3) | write csv \"other.csv\"",
            "thirteen hundred is no sum",
        ),
    ] {
        let (status, said) = run(script);
        assert!(status == Some(1) && said.contains(what), "{said}");
        assert!(
            !folder.join("sum.txt").exists() && !folder.join("other.csv").exists(),
            "{script}"
        );
    }
    let (status, said) = run("from range(1, 3) | derive s = \"x\" | write sum.total \"sum.txt\", s");
    assert!(status == Some(2) && said.contains("an int is needed"), "{said}");
}

#[test]
fn standard_output_is_refused_under_the_argument() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sum(folder);
    let script = "use plugin sum\nfrom range(1, 3) | write sum.total \"-\", value\n";
    fs::write(folder.join("s.pipe"), script).unwrap();
    let want = "error[E0901]: `sum.total` cannot write to standard output yet\n --> s.pipe:2:36\n\
        2 | from range(1, 3) | write sum.total \"-\", value\n  |                                    ^^^ standard output\n";
    for command in ["check", "run"] {
        let (status, said) = cli(folder, &[command, "s.pipe"]);
        assert!(status == Some(2) && said.starts_with(want), "{said}");
    }
    assert!(!folder.join("-").exists());
}

#[test]
fn a_script_in_a_test_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sum(folder);
    let script = "use plugin sum\nfrom range(1, 3) | write sum.total \"sum.txt\", value\n\n\
        test \"numbers\" {\n  expect \"sum.txt\" rows [{value: 1}, {value: 2}, {value: 3}]\n}\n";
    fs::write(folder.join("s.pipe"), script).unwrap();
    let (status, said) = cli(folder, &["test", "s.pipe"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(!folder.join("sum.txt").exists());
}

#[test]
fn formatting_and_the_plan_keep_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sum(folder);
    let script = "use plugin sum\nparam to: string\n\nfrom range(1, 3) | write sum.total f\"{to}.txt\", value\n";
    fs::write(folder.join("s.pipe"), script).unwrap();
    let formatted = standpipe::syntax::format(script).unwrap();
    assert!(
        formatted.contains("| write sum.total f\"{to}.txt\", value"),
        "{formatted}"
    );
    let (status, said) = cli(folder, &["explain", "s.pipe"]);
    assert!(status == Some(0) && said.contains("write sum.total"), "{said}");
    let (status, said) = cli(folder, &["run", "s.pipe", "-p", "to=six"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(fs::read_to_string(folder.join("six.txt")).unwrap(), "6\n");
}
