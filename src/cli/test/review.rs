//! `--review`: one snapshot after the other, with a question.

use super::Outcome;
use crate::cli::{colour, say};
use standpipe::testing::{diff, snapshot};
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Shows what waits and does what is answered. A test all of whose faults were such snapshots, accepted now, passes.
pub(super) fn review(outcomes: &mut [Outcome]) {
    let count: usize = outcomes.iter().map(|outcome| outcome.verdict.pending.len()).sum();
    let mut stdin = std::io::stdin().lock();
    let mut at = 0;
    for outcome in outcomes {
        let mut left: Vec<PathBuf> = vec![];
        for path in std::mem::take(&mut outcome.verdict.pending) {
            at += 1;
            let title = format!("{at} of {count}: {}: {}", outcome.script, outcome.test);
            match ask(&title, &path, &mut stdin) {
                Answer::Accept => match snapshot::accept(&path) {
                    Ok(()) => {
                        outcome.verdict.accepted += 1;
                        let shown = path.display().to_string();
                        outcome.verdict.faults.retain(|fault| !fault.message.ends_with(&shown));
                    }
                    Err(message) => say(&format!("error: {message}")),
                },
                Answer::Reject => {
                    if let Err(message) = snapshot::reject(&path) {
                        say(&format!("error: {message}"));
                    }
                }
                Answer::Skip => left.push(path),
                Answer::Quit => {
                    left.push(path);
                    outcome.verdict.pending = left;
                    return;
                }
            }
        }
        outcome.verdict.pending = left;
    }
}

enum Answer {
    Accept,
    Reject,
    Skip,
    Quit,
}

fn ask(title: &str, path: &Path, stdin: &mut impl BufRead) -> Answer {
    let old = snapshot::read(path).ok().flatten();
    let new = snapshot::read(&snapshot::pending(path))
        .ok()
        .flatten()
        .unwrap_or_default();
    let lines = match &old {
        Some(old) => diff::texts(old, &new),
        None => diff::new(&new),
    };
    let shown = if colour() {
        diff::coloured(&lines)
    } else {
        format!("{}\n", lines.join("\n"))
    };
    say(&format!("{title}\n{}\n\n{shown}", path.display()));
    loop {
        say("accept (a), reject (r), skip (s), quit (q)?");
        let mut line = String::new();
        match stdin.read_line(&mut line) {
            // Nobody answers: nothing changes.
            Ok(0) | Err(_) => return Answer::Quit,
            Ok(_) => match line.trim() {
                "a" | "accept" => return Answer::Accept,
                "r" | "reject" => return Answer::Reject,
                "s" | "skip" | "" => return Answer::Skip,
                "q" | "quit" => return Answer::Quit,
                _ => {}
            },
        }
    }
}
