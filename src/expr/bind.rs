//! Constructors of expressions: types in, checked expression or issue out.

use crate::expr::function::{ForeignCall, ForeignPrepared, Nulls, Returns};
use crate::expr::{
    ARGUMENT, ArgValue, Argument, Arith, BRANCH, CAST, COMPARE, CONDITION, CONVERT, CallArg, Cmp, DECIMAL_TYPE,
    DECIMAL_WITH_FLOAT, Evaluator, Expr, FIELD, FORMAT, FPart, FUNCTION, Fixed, FunctionSpec, Given, Issue, Kind,
    MatchPattern, OPERATOR, OVERFLOW, ParamSpec, Pattern, Piece, REGEX, Set, function, functions,
};
use crate::expr::{decimal, types, values};
use regex::{Regex, RegexBuilder};
use standpipe_sdk::{Arena, Batch, Code, Faults, Field, Schema, Span, Type, Value};
use std::any::Any;
use std::sync::Arc;

type Checked = Result<Expr, Issue>;

/// Memory for computing one constant, in bytes.
const CONSTANT_BYTES: usize = 64 << 20;

/// An expression of `kind` that fails if a part does, or by itself (`fails`); computed now if its parts are constants.
fn make(kind: Kind, ty: Type, nullable: bool, fails: bool, span: Span) -> Expr {
    let mut fallible = fails;
    kind.parts(&mut |part| fallible |= part.fallible);
    finish(Expr {
        kind,
        ty,
        nullable,
        fallible,
        span,
    })
}

fn finish(e: Expr) -> Expr {
    let mut parts = 0;
    let mut constant = true;
    e.kind.parts(&mut |part| {
        parts += 1;
        constant &= part.is_constant();
    });
    let has_lambda =
        matches!(&e.kind, Kind::Call { args, .. } if args.iter().any(|a| matches!(a, Argument::Lambda(_))));
    if !constant
        || has_lambda
        || e.varies()
        || (parts == 0 && !matches!(e.kind, Kind::List(_) | Kind::Call { .. } | Kind::Format(_)))
    {
        return e;
    }
    match compute(&e) {
        Some(Ok(value)) => Expr {
            nullable: value == Value::Null,
            fallible: false,
            kind: Kind::Constant(value),
            ..e
        },
        // It fails: `failing_constant` says so, unless a `catch` or a branch makes that harmless.
        _ => e,
    }
}

/// The value of an expression without columns, or what it fails with.
pub(in crate::expr) fn compute(e: &Expr) -> Option<Result<Value, Issue>> {
    let arena = Arena::new(CONSTANT_BYTES);
    let faults = Faults::new(&arena, false);
    let batch = Batch::new(&[], None, 1);
    let column = Evaluator::new(Fixed::default())
        .eval(e, &batch, &arena, &faults, None)
        .ok()?;
    let first = faults.by_row().ok()?.first().copied();
    if let Some(fault) = first {
        let span = fault.span.unwrap_or(e.span);
        let mut issue = Issue::new(fault.code, span, fault.message, "always fails");
        issue.helps.extend(fault.help.map(str::to_string));
        return Some(Err(issue));
    }
    Some(Ok(values::of_cell(&column.cell(0), &e.ty)))
}

fn any_null(items: &[&Expr]) -> bool {
    items.iter().any(|e| e.nullable)
}

/// `e` as a bool, for a condition or a logical operator.
fn condition(e: Expr, what: &str) -> Checked {
    match e.ty {
        Type::Bool => Ok(e),
        Type::Null => Ok(implicit(e, &Type::Bool).unwrap_or_else(|e| e)),
        _ => {
            let issue = Issue::new(
                CONDITION,
                e.span,
                format!("{what} takes bool, not {}", e.ty),
                format!("is {}", e.ty),
            );
            Err(match e.ty {
                Type::Int | Type::Float | Type::Decimal { .. } => issue.help(format!("`{e} != 0`")),
                Type::String => issue.help(format!("`{e} != \"\"`")),
                _ => issue,
            })
        }
    }
}

/// `e` converted without a cast, or `e` back.
fn implicit(e: Expr, to: &Type) -> Result<Expr, Expr> {
    if e.ty == *to {
        return Ok(Expr {
            kind: match e.kind {
                Kind::FloatText { value, .. } => Kind::Constant(Value::Float(value)),
                kind => kind,
            },
            ..e
        });
    }
    if let (Kind::FloatText { text, .. }, Type::Decimal { precision, scale }) = (&e.kind, to) {
        let exact = types::literal(text).and_then(|(value, from)| {
            let shifted = decimal::fit(decimal::shift(value, i32::from(*scale) - i32::from(from))?, *precision)?;
            (decimal::compare(shifted, *scale, value, from).is_eq()).then_some(shifted)
        });
        return match exact {
            Some(value) => Ok(Expr {
                kind: Kind::Constant(Value::Decimal { value, scale: *scale }),
                ty: to.clone(),
                ..e
            }),
            None => Err(e),
        };
    }
    if let (Kind::List(_), Type::List(item)) = (&e.kind, to)
        && let Kind::List(items) = e.kind.clone()
    {
        let items: Result<Vec<Expr>, Expr> = items.into_iter().map(|i| implicit(i, &item.ty)).collect();
        if let Ok(items) = items {
            return Ok(make(Kind::List(items), to.clone(), false, false, e.span));
        }
        return Err(e);
    }
    if !types::is_implicit(&e.ty, to) {
        return Err(e);
    }
    let fails = types::cast_fails(&e.ty, to).unwrap_or(true);
    let (nullable, span) = (e.nullable, e.span);
    Ok(make(
        Kind::Cast {
            e: Box::new(e),
            implicit: true,
        },
        to.clone(),
        nullable,
        fails,
        span,
    ))
}

/// All of them at their common type.
fn unify(items: Vec<Expr>, what: &str, span: Span) -> Result<(Vec<Expr>, Type), Issue> {
    let refuse = |items: &[Expr]| {
        let first = items.iter().find(|e| e.ty != Type::Null);
        let odd = items
            .iter()
            .find(|e| first.is_some_and(|f| types::common(&f.ty, &e.ty).is_none()));
        let (a, b) = match (first, odd) {
            (Some(a), Some(b)) => (a, b),
            _ => return Issue::new(BRANCH, span, format!("{what} have no common type"), "here"),
        };
        let mut issue = Issue::new(
            BRANCH,
            b.span,
            format!("{what} are {} and {}", a.ty, b.ty),
            format!("is {}", b.ty),
        );
        issue.labels.push((a.span, format!("is {}", a.ty)));
        issue.help(format!("convert one of them: `{}({b})`", a.ty))
    };
    let Some(ty) = types::common_of(items.iter()) else {
        return Err(refuse(&items));
    };
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        out.push(implicit(item, &ty).map_err(|e| refuse(&[Expr::constant(Value::Null, ty.clone(), e.span), e]))?);
    }
    Ok((out, ty))
}

fn decimal_type(scale: u8) -> Type {
    Type::Decimal {
        precision: decimal::DIGITS,
        scale,
    }
}

fn scale_of(ty: &Type) -> u8 {
    match ty {
        Type::Decimal { scale, .. } => *scale,
        _ => 0,
    }
}

