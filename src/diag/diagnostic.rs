//! One diagnostic: a code, a message, where, what is known, a way out.

use std::fmt;

use super::{Code, Span};

/// Whether it stops the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The script does not run.
    Error,
    /// It runs.
    Warning,
}

impl Severity {
    /// `error`, `warning`.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// Which of the sources a span lies in: an index into the slice given to the renderer. 0 is the script itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u16);

/// A place in a script with something to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Which source.
    pub file: FileId,
    /// Where in it.
    pub span: Span,
    /// May be empty: then only the carets stand there.
    pub text: String,
}

/// What is said about a script.
///
/// ```
/// use standpipe::diag::{Diagnostic, Span};
/// let found = Diagnostic::error("E0204", Span::new(20, 25), "column `amout` not found")
///     .labelled("`amount` is close")
///     .note("rows here have `id: int`, `amount: float?`");
/// assert_eq!(found.code.as_str(), "E0204");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// Whether it stops the script.
    pub severity: Severity,
    /// One line, no trailing dot.
    pub message: String,
    /// Where it points.
    pub primary: Label,
    /// Other places that explain it.
    pub labels: Vec<Label>,
    /// What is known here, shown as `= …`.
    pub notes: Vec<String>,
    /// Ways out, shown as `= help: …`.
    pub helps: Vec<String>,
}

impl Diagnostic {
    /// An error at `span` of file 0. `code` must stand in [`super::codes::ALL`].
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, Severity::Error, span, message.into())
    }

    /// A warning at `span` of file 0. `code` must stand in [`super::codes::ALL`].
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, Severity::Warning, span, message.into())
    }

    fn new(code: &'static str, severity: Severity, span: Span, message: String) -> Diagnostic {
        Diagnostic {
            code: Code::new(code),
            severity,
            message,
            primary: Label {
                file: FileId(0),
                span,
                text: String::new(),
            },
            labels: Vec::new(),
            notes: Vec::new(),
            helps: Vec::new(),
        }
    }

    /// Text behind the carets of the primary span.
    pub fn labelled(mut self, text: impl Into<String>) -> Diagnostic {
        self.primary.text = text.into();
        self
    }

    /// Another place in the same file as the primary span.
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label {
            file: self.primary.file,
            span,
            text: text.into(),
        });
        self
    }

    /// Another place in any file.
    pub fn also_in(mut self, file: FileId, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label {
            file,
            span,
            text: text.into(),
        });
        self
    }

    /// What is known: `= rows here have …`.
    pub fn note(mut self, text: impl Into<String>) -> Diagnostic {
        self.notes.push(text.into());
        self
    }

    /// A way out: `= help: …`.
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.helps.push(text.into());
        self
    }

    /// A way out, if there is one.
    pub fn help_if(self, text: Option<impl Into<String>>) -> Diagnostic {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }

    /// Where in the data it happened: the first note.
    pub fn at_data(mut self, place: &DataPlace) -> Diagnostic {
        self.notes.insert(0, place.to_string());
        self
    }

    /// The primary span and the labels that lie in file 0 are moved to `file`.
    pub fn in_file(mut self, file: FileId) -> Diagnostic {
        self.primary.file = file;
        for label in &mut self.labels {
            if label.file == FileId(0) {
                label.file = file;
            }
        }
        self
    }

    /// Whether it stops the script.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Where in the data an error of a run happened: `data/orders.csv, line 88121 (byte 9441220), column `raw``.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataPlace {
    /// A path, `stdin`, or the name of a source.
    pub source: String,
    /// From 1.
    pub line: Option<u64>,
    /// From 1, for sources that have rows and no lines, and behind breakers.
    pub row: Option<u64>,
    /// From 0.
    pub byte: Option<u64>,
    /// The column's name.
    pub column: Option<String>,
}

impl fmt::Display for DataPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        match (self.line, self.row, self.byte) {
            (Some(line), _, Some(byte)) => write!(f, ", line {line} (byte {byte})")?,
            (Some(line), _, None) => write!(f, ", line {line}")?,
            (None, Some(row), Some(byte)) => write!(f, ", row {row} (byte {byte})")?,
            (None, Some(row), None) => write!(f, ", row {row}")?,
            (None, None, Some(byte)) => write!(f, ", byte {byte}")?,
            (None, None, None) => {}
        }
        match &self.column {
            Some(column) => write!(f, ", column `{column}`"),
            None => Ok(()),
        }
    }
}
