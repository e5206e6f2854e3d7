//! `standpipe fmt`: the canonical text of a script.
//!
//! Laws
//! - The tree of the result is the tree of the input, every comment is kept; both are checked before anything is returned.
//! - Formatting the result changes nothing.
//! - Literals and names stay as they are written; a pipeline, a list or a block that stood on one line stays there if it fits,
//!   one that was broken stays broken.
//!
//! Comments belong to what they stand before, or to what they stand behind in the same line. Where there is no place for one (within
//! an operator's expression), it moves in front of the stage or behind the statement.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};

use super::ast::*;
use super::layout::{self, Doc, all, fits, group, nest, text};
use super::{parse, scan, table};
use crate::diag::{Diagnostic, Span};

/// Cells are padded to at most this width.
const CELL: usize = 40;

/// The canonical text of a script, or the diagnostics of one that has errors.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    parse::on_deep_stack(|| format_here(text))
}

fn format_here(text: &str) -> Result<String, Vec<Diagnostic>> {
    let parsed = parse::parse(text);
    if parsed.has_errors() {
        return Err(parsed.diagnostics);
    }
    let comments = parsed.comments.iter().map(|comment| (comment.span, false)).collect();
    let mut formatter = Formatter {
        text,
        comments,
        first_unused: 0,
    };
    let out = formatter.script(&parsed.script);
    let again = parse::parse(&out);
    let comments = |text: &str, comments: &[parse::Comment]| {
        let mut texts: Vec<String> = comments
            .iter()
            .map(|comment| comment.span.of(text).trim_matches(['#', ' ', '\t', '\r']).to_owned())
            .collect();
        texts.sort_unstable();
        texts
    };
    if again.has_errors()
        || shape(&again.script) != shape(&parsed.script)
        || comments(&out, &again.comments) != comments(text, &parsed.comments)
    {
        return Err(vec![
            Diagnostic::error(
                "E0999",
                Span::new(0, 0),
                "the formatted script would not be the same script",
            )
            .note("nothing was changed"),
        ]);
    }
    Ok(out)
}

/// A hash of a tree without its spans.
pub(super) fn shape(script: &Script) -> u64 {
    /// Takes a debug print and leaves out `@12..34`.
    struct Spanless {
        hasher: DefaultHasher,
        in_span: bool,
    }
    impl std::fmt::Write for Spanless {
        fn write_str(&mut self, s: &str) -> std::fmt::Result {
            for byte in s.bytes() {
                self.in_span = byte == b'@' || self.in_span && (byte.is_ascii_digit() || byte == b'.');
                if !self.in_span {
                    self.hasher.write_u8(byte);
                }
            }
            Ok(())
        }
    }
    let mut spanless = Spanless {
        hasher: DefaultHasher::new(),
        in_span: false,
    };
    // Writing to a hasher does not fail.
    let _ = write!(spanless, "{:?}{:?}", script.doc, script.items);
    spanless.hasher.finish()
}

struct Formatter<'a> {
    text: &'a str,
    /// Where they are, and whether they are printed already.
    comments: Vec<(Span, bool)>,
    /// All before it are printed.
    first_unused: usize,
}

/// One element of a list, and the comment behind it.
struct Piece {
    doc: Doc,
    trailing: Option<String>,
}

impl<'a> Formatter<'a> {
    // ---- comments ----

    /// The comments that begin before `end` and are not printed yet.
    fn take(&mut self, end: u32) -> Vec<Span> {
        self.take_within(Span { start: 0, end })
    }

    /// Those of `within` only: a list takes none that stand before it.
    fn take_within(&mut self, within: Span) -> Vec<Span> {
        let mut taken = Vec::new();
        for (span, used) in self.comments.iter_mut().skip(self.first_unused) {
            if span.start >= within.end {
                break;
            }
            if span.start < within.start {
                continue;
            }
            if !std::mem::replace(used, true) {
                taken.push(*span);
            }
        }
        while self.comments.get(self.first_unused).is_some_and(|(_, used)| *used) {
            self.first_unused += 1;
        }
        taken
    }

    fn comment(&self, span: Span) -> String {
        span.of(self.text).trim_end().to_owned()
    }

    /// The comment in the same line behind `end`, before `limit`.
    fn trailing(&mut self, end: u32, limit: u32) -> Option<String> {
        let at = self.comments[self.first_unused..].iter().position(|(_, used)| !used)? + self.first_unused;
        let span = self.comments[at].0;
        let between = self.text.get(end as usize..span.start as usize)?;
        if span.start >= limit || between.contains('\n') {
            return None;
        }
        self.comments[at].1 = true;
        Some(self.comment(span))
    }

    fn has_comments(&self, span: Span) -> bool {
        self.comments[self.first_unused..]
            .iter()
            .take_while(|(comment, _)| comment.start < span.end)
            .any(|(comment, used)| !used && comment.start >= span.start)
    }

    fn slice(&self, span: Span) -> Doc {
        text(span.of(self.text))
    }

