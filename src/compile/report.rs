//! The checker: what is known of the script, and the one place where its diagnostics are gathered.

use super::names::Names;
use super::rows::Rows;
use super::values::Values;
use super::{Compiled, Options};
use crate::diag::{Diagnostic, Span, codes};
use crate::expr::Issue;
use crate::syntax::ast::{Expr, ExprKind, FPart, Script, StageCall, StageItem};
use standpipe_sdk::spec::Complaint;
use standpipe_sdk::{Code, Schema};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// More diagnostics than this are of no use to anyone.
const MOST: usize = 200;

/// A script being checked. Shared references all the way down: lambdas are checked from inside `expr`.
pub(super) struct Checker<'a> {
    pub(super) script: &'a Script,
    pub(super) text: &'a str,
    pub(super) options: &'a Options<'a>,
    pub(super) names: RefCell<Names<'a>>,
    pub(super) values: Values<'a>,
    /// Schemas that were resolved; nothing where one has a mistake.
    pub(super) schemas: RefCell<BTreeMap<String, Option<Schema>>>,
    found: RefCell<Vec<Diagnostic>>,
    /// How deep the expression being built is.
    pub(super) depth: Cell<usize>,
    /// How many nodes the expression being built has.
    pub(super) nodes: Cell<usize>,
    pub(super) too_large: Cell<bool>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(script: &'a Script, text: &'a str, options: &'a Options<'a>) -> Self {
        Checker {
            script,
            text,
            options,
            names: RefCell::default(),
            values: Values::default(),
            schemas: RefCell::default(),
            found: RefCell::default(),
            depth: Cell::new(0),
            nodes: Cell::new(0),
            too_large: Cell::new(false),
        }
    }

    /// Adds a diagnostic.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Takes back what was reported since there were `so_many`, and answers it.
    pub(super) fn take_back(&self, so_many: usize) -> Vec<Diagnostic> {
        let mut found = self.found.borrow_mut();
        let from = so_many.min(found.len());
        found.split_off(from)
    }

    /// How many there are: whether a step added some is seen by asking before and after.
    pub(super) fn reported(&self) -> usize {
        self.found.borrow().len()
    }

    /// Whether any of them stops the script.
    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(Diagnostic::is_error)
    }

    /// The value, or nothing once the issue is reported.
    pub(super) fn accept<T>(&self, made: Result<T, Issue>) -> Option<T> {
        made.map_err(|issue| self.report(of_issue(issue))).ok()
    }

    /// The same, with the columns that are there as a note where a column is missing.
    pub(super) fn complain(&self, complaint: Complaint, rows: Option<&Rows>) {
        let code = code_text(complaint.code);
        let mut diagnostic = if code.starts_with('W') {
            Diagnostic::warning(code, complaint.span, complaint.message)
        } else {
            Diagnostic::error(code, complaint.span, complaint.message)
        };
        diagnostic = diagnostic.labelled(complaint.label).help_if(complaint.help);
        if matches!(code, "E0204" | "E0507")
            && let Some(rows) = rows
        {
            diagnostic = diagnostic.note(rows.note());
        }
        self.report(diagnostic);
    }

    /// The names in an expression that is not checked count as used, as columns or as anything else.
    pub(super) fn seen(&self, expr: &Expr) {
        let mut names = self.names.borrow_mut();
        walk(expr, &mut |expr| {
            if let ExprKind::Name(name) | ExprKind::Param(name) | ExprKind::Let(name) = &expr.kind {
                names.used_values.insert(name.text.clone());
                names.used_streams.insert(name.text.clone());
            }
        });
    }

    /// The same for all arguments of a stage that is not checked.
    pub(super) fn seen_in(&self, call: &StageCall) {
        let items = call.items.iter().chain(&call.by).chain(&call.on);
        for expr in items.filter_map(StageItem::expr) {
            self.seen(expr);
        }
        for expr in call.options.iter().filter_map(|option| option.value.to_expr()) {
            self.seen(&expr);
        }
    }

    /// All of them in the order of the text, each once.
    pub(super) fn finish(&self) -> Vec<Diagnostic> {
        let mut found = self.found.take();
        found.sort_by_key(|d| (d.primary.span, d.code));
        found.dedup();
        found.truncate(MOST);
        found
    }

    /// The script's text under `span`.
    pub(super) fn text_of(&self, span: Span) -> &'a str {
        self.text.get(span.range()).unwrap_or("")
    }
}

/// Calls `f` with an expression and all parts of it, with a stack of its own.
pub(super) fn walk<'e>(root: &'e Expr, f: &mut impl FnMut(&'e Expr)) {
    let mut todo = vec![root];
    while let Some(expr) = todo.pop() {
        f(expr);
        match &expr.kind {
            ExprKind::Call { args, .. } => todo.extend(args.iter().map(|arg| &arg.value)),
            ExprKind::Method { receiver, args, .. } => {
                todo.push(receiver);
                todo.extend(args.iter().map(|arg| &arg.value));
            }
            ExprKind::FString(parts) => todo.extend(parts.iter().filter_map(|part| match part {
                FPart::Expr { expr, .. } => Some(expr),
                FPart::Text(_) => None,
            })),
            ExprKind::List(items) => todo.extend(items),
            ExprKind::Record(fields) => todo.extend(fields.iter().map(|field| &field.value)),
            ExprKind::Binary { left, right, .. } => todo.extend([&**left, &**right]),
            ExprKind::Unary { operand, .. } => todo.push(operand),
            ExprKind::Range { low, high } => todo.extend([&**low, &**high]),
            ExprKind::Field { receiver, .. } => todo.push(receiver),
            ExprKind::Index { receiver, index } => todo.extend([&**receiver, &**index]),
            ExprKind::If {
                condition,
                then,
                otherwise,
            } => {
                todo.extend([&**condition, &**then]);
                todo.extend(otherwise.as_deref());
            }
            ExprKind::Match {
                subject,
                arms,
                otherwise,
            } => {
                todo.push(subject);
                todo.extend(arms.iter().map(|arm| &arm.value));
                todo.extend(otherwise.as_deref());
            }
            ExprKind::Lambda { body, .. } => todo.push(body),
            _ => {}
        }
    }
}

/// An issue of `expr` as a diagnostic.
fn of_issue(issue: Issue) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(code_text(issue.code), issue.span, issue.message).labelled(issue.label);
    for (span, text) in issue.labels {
        diagnostic = diagnostic.also(span, text);
    }
    for help in issue.helps {
        diagnostic = diagnostic.help(help);
    }
    diagnostic
}

/// The registry's text of a code; numbers below 100 are warnings.
pub(super) fn code_text(code: Code) -> &'static str {
    let family = if code.0 < 100 { 'W' } else { 'E' };
    let text = format!("{family}{:04}", code.0);
    codes::info(&text).map_or("E0999", |row| row.code)
}

impl Compiled {
    /// Whether the script can run.
    pub fn is_ok(&self) -> bool {
        self.graph.is_some()
    }
}
