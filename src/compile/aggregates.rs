//! Items over aggregates: each call becomes an argument of the stage, the rest is computed behind it.
//!
//! Laws
//! - Inside a call names are columns of the input; outside, keys and earlier items.
//! - The same call twice is one, and so is the same expression given to two calls.
//! - Neither the checker nor the stage knows an aggregate by name.

use super::call::{Computed, Resolver, not_wanted};
use super::explain::on_one_line;
use super::expressions::{Aggregates, Made, Place, Scope};
use super::report::Checker;
use super::rows::Rows;
use crate::diag::{Diagnostic, Span};
use crate::expr::{AggregateCall, Expr, Kind as ExprForm};
use crate::syntax::ast::{self, BinaryOp, ExprKind, Ident, ItemValue, StageCall, StageItem, UnaryOp};
use standpipe_sdk::aggregate::ResultNulls;
use standpipe_sdk::spec::{AggregateArg, Arg, ArgKind, Item, Items, Names, Spread, StageSpec, Want};
use standpipe_sdk::{Field, Type, Value};
use std::cell::RefCell;
use std::sync::Arc;

/// While items are checked, a column from here on is the value of a call, and of an earlier item further on: how many there
/// are is known at the end.
const CALLS: usize = 1 << 24;
const ITEMS: usize = 1 << 28;

/// Where aggregates can stand.
pub(super) struct Aggregating<'s> {
    /// What their arguments see.
    pub(super) input: &'s Rows,
    /// There is one group, with rows or without.
    single: bool,
    null_on_error: bool,
    /// What a row must be to count at all.
    within: RefCell<Option<Expr>>,
    found: RefCell<Vec<Found>>,
}

/// A call that stands in some item.
struct Found {
    /// Two calls with the same one are the same.
    text: String,
    call: AggregateCall,
    filter: Option<Expr>,
    field: Field,
}

/// What is computed behind a stage that gives keys and aggregates.
pub(super) struct Behind {
    pub(super) computed: Vec<Computed>,
    /// Name and position of each output column.
    pub(super) picks: Vec<(Arc<str>, usize)>,
    /// A group may fail.
    pub(super) fallible: bool,
}

impl Checker<'_> {
    /// A call of an aggregate: a column of what the stage will give.
    pub(super) fn aggregate(
        &self,
        aggregating: &Aggregating<'_>,
        receiver: Option<&ast::Expr>,
        name: &Ident,
        args: &[ast::Arg],
        at: Span,
    ) -> Option<Expr> {
        let scope = Scope {
            aggregates: Aggregates::Inside,
            ..Scope::rows(aggregating.input)
        };
        let (mut given, mut filter, mut whole) = (vec![], None, true);
        let positional = receiver.into_iter().map(|value| (None, value));
        let args = args.iter().map(|arg| (arg.name.as_ref(), &arg.value));
        for (name, value) in positional.chain(args) {
            let made = self.expr(value, &scope).and_then(|expr| match expr.failing_constant() {
                Some(issue) => self.accept(Err(issue)),
                None => Some(expr),
            });
            let Some(made) = made else {
                whole = false;
                continue;
            };
            if name.is_none_or(|name| name.text != "where") {
                given.push((name.map(|name| name.text.clone()), made));
                continue;
            }
            if !matches!(made.ty, Type::Bool | Type::Null) {
                self.report(not_wanted(Want::Bool, &made.ty, value.span, self.text_of(value.span)));
                whole = false;
                continue;
            }
            filter = Some(self.accept(Expr::coerce(made, &Type::Bool, value.span))?);
        }
        if !whole {
            return None;
        }
        if let Some(within) = aggregating.within.borrow().clone() {
            filter = Some(match filter {
                None => within,
                Some(own) => {
                    let no = Expr::constant(Value::Bool(false), Type::Bool, at);
                    self.accept(Expr::if_(within, own, Some(no), at))?
                }
            });
        }
        let mut call = match crate::expr::aggregate_call(&name.text, given, at) {
            Ok(call) => call,
            Err(issue) => return self.accept(Err(issue)),
        };
        if let Some(filter) = &filter {
            // A row that does not count cannot fail.
            for column in call.columns.iter_mut().filter(|column| column.fallible) {
                let (span, null) = (column.span, Expr::null(column.span));
                *column = self.accept(Expr::if_(filter.clone(), column.clone(), Some(null), span))?;
            }
        }
        let columns: Vec<String> = call.columns.iter().map(ToString::to_string).collect();
        let filter_text = filter.as_ref().map(ToString::to_string);
        let text = format!("{} {columns:?} {:?} {filter_text:?}", name.text, call.constants);
        let mut found = aggregating.found.borrow_mut();
        let index = found.iter().position(|found| found.text == text).unwrap_or_else(|| {
            let nullable = match call.aggregate.nulls() {
                ResultNulls::Never => false,
                ResultNulls::Some => true,
                ResultNulls::NoValues => {
                    aggregating.single || filter.is_some() || call.columns.iter().any(|column| column.nullable)
                }
            } || (aggregating.null_on_error
                && (call.aggregate.fallible() || call.columns.iter().any(|c| c.fallible)));
            let shown = on_one_line(self.text_of(at));
            found.push(Found {
                text,
                field: Field::new(shown, call.aggregate.ty().clone(), nullable),
                call,
                filter,
            });
            found.len() - 1
        });
        Some(Expr::column(CALLS + index, &found[index].field, at))
    }
}

