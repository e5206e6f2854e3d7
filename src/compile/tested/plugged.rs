//! `with geo.locate = table { … }`: rows in the place of a plugin's source, stage or function.
//!
//! Laws
//! - The table says all there is to know: the library is neither looked at nor opened, unless the script uses something else of it.
//! - A source gives the rows. A stage gives them whatever comes to it; with `by` it finds for each row the one with the same values in
//!   those columns, and adds the others. A function finds its arguments in the first columns and gives the last.
//! - What no row of the table answers is an error of the row, as one of the function itself would be.

use super::given::as_read;
use super::*;
use crate::compile::call::Computed;
use crate::compile::rows::Lookup as Found;
use crate::expr::{Args, Expr as Typed, ForeignCall, Literal, value_of_cell};
use crate::syntax::ast::{Arg as Argument, ExprKind, Plugged};
use standpipe_sdk::{Code, Column, Field, Result, Type, values};

/// No row of the table has the values.
const NO_ROW: Code = Code(1006);

impl<'a> Checker<'a> {
    /// What the test puts in the place of `module.name`.
    pub(in crate::compile) fn plugged(&self, module: &Ident, name: &Ident) -> Option<&'a Plugged> {
        self.options.testing?;
        let mut names = self.names.borrow_mut();
        if !names.modules.contains_key(module.text.as_str()) {
            return None;
        }
        names.called.insert(format!("{}.{}", module.text, name.text));
        self.bindings().find_map(|binding| match binding {
            Binding::Plugged(plugged) if plugged.module.text == module.text && plugged.name.text == name.text => {
                Some(plugged)
            }
            _ => None,
        })
    }

    /// Says what is replaced and not there.
    pub(super) fn plugged_in_vain(&self) {
        let names = self.names.borrow();
        for binding in self.bindings() {
            let Binding::Plugged(plugged) = binding else { continue };
            let (module, full) = (plugged.module.text.as_str(), plugged.full_name());
            if !names.modules.contains_key(module) {
                let known: Vec<&str> = names.modules.keys().copied().collect();
                let near = suggest(module, known.iter().copied());
                self.report(
                    Diagnostic::error(
                        "E1002",
                        plugged.module.span,
                        format!("no `use plugin {module}` in this script"),
                    )
                    .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                    .note(match known.as_slice() {
                        [] => "it uses no plugin".to_owned(),
                        known => format!("it uses {}", list_names(known, 12)),
                    }),
                );
            } else if !names.called.contains(&full) {
                let prefix = format!("{module}.");
                let known: Vec<&str> = names.called.iter().map(String::as_str).collect();
                let known: Vec<&str> = known.into_iter().filter(|name| name.starts_with(&prefix)).collect();
                let near = suggest(&full, known.iter().copied());
                self.report(
                    Diagnostic::error(
                        "E1002",
                        plugged.name_span(),
                        format!("nothing in the script uses `{full}`"),
                    )
                    .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                    .note(match known.as_slice() {
                        [] => format!("it uses nothing of `{module}`"),
                        known => format!("it uses {}", list_names(known, 12)),
                    }),
                );
            }
        }
    }

    /// The names of the columns, and where each stands first.
    fn plugged_columns(&self, plugged: &'a Plugged) -> Vec<&'a Ident> {
        let mut columns: Vec<&Ident> = vec![];
        match &plugged.value {
            GivenValue::Table(table) => columns.extend(&table.columns),
            GivenValue::Rows(rows) => {
                for row in rows {
                    let ExprKind::Record(fields) = &row.kind else { continue };
                    for field in fields {
                        if !columns.iter().any(|column| column.text == field.name.text) {
                            columns.push(&field.name);
                        }
                    }
                }
            }
            GivenValue::File(_) => {}
        }
        columns
    }

    /// The rows, with the types of `keys` in those columns; the others have those that their cells have.
    fn plugged_rows(&self, plugged: &'a Plugged, keys: &[(usize, Type)]) -> Option<(Schema, Vec<Vec<Value>>)> {
        let (own, _) = match &plugged.value {
            GivenValue::Table(table) => self.inferred(table, false)?,
            GivenValue::Rows(rows) => as_read(self.record_rows(rows, plugged.span)?, false),
            GivenValue::File(_) => return None,
        };
        let fields = own.fields().iter().enumerate();
        let fields = fields.map(|(at, field)| match keys.iter().find(|(key, _)| *key == at) {
            Some((_, ty)) if *ty != Type::Null => Field::new(field.name.clone(), ty.clone(), true),
            _ => field.clone(),
        });
        let schema: Schema = fields.collect();
        let rows = self.given_rows(&plugged.value, &schema)?;
        let keys: Vec<usize> = keys.iter().map(|(at, _)| *at).collect();
        for (at, row) in rows.iter().enumerate() {
            let is_like = |other: &Vec<Value>| keys.iter().all(|&key| same(&row[key], &other[key]));
            if !keys.is_empty() && rows[..at].iter().any(is_like) {
                let shown: Vec<String> = keys.iter().map(|&key| Literal(&row[key]).to_string()).collect();
                self.report(
                    Diagnostic::error(
                        "E1003",
                        plugged.name_span(),
                        format!("two rows of the table answer ({})", shown.join(", ")),
                    )
                    .labelled("one of them can be found, not both"),
                );
                return None;
            }
        }
        Some((schema, rows))
    }

    /// A call of a function that is replaced.
    pub(in crate::compile) fn plugged_call(
        &self,
        plugged: &'a Plugged,
        args: &[Argument],
        at: Span,
        scope: &Scope<'_>,
    ) -> Option<Typed> {
        let columns = self.plugged_columns(plugged);
        let full = plugged.full_name();
        if let Some(by) = plugged.by.first() {
            self.report(
                Diagnostic::error("E1003", by.span, format!("`{full}` is used as a function"))
                    .labelled("rows are found by its arguments")
                    .help("without `by` the first columns are its arguments, the last is what it gives"),
            );
        }
        let params = columns.len().saturating_sub(1);
        let mut given: Vec<Option<Typed>> = vec![None; params];
        let (mut whole, mut fits) = (true, args.len() == params);
        let mut unnamed = None;
        for (position, arg) in args.iter().enumerate() {
            let place = match &arg.name {
                None => Some(position),
                Some(name) => {
                    let place = columns[..params].iter().position(|column| column.text == name.text);
                    if place.is_none() {
                        unnamed = Some(name.text.as_str());
                    }
                    place
                }
            };
            let value = self.expr(&arg.value, scope);
            whole &= value.is_some();
            match place.and_then(|place| given.get_mut(place)) {
                Some(slot) if slot.is_none() => *slot = value,
                _ => fits = false,
            }
        }
        if !whole {
            return None;
        }
        let Some(given) = given.into_iter().collect::<Option<Vec<_>>>().filter(|_| fits) else {
            let shown: Vec<&str> = columns.iter().map(|column| column.text.as_str()).collect();
            self.report(
                Diagnostic::error(
                    "E1003",
                    columns.first().map_or(plugged.span, |column| column.span),
                    format!("the columns do not fit the arguments of `{full}`"),
                )
                .labelled(match unnamed {
                    Some(name) => format!("no column for `{name}:` of the call"),
                    None => "a column for each argument, then one for what it gives".to_owned(),
                })
                .also(at, "this call")
                .note(format!(
                    "columns here: {}; arguments of the call: {}",
                    list_names(&shown, 12),
                    args.len()
                )),
            );
            return None;
        };
        let keys: Vec<(usize, Type)> = given.iter().map(|expr| expr.ty.clone()).enumerate().collect();
        let (schema, rows) = self.plugged_rows(plugged, &keys)?;
        let given = given.into_iter().zip(schema.fields());
        let given = given.map(|(expr, field)| self.coerced(expr, &field.ty));
        let given: Vec<Typed> = given.collect::<Option<_>>()?;
        let keys: Vec<usize> = (0..params).collect();
        self.accept(lookup(&full, &schema, &rows, &keys, params, true, given, at))
    }
}

