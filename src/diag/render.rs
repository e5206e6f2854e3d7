//! Diagnostics as text for a person and as JSON for a program.

use std::borrow::Cow;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, FileId, Label, Severity, Span};

/// Lines longer than this are shown only around the span: drawing a script that is one line of megabytes takes long.
const LINE_BYTES: usize = 2_000;
/// What is kept of such a line on each side.
const AROUND_BYTES: usize = 60;
/// A span over more lines than this is drawn at its first line only.
const SPAN_LINES: usize = 6;

/// A script that spans point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As shown: `orders.pipe`, `-e`.
    pub name: String,
    /// The whole script.
    pub text: String,
}

impl Source {
    /// A script under a name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// All of them with a blank line between; empty if there are none.
pub fn render_all(diagnostics: &[Diagnostic], sources: &[Source], colour: bool) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| render(diagnostic, sources, colour))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One diagnostic, ending in a newline.
pub fn render(diagnostic: &Diagnostic, sources: &[Source], colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(
        level
            .primary_title(printable(&diagnostic.message))
            .id(diagnostic.code.as_str()),
    );
    for (file, labels) in by_file(diagnostic) {
        let Some(source) = sources.get(usize::from(file.0)) else {
            continue;
        };
        group = add_source(group, source, &labels);
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.no_name().message(printable(note)));
    }
    for help in &diagnostic.helps {
        group = group.element(Level::HELP.message(printable(help)));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    without_empty_gutters(&renderer.render(&[group]))
}

/// The primary label's file first; in each file the primary label first. `true` marks the primary one.
fn by_file(diagnostic: &Diagnostic) -> Vec<(FileId, Vec<(&Label, bool)>)> {
    let mut files = vec![(diagnostic.primary.file, vec![(&diagnostic.primary, true)])];
    for label in &diagnostic.labels {
        match files.iter_mut().find(|(file, _)| *file == label.file) {
            Some((_, labels)) => labels.push((label, false)),
            None => files.push((label.file, vec![(label, false)])),
        }
    }
    files
}

fn add_source<'a>(group: Group<'a>, source: &'a Source, labels: &[(&'a Label, bool)]) -> Group<'a> {
    let text = source.text.as_str();
    let spans: Vec<std::ops::Range<usize>> = labels.iter().map(|(label, _)| clamp(text, label.span)).collect();
    let Some(first) = spans.first() else { return group };
    let long_line = |at: usize| line_end(text, at) - line_start(text, at) > LINE_BYTES;
    if spans.iter().any(|span| long_line(span.start) || long_line(span.end)) {
        return add_long_line(group, source, first.clone(), labels);
    }
    // Only the lines that are pointed at, so that a script of megabytes is not walked for every diagnostic.
    let from = spans.iter().map(|span| line_start(text, span.start)).min().unwrap_or(0);
    let to = spans
        .iter()
        .map(|span| line_end(text, span.end))
        .max()
        .unwrap_or(text.len());
    let kind = |primary: bool| {
        if primary {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        }
    };
    let mut snippet = Snippet::source(&text[from..to])
        .path(source.name.as_str())
        .line_start(1 + newlines(&text[..from]));
    for ((label, primary), span) in labels.iter().zip(&spans) {
        let annotation = kind(*primary).span(span.start - from..span.end - from);
        snippet = snippet.annotation(match label.text.is_empty() {
            true => annotation,
            false => annotation.label(label.text.as_str()),
        });
    }
    group.element(snippet)
}

/// The place in words and the part of the line around it.
fn add_long_line<'a>(
    group: Group<'a>,
    source: &'a Source,
    span: std::ops::Range<usize>,
    labels: &[(&'a Label, bool)],
) -> Group<'a> {
    let text = source.text.as_str();
    let (line, column) = line_column(text, span.start);
    let from = floor(
        text,
        span.start
            .saturating_sub(AROUND_BYTES)
            .max(line_start(text, span.start)),
    );
    let to = floor(text, (span.start + AROUND_BYTES).min(line_end(text, span.start)));
    let end = span.end.clamp(span.start, to.max(span.start));
    let annotation = AnnotationKind::Primary.span(span.start - from..end - from);
    let annotation = match labels.first().filter(|(label, _)| !label.text.is_empty()) {
        Some((label, _)) => annotation.label(label.text.as_str()),
        None => annotation,
    };
    group
        .element(Origin::path(source.name.as_str()).line(line).char_column(column))
        .element(
            Snippet::source(&text[from..to.max(from)])
                .line_start(line)
                .annotation(annotation),
        )
}

