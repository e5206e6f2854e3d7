//! Text to syntax tree: statement by statement, so that every error of a script is reported at once.
//!
//! Laws
//! - Any text gives an answer: no panic, no overflow of the stack, time linear in the text.
//! - The nesting limit is counted on the text before pest sees it; deep text is parsed on a thread with a large stack.
//! - After an error the parser goes on at the next line that begins with a declaration word or `@name`.

use pest::Parser as _;
use pest_derive::Parser;

use super::ast::{Item, Script};
use super::build::Builder;
use super::{message, scan};
use crate::diag::{Diagnostic, Span};

/// The grammar.
#[derive(Parser)]
#[grammar = "../grammar/pipe.pest"]
pub(super) struct PipeParser;

/// A script with more is not read.
const MOST_BYTES: usize = 16 << 20;
/// After so many the rest of the script is not read.
pub(super) const MOST_DIAGNOSTICS: usize = 50;
/// Text that goes deeper than this is parsed on a stack of its own.
const SHALLOW: usize = 16;
/// Room for 256 levels of pest in a build without optimisation; pages that are not touched cost nothing.
const DEEP_STACK_BYTES: usize = if cfg!(debug_assertions) { 256 << 20 } else { 64 << 20 };

/// A comment outside of tables and f-strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// From the `#` to the end of the line.
    pub span: Span,
    /// Nothing but blanks stands before it in its line.
    pub own_line: bool,
}

/// What a script says, as far as it could be read.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The statements without errors, and those whose errors are within a literal.
    pub script: Script,
    /// In the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// In the order of the text.
    pub comments: Vec<Comment>,
}

impl Parsed {
    fn failed(text: &str, diagnostic: Diagnostic) -> Parsed {
        Parsed {
            script: Script {
                span: Span::new(0, text.len()),
                ..Script::default()
            },
            diagnostics: vec![diagnostic],
            comments: Vec::new(),
        }
    }

    /// Whether there is an error among the diagnostics.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Bytes of a script as text, or what is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<&str, Box<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &bytes[..at]).count();
        let message = format!("byte {at} in line {line} is not UTF-8");
        Box::new(Diagnostic::error("E0101", Span::new(at, at + 1), message).help("a script is a text in UTF-8"))
    })
}

/// Parses a script. The tree holds what could be read in spite of errors.
pub fn parse(text: &str) -> Parsed {
    if text.len() > MOST_BYTES {
        let diagnostic = Diagnostic::error("E0102", Span::new(0, 0), "the script is larger than 16 MiB")
            .help("data belongs in files that `read` reads");
        return Parsed::failed(text, diagnostic);
    }
    match scan::nesting(text) {
        Err(at) => {
            let diagnostic = Diagnostic::error(
                "E0103",
                Span::new(at, scan::word_end(text, at).max(at + 1)),
                "nested too deeply",
            )
            .labelled(format!("level {} begins here", scan::NESTING + 1))
            .help("`let`, `fn`, `stage` and `derive` give parts a name");
            Parsed::failed(text, diagnostic)
        }
        Ok(depth) if depth <= SHALLOW => statements(text),
        Ok(_) => on_deep_stack(|| statements(text)),
    }
}

/// Runs `work` on a thread whose stack has room for a tree of the greatest depth, whoever the caller is.
pub fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // The closure is handed over only if the thread starts.
    let mut slot = Some(work);
    let mut result = None;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("syntax".to_owned())
            .stack_size(DEEP_STACK_BYTES);
        let started = thread.spawn_scoped(scope, || result = slot.take().map(|work| work()));
        if let Ok(started) = started
            && let Err(panic) = started.join()
        {
            std::panic::resume_unwind(panic);
        }
    });
    // Without a second thread this stack has to do; pest's own guard reports what it cannot hold.
    match (result, slot) {
        (Some(result), _) => result,
        (None, Some(work)) => work(),
        (None, None) => unreachable!("the work was taken and its result is not there"),
    }
}

