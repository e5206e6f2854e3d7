//! The body of `table { }`, the one place where lines matter.
//!
//! Laws
//! - A row is a line, the first names the columns, every row has as many cells.
//! - A cell is a literal, a list or record of literals, or text up to `|`; `#` behind a blank begins a comment.
//! - The text of a cell is kept: in `given` it is read as the replaced column's type.

use std::ops::Range;

use pest::Parser as _;

use super::ast::{Cell, CellValue, Expr, ExprKind, Ident, Table, UnaryOp};
use super::build::Builder;
use super::parse::{PipeParser, Rule};
use crate::diag::{Diagnostic, Span};

/// A cell with more brackets than this is text: its literals would be parsed recursively.
const BRACKETS: usize = 64;

/// One line of a table, as offsets into it.
pub(super) struct Line {
    /// Without the blanks around.
    pub(super) cells: Vec<Range<usize>>,
    /// From the `#` to the end of the line.
    pub(super) comment: Option<Range<usize>>,
}

/// Cuts a line at the bars outside of quotes.
pub(super) fn split(line: &str) -> Line {
    let bytes = line.as_bytes();
    let mut cells = Vec::new();
    let mut start = 0;
    let mut at = 0;
    let mut comment = None;
    // Where the cell's text begins. Quotes count only there, and within a list or a record: `5" pipe` is text.
    let mut first: Option<usize> = None;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'#' && (at == 0 || matches!(bytes[at - 1], b' ' | b'\t' | b'|')) {
            comment = Some(at..line.trim_end().len().max(at));
            break;
        }
        if byte == b'|' {
            cells.push(trim(line, start..at));
            start = at + 1;
            first = None;
        } else if !matches!(byte, b' ' | b'\t' | b'\r') {
            let first = *first.get_or_insert(at);
            let prefixed = at == first + 1 && matches!(bytes[first], b'r' | b'b');
            let raw = prefixed && bytes[first] == b'r';
            if byte == b'"' && (at == first || prefixed || matches!(bytes[first], b'[' | b'{'))
                || byte == b'`' && at == first
            {
                at += 1;
                while at < bytes.len() && bytes[at] != byte {
                    at += if bytes[at] == b'\\' && !raw { 2 } else { 1 };
                }
            }
        }
        at += 1;
    }
    let end = comment.as_ref().map_or(line.len(), |comment| comment.start);
    let last = trim(line, start.min(end)..end);
    if !(cells.is_empty() && last.is_empty()) {
        cells.push(last);
    }
    Line { cells, comment }
}

fn trim(line: &str, range: Range<usize>) -> Range<usize> {
    let text = &line[range.clone()];
    let start = range.start + (text.len() - text.trim_start().len());
    start..(range.start + text.trim_end().len()).max(start)
}

/// The lines between the braces of the table at `span`, with the offset of each in the script.
pub(super) fn lines(text: &str, span: Span) -> impl Iterator<Item = (usize, &str)> {
    let whole = span.of(text);
    let open = open_brace(whole);
    let close = whole.rfind('}').unwrap_or(whole.len());
    let body = whole.get(open..close).unwrap_or("");
    let mut at = span.start as usize + open;
    let lines: Vec<(usize, &str)> = body
        .split_inclusive('\n')
        .map(|line| {
            let start = at;
            at += line.len();
            (start, line.trim_end_matches(['\n', '\r']))
        })
        .collect();
    // What stands behind the last newline is the indentation of the closing brace.
    let count = lines.len().saturating_sub(usize::from(!body.ends_with('\n')));
    lines.into_iter().take(count)
}

/// Behind the opening brace; there may be comments between it and the word.
fn open_brace(whole: &str) -> usize {
    super::scan::skip_gap(whole, "table".len()) + 1
}