impl Resolver<'_, '_> {
    /// The items that options say: an expression over aggregates for each of some values, over the rows that have it.
    pub(super) fn spread(&mut self, spec: &StageSpec, call: &StageCall) -> Vec<Item> {
        let given = |what| {
            let param = spec.options.iter().find(|param| param.arg == ArgKind::Spread(what))?;
            let option = call.options.iter().find(|option| option.name.text == param.name)?;
            option.value.to_expr()
        };
        let all = [Spread::Key, Spread::Values, Spread::Each].map(given);
        let [Some(key), Some(values), Some(each)] = all else {
            // Which one is missing is said with the other options.
            all.iter().flatten().for_each(|expr| self.checker.seen(expr));
            self.out.broken = true;
            return vec![];
        };
        let values = match values.kind {
            ExprKind::List(list) if !list.is_empty() => list,
            _ => {
                [&key, &each].into_iter().for_each(|expr| self.checker.seen(expr));
                self.wrong(
                    values.span,
                    "a list of the keys that become columns is needed here: `[\"a\", \"b\"]`",
                    "no such list",
                );
                return vec![];
            }
        };
        let (mut items, mut within) = (vec![], vec![]);
        for value in values {
            let span = value.span;
            let Some((name, value)) = self.column_key(value) else {
                continue;
            };
            items.push(StageItem {
                name: Some(Ident {
                    text: name,
                    quoted: true,
                    span,
                }),
                value: ItemValue::Expr(each.clone()),
                span,
            });
            within.push(ast::Expr {
                kind: ExprKind::Binary {
                    op: BinaryOp::Eq,
                    op_span: span,
                    left: Box::new(key.clone()),
                    right: Box::new(value),
                },
                parenthesised: false,
                span,
            });
        }
        let items: Vec<&StageItem> = items.iter().collect();
        let wants = Items {
            names: Names::Always,
            ..Items::some(ArgKind::Aggregate, 0, usize::MAX, "")
        };
        self.aggregates(wants, &items, &within, call)
    }

    /// A value that becomes a column: its name, and the value.
    fn column_key(&mut self, value: ast::Expr) -> Option<(String, ast::Expr)> {
        let is_number = |value: &ast::Expr| matches!(value.kind, ExprKind::Int(_) | ExprKind::Float { .. });
        let name = match &value.kind {
            ExprKind::Name(Ident { text, .. }) | ExprKind::Str(text) => {
                let kind = ExprKind::Str(text.clone());
                return Some((text.clone(), ast::Expr { kind, ..value }));
            }
            ExprKind::Unary { op, operand, .. } if *op == UnaryOp::Neg && is_number(operand) => value.span,
            ExprKind::Null | ExprKind::Bool(_) | ExprKind::Date(_) | ExprKind::Timestamp(_) => value.span,
            _ if is_number(&value) => value.span,
            _ => {
                self.checker.seen(&value);
                self.wrong(
                    value.span,
                    "a word, a text, a number, a date, `true`, `false` or `null` is needed here: it becomes a column",
                    "none of them",
                );
                return None;
            }
        };
        let name = self.checker.text_of(name).trim_start_matches('@').to_owned();
        Some((name, value))
    }

