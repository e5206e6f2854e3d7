//! The slow, obviously right evaluator: one row, one owned value at a time. Random expressions over random batches must
//! give the same values and the same failing rows here and in the vectorised evaluator.

use crate::expr::kernel::compare::{floats, int_float};
use crate::expr::scalar::{civil, print, scan};
use crate::expr::show::Literal;
use crate::expr::{Arith, Cmp, Evaluator, Expr, FPart, Fixed, Issue, Kind, MatchPattern, Piece, decimal, values};
use standpipe_sdk::{Arena, Batch, Columns, Faults, Field, Span, Type, Value};
use std::cmp::Ordering;

/// A failing row.
type Row = Result<Value, ()>;

const SPAN: Span = Span { start: 0, end: 0 };

fn scale(ty: &Type) -> i32 {
    match ty {
        Type::Decimal { scale, .. } => i32::from(*scale),
        _ => 0,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => floats(*a, *b),
        (Value::Int(a), Value::Float(b)) => int_float(*a, *b),
        (Value::Float(a), Value::Int(b)) => int_float(*b, *a).reverse(),
        (Value::Decimal { value: a, scale: s }, Value::Decimal { value: b, scale: t }) => {
            decimal::compare(*a, *s, *b, *t)
        }
        (Value::Int(a), Value::Decimal { value, scale }) => decimal::compare(i128::from(*a), 0, *value, *scale),
        (Value::Decimal { value, scale }, Value::Int(b)) => decimal::compare(*value, *scale, i128::from(*b), 0),
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::List(a), Value::List(b)) => {
            let same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b));
            if same { Ordering::Equal } else { Ordering::Less }
        }
        other => panic!("no order of {other:?}"),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (a, b) => order(a, b).is_eq(),
    }
}

