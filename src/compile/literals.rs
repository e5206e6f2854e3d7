//! Rows written in the script → a schema and values.
//!
//! Laws
//! - A column's type is the one its cells have in common; ints beside floats are floats.
//! - In a `table`, bare text makes the whole column text: `1234` beside `12a4` stays what it is.

use super::expressions::Scope;
use super::report::Checker;
use crate::diag::{Diagnostic, Span};
use crate::expr::Expr;
use crate::syntax::ast::{self, CellValue, Table};
use standpipe_sdk::{Field, Schema, Type, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Rows with their schema.
pub(super) type Literal = (Schema, Vec<Vec<Value>>);

impl<'a> Checker<'a> {
    /// The rows of `table { … }`.
    pub(super) fn table_rows(&self, table: &'a Table) -> Option<Literal> {
        let mut seen = BTreeSet::new();
        let mut whole = true;
        for column in &table.columns {
            // A name that stands twice was reported by the parser.
            whole &= seen.insert(column.text.as_str());
        }
        let mut columns: Vec<(Field, Vec<Value>)> = vec![];
        for (at, name) in table.columns.iter().enumerate() {
            match self.table_column(table, at) {
                Some((ty, nullable, values)) => columns.push((Field::new(name.text.as_str(), ty, nullable), values)),
                None => whole = false,
            }
        }
        whole.then(|| rows_of(columns, table.rows.len()))
    }

    /// One column of a table: its type, whether a cell is null, its values.
    pub(super) fn table_column(&self, table: &'a Table, at: usize) -> Option<(Type, bool, Vec<Value>)> {
        let cells = table.rows.iter().map(|row| row.get(at));
        let text = cells
            .clone()
            .flatten()
            .any(|cell| matches!(cell.value, CellValue::Text));
        let mut made: Vec<Option<Expr>> = vec![];
        for cell in cells.flatten() {
            made.push(match &cell.value {
                CellValue::Empty => Some(Expr::null(cell.span)),
                CellValue::Literal(literal) if !text => self.constant(literal, &Scope::CONSTANT),
                CellValue::Literal(_) | CellValue::Text => {
                    let value = Value::String(cell.text.clone());
                    Some(Expr::constant(value, Type::String, cell.span))
                }
            });
        }
        self.one_type(&table.columns.get(at)?.text, made.into_iter().collect::<Option<_>>()?)
    }

    /// The rows of `rows [ {…}, … ]`: a field that a record lacks is null there.
    pub(super) fn record_rows(&self, rows: &'a [ast::Expr], span: Span) -> Option<Literal> {
        let mut names: Vec<&'a str> = vec![];
        let mut cells: Vec<BTreeMap<&'a str, Expr>> = vec![];
        let mut whole = true;
        for row in rows {
            let ast::ExprKind::Record(fields) = &row.kind else {
                self.report(
                    Diagnostic::error("E0301", row.span, "a row is a record").labelled("`{name: value, …}` is one"),
                );
                whole = false;
                continue;
            };
            let mut made = BTreeMap::new();
            for field in fields {
                let name = field.name.text.as_str();
                match self.constant(&field.value, &Scope::CONSTANT) {
                    Some(value) => drop(made.insert(name, value)),
                    None => whole = false,
                }
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            cells.push(made);
        }
        if names.is_empty() && whole {
            self.report(
                Diagnostic::error("E0512", span, "these rows have no columns")
                    .labelled("at least one row with a field"),
            );
            return None;
        }
        let mut columns = vec![];
        for name in names {
            let column = cells
                .iter()
                .map(|row| row.get(name).cloned().unwrap_or_else(|| Expr::null(span)));
            match self.one_type(name, column.collect()) {
                Some((ty, nullable, values)) => columns.push((Field::new(name, ty, nullable), values)),
                None => whole = false,
            }
        }
        whole.then(|| rows_of(columns, rows.len()))
    }

    /// The type that all cells of a column have in common, and the cells as values of it.
    fn one_type(&self, name: &str, cells: Vec<Expr>) -> Option<(Type, bool, Vec<Value>)> {
        let mut ty = Type::Null;
        let mut nullable = false;
        for cell in &cells {
            nullable |= cell.nullable;
            match common(&ty, &cell.ty) {
                Some(wider) => ty = wider,
                None => {
                    self.report(
                        Diagnostic::error(
                            "E0312",
                            cell.span,
                            format!("the column `{name}` has values of two types"),
                        )
                        .labelled(format!("this is {}, those before are {ty}", cell.ty)),
                    );
                    return None;
                }
            }
        }
        let mut values = Vec::with_capacity(cells.len());
        for cell in cells {
            let value = match (&cell.ty, &ty) {
                (Type::Record(_), Type::Record(_)) | (Type::List(_), Type::List(_)) => cell,
                _ => self.coerced(cell, &ty)?,
            };
            values.push(shaped(value.as_value()?, &ty));
        }
        Some((ty, nullable, values))
    }
}

fn rows_of(columns: Vec<(Field, Vec<Value>)>, rows: usize) -> Literal {
    let (fields, values): (Vec<Field>, Vec<Vec<Value>>) = columns.into_iter().unzip();
    let mut columns: Vec<_> = values.into_iter().map(Vec::into_iter).collect();
    let rows = (0..rows).map(|_| {
        columns
            .iter_mut()
            .map(|column| column.next().unwrap_or(Value::Null))
            .collect()
    });
    let rows = rows.collect();
    (Schema::new(fields), rows)
}

/// The type that holds values of both.
fn common(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::List(x), Type::List(y)) => Some(Type::list(common(&x.ty, &y.ty)?, x.nullable || y.nullable)),
        (Type::Record(x), Type::Record(y)) => {
            let mut fields = vec![];
            for field in x.fields() {
                let other = y.position(&field.name).and_then(|at| y.get(at));
                fields.push(match other {
                    Some(other) => Field::new(
                        field.name.clone(),
                        common(&field.ty, &other.ty)?,
                        field.nullable || other.nullable,
                    ),
                    None => Field::new(field.name.clone(), field.ty.clone(), true),
                });
            }
            for field in y.fields() {
                if x.position(&field.name).is_none() {
                    fields.push(Field::new(field.name.clone(), field.ty.clone(), true));
                }
            }
            Some(Type::Record(Schema::new(fields)))
        }
        _ => crate::stages::union::widen(a, b),
    }
}