/// The crate draws a gutter line above and below each snippet; the style has none.
fn without_empty_gutters(rendered: &str) -> String {
    let mut out = String::with_capacity(rendered.len() + 1);
    for line in rendered.lines() {
        if !is_empty_gutter(line) {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

/// Whether a line shows nothing but blanks and one bar, whatever colours are in it.
fn is_empty_gutter(line: &str) -> bool {
    let mut bars = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                for c in chars.by_ref() {
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
            }
            '|' => bars += 1,
            ' ' => {}
            _ => return false,
        }
    }
    bars == 1
}

/// Control characters out of a script or out of data must not reach a terminal.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
            .collect(),
    )
}

/// An array of objects: `code severity message file line column span labels notes helps`. Lines and columns from 1, columns
/// in characters, spans in bytes.
pub fn json(diagnostics: &[Diagnostic], sources: &[Source]) -> String {
    serde_json::Value::Array(json_objects(diagnostics, sources)).to_string()
}

/// The same, an object per diagnostic.
pub fn json_objects(diagnostics: &[Diagnostic], sources: &[Source]) -> Vec<serde_json::Value> {
    let place = |label: &Label| {
        let source = sources.get(usize::from(label.file.0));
        let (line, column) = line_column(source.map_or("", |source| &source.text), label.span.start as usize);
        (source.map(|source| source.name.as_str()), line, column)
    };
    diagnostics
        .iter()
        .map(|diagnostic| {
            let (file, line, column) = place(&diagnostic.primary);
            let labels: Vec<serde_json::Value> = diagnostic
                .labels
                .iter()
                .map(|label| {
                    let (file, line, column) = place(label);
                    serde_json::json!({
                        "file": file, "line": line, "column": column, "text": label.text,
                        "span": { "start": label.span.start, "end": label.span.end },
                    })
                })
                .collect();
            serde_json::json!({
                "code": diagnostic.code.as_str(),
                "severity": diagnostic.severity.word(),
                "message": diagnostic.message,
                "label": diagnostic.primary.text,
                "file": file, "line": line, "column": column,
                "span": { "start": diagnostic.primary.span.start, "end": diagnostic.primary.span.end },
                "labels": labels,
                "notes": diagnostic.notes,
                "helps": diagnostic.helps,
            })
        })
        .collect()
}

/// Line and column of a byte, both from 1, the column in characters.
pub fn line_column(text: &str, byte: usize) -> (usize, usize) {
    let byte = floor(text, byte);
    let start = line_start(text, byte);
    (1 + newlines(&text[..start]), 1 + text[start..byte].chars().count())
}

/// The span within the text, at character boundaries, one line if it covers many.
fn clamp(text: &str, span: Span) -> std::ops::Range<usize> {
    let start = floor(text, span.start as usize);
    let end = floor(text, span.end as usize).max(start);
    let mut lines = memchr::memchr_iter(b'\n', &text.as_bytes()[start..end]);
    let first_line_end = lines.next().map(|at| start + at);
    match (first_line_end, lines.nth(SPAN_LINES - 2)) {
        (Some(first_line_end), Some(_)) => start..first_line_end.max(start),
        _ => start..end,
    }
}

fn newlines(text: &str) -> usize {
    memchr::memchr_iter(b'\n', text.as_bytes()).count()
}