fn arith(e: &Expr, op: Arith, l: &Value, r: &Value) -> Row {
    let float = |v: &Value| match v {
        Value::Int(n) => *n as f64,
        Value::Float(x) => *x,
        other => panic!("{other:?}"),
    };
    let int = |v: i128| i64::try_from(v).map_err(|_| ());
    let floor = |x: i128, y: i128| x.div_euclid(y) - i128::from(y < 0 && x.rem_euclid(y) != 0);
    match (l, r) {
        (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
        (Value::Int(x), Value::Int(y)) if op != Arith::Div => {
            let (x, y) = (i128::from(*x), i128::from(*y));
            Ok(Value::Int(match op {
                Arith::Add => int(x + y)?,
                Arith::Sub => int(x - y)?,
                Arith::Mul => int(x * y)?,
                Arith::FloorDiv | Arith::Rem if y == 0 => return Err(()),
                Arith::FloorDiv => int(floor(x, y))?,
                Arith::Rem => int(x - floor(x, y) * y)?,
                _ if y < 0 => return Err(()),
                _ => {
                    let mut value = 1i64;
                    if x.abs() > 1 {
                        for _ in 0..y.min(100) {
                            value = int(i128::from(value) * x)?;
                        }
                    } else if y > 0 {
                        value = if x == -1 && y % 2 == 0 { 1 } else { x as i64 };
                    }
                    value
                }
            }))
        }
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            let (x, y) = (float(l), float(r));
            if matches!(op, Arith::Div | Arith::FloorDiv | Arith::Rem) && y == 0.0 {
                return Err(());
            }
            Ok(Value::Float(match op {
                Arith::Add => x + y,
                Arith::Sub => x - y,
                Arith::Mul => x * y,
                Arith::Div => x / y,
                Arith::FloorDiv => (x / y).floor(),
                Arith::Pow => x.powf(y),
                Arith::Rem => match x % y {
                    rest if rest != 0.0 && (rest < 0.0) != (y < 0.0) => rest + y,
                    rest => rest,
                },
            }))
        }
        (Value::Decimal { .. } | Value::Int(_), Value::Decimal { .. } | Value::Int(_)) => {
            let parts = |v: &Value| match v {
                Value::Decimal { value, scale } => (*value, i32::from(*scale)),
                Value::Int(n) => (i128::from(*n), 0),
                other => panic!("{other:?}"),
            };
            let ((x, s), (y, t)) = (parts(l), parts(r));
            let to = scale(&e.ty);
            let ten = |v: i128, by: i32| v.checked_mul(10i128.pow(by as u32)).ok_or(());
            let value = match op {
                Arith::Add => ten(x, to - s)? + ten(y, to - t)?,
                Arith::Sub => ten(x, to - s)? - ten(y, to - t)?,
                Arith::Mul => x.checked_mul(y).ok_or(())?,
                _ if y == 0 => return Err(()),
                Arith::Div => {
                    let (n, d) = (ten(x, to + t - s)?, y);
                    let (n, d) = if d < 0 { (-n, -d) } else { (n, d) };
                    let (q, r) = (n.div_euclid(d), n.rem_euclid(d));
                    q + i128::from(2 * r > d || (2 * r == d && q % 2 != 0))
                }
                _ => {
                    let (x, y) = (ten(x, s.max(t) - s)?, ten(y, s.max(t) - t)?);
                    if op == Arith::Rem {
                        x - floor(x, y) * y
                    } else {
                        floor(x, y)
                    }
                }
            };
            let value = decimal::fit(value, 38).ok_or(())?;
            Ok(Value::Decimal { value, scale: to as u8 })
        }
        (Value::Date(a), Value::Date(b)) => Ok(Value::Duration((i64::from(*a) - i64::from(*b)) * civil::DAY)),
        (Value::Date(day), Value::Duration(d)) => {
            let sign = if op == Arith::Sub { -1 } else { 1 };
            let micros = i128::from(*day) * i128::from(civil::DAY) + sign * i128::from(*d);
            let micros = int(micros).ok().filter(|m| civil::in_range(*m)).ok_or(())?;
            Ok(if e.ty == Type::Date {
                Value::Date(micros.div_euclid(civil::DAY) as i32)
            } else {
                Value::Timestamp(micros)
            })
        }
        (Value::Timestamp(a), Value::Duration(b)) => {
            let b = if op == Arith::Sub {
                -i128::from(*b)
            } else {
                i128::from(*b)
            };
            let micros = int(i128::from(*a) + b).ok().filter(|m| civil::in_range(*m)).ok_or(())?;
            Ok(Value::Timestamp(micros))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Value::Duration(int(i128::from(*a) - i128::from(*b))?)),
        (Value::Duration(a), Value::Duration(b)) => match op {
            Arith::Add => Ok(Value::Duration(int(i128::from(*a) + i128::from(*b))?)),
            Arith::Sub => Ok(Value::Duration(int(i128::from(*a) - i128::from(*b))?)),
            _ if *b == 0 => Err(()),
            _ => Ok(Value::Float(*a as f64 / *b as f64)),
        },
        other => panic!("{op:?} of {other:?}"),
    }
}

fn cast(v: &Value, to: &Type) -> Row {
    let text = |v: &Value| {
        let mut out = Literal(v).to_string();
        if let Value::String(text) = v {
            out = text.clone();
        }
        if let Value::Duration(v) = v {
            out.clear();
            print::write_duration(&mut out, *v);
        }
        out.trim_start_matches('@').to_string()
    };
    let some = |v: Option<Value>| v.ok_or(());
    match (v, to) {
        (Value::Null, _) => Ok(Value::Null),
        (v, Type::String) => Ok(Value::String(text(v))),
        (Value::Bool(v), Type::Int) => Ok(Value::Int(i64::from(*v))),
        (Value::Int(v), Type::Float) => Ok(Value::Float(*v as f64)),
        (Value::Int(v), Type::Decimal { precision, scale }) => some(
            decimal::fit(i128::from(*v) * 10i128.pow(u32::from(*scale)), *precision)
                .map(|value| Value::Decimal { value, scale: *scale }),
        ),
        (Value::Float(x), Type::Int) => {
            some((x.trunc() == *x && *x >= -(2f64.powi(63)) && *x < 2f64.powi(63)).then_some(Value::Int(*x as i64)))
        }
        (Value::Decimal { value, scale }, Type::Float) => Ok(Value::Float(decimal::to_float(*value, *scale))),
        (Value::Decimal { value, scale }, Type::Int) => {
            let unit = 10i128.pow(u32::from(*scale));
            some(
                (value % unit == 0)
                    .then(|| i64::try_from(value / unit).ok())
                    .flatten()
                    .map(Value::Int),
            )
        }
        (Value::Decimal { value, scale }, Type::Decimal { precision, scale: to }) => {
            let shifted = decimal::shift(*value, i32::from(*to) - i32::from(*scale));
            some(
                shifted
                    .and_then(|v| decimal::fit(v, *precision))
                    .map(|value| Value::Decimal { value, scale: *to }),
            )
        }
        (Value::String(t), Type::Int) => some(scan::parse_int(t.as_bytes()).map(Value::Int)),
        (Value::String(t), Type::Float) => some(scan::parse_float(t.as_bytes()).map(Value::Float)),
        (Value::String(t), Type::Date) => some(scan::parse_date(t.as_bytes()).map(Value::Date)),
        (Value::Date(d), Type::Timestamp) => Ok(Value::Timestamp(i64::from(*d) * civil::DAY)),
        (Value::Timestamp(m), Type::Date) => Ok(Value::Date(m.div_euclid(civil::DAY) as i32)),
        (Value::List(items), Type::List(item)) => Ok(Value::List(
            items.iter().map(|v| cast(v, &item.ty)).collect::<Result<_, _>>()?,
        )),
        other => panic!("cast {other:?}"),
    }
}