    /// Whether a new line follows the byte at `open`, where a bracket stands.
    fn broken(&self, open: usize) -> bool {
        self.text
            .get(open + 1..)
            .and_then(|rest| rest.lines().next())
            .is_some_and(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    }

    /// The bracket behind the last element, which ends at `end`; there may be a comma before it.
    fn closing(&self, end: u32) -> usize {
        let at = scan::skip_gap(self.text, end as usize);
        if self.text.as_bytes().get(at) == Some(&b',') {
            scan::skip_gap(self.text, at + 1)
        } else {
            at
        }
    }

    /// Something on a line of its own: its comments, itself, the comment behind it.
    fn unit(&mut self, span: Span, limit: u32, build: impl FnOnce(&mut Self) -> Doc) -> Piece {
        self.unit_from(0, span, limit, build)
    }

    /// The same with comments from the byte `from` on.
    fn unit_from(&mut self, from: u32, span: Span, limit: u32, build: impl FnOnce(&mut Self) -> Doc) -> Piece {
        let mut docs = Vec::new();
        for comment in self.take_within(Span {
            start: from,
            end: span.start,
        }) {
            docs.push(text(self.comment(comment)));
            docs.push(Doc::Hard);
        }
        let body = build(self);
        for comment in self.take_within(Span {
            start: from,
            end: span.end,
        }) {
            docs.push(text(self.comment(comment)));
            docs.push(Doc::Hard);
        }
        docs.push(body);
        Piece {
            doc: all(docs),
            trailing: self.trailing(span.end, limit),
        }
    }

    /// `open a, b close`: flat if it fits and stood so, else an element a line.
    fn sequence<T>(
        &mut self,
        (open, close): (&str, &str),
        pad: Doc,
        span: Span,
        elements: &[T],
        place: impl Fn(&T) -> Span,
        mut build: impl FnMut(&mut Self, &T) -> Doc,
    ) -> Doc {
        if elements.is_empty() {
            return text(format!("{open}{close}"));
        }
        let mut force = self.broken(span.start as usize + open.len() - 1) || self.has_comments(span);
        let mut inside = vec![pad.clone()];
        for (at, element) in elements.iter().enumerate() {
            let limit = elements.get(at + 1).map_or(span.end, |next| place(next).start);
            let piece = self.unit_from(span.start, place(element), limit, |formatter| build(formatter, element));
            inside.push(piece.doc);
            let last = at + 1 == elements.len();
            if !last {
                inside.push(text(","));
            }
            inside.extend(piece.trailing.map(Doc::Comment));
            if !last {
                inside.push(Doc::Line);
            }
        }
        for comment in self.take_within(span) {
            inside.push(Doc::Hard);
            inside.push(text(self.comment(comment)));
            force = true;
        }
        let mut docs = vec![text(open), nest(inside), pad];
        docs.push(text(close));
        if force {
            return force_break(docs);
        }
        group(docs)
    }

    // ---- statements ----

    fn script(&mut self, script: &Script) -> String {
        let mut out = String::new();
        let mut last_end: Option<usize> = None;
        for (at, item) in script.items.iter().enumerate() {
            for comment in self.take(item.span.start) {
                self.separate(&mut out, last_end, comment.start as usize);
                out.push_str(&self.comment(comment));
                out.push('\n');
                last_end = Some(comment.end as usize);
            }
            self.separate(&mut out, last_end, item.span.start as usize);
            let doc = self.item(item);
            let inner = self.take(item.span.end);
            let limit = script.items.get(at + 1).map_or(u32::MAX, |next| next.span.start);
            out.push_str(layout::print(&doc).trim_end());
            if let Some(trailing) = self.trailing(item.span.end, limit) {
                out.push_str("  ");
                out.push_str(&trailing);
            }
            out.push('\n');
            for comment in inner {
                // It must not become the documentation of what follows.
                let comment = self.comment(comment);
                out.push_str(&format!("#{}\n", comment.trim_start_matches('#')));
            }
            last_end = Some(item.span.end as usize);
        }
        for comment in self.take(u32::MAX) {
            self.separate(&mut out, last_end, comment.start as usize);
            out.push_str(&self.comment(comment));
            out.push('\n');
            last_end = Some(comment.end as usize);
        }
        out
    }

    /// One blank line where the script has blank lines; two statements of one line come on two.
    fn separate(&self, out: &mut String, last_end: Option<usize>, start: usize) {
        let between = last_end.and_then(|end| self.text.get(end..start)).unwrap_or("");
        let blank = between
            .split('\n')
            .skip(1)
            .filter(|line| line.trim().is_empty())
            .count()
            >= 2
            || between.matches('\n').count() >= 2 && !between.contains('#');
        if blank && last_end.is_some() {
            out.push('\n');
        }
    }

    fn item(&mut self, item: &Item) -> Doc {
        match &item.kind {
            ItemKind::Use(used) => {
                let mut docs = vec![text("use ")];
                match &used.target {
                    UseTarget::Script(path) => docs.push(self.slice(path.span)),
                    UseTarget::Plugin { name, version } => {
                        docs.push(text("plugin "));
                        docs.push(self.slice(name.span));
                        if let Some(version) = version {
                            docs.push(text(" "));
                            docs.push(self.slice(version.span));
                        }
                    }
                }
                if let Some(alias) = &used.alias {
                    docs.push(text(" as "));
                    docs.push(self.slice(alias.span));
                }
                all(docs)
            }
            ItemKind::Param(param) => {
                let mut docs = vec![text("param "), self.slice(param.name.span), text(": ")];
                if let Some(ty) = &param.ty {
                    docs.push(self.type_expr(ty));
                }
                for (at, choice) in param.choices.iter().enumerate() {
                    if at > 0 {
                        docs.push(text(" | "));
                    }
                    docs.push(self.expr(choice));
                }
                if let Some(default) = &param.default {
                    docs.push(text(" = "));
                    docs.push(self.expr(default));
                }
                all(docs)
            }
            ItemKind::Secret(secret) => all(vec![text("secret "), self.slice(secret.name.span)]),
            ItemKind::Let(value) => all(vec![
                text("let "),
                self.slice(value.name.span),
                text(" = "),
                self.expr(&value.value),
            ]),
            ItemKind::Schema(schema) => {
                let name = self.slice(schema.name.span);
                let open = scan::skip_gap(self.text, schema.name.span.end as usize);
                let span = Span::new(open, item.span.end as usize);
                all(vec![
                    text("schema "),
                    name,
                    text(" "),
                    self.fields(&schema.fields, span, Doc::Line),
                ])
            }
            ItemKind::Fn(function) => {
                let name = self.slice(function.name.span);
                let params = self.fn_params(&function.params, function.name.span.end);
                let mut docs = vec![text("fn "), name, params];
                if let Some(returns) = &function.returns {
                    docs.push(text(": "));
                    docs.push(self.type_expr(returns));
                }
                docs.push(text(" = "));
                docs.push(self.expr(&function.body));
                all(docs)
            }
            ItemKind::Stage(stage) => {
                let name = self.slice(stage.name.span);
                let params = self.fn_params(&stage.params, stage.name.span.end);
                let from = stage.params.last().map_or(stage.name.span.end, |param| param.span.end) as usize;
                let to = stage.body.first().map_or(item.span.end, |call| call.span.start) as usize;
                let open = self
                    .text
                    .get(from..to)
                    .and_then(|between| between.find('{'))
                    .map_or(from, |at| from + at);
                let chain = self.chain_block(&stage.body, Span::new(open, item.span.end as usize));
                all(vec![text("stage "), name, params, text(" "), chain])
            }
            ItemKind::Stream(stream) => {
                let start = all(vec![text("stream "), self.slice(stream.name.span), text(" = ")]);
                self.pipeline(start, &stream.pipeline)
            }
            ItemKind::Pipeline(pipeline) => self.pipeline(text(""), pipeline),
            ItemKind::Test(test) => self.test(test, item.span),
            ItemKind::Attribute(attribute) => {
                let name = all(vec![text("@"), self.slice(attribute.name.span)]);
                if attribute.args.is_empty() {
                    return name;
                }
                let open = scan::skip_gap(self.text, attribute.name.span.end as usize);
                let span = Span::new(open, item.span.end as usize);
                let args = self.sequence(
                    ("(", ")"),
                    Doc::Soft,
                    span,
                    &attribute.args,
                    |arg| arg.span,
                    |this, arg| {
                        let value = this.option_value(&arg.value);
                        match &arg.name {
                            Some(name) => all(vec![this.slice(name.span), text(": "), value]),
                            None => value,
                        }
                    },
                );
                all(vec![name, args])
            }
        }
    }

    fn fn_params(&mut self, params: &[FnParam], open: u32) -> Doc {
        let open = scan::skip_gap(self.text, open as usize);
        let end = params.last().map_or(open, |param| self.closing(param.span.end));
        self.sequence(
            ("(", ")"),
            Doc::Soft,
            Span::new(open, end),
            params,
            |param| param.span,
            |this, param| {
                let mut docs = vec![this.slice(param.name.span), text(": "), this.type_expr(&param.ty)];
                if let Some(default) = &param.default {
                    docs.push(text(" = "));
                    docs.push(this.expr(default));
                }
                all(docs)
            },
        )
    }

    fn fields(&mut self, fields: &[FieldDef], span: Span, pad: Doc) -> Doc {
        self.sequence(
            ("{", "}"),
            pad,
            span,
            fields,
            |field| field.span,
            |this, field| all(vec![this.slice(field.name.span), text(": "), this.type_expr(&field.ty)]),
        )
    }

    fn test(&mut self, test: &Test, span: Span) -> Doc {
        let mut inside = Vec::new();
        for (at, step) in test.steps.iter().enumerate() {
            let limit = test.steps.get(at + 1).map_or(span.end, |next| next.span.start);
            let piece = self.unit(step.span, limit, |this| this.step(step));
            inside.push(Doc::Hard);
            inside.push(piece.doc);
            inside.extend(piece.trailing.map(Doc::Comment));
        }
        for comment in self.take(span.end) {
            inside.push(Doc::Hard);
            inside.push(text(self.comment(comment)));
        }
        let empty = inside.is_empty();
        let mut docs = vec![text("test "), self.slice(test.name.span), text(" {"), nest(inside)];
        if !empty {
            docs.push(Doc::Hard);
        }
        docs.push(text("}"));
        all(docs)
    }

    fn step(&mut self, step: &TestStep) -> Doc {
        match &step.kind {
            TestStepKind::Given { target, value } => {
                let target = match target {
                    GivenTarget::Stream(name) => self.slice(name.span),
                    GivenTarget::Source(path) => self.slice(path.span),
                };
                let value = match value {
                    GivenValue::Table(table) => self.table(table),
                    GivenValue::Rows(rows) => self.rows(rows, step.span, "rows "),
                    GivenValue::File(path) => all(vec![text("file "), self.slice(path.span)]),
                };
                all(vec![text("given "), target, text(" = "), value])
            }
            TestStepKind::With(bindings) => {
                let mut docs = Vec::new();
                for (at, binding) in bindings.iter().enumerate() {
                    if at > 0 {
                        docs.push(text(","));
                        docs.push(Doc::Line);
                    }
                    docs.push(match binding {
                        Binding::Value { name, value } => {
                            all(vec![self.slice(name.span), text(" = "), self.expr(value)])
                        }
                        Binding::Plugged(plugged) => self.plugged(plugged),
                    });
                }
                // One table stands where the line begins, as behind `given`.
                if let [Binding::Plugged(_)] = bindings.as_slice() {
                    docs.insert(0, text("with "));
                    return all(docs);
                }
                group(vec![text("with "), nest(docs)])
            }
            TestStepKind::Expect(expect) => all(vec![text("expect "), self.expect(expect, step.span)]),
        }
    }

    fn plugged(&mut self, plugged: &Plugged) -> Doc {
        let value = match &plugged.value {
            GivenValue::Table(table) => self.table(table),
            GivenValue::Rows(rows) => self.rows(rows, plugged.span, "rows "),
            GivenValue::File(path) => self.slice(path.span),
        };
        let mut docs = vec![
            self.slice(plugged.module.span),
            text("."),
            self.slice(plugged.name.span),
            text(" = "),
            value,
        ];
        for (at, name) in plugged.by.iter().enumerate() {
            docs.push(text(if at == 0 { " by " } else { ", " }));
            docs.push(self.slice(name.span));
        }
        all(docs)
    }

    fn expect(&mut self, expect: &Expect, span: Span) -> Doc {
        match expect {
            Expect::Rows {
                stream,
                any_order,
                rows,
                options,
            } => {
                let rows_word = if *any_order { " rows any_order " } else { " rows " };
                let mut docs = vec![
                    self.slice(stream.name.span),
                    self.rows(
                        rows,
                        Span {
                            start: stream.name.span.end,
                            ..span
                        },
                        rows_word,
                    ),
                ];
                for option in options {
                    docs.push(text(" "));
                    docs.push(self.option(option));
                }
                all(docs)
            }
            Expect::Schema { stream, fields } => {
                let name = self.slice(stream.name.span);
                let from = stream.name.span.end as usize;
                let open = self
                    .text
                    .get(from..)
                    .and_then(|rest| rest.find('{'))
                    .map_or(from, |at| from + at);
                let fields = self.fields(fields, Span::new(open, span.end as usize), Doc::Line);
                all(vec![name, text(" schema "), fields])
            }
            Expect::Count { stream, op, value } => all(vec![
                self.slice(stream.name.span),
                text(format!(" count {} ", op.text())),
                self.expr(value),
            ]),
            Expect::Snapshot { stream, options } => {
                let mut docs = vec![self.slice(stream.name.span), text(" snapshot")];
                for option in options {
                    docs.push(text(" "));
                    docs.push(self.option(option));
                }
                all(docs)
            }
            Expect::PeakMemory { op, value } => {
                all(vec![text(format!("peak memory {} ", op.text())), self.expr(value)])
            }
            Expect::PeakDisk { op, value } => all(vec![text(format!("peak disk {} ", op.text())), self.expr(value)]),
            Expect::Error { code } => all(vec![text("error "), self.slice(code.span)]),
            Expect::PlanSnapshot => text("plan snapshot"),
        }
    }

    /// `rows [ … ]`, the bracket is looked for in `span`.
    fn rows(&mut self, rows: &[Expr], span: Span, word: &str) -> Doc {
        let to = rows.first().map_or(span.end, |row| row.span.start) as usize;
        let from = span.start as usize;
        let open = self
            .text
            .get(from..to)
            .and_then(|before| before.rfind('['))
            .map_or(from, |at| from + at);
        let end = rows.last().map_or(open, |row| self.closing(row.span.end));
        let list = Span::new(open, end);
        all(vec![
            text(word),
            self.sequence(
                ("[", "]"),
                Doc::Soft,
                list,
                rows,
                |row| row.span,
                |this, row| this.expr(row),
            ),
        ])
    }

    fn table(&mut self, table: &Table) -> Doc {
        let mut lines: Vec<(Vec<&str>, Option<&str>)> = Vec::new();
        // Comments between the word and the brace have no other place.
        let mut at = table.span.start as usize + "table".len();
        while let Some(found) = self
            .text
            .get(at..)
            .map(|rest| at + rest.len() - rest.trim_start().len())
            && self.text[found..].starts_with('#')
        {
            let line = self.text[found..].lines().next().unwrap_or("");
            lines.push((Vec::new(), Some(line.trim_end())));
            at = found + line.len();
        }
        for (_, line) in table::lines(self.text, table.span) {
            let parts = table::split(line);
            let cells: Vec<&str> = parts.cells.iter().map(|cell| &line[cell.clone()]).collect();
            let comment = parts.comment.map(|comment| line[comment].trim_end());
            if !cells.is_empty() || comment.is_some() {
                lines.push((cells, comment));
            }
        }
        let width = |cell: &str| cell.chars().count().min(CELL);
        let mut widths = vec![0; table.columns.len()];
        for (cells, _) in &lines {
            for (most, cell) in widths.iter_mut().zip(cells) {
                *most = width(cell).max(*most);
            }
        }
        let mut rows = Vec::new();
        for (cells, comment) in lines {
            let mut row = String::new();
            for (at, cell) in cells.iter().enumerate() {
                if at > 0 {
                    row.push_str(" | ");
                }
                row.push_str(cell);
                if at + 1 < cells.len() {
                    let padding = widths
                        .get(at)
                        .copied()
                        .unwrap_or(0)
                        .saturating_sub(cell.chars().count());
                    row.extend(std::iter::repeat_n(' ', padding));
                }
            }
            let row = row.trim_end();
            rows.push(Doc::Hard);
            rows.push(match comment {
                Some(comment) if row.is_empty() => text(comment),
                Some(comment) => text(format!("{row}  {comment}")),
                None => text(row),
            });
        }
        all(vec![text("table {"), nest(rows), Doc::Hard, text("}")])
    }

    // ---- pipelines ----

    fn pipeline(&mut self, start: Doc, pipeline: &Pipeline) -> Doc {
        let one_line = !pipeline.span.of(self.text).contains('\n') && !self.has_comments(pipeline.span);
        let head = self.head(&pipeline.head);
        let first = pipeline.stages.first().map_or(u32::MAX, |stage| stage.span.start);
        // A statement that is only a head leaves its comments to the statement.
        let inner = if pipeline.stages.is_empty() {
            Vec::new()
        } else {
            self.take(pipeline.head.span.end)
        };
        let one_line = one_line && inner.is_empty();
        let trailing = if pipeline.stages.is_empty() {
            None
        } else {
            self.trailing(pipeline.head.span.end, first)
        };
        if one_line {
            return self
                .one_line(vec![start, head], " | ", &pipeline.stages, "", 0)
                .unwrap_or_else(|calls| {
                    let [start, head, calls @ ..] = calls.as_slice() else {
                        return all(calls);
                    };
                    let stages = calls
                        .iter()
                        .flat_map(|call| [Doc::Hard, text("| "), call.clone()])
                        .collect();
                    all(vec![start.clone(), head.clone(), nest(stages)])
                });
        }
        let mut stages = Vec::new();
        // A comment within the head has no line of its own above it.
        for comment in inner {
            stages.push(Doc::Hard);
            stages.push(text(self.comment(comment)));
        }
        for (at, stage) in pipeline.stages.iter().enumerate() {
            // The comment behind the last stage is the statement's.
            let limit = pipeline
                .stages
                .get(at + 1)
                .map_or(stage.span.end, |next| next.span.start);
            let piece = self.unit(stage.span, limit, |this| all(vec![text("| "), this.call(stage)]));
            stages.push(Doc::Hard);
            stages.push(piece.doc);
            stages.extend(piece.trailing.map(Doc::Comment));
        }
        let mut docs = vec![start, head];
        docs.extend(trailing.map(Doc::Comment));
        docs.push(nest(stages));
        all(docs)
    }

    /// Stages in one line behind `before`, if they fit at `column`; else `before` and the stages one by one, so that none is
    /// built twice: blocks nest.
    fn one_line(
        &mut self,
        before: Vec<Doc>,
        first: &str,
        stages: &[StageCall],
        close: &str,
        column: usize,
    ) -> Result<Doc, Vec<Doc>> {
        let mut flat = before.clone();
        let mut parts = before;
        for (at, stage) in stages.iter().enumerate() {
            let call = self.call(stage);
            flat.push(text(if at == 0 { first } else { " | " }));
            flat.push(call.clone());
            parts.push(call);
        }
        flat.push(text(close));
        let flat = group(flat);
        if fits(&flat, column) { Ok(flat) } else { Err(parts) }
    }

    /// `{ a | b }` of a `tee` or of a fragment.
    fn chain_block(&mut self, stages: &[StageCall], span: Span) -> Doc {
        let one_line = !span.of(self.text).contains('\n') && !self.has_comments(span);
        if one_line {
            // The block stands behind a few words; what is too long comes back here broken, and stays so.
            return self
                .one_line(Vec::new(), "{ ", stages, " }", 30)
                .unwrap_or_else(|calls| {
                    let mut inside = Vec::new();
                    if let Some((first, rest)) = calls.split_first() {
                        let rest = rest
                            .iter()
                            .flat_map(|call| [Doc::Hard, text("| "), call.clone()])
                            .collect();
                        inside = vec![Doc::Hard, first.clone(), nest(rest)];
                    }
                    all(vec![text("{"), nest(inside), Doc::Hard, text("}")])
                });
        }
        let mut inside = Vec::new();
        if let Some((first, rest)) = stages.split_first() {
            let limit = rest.first().map_or(span.end, |next| next.span.start);
            let piece = self.unit(first.span, limit, |this| this.call(first));
            inside.push(Doc::Hard);
            inside.push(piece.doc);
            inside.extend(piece.trailing.map(Doc::Comment));
            let mut more = Vec::new();
            for (at, stage) in rest.iter().enumerate() {
                let limit = rest.get(at + 1).map_or(span.end, |next| next.span.start);
                let piece = self.unit(stage.span, limit, |this| all(vec![text("| "), this.call(stage)]));
                more.push(Doc::Hard);
                more.push(piece.doc);
                more.extend(piece.trailing.map(Doc::Comment));
            }
            inside.push(nest(more));
        }
        for comment in self.take(span.end) {
            inside.push(Doc::Hard);
            inside.push(text(self.comment(comment)));
        }
        all(vec![text("{"), nest(inside), Doc::Hard, text("}")])
    }

    fn head(&mut self, head: &Head) -> Doc {
        match &head.kind {
            HeadKind::Stream(name) => all(vec![text("from "), self.slice(name.span)]),
            HeadKind::Table(table) => all(vec![text("from "), self.table(table)]),
            HeadKind::Rows(rows) => self.rows(rows, head.span, "from rows "),
            HeadKind::Range(args) => {
                let args = self.args(args, head.span);
                all(vec![text("from range"), args])
            }
            HeadKind::Read(call) => self.call(call),
        }
    }

    fn call(&mut self, call: &StageCall) -> Doc {
        let name: Vec<&str> = call.name.iter().map(|part| part.span.of(self.text)).collect();
        let mut docs = vec![text(name.join("."))];
        if let Some(mode) = &call.mode {
            docs.push(text(" "));
            docs.push(self.slice(mode.span));
        }
        let mut rest = Vec::new();
        for (at, item) in call.items.iter().enumerate() {
            if at > 0 {
                rest.push(text(","));
            }
            rest.push(if at == 0 { text(" ") } else { Doc::Line });
            rest.push(self.stage_item(item));
        }
        if let Some(name) = &call.as_name {
            rest.push(Doc::Line);
            rest.push(all(vec![text("as "), self.slice(name.span)]));
        }
        for (word, items) in [("on ", &call.on), ("by ", &call.by)] {
            for (at, item) in items.iter().enumerate() {
                rest.push(if at == 0 { Doc::Line } else { text(", ") });
                if at == 0 {
                    rest.push(text(word));
                }
                rest.push(self.stage_item(item));
            }
        }
        let mut before: Option<u32> = None;
        for option in &call.options {
            let comma = before
                .and_then(|end| self.text.get(end as usize..option.span.start as usize))
                .is_some_and(|between| between.contains(','));
            if comma {
                rest.push(text(","));
            }
            rest.push(if rest.is_empty() { text(" ") } else { Doc::Line });
            rest.push(self.option(option));
            before = Some(option.span.end);
        }
        let on_error = call.on_error.as_ref().map(|on_error| self.on_error(on_error));
        match &call.block {
            Some(block) => {
                docs.push(nest(rest));
                let mut docs = vec![group(docs), text(" "), self.block(block)];
                if let Some(on_error) = on_error {
                    docs.push(text(" "));
                    docs.push(on_error);
                }
                all(docs)
            }
            None => {
                if let Some(on_error) = on_error {
                    rest.push(Doc::Line);
                    rest.push(on_error);
                }
                docs.push(nest(vec![nest(rest)]));
                group(docs)
            }
        }
    }

    fn stage_item(&mut self, item: &StageItem) -> Doc {
        let value = match &item.value {
            ItemValue::Expr(expr) => self.expr(expr),
            ItemValue::All => text("*"),
            ItemValue::AllOf(name) => all(vec![self.slice(name.span), text(".*")]),
        };
        match &item.name {
            Some(name) => all(vec![self.slice(name.span), text(" = "), value]),
            None => value,
        }
    }

    fn option(&mut self, option: &StageOption) -> Doc {
        let between = self
            .text
            .get(option.name.span.end as usize..option.value.span().start as usize)
            .unwrap_or(":");
        let colon = if option.name.is("with") && !between.contains(':') {
            " "
        } else {
            ": "
        };
        all(vec![
            self.slice(option.name.span),
            text(colon),
            self.option_value(&option.value),
        ])
    }

    fn option_value(&mut self, value: &OptionValue) -> Doc {
        match value {
            OptionValue::Expr(expr) => self.expr(expr),
            OptionValue::Type(ty) => self.type_expr(ty),
            OptionValue::Percent { span, .. } => self.slice(*span),
            OptionValue::OpenRange { low, high, .. } => {
                let low = low.as_ref().map(|low| self.expr(low));
                let high = high.as_ref().map(|high| self.expr(high));
                all(low.into_iter().chain([text("..")]).chain(high).collect())
            }
        }
    }

    fn on_error(&mut self, on_error: &OnError) -> Doc {
        let mut docs = vec![text("on error ")];
        match &on_error.policy {
            Policy::Fail => docs.push(text("fail")),
            Policy::Skip => docs.push(text("skip")),
            Policy::Null => docs.push(text("null")),
            Policy::To(name) => docs.extend([text("to "), self.slice(name.span)]),
        }
        match &on_error.limit {
            Some(ErrorLimit::Count(expr)) => docs.extend([text(" limit: "), self.expr(expr)]),
            Some(ErrorLimit::Percent { span, .. }) => docs.extend([text(" limit: "), self.slice(*span)]),
            None => {}
        }
        all(docs)
    }

    fn block(&mut self, block: &Block) -> Doc {
        match &block.kind {
            BlockKind::Stages(stages) => self.chain_block(stages, block.span),
            BlockKind::Arms(arms) => self.sequence(
                ("{", "}"),
                Doc::Line,
                block.span,
                arms,
                |arm| arm.span,
                |this, arm| {
                    let condition = match &arm.condition {
                        Some(condition) => all(vec![text("when "), this.expr(condition)]),
                        None => text("else"),
                    };
                    all(vec![condition, text(" => "), this.slice(arm.target.span)])
                },
            ),
        }
    }

    // ---- types ----

    fn type_expr(&mut self, ty: &TypeExpr) -> Doc {
        let kind = match &ty.kind {
            TypeKind::Decimal(Some((precision, scale))) => text(format!("decimal({precision}, {scale})")),
            TypeKind::List(element) => all(vec![text("list<"), self.type_expr(element), text(">")]),
            TypeKind::Record(fields) => self.fields(fields, ty.span, Doc::Soft),
            TypeKind::Named(path) => {
                let path: Vec<&str> = path.iter().map(|name| name.span.of(self.text)).collect();
                text(path.join("."))
            }
            other => text(other.word().unwrap_or_default()),
        };
        if ty.nullable { all(vec![kind, text("?")]) } else { kind }
    }

    // ---- expressions ----

    fn expr(&mut self, expr: &Expr) -> Doc {
        let inside = self.bare(expr);
        if expr.parenthesised {
            return group(vec![text("("), nest(vec![Doc::Soft, inside]), Doc::Soft, text(")")]);
        }
        inside
    }

    fn bare(&mut self, expr: &Expr) -> Doc {
        match &expr.kind {
            ExprKind::FString(_) => {
                // What stands in its holes stays as it is, comments too.
                let from = self.comments.partition_point(|(span, _)| span.start < expr.span.start);
                for (span, used) in &mut self.comments[from..] {
                    if span.start >= expr.span.end {
                        break;
                    }
                    *used = true;
                }
                self.literal(expr)
            }
            ExprKind::List(items) => {
                let span = self.within_parentheses(expr, '[');
                self.sequence(
                    ("[", "]"),
                    Doc::Soft,
                    span,
                    items,
                    |item| item.span,
                    |this, item| this.expr(item),
                )
            }
            ExprKind::Record(fields) => {
                let span = self.within_parentheses(expr, '{');
                let place = |field: &RecordField| field.name.span.to(field.value.span);
                self.sequence(("{", "}"), Doc::Soft, span, fields, place, |this, field| {
                    all(vec![this.slice(field.name.span), text(": "), this.expr(&field.value)])
                })
            }
            ExprKind::Int(i64::MIN) => text(i64::MIN.to_string()),
            ExprKind::Name(name) => self.slice(name.span),
            ExprKind::Param(name) => all(vec![text("param."), self.slice(name.span)]),
            ExprKind::Let(name) => all(vec![text("let."), self.slice(name.span)]),
            ExprKind::Binary { .. } => {
                let mut docs = Vec::new();
                self.operands(expr, &mut docs);
                group(vec![nest(docs)])
            }
            ExprKind::Unary {
                op: UnaryOp::Neg,
                operand,
                ..
            } => all(vec![text("-"), self.expr(operand)]),
            ExprKind::Unary {
                op: UnaryOp::Not,
                operand,
                ..
            } => all(vec![text("not "), self.expr(operand)]),
            ExprKind::Range { low, high } => all(vec![self.expr(low), text(".."), self.expr(high)]),
            ExprKind::Call { name, args } => {
                let span = Span {
                    start: name.span.end,
                    end: expr.span.end,
                };
                all(vec![self.slice(name.span), self.args(args, span)])
            }
            ExprKind::Method { receiver, name, args } => {
                let receiver = self.expr(receiver);
                let span = Span {
                    start: name.span.end,
                    end: expr.span.end,
                };
                all(vec![receiver, text("."), self.slice(name.span), self.args(args, span)])
            }
            ExprKind::Field {
                receiver,
                name,
                optional,
            } => {
                let dot = if *optional { "?." } else { "." };
                all(vec![self.expr(receiver), text(dot), self.slice(name.span)])
            }
            ExprKind::Index { receiver, index } => {
                all(vec![self.expr(receiver), text("["), self.expr(index), text("]")])
            }
            ExprKind::If { .. } => {
                let mut docs = Vec::new();
                let mut next = expr;
                while let ExprKind::If {
                    condition,
                    then,
                    otherwise,
                } = &next.kind
                {
                    docs.extend([
                        text("if "),
                        self.expr(condition),
                        Doc::Line,
                        text("then "),
                        self.expr(then),
                    ]);
                    let Some(otherwise) = otherwise else { break };
                    docs.extend([Doc::Line, text("else ")]);
                    if otherwise.parenthesised || !matches!(otherwise.kind, ExprKind::If { .. }) {
                        docs.push(self.expr(otherwise));
                        break;
                    }
                    next = otherwise;
                }
                group(vec![nest(docs)])
            }
            ExprKind::Match {
                subject,
                arms,
                otherwise,
            } => self.match_expr(expr, subject, arms, otherwise.as_deref()),
            ExprKind::Lambda { params, body } => {
                let names: Vec<&str> = params.iter().map(|param| param.span.of(self.text)).collect();
                let params = if names.len() == 1 {
                    names.join("")
                } else {
                    format!("({})", names.join(", "))
                };
                all(vec![text(params), text(" => "), self.expr(body)])
            }
            _ => self.literal(expr),
        }
    }

    /// Operators of one binding strength break together.
    fn operands(&mut self, expr: &Expr, docs: &mut Vec<Doc>) {
        let mut chain = Vec::new();
        let mut leftmost = expr;
        while let ExprKind::Binary { op, left, right, .. } = &leftmost.kind {
            if !chain.is_empty()
                && (leftmost.parenthesised || chain.last().is_some_and(|(last, _)| strength(*last) != strength(*op)))
            {
                break;
            }
            chain.push((*op, right));
            leftmost = left;
        }
        docs.push(self.expr(leftmost));
        for (op, right) in chain.into_iter().rev() {
            docs.extend([Doc::Line, text(format!("{} ", op.text())), self.expr(right)]);
        }
    }

    fn match_expr(&mut self, expr: &Expr, subject: &Expr, arms: &[MatchArm], otherwise: Option<&Expr>) -> Doc {
        enum Arm<'m> {
            Of(&'m MatchArm),
            Else(&'m Expr),
        }
        let head = self.expr(subject);
        let open = scan::skip_gap(self.text, subject.span.end as usize);
        let mut all_arms: Vec<Arm<'_>> = arms.iter().map(Arm::Of).collect();
        all_arms.extend(otherwise.map(Arm::Else));
        let end = self
            .text
            .get(..expr.span.end as usize)
            .and_then(|before| before.rfind('}'))
            .unwrap_or(open);
        let span = Span::new(open, end);
        let place = |arm: &Arm<'_>| match arm {
            Arm::Of(arm) => arm.span,
            Arm::Else(value) => value.span,
        };
        let arms = self.sequence(("{", "}"), Doc::Line, span, &all_arms, place, |this, arm| match arm {
            Arm::Of(arm) => {
                let mut docs = Vec::new();
                for (at, pattern) in arm.patterns.iter().enumerate() {
                    if at > 0 {
                        docs.push(text(" | "));
                    }
                    docs.push(match &pattern.kind {
                        PatternKind::Literal(literal) => this.expr(literal),
                        PatternKind::Range { low, high } => {
                            let low = low.as_ref().map(|low| this.expr(low));
                            let high = high.as_ref().map(|high| this.expr(high));
                            all(low.into_iter().chain([text("..")]).chain(high).collect())
                        }
                    });
                }
                docs.push(text(" => "));
                docs.push(this.expr(&arm.value));
                all(docs)
            }
            Arm::Else(value) => all(vec![text("else => "), this.expr(value)]),
        });
        all(vec![text("match "), head, text(" "), arms])
    }

    /// The arguments whose parenthesis stands in `span`.
    fn args(&mut self, args: &[Arg], span: Span) -> Doc {
        let from = span.start as usize;
        let open = self
            .text
            .get(from..span.end as usize)
            .and_then(|rest| rest.find('('))
            .map_or(from, |at| from + at);
        let end = args.last().map_or(open + 1, |arg| self.closing(arg.value.span.end));
        let place = |arg: &Arg| {
            arg.name
                .as_ref()
                .map_or(arg.value.span, |name| name.span.to(arg.value.span))
        };
        self.sequence(("(", ")"), Doc::Soft, Span::new(open, end), args, place, |this, arg| {
            let value = this.expr(&arg.value);
            match &arg.name {
                Some(name) => all(vec![this.slice(name.span), text(": "), value]),
                None => value,
            }
        })
    }

    /// The span of a bracketed expression without the parentheses around it.
    fn within_parentheses(&self, expr: &Expr, open: char) -> Span {
        if !expr.parenthesised {
            return expr.span;
        }
        let start = expr.span.of(self.text).find(open).unwrap_or(0);
        Span {
            start: expr.span.start + u32::try_from(start).unwrap_or(0),
            end: expr.span.end,
        }
    }

    /// A literal as it is written, without the parentheses around it.
    fn literal(&self, expr: &Expr) -> Doc {
        let mut written = expr.span.of(self.text);
        while expr.parenthesised && written.starts_with('(') {
            let from = scan::skip_gap(written, 1);
            written = written.get(from..written.len().saturating_sub(1)).unwrap_or("");
            written = trim_gap_end(written);
        }
        text(written)
    }
}

/// Without blanks and comments at the end; the literal is what the scanner sees first.
fn trim_gap_end(written: &str) -> &str {
    if written.starts_with('(') {
        return written.trim_end();
    }
    let mut scanner = scan::Scanner::new(written, 0);
    let mut end = 0;
    while let Some(token) = scanner.next() {
        if token.kind == scan::TokenKind::Comment && scanner.open().is_empty() {
            break;
        }
        end = token.end;
    }
    written.get(..end).unwrap_or(written)
}

/// Operators of the same number may stand in one chain.
fn strength(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 0,
        BinaryOp::And => 1,
        BinaryOp::Coalesce | BinaryOp::Catch => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem => 5,
        BinaryOp::Pow => 6,
        _ => 2,
    }
}

/// A group that is broken whatever the width.
fn force_break(docs: Vec<Doc>) -> Doc {
    Doc::Group(docs, true)
}
