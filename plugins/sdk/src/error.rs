//! What can go wrong during a run, in one type.

use crate::place::Place;
use std::fmt;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The number of a diagnostic or error, printed as `E0412`. Codes are never reused; the texts live in the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{:04}", self.0)
    }
}

/// Bytes `start..end` of one script; 32 bits are enough because a script is at most 16 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// Bytes `start..end`; offsets beyond 32 bits are clamped (such a script is refused before it gets here).
    pub fn new(start: usize, end: usize) -> Span {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span {
            start: narrow(start),
            end: narrow(end.max(start)),
        }
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    /// As a range of `usize`, for slicing.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The text it covers, empty if it does not lie in `text`.
    pub fn of(self, text: &str) -> &str {
        text.get(self.range()).unwrap_or("")
    }

    /// How many bytes it covers.
    pub fn bytes(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
}

/// `@12..20`, so that a debug print of a syntax tree stays short and the spans can be cut out of it.
impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}..{}", self.start, self.end)
    }
}

/// One bad row: what, where in the script, where in the data.
#[derive(Clone, PartialEq, Debug)]
pub struct RowError {
    pub code: Code,
    pub message: String,
    /// The expression or stage at fault.
    pub span: Span,
    /// Where the row came from.
    pub place: Place,
    /// The name of the column at fault, if one is.
    pub column: Option<String>,
    /// A way out.
    pub help: Option<String>,
    /// File (or other source), line and byte, once the reader has looked them up.
    pub source: Option<String>,
    pub line: Option<u64>,
    pub byte: Option<u64>,
    /// The node of the graph that failed: among errors of one place the lowest node is reported.
    pub node: u32,
}

/// Why a run cannot go on.
#[derive(Debug)]
pub enum Error {
    /// An arena or the budget refused `wanted` bytes more beside the `used` ones.
    Memory { wanted: usize, used: usize, limit: usize },
    /// A row failed and its policy is `fail`.
    Row(Box<RowError>),
    /// The operating system refused something.
    Io {
        doing: &'static str,
        path: String,
        source: std::io::Error,
    },
    /// Anything else that ends a run: what, and a way out.
    Failed {
        code: Code,
        message: String,
        help: Option<String>,
        span: Option<Span>,
    },
    /// Whoever reads our output has closed it; the run ends quietly.
    Closed,
    /// The run ended elsewhere (another chunk failed, Ctrl-C).
    Cancelled,
    /// A worker panicked; the text is the panic's.
    Panic(String),
}

impl Error {
    /// A failure with a code and a message.
    pub fn failed(code: Code, message: impl Into<String>) -> Self {
        Error::Failed {
            code,
            message: message.into(),
            help: None,
            span: None,
        }
    }

    /// An I/O error while `doing` ("read", "write", "rename") `path`. A closed pipe becomes [`Error::Closed`].
    pub fn io(doing: &'static str, path: impl Into<String>, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::BrokenPipe {
            return Error::Closed;
        }
        Error::Io {
            doing,
            path: path.into(),
            source,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory { wanted, used, limit } => {
                write!(
                    f,
                    "out of memory: {wanted} bytes wanted beside {used} in use, limit {limit}"
                )
            }
            Error::Row(row) => {
                write!(f, "{}: {}", row.code, row.message)?;
                if let Some(source) = &row.source {
                    write!(f, " ({source}")?;
                    if let Some(line) = row.line {
                        write!(f, ", line {line}")?;
                    }
                    write!(f, ")")?;
                }
                Ok(())
            }
            Error::Io { doing, path, source } => write!(f, "cannot {doing} `{path}`: {source}"),
            Error::Failed { code, message, .. } => write!(f, "{code}: {message}"),
            Error::Closed => f.write_str("the output was closed"),
            Error::Cancelled => f.write_str("the run was cancelled"),
            Error::Panic(text) => write!(f, "internal error: {text}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