fn truth(v: bool) -> Row {
    Ok(Value::Bool(v))
}

/// The value of `e` in one row.
fn value(e: &Expr, row: &[Value]) -> Row {
    let eval = |e: &Expr| value(e, row);
    Ok(match &e.kind {
        Kind::Column { index, .. } => row[*index].clone(),
        Kind::Constant(v) => v.clone(),
        Kind::FloatText { value, .. } => Value::Float(*value),
        Kind::Arith { op, l, r } => {
            let (l, r) = (eval(l), eval(r));
            arith(e, *op, &l?, &r?)?
        }
        Kind::Neg(part) => match eval(part)? {
            Value::Null => Value::Null,
            Value::Int(n) => Value::Int(n.checked_neg().ok_or(())?),
            Value::Duration(n) => Value::Duration(n.checked_neg().ok_or(())?),
            Value::Float(x) => Value::Float(-x),
            Value::Decimal { value, scale } => Value::Decimal { value: -value, scale },
            other => panic!("{other:?}"),
        },
        Kind::Compare { op, l, r } => match (eval(l)?, eval(r)?) {
            (Value::Null, _) | (_, Value::Null) => Value::Null,
            (l, r) => Value::Bool(op.holds(order(&l, &r))),
        },
        Kind::Is { l, r, negated } => Value::Bool(same(&eval(l)?, &eval(r)?) != *negated),
        Kind::IsNull { e, negated } => Value::Bool((eval(e)? == Value::Null) != *negated),
        Kind::And(l, r) => match eval(l)? {
            Value::Bool(false) => Value::Bool(false),
            l => match (l, eval(r)?) {
                (_, Value::Bool(false)) => Value::Bool(false),
                (Value::Bool(true), r) => r,
                _ => Value::Null,
            },
        },
        Kind::Or(l, r) => match eval(l)? {
            Value::Bool(true) => Value::Bool(true),
            l => match (l, eval(r)?) {
                (_, Value::Bool(true)) => Value::Bool(true),
                (Value::Bool(false), r) => r,
                _ => Value::Null,
            },
        },
        Kind::Not(e) => match eval(e)? {
            Value::Bool(v) => Value::Bool(!v),
            _ => Value::Null,
        },
        Kind::Coalesce(l, r) => match eval(l)? {
            Value::Null => eval(r)?,
            v => v,
        },
        Kind::Catch(l, r) => match eval(l) {
            Ok(v) => v,
            Err(()) => eval(r)?,
        },
        Kind::If(c, a, b) => {
            if eval(c)? == Value::Bool(true) {
                eval(a)?
            } else {
                eval(b)?
            }
        }
        Kind::Match {
            subject,
            arms,
            otherwise,
        } => {
            let subject = eval(subject)?;
            for (patterns, then) in arms {
                let mut hit = false;
                for pattern in patterns {
                    hit |= match pattern {
                        MatchPattern::Null => subject == Value::Null,
                        MatchPattern::Value(e) => {
                            let v = eval(e)?;
                            subject != Value::Null && v != Value::Null && order(&subject, &v).is_eq()
                        }
                        MatchPattern::Range(low, high) => {
                            let mut within = subject != Value::Null;
                            for (end, wrong) in [(low, Ordering::Less), (high, Ordering::Greater)] {
                                if let Some(e) = end {
                                    let v = eval(e)?;
                                    within &=
                                        v != Value::Null && subject != Value::Null && order(&subject, &v) != wrong;
                                }
                            }
                            within
                        }
                    };
                }
                if hit {
                    return eval(then);
                }
            }
            eval(otherwise)?
        }
        Kind::InSet { e, items, negated, .. } | Kind::InAny { e, items, negated } => {
            let v = eval(e)?;
            let items: Vec<Value> = items.iter().map(eval).collect::<Result<_, _>>()?;
            if v == Value::Null {
                return Ok(Value::Null);
            }
            Value::Bool(items.iter().any(|i| *i != Value::Null && order(&v, i).is_eq()) != *negated)
        }
        Kind::InValues { e, list, negated } => match (eval(e)?, eval(list)?) {
            (Value::Null, _) | (_, Value::Null) => Value::Null,
            (v, Value::List(items)) => Value::Bool(items.iter().any(|i| same(&v, i)) != *negated),
            other => panic!("{other:?}"),
        },
        Kind::InRange { e, low, high, negated } => match (eval(e)?, eval(low)?, eval(high)?) {
            (Value::Null, ..) | (_, Value::Null, _) | (.., Value::Null) => Value::Null,
            (v, low, high) => return truth((order(&v, &low).is_ge() && order(&v, &high).is_le()) != *negated),
        },
        Kind::Index { e, index, .. } => match (eval(e)?, eval(index)?) {
            (Value::List(items), Value::Int(at)) => {
                let at = if at < 0 {
                    i128::from(at) + items.len() as i128
                } else {
                    i128::from(at)
                };
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .cloned()
                    .ok_or(())?
            }
            _ => Value::Null,
        },
        Kind::List(items) => Value::List(items.iter().map(eval).collect::<Result<_, _>>()?),
        Kind::Cast { e: part, .. } => cast(&eval(part)?, &e.ty)?,
        Kind::Format(pieces) => {
            let mut out = String::new();
            let mut null = false;
            for piece in pieces {
                match piece {
                    Piece::Text(text) => out += text,
                    Piece::Value(e, _) => match cast(&eval(e)?, &Type::String)? {
                        Value::String(text) => out += &text,
                        _ => null = true,
                    },
                }
            }
            if null { Value::Null } else { Value::String(out) }
        }
        other => panic!("the oracle does not know {other:?}"),
    })
}

