//! What can go wrong with the disk that rows are spilled to: the run ends with an error that names stage, path and numbers, nothing is
//! published, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

/// A million rows that do not fit into the least memory.
const SCRIPT: &str =
    r#"from range(1, 1000000) | derive key = value * 7919 % 1000003 | sort key, -value | write csv "out.csv""#;

/// A right side that takes some ten times of what its join may have.
const JOIN: &str = r#"
stream right = from range(1, 1000000) | select k = value * 7919 % 1000003, name = f"the name of number {value}, which takes some bytes", r = value
from range(1, 300000) | select k = value * 3, l = value | join left right on k | write csv "out.csv"
"#;

/// Runs in `folder`, spilling to `spill`.
fn run(folder: &Path, spill: &Path, options: &[&str]) -> Output {
    run_script(SCRIPT, folder, spill, options)
}

fn run_script(script: &str, folder: &Path, spill: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("standpipe"));
    command
        .current_dir(folder)
        .args(["run", "-e", script, "--workers", "2", "--memory", "12MiB", "--no-sync"]);
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
fn a_join_whose_right_side_is_ten_times_the_limit() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = run_script(JOIN, folder.path(), spill.path(), &["--report", "report.json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(spill.path()));
    // The value whose key it is: 7919 times it is the key, up to multiples of a prime.
    let modulus = 1_000_003u64;
    let mut value_of = vec![0u64; modulus as usize];
    (1..=1_000_000u64).for_each(|value| value_of[(value * 7919 % modulus) as usize] = value);
    let text = std::fs::read_to_string(folder.path().join("out.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("k,l,name,r"));
    for left in 1..=300_000u64 {
        let key = left * 3;
        let want = match value_of[key as usize] {
            0 => format!("{key},{left},,"),
            r => format!("{key},{left},\"the name of number {r}, which takes some bytes\",{r}"),
        };
        assert_eq!(lines.next(), Some(&*want));
    }
    assert_eq!(lines.next(), None);
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("report.json")).unwrap()).unwrap();
    let stages = report["stages"].as_array().unwrap();
    let join = stages
        .iter()
        .find(|stage| stage["segments"].as_u64() > Some(0))
        .unwrap();
    let number = |name: &str| join[name].as_u64().unwrap();
    assert_eq!(join["name"], "join left");
    // Both sides are sorted by key, and both once more by the order of the left one.
    assert!(number("segments") > 4 && number("merged_rows") >= 1_300_000, "{join}");
    // What lies behind the last key of the left side is not read again.
    assert!(number("spilled_bytes") > 40 << 20, "{join}");
    assert!(number("reread_bytes") > number("spilled_bytes") / 2, "{join}");
}

#[test]
fn the_disk_limit_is_reached_within_a_join() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = spill.path().display().to_string();
    let said = ["E0703", "`join` needs ", &place, "the disk limit is", "--disk"];
    let output = run_script(JOIN, folder.path(), spill.path(), &["--report", "report.json"]);
    assert!(output.status.success());
    std::fs::remove_file(folder.path().join("out.csv")).unwrap();
    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let peak = report["peak_spilled_bytes"].as_u64().unwrap();
    // While the right side is gathered, and when it is on disk.
    for disk in [1 << 20, peak / 4 * 3] {
        let output = run_script(JOIN, folder.path(), spill.path(), &["--disk", &disk.to_string()]);
        assert_failed(folder.path(), &output, &said);
        assert!(is_empty(spill.path()));
    }
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
fn the_disk_limit_is_reached_by_first_and_last_rows() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = spill.path().display().to_string();
    let stages = [
        "top 300000 on -key",
        "top 100000 on key by value % 3",
        "tail 300000",
        "tail 100000 by key % 3",
    ];
    for stage in stages.into_iter().chain(["sample 300000"]) {
        let script = format!(
            "from range(1, 500000) | derive key = value * 7919 % 1000003, name = f\"the name of {{value}}\" | {stage} | write csv \"out.csv\""
        );
        let name = format!("`{}` needs ", stage.split(' ').next().unwrap());
        let output = run_script(&script, folder.path(), spill.path(), &["--disk", "1MiB"]);
        let said = ["E0703", &name, &place, "the disk limit is 1048576", "--disk"];
        assert_failed(folder.path(), &output, &said);
        assert!(is_empty(spill.path()));
    }
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

#[test]
fn no_file_may_grow_any_more() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = Command::new("sh");
    command
        .current_dir(folder.path())
        .args(["-c", "ulimit -f 1024; exec \"$@\"", "sh"]);
    command.arg(assert_cmd::cargo::cargo_bin!("standpipe"));
    command.args([
        "run",
        "-e",
        SCRIPT,
        "--workers",
        "2",
        "--memory",
        "12MiB",
        "--no-sync",
        "--spill-dir",
    ]);
    let output = command.arg(spill.path()).output().unwrap();
    let place = spill.path().display().to_string();
    assert_failed(
        folder.path(),
        &output,
        &["E0703", "`sort` needs ", &place, "bytes more"],
    );
    assert!(is_empty(spill.path()));
}

