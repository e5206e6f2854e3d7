//! A test written from what a script reads now: its inputs' first rows as fixtures.

use super::matrix::Setting;
use super::script::{EngineMaker, Script, slug};
use super::table;
use crate::engine::Rows;
use crate::expr::Literal;
use crate::formats::csv::infer;
use crate::syntax::Parsed;
use crate::syntax::ast::{ExprKind, HeadKind, Item, ItemKind, Pipeline, UseTarget};
use standpipe_sdk::{Type, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// What to record.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The stream that the test expects a snapshot of.
    pub stream: String,
    /// So many first rows of each input.
    pub rows: usize,
    /// Columns whose values are made up.
    pub redact: Vec<String>,
    pub params: Vec<(String, String)>,
}

/// A test of the script `text` with the first rows of each of its inputs as they are now.
///
/// # Errors
/// The script is wrong, an input cannot be read, or its path is not a literal; a text for people.
pub fn record(name: &str, text: &str, engine: &EngineMaker<'_>, recording: &Recording) -> Result<String, String> {
    let parsed = crate::syntax::parse(text);
    let mut pipeline = engine().build().open(name, text);
    for (param, value) in &recording.params {
        pipeline.param_text(param.as_str(), value.as_str());
    }
    let pipelines = parsed.script.items.iter().filter_map(|item| match &item.kind {
        ItemKind::Stream(stream) => Some(&stream.pipeline),
        ItemKind::Pipeline(pipeline) => Some(pipeline),
        _ => None,
    });
    let streams: Vec<&str> = (parsed.script.items.iter())
        .filter_map(|item| match &item.kind {
            ItemKind::Stream(stream) => Some(stream.name.text.as_str()),
            _ => None,
        })
        .collect();
    if !streams.contains(&recording.stream.as_str()) && !text.contains(&format!("to {}", recording.stream)) {
        let near = crate::diag::suggest(&recording.stream, &streams).map(|near| format!("; `{near}` is close"));
        return Err(format!(
            "the script has no stream `{}`{}",
            recording.stream,
            near.unwrap_or_default()
        ));
    }
    pipeline.check().map_err(|problems| problems.render(false))?;
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut unknown: Vec<&String> = recording.redact.iter().collect();
    for pipeline in pipelines {
        let Some((path, source)) = source(pipeline, text)? else {
            continue;
        };
        if given.contains_key(&path) {
            continue;
        }
        let mut rows = first_rows(engine, name, text, &path, source, recording)?;
        unknown.retain(|column| rows.schema.position(column).is_none());
        redact(&mut rows, &recording.redact);
        given.insert(path, fixture(&rows));
    }
    if let Some(column) = unknown.first() {
        return Err(format!("no input has a column `{column}` to redact"));
    }
    if given.is_empty() {
        return Err("the script reads no file: there is nothing to record".to_owned());
    }
    let mut test = String::new();
    let _ = writeln!(test, "test {:?} {{", format!("{} as recorded", recording.stream));
    for (path, fixture) in &given {
        let _ = writeln!(test, "  given {path} = {fixture}");
    }
    let with: Vec<String> = (recording.params.iter())
        .map(|(name, value)| format!("{name} = {}", as_literal(&parsed, name, value)))
        .collect();
    if !with.is_empty() {
        let _ = writeln!(test, "  with {}", with.join(", "));
    }
    let _ = writeln!(test, "  expect {} snapshot\n}}", recording.stream);
    Ok(test)
}

/// The path of a pipeline's source as written, and the source's text without what becomes of its bad rows.
fn source<'t>(pipeline: &Pipeline, text: &'t str) -> Result<Option<(String, &'t str)>, String> {
    let HeadKind::Read(call) = &pipeline.head.kind else {
        return Ok(None);
    };
    let path = call.items.first().and_then(|item| item.expr());
    let Some(path) = path.filter(|path| matches!(path.kind, ExprKind::Str(_))) else {
        return Err(format!(
            "the path in `{}` is not a literal: `given` cannot name it",
            text.get(call.span.range()).unwrap_or("read")
        ));
    };
    let written = text.get(path.span.range()).unwrap_or("").to_owned();
    let read = text.get(call.span.range()).unwrap_or("");
    // `on error …` makes streams that only the script has.
    let read = match &call.on_error {
        Some(_) => read.find("on error").map_or(read, |at| &read[..at]),
        None => read,
    };
    Ok(Some((written, read)))
}

fn first_rows(
    engine: &EngineMaker<'_>,
    name: &str,
    text: &str,
    path: &str,
    read: &str,
    recording: &Recording,
) -> Result<Rows, String> {
    // What the source says names of, and the source alone; its file is what a test of it is given.
    let parsed = crate::syntax::parse(text);
    let mut alone = String::new();
    let mut with = vec![];
    for item in needed(&parsed, text, read) {
        alone.push_str(text.get(item.span.range()).unwrap_or(""));
        alone.push('\n');
        if let ItemKind::Param(param) = &item.kind {
            let given = recording.params.iter().rev().find(|(name, _)| *name == param.name.text);
            with.extend(given.map(|(name, value)| format!("with {name} = {}", as_literal(&parsed, name, value))));
        }
    }
    let _ = write!(
        alone,
        "stream recorded = {read} on error skip\n  | take {}\nfrom recorded | write none\ntest \"recorded\" {{ given {path} = file {path} {} expect recorded count >= 0 }}\n",
        recording.rows,
        with.join(" ")
    );
    let script = Script::new(name, "recorded", Path::new(""), alone, None);
    let tests = script.tests();
    let test = tests.first().ok_or("the source cannot be read by itself")?;
    let mut run = script
        .once(test, engine(), &Setting::plain())
        .map_err(|error| format!("cannot make a folder: {error}"))?;
    match run.outcome {
        Ok(_) => Ok(run.rows.remove("recorded").unwrap_or_default()),
        Err(failure) => Err(failure.render(false)),
    }
}

