//! The rows, and what is written, are the same.

use super::{ISOLATED, built, cli, processes, project, project_of, run};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn an_isolated_plugin_gives_the_same_rows_and_rejects() {
    let script = "use plugin words\n\
        from range(1, 20000)\n\
        | derive n = value % 5, six = words.double(value % 9, times: 6)\n\
        | words.repeat n, most: 3 on error to rejects\n\
        | derive t = f\"a text that is longer than a view holds, {value}\", bad = words.double(n - 1, times: 2) on error null\n\
        | write csv \"out.csv\"\n\
        from rejects | write csv \"rejects.csv\"\n";
    let outcome = |limits: Option<&str>| {
        let folder = project("words", limits);
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        let (status, _, stderr) = cli(folder.path(), &["run", "s.pipe"]);
        assert_eq!(status, Some(0), "{stderr}");
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        (read("out.csv"), read("rejects.csv"))
    };
    let here = outcome(None);
    assert!(here.0.lines().count() > 5000 && here.1.lines().count() > 1000);
    assert_eq!(outcome(Some("")), here);
}

/// What a script gives that must give the same in processes of its own, for one worker and for two: what it prints, its `out.txt`, and
/// the outputs that the report names.
fn same_for_all(name: &str, library: &Path, script: &str) -> [String; 3] {
    let mut want = None;
    for isolate in ["", ISOLATED] {
        let folder = project_of(name, library, isolate);
        let folder = folder.path();
        fs::write(folder.join("s.pipe"), script).unwrap();
        for workers in ["1", "2"] {
            let arguments = ["run", "s.pipe", "--workers", workers, "--report", "report.json"];
            let (status, stdout, stderr) = cli(folder, &arguments);
            assert_eq!(status, Some(0), "{stderr}");
            let report = fs::read_to_string(folder.join("report.json")).unwrap();
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let out = fs::read_to_string(folder.join("out.txt")).unwrap_or_default();
            let got = [stdout, out, report["outputs"].to_string()];
            assert!(
                want.get_or_insert_with(|| got.clone()) == &got,
                "{isolate} {workers}\n{script}"
            );
            assert_eq!(processes(folder), 0, "a process is left");
        }
    }
    want.unwrap()
}

#[test]
fn an_isolated_sink_writes_the_same_bytes() {
    let odd = built("standpipe-odd", "libodd.so");
    let numbers: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    let script = "use plugin odd\nfrom range(1, 30_000) | write odd.lines \"out.txt\", value";
    let [_, out, report] = same_for_all("odd", &odd, script);
    assert!(out == numbers && report.contains("out.txt"), "{report}");
    let metrics = built("standpipe-metrics", "libmetrics.so");
    let script = "use plugin metrics\nfrom range(1, 30_000) | derive at = @2026-01-31T00:00:00Z + value * 1s, host = f\"host {value % 7}\"\
        | write metrics.lines \"out.txt\", at measurement: \"m\", tags: \"host\"";
    let [_, out, _] = same_for_all("metrics", &metrics, script);
    assert_eq!(out.lines().count(), 30_000);
    // Rows that it sets aside, and what it says once it is done.
    let script = "use plugin odd\nfrom range(1, 30_000) | derive t = f\"{value} is longer than any view\"\
        | write odd.lines \"out.txt\", value, does: \"reject\" on error skip";
    let [_, out, report] = same_for_all("odd", &odd, script);
    assert!(out.lines().count() == 27_000 && report.contains("27000"), "{report}");
    // One whose `finish` publishes, and one that has a `publish`.
    let folder = project("sum", None);
    let script = "use plugin sum\nfrom range(1, 100_000) | write sum.total \"out.txt\", value";
    let [_, out, _] = same_for_all("sum", &folder.path().join("libsum.so"), script);
    assert_eq!(out, "5000050000\n");
    let folder = project("crash", None);
    let script =
        "use plugin crash\nfrom range(1, 100_000) | write crash.drain \"out.txt\", value, at: \"none\", how: \"none\"";
    let [_, out, report] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert_eq!(out, "5000050000\n");
    assert!(report.contains("the sum in out.txt"), "{report}");
}

#[test]
fn memory_that_was_refused_is_no_failure_if_the_plugin_can_do_without() {
    let folder = project("crash", None);
    let script =
        "use plugin crash\nfrom range(1, 20_000) | crash.crash at: \"process\", how: \"copes\" | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert_eq!(out.lines().count(), 20_001);
}