/// Whether the expression is a constant that is neither 0 nor (for ints) -1: dividing by it cannot fail.
fn safe_divisor(e: &Expr) -> bool {
    match e.as_value() {
        Some(Value::Int(n)) => n != 0 && n != -1,
        Some(Value::Float(x)) => x != 0.0,
        _ => false,
    }
}

/// Brings constants to the type of the other side where nothing is lost, so that the fast kernels apply.
fn adapt(e: Expr, other: &Type) -> Expr {
    let value = match (e.as_value(), other) {
        (Some(Value::Int(n)), Type::Float) if n.unsigned_abs() <= 1 << 53 => Value::Float(n as f64),
        (Some(Value::Float(x)), Type::Int) if x.trunc() == x && x.abs() <= (1u64 << 53) as f64 => Value::Int(x as i64),
        (Some(Value::Float(_)), Type::Decimal { .. }) => {
            let Kind::FloatText { text, .. } = &e.kind else {
                return e;
            };
            let Some((value, scale)) = types::literal(text) else {
                return e;
            };
            return Expr {
                kind: Kind::Constant(Value::Decimal { value, scale }),
                ty: decimal_type(scale),
                ..e
            };
        }
        _ => return e,
    };
    Expr {
        ty: other.clone(),
        kind: Kind::Constant(value),
        ..e
    }
}

/// Both sides as the comparison kernels take them: equal types, int and float, int and decimal, or two decimals.
fn comparable(op: Option<Cmp>, l: Expr, r: Expr, span: Span) -> Result<(Expr, Expr), Issue> {
    let r = adapt(r, &l.ty);
    let l = adapt(l, &r.ty);
    let fine = match (&l.ty, &r.ty) {
        (Type::Int, Type::Float | Type::Decimal { .. }) | (Type::Float | Type::Decimal { .. }, Type::Int) => true,
        (Type::Decimal { .. }, Type::Decimal { .. }) => true,
        (Type::Timestamp, Type::Date) if matches!(op, Some(Cmp::Lt | Cmp::Ge)) => {
            let r = implicit_time(r);
            return Ok((l, r));
        }
        (Type::Date, Type::Timestamp) if matches!(op, Some(Cmp::Gt | Cmp::Le)) => {
            let l = implicit_time(l);
            return Ok((l, r));
        }
        (a, b) => match types::common(a, b) {
            Some(ty) => {
                let ordered = ty.is_ordered() || matches!(op, None | Some(Cmp::Eq | Cmp::Ne));
                if !ordered || (ty == Type::Json && op.is_some()) {
                    let issue = Issue::new(
                        COMPARE,
                        span,
                        format!("{ty} has no order and no equality here"),
                        format!("both are {ty}"),
                    );
                    return Err(if ty == Type::Json {
                        issue.help("cast it first: `string(x)`, `int(x)`")
                    } else {
                        issue
                    });
                }
                let back = |e: Expr| Issue::new(COMPARE, e.span, format!("cannot compare {} here", e.ty), "");
                return Ok((implicit(l, &ty).map_err(back)?, implicit(r, &ty).map_err(back)?));
            }
            None => false,
        },
    };
    if fine {
        return Ok((l, r));
    }
    let mut issue = Issue::new(
        COMPARE,
        span,
        format!("cannot compare {} with {}", l.ty, r.ty),
        "these two",
    );
    issue.labels.push((l.span, format!("is {}", l.ty)));
    issue.labels.push((r.span, format!("is {}", r.ty)));
    let time = matches!(
        (&l.ty, &r.ty),
        (Type::Timestamp, Type::Date) | (Type::Date, Type::Timestamp)
    );
    Err(match (&l.ty, &r.ty) {
        _ if time => {
            issue.help("`date(…)` on the timestamp: a date meets a timestamp only in `ts < date` and `ts >= date`")
        }
        (Type::String, to) if types::cast_fails(&l.ty, to).is_some() => issue.help(format!("`{to}({l})`")),
        (from, to) if types::cast_fails(to, from).is_some() && l.as_value().is_none() => {
            issue.help(format!("`{from}({r})`"))
        }
        (_, to) if types::cast_fails(&l.ty, to).is_some() => issue.help(format!("`{to}({l})`")),
        _ => issue,
    })
}

fn implicit_time(e: Expr) -> Expr {
    let (nullable, span) = (e.nullable, e.span);
    let kind = Kind::Cast {
        e: Box::new(e),
        implicit: true,
    };
    make(kind, Type::Timestamp, nullable, false, span)
}

impl Expr {
    /// Column `index` of the batch.
    pub fn column(index: usize, field: &Field, span: Span) -> Expr {
        Expr {
            kind: Kind::Column {
                index,
                name: field.name.clone(),
            },
            ty: field.ty.clone(),
            nullable: field.nullable || field.ty == Type::Null,
            fallible: false,
            span,
        }
    }

    /// Parameter `slot` of the enclosing lambdas, counted from the outermost lambda's first parameter.
    pub fn lambda_param(slot: usize, field: &Field, span: Span) -> Expr {
        Expr {
            kind: Kind::Param {
                slot,
                name: field.name.clone(),
            },
            ty: field.ty.clone(),
            nullable: field.nullable,
            fallible: false,
            span,
        }
    }

    /// A constant of type `ty`.
    pub fn constant(value: Value, ty: Type, span: Span) -> Expr {
        let nullable = value == Value::Null;
        Expr {
            kind: Kind::Constant(value),
            ty,
            nullable,
            fallible: false,
            span,
        }
    }

    /// A literal with a point: a float, or beside a decimal a decimal.
    pub fn literal_decimal(text: &str, span: Span) -> Expr {
        let text: String = text.chars().filter(|&c| c != '_').collect();
        Expr {
            kind: Kind::FloatText {
                value: text.parse().unwrap_or(f64::NAN),
                text: text.into(),
            },
            ty: Type::Float,
            nullable: false,
            fallible: false,
            span,
        }
    }

    /// The literal `null`.
    pub fn null(span: Span) -> Expr {
        Expr::constant(Value::Null, Type::Null, span)
    }

    /// The value, iff it is a constant.
    pub fn as_value(&self) -> Option<Value> {
        match &self.kind {
            Kind::Constant(value) => Some(value.clone()),
            Kind::FloatText { value, .. } => Some(Value::Float(*value)),
            _ => None,
        }
    }

    fn is_constant(&self) -> bool {
        matches!(self.kind, Kind::Constant(_) | Kind::FloatText { .. })
    }

    fn is_null_literal(&self) -> bool {
        self.ty == Type::Null && matches!(self.kind, Kind::Constant(Value::Null))
    }