/// Writes noise over all that the process has open in `spill`, again and again until it ends; how often.
fn damage(process: u32, spill: &Path, mut is_over: impl FnMut() -> bool) -> usize {
    let open = format!("/proc/{process}/fd");
    let mut times = 0;
    while !is_over() {
        for entry in std::fs::read_dir(&open).into_iter().flatten().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            if !target.starts_with(spill) {
                continue;
            }
            // The file has no name, but the process still has it open.
            if let Ok(file) = std::fs::OpenOptions::new().write(true).open(entry.path()) {
                let len = file.metadata().map_or(0, |meta| meta.len());
                let noise = [0x5A; 64];
                for at in (0..len).step_by(4096) {
                    let _ = file.write_all_at(&noise, at);
                }
                times += usize::from(len > 0);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    times
}

#[test]
fn what_was_spilled_is_damaged_on_disk() {
    const DISTINCT: &str =
        r#"from range(1, 300000) | derive key = value * 7919 % 1000003 | distinct by key | write csv "out.csv""#;
    const AGGREGATE: &str = r#"from range(1, 300000) | derive key = value * 7919 % 1000003 | aggregate n = count(), s = sum(value) by key | write csv "out.csv""#;
    const REPLAY: &str = "stream s = from range(1, 600000) | derive t = value * 7919 % 1000003\nfrom s | union s | write csv \"out.csv\"";
    for (stage, script) in [
        ("sort", SCRIPT),
        ("distinct", DISTINCT),
        ("aggregate", AGGREGATE),
        ("replay", REPLAY),
    ] {
        let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("standpipe"))
            .current_dir(folder.path())
            .args([
                "run",
                "-e",
                script,
                "--workers",
                "2",
                "--memory",
                "11MiB",
                "--no-sync",
                "--spill-dir",
            ])
            .arg(spill.path())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let times = damage(child.id(), spill.path(), || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        assert!(times > 0, "{stage}: nothing was spilled");
        let place = spill.path().display().to_string();
        let reads = format!("`{stage}` cannot read its spill file in");
        assert_failed(
            folder.path(),
            &output,
            &["E0704", &reads, &place, "the block at byte ", "is damaged"],
        );
        assert!(is_empty(spill.path()));
    }
}

#[test]
fn a_record_that_is_too_long_is_a_bad_row() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("id,text\n1,short\n2,{}\n3,short\n", "x".repeat(200_000));
    std::fs::write(folder.path().join("in.csv"), text).unwrap();
    let run = |script: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("standpipe"));
        let command = command.current_dir(folder.path());
        command
            .args([
                "run",
                "-e",
                script,
                "--max-record",
                "100KiB",
                "--memory",
                "12MiB",
                "--no-sync",
            ])
            .output()
            .unwrap()
    };
    let output = run(r#"read csv "in.csv" | sort -id | write csv "out.csv""#);
    assert_failed(folder.path(), &output, &["E0410", "in.csv, line 3", "102400"]);
    let output = run(
        "read csv \"in.csv\" on error to rejects | sort -id | write csv \"out.csv\"\nfrom rejects | select code, line | write csv \"bad.csv\"",
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(written("out.csv"), "id,text\n3,short\n1,short\n");
    assert_eq!(written("bad.csv"), "code,line\nE0410,3\n");
}