#[test]
fn a_sink_is_told_that_it_need_not_wait_for_the_disk() {
    let odd = built("standpipe-odd", "libodd.so");
    let crash = project("crash", None);
    for isolate in ["", ISOLATED] {
        let folder = project_of("odd", &odd, isolate);
        let script = "use plugin odd\nfrom range(1, 3) | write odd.lines \"out.txt\", value, does: \"note\"\n";
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        for (more, want) in [(None, "sync true"), (Some("--no-sync"), "sync false")] {
            let arguments: Vec<&str> = ["run", "s.pipe"].into_iter().chain(more).collect();
            let (status, _, stderr) = cli(folder.path(), &arguments);
            assert!(status == Some(0) && stderr.contains(want), "{isolate}{want}: {stderr}");
        }
        let folder = project_of("crash", &crash.path().join("libcrash.so"), isolate);
        let script =
            "use plugin crash\nfrom range(1, 3) | write crash.drain \"out.txt\", value, at: \"none\", how: \"none\"\n";
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        for (more, want) in [(None, false), (Some("--no-sync"), true)] {
            let arguments: Vec<&str> = ["run", "s.pipe", "--report", "r.json"]
                .into_iter()
                .chain(more)
                .collect();
            let (status, _, stderr) = cli(folder.path(), &arguments);
            assert_eq!(status, Some(0), "{stderr}");
            let report = fs::read_to_string(folder.path().join("r.json")).unwrap();
            assert_eq!(report.contains("not synced"), want, "{isolate}: {report}");
        }
    }
}

#[test]
fn an_isolated_source_gives_the_same_rows() {
    let synth = built("standpipe-synth", "libsynth.so");
    let script = "use plugin synth\nread synth.rows seed: 7, rows: 200_000, columns: \"id: row, name: string?, price: float?, on: date\"\
        | filter id % 40 < 3 | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("synth", &synth, script);
    assert_eq!(out.lines().count(), 15_001);
    // So many columns that it takes a long frame to say where they lie.
    let columns: Vec<String> = (1..=1500).map(|n| format!("c{n}: string?")).collect();
    let script = format!(
        "use plugin synth\nread synth.rows seed: 7, rows: 300, columns: \"{}\" | write csv \"out.txt\"",
        columns.join(", ")
    );
    let [_, out, _] = same_for_all("synth", &synth, &script);
    assert_eq!(out.lines().count(), 301);
    // The first rows only: what is read ahead is dropped.
    let script = "use plugin synth\nread synth.rows rows: 1_000_000_000_000 | take 3 | select id";
    let [out, ..] = same_for_all("synth", &synth, script);
    assert_eq!(out, "id\n1\n2\n3\n");
    // One that has nothing now, again and again.
    let odd = built("standpipe-odd", "libodd.so");
    let [out, ..] = same_for_all("odd", &odd, "use plugin odd\nread odd.drips");
    assert_eq!(out, "n\n0\n1\n2\n3\n4\n5\n");
    let folder = project("crash", None);
    let script = "use plugin crash\nread crash.well at: \"none\", how: \"none\" | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert!(out.starts_with("n\n1\n2\n") && out.ends_with("\n20000\n") && out.lines().count() == 20_001);
}

#[test]
fn an_isolated_aggregate_gives_the_same_values() {
    let quantiles = built("standpipe-quantiles", "libquantiles.so");
    for (groups, lines) in [("20_011", 20_012), ("3", 4)] {
        let script = format!(
            "use plugin quantiles\nfrom range(1, 100_000)
            | derive x = float(value * 7919 % 100_003) * 1.5 - 20_000.0, k = value * 31 % {groups}
            | aggregate n = count(), half = quantiles.quantile(x), most = quantiles.quantile(x, 1.0, where: value % 3 == 0),
                all = quantiles.sketch(x, error: 0.001) by k
            | select k, n, half, most, p90 = all.p90, count = all.count, max = all.max | write csv \"out.txt\""
        );
        let [_, out, _] = same_for_all("quantiles", &quantiles, &script);
        assert_eq!(out.lines().count(), lines);
    }
    let script =
        "use plugin quantiles\nfrom range(1, 400) | window q = quantiles.quantile(value, 1.0) rows: -1..0 | select q";
    let [out, ..] = same_for_all("quantiles", &quantiles, script);
    assert_eq!(out.lines().count(), 401);
    let folder = project("crash", None);
    let script = "use plugin crash\nfrom range(1, 100_000) | aggregate s = crash.sum(value), t = sum(value) by k = value % 30_000\
        | write csv \"out.txt\"";
    let [_, out, _] = same_for_all("crash", &folder.path().join("libcrash.so"), script);
    assert_eq!(out.lines().count(), 30_001);
    for line in out.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[1], cells[2], "{line}");
    }
}

