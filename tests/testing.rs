//! `standpipe test` from outside: what it says of tests that fail or are wrong, what it writes, and the newcomer's path of the README.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use standpipe::testing::{Fixture, Script, find};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_standpipe");

fn run(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(PROGRAM)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap(), shown(&output))
}

/// What is said, without how long it took.
fn shown(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    regex::Regex::new(r"\(\d+ ms\)")
        .unwrap()
        .replace_all(&text, "(… ms)")
        .into_owned()
}

const SCRIPT: &str = "param least: int = 1\n\nstream paid = read csv \"orders.csv\" schema: Order on error to rejects\n  | filter status == \"paid\" and qty >= least\n\nschema Order { id: int, status: string, qty: int, at: timestamp? }\n\nfrom paid | sort -qty | write csv \"out.csv\"\nfrom rejects | write jsonl \"rejects.jsonl\"\n";

fn folder(tests: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("orders.pipe"), SCRIPT).unwrap();
    fs::write(folder.path().join("orders_test.pipe"), tests).unwrap();
    folder
}

const GIVEN: &str = "  given \"orders.csv\" = table {\n    id | status | qty | at\n    1  | paid   | 2   | 2026-01-01T00:00:00Z\n    2  | open   | 5   |\n    3  | paid   | 7   |\n  }\n";

#[test]
fn the_examples_pass_under_all_settings() {
    let (status, text) = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["test", "examples", "--ci"]);
    assert_eq!(status, 0, "{text}");
    let scripts = find(Path::new("examples")).unwrap();
    // No table stands for an aggregate or a sink: they are run with their library, in `plugins/quantiles` and `plugins/metrics`.
    let with_library = ["latency.pipe", "takings.pipe"];
    for script in scripts
        .iter()
        .filter(|script| !with_library.iter().any(|name| script.ends_with(name)))
    {
        let tests = Script::open(script).unwrap().tests().len();
        assert!(tests > 0, "{} has no tests", script.display());
    }
}

