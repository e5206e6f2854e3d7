//! Text that fits: a small printer of documents in the manner of Wadler.
//!
//! Laws
//! - A group is laid flat if it fits into what is left of the line and nothing in it forces a new line; else every [`Doc::Line`]
//!   directly in it is a new line.
//! - No recursion while printing: documents are as deep as the scripts they come from.

/// Columns of a line.
pub(super) const WIDTH: usize = 100;
/// Spaces of one level.
const INDENT: usize = 2;

/// A piece of text with places where it may break.
#[derive(Debug, Clone)]
pub(super) enum Doc {
    /// As it is; a newline in it (a string over several lines) is kept.
    Text(String),
    /// A blank or a new line.
    Line,
    /// Nothing or a new line.
    Soft,
    /// A new line, always; it breaks the groups around it.
    Hard,
    /// A comment behind something; what follows must begin with a new line.
    Comment(String),
    All(Vec<Doc>, bool),
    Nest(Vec<Doc>, bool),
    Group(Vec<Doc>, bool),
}

pub(super) fn text(text: impl Into<String>) -> Doc {
    Doc::Text(text.into())
}

pub(super) fn all(docs: Vec<Doc>) -> Doc {
    let forced = docs.iter().any(Doc::forced);
    Doc::All(docs, forced)
}

pub(super) fn nest(docs: Vec<Doc>) -> Doc {
    let forced = docs.iter().any(Doc::forced);
    Doc::Nest(docs, forced)
}

pub(super) fn group(docs: Vec<Doc>) -> Doc {
    let forced = docs.iter().any(Doc::forced);
    Doc::Group(docs, forced)
}

impl Doc {
    /// Whether there is a new line in it whatever the width.
    pub(super) fn forced(&self) -> bool {
        match self {
            Doc::Hard | Doc::Comment(_) => true,
            Doc::All(_, forced) | Doc::Nest(_, forced) | Doc::Group(_, forced) => *forced,
            Doc::Text(_) | Doc::Line | Doc::Soft => false,
        }
    }
}

/// Whether `doc` fits flat behind `column`.
pub(super) fn fits(doc: &Doc, column: usize) -> bool {
    !doc.forced() && fits_with(&[(0, true, doc)], column)
}

/// What stands on the stack of the printer, up to the next new line.
fn fits_with(rest: &[(usize, bool, &Doc)], mut column: usize) -> bool {
    let mut from = rest.len();
    let mut stack: Vec<(bool, &Doc)> = Vec::new();
    loop {
        let (flat, doc) = match stack.pop() {
            Some(next) => next,
            None if from == 0 => return true,
            None => {
                from -= 1;
                (rest[from].1, rest[from].2)
            }
        };
        match doc {
            Doc::Text(text) => {
                let first = text.split('\n').next().unwrap_or("");
                column += first.chars().count();
                if first.len() < text.len() {
                    return column <= WIDTH;
                }
            }
            Doc::Line if flat => column += 1,
            Doc::Soft if flat => {}
            Doc::Line | Doc::Soft | Doc::Hard | Doc::Comment(_) => return column <= WIDTH,
            Doc::All(docs, _) | Doc::Nest(docs, _) => stack.extend(docs.iter().rev().map(|doc| (flat, doc))),
            Doc::Group(docs, forced) => stack.extend(docs.iter().rev().map(|doc| (flat && !forced, doc))),
        }
        if column > WIDTH {
            return false;
        }
    }
}

/// Prints a document.
pub(super) fn print(doc: &Doc) -> String {
    let mut out = String::new();
    let mut column = 0;
    let mut stack = vec![(0usize, false, doc)];
    let new_line = |out: &mut String, indent: usize| {
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
        indent
    };
    while let Some((indent, flat, doc)) = stack.pop() {
        match doc {
            Doc::Text(text) => {
                out.push_str(text);
                column = match text.rfind('\n') {
                    Some(newline) => text[newline + 1..].chars().count(),
                    None => column + text.chars().count(),
                };
            }
            Doc::Comment(text) => {
                out.push_str("  ");
                out.push_str(text);
            }
            Doc::Line if flat => {
                out.push(' ');
                column += 1;
            }
            Doc::Soft if flat => {}
            Doc::Line | Doc::Soft | Doc::Hard => column = new_line(&mut out, indent),
            Doc::All(docs, _) => stack.extend(docs.iter().rev().map(|doc| (indent, flat, doc))),
            Doc::Nest(docs, _) => stack.extend(docs.iter().rev().map(|doc| (indent + INDENT, flat, doc))),
            Doc::Group(docs, forced) => {
                let before = stack.len();
                stack.extend(docs.iter().rev().map(|doc| (indent, true, doc)));
                let flat = flat || !forced && fits_with(&stack, column);
                for entry in &mut stack[before..] {
                    entry.1 = flat;
                }
            }
        }
    }
    out
}