pub(super) fn table(builder: &Builder<'_>, span: Span) -> Table {
    let mut columns: Vec<Ident> = Vec::new();
    let mut rows = Vec::new();
    let mut header: Option<Span> = None;
    for (start, line) in lines(builder.text, span) {
        let cells = split(line).cells;
        if cells.is_empty() {
            continue;
        }
        let place = |cell: &Range<usize>| Span::new(start + cell.start, start + cell.end);
        let line_span = Span::new(start + cells[0].start, start + cells.last().map_or(0, |cell| cell.end));
        let Some(header) = header else {
            header = Some(line_span);
            columns = cells
                .iter()
                .map(|cell| column(builder, &line[cell.clone()], place(cell)))
                .collect();
            continue;
        };
        if cells.len() != columns.len() {
            let many = |count: usize| {
                if count == 1 {
                    "1 cell".to_owned()
                } else {
                    format!("{count} cells")
                }
            };
            builder.report(
                Diagnostic::error("E0118", line_span, format!("the row has {}", many(cells.len())))
                    .also(
                        header,
                        format!("the table has {}", many(columns.len()).replace("cell", "column")),
                    )
                    .help("an empty cell is null: `1 | | x`; text with a bar stands in quotes"),
            );
            continue;
        }
        let row: Vec<Cell> = cells
            .iter()
            .map(|cell| self::cell(builder, &line[cell.clone()], place(cell)))
            .collect();
        rows.push(row);
    }
    if header.is_none() {
        builder.report(
            Diagnostic::error(
                "E0118",
                Span::new(span.start as usize, span.start as usize + 5),
                "the table has no columns",
            )
            .help("its first line names them: `id | name`"),
        );
    }
    builder.once("column", columns.iter());
    Table { columns, rows, span }
}

fn column(builder: &Builder<'_>, text: &str, span: Span) -> Ident {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    let quoted = text.len() > 2 && text.starts_with('`') && text.ends_with('`');
    if !plain && !quoted {
        let message = if text.is_empty() {
            "a column needs a name".to_owned()
        } else {
            format!("`{text}` is not a name")
        };
        builder.report(
            Diagnostic::error("E0118", span, message)
                .help("the first line of a table names its columns; other names stand in backticks"),
        );
    }
    Ident {
        text: text.trim_matches('`').to_owned(),
        quoted,
        span,
    }
}

fn cell(builder: &Builder<'_>, text: &str, span: Span) -> Cell {
    if text.is_empty() {
        return Cell {
            text: String::new(),
            value: CellValue::Empty,
            span,
        };
    }
    let brackets = text
        .bytes()
        .filter(|byte| matches!(byte, b'[' | b'{' | b'(' | b'-'))
        .count();
    let literal = (brackets <= BRACKETS)
        .then(|| PipeParser::parse(Rule::cell, text).ok())
        .flatten()
        .and_then(|mut pairs| {
            let inner = Builder::new(builder.text, span.start as usize);
            let expr = inner.cell(pairs.next()?);
            let diagnostics = inner.finish();
            // `2026-13-45` or `12ab` is text; a string with a bad escape or in single quotes is a mistake.
            let text_is_meant = diagnostics
                .iter()
                .any(|found| !matches!(found.code.as_str(), "E0107" | "E0109" | "E0119"));
            if text_is_meant {
                return None;
            }
            for diagnostic in diagnostics {
                builder.report(diagnostic);
            }
            expr.filter(is_constant)
        });
    match literal {
        Some(expr) => {
            let text = match &expr.kind {
                ExprKind::Str(value) => value.clone(),
                _ => text.to_owned(),
            };
            Cell {
                text,
                value: CellValue::Literal(expr),
                span,
            }
        }
        None => {
            if text.starts_with('"') {
                builder.report(
                    Diagnostic::error("E0118", span, "the quoted cell does not end at its quote")
                        .help("a cell is one literal or bare text; a quote within a string is `\\\"`"),
                );
            }
            Cell {
                text: text.to_owned(),
                value: CellValue::Text,
                span,
            }
        }
    }
}

/// `[draft]` is text, `["draft"]` a list.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::List(items) => items.iter().all(is_constant),
        ExprKind::Record(fields) => fields.iter().all(|field| is_constant(&field.value)),
        ExprKind::Unary {
            op: UnaryOp::Neg,
            operand,
            ..
        } => is_constant(operand),
        ExprKind::Name(_)
        | ExprKind::Param(_)
        | ExprKind::Let(_)
        | ExprKind::Binary { .. }
        | ExprKind::Unary { .. }
        | ExprKind::Range { .. }
        | ExprKind::Call { .. }
        | ExprKind::Method { .. }
        | ExprKind::Field { .. }
        | ExprKind::Index { .. }
        | ExprKind::If { .. }
        | ExprKind::Match { .. }
        | ExprKind::Lambda { .. }
        | ExprKind::FString(_) => false,
        _ => true,
    }
}
