//! Options that formats share, and how a format reads its arguments.

use crate::formats::codes;
use crate::formats::input::{self, Encoding, Input};
use standpipe_sdk::spec::{Arg, ArgKind, Call, Complaint, Item, Param, Plan, Want};
use standpipe_sdk::{Code, Error, Schema, Type, Value};

/// What every `read` of text takes.
pub const NULL: Param = Param::new(
    "null",
    ArgKind::Const(Want::List),
    None,
    "texts that mean null, as in `null: [\"NA\"]`",
);
pub const SCHEMA: Param = Param::new(
    "schema",
    ArgKind::Type,
    None,
    "the columns and their types; others are invisible",
);
pub const INFER: Param = Param::new(
    "infer",
    ArgKind::Const(Want::Int),
    Some("10_000"),
    "rows to look at for the types",
);
pub const EXTRA: Param = Param::new(
    "extra",
    ArgKind::Word,
    None,
    "`error`: columns that the schema does not have are an error",
);
pub const MISSING: Param = Param::new(
    "missing",
    ArgKind::Word,
    None,
    "`null`: columns that the file does not have are null",
);
pub const IF_NONE: Param = Param::new(
    "if_none",
    ArgKind::Word,
    None,
    "`empty`: a glob without a match gives no rows",
);
pub const FILE_COLUMN: Param = Param::new(
    "file_column",
    ArgKind::Word,
    None,
    "the name of a column for the file's path",
);
pub const CHECK: Param = Param::new(
    "check",
    ArgKind::Word,
    Some("all"),
    "`read`: check declared columns only where a stage reads them",
);
pub const ENCODING: Param = Param::new("encoding", ArgKind::Word, Some("utf8"), "`utf8`, `lossy` or `latin1`");
/// What every `write` of text takes.
pub const APPEND: Param = Param::new(
    "append",
    ArgKind::Const(Want::Bool),
    Some("false"),
    "add to the file instead of replacing it",
);

/// The most bytes that are looked at for the types.
pub const SAMPLE: usize = 16 << 20;

/// A complaint about an argument of the wrong kind.
pub fn wrong(item: &Item, message: impl Into<String>) -> Complaint {
    Complaint::new(codes::WRONG_OPTION, item.span, message, "here")
}

/// The constant text of an item.
pub fn text(item: &Item) -> Option<&str> {
    match &item.arg {
        Arg::Const(Value::String(text)) => Some(text),
        Arg::Word(text) => Some(text),
        _ => None,
    }
}

/// The paths of a `read`, or the path of a `write`.
pub fn paths<'a>(call: &'a Call<'_>) -> Vec<&'a str> {
    call.items.iter().filter_map(text).collect()
}

/// The value of a word option, if it is one of `allowed`.
pub fn word<'a>(call: &'a Call<'_>, name: &str, allowed: &[&str], complaints: &mut Vec<Complaint>) -> Option<&'a str> {
    let item = call.option(name)?;
    match text(item) {
        Some(word) if allowed.contains(&word) => Some(word),
        _ => {
            let list: Vec<String> = allowed.iter().map(|w| format!("`{w}`")).collect();
            complaints.push(wrong(item, format!("`{name}:` takes {}", list.join(" or "))));
            None
        }
    }
}

/// The texts of a list option.
pub fn texts(call: &Call<'_>, name: &str, complaints: &mut Vec<Complaint>) -> Vec<Vec<u8>> {
    let Some(item) = call.option(name) else {
        return Vec::new();
    };
    if let Arg::Const(Value::List(values)) = &item.arg {
        let texts: Vec<Vec<u8>> = (values.iter())
            .filter_map(|v| {
                if let Value::String(text) = v {
                    Some(text.clone().into_bytes())
                } else {
                    None
                }
            })
            .collect();
        if texts.len() == values.len() {
            return texts;
        }
    }
    complaints.push(wrong(item, format!("`{name}:` takes a list of strings")));
    Vec::new()
}

/// A one-byte ASCII option such as a delimiter.
pub fn byte(call: &Call<'_>, name: &str, default: u8, complaints: &mut Vec<Complaint>) -> u8 {
    let Some(item) = call.option(name) else { return default };
    match text(item).map(str::as_bytes) {
        Some(&[byte]) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => byte,
        _ => {
            complaints.push(wrong(
                item,
                format!("`{name}:` takes one ASCII character that is no quote and no newline"),
            ));
            default
        }
    }
}

/// How many rows to look at.
pub fn infer_rows(call: &Call<'_>, complaints: &mut Vec<Complaint>) -> usize {
    match (call.int("infer"), call.option("infer")) {
        (Some(rows), _) if rows > 0 => usize::try_from(rows).unwrap_or(usize::MAX),
        (Some(_), Some(item)) => {
            complaints.push(wrong(item, "`infer:` takes a number of rows above 0"));
            1
        }
        _ => 10_000,
    }
}

/// The declared schema.
pub fn schema<'a>(call: &'a Call<'_>, complaints: &mut Vec<Complaint>) -> Option<&'a Schema> {
    let item = call.option("schema")?;
    match &item.arg {
        Arg::Type(Type::Record(schema)) => Some(schema),
        _ => {
            complaints.push(wrong(
                item,
                "`schema:` takes a record type, as in `schema: Order` or `schema: {id: int}`",
            ));
            None
        }
    }
}

/// Whether declared columns that nobody reads are checked, too.
pub fn check_all(call: &Call<'_>, complaints: &mut Vec<Complaint>) -> bool {
    word(call, "check", &["all", "read"], complaints) != Some("read") && call.option("schema").is_some()
}

/// The files a `read` names.
pub fn inputs(call: &Call<'_>, plan: &Plan<'_>, complaints: &mut Vec<Complaint>) -> Vec<Input> {
    let encoding = match word(call, "encoding", &["utf8", "lossy", "latin1"], complaints) {
        Some("lossy") => Encoding::Lossy,
        Some("latin1") => Encoding::Latin1,
        _ => Encoding::Utf8,
    };
    let may_be_empty = word(call, "if_none", &["empty"], complaints).is_some();
    let mut inputs = Vec::new();
    for item in call.items {
        let Some(path) = text(item) else { continue };
        match input::resolve(&[path], plan.folder, encoding, may_be_empty) {
            Ok(found) => inputs.extend(found),
            Err(error) => complaints.push(unreadable(item, &error)),
        }
    }
    inputs
}

/// An input that is not there, as a complaint under its path.
pub fn unreadable(item: &Item, error: &Error) -> Complaint {
    let code = match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => codes::NOT_FOUND,
        _ => codes::UNREADABLE,
    };
    Complaint::new(code, item.span, error.to_string(), "here")
}

/// A complaint about a whole call.
pub fn about(call: &Call<'_>, code: Code, message: impl Into<String>) -> Complaint {
    Complaint::new(
        code,
        call.items.first().map_or(call.span, |item| item.span),
        message,
        "here",
    )
}