/// xorshift: the tests must not depend on anything but their seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

const MONEY: Type = Type::Decimal {
    precision: 12,
    scale: 2,
};

fn types() -> Vec<Type> {
    vec![
        Type::Int,
        Type::Float,
        Type::Bool,
        Type::String,
        MONEY,
        Type::Date,
        Type::Timestamp,
        Type::Duration,
        Type::list(Type::Int, true),
    ]
}

fn random_value(r: &mut Random, ty: &Type) -> Value {
    match ty {
        Type::Int => Value::Int(r.of(&[0, 1, -1, 2, 3, 7, -7, 500, i64::MAX, i64::MIN, (1 << 53) + 1, 63])),
        Type::Float => Value::Float(r.of(&[
            0.0,
            -0.0,
            1.0,
            -1.5,
            2.0,
            7.25,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            9_007_199_254_740_992.0,
            9.3e18,
            1e-300,
        ])),
        Type::Bool => Value::Bool(r.below(2) == 0),
        Type::String => Value::String(
            r.of(&[
                "",
                "a",
                "paid",
                "12",
                "-3",
                "1.5",
                "nan",
                "2026-01-31",
                "exactly12byt",
                "thirteen bytes",
                "thirteen byteZ",
                "é",
                "ab\0",
            ])
            .to_string(),
        ),
        Type::Decimal { scale, .. } => Value::Decimal {
            value: r.of(&[0, 1, -1, 250, 12345, -99999, 9_999_999_999, 100]),
            scale: *scale,
        },
        Type::Date => Value::Date(r.of(&[0, 1, -1, 20_000, 2_932_896, -4_371_587])),
        Type::Timestamp => {
            Value::Timestamp(r.of(&[0, 1, -1, civil::DAY, 1_700_000_000_123_456, -62_135_596_800_000_000]))
        }
        Type::Duration => Value::Duration(r.of(&[0, 1, civil::DAY, -3 * civil::DAY, 90_000_000, i64::MAX, i64::MIN])),
        Type::List(item) => Value::List(
            (0..r.below(4))
                .map(|_| {
                    if r.below(5) == 0 {
                        Value::Null
                    } else {
                        random_value(r, &item.ty)
                    }
                })
                .collect(),
        ),
        other => panic!("{other}"),
    }
}