fn statements(text: &str) -> Parsed {
    let comments = comments(text);
    let mut parsed = Parsed {
        script: Script {
            doc: None,
            items: Vec::new(),
            span: Span::new(0, text.len()),
        },
        diagnostics: Vec::new(),
        comments,
    };
    let byte_order_mark = if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    };
    let mut at = scan::skip_gap(text, byte_order_mark);
    while at < text.len() {
        if parsed.diagnostics.len() >= MOST_DIAGNOSTICS {
            parsed.diagnostics.truncate(MOST_DIAGNOSTICS);
            parsed.diagnostics.push(
                Diagnostic::error("E0122", Span::new(at, at), "too many errors").labelled("the rest is not read"),
            );
            break;
        }
        let rest = &text[at..];
        match PipeParser::parse(Rule::entry, rest) {
            Ok(mut pairs) => {
                let Some(pair) = pairs.next() else { break };
                let builder = Builder::new(text, at);
                let span = builder.item_span(&pair);
                if let Some(kind) = builder.item(pair) {
                    parsed.script.items.push(Item { doc: None, kind, span });
                }
                parsed.diagnostics.extend(builder.finish());
                // A statement has at least one byte; the maximum only guards against standing still.
                at = scan::skip_gap(text, (span.end as usize).max(at + 1));
            }
            Err(error) => {
                let failure = message::syntax_error(text, at, &error);
                parsed.diagnostics.push(failure.diagnostic);
                let line = memchr::memrchr(b'\n', &text.as_bytes()[..at]).map_or(0, |found| found + 1);
                match scan::next_statement_line(text, failure.resume.max(at + 1), at - line) {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
    }
    // Within a statement they come in the order of the tree.
    parsed
        .diagnostics
        .sort_by_key(|diagnostic| diagnostic.primary.span.start);
    documentation(text, &mut parsed);
    parsed
}

fn comments(text: &str) -> Vec<Comment> {
    let mut line = 0;
    scan::Scanner::new(text, 0)
        .filter_map(|token| {
            let own_line = token.start == 0
                || text
                    .get(line..token.start)
                    .is_some_and(|between| between.contains('\n'));
            let first = line == 0 && text[..token.start].trim().is_empty();
            line = token.end;
            (token.kind == scan::TokenKind::Comment).then(|| Comment {
                span: token.span(),
                own_line: own_line || first,
            })
        })
        .collect()
}

/// Gives the `##` blocks to what they document.
fn documentation(text: &str, parsed: &mut Parsed) {
    let mut comments = parsed.comments.iter().filter(|comment| comment.own_line).peekable();
    let mut first = true;
    for item in &mut parsed.script.items {
        // The comments before the item, cut into the last block and what is before it.
        let mut block: Vec<&Comment> = Vec::new();
        let mut blocks: Vec<Vec<&Comment>> = Vec::new();
        while let Some(comment) = comments.next_if(|comment| comment.span.start < item.span.start) {
            let is_doc = is_doc(comment.span.of(text));
            let joined = block
                .last()
                .is_some_and(|last| newlines(text, last.span.end, comment.span.start) == 1);
            if !(is_doc && joined) {
                blocks.push(std::mem::take(&mut block));
            }
            if is_doc {
                block.push(comment);
            }
        }
        let directly = block
            .last()
            .is_some_and(|last| newlines(text, last.span.end, item.span.start) == 1);
        let is_attribute = matches!(item.kind, super::ast::ItemKind::Attribute(_));
        if directly && !is_attribute {
            item.doc = Some(doc_text(text, &block));
        } else {
            blocks.push(block);
        }
        if first {
            let top = blocks.iter().find(|block| !block.is_empty()).filter(|block| {
                block.first().is_some_and(|comment| {
                    text[..comment.span.start as usize].lines().all(|line| {
                        let line = line.trim_matches(['\u{feff}', ' ', '\t', '\r']);
                        line.is_empty() || line.starts_with("#!")
                    })
                })
            });
            parsed.script.doc = top.map(|block| doc_text(text, block));
        }
        first = false;
        // Comments within the item document nothing.
        while comments.next_if(|comment| comment.span.start < item.span.end).is_some() {}
    }
}

fn is_doc(comment: &str) -> bool {
    comment.starts_with("##") && !comment.starts_with("###")
}

fn newlines(text: &str, from: u32, to: u32) -> usize {
    text.get(from as usize..to as usize)
        .map_or(0, |between| between.matches('\n').count())
}

fn doc_text(text: &str, block: &[&Comment]) -> String {
    let lines: Vec<&str> = block
        .iter()
        .map(|comment| {
            let line = comment.span.of(text).trim_start_matches('#').trim_end();
            line.strip_prefix(' ').unwrap_or(line)
        })
        .collect();
    lines.join("\n")
}
