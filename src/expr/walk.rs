//! Walking expressions: what they read, and renumbering it.

use crate::expr::{Argument, Expr, Kind, MatchPattern, Piece};
use std::sync::Arc;

impl Kind {
    /// Calls `f` with every direct part.
    pub(in crate::expr) fn parts<'k>(&'k self, f: &mut dyn FnMut(&'k Expr)) {
        match self {
            Kind::Column { .. } | Kind::Param { .. } | Kind::Constant(_) | Kind::FloatText { .. } => {}
            Kind::Arith { l, r, .. } | Kind::Compare { l, r, .. } | Kind::Is { l, r, .. } => {
                f(l);
                f(r);
            }
            Kind::And(l, r) | Kind::Or(l, r) | Kind::Coalesce(l, r) | Kind::Catch(l, r) => {
                f(l);
                f(r);
            }
            Kind::Neg(e) | Kind::Not(e) | Kind::IsNull { e, .. } | Kind::Regex { e, .. } => f(e),
            Kind::Field { e, .. } | Kind::JsonField { e, .. } | Kind::Cast { e, .. } => f(e),
            Kind::If(c, a, b) => {
                f(c);
                f(a);
                f(b);
            }
            Kind::Match {
                subject,
                arms,
                otherwise,
            } => {
                f(subject);
                for (patterns, value) in arms {
                    for pattern in patterns {
                        match pattern {
                            MatchPattern::Value(e) => f(e),
                            MatchPattern::Range(low, high) => low.iter().chain(high).for_each(&mut *f),
                            MatchPattern::Null => {}
                        }
                    }
                    f(value);
                }
                f(otherwise);
            }
            Kind::InSet { e, items, .. } | Kind::InAny { e, items, .. } => {
                f(e);
                items.iter().for_each(f);
            }
            Kind::InValues { e, list, .. } => {
                f(e);
                f(list);
            }
            Kind::InRange { e, low, high, .. } => {
                f(e);
                f(low);
                f(high);
            }
            Kind::Index { e, index, .. } => {
                f(e);
                f(index);
            }
            Kind::List(items) => items.iter().for_each(f),
            Kind::Record(fields) => fields.iter().for_each(|(_, e)| f(e)),
            Kind::Format(pieces) => {
                for piece in pieces {
                    if let Piece::Value(e, _) = piece {
                        f(e);
                    }
                }
            }
            Kind::Call { args, .. } => {
                for arg in args {
                    match arg {
                        Argument::Value(e) => f(e),
                        Argument::Lambda(lambda) => f(&lambda.body),
                        Argument::Regex(_) => {}
                    }
                }
            }
        }
    }

    pub(in crate::expr) fn parts_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        match self {
            Kind::Column { .. } | Kind::Param { .. } | Kind::Constant(_) | Kind::FloatText { .. } => {}
            Kind::Arith { l, r, .. } | Kind::Compare { l, r, .. } | Kind::Is { l, r, .. } => {
                f(l);
                f(r);
            }
            Kind::And(l, r) | Kind::Or(l, r) | Kind::Coalesce(l, r) | Kind::Catch(l, r) => {
                f(l);
                f(r);
            }
            Kind::Neg(e) | Kind::Not(e) | Kind::IsNull { e, .. } | Kind::Regex { e, .. } => f(e),
            Kind::Field { e, .. } | Kind::JsonField { e, .. } | Kind::Cast { e, .. } => f(e),
            Kind::If(c, a, b) => {
                f(c);
                f(a);
                f(b);
            }
            Kind::Match {
                subject,
                arms,
                otherwise,
            } => {
                f(subject);
                for (patterns, value) in arms {
                    for pattern in patterns {
                        match pattern {
                            MatchPattern::Value(e) => f(e),
                            MatchPattern::Range(low, high) => low.iter_mut().chain(high).for_each(&mut *f),
                            MatchPattern::Null => {}
                        }
                    }
                    f(value);
                }
                f(otherwise);
            }
            Kind::InSet { e, items, .. } | Kind::InAny { e, items, .. } => {
                f(e);
                items.iter_mut().for_each(f);
            }
            Kind::InValues { e, list, .. } => {
                f(e);
                f(list);
            }
            Kind::InRange { e, low, high, .. } => {
                f(e);
                f(low);
                f(high);
            }
            Kind::Index { e, index, .. } => {
                f(e);
                f(index);
            }
            Kind::List(items) => items.iter_mut().for_each(f),
            Kind::Record(fields) => fields.iter_mut().for_each(|(_, e)| f(e)),
            Kind::Format(pieces) => {
                for piece in pieces {
                    if let Piece::Value(e, _) = piece {
                        f(e);
                    }
                }
            }
            Kind::Call { args, .. } => {
                for arg in args {
                    match arg {
                        Argument::Value(e) => f(e),
                        Argument::Lambda(lambda) => f(&mut lambda.body),
                        Argument::Regex(_) => {}
                    }
                }
            }
        }
    }
}

