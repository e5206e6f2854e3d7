//! Items over aggregates and functions of rows in their order: each call becomes an argument of the stage, the rest is computed
//! behind it.
//!
//! Laws
//! - Inside a call names are columns of the input; outside, keys (of a window of rows: the input's columns) and earlier items.
//! - The same call twice is one, and so is the same expression given to two calls.
//! - Neither the checker nor the stage knows an aggregate or a function by name.

use super::call::{Computed, Resolver, not_wanted};
use super::explain::on_one_line;
use super::expressions::{Aggregates, Made, Place, Scope};
use super::report::Checker;
use super::rows::{Lookup, Rows};
use crate::diag::{Diagnostic, Span};
use crate::expr::{AggregateCall, AggregateSpec, Expr, Kind as ExprForm, WindowCall, WindowSpec};
use crate::syntax::ast::{self, BinaryOp, ExprKind, Ident, ItemValue, StageCall, StageItem, UnaryOp};
use standpipe_sdk::aggregate::ResultNulls;
use standpipe_sdk::spec::{
    AggregateArg, Arg, ArgKind, Item, Items, Names, Spread, StageSpec, WINDOW_END, WINDOW_START, Want, WindowArg,
};
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
    /// A group may have no rows.
    empty: bool,
    /// What the rows behind the stage are.
    pub(super) over: Over,
    null_on_error: bool,
    /// What a row must be to count at all.
    within: RefCell<Option<Expr>>,
    found: RefCell<Vec<Found>>,
}

/// What the rows of a stage that takes aggregates are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    /// Groups of rows.
    Groups,
    /// Each row of the input, with the rows around it.
    Rows,
    /// Groups of rows within a time.
    Time,
}

/// A call that stands in some item.
struct Found {
    /// Two calls with the same one are the same.
    text: String,
    call: FoundCall,
    field: Field,
    span: Span,
}

enum FoundCall {
    Aggregate(AggregateCall, Option<Expr>),
    Window(WindowCall),
}

