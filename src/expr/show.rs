//! Expressions as text, for `explain` and for the help of errors: as the script would have them.

use crate::expr::scalar::civil::DAY;
use crate::expr::scalar::print::{self, Buf, Put};
use crate::expr::{Argument, Arith, Cmp, Expr, Kind, MatchPattern, Piece};
use standpipe_sdk::{Type, Value};
use std::fmt::{self, Write};

impl Arith {
    pub(in crate::expr) fn text(self) -> &'static str {
        match self {
            Arith::Add => "+",
            Arith::Sub => "-",
            Arith::Mul => "*",
            Arith::Div => "/",
            Arith::FloorDiv => "//",
            Arith::Rem => "%",
            Arith::Pow => "**",
        }
    }
}

impl Cmp {
    pub(in crate::expr) fn text(self) -> &'static str {
        match self {
            Cmp::Eq => "==",
            Cmp::Ne => "!=",
            Cmp::Lt => "<",
            Cmp::Le => "<=",
            Cmp::Gt => ">",
            Cmp::Ge => ">=",
        }
    }
}

/// How tightly the outermost operator binds.
fn level(e: &Expr) -> u8 {
    match &e.kind {
        Kind::Or(..) => 1,
        Kind::And(..) => 2,
        Kind::Not(_) => 3,
        Kind::Compare { .. } | Kind::Is { .. } | Kind::IsNull { .. } | Kind::Regex { .. } => 4,
        Kind::InSet { .. } | Kind::InAny { .. } | Kind::InValues { .. } | Kind::InRange { .. } => 4,
        Kind::Coalesce(..) | Kind::Catch(..) => 5,
        Kind::Arith { op, .. } => match op {
            Arith::Add | Arith::Sub => 7,
            Arith::Pow => 10,
            _ => 8,
        },
        Kind::Neg(_) => 9,
        Kind::Constant(Value::Int(n)) if *n < 0 => 9,
        Kind::Constant(Value::Float(n)) if *n < 0.0 => 9,
        Kind::If(..) => 0,
        Kind::Cast { e, implicit: true } => level(e),
        _ => 11,
    }
}

/// `e`, in parentheses if it binds less tightly than `least`.
struct At<'e>(&'e Expr, u8);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if level(self.0) < self.1 {
            write!(f, "({})", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

struct Items<'e>(&'e [Expr]);

impl fmt::Display for Items<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "not " } else { "" }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Column { name, .. } | Kind::Param { name, .. } => {
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !name.starts_with(|c: char| c.is_ascii_digit())
                    && !name.is_empty();
                if plain {
                    f.write_str(name)
                } else {
                    write!(f, "`{name}`")
                }
            }
            Kind::Constant(value) => write!(f, "{}", Literal(value)),
            Kind::FloatText { text, .. } => f.write_str(text),
            Kind::Arith { op, l, r } => {
                let level = level(self);
                write!(f, "{} {} {}", At(l, level), op.text(), At(r, level + 1))
            }
            Kind::Neg(e) => write!(f, "-{}", At(e, 9)),
            Kind::Compare { op, l, r } => write!(f, "{} {} {}", At(l, 5), op.text(), At(r, 5)),
            Kind::And(l, r) => write!(f, "{} and {}", At(l, 2), At(r, 3)),
            Kind::Or(l, r) => write!(f, "{} or {}", At(l, 1), At(r, 2)),
            Kind::Not(e) => write!(f, "not {}", At(e, 3)),
            Kind::IsNull { e, negated } => write!(f, "{} is {}null", At(e, 5), not(*negated)),
            Kind::Is { l, r, negated } => write!(f, "{} is {}{}", At(l, 5), not(*negated), At(r, 5)),
            Kind::Coalesce(l, r) => write!(f, "{} ?? {}", At(l, 5), At(r, 11)),
            Kind::Catch(l, r) => write!(f, "{} catch {}", At(l, 5), At(r, 11)),
            Kind::If(c, a, b) => write!(f, "if {c} then {a} else {b}"),
            Kind::Match {
                subject,
                arms,
                otherwise,
            } => {
                write!(f, "match {subject} {{ ")?;
                for (patterns, value) in arms {
                    for (i, pattern) in patterns.iter().enumerate() {
                        f.write_str(if i > 0 { " | " } else { "" })?;
                        match pattern {
                            MatchPattern::Value(e) => write!(f, "{e}")?,
                            MatchPattern::Null => f.write_str("null")?,
                            MatchPattern::Range(low, high) => {
                                if let Some(low) = low {
                                    write!(f, "{low}")?;
                                }
                                f.write_str("..")?;
                                if let Some(high) = high {
                                    write!(f, "{high}")?;
                                }
                            }
                        }
                    }
                    write!(f, " => {value}, ")?;
                }
                write!(f, "else => {otherwise} }}")
            }
            Kind::InSet { e, items, negated, .. } | Kind::InAny { e, items, negated } => {
                write!(f, "{} {}in [{}]", At(e, 5), not(*negated), Items(items))
            }
            Kind::InValues { e, list, negated } => write!(f, "{} {}in {}", At(e, 5), not(*negated), At(list, 5)),
            Kind::InRange { e, low, high, negated } => {
                write!(f, "{} {}in {}..{}", At(e, 5), not(*negated), At(low, 7), At(high, 7))
            }
            Kind::Regex { e, regex, flags } => write!(f, "{} ~ /{}/{flags}", At(e, 5), regex.as_str()),
            Kind::Field { e, name, .. } => write!(f, "{}.{name}", At(e, 11)),
            Kind::JsonField { e, name, optional } => {
                write!(f, "{}{}{name}", At(e, 11), if *optional { "?." } else { "." })
            }
            Kind::Index { e, index, .. } => write!(f, "{}[{index}]", At(e, 11)),
            Kind::List(items) => write!(f, "[{}]", Items(items)),
            Kind::Record(fields) => {
                f.write_str("{")?;
                for (i, (name, e)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {e}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
            Kind::Format(pieces) => {
                f.write_str("f\"")?;
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => {
                            f.write_str(&text.replace('{', "{{").replace('}', "}}").replace('"', "\\\""))?;
                        }
                        Piece::Value(e, spec) => match spec.text() {
                            "" => write!(f, "{{{e}}}")?,
                            text => write!(f, "{{{e}:{text}}}")?,
                        },
                    }
                }
                f.write_str("\"")
            }
            Kind::Cast { e, implicit: true } => write!(f, "{e}"),
            Kind::Cast { e, .. } => match &self.ty {
                Type::Decimal { precision, scale } => write!(f, "decimal({e}, {precision}, {scale})"),
                ty => write!(f, "{ty}({e})"),
            },
            Kind::Call { spec, args, .. } => {
                write!(f, "{}(", spec.name)?;
                for (i, arg) in args.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    match arg {
                        Argument::Value(e) => write!(f, "{e}")?,
                        Argument::Lambda(lambda) => write!(f, "{} => {}", lambda.names.join(", "), lambda.body)?,
                        Argument::Regex(regex) => write!(f, "/{}/", regex.as_str())?,
                    }
                }
                f.write_str(")")
            }
        }
    }
}

