//! Common parts of expressions that are evaluated together: computed once.
//!
//! Laws
//! - Only what cannot fail and does not depend on the run or the row's place is shared: which rows fail, and with which message, is what
//!   it is without sharing. (What cannot fail may also be computed for rows that a branch leaves out.)
//! - What stands inside something that can fail stays where it is: its message names the columns it reads.
//! - Two parts are the same if they do the same to the same columns and have the same type; names and places in the script do not count.

use crate::expr::{Argument, Expr, Kind};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Takes the parts that occur more than once out of `exprs`: they are columns `width`, `width + 1`, … now. What is given are those
/// columns' values, in order; each may read the ones before it.
pub(in crate::expr) fn share(exprs: &mut [Expr], width: usize) -> Vec<Expr> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for expr in exprs.iter() {
        count(expr, &mut counts);
    }
    counts.retain(|_, count| *count > 1);
    if counts.is_empty() {
        return vec![];
    }
    let mut shared = Shared {
        counts,
        width,
        at: HashMap::new(),
        parts: vec![],
    };
    for expr in exprs.iter_mut() {
        shared.take(expr);
    }
    shared.parts
}

fn count(expr: &Expr, counts: &mut HashMap<String, usize>) {
    if expr.fallible {
        return;
    }
    if let Some(key) = key(expr) {
        let seen = counts.entry(key).or_default();
        *seen += 1;
        // Its parts come with it: they count only where they occur elsewhere as well.
        if *seen > 1 {
            return;
        }
    }
    expr.kind.parts(&mut |part| count(part, counts));
}

struct Shared {
    counts: HashMap<String, usize>,
    width: usize,
    /// The column of each part that is taken out already.
    at: HashMap<String, usize>,
    parts: Vec<Expr>,
}

impl Shared {
    fn take(&mut self, expr: &mut Expr) {
        if expr.fallible {
            return;
        }
        let Some(key) = key(expr).filter(|key| self.counts.contains_key(key)) else {
            expr.kind.parts_mut(&mut |part| self.take(part));
            return;
        };
        let index = match self.at.get(&key) {
            Some(&index) => index,
            None => {
                let mut part = expr.clone();
                part.kind.parts_mut(&mut |inner| self.take(inner));
                self.parts.push(part);
                let index = self.width + self.parts.len() - 1;
                self.at.insert(key, index);
                index
            }
        };
        expr.kind = Kind::Column { index, name: "".into() };
    }
}

/// What an expression does, as text; `None` if it is not to be shared: too little work, it can fail, or it is not plain.
fn key(expr: &Expr) -> Option<String> {
    let is_work = !matches!(
        expr.kind,
        Kind::Column { .. } | Kind::Param { .. } | Kind::Constant(_) | Kind::FloatText { .. }
    );
    let mut text = String::new();
    (is_work && !expr.fallible && write(expr, &mut text)).then_some(text)
}

/// Appends what an expression does; `false` if it holds something that is not plain.
fn write(expr: &Expr, out: &mut String) -> bool {
    let _ = match &expr.kind {
        Kind::Column { index, .. } => write!(out, "column {index}"),
        Kind::Constant(value) => write!(out, "{value:?}"),
        Kind::FloatText { text, .. } => write!(out, "float {text}"),
        Kind::Arith { op, .. } => write!(out, "{op:?}"),
        Kind::Compare { op, .. } => write!(out, "{op:?}"),
        Kind::Neg(_) => write!(out, "neg"),
        Kind::And(..) => write!(out, "and"),
        Kind::Or(..) => write!(out, "or"),
        Kind::Not(_) => write!(out, "not"),
        Kind::IsNull { negated, .. } => write!(out, "null {negated}"),
        Kind::Is { negated, .. } => write!(out, "is {negated}"),
        Kind::Coalesce(..) => write!(out, "coalesce"),
        Kind::If(..) => write!(out, "if"),
        Kind::InRange { negated, .. } => write!(out, "range {negated}"),
        Kind::Field { index, .. } => write!(out, "field {index}"),
        Kind::Cast { .. } => write!(out, "cast"),
        Kind::Call { spec, args, .. } if !spec.volatile && args.iter().all(|arg| matches!(arg, Argument::Value(_))) => {
            // Overloads have one name: the declaration's address tells them apart.
            write!(out, "{} {:p}", spec.name, std::ptr::from_ref(*spec))
        }
        _ => return false,
    };
    let _ = write!(out, ": {:?}(", expr.ty);
    let mut plain = true;
    expr.kind.parts(&mut |part| {
        plain = plain && write(part, out);
        out.push(';');
    });
    out.push(')');
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Arith, Cmp, Evaluator};
    use standpipe_sdk::{Arena, Batch, Cell, Column, Faults, Field, Span, Type, Value};

    const AT: Span = Span { start: 0, end: 0 };

    fn column(index: usize, ty: Type) -> Expr {
        Expr::column(index, &Field::new("c", ty, true), AT)
    }

    fn product() -> Expr {
        Expr::arith(Arith::Mul, column(0, Type::Float), column(1, Type::Float), AT).unwrap()
    }

    fn more_than(e: Expr, value: f64) -> Expr {
        Expr::compare(Cmp::Gt, e, Expr::constant(Value::Float(value), Type::Float, AT), AT).unwrap()
    }

    #[test]
    fn what_occurs_twice_is_computed_once_and_the_values_stay() {
        let before = [
            Expr::arith(Arith::Add, product(), column(0, Type::Float), AT).unwrap(),
            more_than(product(), 5.0),
            more_than(product(), 5.0),
            column(1, Type::Float),
        ];
        let mut after = before.clone();
        let parts = share(&mut after, 2);
        // The product, and the comparison that holds it.
        assert_eq!(parts.len(), 2);
        assert!(matches!(after[1].kind, Kind::Column { index: 3, .. }), "{:?}", after[1]);
        assert!(matches!(after[2].kind, Kind::Column { index: 3, .. }));
        let arena = Arena::new(1 << 16);
        let faults = Faults::new(&arena, true);
        let columns = [
            Column::float(&[1.5, 2.0, 3.0], None),
            Column::float(&[1.0, 4.0, f64::NAN], None),
        ];
        let batch = Batch::new(&columns, None, 3);
        let evaluator = Evaluator::default();
        let mut all = columns.to_vec();
        for part in &parts {
            let sofar = arena.copy(&all).unwrap();
            all.push(
                evaluator
                    .eval(part, &Batch::new(sofar, None, 3), &arena, &faults, None)
                    .unwrap(),
            );
        }
        let all = Batch::new(arena.copy(&all).unwrap(), None, 3);
        for (old, new) in before.iter().zip(&after) {
            let want = evaluator.eval(old, &batch, &arena, &faults, None).unwrap();
            let got = evaluator.eval(new, &all, &arena, &faults, None).unwrap();
            for row in 0..3 {
                let text = |cell: Cell<'_>| format!("{cell:?}");
                assert_eq!(text(got.cell(row)), text(want.cell(row)));
            }
        }
    }

    #[test]
    fn what_can_fail_or_is_a_mere_column_stays() {
        let sum = || Expr::arith(Arith::Add, column(0, Type::Int), column(1, Type::Int), AT).unwrap();
        let mut exprs = [sum(), sum(), column(0, Type::Int), column(0, Type::Int)];
        assert!(share(&mut exprs, 2).is_empty());
        let mut other = [
            product(),
            Expr::arith(Arith::Mul, column(0, Type::Float), column(2, Type::Float), AT).unwrap(),
        ];
        assert!(share(&mut other, 3).is_empty());
    }
}
