//! Outcomes of tests: for people, and for programs.

use super::{Broken, Format, Outcome};
use crate::cli::print_data;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

/// How many tests have run, on a terminal.
pub(super) struct Progress {
    of: usize,
    on: bool,
}

impl Progress {
    pub(super) fn new(of: usize, on: bool) -> Self {
        Progress { of, on }
    }

    pub(super) fn show(&self, done: usize) {
        if self.on {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r{done} of {} tests", self.of);
            let _ = stderr.flush();
        }
    }

    pub(super) fn clear(&self) {
        if self.on {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}

pub(super) fn print(format: Format, outcomes: &[Outcome], broken: &[Broken], strays: &[PathBuf], ci: bool) -> u8 {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let text = match format {
        Format::Text => text(outcomes, broken.len(), strays, ci, colour),
        Format::Json => json_text(outcomes, broken, strays),
        Format::Junit => junit(outcomes, broken, if ci { strays } else { &[] }),
    };
    print_data(text.as_bytes())
}

fn text(outcomes: &[Outcome], broken: usize, strays: &[PathBuf], ci: bool, colour: bool) -> String {
    let mut text = String::new();
    let (mut failed, mut pending, mut accepted) = (0, 0, 0);
    for Outcome { script, test, verdict } in outcomes {
        let (word, paint) = if verdict.passed() {
            ("ok  ", "\u{1b}[32m")
        } else {
            ("FAIL", "\u{1b}[31m")
        };
        let word = if colour {
            format!("{paint}{word}\u{1b}[0m")
        } else {
            word.to_owned()
        };
        let took = verdict.elapsed.as_millis();
        let _ = writeln!(text, "{word} {script}: {test} ({took} ms)");
        failed += usize::from(!verdict.passed());
        pending += verdict.pending.len();
        accepted += verdict.accepted;
        for fault in &verdict.faults {
            let place = if fault.place.is_empty() {
                String::new()
            } else {
                format!("{}: ", fault.place)
            };
            let _ = writeln!(text, "     {place}{}", fault.message);
            for line in &fault.detail {
                let shown = if colour {
                    standpipe::testing::diff::coloured(std::slice::from_ref(line))
                } else {
                    format!("{line}\n")
                };
                let _ = write!(text, "       {shown}");
            }
        }
    }
    for stray in strays {
        let word = if ci { "FAIL" } else { "note" };
        let _ = writeln!(text, "{word} no test refers to {}", stray.display());
    }
    let passed = outcomes.len() - failed;
    let _ = write!(text, "{passed} passed, {failed} failed");
    if broken > 0 {
        let what = if broken == 1 { "script" } else { "scripts" };
        let _ = write!(text, ", {broken} {what} whose tests did not run");
    }
    if accepted > 0 {
        let _ = write!(
            text,
            ", {accepted} snapshot{} accepted",
            if accepted == 1 { "" } else { "s" }
        );
    }
    text.push('\n');
    if pending > 0 {
        let _ = writeln!(
            text,
            "{pending} snapshot{} to look at: `standpipe test --review` shows and asks, `--accept` takes what came",
            if pending == 1 { "" } else { "s" }
        );
    }
    text
}

fn json_text(outcomes: &[Outcome], broken: &[Broken], strays: &[PathBuf]) -> String {
    let outcome = |Outcome { script, test, verdict }: &Outcome| {
        let fault = |fault: &standpipe::testing::Fault| json!({ "message": fault.message, "place": fault.place, "detail": fault.detail });
        json!({
            "script": script,
            "test": test,
            "passed": verdict.passed(),
            "seconds": verdict.elapsed.as_secs_f64(),
            "faults": verdict.faults.iter().map(fault).collect::<Vec<_>>(),
            "pending": verdict.pending.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        })
    };
    let all = json!({
        "tests": outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "broken": broken.iter().map(|broken| json!({ "script": broken.script, "message": broken.message })).collect::<Vec<_>>(),
        "unreferenced": strays.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

fn junit(outcomes: &[Outcome], broken: &[Broken], strays: &[PathBuf]) -> String {
    let failed = outcomes.iter().filter(|outcome| !outcome.verdict.passed()).count();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuites tests=\"{}\" failures=\"{}\" errors=\"{}\">",
        outcomes.len() + broken.len() + strays.len(),
        failed + strays.len(),
        broken.len()
    );
    let mut at = 0;
    while let Some(first) = outcomes.get(at) {
        let suite: Vec<&Outcome> = outcomes[at..]
            .iter()
            .take_while(|outcome| outcome.script == first.script)
            .collect();
        at += suite.len();
        let failed = suite.iter().filter(|outcome| !outcome.verdict.passed()).count();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\">",
            escaped(&first.script),
            suite.len()
        );
        for Outcome { script, test, verdict } in suite {
            let head = format!(
                "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
                escaped(script),
                escaped(test),
                verdict.elapsed.as_secs_f64()
            );
            if verdict.passed() {
                let _ = writeln!(text, "{head}/>");
                continue;
            }
            let _ = writeln!(text, "{head}>");
            for fault in &verdict.faults {
                let detail = format!("{}\n{}", fault.place, fault.detail.join("\n"));
                let _ = writeln!(
                    text,
                    "      <failure message=\"{}\">{}</failure>",
                    escaped(&fault.message),
                    escaped(&detail)
                );
            }
            text.push_str("    </testcase>\n");
        }
        text.push_str("  </testsuite>\n");
    }
    for Broken { script, message } in broken {
        let script = escaped(script);
        let _ = writeln!(
            text,
            "  <testsuite name=\"{script}\" tests=\"1\" failures=\"0\" errors=\"1\">\n    <testcase classname=\"{script}\" name=\"its tests\">\n      <error message=\"the tests did not run\">{}</error>\n    </testcase>\n  </testsuite>",
            escaped(message)
        );
    }
    if !strays.is_empty() {
        let count = strays.len();
        let _ = writeln!(
            text,
            "  <testsuite name=\"snapshots\" tests=\"{count}\" failures=\"{count}\">"
        );
        for stray in strays {
            let _ = writeln!(
                text,
                "    <testcase classname=\"snapshots\" name=\"{}\">\n      <failure message=\"no test refers to this snapshot\"/>\n    </testcase>",
                escaped(&stray.display().to_string())
            );
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// Text in XML; control characters cannot stand there.
fn escaped(text: &str) -> String {
    let mut made = String::new();
    for c in text.chars() {
        match c {
            '&' => made.push_str("&amp;"),
            '<' => made.push_str("&lt;"),
            '>' => made.push_str("&gt;"),
            '"' => made.push_str("&quot;"),
            '\n' => made.push_str("&#10;"),
            c if c.is_control() && c != '\t' => made.push('\u{fffd}'),
            c => made.push(c),
        }
    }
    made
}