impl<'a> Builder<'_, 'a> {
    /// A source that is replaced.
    pub(in crate::compile) fn plugged_source(&mut self, call: &'a StageCall, plugged: &'a Plugged) -> (Edge, Rows) {
        self.checker.seen_in(call);
        if let Some(by) = plugged.by.first() {
            self.report(
                Diagnostic::error(
                    "E1003",
                    by.span,
                    format!("`{}` is used as a source", plugged.full_name()),
                )
                .labelled("no rows come to it by which others could be found"),
            );
        }
        self.plugged_literal(call, plugged)
    }

    fn plugged_literal(&mut self, call: &'a StageCall, plugged: &'a Plugged) -> (Edge, Rows) {
        match self.rows_for(&plugged.value, None, plugged.span, false) {
            Some((schema, rows)) => self.given(call.span, schema, rows),
            None => self.nothing(),
        }
    }

    /// A stage that is replaced.
    pub(in crate::compile) fn plugged_stage(&mut self, state: &mut State, call: &'a StageCall, plugged: &'a Plugged) {
        self.checker.seen_in(call);
        self.hidden(call);
        if plugged.by.is_empty() {
            (state.edge, state.rows) = self.plugged_literal(call, plugged);
            return;
        }
        if self.plugged_by(state, call, plugged).is_none() {
            state.rows = Rows::unknown();
        }
    }

    /// The same by columns of its rows; nothing once a mistake was reported, or where one hides the columns.
    fn plugged_by(&mut self, state: &mut State, call: &'a StageCall, plugged: &'a Plugged) -> Option<()> {
        let (policy, to) = self.policy(call, state.default_policy);
        let columns = self.checker.plugged_columns(plugged);
        let mut keys: Vec<(usize, Type)> = vec![];
        let mut args = vec![];
        let mut whole = true;
        for name in &plugged.by {
            match state.rows.find(&name.text) {
                Found::Column(index) => {
                    let field = &state.rows.fields[index];
                    args.push(Typed::column(index, field, call.span));
                    match columns.iter().position(|column| column.text == name.text) {
                        Some(at) => keys.push((at, field.ty.clone())),
                        None => {
                            whole = false;
                            let shown: Vec<&str> = columns.iter().map(|column| column.text.as_str()).collect();
                            self.report(
                                Diagnostic::error(
                                    "E1003",
                                    name.span,
                                    format!("the table has no column `{}`", name.text),
                                )
                                .labelled("rows of it are to be found by this")
                                .note(format!("columns here: {}", list_names(&shown, 12))),
                            );
                        }
                    }
                }
                Found::Guess => whole = false,
                Found::Missing => {
                    whole = false;
                    self.report(
                        Diagnostic::error("E0204", name.span, format!("column `{}` not found", name.text))
                            .labelled(
                                (state.rows.nearest(&name.text))
                                    .map_or_else(String::new, |near| format!("`{near}` is close")),
                            )
                            .also(call.name_span(), "rows come to this")
                            .note(state.rows.note()),
                    );
                }
            }
        }
        if !whole {
            return None;
        }
        let (schema, rows) = self.checker.plugged_rows(plugged, &keys)?;
        let keys: Vec<usize> = keys.iter().map(|(at, _)| *at).collect();
        let added: Vec<usize> = (0..schema.width()).filter(|at| !keys.contains(at)).collect();
        if added.is_empty() {
            self.report(
                Diagnostic::error(
                    "E1003",
                    plugged.span,
                    "the table has no column that the stage would give",
                )
                .labelled("each stands behind `by`"),
            );
            return None;
        }
        let mut computed = vec![];
        for (nth, &at) in added.iter().enumerate() {
            let field = schema.get(at)?.clone();
            // A row that is not found fails once.
            let made = lookup(
                &plugged.full_name(),
                &schema,
                &rows,
                &keys,
                at,
                nth == 0,
                args.clone(),
                call.span,
            );
            let expr = self.checker.accept(made)?;
            computed.push(Computed {
                field,
                expr,
                guess: false,
            });
        }
        let own = state.rows.fields.len();
        let position = |name: &str| {
            added
                .iter()
                .position(|&at| schema.get(at).is_some_and(|f| &*f.name == name))
        };
        let mut picks: Vec<usize> = vec![];
        let mut made = Rows::default();
        for (index, field) in state.rows.fields.iter().enumerate() {
            let place = position(&field.name);
            picks.push(place.map_or(index, |place| own + place));
            let field = place.map_or(field, |place| &computed[place].field);
            made.fields.push(field.clone());
            made.guessed.push(place.is_none() && state.rows.is_guess(index));
        }
        for (place, computed) in computed.iter().enumerate() {
            if !picks.contains(&(own + place)) {
                picks.push(own + place);
                made.fields.push(computed.field.clone());
                made.guessed.push(false);
            }
        }
        let name = call.full_name();
        let edge = self.compute(state.edge, &state.rows, computed, &name, call, policy, to);
        let node = NewNode::new(name, call.span, vec![edge], made.schema(), Op::Rearrange { picks });
        state.edge = out(self.draft.push(node));
        state.rows = made;
        Some(())
    }
}