    /// `l op r`.
    pub fn arith(op: Arith, l: Expr, r: Expr, span: Span) -> Checked {
        use Type::{Date, Decimal, Duration, Float, Int, Null, Timestamp};
        let decimals = matches!(l.ty, Decimal { .. }) || matches!(r.ty, Decimal { .. });
        let (l, r) = if decimals { (adapt(l, &r.ty.clone()), r) } else { (l, r) };
        let (l, r) = if decimals {
            let ty = l.ty.clone();
            (l, adapt(r, &ty))
        } else {
            (l, r)
        };
        let divides = matches!(op, Arith::Div | Arith::FloorDiv | Arith::Rem);
        let (ty, fails) = match (&l.ty, op, &r.ty) {
            (Null, _, Null) => (Null, false),
            (Null, _, other) | (other, _, Null) if other.is_number() => match op {
                Arith::Div if *other == Int => (Float, false),
                _ => (other.clone(), false),
            },
            (Null, Arith::Add | Arith::Sub, other @ (Duration | Timestamp | Date)) => (other.clone(), false),
            (other @ (Duration | Timestamp | Date), Arith::Add | Arith::Sub, Null) => (other.clone(), false),
            (Int, Arith::Div, Int) => (Float, r.as_value().is_none_or(|v| v == Value::Int(0))),
            (Int, Arith::FloorDiv | Arith::Rem, Int) => (Int, !safe_divisor(&r)),
            (Int, _, Int) => (Int, true),
            (Int | Float, _, Int | Float) => (
                Float,
                divides
                    && r.as_value()
                        .is_none_or(|v| v == Value::Int(0) || v == Value::Float(0.0)),
            ),
            (Int | Decimal { .. }, _, Int | Decimal { .. }) if op != Arith::Pow => {
                let (a, b) = (scale_of(&l.ty), scale_of(&r.ty));
                let scale = match op {
                    Arith::Mul => a + b,
                    Arith::Div => a.max(b).max(12),
                    Arith::FloorDiv => 0,
                    _ => a.max(b),
                };
                if scale > decimal::DIGITS {
                    let text = format!(
                        "the product would have {scale} digits behind the point, more than {}",
                        decimal::DIGITS
                    );
                    return Err(Issue::new(DECIMAL_TYPE, span, text, "here")
                        .help(format!("round one side first: `round({l}, 10)`")));
                }
                (decimal_type(scale), true)
            }
            (Date, Arith::Add | Arith::Sub, Duration) => match r.as_value() {
                Some(Value::Duration(d)) if d % crate::expr::scalar::civil::DAY == 0 => (Date, true),
                _ => (Timestamp, true),
            },
            (Duration, Arith::Add, Date) => return Expr::arith(op, r, l, span),
            (Timestamp, Arith::Add | Arith::Sub, Duration) | (Duration, Arith::Add, Timestamp) => (Timestamp, true),
            (Date, Arith::Sub, Date) => (Duration, false),
            (Timestamp, Arith::Sub, Timestamp) => (Duration, true),
            (Duration, Arith::Add | Arith::Sub | Arith::Rem, Duration) => (Duration, true),
            (Duration, Arith::Div, Duration) => (Float, true),
            (Duration, Arith::FloorDiv, Duration) => (Int, true),
            (Duration, Arith::Mul | Arith::Div, Int | Float) | (Int | Float, Arith::Mul, Duration) => (Duration, true),
            _ => return Err(refused_arith(op, &l, &r, span)),
        };
        let nullable = any_null(&[&l, &r]);
        let kind = Kind::Arith {
            op,
            l: Box::new(l),
            r: Box::new(r),
        };
        Ok(make(kind, ty, nullable, fails, span))
    }

    /// `-e`.
    pub fn neg(e: Expr, span: Span) -> Checked {
        if let Kind::FloatText { value, text } = &e.kind {
            return Ok(Expr {
                kind: Kind::FloatText {
                    value: -value,
                    text: match text.strip_prefix('-') {
                        Some(text) => text.into(),
                        None => format!("-{text}").into(),
                    },
                },
                span,
                ..e
            });
        }
        let fails = match e.ty {
            Type::Int | Type::Duration => true,
            Type::Float | Type::Decimal { .. } | Type::Null => false,
            _ => {
                let text = format!("`-` takes a number or a duration, not {}", e.ty);
                return Err(Issue::new(OPERATOR, span, text, format!("is {}", e.ty)));
            }
        };
        let (ty, nullable) = (e.ty.clone(), e.nullable);
        Ok(make(Kind::Neg(Box::new(e)), ty, nullable, fails, span))
    }

    /// `l op r`; a literal `null` on one side of `==` or `!=` asks whether the other is null.
    pub fn compare(op: Cmp, l: Expr, r: Expr, span: Span) -> Checked {
        if matches!(op, Cmp::Eq | Cmp::Ne) {
            if r.is_null_literal() {
                return Expr::is_null(l, op == Cmp::Ne, span);
            }
            if l.is_null_literal() {
                return Expr::is_null(r, op == Cmp::Ne, span);
            }
        }
        let (l, r) = comparable(Some(op), l, r, span)?;
        let nullable = any_null(&[&l, &r]);
        let kind = Kind::Compare {
            op,
            l: Box::new(l),
            r: Box::new(r),
        };
        Ok(make(kind, Type::Bool, nullable, false, span))
    }

    /// `l and r`, Kleene.
    pub fn and(l: Expr, r: Expr, span: Span) -> Checked {
        let (l, r) = (condition(l, "`and`")?, condition(r, "`and`")?);
        let nullable = any_null(&[&l, &r]);
        Ok(make(
            Kind::And(Box::new(l), Box::new(r)),
            Type::Bool,
            nullable,
            false,
            span,
        ))
    }

    /// `l or r`, Kleene.
    pub fn or(l: Expr, r: Expr, span: Span) -> Checked {
        let (l, r) = (condition(l, "`or`")?, condition(r, "`or`")?);
        let nullable = any_null(&[&l, &r]);
        Ok(make(
            Kind::Or(Box::new(l), Box::new(r)),
            Type::Bool,
            nullable,
            false,
            span,
        ))
    }

    /// `not e`.
    pub fn not(e: Expr, span: Span) -> Checked {
        let e = condition(e, "`not`")?;
        let nullable = e.nullable;
        Ok(make(Kind::Not(Box::new(e)), Type::Bool, nullable, false, span))
    }

    /// `e is null`, or `is not null` where `negated`.
    pub fn is_null(e: Expr, negated: bool, span: Span) -> Checked {
        let kind = Kind::IsNull {
            e: Box::new(e),
            negated,
        };
        Ok(make(kind, Type::Bool, false, false, span))
    }

    /// `l is r`: equality with null as a value.
    pub fn is(l: Expr, r: Expr, negated: bool, span: Span) -> Checked {
        if r.is_null_literal() {
            return Expr::is_null(l, negated, span);
        }
        if l.is_null_literal() {
            return Expr::is_null(r, negated, span);
        }
        let (l, r) = comparable(Some(Cmp::Eq), l, r, span)?;
        let kind = Kind::Is {
            l: Box::new(l),
            r: Box::new(r),
            negated,
        };
        Ok(make(kind, Type::Bool, false, false, span))
    }

    /// `l ?? r`.
    pub fn coalesce(l: Expr, r: Expr, span: Span) -> Checked {
        let (items, ty) = unify(vec![l, r], "the sides of `??`", span)?;
        let [l, r] = <[Expr; 2]>::try_from(items).map_err(|_| Issue::new(BRANCH, span, "two sides", ""))?;
        let nullable = l.nullable && r.nullable;
        Ok(make(
            Kind::Coalesce(Box::new(l), Box::new(r)),
            ty,
            nullable,
            false,
            span,
        ))
    }