    /// The items of a stage that takes aggregates, as the aggregates that stand in them. `within`: for each item what a row must be to
    /// count in it; such items see keys and no other items.
    pub(super) fn aggregates(
        &mut self,
        wants: Items,
        items: &[&StageItem],
        within: &[ast::Expr],
        call: &StageCall,
    ) -> Vec<Item> {
        self.enough(wants, items.len(), call, "");
        let mut keys = Rows {
            missing: self.rows.missing.clone(),
            unknown: self.rows.unknown,
            ..Rows::default()
        };
        let mut names: Vec<(Arc<str>, Span)> = vec![];
        for item in &self.out.by {
            let (Some(name), Arg::Column(index)) = (&item.name, &item.arg) else {
                continue;
            };
            let own = self.rows.fields.len();
            let computed = index.checked_sub(own).and_then(|at| self.out.computed.get(at));
            let field = computed.map_or_else(|| self.rows.fields.get(*index), |computed| Some(&computed.field));
            let guess = computed.map_or_else(|| self.rows.is_guess(*index), |computed| computed.guess);
            if let Some(field) = field {
                keys.fields
                    .push(Field::new(name.clone(), field.ty.clone(), field.nullable));
                keys.guessed.push(guess);
                names.push((name.clone(), item.span));
            }
        }
        let aggregating = Aggregating {
            input: self.rows,
            single: call.by.is_empty(),
            null_on_error: self.null_on_error,
            within: RefCell::default(),
            found: RefCell::default(),
        };
        let mut made: Vec<Made> = vec![];
        let mut computed: Vec<Computed> = vec![];
        let mut picks: Vec<usize> = (0..keys.fields.len()).collect();
        for (at, item) in items.iter().enumerate() {
            let before = self.checker.reported();
            if let Some(condition) = within.get(at) {
                let made = self.checker.expression(condition, &Scope::rows(self.rows));
                self.out.guess |= made.is_none();
                aggregating.within.replace(made);
            }
            let ItemValue::Expr(value) = &item.value else {
                self.report(
                    Diagnostic::error("E0124", item.span, format!("`{}` takes no `*`", call.full_name()))
                        .labelled("not here"),
                );
                continue;
            };
            let name = self.item_name(wants, ArgKind::Aggregate, item, value);
            let scope = Scope {
                rows: Some(&keys),
                made: if within.is_empty() { &made } else { &[] },
                locals: &[],
                place: Place::Row,
                aggregates: Aggregates::Here(&aggregating),
            };
            let expr = self.checker.expression(value, &scope);
            let Some(Some(name)) = name else { continue };
            names.push((name.clone(), item.span));
            let guess = expr.is_none();
            self.out.guess |= guess;
            let expr = expr.unwrap_or_else(|| Expr::null(value.span));
            let nullable = expr.nullable || (self.null_on_error && expr.fallible);
            let field = Field::new(name, expr.ty.clone(), nullable);
            let index = match expr.kind {
                ExprForm::Column { index, .. } => index,
                _ => {
                    computed.push(Computed {
                        field: field.clone(),
                        expr,
                        guess,
                    });
                    ITEMS + computed.len() - 1
                }
            };
            picks.push(index);
            made.push(Made { field, index, guess });
            // What is wrong with one value is most likely wrong with all.
            if !within.is_empty() && self.checker.reported() > before {
                self.out.broken = true;
                break;
            }
        }
        self.same_names(&names);

        let found = aggregating.found.into_inner();
        let (keys, calls) = (keys.fields.len(), found.len());
        let place = move |index: usize| match index {
            index if index >= ITEMS => keys + calls + (index - ITEMS),
            index if index >= CALLS => keys + (index - CALLS),
            index => index,
        };
        for computed in &mut computed {
            computed.expr.remap(&place);
        }
        let fallible = found.iter().any(|found| found.call.aggregate.fallible());
        let stage_items = found.into_iter().map(|found| self.aggregate_item(found)).collect();
        let names = names.into_iter().map(|(name, _)| name);
        self.out.behind = Some(Behind {
            computed,
            picks: names.zip(picks.into_iter().map(place)).collect(),
            fallible,
        });
        stage_items
    }

    fn aggregate_item(&mut self, found: Found) -> Item {
        let columns = found.call.columns.into_iter();
        let columns = columns.map(|expr| self.computed_once(expr)).collect();
        Item {
            name: Some(found.field.name.clone()),
            arg: Arg::Aggregate(AggregateArg {
                aggregate: found.call.aggregate,
                columns,
                filter: found.filter.map(|expr| self.computed_once(expr)),
                nullable: found.field.nullable,
            }),
            descending: false,
            span: found.call.span,
        }
    }

    /// The column of an expression; a new one if none has it.
    fn computed_once(&mut self, expr: Expr) -> usize {
        if let ExprForm::Column { index, .. } = expr.kind {
            return index;
        }
        let text = expr.to_string();
        let same = |computed: &Computed| computed.expr.ty == expr.ty && computed.expr.to_string() == text;
        match self.out.computed.iter().position(same) {
            Some(at) => self.rows.fields.len() + at,
            None => self.compute(expr, None, false),
        }
    }

    fn same_names(&mut self, names: &[(Arc<str>, Span)]) {
        for (at, (name, span)) in names.iter().enumerate() {
            if names[..at].iter().any(|(earlier, _)| earlier == name) {
                self.report(
                    Diagnostic::error("E0508", *span, format!("two columns are called `{name}`"))
                        .labelled("the second one"),
                );
                self.out.broken = true;
            }
        }
    }
}