/// The value of column `at` in the row that has these values in the columns `keys`.
fn lookup(
    name: &str,
    schema: &Schema,
    rows: &[Vec<Value>],
    keys: &[usize],
    at: usize,
    strict: bool,
    args: Vec<Typed>,
    span: Span,
) -> std::result::Result<Typed, crate::expr::Issue> {
    let ty = schema.get(at).map_or(Type::Null, |field| field.ty.clone());
    let call = Lookup {
        name: name.to_owned(),
        keys: rows
            .iter()
            .map(|row| keys.iter().map(|&key| row[key].clone()).collect())
            .collect(),
        types: args.iter().map(|arg| arg.ty.clone()).collect(),
        gives: rows.iter().map(|row| vec![row[at].clone()]).collect(),
        ty: ty.clone(),
        strict,
    };
    Typed::computed_by(Arc::new(call), ty, args, span)
}

/// A table that is asked for values.
struct Lookup {
    name: String,
    keys: Vec<Vec<Value>>,
    types: Vec<Type>,
    /// One value in each row.
    gives: Vec<Vec<Value>>,
    ty: Type,
    /// Whether it is an error if there is no such row; otherwise null.
    strict: bool,
}

impl ForeignCall for Lookup {
    fn eval<'b>(&self, args: &Args<'_, 'b>) -> Result<Column<'b>> {
        let columns: Vec<Column<'b>> = (0..self.types.len()).map(|at| args.column(at)).collect::<Result<_>>()?;
        let places = args.arena().fill(args.rows(), (1, 0u32))?;
        for row in (0..args.rows()).filter(|&row| args.is_active(row)) {
            let cells = columns.iter().zip(&self.types);
            let asked: Vec<Value> = cells.map(|(column, ty)| value_of_cell(&column.cell(row), ty)).collect();
            let is_asked = |keys: &Vec<Value>| keys.iter().zip(&asked).all(|(a, b)| same(a, b));
            match self.keys.iter().position(is_asked) {
                Some(at) => places[row] = (0, at as u32),
                None if self.strict => {
                    let shown: Vec<String> = asked.iter().map(|value| Literal(value).to_string()).collect();
                    let message = format_args!(
                        "the test's table for `{}` has no row for ({})",
                        self.name,
                        shown.join(", ")
                    );
                    args.fault::<()>(row, NO_ROW, message)?;
                }
                None => {}
            }
        }
        let given = values::cells(&self.ty, &self.gives, 0, args.arena())?;
        Column::interleave(&[given, Column::nulls(1)], places, args.arena())
    }
}

/// Whether a value is the one that is looked for: NaN is NaN, null is null.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a == b,
    }
}
