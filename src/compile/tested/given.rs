//! `given`: rows in the place of a source or a stream.
//!
//! Laws
//! - Cells take the types of what they replace: as declared, as its files have them if they are there; otherwise those a CSV file
//!   with these cells would have, or the literals'.
//! - A nullable column may be left out, it is null then.

use super::*;
use crate::expr::Expr as Typed;
use crate::formats::input::STDIN;
use crate::syntax::ast::{CellValue, ExprKind, Table};
use standpipe_sdk::{Field, Type};

impl<'a> Checker<'a> {
    /// The steps that replace something.
    pub(super) fn givens(&self) -> Vec<(Span, &'a GivenTarget, &'a GivenValue)> {
        let Some(testing) = self.options.testing else {
            return vec![];
        };
        let steps = testing.test.steps.iter();
        let given = steps.filter_map(|step| match &step.kind {
            TestStepKind::Given { target, value } => Some((step.span, target, value)),
            _ => None,
        });
        given.collect()
    }

    /// The rows of `value` with the columns of `schema`; nothing once a mistake was reported.
    fn given_rows(&self, value: &'a GivenValue, schema: &Schema) -> Option<Vec<Vec<Value>>> {
        let reported = self.reported();
        let rows = match value {
            GivenValue::Table(table) => {
                let places: Vec<Option<usize>> =
                    (table.columns.iter()).map(|name| self.place_in(name, schema)).collect();
                let span = table.columns.first().map_or(Span::default(), |name| name.span);
                self.missing_columns(schema, &places, span);
                let row = |cells: &'a Vec<crate::syntax::ast::Cell>| {
                    let mut row = vec![Value::Null; schema.width()];
                    for (cell, place) in cells.iter().zip(&places) {
                        if let Some((at, field)) = place.and_then(|at| Some((at, schema.get(at)?)))
                            && let Some(value) = self.cell(cell, field)
                        {
                            row[at] = value;
                        }
                    }
                    row
                };
                table.rows.iter().map(row).collect()
            }
            GivenValue::Rows(records) => {
                let mut rows = vec![];
                for record in records {
                    let ExprKind::Record(fields) = &record.kind else {
                        self.report(
                            Diagnostic::error("E1003", record.span, "a row is a record")
                                .labelled("`{name: value, …}` is one"),
                        );
                        continue;
                    };
                    let mut row = vec![Value::Null; schema.width()];
                    let mut places = vec![];
                    for field in fields {
                        let place = self.place_in(&field.name, schema);
                        places.push(place);
                        if let Some((at, column)) = place.and_then(|at| Some((at, schema.get(at)?)))
                            && let Some(value) = self.value_of_type(&field.value, column, "E1003")
                        {
                            row[at] = value;
                        }
                    }
                    self.missing_columns(schema, &places, record.span);
                    rows.push(row);
                }
                rows
            }
            GivenValue::File(_) => return None,
        };
        (self.reported() == reported).then_some(rows)
    }

    fn place_in(&self, name: &Ident, schema: &Schema) -> Option<usize> {
        let place = schema.position(&name.text);
        if place.is_none() {
            let rows = Rows::known(schema);
            self.report(
                Diagnostic::error(
                    "E1003",
                    name.span,
                    format!("what is replaced has no column `{}`", name.text),
                )
                .labelled(
                    rows.nearest(&name.text)
                        .map_or_else(String::new, |near| format!("`{near}` is close")),
                )
                .note(rows.note()),
            );
        }
        place
    }

    fn missing_columns(&self, schema: &Schema, places: &[Option<usize>], span: Span) {
        // A misspelt name was probably meant to be one of them.
        if places.contains(&None) {
            return;
        }
        let missing: Vec<&str> = (schema.fields().iter().enumerate())
            .filter(|(at, field)| !field.nullable && !places.contains(&Some(*at)))
            .map(|(_, field)| &*field.name)
            .collect();
        if !missing.is_empty() {
            self.report(
                Diagnostic::error(
                    "E1003",
                    span,
                    format!("the column {} is missing", list_names(&missing, 8)),
                )
                .labelled("it cannot be null, so it cannot be left out"),
            );
        }
    }

    /// A cell as a value of its column.
    fn cell(&self, cell: &'a crate::syntax::ast::Cell, field: &Field) -> Option<Value> {
        let text = || Value::String(cell.text.clone());
        let value = match (&cell.value, &field.ty) {
            (CellValue::Empty, _) => Some(Value::Null),
            (CellValue::Literal(literal), _) if matches!(literal.kind, ExprKind::Null) => Some(Value::Null),
            (_, Type::String | Type::Null) => Some(text()),
            (CellValue::Literal(literal), ty) => {
                let reported = self.reported();
                let value = self.constant(literal, &Scope::CONSTANT);
                let made = value.and_then(|value| fitted(value, ty));
                self.take_back(reported);
                made.or_else(|| cast(text(), ty, cell.span))
            }
            (CellValue::Text, ty) => cast(text(), ty, cell.span),
        };
        match value {
            Some(Value::Null) if !field.nullable => {
                self.report(
                    Diagnostic::error("E1003", cell.span, format!("`{}` cannot be null", field.name))
                        .labelled(format!("an empty cell is null, the column is {}", field.ty)),
                );
                None
            }
            Some(value) => Some(value),
            None => {
                self.report(
                    Diagnostic::error("E1003", cell.span, format!("{:?} is no value of `{field}`", cell.text))
                        .labelled(format!("not {}", field.ty)),
                );
                None
            }
        }
    }

    /// A constant as a value of a column.
    pub(super) fn value_of_type(&self, expr: &'a Expr, field: &Field, code: &'static str) -> Option<Value> {
        let value = self.constant(expr, &Scope::CONSTANT)?;
        let own = value.ty.clone();
        let made = fitted(value, &field.ty);
        match made {
            Some(Value::Null) if !field.nullable && code == "E1003" => {
                self.report(
                    Diagnostic::error(code, expr.span, format!("`{}` cannot be null", field.name))
                        .labelled(format!("the column is {}", field.ty)),
                );
                None
            }
            Some(value) => Some(value),
            None => {
                self.report(
                    Diagnostic::error(code, expr.span, format!("this is no value of `{field}`"))
                        .labelled(format!("this is {own}")),
                );
                None
            }
        }
    }
}