    /// `l catch r`.
    pub fn catch(l: Expr, r: Expr, span: Span) -> Checked {
        let (items, ty) = unify(vec![l, r], "the sides of `catch`", span)?;
        let [l, r] = <[Expr; 2]>::try_from(items).map_err(|_| Issue::new(BRANCH, span, "two sides", ""))?;
        if !l.fallible {
            return Ok(Expr { span, ..l });
        }
        let nullable = l.nullable || r.nullable;
        let fallible = r.fallible;
        Ok(finish(Expr {
            kind: Kind::Catch(Box::new(l), Box::new(r)),
            ty,
            nullable,
            fallible,
            span,
        }))
    }

    /// `if c then a else b`; without `b` it is null.
    pub fn if_(c: Expr, a: Expr, b: Option<Expr>, span: Span) -> Checked {
        let c = condition(c, "`if`")?;
        let b = b.unwrap_or_else(|| Expr::null(span));
        let (items, ty) = unify(vec![a, b], "the branches of `if`", span)?;
        let [a, b] = <[Expr; 2]>::try_from(items).map_err(|_| Issue::new(BRANCH, span, "two branches", ""))?;
        if let Some(value) = c.as_value() {
            let taken = if value == Value::Bool(true) { a } else { b };
            return Ok(Expr { span, ..taken });
        }
        let nullable = any_null(&[&a, &b]);
        Ok(make(
            Kind::If(Box::new(c), Box::new(a), Box::new(b)),
            ty,
            nullable,
            false,
            span,
        ))
    }

    /// `match subject { patterns => value, …, else => otherwise }`.
    pub fn match_(subject: Expr, arms: Vec<(Vec<MatchPattern>, Expr)>, otherwise: Option<Expr>, span: Span) -> Checked {
        let mut values: Vec<Expr> = arms.iter().map(|(_, value)| value.clone()).collect();
        values.push(otherwise.unwrap_or_else(|| Expr::null(span)));
        let (mut values, ty) = unify(values, "the arms of `match`", span)?;
        let Some(otherwise) = values.pop() else {
            return Err(Issue::new(BRANCH, span, "`match` without an arm", "here"));
        };
        let mut nullable = otherwise.nullable;
        let mut checked = Vec::with_capacity(values.len());
        for ((patterns, _), value) in arms.into_iter().zip(values) {
            nullable |= value.nullable;
            let adapt = |op: Cmp, e: Expr| {
                let span = e.span;
                let (l, r) = comparable(Some(op), subject.clone(), e, span)?;
                let same = l.ty == subject.ty;
                if same {
                    Ok(r)
                } else {
                    Err(Issue::new(
                        COMPARE,
                        span,
                        format!("a pattern of {} for {}", r.ty, subject.ty),
                        "here",
                    ))
                }
            };
            let mut out = Vec::with_capacity(patterns.len());
            for pattern in patterns {
                out.push(match pattern {
                    MatchPattern::Value(e) if e.is_null_literal() => MatchPattern::Null,
                    MatchPattern::Value(e) => MatchPattern::Value(adapt(Cmp::Eq, e)?),
                    MatchPattern::Range(low, high) => MatchPattern::Range(
                        low.map(|e| adapt(Cmp::Ge, e)).transpose()?,
                        high.map(|e| adapt(Cmp::Le, e)).transpose()?,
                    ),
                    MatchPattern::Null => MatchPattern::Null,
                });
            }
            checked.push((out, value));
        }
        let kind = Kind::Match {
            subject: Box::new(subject),
            arms: checked,
            otherwise: Box::new(otherwise),
        };
        Ok(make(kind, ty, nullable, false, span))
    }

    /// `e in [items]`: null if `e` is; nulls in the list match nothing.
    pub fn in_list(e: Expr, items: Vec<Expr>, negated: bool, span: Span) -> Checked {
        let mut adapted = Vec::with_capacity(items.len());
        for item in items {
            if item.is_null_literal() {
                continue;
            }
            let at = item.span;
            let (l, r) = comparable(Some(Cmp::Eq), e.clone(), item, at)?;
            if l.ty != e.ty && !l.is_null_literal() && e.ty != Type::Null {
                return Err(Issue::new(
                    COMPARE,
                    at,
                    format!("cannot look for {} among {}", e.ty, r.ty),
                    "here",
                ));
            }
            adapted.push(r);
        }
        let nullable = e.nullable;
        let kind = match Set::new(&e.ty, &adapted) {
            Some(set) => Kind::InSet {
                e: Box::new(e),
                items: adapted,
                set: Arc::new(set),
                negated,
            },
            None => Kind::InAny {
                e: Box::new(e),
                items: adapted,
                negated,
            },
        };
        Ok(make(kind, Type::Bool, nullable, false, span))
    }

    /// `e in list`, where `list` has a list type: null if either is.
    pub fn in_values(e: Expr, list: Expr, negated: bool, span: Span) -> Checked {
        if let Kind::List(items) = list.kind {
            return Expr::in_list(e, items, negated, span);
        }
        let item = match &list.ty {
            Type::List(item) => item.ty.clone(),
            Type::Null => e.ty.clone(),
            ty => {
                let issue = Issue::new(
                    COMPARE,
                    list.span,
                    format!("`in` takes a list or a range, not {ty}"),
                    format!("is {ty}"),
                );
                return Err(if *ty == Type::String {
                    issue.help(format!("`{list}.contains({e})`"))
                } else {
                    issue
                });
            }
        };
        if let Some(Value::List(values)) = list.as_value() {
            let constants = values.into_iter().map(|v| Expr::constant(v, item.clone(), list.span));
            let constants = constants.filter(|c| c.as_value() != Some(Value::Null)).collect();
            return Expr::in_list(e, constants, negated, span);
        }
        let back = |e: Expr| Issue::new(COMPARE, span, format!("cannot look for {} among {item}", e.ty), "here");
        let e = implicit(e, &item).map_err(back)?;
        let nullable = any_null(&[&e, &list]);
        let kind = Kind::InValues {
            e: Box::new(e),
            list: Box::new(list),
            negated,
        };
        Ok(make(kind, Type::Bool, nullable, false, span))
    }

    /// `e in low..high`, both included.
    pub fn in_range(e: Expr, low: Expr, high: Expr, negated: bool, span: Span) -> Checked {
        let check = |op, e: &Expr, end: Expr| {
            let at = end.span;
            let (l, r) = comparable(Some(op), e.clone(), end, at)?;
            if l.ty == e.ty {
                Ok(r)
            } else {
                Err(Issue::new(
                    COMPARE,
                    at,
                    format!("cannot look for {} in a range of {}", e.ty, r.ty),
                    "here",
                ))
            }
        };
        let low = check(Cmp::Ge, &e, low)?;
        let high = check(Cmp::Le, &e, high)?;
        let nullable = any_null(&[&e, &low, &high]);
        let kind = Kind::InRange {
            e: Box::new(e),
            low: Box::new(low),
            high: Box::new(high),
            negated,
        };
        Ok(make(kind, Type::Bool, nullable, false, span))
    }

