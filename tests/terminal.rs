//! `standpipe test --review` on a terminal: what somebody sees who answers its questions.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

/// What `standpipe test` shows on a terminal that gives one of the `answers` at each question, and its exit status.
fn on_a_terminal(folder: &Path, arguments: &[&str], answers: &[&str]) -> (String, i32) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, vec![]).unwrap().into_string().unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_standpipe"))
        .arg("test")
        .args(arguments)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let mut ours = File::from(ours);
    let (mut shown, mut bytes) = (String::new(), [0; 4096]);
    let (mut answers, mut asked) = (answers.iter(), 0);
    // Once the other end is closed reading is an error.
    while let Ok(read @ 1..) = ours.read(&mut bytes) {
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        // The whole line: what is typed is shown where it comes in between.
        let questions = shown.matches("quit (q)?\r\n").count();
        if questions > asked {
            asked = questions;
            writeln!(ours, "{}", answers.next().unwrap_or(&"q")).unwrap();
        }
    }
    let status = child.wait().unwrap();
    (shown.replace("\r\n", "\n"), status.code().unwrap())
}

#[test]
fn a_review_shows_cells_in_colours_asks_again_and_does_what_is_answered() {
    let place = tempfile::tempdir().unwrap();
    let script = |by: &str| {
        let text = format!(
            "read csv \"orders.csv\" | aggregate orders = count() by {by}\ntest \"t\" {{\n  given \"orders.csv\" = table {{\n    id | country\n    1  | de\n    2  | it\n  }}\n  expect \"-\" snapshot\n  expect \"-\" count == 2\n}}\n"
        );
        fs::write(place.path().join("orders.pipe"), text).unwrap();
    };
    let snapshot = || fs::read_to_string(place.path().join("snapshots/orders__t__printed.snap"));
    script("country");
    let (shown, status) = on_a_terminal(place.path(), &["--review"], &["accept"]);
    assert_eq!(status, 0, "{shown}");
    assert!(shown.contains("\u{1b}[32m+ de      | 1\u{1b}[0m\n"), "{shown}");
    assert!(snapshot().unwrap().ends_with("de      | 1\nit      | 1\n"));
    script("country = upper(country)");
    let (shown, status) = on_a_terminal(place.path(), &["--review"], &["what?", "skip"]);
    assert_eq!(status, 1, "{shown}");
    for part in [
        "1 of 1: orders.pipe: t\nsnapshots/orders__t__printed.snap\n",
        "\u{1b}[33m~\u{1b}[0m \u{1b}[31mde\u{1b}[0m → \u{1b}[32mDE\u{1b}[0m | 1\n",
        "accept (a), reject (r), skip (s), quit (q)?\nwhat?\naccept (a), reject (r), skip (s), quit (q)?\nskip\n",
        "\u{1b}[31mFAIL\u{1b}[0m orders.pipe: t",
        "1 snapshot to look at",
    ] {
        assert!(shown.contains(part), "{part:?}\n{shown}");
    }
    let (shown, status) = on_a_terminal(place.path(), &["--review"], &["r"]);
    assert_eq!(status, 1, "{shown}");
    assert!(!place.path().join("snapshots/orders__t__printed.snap.new").exists());
    assert!(snapshot().unwrap().contains("de      | 1"));
    let (shown, status) = on_a_terminal(place.path(), &["--review"], &["a"]);
    assert_eq!(status, 0, "{shown}");
    assert!(shown.contains("\u{1b}[32mok  \u{1b}[0m orders.pipe: t") && shown.contains("1 snapshot accepted"));
    assert!(snapshot().unwrap().contains("DE      | 1"));
}