fn line_start(text: &str, at: usize) -> usize {
    memchr::memrchr(b'\n', &text.as_bytes()[..at]).map_or(0, |newline| newline + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |newline| at + newline)
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::diag::DataPlace;

    fn top() -> Source {
        Source::new("top.pipe", "from orders\n  | filter amout > 10\n  | write csv \"x\"\n")
    }

    #[test]
    fn a_diagnostic_points_knows_and_helps() {
        let found = Diagnostic::error("E0204", Span::new(23, 28), "column `amout` not found")
            .labelled("`amount` is close")
            .note("rows here have `id: int`, `city: string`, `amount: float?`");
        assert_snapshot!(render(&found, &[top()], false), @r##"
    error[E0204]: column `amout` not found
     --> top.pipe:2:12
    2 |   | filter amout > 10
      |            ^^^^^ `amount` is close
      = rows here have `id: int`, `city: string`, `amount: float?`
    "##);
    }

    #[test]
    fn an_error_of_a_run_names_the_place_in_the_data() {
        let text = format!("{}  | derive n = int(raw)\n", "\n".repeat(13));
        let place = DataPlace {
            source: "data/orders.csv".into(),
            line: Some(88121),
            row: None,
            byte: Some(9441220),
            column: Some("raw".into()),
        };
        let found = Diagnostic::error("E0412", Span::new(13 + 15, 13 + 23), "cannot parse int from \"12,5O\"")
            .labelled("here")
            .help("`int(raw) catch 0`, or `on error to rejects`")
            .at_data(&place);
        assert_snapshot!(render(&found, &[Source::new("orders.pipe", text)], false), @r##"
    error[E0412]: cannot parse int from "12,5O"
      --> orders.pipe:14:16
    14 |   | derive n = int(raw)
       |                ^^^^^^^^ here
       = data/orders.csv, line 88121 (byte 9441220), column `raw`
       = help: `int(raw) catch 0`, or `on error to rejects`
    "##);
    }

    #[test]
    fn several_files_and_labels() {
        let other = Source::new("lib/clean.pipe", "fn gross(x: float) = x\n");
        let found = Diagnostic::warning("W0001", Span::new(12, 16), "`gross` hides a built-in")
            .also(Span::new(0, 4), "used from here")
            .also_in(FileId(1), Span::new(3, 8), "defined here");
        assert_snapshot!(render(&found, &[top(), other], false), @r##"
    warning[W0001]: `gross` hides a built-in
     --> top.pipe:2:1
    1 | from orders
      | ---- used from here
    2 |   | filter amout > 10
      | ^^^^
     ::: lib/clean.pipe:1:4
    1 | fn gross(x: float) = x
      |    ----- defined here
    "##);
    }

    #[test]
    fn spans_outside_the_text_are_clamped() {
        let sources = [Source::new("é.pipe", "é")];
        for (start, end) in [(0, 0), (1, 1), (0, 1), (2, 2), (5, 9), (1, 9)] {
            let found = Diagnostic::error("E0101", Span::new(start, end), "m");
            assert!(render(&found, &sources, true).contains("E0101"));
            assert!(render(&found, &[], false).contains("E0101"));
            assert!(json(std::slice::from_ref(&found), &sources).contains("E0101"));
        }
    }

    #[test]
    fn a_line_of_megabytes_is_shown_in_part() {
        let text = format!("{}é!{}", "x ".repeat(2_000_000), " y".repeat(2_000_000));
        let found = Diagnostic::error("E0101", Span::new(4_000_002, 4_000_003), "m").labelled("here");
        let rendered = render(&found, &[Source::new("big.pipe", text)], false);
        assert!(rendered.len() < 1_000, "{rendered}");
        assert!(rendered.contains("big.pipe:1:4000002"), "{rendered}");
    }

    #[test]
    fn json_has_lines_and_spans() {
        let found = Diagnostic::error("E0204", Span::new(23, 28), "column `amout` not found").help("`amount`");
        assert_snapshot!(json(&[found], &[top()]), @r##"
    [{"code":"E0204","column":12,"file":"top.pipe","helps":["`amount`"],"label":"","labels":[],"line":2,"message":"column `amout` not found","notes":[],"severity":"error","span":{"end":28,"start":23}}]
    "##);
    }
}