/// The declarations that `read` cannot do without, in the order of the script.
fn needed<'p>(parsed: &'p Parsed, text: &str, read: &str) -> Vec<&'p Item> {
    let words = |text: &str| -> Vec<String> {
        let parts = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        parts.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut wanted: BTreeSet<String> = words(read).into_iter().collect();
    let mut taken = BTreeSet::new();
    loop {
        let more = parsed.script.items.iter().enumerate().find(|(at, item)| {
            let name = match &item.kind {
                ItemKind::Schema(schema) => Some(&schema.name),
                ItemKind::Fn(def) => Some(&def.name),
                ItemKind::Param(param) => Some(&param.name),
                ItemKind::Let(value) => Some(&value.name),
                ItemKind::Use(used) => match (&used.alias, &used.target) {
                    (Some(alias), _) => Some(alias),
                    (None, UseTarget::Plugin { name, .. }) => Some(name),
                    (None, UseTarget::Script(_)) => None,
                },
                _ => None,
            };
            !taken.contains(at) && name.is_some_and(|name| wanted.contains(&name.text))
        });
        let Some((at, item)) = more else { break };
        taken.insert(at);
        wanted.extend(words(text.get(item.span.range()).unwrap_or("")));
    }
    let items = parsed.script.items.iter().enumerate();
    items
        .filter(|(at, _)| taken.contains(at))
        .map(|(_, item)| item)
        .collect()
}

/// Values made up: the same one for the same, so that joins and groups stay what they are.
fn redact(rows: &mut Rows, columns: &[String]) {
    for column in columns {
        let Some(at) = rows.schema.position(column) else {
            continue;
        };
        let mut seen: Vec<Value> = vec![];
        for row in &mut rows.rows {
            if row[at] == Value::Null {
                continue;
            }
            let number = seen.iter().position(|value| *value == row[at]).unwrap_or_else(|| {
                seen.push(row[at].clone());
                seen.len() - 1
            });
            let number = number + 1;
            row[at] = match &row[at] {
                Value::String(_) => Value::String(format!("{column}-{number}")),
                Value::Int(_) => Value::Int(number as i64),
                Value::Float(_) => Value::Float(number as f64),
                Value::Bool(_) => Value::Bool(false),
                Value::Date(_) => Value::Date(10_957 + number as i32),
                Value::Timestamp(_) => Value::Timestamp((10_957 + number as i64) * 86_400_000_000),
                Value::Decimal { scale, .. } => Value::Decimal {
                    value: number as i128 * 10i128.pow(u32::from(*scale)),
                    scale: *scale,
                },
                Value::Duration(_) => Value::Duration(number as i64 * 1_000_000),
                Value::Bytes(_) => Value::Bytes(vec![]),
                Value::Json(_) => Value::Json(format!("\"{column}-{number}\"")),
                Value::List(_) => Value::List(vec![]),
                Value::Record(_) | Value::Null => Value::Null,
            };
        }
    }
}

/// The rows as `table { … }`, or as `rows [ … ]` where a cell does not fit on a line or is nested.
fn fixture(rows: &Rows) -> String {
    let fields = rows.schema.fields();
    let nested = |ty: &Type| matches!(ty, Type::List(_) | Type::Record(_) | Type::Json | Type::Bytes);
    if fields.iter().any(|field| nested(&field.ty)) && !rows.rows.is_empty() {
        let record = |row: &Vec<Value>| {
            let cells = row.iter().zip(fields);
            let cells: Vec<String> = cells
                .filter(|(value, _)| **value != Value::Null)
                .map(|(value, field)| format!("{}: {}", column(&field.name), Literal(value)))
                .collect();
            format!("    {{{}}}", cells.join(", "))
        };
        let records: Vec<String> = rows.rows.iter().map(record).collect();
        return format!("rows [\n{}\n  ]", records.join(",\n"));
    }
    let mut lines = vec![fields.iter().map(|field| column(&field.name)).collect::<Vec<_>>()];
    for row in &rows.rows {
        lines.push(
            row.iter()
                .zip(fields)
                .map(|(value, field)| quoted(value, &field.ty))
                .collect(),
        );
    }
    let lines: Vec<String> = table::aligned(&lines)
        .into_iter()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!("table {{\n{}  }}", lines.concat())
}

/// A cell; in quotes if it is a text that would be taken for something else.
fn quoted(value: &Value, ty: &Type) -> String {
    match value {
        Value::String(text) if infer::type_of(std::iter::once(text.as_str())) != Type::String => {
            Literal(value).to_string()
        }
        value => table::cell(value, ty),
    }
}

/// A name of a column, in backticks where it needs them.
fn column(name: &str) -> String {
    let plain = slug(name) == name && !name.starts_with(|c: char| c.is_ascii_digit()) && name.is_ascii();
    if plain { name.to_owned() } else { format!("`{name}`") }
}

/// The text of a command line as a literal of the parameter's type.
fn as_literal(parsed: &Parsed, name: &str, value: &str) -> String {
    let ty = parsed.script.items.iter().find_map(|item| match &item.kind {
        ItemKind::Param(param) if param.name.text == name => Some(param.ty.as_ref().map(|ty| format!("{:?}", ty.kind))),
        _ => None,
    });
    let ty = ty.flatten().unwrap_or_default().to_lowercase();
    if ty.contains("date") || ty.contains("timestamp") {
        format!("@{}", value.trim().replacen(' ', "T", 1))
    } else if ty.contains("string") || ty.is_empty() {
        Literal(&Value::String(value.to_owned())).to_string()
    } else {
        value.to_owned()
    }
}
