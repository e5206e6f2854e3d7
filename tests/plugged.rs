//! Tests of scripts that put a table in the place of a plugin's source, stage or function: no library is anywhere near.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::Path;
use std::process::Command;

const SCRIPT: &str = "use plugin geo \"^1\"
use plugin synth as made

stream ships = read csv \"ships.csv\"
  | geo.locate lat, lon within: 1_000_000 on error to lost
  | derive km = geo.haversine(lat, lon, 52, lon2: 13.5) / 1000

stream orders = read made.rows rows: 10_000 | filter price > 1

from ships | write csv \"located.csv\"
from lost | write jsonl \"lost.jsonl\"
from orders | write csv \"orders.csv\"
";

const SHIPS: &str = "  given \"ships.csv\" = table {\n    ship   | lat | lon\n    Aurora | 1.5 | 2\n    Boreas | 3   | 4\n    Calypso |    | 4\n  }\n";
const LOCATE: &str = "  with geo.locate = table {\n    lat | lon | city | ship\n    1.5 | 2   | Bari | A.\n        | 4   |      | C.\n    3   | 4   | Oslo | B.\n  } by lat, lon\n";
const HAVERSINE: &str = "  with geo.haversine = table {\n    lat | lon | lat2 | lon2 | metres\n    1.5 | 2   | 52   | 13.5 | 1000\n    3   | 4   | 52   | 13.5 | 2500.5\n        | 4   | 52   | 13.5 |\n  }\n";
const ORDERS: &str = "  with made.rows = rows [{id: 1, price: 1.5}, {id: 2, price: 1}]\n";

/// What `standpipe test` says of these tests of the script, without how long they took.
fn said(tests: &str, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ships.pipe"), SCRIPT).unwrap();
    fs::write(folder.path().join("ships_test.pipe"), tests).unwrap();
    run(folder.path(), arguments)
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_standpipe"))
        .arg("test")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let time = regex::Regex::new(r"\(\d+ ms\)").unwrap();
    (
        output.status.code().unwrap(),
        time.replace_all(&text, "(… ms)").into_owned(),
    )
}

#[test]
fn sources_stages_and_functions_answer_from_tables_under_all_settings() {
    let tests = format!(
        "test \"all\" {{\n{SHIPS}{LOCATE}{HAVERSINE}{ORDERS}  expect ships rows [
    {{ship: \"A.\", lat: 1.5, lon: 2, city: \"Bari\", km: 1.0}},
    {{ship: \"B.\", lat: 3.0, lon: 4, city: \"Oslo\", km: 2.5005}},
    {{ship: \"C.\", lat: null, lon: 4, city: null, km: null}}
  ]
  expect ships schema {{ ship: string?, lat: float?, lon: int?, city: string?, km: float? }}
  expect lost count == 0
  expect \"orders.csv\" rows [{{id: 1, price: 1.5}}]
}}
test \"rows that a stage gives whatever comes to it, and what nothing needs\" {{
  with geo.locate = rows [{{lat: 3.0, lon: 4.0, city: \"Oslo\"}}]
{HAVERSINE}  expect ships rows [{{city: \"Oslo\", km: 2.5005}}]
  expect \"located.csv\" count == 1
{ORDERS}}}
"
    );
    let (status, text) = said(&tests, &["--matrix"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("2 passed, 0 failed"), "{text}");
}

#[test]
fn what_the_table_does_not_answer_is_an_error_of_the_row() {
    let locate = "  with geo.locate = table {\n    lat | lon | city\n    1.5 | 2   | Bari\n  } by lat, lon\n";
    let tests = format!(
        "test \"a stage\" {{\n{SHIPS}{locate}{HAVERSINE}{ORDERS}  expect ships rows [{{ship: \"Aurora\"}}]
  expect lost rows [{{code: \"E1006\", message: \"the test's table for `geo.locate` has no row for (3.0, 4)\"}}, {{code: \"E1006\"}}]
}}
test \"a function\" {{\n{SHIPS}{LOCATE}{ORDERS}  with geo.haversine = table {{\n    a | b | c | lon2 | e\n    1.5 | 2 | 52 | 13.5 | 1\n  }}
  expect error E1006
}}
"
    );
    let (status, text) = said(&tests, &["--matrix"]);
    assert_eq!(status, 0, "{text}");
}

#[test]
fn mistakes_are_underlined_where_they_stand() {
    let test =
        |name: &str, steps: &str| format!("test \"{name}\" {{\n{SHIPS}{ORDERS}{steps}  expect ships count == 3\n}}\n");
    let tests = [
        test("nothing stands for a function", LOCATE),
        test(
            "names",
            "  with geo.locat = rows [{a: 1}], gee.x = rows [{a: 1}]\n  with made.orders = rows [{a: 1}]\n",
        ),
        test(
            "keys",
            &format!("{HAVERSINE}  with geo.locate = table {{\n    latt | city\n    1    | x\n  }} by lat, lom\n"),
        ),
        test(
            "cells",
            &format!(
                "{LOCATE}  with geo.haversine = table {{\n    a     | b | c  | lon2 | e\n    north | 1 | 52 | 13.5 | 0\n  }}\n"
            ),
        ),
        test(
            "arguments",
            &format!("{LOCATE}  with geo.haversine = table {{\n    a | b\n    1 | 2\n  }}\n"),
        ),
        test(
            "named arguments",
            &format!(
                "{LOCATE}  with geo.haversine = table {{\n    a | b | c  | d    | e\n    1 | 1 | 52 | 13.5 | 0\n  }}\n"
            ),
        ),
        test(
            "by",
            &format!(
                "  with geo.locate = table {{\n    lat | lon\n    1   | 2\n  }} by lat, lon\n{}",
                HAVERSINE.replace("\n  }\n", "\n  } by lat\n")
            ),
        ),
        test(
            "twice",
            &format!("{HAVERSINE}{LOCATE}  with geo.locate = rows []\n")
                .replace("    3   | 4   | Oslo", "    1.5 | 2   | Oslo"),
        ),
        test("no columns", &format!("{HAVERSINE}  with geo.locate = rows []\n")),
    ];
    let (status, text) = said(&tests.concat(), &[]);
    assert_eq!(status, 2, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_library_that_is_not_needed_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let tests = format!("test \"t\" {{\n{SHIPS}{LOCATE}{HAVERSINE}{ORDERS}  expect ships count == 3\n}}\n");
    fs::write(folder.path().join("ships.pipe"), SCRIPT).unwrap();
    fs::write(folder.path().join("ships_test.pipe"), &tests).unwrap();
    // Neither of these would be opened without an error.
    fs::write(
        folder.path().join("standpipe.toml"),
        "[plugins.geo]\npath = \"geo.so\"\n\n[plugins.synth]\npath = \"none.so\"\n",
    )
    .unwrap();
    fs::write(folder.path().join("geo.so"), "no library").unwrap();
    let (status, text) = run(folder.path(), &["--ci"]);
    assert_eq!(status, 0, "{text}");
    fs::write(folder.path().join("ships_test.pipe"), tests.replace(HAVERSINE, "")).unwrap();
    let (status, text) = run(folder.path(), &["--ci"]);
    assert!(
        status == 2 && text.contains("with geo.NAME = table { … }") && text.contains("error[E080"),
        "{text}"
    );
}
