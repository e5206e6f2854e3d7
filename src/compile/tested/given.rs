//! `given`: rows in the place of a source or a stream.
//!
//! Laws
//! - Cells take the types that the script declares for what they replace (`schema:`, or what a stream's stages make of such a source);
//!   otherwise those that a file with these cells would have, all of them nullable. What the real files look like makes no difference.
//! - A nullable column may be left out, it is null then.

use super::*;
use crate::expr::Expr as Typed;
use crate::formats::csv::infer;
use crate::syntax::ast::{Cell, CellValue, ExprKind, Table};
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
    pub(super) fn given_rows(&self, value: &'a GivenValue, schema: &Schema) -> Option<Vec<Vec<Value>>> {
        let reported = self.reported();
        let rows = match value {
            GivenValue::Table(table) => return self.table_in(table, schema),
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

    /// The rows of a table as a text file with them would be read: `json` has no dates. A column with a cell in quotes is text.
    pub(super) fn inferred(&self, table: &'a Table, json: bool) -> Option<(Schema, Vec<Vec<Value>>)> {
        let is_plain = |cell: &Cell| match &cell.value {
            CellValue::Empty | CellValue::Text => true,
            CellValue::Literal(literal) => match literal.kind {
                ExprKind::Null | ExprKind::Bool(_) => true,
                // `1_000` and `0xff` are numbers here and text there.
                ExprKind::Int(_) | ExprKind::Float { .. } | ExprKind::Unary { .. } => {
                    infer::type_of(std::iter::once(cell.text.as_str())) != Type::String
                }
                _ => false,
            },
        };
        let is_null = |cell: &Cell| match &cell.value {
            CellValue::Literal(literal) => matches!(literal.kind, ExprKind::Null),
            value => matches!(value, CellValue::Empty),
        };
        let is_quoted = |cell: &Cell| matches!(&cell.value, CellValue::Literal(literal) if matches!(literal.kind, ExprKind::Str(_)));
        let mut fields = vec![];
        for (at, name) in table.columns.iter().enumerate() {
            let cells = || table.rows.iter().filter_map(move |row| row.get(at));
            let ty = if cells().any(is_quoted) {
                Type::String
            } else if cells().all(is_plain) {
                infer::type_of(cells().filter(|cell| !is_null(cell)).map(|cell| cell.text.as_str()))
            } else {
                self.table_column(table, at)?.0
            };
            fields.push(Field::new(name.text.as_str(), type_as_read(&ty, json), true));
        }
        let schema = Schema::new(fields);
        Some((schema.clone(), self.table_in(table, &schema)?))
    }

    /// The rows of a table with the columns of `schema`; nothing once a mistake was reported.
    fn table_in(&self, table: &'a Table, schema: &Schema) -> Option<Vec<Vec<Value>>> {
        let reported = self.reported();
        let places: Vec<Option<usize>> = (table.columns.iter()).map(|name| self.place_in(name, schema)).collect();
        let span = table.columns.first().map_or(Span::default(), |name| name.span);
        self.missing_columns(schema, &places, span);
        let row = |cells: &'a Vec<Cell>| {
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
        let rows = table.rows.iter().map(row).collect();
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
        let step = self.step_of(value);
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
            value => self.rows_for(value, known.as_ref(), step, false),
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

    /// Where a step of the test stands.
    fn step_of(&self, value: &GivenValue) -> Span {
        let mut givens = self.checker.givens().into_iter();
        let step = givens.find(|(_, _, given)| std::ptr::eq(*given, value));
        step.map_or(Span::default(), |(span, _, _)| span)
    }

    /// Rows with the columns of `known`, or with those they have themselves.
    pub(super) fn rows_for(
        &self,
        value: &'a GivenValue,
        known: Option<&Schema>,
        step: Span,
        json: bool,
    ) -> Option<(Schema, Vec<Vec<Value>>)> {
        match (known, value) {
            (Some(schema), value) => Some((schema.clone(), self.checker.given_rows(value, schema)?)),
            (None, GivenValue::Table(table)) => self.checker.inferred(table, json),
            (None, GivenValue::Rows(rows)) if rows.is_empty() => {
                self.report(
                    Diagnostic::error("E1003", step, "nothing says which columns these rows have")
                        .labelled("no rows, and the script declares no columns for what they replace")
                        .help("`table { … }` with only its first line names them; `schema:` at a source declares them"),
                );
                None
            }
            (None, GivenValue::Rows(rows)) => Some(as_read(self.checker.record_rows(rows, step)?, json)),
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
        let declared = self.declared(side, rows, resolved, call);
        let made = self.rows_for(value, declared.as_ref(), span, matches!(format.name, "jsonl" | "json"));
        match made {
            Some((schema, rows)) => Replacement::Rows(schema, rows),
            None => Replacement::Nothing,
        }
    }

    /// The columns that the script declares for a source, those that its options add among them.
    fn declared(
        &mut self,
        side: &'static FormatSide,
        rows: &Rows,
        resolved: &Resolved,
        call: &'a StageCall,
    ) -> Option<Schema> {
        let declared = resolved.options.iter().find_map(|(name, item)| match &item.arg {
            Arg::Type(Type::Record(schema)) if *name == "schema" => Some(schema.clone()),
            _ => None,
        })?;
        // An empty file lacks nothing that is declared.
        let file = self.checker.options.testing?.scratch.join("empty");
        std::fs::write(&file, "").ok()?;
        let mut instead = Resolved {
            items: resolved.items[..1.min(resolved.items.len())].to_vec(),
            options: resolved.options.clone(),
            ..Resolved::default()
        };
        self.read_instead(&mut instead, &file);
        let reported = self.checker.reported();
        let bound = self.bind_format(side, rows, &mut instead, call);
        self.checker.take_back(reported);
        Some(bound.map_or(declared, |bound| bound.schema))
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
        resolved: &Resolved,
        call: &'a StageCall,
    ) -> (Edge, Rows) {
        let declared = self.declared(side, rows, resolved, call);
        let rows = declared.map_or_else(Rows::unknown, |schema| Rows::known(&schema));
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

/// Rows as a reader of files would have read them: any of them can be null, and JSON has no dates.
pub(super) fn as_read((schema, mut rows): (Schema, Vec<Vec<Value>>), json: bool) -> (Schema, Vec<Vec<Value>>) {
    let fields = schema.fields().iter();
    let read = fields.map(|field| Field::new(field.name.clone(), type_as_read(&field.ty, json), true));
    if json {
        for value in rows.iter_mut().flatten() {
            text_as_read(value);
        }
    }
    (read.collect(), rows)
}

fn type_as_read(ty: &Type, json: bool) -> Type {
    match ty {
        Type::Date | Type::Timestamp if json => Type::String,
        Type::List(item) => Type::list(type_as_read(&item.ty, json), true),
        Type::Record(fields) => {
            let fields = fields.fields().iter();
            let read = fields.map(|field| Field::new(field.name.clone(), type_as_read(&field.ty, json), true));
            Type::Record(read.collect())
        }
        ty => ty.clone(),
    }
}

fn text_as_read(value: &mut Value) {
    match value {
        Value::Date(_) | Value::Timestamp(_) => {
            let text = crate::expr::Literal(value).to_string();
            *value = Value::String(text.trim_start_matches('@').to_owned());
        }
        Value::List(items) => items.iter_mut().for_each(text_as_read),
        Value::Record(fields) => fields.iter_mut().for_each(|(_, value)| text_as_read(value)),
        _ => {}
    }
}