fn leaf(r: &mut Random, ty: &Type, fields: &[Field]) -> Expr {
    let columns: Vec<usize> = (0..fields.len()).filter(|&i| fields[i].ty == *ty).collect();
    match r.below(4) {
        0 => Expr::constant(random_value(r, ty), ty.clone(), SPAN),
        1 if r.below(4) == 0 => Expr::coerce(Expr::null(SPAN), ty, SPAN).unwrap(),
        _ if columns.is_empty() => Expr::constant(random_value(r, ty), ty.clone(), SPAN),
        _ => {
            let index = r.of(&columns);
            Expr::column(index, &fields[index], SPAN)
        }
    }
}

const CMPS: [Cmp; 6] = [Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge];

/// A random expression of type `ty`.
fn random(r: &mut Random, ty: &Type, depth: usize, fields: &[Field]) -> Expr {
    if depth == 0 {
        return leaf(r, ty, fields);
    }
    let d = depth - 1;
    let made: Result<Expr, Issue> = match (r.below(10), ty) {
        (0, _) => Ok(leaf(r, ty, fields)),
        (1, _) => Expr::if_(
            random(r, &Type::Bool, d, fields),
            random(r, ty, d, fields),
            Some(random(r, ty, d, fields)),
            SPAN,
        ),
        (2, _) => Expr::coalesce(random(r, ty, d, fields), random(r, ty, d, fields), SPAN),
        (3, _) => Expr::catch(random(r, ty, d, fields), random(r, ty, d, fields), SPAN),
        (4, _) => {
            let subject = r.of(&[Type::Int, Type::String, Type::Float, Type::Date]);
            let one = |r: &mut Random| {
                let pattern = match r.below(3) {
                    0 => MatchPattern::Null,
                    1 => MatchPattern::Value(leaf(r, &subject, fields)),
                    _ => MatchPattern::Range(
                        Some(leaf(r, &subject, fields)),
                        (r.below(2) == 0).then(|| leaf(r, &subject, fields)),
                    ),
                };
                (
                    vec![pattern, MatchPattern::Value(leaf(r, &subject, &[]))],
                    random(r, ty, d, fields),
                )
            };
            let arms = vec![one(r), one(r)];
            Expr::match_(
                random(r, &subject, d, fields),
                arms,
                Some(random(r, ty, d, fields)),
                SPAN,
            )
        }
        (_, Type::Int) => match r.below(4) {
            0 => Expr::index(
                random(r, &Type::list(Type::Int, true), d, fields),
                random(r, &Type::Int, d, fields),
                false,
                SPAN,
            ),
            1 => {
                let from = r.of(&[Type::Bool, Type::Float, Type::String, MONEY]);
                Expr::cast(random(r, &from, d, fields), Type::Int, SPAN)
            }
            2 => Expr::neg(random(r, &Type::Int, d, fields), SPAN),
            _ => {
                let op = r.of(&[
                    Arith::Add,
                    Arith::Sub,
                    Arith::Mul,
                    Arith::FloorDiv,
                    Arith::Rem,
                    Arith::Pow,
                ]);
                Expr::arith(
                    op,
                    random(r, &Type::Int, d, fields),
                    random(r, &Type::Int, d, fields),
                    SPAN,
                )
            }
        },
        (_, Type::Float) => {
            let op = r.of(&[
                Arith::Add,
                Arith::Sub,
                Arith::Mul,
                Arith::Div,
                Arith::FloorDiv,
                Arith::Rem,
                Arith::Pow,
            ]);
            let (a, b) = match op {
                Arith::Div => (r.of(&[Type::Int, Type::Float]), r.of(&[Type::Int, Type::Float])),
                _ => r.of(&[
                    (Type::Float, Type::Float),
                    (Type::Int, Type::Float),
                    (Type::Float, Type::Int),
                ]),
            };
            match r.below(5) {
                0 => Expr::cast(random(r, &Type::String, d, fields), Type::Float, SPAN),
                1 => Expr::cast(random(r, &MONEY, d, fields), Type::Float, SPAN),
                2 => Expr::neg(random(r, &Type::Float, d, fields), SPAN),
                _ => Expr::arith(op, random(r, &a, d, fields), random(r, &b, d, fields), SPAN),
            }
        }
        (_, Type::Bool) => {
            let side = r.of(&types()[..8]);
            match r.below(9) {
                0 => Expr::and(random(r, ty, d, fields), random(r, ty, d, fields), SPAN),
                1 => Expr::or(random(r, ty, d, fields), random(r, ty, d, fields), SPAN),
                2 => Expr::not(random(r, ty, d, fields), SPAN),
                3 => Expr::is_null(random(r, &side, d, fields), r.below(2) == 0, SPAN),
                4 => Expr::is(
                    random(r, &side, d, fields),
                    random(r, &side, d, fields),
                    r.below(2) == 0,
                    SPAN,
                ),
                5 => {
                    let depth = if r.below(2) == 0 { 0 } else { d };
                    let own = if r.below(2) == 0 { &[][..] } else { fields };
                    let items = (0..r.below(12)).map(|_| random(r, &side, depth, own)).collect();
                    Expr::in_list(random(r, &side, d, fields), items, r.below(2) == 0, SPAN)
                }
                6 => Expr::in_range(
                    random(r, &side, d, fields),
                    random(r, &side, d, fields),
                    random(r, &side, d, fields),
                    r.below(2) == 0,
                    SPAN,
                ),
                7 => Expr::in_values(
                    random(r, &Type::Int, d, fields),
                    random(r, &Type::list(Type::Int, true), d, fields),
                    r.below(2) == 0,
                    SPAN,
                ),
                _ => {
                    let other = match side {
                        Type::Int => r.of(&[Type::Int, Type::Float, MONEY]),
                        Type::Float => r.of(&[Type::Int, Type::Float]),
                        _ => side.clone(),
                    };
                    Expr::compare(
                        r.of(&CMPS),
                        random(r, &side, d, fields),
                        random(r, &other, d, fields),
                        SPAN,
                    )
                }
            }
        }
        (_, Type::String) => {
            let from = r.of(&types()[..8]);
            if r.below(2) == 0 {
                Expr::cast(random(r, &from, d, fields), Type::String, SPAN)
            } else {
                let parts = vec![
                    FPart::Text("<".into()),
                    FPart::Value(random(r, &from, d, fields), None),
                    FPart::Value(random(r, &Type::Int, d, fields), None),
                ];
                Expr::fstring(parts, SPAN)
            }
        }
        (_, Type::Decimal { .. }) => {
            let op = r.of(&[
                Arith::Add,
                Arith::Sub,
                Arith::Mul,
                Arith::Div,
                Arith::FloorDiv,
                Arith::Rem,
            ]);
            let other = r.of(&[Type::Int, MONEY]);
            let made = Expr::arith(op, random(r, &MONEY, 0, fields), random(r, &other, 0, fields), SPAN);
            made.and_then(|e| Expr::cast(e, MONEY, SPAN))
        }
        (_, Type::Date) => match r.below(3) {
            0 => Expr::cast(random(r, &Type::Timestamp, d, fields), Type::Date, SPAN),
            1 => Expr::cast(random(r, &Type::String, d, fields), Type::Date, SPAN),
            _ => {
                let days = Expr::constant(Value::Duration(civil::DAY * r.of(&[1, -3, 400])), Type::Duration, SPAN);
                Expr::arith(
                    r.of(&[Arith::Add, Arith::Sub]),
                    random(r, &Type::Date, d, fields),
                    days,
                    SPAN,
                )
            }
        },
        (_, Type::Timestamp) => match r.below(2) {
            0 => Expr::cast(random(r, &Type::Date, d, fields), Type::Timestamp, SPAN),
            _ => Expr::arith(
                r.of(&[Arith::Add, Arith::Sub]),
                random(r, &Type::Timestamp, d, fields),
                random(r, &Type::Duration, d, fields),
                SPAN,
            ),
        },
        (_, Type::Duration) => {
            let side = r.of(&[Type::Duration, Type::Date, Type::Timestamp]);
            Expr::arith(
                Arith::Sub,
                random(r, &side, d, fields),
                random(r, &side, d, fields),
                SPAN,
            )
        }
        (_, Type::List(item)) => {
            let items = (0..r.below(4)).map(|_| random(r, &item.ty, d, fields)).collect();
            Expr::list(items, SPAN).map(|e| Expr::coerce(e.clone(), ty, SPAN).unwrap_or(e))
        }
        (_, other) => panic!("{other}"),
    };
    match made {
        Ok(e) if e.ty == *ty => e,
        Ok(_) => leaf(r, ty, fields),
        Err(issue) => panic!("{issue:?}"),
    }
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (a, b) => a == b,
    }
}