impl Found {
    fn fallible(&self) -> bool {
        matches!(&self.call, FoundCall::Aggregate(call, _) if call.aggregate.fallible())
    }
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
        overloads: &[&'static AggregateSpec],
        receiver: Option<&ast::Expr>,
        name: &str,
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
        let mut call = match crate::expr::aggregate_call_of(overloads, name, given, at) {
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
        let text = format!("{name} {columns:?} {:?} {filter_text:?}", call.constants);
        let nullable = match call.aggregate.nulls() {
            ResultNulls::Never => false,
            ResultNulls::Some => true,
            ResultNulls::NoValues => {
                aggregating.empty || filter.is_some() || call.columns.iter().any(|column| column.nullable)
            }
        } || (aggregating.null_on_error
            && (call.aggregate.fallible() || call.columns.iter().any(|c| c.fallible)));
        if let Some(strict) = call.aggregate.strict().filter(|_| !nullable) {
            call.aggregate = strict;
        }
        let (ty, span) = (call.aggregate.ty().clone(), call.span);
        let call = FoundCall::Aggregate(call, filter);
        Some(self.found(aggregating, text, call, (ty, nullable), span, at))
    }

    /// A call of a function of rows in their order.
    pub(super) fn window_call(
        &self,
        aggregating: &Aggregating<'_>,
        spec: &WindowSpec,
        receiver: Option<&ast::Expr>,
        args: &[ast::Arg],
        at: Span,
    ) -> Option<Expr> {
        let scope = Scope {
            aggregates: Aggregates::Inside,
            ..Scope::rows(aggregating.input)
        };
        let (mut given, mut whole) = (vec![], true);
        let positional = receiver.into_iter().map(|value| (None, value));
        let args = args.iter().map(|arg| (arg.name.as_ref(), &arg.value));
        for (name, value) in positional.chain(args) {
            let made = self.expr(value, &scope).and_then(|expr| match expr.failing_constant() {
                Some(issue) => self.accept(Err(issue)),
                None => Some(expr),
            });
            match made {
                Some(made) => given.push((name.map(|name| name.text.clone()), made)),
                None => whole = false,
            }
        }
        if !whole {
            return None;
        }
        let call = self.accept(crate::expr::window_call(spec, given, at))?;
        let column = call.column.as_ref().map(ToString::to_string);
        let text = format!("{:?} {column:?} {}", call.function, call.rows);
        let fallible = call.column.as_ref().is_some_and(|column| column.fallible);
        let nullable = call.nullable || (aggregating.null_on_error && fallible);
        let ty = call.ty.clone();
        Some(self.found(aggregating, text, FoundCall::Window(call), (ty, nullable), at, at))
    }

    /// The column of a call, which is a new one unless the same one was there before.
    fn found(
        &self,
        aggregating: &Aggregating<'_>,
        text: String,
        call: FoundCall,
        (ty, nullable): (Type, bool),
        span: Span,
        at: Span,
    ) -> Expr {
        let mut found = aggregating.found.borrow_mut();
        let index = found.iter().position(|found| found.text == text).unwrap_or_else(|| {
            let shown = on_one_line(self.text_of(at));
            found.push(Found {
                text,
                field: Field::new(shown, ty, nullable),
                call,
                span,
            });
            found.len() - 1
        });
        Expr::column(CALLS + index, &found[index].field, at)
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
        let over = match (wants.arg, &self.out.mode) {
            (ArgKind::Window, None) => Over::Rows,
            (ArgKind::Window, Some(_)) => Over::Time,
            _ => Over::Groups,
        };
        let (mut constants, items) = match over {
            Over::Time => self.leading_constants(items),
            Over::Rows | Over::Groups => (vec![], items),
        };
        let mut keys = Rows {
            missing: self.rows.missing.clone(),
            unknown: self.rows.unknown,
            ..Rows::default()
        };
        let mut names: Vec<(Arc<str>, Span)> = vec![];
        if over == Over::Rows {
            keys = self.rows.clone();
        }
        let by: &[Item] = if over == Over::Rows { &[] } else { &self.out.by };
        for item in by {
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
        if over == Over::Time {
            for name in [WINDOW_START, WINDOW_END] {
                keys.fields.push(Field::new(name, Type::Timestamp, false));
                keys.guessed.push(false);
                names.push((name.into(), call.span));
            }
        }
        let aggregating = Aggregating {
            input: self.rows,
            empty: match over {
                Over::Groups => call.by.is_empty(),
                Over::Rows => !self.frame_has_the_row(),
                Over::Time => false,
            },
            over,
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
            if over == Over::Rows && self.rows.find(&name) != Lookup::Missing {
                self.report(
                    Diagnostic::error("E0507", item.span, format!("column `{name}` exists already"))
                        .labelled(format!("`{}` only adds columns", call.full_name())),
                );
                self.out.broken = true;
            }
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
        let fallible = found.iter().any(Found::fallible);
        constants.extend(found.into_iter().map(|found| self.aggregate_item(found)));
        let own = match over {
            Over::Rows => self.rows.fields.iter().map(|field| field.name.clone()).collect(),
            Over::Groups | Over::Time => vec![],
        };
        let names = own.into_iter().chain(names.into_iter().map(|(name, _)| name));
        self.out.behind = Some(Behind {
            computed,
            picks: names.zip(picks.into_iter().map(place)).collect(),
            fallible,
        });
        constants
    }

    /// Items without a name before the first one with a name.
    fn leading_constants<'i, 'e>(&mut self, items: &'i [&'e StageItem]) -> (Vec<Item>, &'i [&'e StageItem]) {
        let named = items.iter().position(|item| item.name.is_some());
        let (first, rest) = items.split_at(named.unwrap_or(items.len()));
        let mut constants = vec![];
        for item in first {
            let ItemValue::Expr(value) = &item.value else {
                self.wrong(item.span, "a duration is needed here: `5m`", "not a duration");
                continue;
            };
            if let Some(arg) = self.constant(value, Want::Duration) {
                constants.push(Item {
                    name: None,
                    arg,
                    descending: false,
                    span: item.span,
                });
            }
        }
        (constants, rest)
    }

    /// Whether every row's frame has a row: its own.
    fn frame_has_the_row(&self) -> bool {
        let frame = self.out.options.iter().find_map(|(_, item)| match item.arg {
            Arg::Frame(from, to) => Some((from, to)),
            _ => None,
        });
        frame.is_none_or(|(from, to)| from.is_none_or(|from| from <= 0) && to.is_none_or(|to| to >= 0))
    }

    fn aggregate_item(&mut self, found: Found) -> Item {
        let arg = match found.call {
            FoundCall::Aggregate(call, filter) => {
                let columns = call.columns.into_iter();
                Arg::Aggregate(AggregateArg {
                    aggregate: call.aggregate,
                    columns: columns.map(|expr| self.computed_once(expr)).collect(),
                    filter: filter.map(|expr| self.computed_once(expr)),
                    nullable: found.field.nullable,
                })
            }
            FoundCall::Window(call) => Arg::Window(WindowArg {
                function: call.function,
                column: call.column.map(|expr| self.computed_once(expr)),
                rows: call.rows,
                nullable: found.field.nullable,
            }),
        };
        Item {
            name: Some(found.field.name.clone()),
            arg,
            descending: false,
            span: found.span,
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