#[test]
fn states_of_an_isolated_aggregate_go_to_disk_for_want_of_memory_of_the_run_or_of_its_processes() {
    let script = "use plugin crash\nfrom range(1, 600_000) | aggregate s = crash.sum(value) by k = value * 7919 % 300_007\
        | write csv \"out.csv\"";
    let run = |limits: Option<&str>, more: &[&str]| {
        let folder = project("crash", limits);
        fs::write(folder.path().join("s.pipe"), script).unwrap();
        let arguments = [&["run", "s.pipe", "--report", "report.json"], more].concat();
        let (status, _, stderr) = cli(folder.path(), &arguments);
        assert_eq!(status, Some(0), "{stderr}");
        let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let spilled = report["peak_spilled_bytes"].as_u64().unwrap();
        (fs::read_to_string(folder.path().join("out.csv")).unwrap(), spilled)
    };
    let (want, spilled) = run(None, &["--memory", "256MiB"]);
    assert_eq!(spilled, 0);
    for (limits, memory, spills) in [
        ("", "256MiB", false),
        ("", "24MiB", true),
        // States of all groups take 2.4 MB.
        ("memory = \"4MiB\"\n", "256MiB", true),
    ] {
        for workers in ["1", "2"] {
            let (out, spilled) = run(Some(limits), &["--memory", memory, "--workers", workers]);
            assert!(out == want, "{limits} {memory} {workers}");
            assert_eq!(spilled > 0, spills, "{limits} {memory} {workers}");
        }
    }
}

#[test]
fn spilled_states_that_are_large_for_their_processes_are_put_together_and_too_large_ones_say_what_helps() {
    let folder = project("crash", Some("memory = \"4MiB\"\n"));
    let folder = folder.path();
    let run = |how: &str| {
        let script = format!(
            "use plugin crash\nfrom range(1, 100_000) | aggregate s = crash.sum(value, how: \"{how}\") by k = value * 7919 % 100_003\
             | write csv \"out.csv\""
        );
        fs::write(folder.join("s.pipe"), script).unwrap();
        let (status, _, stderr) = cli(folder, &["run", "s.pipe", "--memory", "4GiB", "--workers", "8"]);
        (
            status,
            stderr,
            fs::read_to_string(folder.join("out.csv")).unwrap_or_default(),
        )
    };
    let (status, stderr, _) = run("huge");
    assert!(status == Some(1) && !stderr.contains("--memory"), "{stderr}");
    assert!(
        stderr.contains("error[E0701]") && stderr.contains("`crash.sum`") && stderr.contains("standpipe.toml"),
        "{stderr}"
    );
    let (status, stderr, want) = run("none");
    assert_eq!((status, want.lines().count()), (Some(0), 100_001), "{stderr}");
    let (status, stderr, out) = run("wide");
    assert_eq!(status, Some(0), "{stderr}");
    assert!(out == want);
}

/// The example of a plugin gives the same bytes.
fn same_in_processes_of_its_own(name: &str, library: &Path, example: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(library, folder.path().join("lib.so")).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(root.join("examples"), folder.path().join("examples")).unwrap();
    let outcome = |isolate: &str| {
        let text = format!("[plugins.{name}]\npath = \"lib.so\"\n{isolate}");
        fs::write(folder.path().join("standpipe.toml"), text).unwrap();
        assert_eq!(cli(folder.path(), &["plugin", "lock"]).0, Some(0));
        let (status, stdout, stderr) = cli(folder.path(), &["run", example]);
        assert_eq!(status, Some(0), "{stderr}");
        stdout
    };
    let here = outcome("");
    assert!(here.lines().count() > 2, "{here}");
    assert_eq!(outcome("isolate = \"process\"\n"), here);
}

#[test]
fn the_examples_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("libwords.so");
    let (status, _, stderr) = run(Command::new("cc")
        .args([
            "-std=c99",
            "-O1",
            "-shared",
            "-fPIC",
            "-I",
            "plugins/sdk/include",
            "plugins/words/words.c",
            "-o",
        ])
        .arg(&words));
    assert_eq!(status, Some(0), "{stderr}");
    same_in_processes_of_its_own("words", &words, "examples/plugins/words.pipe");
    let geo = built("standpipe-geo", "libgeo.so");
    same_in_processes_of_its_own("geo", &geo, "examples/plugins/nearest_city.pipe");
}