#[test]
fn rows_counts_schemas_and_errors_are_looked_at_and_nothing_is_written() {
    let good = format!(
        "test \"all is well\" {{\n{GIVEN}  with least = 2\n  expect paid rows [{{id: 1}}, {{id: 3, qty: 7}}]\n  expect paid rows any_order [{{id: 3}}, {{id: 1}}]\n  expect \"out.csv\" rows [{{id: 3}}, {{id: 1}}]\n  expect rejects count == 0\n  expect paid schema {{ id: int, status: string, qty: int, at: timestamp? }}\n  expect peak memory < 64MiB\n  expect peak disk == 0\n}}\n"
    );
    let place = folder(&good);
    let (status, text) = run(place.path(), &["test", "--matrix"]);
    assert_eq!(status, 0, "{text}");
    assert!(!place.path().join("out.csv").exists() && !place.path().join("rejects.jsonl").exists());
    let bad = format!(
        "test \"nothing is\" {{\n{GIVEN}  expect paid rows [{{id: 1, qty: 2}}, {{id: 3, qty: 8}}]\n  expect paid count == 3\n  expect rejects count > 0\n  expect paid schema {{ id: int }}\n  expect peak memory < 1\n  expect error E0405\n}}\n"
    );
    let place = folder(&bad);
    let (status, text) = run(place.path(), &["test"]);
    assert_eq!(status, 1, "{text}");
    for part in [
        "orders_test.pipe:8: the rows of paid are not those expected",
        "~ 3  | 8 → 7",
        "orders_test.pipe:9: paid has 2 rows; expect paid count == 3",
        "orders_test.pipe:10: rejects has 0 rows",
        "orders_test.pipe:11: the schema of paid is another",
        "orders_test.pipe:12: the peak of memory is ",
        "orders_test.pipe:13: expected error E0405, the run succeeded",
        "0 passed, 1 failed",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn every_mistake_of_a_test_is_said_at_once_and_where_it_stands() {
    let wrong = "test \"wrong\" {\n  given \"order.csv\" = rows []\n  given paidd = rows []\n  given \"orders.csv\" = table {\n    id | status | qty | when\n    x  | paid   |     |\n  }\n  with lest = 3, now = 5, least = \"a\"\n  expect payd count == 1\n  expect paid rows [{idd: 1}, {id: \"one\"}]\n  expect \"outs.csv\" snapshot\n  expect paid snapshot redct: {id: \"x\"}\n  expect error E9999\n}\n";
    let place = folder(wrong);
    let (status, text) = run(place.path(), &["test"]);
    assert_eq!(status, 2, "{text}");
    for part in [
        "error[E1002]: no source reads \"order.csv\"",
        "`orders.csv` is close",
        "error[E0203]: stream `paidd` not found",
        "error[E1003]: what is replaced has no column `when`",
        "error[E1003]: \"x\" is no value of `id: int`",
        "error[E1003]: `qty` cannot be null",
        "error[E0214]: no `param lest` in this script",
        "`least` is close",
        "error[E1004]: `now` is a timestamp",
        "error[E0203]: stream `payd` not found",
        "`out.csv` is close",
        "error[E1004]: there is no code E9999",
        "orders_test.pipe:2:9",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn an_input_that_is_not_replaced_is_an_error_where_its_rows_are_needed() {
    let place = folder(
        "test \"reads\" {\n  expect paid count == 0\n}\ntest \"does not\" {\n  given paid = rows [{id: 1, status: \"paid\", qty: 1}]\n  given rejects = rows []\n  expect \"out.csv\" count == 1\n}\n",
    );
    fs::write(place.path().join("orders.csv"), "id,status,qty,at\n").unwrap();
    let (status, text) = run(place.path(), &["test"]);
    assert_eq!(status, 2, "{text}");
    assert!(
        text.contains("error[E1001]: this input is not replaced in the test"),
        "{text}"
    );
    assert!(text.contains("given \"orders.csv\" = table { … }"), "{text}");
    assert!(text.contains("ok   orders.pipe: does not"), "{text}");
}

#[test]
fn what_the_real_files_look_like_makes_no_difference() {
    let place = tempfile::tempdir().unwrap();
    let script = "stream a = read csv \"a.csv\" | filter n > 1\nstream b = read jsonl \"b.jsonl\" | derive d = date(day)\nfrom a | join b on n | write csv \"out.csv\"\n";
    let tests = "test \"as files with these rows\" {\n  given \"a.csv\" = table {\n    n | x   | at         | code\n    1 | 1.5 | 2026-01-31 | \"1\"\n    2 | 2   | 2026-02-01 | 2\n  }\n  given \"b.jsonl\" = rows [{n: 2, day: @2026-01-01, r: {z: 1}}, {n: 3, r: {z: 1.5}}]\n  expect a schema { n: int?, x: float?, at: date?, code: string? }\n  expect b schema { n: int?, day: string?, r: { z: float? }?, d: date? }\n  expect \"out.csv\" count == 1\n}\n\ntest \"a stream has the types of its cells\" {\n  given a = table {\n    n | at\n    2 | 2026-01-31T10:00:00Z\n  }\n  given b = table {\n    n | day\n  }\n  expect a schema { n: int?, at: timestamp? }\n  expect \"out.csv\" count == 0\n}\n";
    fs::write(place.path().join("s.pipe"), script).unwrap();
    fs::write(place.path().join("s_test.pipe"), tests).unwrap();
    let said = || {
        let (status, text) = run(place.path(), &["test", "--matrix"]);
        assert_eq!(status, 0, "{text}");
        text
    };
    let without = said();
    fs::write(place.path().join("a.csv"), "n,x\nno number,true\n").unwrap();
    fs::write(place.path().join("b.jsonl"), "{\"n\": \"text\", \"other\": 1}\n").unwrap();
    assert_eq!(said(), without);
    // Nothing says what the columns are, whether the file is there or not.
    fs::write(
        place.path().join("s_test.pipe"),
        "test \"t\" {\n  given \"a.csv\" = rows []\n  expect a count == 0\n}\n",
    )
    .unwrap();
    let (status, text) = run(place.path(), &["test"]);
    assert_eq!(status, 2, "{text}");
    assert!(
        text.contains("error[E1003]: nothing says which columns these rows have") && text.contains("s_test.pipe:2:3"),
        "{text}"
    );
}

#[test]
fn scripts_whose_tests_do_not_run_are_told_from_tests_that_pass() {
    let place = folder(&format!("test \"t\" {{\n{GIVEN}  expect plan snapshot\n}}\n"));
    let (status, text) = run(place.path(), &["test", "missing.pipe"]);
    assert_eq!((status, text.lines().count()), (2, 1), "{text}");
    assert!(text.starts_with("error: cannot read missing.pipe: "), "{text}");
    fs::write(place.path().join("bad.pipe"), "test \"b\" { expect }\n").unwrap();
    assert_eq!(run(place.path(), &["test", "--accept", "orders.pipe"]).0, 0);
    let (status, text) = run(place.path(), &["test", "--ci"]);
    assert_eq!(status, 2, "{text}");
    assert!(
        text.contains("1 passed, 0 failed, 1 script whose tests did not run"),
        "{text}"
    );
    let output = Command::new(PROGRAM)
        .args(["test", "--ci", "--format", "json"])
        .current_dir(&place)
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["broken"][0]["script"], "bad.pipe");
    fs::write(place.path().join("snapshots/orders__gone__paid.snap"), "---\n---\n").unwrap();
    let (_, text) = run(place.path(), &["test", "--ci", "--format", "junit"]);
    for part in [
        "<testsuites tests=\"3\" failures=\"1\" errors=\"1\">",
        "<error message=\"the tests did not run\">",
        "<testcase classname=\"snapshots\" name=\"snapshots/orders__gone__paid.snap\">",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn what_a_source_hangs_on_is_recorded_with_the_values_it_had() {
    let place = tempfile::tempdir().unwrap();
    let script = "param none: string = \"-\"\nparam day: date\nparam word: string = \"x\"\nlet nulls = none\nstream s = read csv \"s.csv\" null: [nulls] | filter at >= day and word != \"\"\nfrom s | write csv \"out.csv\"\n";
    fs::write(place.path().join("s.pipe"), script).unwrap();
    fs::write(
        place.path().join("s.csv"),
        "at,n,code\n2026-01-01,NA,7\n2026-02-01,2,008\n",
    )
    .unwrap();
    let record = |extra: &[&str]| {
        let common = ["test", "--record", "s", "-p", "day=2026-01-31", "-p", "none=NA"];
        run(place.path(), &[&common, extra, &["s.pipe"]].concat())
    };
    let (status, text) = record(&["-p", "word=a \"b\""]);
    assert_eq!(status, 0, "{text}");
    let test = fs::read_to_string(place.path().join("s_test.pipe")).unwrap();
    for part in [
        "with day = @2026-01-31, none = \"NA\", word = \"a \\\"b\\\"\"",
        "2026-01-01 |   | \"7\"",
    ] {
        assert!(test.contains(part), "{part}\n{test}");
    }
    fs::remove_file(place.path().join("s.csv")).unwrap();
    assert_eq!(run(place.path(), &["test", "--accept"]).0, 0);
    let snapshot = fs::read_to_string(place.path().join("snapshots/s__s_as_recorded__s.snap")).unwrap();
    assert!(
        snapshot.contains("schema: \"at: date?, n: int?, code: string?\"") && snapshot.contains("2026-02-01 | 2"),
        "{snapshot}"
    );
}

#[test]
fn what_a_newcomer_gets_wrong_is_said_where_it_stands() {
    let place = tempfile::tempdir().unwrap();
    let script = "param tier: \"gold\" | \"free\" = \"free\"\nparam day: date\nstream a = read csv \"a.csv\" | derive t = tier, d = day\nfrom a | write csv \"x.csv\"\n";
    fs::write(place.path().join("s.pipe"), script).unwrap();
    let said = |test: &str| {
        fs::write(place.path().join("s_test.pipe"), test).unwrap();
        // Named twice, run once.
        let (status, text) = run(place.path(), &["test", ".", "./s.pipe", "s_test.pipe"]);
        assert_eq!(status, 2, "{text}");
        text
    };
    let text = said("test \"t\" {\n  given \"a.csv\" = tabel {\n  n\n  }\n}\n");
    assert!(
        text.contains("expected `table { … }`, `rows [ … ]` or `file \"path\"`, found `tabel`"),
        "{text}"
    );
    let text =
        said("test \"t\" {\n  given \"a.csv\" = rows [{n: 1}]\n  with tier = \"bad\"\n  expect a count == 1\n}\n");
    for part in [
        "s_test.pipe:3:15",
        "choices: `\"gold\"`",
        "`with day = …` in the test",
        "0 passed, 1 failed",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn only_tests_stand_in_a_file_of_tests_and_each_name_once() {
    let place = folder("let x = 1\ntest \"a\" { expect plan snapshot }\ntest \"a!\" { expect plan snapshot }\n");
    let (status, text) = run(place.path(), &["test"]);
    assert_eq!(status, 2, "{text}");
    assert!(
        text.contains("error[E1005]") && text.contains("orders_test.pipe:1:1"),
        "{text}"
    );
    assert!(text.contains("the test \"a!\" is defined twice"), "{text}");
}

#[test]
fn snapshots_wait_are_accepted_and_are_guarded() {
    let tests = format!("test \"t\" {{\n{GIVEN}  expect paid snapshot redact: {{at: \"[time]\"}}\n}}\n");
    let place = folder(&tests);
    let snapshot = place.path().join("snapshots/orders__t__paid.snap");
    let pending = place.path().join("snapshots/orders__t__paid.snap.new");
    let (status, text) = run(place.path(), &["test", "--ci"]);
    assert_eq!(status, 1, "{text}");
    assert!(!place.path().join("snapshots").exists(), "`--ci` writes nothing");
    let (status, _) = run(place.path(), &["test"]);
    assert!(status == 1 && pending.exists() && !snapshot.exists());
    let (status, text) = run(place.path(), &["test", "--ci"]);
    assert!(status == 1 && pending.exists(), "{text}");
    let (status, text) = run(place.path(), &["test", "--accept"]);
    assert!(
        status == 0 && !pending.exists() && text.contains("1 snapshot accepted"),
        "{text}"
    );
    let body = fs::read_to_string(&snapshot).unwrap();
    assert!(
        body.contains("1  ") && body.contains("[time]") && !body.contains("2026"),
        "{body}"
    );
    assert_eq!(run(place.path(), &["test", "--ci"]).0, 0);
    fs::write(place.path().join("snapshots/orders__gone__paid.snap"), "---\n---\n").unwrap();
    assert_eq!(run(place.path(), &["test"]).0, 0);
    let (status, text) = run(place.path(), &["test", "--ci"]);
    assert!(
        status == 1 && text.contains("no test refers to snapshots/orders__gone__paid.snap"),
        "{text}"
    );
}

#[test]
fn programs_read_outcomes_too() {
    let tests = format!(
        "test \"a < b\" {{\n{GIVEN}  expect paid count == 9\n}}\ntest \"c\" {{\n{GIVEN}  expect paid count == 2\n}}\n"
    );
    let place = folder(&tests);
    let (status, text) = run(place.path(), &["test", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 1);
    assert_eq!(json["tests"][0]["passed"], false);
    assert_eq!(json["tests"][1]["passed"], true);
    assert_eq!(json["tests"][0]["faults"][0]["place"], "orders_test.pipe:8");
    let (_, text) = run(place.path(), &["test", "--format", "junit"]);
    assert!(
        text.contains("<testsuites tests=\"2\" failures=\"1\" errors=\"0\">") && text.contains("name=\"a &lt; b\""),
        "{text}"
    );
    let (status, text) = run(place.path(), &["test", "--filter", "c", "orders_test.pipe"]);
    assert!(status == 0 && text.contains("1 passed, 0 failed"), "{text}");
    assert_eq!(run(place.path(), &["test", "--filter", "zzz"]).0, 2);
}

#[test]
fn a_test_is_recorded_from_real_rows_and_passes_once_accepted() {
    let place = folder("");
    fs::remove_file(place.path().join("orders_test.pipe")).unwrap();
    let rows: String = (0..100).map(|n| format!("{n},paid,{n},\n")).collect();
    fs::write(
        place.path().join("orders.csv"),
        format!("id,status,qty,at\n{rows}x,bad,,\n"),
    )
    .unwrap();
    let (status, text) = run(
        place.path(),
        &[
            "test",
            "--record",
            "paid",
            "--rows",
            "3",
            "--redact",
            "status",
            "orders.pipe",
        ],
    );
    assert_eq!(status, 0, "{text}");
    let test = fs::read_to_string(place.path().join("orders_test.pipe")).unwrap();
    assert!(
        test.contains("status-1") && !test.contains("paid   |") && test.contains("expect paid snapshot"),
        "{test}"
    );
    fs::remove_file(place.path().join("orders.csv")).unwrap();
    assert_eq!(run(place.path(), &["test", "--accept"]).0, 0);
    assert_eq!(run(place.path(), &["test", "--ci"]).0, 0);
    let (status, text) = run(place.path(), &["test", "--record", "payd", "orders.pipe"]);
    assert!(status == 2 && text.contains("`paid` is close"), "{text}");
}

#[test]
fn a_host_compares_a_pipeline_with_an_insta_snapshot() {
    let fixture = Fixture::new(SCRIPT)
        .given("orders.csv", "id | status | qty\n1 | paid | 2\n2 | open | 3")
        .with("least", "2");
    standpipe::testing::assert_pipeline_snapshot!("host", fixture, "paid");
    let problem = fixture.clone().with("lest", "1").run("paid").unwrap_err();
    assert!(problem.contains("E0214"), "{problem}");
    assert!(fixture.run("payd").unwrap_err().contains("`paid` is close"));
}

/// Every block of the README's section, in order: a block behind a line that is only a name is that file, lines that begin with
/// `$` are run, and what follows them is what they say.
#[test]
fn the_path_of_the_readme_works_to_the_letter() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = readme
        .split("\n## Tests of a script\n")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = format!(
        "{}:{}",
        Path::new(PROGRAM).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let (mut files, mut commands) = (0, 0);
    let mut before = String::new();
    let mut rest = section;
    while let Some((text, behind)) = rest.split_once("```\n") {
        let (block, behind) = behind.split_once("```\n").unwrap();
        before.clone_from(&text.trim_end().lines().last().unwrap_or_default().to_owned());
        rest = behind;
        if let Some(name) = before.strip_prefix('`').and_then(|name| name.strip_suffix("`:")) {
            fs::write(place.path().join(name), block).unwrap();
            files += 1;
            continue;
        }
        for step in block.strip_prefix("$ ").unwrap().split("\n$ ") {
            let (command, wanted) = step.split_once('\n').unwrap_or((step, ""));
            let output = Command::new("sh")
                .args(["-c", &format!("{command} 2>&1")])
                .env("PATH", &path)
                .current_dir(&place)
                .output()
                .unwrap();
            assert_eq!(shown(&output).trim_end(), wanted.trim_end(), "$ {command}");
            commands += 1;
        }
    }
    assert!(files >= 2 && commands >= 5, "{files} {commands}");
}