    /// `e ~ /pattern/flags`.
    pub fn regex(e: Expr, pattern: &str, flags: &str, span: Span) -> Checked {
        let regex = compile_regex(pattern, flags, span)?;
        let e = match e.ty {
            Type::String => e,
            Type::Null => implicit(e, &Type::String).unwrap_or_else(|e| e),
            _ => {
                let text = format!("`~` takes a string, not {}", e.ty);
                return Err(Issue::new(OPERATOR, e.span, text, format!("is {}", e.ty)).help(format!("`string({e})`")));
            }
        };
        let nullable = e.nullable;
        let kind = Kind::Regex {
            e: Box::new(e),
            regex: Arc::new(regex),
            flags: flags.to_string(),
        };
        Ok(make(kind, Type::Bool, nullable, false, span))
    }

    /// `e.name`, or `e?.name` where `optional`.
    pub fn field(e: Expr, name: &str, optional: bool, span: Span) -> Checked {
        match &e.ty {
            Type::Record(schema) => {
                let Some(index) = schema.position(name) else {
                    let names: Vec<&str> = schema.fields().iter().map(|f| &*f.name).collect();
                    let issue = Issue::new(FIELD, span, format!("field `{name}` not found"), "no such field");
                    return Err(match nearest(name, names.iter().copied()) {
                        Some(near) => issue.help(format!("`{near}` is close")),
                        None => issue.help(format!("the record is {}", e.ty)),
                    });
                };
                let field = &schema.fields()[index];
                let (name, ty, nullable) = (field.name.clone(), field.ty.clone(), field.nullable || e.nullable);
                let kind = Kind::Field {
                    e: Box::new(e),
                    index,
                    name,
                };
                Ok(make(kind, ty, nullable, false, span))
            }
            Type::Json => {
                let kind = Kind::JsonField {
                    e: Box::new(e),
                    name: name.into(),
                    optional,
                };
                Ok(make(kind, Type::Json, true, !optional, span))
            }
            ty => Err(Issue::new(
                FIELD,
                span,
                format!("{ty} has no fields"),
                format!("`{e}` is {ty}"),
            )),
        }
    }

    /// `e[index]`: of a list or json by position (negative: from the end), of json by name.
    pub fn index(e: Expr, index: Expr, optional: bool, span: Span) -> Checked {
        if e.ty == Type::Json
            && let Some(Value::String(name)) = index.as_value()
        {
            return Expr::field(e, &name, optional, span);
        }
        let (ty, nullable) = match &e.ty {
            Type::List(item) => (
                item.ty.clone(),
                item.nullable || e.nullable || index.nullable || optional,
            ),
            Type::Json => (Type::Json, true),
            ty => {
                return Err(Issue::new(
                    OPERATOR,
                    span,
                    format!("{ty} has no elements"),
                    format!("`{e}` is {ty}"),
                ));
            }
        };
        if !matches!(index.ty, Type::Int | Type::Null) {
            let text = format!("an index is an int, not {}", index.ty);
            return Err(Issue::new(OPERATOR, index.span, text, format!("is {}", index.ty)));
        }
        let kind = Kind::Index {
            e: Box::new(e),
            index: Box::new(index),
            optional,
        };
        Ok(make(kind, ty, nullable, !optional, span))
    }

    /// `[items]`.
    pub fn list(items: Vec<Expr>, span: Span) -> Checked {
        let (items, ty) = unify(items, "the elements of a list", span)?;
        let nullable = items.iter().any(|e| e.nullable);
        let ty = Type::list(ty, nullable);
        Ok(make(Kind::List(items), ty, false, false, span))
    }

    /// `{name: value, …}`.
    pub fn record(fields: Vec<(String, Expr)>, span: Span) -> Checked {
        for (i, (name, e)) in fields.iter().enumerate() {
            if fields[..i].iter().any(|(other, _)| other == name) {
                return Err(Issue::new(FIELD, e.span, format!("field `{name}` twice"), "here"));
            }
        }
        let field = |(name, e): &(String, Expr)| Field::new(name.as_str(), e.ty.clone(), e.nullable);
        let schema: Schema = fields.iter().map(field).collect();
        let fields = fields.into_iter().map(|(name, e)| (name.into(), e)).collect();
        Ok(make(Kind::Record(fields), Type::Record(schema), false, false, span))
    }

    /// `f"…{value:spec}…"`.
    pub fn fstring(parts: Vec<FPart>, span: Span) -> Checked {
        let mut pieces = Vec::with_capacity(parts.len());
        let mut nullable = false;
        for part in parts {
            pieces.push(match part {
                FPart::Text(text) => Piece::Text(text),
                FPart::Value(e, spec) => {
                    let text = spec.unwrap_or_default();
                    if e.ty == Type::Bytes {
                        let issue = Issue::new(FORMAT, e.span, "bytes are no text", "is bytes");
                        return Err(issue.help(format!("`string({e})` if they are UTF-8, or `encode_base64({e})`")));
                    }
                    let spec = crate::expr::format::Spec::parse(&text, &e.ty).map_err(|message| {
                        Issue::new(FORMAT, e.span, message, "here")
                            .help("`.2 >10 <10 ^10 010 ,`, or `%Y-%m-%d` for dates")
                    })?;
                    nullable |= e.nullable;
                    Piece::Value(e, spec)
                }
            });
        }
        Ok(make(Kind::Format(pieces), Type::String, nullable, false, span))
    }

    /// What `int(x)` does: an explicit conversion, fallible where the value may not fit.
    pub fn cast(e: Expr, ty: Type, span: Span) -> Checked {
        if e.ty == ty {
            return Ok(Expr { span, ..e });
        }
        if let (Kind::FloatText { .. }, Type::Decimal { .. }) = (&e.kind, &ty)
            && let Ok(exact) = implicit(e.clone(), &ty)
        {
            return Ok(Expr { span, ..exact });
        }
        let Some(fails) = types::cast_fails(&e.ty, &ty) else {
            let issue = Issue::new(
                CAST,
                span,
                format!("there is no cast from {} to {ty}", e.ty),
                format!("`{e}` is {}", e.ty),
            );
            return Err(match (&e.ty, &ty) {
                (Type::Int | Type::Float, Type::Bool) => issue.help(format!("`{e} != 0`")),
                (Type::Int, Type::Timestamp | Type::Date) => issue.help("`from_unix(x)` takes seconds"),
                _ => issue,
            });
        };
        let nullable = e.nullable || e.ty == Type::Json || e.ty == Type::Null;
        let kind = Kind::Cast {
            e: Box::new(e),
            implicit: false,
        };
        Ok(make(kind, ty, nullable, fails, span))
    }

    /// Only implicit conversions: int to float or decimal, null to anything, a literal with a point to decimal.
    pub fn coerce(e: Expr, ty: &Type, span: Span) -> Checked {
        implicit(e, ty).map_err(|e| {
            let issue = Issue::new(
                CONVERT,
                span,
                format!("expected {ty}, found {}", e.ty),
                format!("is {}", e.ty),
            );
            match types::cast_fails(&e.ty, ty) {
                Some(_) => issue.help(format!("`{ty}({e})`")),
                None => issue,
            }
        })
    }