/// A constant as a value of `ty`, if it is one.
fn fitted(value: Typed, ty: &Type) -> Option<Value> {
    if value.as_value() == Some(Value::Null) {
        return Some(Value::Null);
    }
    match (&value.ty, ty) {
        (Type::Record(_), Type::Record(_)) | (Type::List(_), Type::List(_)) => {
            let value = crate::compile::literals::shaped(value.as_value()?, ty);
            crate::compile::literals::is_of(&value, ty).then_some(value)
        }
        (own, ty) if own == ty => value.as_value(),
        _ => {
            let span = value.span;
            Typed::coerce(value, ty, span).ok()?.as_value()
        }
    }
}

/// A text read as `ty`.
fn cast(text: Value, ty: &Type, span: Span) -> Option<Value> {
    let text = Typed::constant(text, Type::String, span);
    Typed::cast(text, ty.clone(), span).ok()?.as_value()
}

impl<'a> Builder<'_, 'a> {
    /// What the test puts in the place of this stream.
    pub(in crate::compile) fn given_stream(&mut self, name: &str) -> Option<&'a GivenValue> {
        let givens = self.checker.givens();
        let (span, _, value) = givens
            .into_iter()
            .find(|(_, target, _)| matches!(target, GivenTarget::Stream(stream) if stream.text == name))?;
        self.tested.used.insert(span);
        Some(value)
    }

    /// Puts the given rows in the place of a stream whose nodes begin at `nodes`.
    pub(in crate::compile) fn replace(
        &mut self,
        state: &mut State,
        value: &'a GivenValue,
        nodes: NodeId,
        reported: usize,
    ) {
        // What is wrong with the pipeline makes no difference here; other tests and the check say it.
        self.checker.take_back(reported);
        for feeders in self.rejecting.values_mut() {
            feeders.retain(|&id| id < nodes);
        }
        let known = (!state.rows.unknown && state.rows.guessed.iter().all(|guess| !guess)).then(|| state.rows.schema());
        let made = match value {
            GivenValue::File(path) => {
                self.report(
                    Diagnostic::error("E1003", path.span, "a file stands for a source, not for a stream")
                        .labelled("in the place of a stream")
                        .help("`given \"path of the source\" = file …`, or `table { … }` here"),
                );
                None
            }
            value => self.rows_for(value, known.as_ref()),
        };
        (state.edge, state.rows) = match made {
            Some((schema, rows)) => self.given(Span::default(), schema, rows),
            None => self.nothing(),
        };
    }

    /// The same for a stream that a stage makes: an arm of `route`, rows set aside.
    pub(in crate::compile) fn replace_made(&mut self, name: &str, state: &mut State) {
        if let Some(value) = self.given_stream(name) {
            self.replace(state, value, NodeId::MAX, self.checker.reported());
        }
    }

    /// Rows with the columns of `known`, or with those they have themselves.
    fn rows_for(&self, value: &'a GivenValue, known: Option<&Schema>) -> Option<(Schema, Vec<Vec<Value>>)> {
        match (known, value) {
            (Some(schema), value) => Some((schema.clone(), self.checker.given_rows(value, schema)?)),
            (None, GivenValue::Table(table)) => self.checker.table_rows(table),
            (None, GivenValue::Rows(rows)) => self.checker.record_rows(rows, Span::default()),
            (None, GivenValue::File(_)) => None,
        }
    }

    /// What the test puts in the place of a source that reads `paths`.
    pub(in crate::compile) fn given_source(
        &mut self,
        paths: Vec<String>,
        format: &'static FormatSpec,
        side: &'static FormatSide,
        rows: &Rows,
        resolved: &mut Resolved,
        call: &'a StageCall,
    ) -> Replacement {
        let givens = self.checker.givens();
        let found = givens.into_iter().find(|(_, target, _)| match target {
            GivenTarget::Source(path) => paths.contains(&path.value),
            GivenTarget::Stream(_) => false,
        });
        self.tested.reads.extend(paths);
        let (Some((span, _, value)), Some(testing)) = (found, self.checker.options.testing) else {
            return Replacement::None;
        };
        self.tested.used.insert(span);
        if let GivenValue::File(path) = value {
            resolved.items.truncate(1);
            self.read_instead(resolved, &testing.folder.join(&path.value));
            return Replacement::File;
        }
        let reported = self.checker.reported();
        let mut bound = self.bind_format(side, rows, resolved, call);
        self.checker.take_back(reported);
        let declared = resolved.options.iter().find_map(|(name, item)| match &item.arg {
            Arg::Type(Type::Record(schema)) if *name == "schema" => Some(schema.clone()),
            _ => None,
        });
        if bound.is_none()
            && declared.is_none()
            && let GivenValue::Table(table) = value
            && matches!(format.name, "csv" | "tsv")
        {
            let delimiter = if format.name == "tsv" { '\t' } else { ',' };
            let file = testing.scratch.join(format!("{}.{}", span.start, format.name));
            if std::fs::write(&file, as_text(table, delimiter)).is_ok() {
                resolved.items.truncate(1);
                // How the real file is written says nothing about this one.
                resolved.options.clear();
                self.read_instead(resolved, &file);
                bound = self.bind_format(side, rows, resolved, call);
                self.checker.take_back(reported);
            }
        }
        let schema = bound.map(|bound| bound.schema).or(declared);
        match self.rows_for(value, schema.as_ref()) {
            Some((schema, rows)) => Replacement::Rows(schema, rows),
            None => Replacement::Nothing,
        }
    }

    fn read_instead(&self, resolved: &mut Resolved, path: &Path) {
        if let Some(item) = resolved.items.first_mut() {
            item.arg = Arg::Const(Value::String(path.display().to_string()));
        }
    }

    /// A source that the test leaves as it is: wrong if its rows are needed.
    pub(in crate::compile) fn not_given(
        &mut self,
        side: &'static FormatSide,
        rows: &Rows,
        resolved: &mut Resolved,
        call: &'a StageCall,
    ) -> (Edge, Rows) {
        let reported = self.checker.reported();
        let is_stream = self.tested.reads.iter().any(|path| path == STDIN);
        let bound = match is_stream {
            true => None,
            false => self.bind_format(side, rows, resolved, call),
        };
        self.checker.take_back(reported);
        let rows = bound.map_or_else(Rows::unknown, |bound| Rows::known(&bound.schema));
        let id = self
            .draft
            .push(NewNode::new("not given", call.span, vec![], rows.schema(), Op::Pass));
        let written = resolved.items.first().map(|item| match &item.arg {
            Arg::Const(Value::String(path)) => format!("{path:?}"),
            _ => "\"path\"".to_owned(),
        });
        let written = written.unwrap_or_default();
        let name = self
            .checker
            .options
            .testing
            .map_or(Span::default(), |testing| testing.test.name.span);
        let diagnostic = Diagnostic::error("E1001", call.span, "this input is not replaced in the test")
            .labelled("a test reads nothing from outside")
            .also(name, "this test needs its rows")
            .help(format!("`given {written} = table {{ … }}` in the test gives it rows"));
        self.tested.pending.push((id, vec![diagnostic]));
        (out(id), rows)
    }
}

/// The table as a CSV file.
fn as_text(table: &Table, delimiter: char) -> String {
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = (&str, bool)>| {
        for (at, (cell, is_empty)) in cells.enumerate() {
            if at > 0 {
                text.push(delimiter);
            }
            let special = cell.is_empty() || cell.contains(['"', '\n', '\r', delimiter]);
            if special && !is_empty {
                text.push('"');
                text.push_str(&cell.replace('"', "\"\""));
                text.push('"');
            } else {
                text.push_str(cell);
            }
        }
        text.push('\n');
    };
    line(&mut table.columns.iter().map(|name| (name.text.as_str(), false)));
    for row in &table.rows {
        line(
            &mut row
                .iter()
                .map(|cell| (cell.text.as_str(), matches!(cell.value, CellValue::Empty))),
        );
    }
    text
}