/// Whether a value is one of `ty`, through and through.
pub(super) fn is_of(value: &Value, ty: &Type) -> bool {
    match (value, ty) {
        (Value::Null, _) => true,
        (Value::List(items), Type::List(item)) => items.iter().all(|value| is_of(value, &item.ty)),
        (Value::Record(given), Type::Record(schema)) => {
            let fields = schema.fields().iter();
            given.len() == schema.width()
                && given
                    .iter()
                    .zip(fields)
                    .all(|((_, value), field)| is_of(value, &field.ty))
        }
        (value, ty) => super::values::type_of(value).as_ref() == Some(ty),
    }
}

/// A value with the shape of `ty`: fields in its order, ints within as floats where it says so.
pub(super) fn shaped(value: Value, ty: &Type) -> Value {
    match (value, ty) {
        (Value::Record(mut given), Type::Record(schema)) => Value::Record(
            schema
                .fields()
                .iter()
                .map(|field| {
                    let at = given.iter().position(|(name, _)| **name == *field.name);
                    let value = at.map_or(Value::Null, |at| given.swap_remove(at).1);
                    (field.name.to_string(), shaped(value, &field.ty))
                })
                .collect(),
        ),
        (Value::List(items), Type::List(item)) => {
            Value::List(items.into_iter().map(|value| shaped(value, &item.ty)).collect())
        }
        (Value::Int(value), Type::Float) => Value::Float(value as f64),
        (value, _) => value,
    }
}