/// A value as a literal of the language.
pub(crate) struct Literal<'v>(pub(crate) &'v Value);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buf = Buf::default();
        match self.0 {
            Value::Null => return f.write_str("null"),
            Value::Bool(v) => return write!(f, "{v}"),
            Value::Int(v) => print::write_int(&mut buf, *v),
            Value::Float(v) => print::write_float(&mut buf, *v),
            Value::Decimal { value, scale } => print::write_decimal(&mut buf, *value, *scale),
            Value::String(v) => return write_quoted(f, v),
            Value::Bytes(v) => {
                f.write_char('b')?;
                return write_quoted(f, &String::from_utf8_lossy(v));
            }
            Value::Date(v) => {
                buf.put(b"@");
                print::write_date(&mut buf, *v);
            }
            Value::Timestamp(v) => {
                buf.put(b"@");
                print::write_timestamp(&mut buf, *v);
            }
            Value::Duration(v) => return write_duration(f, *v),
            Value::Json(v) => return f.write_str(v),
            Value::List(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{}", Literal(item))?;
                }
                return f.write_char(']');
            }
            Value::Record(fields) => {
                f.write_char('{')?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{name}: {}", Literal(value))?;
                }
                return f.write_char('}');
            }
        }
        f.write_str(buf.as_str())
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{{{:x}}}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// As a script has it: `1h30m`, `2d`, `-1.5s`, `0s`.
fn write_duration(f: &mut fmt::Formatter<'_>, micros: i64) -> fmt::Result {
    if micros < 0 {
        f.write_char('-')?;
    }
    let mut left = micros.unsigned_abs();
    if left == 0 {
        return f.write_str("0s");
    }
    for (unit, name) in [(DAY as u64, 'd'), (3_600_000_000, 'h'), (60_000_000, 'm')] {
        if left >= unit {
            write!(f, "{}{name}", left / unit)?;
            left %= unit;
        }
    }
    if left == 0 {
        return Ok(());
    }
    write!(f, "{}", left / 1_000_000)?;
    let fraction = left % 1_000_000;
    if fraction > 0 {
        write!(f, ".{}", format!("{fraction:06}").trim_end_matches('0'))?;
    }
    f.write_char('s')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_the_language_writes_them() {
        let table = [
            (Value::Float(21.0), "21.0"),
            (Value::Float(1e21), "1e21"),
            (Value::Float(f64::NAN), "nan"),
            (Value::Decimal { value: -5, scale: 2 }, "-0.05"),
            (Value::Decimal { value: 12345, scale: 2 }, "123.45"),
            (Value::Date(0), "@1970-01-01"),
            (Value::Timestamp(-500_000), "@1969-12-31T23:59:59.5Z"),
            (Value::Duration(5_400_000_000), "1h30m"),
            (Value::Duration(-1_500_000), "-1.5s"),
            (Value::String("a\"b\n".into()), "\"a\\\"b\\n\""),
            (Value::List(vec![Value::Int(1), Value::Null]), "[1, null]"),
        ];
        for (value, want) in table {
            assert_eq!(Literal(&value).to_string(), want);
        }
    }
}