    /// `name(args)`: a built-in function.
    pub fn call(name: &str, args: Vec<CallArg>, span: Span) -> Checked {
        call(name, function(name), args, span)
    }

    /// A call of one of these functions, which scripts call `name`.
    pub fn call_of(name: &str, overloads: &[&'static FunctionSpec], args: Vec<CallArg>, span: Span) -> Checked {
        call(name, overloads.iter().copied(), args, span)
    }

    /// A part of it that is constant, is computed for every row, and fails: what the run would say at the first row.
    pub fn failing_constant(&self) -> Option<Issue> {
        if !self.fallible {
            return None;
        }
        if !self.varies() {
            return compute(self)?.err();
        }
        // Only parts that every row needs: not the branches of `if`, the right of `and`, what `catch` watches.
        match &self.kind {
            Kind::If(first, ..) | Kind::And(first, _) | Kind::Or(first, _) | Kind::Coalesce(first, _) => {
                first.failing_constant()
            }
            Kind::Match { subject, .. } => subject.failing_constant(),
            Kind::Catch(..) => None,
            kind => {
                let mut found = None;
                let lambdas =
                    matches!(kind, Kind::Call { args, .. } if args.iter().any(|a| matches!(a, Argument::Lambda(_))));
                if !lambdas {
                    kind.parts(&mut |part| found = found.take().or_else(|| part.failing_constant()));
                }
                found
            }
        }
    }
}

fn refused_arith(op: Arith, l: &Expr, r: &Expr, span: Span) -> Issue {
    let text = format!("`{}` does not take {} and {}", op.text(), l.ty, r.ty);
    let mixed = matches!(
        (&l.ty, &r.ty),
        (Type::Decimal { .. }, Type::Float) | (Type::Float, Type::Decimal { .. })
    );
    let mut issue = Issue::new(if mixed { DECIMAL_WITH_FLOAT } else { OPERATOR }, span, text, "here");
    issue.labels.push((l.span, format!("is {}", l.ty)));
    issue.labels.push((r.span, format!("is {}", r.ty)));
    match (&l.ty, op, &r.ty) {
        (Type::Decimal { .. }, _, Type::Float) => issue.help(format!("`float({l})`, or `decimal({r}, 38, 6)`")),
        (Type::Float, _, Type::Decimal { .. }) => issue.help(format!("`float({r})`, or `decimal({l}, 38, 6)`")),
        (Type::Decimal { .. }, Arith::Pow, _) | (_, Arith::Pow, Type::Decimal { .. }) => {
            issue.help(format!("`float({l})`"))
        }
        (Type::String, Arith::Add, _) | (_, Arith::Add, Type::String) => {
            issue.help("text is joined in an f-string: `f\"{a}{b}\"`")
        }
        (Type::String, _, other) if other.is_number() => issue.help(format!("`{other}({l})`")),
        (other, _, Type::String) if other.is_number() => issue.help(format!("`{other}({r})`")),
        (Type::Date | Type::Timestamp, Arith::Add | Arith::Sub, Type::Int) => {
            issue.help("a number of days is a duration: `3d`, or `n * 1d`")
        }
        (Type::Date, Arith::Sub, Type::Timestamp) => issue.help(format!("`date({r})`")),
        (Type::Timestamp, Arith::Sub, Type::Date) => issue.help(format!("`date({l})`")),
        _ => issue,
    }
}

fn compile_regex(pattern: &str, flags: &str, span: Span) -> Result<Regex, Issue> {
    let mut builder = RegexBuilder::new(pattern);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            other => {
                return Err(
                    Issue::new(REGEX, span, format!("`{other}` is no flag of a regex"), "here")
                        .help("flags are `i`, `m`, `s`"),
                );
            }
        };
    }
    builder.build().map_err(|error| {
        let text = error.to_string();
        let last = text
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_string();
        Issue::new(REGEX, span, format!("this regex cannot be compiled: {last}"), "here")
    })
}

/// The name closest to `name`, if one is close.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = (name.len() / 3).max(1);
    names
        .map(|other| (distance(name, other), other))
        .filter(|(d, _)| *d <= most)
        .min()
        .map(|(_, other)| other)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (row[j + 1] + 1).min(row[j] + 1).min(corner + usize::from(x != *y));
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// What stands for a parameter in one overload: an argument's number, or its default.
#[derive(Clone, Copy)]
pub(in crate::expr) enum Slot {
    Given(usize),
    Default(&'static str),
}

impl Slot {
    /// The argument, if one is given.
    pub(in crate::expr) fn of<'s, 'c>(&self, args: &'s [CallArg<'c>]) -> Option<&'s CallArg<'c>> {
        match self {
            Slot::Given(at) => args.get(*at),
            Slot::Default(_) => None,
        }
    }
}

/// The cost of an overload, and the type each argument is converted to (`None`: a regex or a lambda).
type Weighed = (u32, Vec<Option<Type>>);

