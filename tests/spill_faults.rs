//! What can go wrong with the disk that rows are spilled to: the run ends with an error that names stage, path and numbers, nothing is
//! published, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::Path;
use std::process::{Command, Output};

/// A million rows that do not fit into the least memory.
const SCRIPT: &str =
    r#"from range(1, 1000000) | derive key = value * 7919 % 1000003 | sort key, -value | write csv "out.csv""#;

/// Runs in `folder`, spilling to `spill`.
fn run(folder: &Path, spill: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("standpipe"));
    command
        .current_dir(folder)
        .args(["run", "-e", SCRIPT, "--workers", "2", "--memory", "12MiB", "--no-sync"]);
    command.arg("--spill-dir").arg(spill).args(options);
    command.output().unwrap()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

/// The run failed with a message that says all of `said`.
#[track_caller]
fn assert_failed(folder: &Path, output: &Output, said: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for text in said {
        assert!(stderr.contains(text), "`{text}` is not in: {stderr}");
    }
    assert!(!folder.join("out.csv").exists(), "published");
}

#[test]
fn a_run_that_spills_leaves_nothing_behind_and_says_what_it_did() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = run(folder.path(), spill.path(), &["--report", "report.json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(spill.path()));
    let text = std::fs::read_to_string(folder.path().join("out.csv")).unwrap();
    let keys: Vec<(u64, u64)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let (value, key) = line.split_once(',').unwrap();
            (key.parse().unwrap(), u64::MAX - value.parse::<u64>().unwrap())
        })
        .collect();
    assert!(keys.len() == 1_000_000 && keys.is_sorted());
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("report.json")).unwrap()).unwrap();
    let stages = report["stages"].as_array().unwrap();
    let sort = stages.iter().find(|stage| stage["name"] == "sort").unwrap();
    let number = |name: &str| sort[name].as_u64().unwrap();
    assert!(number("segments") > 2 && number("merged_rows") >= 1_000_000, "{sort}");
    assert!(
        number("spilled_bytes") > 1_000_000 && number("reread_bytes") >= number("spilled_bytes"),
        "{sort}"
    );
    let peak = report["peak_spilled_bytes"].as_u64().unwrap();
    assert!(peak > 0 && peak <= number("spilled_bytes"), "{report}");
}

#[test]
fn the_disk_limit_is_reached() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = run(folder.path(), spill.path(), &["--disk", "1MiB"]);
    let place = spill.path().display().to_string();
    assert_failed(
        folder.path(),
        &output,
        &["E0703", "`sort` needs ", &place, "the disk limit is 1048576", "--disk"],
    );
    assert!(is_empty(spill.path()));
}

#[test]
fn the_script_limits_the_disk_and_the_command_line_wins() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |options: &[&str]| {
        let script = format!("@budget(disk: 1MiB)\n{SCRIPT}");
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("standpipe"));
        command
            .current_dir(folder.path())
            .args(["run", "-e", &script, "--memory", "12MiB", "--no-sync"]);
        command.arg("--spill-dir").arg(spill.path()).args(options);
        command.output().unwrap()
    };
    assert_failed(
        folder.path(),
        &run(&["--workers", "2"]),
        &["E0703", "the disk limit is 1048576"],
    );
    assert!(run(&["--workers", "2", "--disk", "1GiB"]).status.success());
}

#[test]
fn the_folder_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let output = run(folder.path(), &missing, &[]);
    let place = missing.display().to_string();
    assert_failed(
        folder.path(),
        &output,
        &["E0704", "`sort` cannot make its spill file in", &place, "--spill-dir"],
    );
    assert!(!missing.exists());
}

#[test]
fn the_folder_cannot_be_written() {
    // Not a folder at all: even those who may write everything cannot write there.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "kept").unwrap();
    let output = run(folder.path(), &file, &[]);
    assert_failed(
        folder.path(),
        &output,
        &[
            "E0704",
            "`sort` cannot make its spill file in",
            &file.display().to_string(),
        ],
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn the_disk_is_full() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(disk.path())
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no tmpfs can be mounted here, a full disk was not tried");
        return;
    }
    let output = run(folder.path(), disk.path(), &[]);
    let left = is_empty(disk.path());
    let unmounted = Command::new("umount").arg(disk.path()).status().unwrap();
    assert!(unmounted.success() && left);
    assert_failed(
        folder.path(),
        &output,
        &["E0703", "`sort` needs ", &disk.path().display().to_string(), "bytes"],
    );
}