#[test]
fn random_expressions_agree_with_the_row_by_row_evaluator() {
    let mut fields = vec![];
    for (i, ty) in types().into_iter().enumerate() {
        fields.push(Field::new(format!("c{i}"), ty.clone(), false));
        fields.push(Field::new(format!("n{i}"), ty, true));
    }
    for seed in 1..4000u64 {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let total = r.of(&[1, 5, 64, 65, 130, 200]);
        let from = r.below(total.min(70));
        let rows = total - from;
        let table: Vec<Vec<Value>> = fields
            .iter()
            .map(|field| {
                let all_null = field.nullable && r.below(6) == 0;
                let cell = |r: &mut Random| {
                    if field.nullable && (all_null || r.below(3) == 0) {
                        Value::Null
                    } else {
                        random_value(r, &field.ty)
                    }
                };
                (0..total).map(|_| cell(&mut r)).collect()
            })
            .collect();
        let ty = r.of(&types());
        let depth = 1 + r.below(4);
        let e = random(&mut r, &ty, depth, &fields);
        let arena = Arena::new(256 << 20);
        let mut columns = Columns::new(&arena, fields.len()).unwrap();
        for (field, cells) in fields.iter().zip(&table) {
            let cells: Vec<&Value> = cells.iter().collect();
            // Slices have bitmaps that start in the middle of a word.
            columns.push(values::column(&arena, &cells, &field.ty).unwrap().slice(from, rows));
        }
        let batch = Batch::new(columns.finish(), None, rows);
        let faults = Faults::new(&arena, false);
        let column = Evaluator::new(Fixed::default())
            .eval(&e, &batch, &arena, &faults, None)
            .unwrap();
        assert_eq!(column.len(), rows);
        assert!(column.fits(&ty), "{e} gives {column:?}");
        let failed: Vec<usize> = faults.by_row().unwrap().iter().map(|f| f.row as usize).collect();
        if !e.fallible {
            assert!(failed.is_empty(), "{e} is not fallible");
        }
        for row in 0..rows {
            let cells: Vec<Value> = table.iter().map(|c| c[from + row].clone()).collect();
            let got = values::of_cell(&column.cell(row), &ty);
            match value(&e, &cells) {
                Ok(want) => {
                    assert!(
                        !failed.contains(&row),
                        "seed {seed}, row {row}: {e} failed, should be {want:?} of {cells:?}"
                    );
                    assert!(
                        alike(&got, &want),
                        "seed {seed}, row {row}: {e} is {got:?}, should be {want:?} of {cells:?}"
                    );
                    assert!(e.nullable || want != Value::Null, "seed {seed}: {e} is not nullable");
                }
                Err(()) => assert!(
                    failed.contains(&row),
                    "seed {seed}, row {row}: {e} is {got:?}, should fail of {cells:?}"
                ),
            }
        }
    }
}