/// An overload that fits: its cost, where the arguments go, and what they are converted to.
type Candidate = (u32, &'static FunctionSpec, Vec<(usize, Slot)>, Vec<Option<Type>>);

/// Which argument goes where; `Err` says why it does not fit.
pub(in crate::expr) fn place(
    name: &str,
    params: &'static [ParamSpec],
    args: &[CallArg],
) -> Result<Vec<(usize, Slot)>, String> {
    let variadic = params.last().is_some_and(|p| p.variadic);
    let mut slots: Vec<Option<usize>> = vec![None; params.len()];
    let mut rest = vec![];
    let mut at = 0;
    for (i, arg) in args.iter().enumerate() {
        let index = match &arg.name {
            Some(given) => match params.iter().position(|p| p.name == given) {
                Some(index) => index,
                None => {
                    let near = nearest(given, params.iter().map(|p| p.name));
                    let near = near.map(|near| format!("; `{near}` is close")).unwrap_or_default();
                    return Err(format!("`{name}` has no parameter `{given}`{near}"));
                }
            },
            None => {
                at += 1;
                at - 1
            }
        };
        if variadic && index + 1 >= params.len() {
            rest.push(i);
        } else if index >= params.len() {
            return Err(format!(
                "`{name}` takes at most {} arguments, not {}",
                params.len(),
                args.len()
            ));
        } else if slots[index].replace(i).is_some() {
            return Err(format!("`{}` is given twice", params[index].name));
        }
    }
    let mut out = vec![];
    for (index, param) in params.iter().enumerate() {
        match (slots[index], param.default) {
            _ if param.variadic => {}
            (Some(i), _) => out.push((index, Slot::Given(i))),
            (None, Some(default)) => out.push((index, Slot::Default(default))),
            (None, None) => return Err(format!("`{name}` needs `{}`", param.name)),
        }
    }
    out.extend(rest.into_iter().map(|i| (params.len() - 1, Slot::Given(i))));
    Ok(out)
}

pub(in crate::expr) fn default_value(text: &str, span: Span) -> Expr {
    let (value, ty) = match text {
        "null" => (Value::Null, Type::Null),
        "true" => (Value::Bool(true), Type::Bool),
        "false" => (Value::Bool(false), Type::Bool),
        _ if text.starts_with('"') => (Value::String(text.trim_matches('"').to_string()), Type::String),
        _ => match text.parse::<i64>() {
            Ok(n) => (Value::Int(n), Type::Int),
            Err(_) => return Expr::literal_decimal(text, span),
        },
    };
    Expr::constant(value, ty, span)
}

/// How well a type fits a pattern: 0 as it is, 1 converted; with the type to convert to.
pub(in crate::expr) fn fits(pattern: &Pattern, ty: &Type, earlier: &[Option<Type>]) -> Option<(u32, Type)> {
    let exact = |ok: bool| ok.then(|| (0, ty.clone()));
    if *ty == Type::Null {
        let to = match pattern {
            Pattern::Bool => Type::Bool,
            Pattern::Int | Pattern::Number => Type::Int,
            Pattern::Float => Type::Float,
            Pattern::Decimal => decimal_type(0),
            Pattern::String => Type::String,
            Pattern::Bytes => Type::Bytes,
            Pattern::Date => Type::Date,
            Pattern::Timestamp => Type::Timestamp,
            Pattern::Duration => Type::Duration,
            Pattern::Json => Type::Json,
            Pattern::Regex | Pattern::Lambda { .. } => return None,
            _ => Type::Null,
        };
        return Some((2, to));
    }
    match pattern {
        Pattern::Any | Pattern::Same(_) => exact(true),
        Pattern::Bool => exact(*ty == Type::Bool),
        Pattern::Int => exact(*ty == Type::Int),
        Pattern::Float if *ty == Type::Int => Some((1, Type::Float)),
        Pattern::Float => exact(*ty == Type::Float),
        Pattern::Decimal if *ty == Type::Int => Some((
            1,
            Type::Decimal {
                precision: 19,
                scale: 0,
            },
        )),
        Pattern::Decimal => exact(matches!(ty, Type::Decimal { .. })),
        Pattern::Number => exact(ty.is_number()),
        Pattern::String => exact(*ty == Type::String),
        Pattern::Bytes => exact(*ty == Type::Bytes),
        Pattern::Date => exact(*ty == Type::Date),
        Pattern::Timestamp => exact(*ty == Type::Timestamp),
        Pattern::Duration => exact(*ty == Type::Duration),
        Pattern::Json => exact(*ty == Type::Json),
        Pattern::Ordered => exact(ty.is_ordered()),
        Pattern::List => exact(matches!(ty, Type::List(_))),
        Pattern::ListOf(item) => match ty {
            Type::List(of) => fits(item, &of.ty, earlier).map(|(cost, to)| (cost, Type::list(to, of.nullable))),
            _ => None,
        },
        Pattern::Element(n) => match earlier.get(*n) {
            Some(Some(Type::List(item))) if item.ty == *ty => exact(true),
            Some(Some(Type::List(item))) if types::is_implicit(ty, &item.ty) => Some((1, item.ty.clone())),
            Some(Some(Type::Null)) => exact(true),
            _ => None,
        },
        Pattern::Record => exact(matches!(ty, Type::Record(_))),
        Pattern::Regex | Pattern::Lambda { .. } => None,
    }
}

/// The cost of an overload and the type each argument is converted to; `Err` says which argument does not fit.
fn weigh(
    spec: &'static FunctionSpec,
    slots: &[(usize, Slot)],
    args: &[CallArg],
    span: Span,
) -> Result<Weighed, (Span, String)> {
    let mut cost = 0;
    let mut to: Vec<Option<Type>> = vec![];
    for (index, slot) in slots {
        let pattern = &spec.params[*index].ty;
        let wants = |at: Span, found: String| {
            (
                at,
                format!(
                    "`{}` of `{}` is {pattern}, not {found}",
                    spec.params[*index].name, spec.name
                ),
            )
        };
        let default;
        let e = match slot {
            Slot::Default(text) => {
                default = default_value(text, span);
                &default
            }
            Slot::Given(i) => match (&args[*i].value, pattern) {
                (ArgValue::Regex { .. }, Pattern::Regex) | (ArgValue::Lambda(_), Pattern::Lambda { .. }) => {
                    to.push(None);
                    continue;
                }
                (ArgValue::Regex { .. }, _) => return Err(wants(args[*i].span, "a regex".into())),
                (ArgValue::Lambda(_), _) => return Err(wants(args[*i].span, "a lambda".into())),
                (ArgValue::Expr(e), _) => e,
            },
        };
        match fits(pattern, &e.ty, &to) {
            Some((extra, ty)) => {
                cost += extra;
                to.push(Some(ty));
            }
            None => {
                let at = if matches!(slot, Slot::Given(_)) { e.span } else { span };
                return Err(wants(at, e.ty.to_string()));
            }
        }
    }
    Ok((cost, to))
}

fn call(
    name: &str,
    overloads: impl Iterator<Item = &'static FunctionSpec> + Clone,
    args: Vec<CallArg>,
    span: Span,
) -> Checked {
    let mut best: Option<Candidate> = None;
    let mut why: Option<(Span, String)> = None;
    for spec in overloads.clone() {
        let weighed = place(spec.name, spec.params, &args)
            .map_err(|text| (span, text))
            .and_then(|slots| {
                let (cost, to) = weigh(spec, &slots, &args, span)?;
                Ok((cost, slots, to))
            });
        match weighed {
            Ok((cost, slots, to)) if best.as_ref().is_none_or(|(least, ..)| cost < *least) => {
                best = Some((cost, spec, slots, to));
            }
            Ok(_) => {}
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    let Some((_, spec, slots, to)) = best else {
        return Err(refused_call(name, overloads, why, span));
    };
    // Groups of `Same(n)` come to their common type, literals included.
    let mut slots_args: Vec<Option<CallArg>> = args.into_iter().map(Some).collect();
    let mut bound: Vec<Argument> = Vec::with_capacity(slots.len());
    let mut at_index: Vec<usize> = vec![];
    for ((index, slot), to) in slots.iter().zip(&to) {
        let (value, at) = match slot {
            Slot::Default(text) => (ArgValue::Expr(default_value(text, span)), span),
            Slot::Given(i) => match slots_args[*i].take() {
                Some(arg) => (arg.value, arg.span),
                None => return Err(Issue::new(ARGUMENT, span, "an argument is used twice", "here")),
            },
        };
        at_index.push(*index);
        bound.push(match value {
            ArgValue::Expr(e) => match to {
                Some(ty) if e.ty != *ty => Argument::Value(Expr::coerce(e, ty, at)?),
                _ => Argument::Value(e),
            },
            ArgValue::Regex { pattern, flags } => Argument::Regex(Arc::new(compile_regex(&pattern, &flags, at)?)),
            ArgValue::Lambda(lambda) => {
                let Pattern::Lambda { of, gives } = spec.params[*index].ty else {
                    return Err(Issue::new(ARGUMENT, at, "a lambda is not expected here", "here"));
                };
                let item = match at_index.iter().position(|i| *i == of).and_then(|i| bound.get(i)) {
                    Some(Argument::Value(list)) => match &list.ty {
                        Type::List(item) => (**item).clone(),
                        _ => standpipe_sdk::types::Item {
                            ty: Type::Null,
                            nullable: true,
                        },
                    },
                    _ => return Err(Issue::new(ARGUMENT, at, "a lambda needs a list before it", "here")),
                };
                let [param] = lambda.params.as_slice() else {
                    let text = format!("this lambda takes one parameter, not {}", lambda.params.len());
                    return Err(Issue::new(ARGUMENT, at, text, "here"));
                };
                let field = Field::new(param.as_str(), item.ty, item.nullable);
                let mut built = (lambda.build)(&[field])?;
                if *gives == Pattern::Bool {
                    built.body = Box::new(condition(*built.body, "this lambda")?);
                }
                Argument::Lambda(built)
            }
        });
    }
    same_types(spec, &at_index, &mut bound, span)?;
    finish_call(spec, bound, span)
}

fn same_types(spec: &FunctionSpec, at_index: &[usize], bound: &mut [Argument], span: Span) -> Result<(), Issue> {
    for leader in 0..spec.params.len() {
        let in_group = |index: usize| index == leader || spec.params[index].ty == Pattern::Same(leader);
        if !spec.params.iter().any(|p| p.ty == Pattern::Same(leader)) {
            continue;
        }
        let mut members = vec![];
        let mut values = vec![];
        for (i, arg) in bound.iter().enumerate() {
            if let (true, Argument::Value(e)) = (in_group(at_index[i]), arg) {
                members.push(i);
                values.push(e.clone());
            }
        }
        let (values, _) = unify(values, &format!("the arguments of `{}`", spec.name), span)?;
        for (i, value) in members.into_iter().zip(values) {
            bound[i] = Argument::Value(value);
        }
    }
    Ok(())
}

/// The spec of a call that somebody else computes: see [`Expr::computed_by`].
static FOREIGN_CALL: FunctionSpec = FunctionSpec {
    name: "given",
    about: "What stands in the place of a plugin's function.",
    nulls: Nulls::Own,
    fallible: true,
    ..FunctionSpec::FOREIGN
};

impl Expr {
    /// A call of `call` with these arguments, as they are. It may give null and may fail.
    pub fn computed_by(call: Arc<dyn ForeignCall>, ty: Type, mut args: Vec<Expr>, span: Span) -> Checked {
        if args.len() > 64 {
            return Err(Issue::new(
                ARGUMENT,
                span,
                "a function takes at most 64 arguments",
                "here",
            ));
        }
        args.iter_mut().for_each(settle);
        let kind = Kind::Call {
            spec: &FOREIGN_CALL,
            args: args.into_iter().map(Argument::Value).collect(),
            prepared: Some(Arc::new(ForeignPrepared(call))),
        };
        Ok(make(kind, ty, true, true, span))
    }
}

/// A number that could still have become a decimal is a float.
fn settle(e: &mut Expr) {
    if let Kind::FloatText { value, .. } = e.kind {
        e.kind = Kind::Constant(Value::Float(value));
    }
}

fn finish_call(spec: &'static FunctionSpec, mut bound: Vec<Argument>, span: Span) -> Checked {
    for arg in &mut bound {
        if let Argument::Value(e) = arg {
            settle(e);
        }
    }
    if bound.len() > 64 {
        return Err(Issue::new(
            ARGUMENT,
            span,
            format!("`{}` takes at most 64 arguments", spec.name),
            "here",
        ));
    }
    let known: Vec<Option<Value>> = bound
        .iter()
        .map(|arg| match arg {
            Argument::Value(e) => e.as_value(),
            _ => None,
        })
        .collect();
    let given: Vec<Given<'_>> = bound
        .iter()
        .zip(&known)
        .map(|(arg, value)| match arg {
            Argument::Value(e) => Given {
                ty: &e.ty,
                nullable: e.nullable,
                value: value.as_ref(),
                regex: None,
            },
            Argument::Lambda(lambda) => Given {
                ty: &lambda.body.ty,
                nullable: lambda.body.nullable,
                value: None,
                regex: None,
            },
            Argument::Regex(regex) => Given {
                ty: &Type::Null,
                nullable: false,
                value: None,
                regex: Some(regex),
            },
        })
        .collect();
    let refuse = |text: String| Issue::new(ARGUMENT, span, text, "here");
    let ty_of = |n: usize| given.get(n).map_or(Type::Null, |g| g.ty.clone());
    let foreign = match spec.foreign {
        Some(foreign) => Some(foreign.bind(&given).map_err(refuse)?),
        None => None,
    };
    let ty = match spec.returns {
        Returns::Bound(_) => foreign.as_ref().map_or(Type::Null, |(field, _)| field.ty.clone()),
        Returns::Bool => Type::Bool,
        Returns::Int => Type::Int,
        Returns::Float => Type::Float,
        Returns::String => Type::String,
        Returns::Bytes => Type::Bytes,
        Returns::Date => Type::Date,
        Returns::Timestamp => Type::Timestamp,
        Returns::Duration => Type::Duration,
        Returns::Json => Type::Json,
        Returns::Same(n) => ty_of(n),
        Returns::Element(n) => match ty_of(n) {
            Type::List(item) => item.ty.clone(),
            _ => Type::Null,
        },
        Returns::Strings => Type::list(Type::String, false),
        Returns::ListOfLambda(n) => Type::list(ty_of(n), given.get(n).is_some_and(|g| g.nullable)),
        Returns::Of(f) => f(&given).map_err(refuse)?,
    };
    let may_be_null = foreign.as_ref().is_none_or(|(field, _)| field.nullable);
    let prepared = match (foreign, spec.prepare) {
        (Some((_, call)), _) => Some(Arc::new(ForeignPrepared(call)) as Arc<dyn Any + Send + Sync>),
        (None, Some(prepare)) => Some(prepare(&given).map_err(refuse)?),
        (None, None) => None,
    };
    let nullable = match spec.nulls {
        Nulls::Own if !may_be_null => false,
        Nulls::Propagate => bound.iter().any(|arg| matches!(arg, Argument::Value(e) if e.nullable)),
        Nulls::Own => true,
        Nulls::Never => false,
    };
    let kind = Kind::Call {
        spec,
        args: bound,
        prepared,
    };
    Ok(make(kind, ty, nullable, spec.fallible, span))
}

fn refused_call(
    name: &str,
    overloads: impl Iterator<Item = &'static FunctionSpec>,
    why: Option<(Span, String)>,
    span: Span,
) -> Issue {
    let Some((at, text)) = why else {
        let issue = Issue::new(
            FUNCTION,
            span,
            format!("function `{name}` not found"),
            "no such function",
        );
        let names = functions()
            .iter()
            .flat_map(|family| family.iter())
            .map(|spec| spec.name);
        return match nearest(name, names) {
            Some(near) => issue.help(format!("`{near}` is close")),
            None => issue,
        };
    };
    let mut issue = Issue::new(ARGUMENT, at, text, "here");
    issue.helps.extend(overloads.map(|spec| format!("`{spec}`")));
    issue
}

/// Evaluates a constant expression and prints its value: runs the examples of functions. A failing one gives the code and
/// the message.
pub fn run_example(e: &Expr) -> String {
    match compute(e) {
        Some(Ok(value)) => crate::expr::show::Literal(&value).to_string(),
        Some(Err(issue)) => format!("{}: {}", issue.code, issue.message),
        None => format!("{}: out of memory", Code(OVERFLOW.0)),
    }
}