/// What stands for a column elsewhere.
pub enum Instead {
    Column(Expr),
    /// For the field that was asked for.
    Field(Expr),
}

/// Replaces columns; whether the value may be null where it could not before.
fn replace(expr: &mut Expr, to: &dyn Fn(usize, Option<usize>) -> Option<Instead>) -> Option<bool> {
    let found = match &expr.kind {
        Kind::Column { index, .. } => match to(*index, None)? {
            Instead::Column(found) => Some(found),
            Instead::Field(_) => return None,
        },
        Kind::Field { e, index: field, .. } => match &e.kind {
            Kind::Column { index, .. } => match to(*index, Some(*field))? {
                Instead::Field(found) => Some(found),
                Instead::Column(_) => None,
            },
            _ => None,
        },
        _ => None,
    };
    if let Some(found) = found {
        if found.ty != expr.ty || found.fallible {
            return None;
        }
        let more = found.nullable && !expr.nullable;
        *expr = Expr {
            span: expr.span,
            ..found
        };
        return Some(more);
    }
    let mut more = Some(false);
    expr.kind.parts_mut(&mut |part| {
        more = match (more, replace(part, to)) {
            (Some(more), Some(also)) => Some(more || also),
            _ => None,
        }
    });
    expr.nullable |= more?;
    more
}

impl Expr {
    /// Calls `f` with every column it reads (a column may come more than once).
    pub fn columns(&self, f: &mut impl FnMut(usize)) {
        fn walk(e: &Expr, f: &mut dyn FnMut(usize)) {
            if let Kind::Column { index, .. } = e.kind {
                f(index);
            }
            e.kind.parts(&mut |part| walk(part, f));
        }
        walk(self, f);
    }

    /// Calls `f` with every column it reads and the path of fields within: `client.ip` reads only field `ip`.
    pub fn record_paths(&self, f: &mut impl FnMut(usize, &[Arc<str>])) {
        fn walk(e: &Expr, f: &mut dyn FnMut(usize, &[Arc<str>])) {
            let mut path = vec![];
            let mut at = e;
            while let Kind::Field { e, name, .. } = &at.kind {
                path.push(name.clone());
                at = e;
            }
            if let Kind::Column { index, .. } = at.kind {
                path.reverse();
                f(index, &path);
            } else {
                at.kind.parts(&mut |part| walk(part, f));
            }
        }
        walk(self, f);
    }

    /// Renumbers the columns.
    pub fn remap(&mut self, to: &dyn Fn(usize) -> usize) {
        if let Kind::Column { index, .. } = &mut self.kind {
            *index = to(*index);
        }
        self.kind.parts_mut(&mut |part| part.remap(to));
    }

    /// The conditions that all have to be true where this one is.
    pub fn conjuncts(self) -> Vec<Expr> {
        match self.kind {
            Kind::And(l, r) => [l.conjuncts(), r.conjuncts()].concat(),
            _ => vec![self],
        }
    }

    /// The same over other rows. `to` gives what stands there for a column, or for one field of it where only that is read; `None`
    /// where nothing does.
    pub fn over(&self, to: &dyn Fn(usize, Option<usize>) -> Option<Instead>) -> Option<Expr> {
        let mut expr = self.clone();
        replace(&mut expr, to)?;
        Some(expr)
    }

    /// Whether it only passes a value on, in another type perhaps.
    pub fn is_plain(&self) -> bool {
        match &self.kind {
            Kind::Column { .. } | Kind::Constant(_) => true,
            Kind::Cast { e, implicit: true } => !self.fallible && e.is_plain(),
            _ => false,
        }
    }

    /// Whether it reads a column, a lambda's parameter or something of the run: then it cannot be computed beforehand.
    pub(in crate::expr) fn varies(&self) -> bool {
        match &self.kind {
            Kind::Column { .. } | Kind::Param { .. } => return true,
            Kind::Call { spec, .. } if spec.volatile => return true,
            _ => {}
        }
        let mut varies = false;
        self.kind.parts(&mut |part| varies = varies || part.varies());
        varies
    }

    /// Whether it may ask where its rows came from, as `random` does.
    pub fn reads_places(&self) -> bool {
        let mut reads = matches!(&self.kind, Kind::Call { spec, .. } if spec.volatile);
        self.kind.parts(&mut |part| reads = reads || part.reads_places());
        reads
    }

    /// The name of the only column it reads.
    pub(in crate::expr) fn only_column(&self) -> Option<&str> {
        fn walk<'e>(e: &'e Expr, found: &mut Option<(usize, &'e str)>, many: &mut bool) {
            if let Kind::Column { index, name } = &e.kind {
                match found {
                    Some((other, _)) if other != index => *many = true,
                    _ => *found = Some((*index, name)),
                }
            }
            e.kind.parts(&mut |part| walk(part, found, many));
        }
        let (mut found, mut many) = (None, false);
        walk(self, &mut found, &mut many);
        if many { None } else { found.map(|(_, name)| name) }
    }
}
