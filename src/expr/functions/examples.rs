//! Runs the examples of every function here, as constants and again as columns of several rows.
//!
//! The reader knows only what examples need: calls, literals, one comparison or `-` between two terms, `is null`.

use super::families;
use crate::expr::function::{Example, FunctionSpec, Nulls, Pattern};
use crate::expr::scalar::scan;
use crate::expr::show::Literal;
use crate::expr::{ArgValue, Arith, CallArg, Cmp, Evaluator, Expr, Fixed, values};
use standpipe_sdk::{Arena, Batch, Code, Faults, Field, Span, Type, Value};

struct Reader<'t> {
    rest: &'t str,
}

enum Term {
    Expr(Expr),
    Regex(String, String),
}

fn span() -> Span {
    Span::new(0, 0)
}

impl<'t> Reader<'t> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take(&mut self, f: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !f(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn expr(&mut self) -> Expr {
        let Term::Expr(left) = self.term() else {
            panic!("a regex alone")
        };
        for (token, cmp) in [("==", Cmp::Eq), ("<=", Cmp::Le), ("<", Cmp::Lt)] {
            if self.eat(token) {
                return Expr::compare(cmp, left, self.expr(), span()).unwrap();
            }
        }
        if self.eat("- ") {
            return Expr::arith(Arith::Sub, left, self.expr(), span()).unwrap();
        }
        if self.eat("is null") {
            return Expr::is_null(left, false, span()).unwrap();
        }
        left
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        loop {
            let (at, c) = chars.next().expect("the end of the text");
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return text;
                }
                '\\' => match chars.next() {
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, c)) => text.push(c),
                    None => panic!("an escape"),
                },
                c => text.push(c),
            }
        }
    }

    fn term(&mut self) -> Term {
        if self.eat("b\"") {
            let bytes = self.text().into_bytes();
            return Term::Expr(Expr::constant(Value::Bytes(bytes), Type::Bytes, span()));
        }
        if self.eat("\"") {
            let text = self.text();
            return Term::Expr(Expr::constant(Value::String(text), Type::String, span()));
        }
        if self.eat("/") {
            let end = self.rest.find('/').expect("the end of the regex");
            let (pattern, rest) = self.rest.split_at(end);
            self.rest = &rest[1..];
            let flags = self.take(|c| c.is_ascii_alphabetic());
            return Term::Regex(pattern.to_string(), flags.to_string());
        }
        if self.eat("[") {
            let mut items = vec![];
            while !self.eat("]") {
                items.push(self.expr());
                self.eat(",");
            }
            return Term::Expr(Expr::list(items, span()).unwrap());
        }
        if self.eat("@") {
            let word = self.take(|c| c.is_ascii_alphanumeric() || "-:.+".contains(c));
            return Term::Expr(match scan::parse_date(word.as_bytes()) {
                Some(day) => Expr::constant(Value::Date(day), Type::Date, span()),
                None => {
                    let micros = scan::parse_timestamp(word.as_bytes()).expect(word);
                    Expr::constant(Value::Timestamp(micros), Type::Timestamp, span())
                }
            });
        }
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return Term::Expr(self.number());
        }
        let word = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
        Term::Expr(match word {
            "null" => Expr::null(span()),
            "true" | "false" => Expr::constant(Value::Bool(word == "true"), Type::Bool, span()),
            _ => {
                let args = self.args();
                call(word, args)
            }
        })
    }

    fn args(&mut self) -> Vec<Term> {
        assert!(self.eat("("), "a call at {:?}", self.rest);
        let mut args = vec![];
        while !self.eat(")") {
            let start = self.rest;
            match self.term() {
                Term::Expr(_) => {
                    self.rest = start;
                    args.push(Term::Expr(self.expr()));
                }
                regex => args.push(regex),
            }
            self.eat(",");
        }
        args
    }

    fn number(&mut self) -> Expr {
        let negative = self.eat("-");
        let word = self
            .take(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
            .replace('_', "");
        let sign = if negative { "-" } else { "" };
        if let Some(hex) = word.strip_prefix("0x") {
            return Expr::constant(Value::Int(i64::from_str_radix(hex, 16).unwrap()), Type::Int, span());
        }
        if let Ok(n) = format!("{sign}{word}").parse::<i64>() {
            return Expr::constant(Value::Int(n), Type::Int, span());
        }
        if let Ok(n) = format!("{sign}{word}").parse::<f64>() {
            return Expr::constant(Value::Float(n), Type::Float, span());
        }
        let micros = scan::parse_duration(word.as_bytes()).expect("a duration");
        Expr::constant(Value::Duration(micros), Type::Duration, span())
    }
}

fn call(name: &str, args: Vec<Term>) -> Expr {
    if let Some(cast) = cast(name, &args) {
        return cast;
    }
    let args = args
        .into_iter()
        .map(|arg| CallArg {
            name: None,
            value: match arg {
                Term::Expr(expr) => ArgValue::Expr(expr),
                Term::Regex(pattern, flags) => ArgValue::Regex { pattern, flags },
            },
            span: span(),
        })
        .collect();
    match Expr::call(name, args, span()) {
        Ok(expr) => expr,
        Err(issue) => panic!("{name}: {}", issue.message),
    }
}

/// The casts in examples: `float("nan")`, `decimal("1.50", 10, 2)`.
fn cast(name: &str, args: &[Term]) -> Option<Expr> {
    let int = |index: usize| match args.get(index) {
        Some(Term::Expr(expr)) => match expr.as_value() {
            Some(Value::Int(n)) => n as u8,
            _ => panic!("an int"),
        },
        _ => panic!("an int"),
    };
    let ty = match name {
        "float" => Type::Float,
        "decimal" => Type::Decimal {
            precision: int(1),
            scale: int(2),
        },
        _ => return None,
    };
    match args.first() {
        Some(Term::Expr(expr)) => Some(Expr::cast(expr.clone(), ty, span()).unwrap()),
        _ => panic!("{name} of a regex"),
    }
}

/// What `expr` gives for each row of a batch of `columns`: the value as a literal, or the code of the failure.
fn run(expr: &Expr, columns: &[Vec<Value>], types: &[Type], rows: usize) -> Vec<Result<String, Code>> {
    let arena = Arena::new(64 << 20);
    let columns: Vec<_> = columns
        .iter()
        .zip(types)
        .map(|(values, ty)| values::column(&arena, &values.iter().collect::<Vec<_>>(), ty).unwrap())
        .collect();
    let batch = Batch::new(&columns, None, rows);
    let faults = Faults::new(&arena, false);
    let evaluator = Evaluator::new(Fixed {
        now_micros: 86_400_000_000,
    });
    let column = evaluator.eval(expr, &batch, &arena, &faults, None).unwrap();
    assert_eq!(column.len(), rows);
    let mut out: Vec<_> = (0..rows)
        .map(|row| Ok(Literal(&values::of_cell(&column.cell(row), &expr.ty)).to_string()))
        .collect();
    for fault in faults.iter() {
        assert_eq!(out[fault.row as usize], Ok("null".to_string()), "a failing row is null");
    }
    for fault in faults.by_row().unwrap() {
        assert!(!fault.message.is_empty());
        out[fault.row as usize] = Err(fault.code);
    }
    out
}

/// The examples without lambdas: those are run by whoever can read the whole language.
fn readable(spec: &FunctionSpec) -> impl Iterator<Item = &'static Example> {
    spec.examples.iter().filter(|example| !example.call.contains("=>"))
}

fn wanted(example: &Example) -> Result<String, Code> {
    match example.fails {
        Some(code) => Err(code),
        None => Ok(example.gives.to_string()),
    }
}

/// The example's call with every constant argument in a column of three rows: null, the value, the value.
fn as_columns(spec: &FunctionSpec, call_text: &str) -> Option<(Expr, Vec<Vec<Value>>, Vec<Type>)> {
    let mut reader = Reader { rest: call_text };
    let name = reader.take(|c| c.is_ascii_alphanumeric() || c == '_');
    let args = if reader.rest.starts_with('(') {
        reader.args()
    } else {
        return None;
    };
    if name != spec.name || !reader.rest.is_empty() {
        return None;
    }
    let (mut columns, mut types) = (vec![], vec![]);
    let args = args
        .into_iter()
        .enumerate()
        .map(|(index, arg)| match arg {
            // What `prepare` looks at must stay constant.
            Term::Expr(expr) if spec.prepare.is_none() || index == 0 => match expr.as_value() {
                Some(value) if value != Value::Null => {
                    let field = Field::new(format!("c{index}"), expr.ty.clone(), true);
                    let column = Expr::column(columns.len(), &field, span());
                    columns.push(vec![Value::Null, value.clone(), value]);
                    types.push(expr.ty);
                    Term::Expr(column)
                }
                _ => Term::Expr(expr),
            },
            other => other,
        })
        .collect();
    Some((call(name, args), columns, types))
}

#[test]
fn examples_give_what_they_promise() {
    let mut failures = vec![];
    for spec in families().iter().flat_map(|family| family.iter()) {
        assert!(!spec.examples.is_empty(), "{} has no example", spec.name);
        assert!(spec.about.ends_with('.'), "{}: a sentence ends with a dot", spec.name);
        for example in readable(spec) {
            let got = run(&Reader { rest: example.call }.expr(), &[], &[], 1).remove(0);
            if got != wanted(example) {
                failures.push(format!("{}: {got:?}, not {:?}", example.call, wanted(example)));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn columns_give_what_constants_give() {
    let mut failures = vec![];
    for spec in families().iter().flat_map(|family| family.iter()) {
        for example in readable(spec) {
            let Some((expr, columns, types)) = as_columns(spec, example.call) else {
                continue;
            };
            if columns.is_empty() {
                continue;
            }
            let got = run(&expr, &columns, &types, 3);
            let expected = wanted(example);
            if got[1] != expected || got[2] != expected {
                failures.push(format!("{} in columns: {got:?}, not {expected:?}", example.call));
            }
            if spec.nulls == Nulls::Propagate && got[0] != Ok("null".to_string()) {
                failures.push(format!("{} of nulls: {:?}", example.call, got[0]));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Values that are hard on functions; `None` for patterns of other families.
fn hard(pattern: &Pattern, polymorphic: &Type) -> Option<(Type, Vec<Value>)> {
    let ty = match pattern {
        Pattern::Any | Pattern::Ordered | Pattern::Same(_) => polymorphic.clone(),
        Pattern::Bool => Type::Bool,
        Pattern::Int | Pattern::Number => Type::Int,
        Pattern::Float => Type::Float,
        Pattern::Decimal => Type::Decimal {
            precision: 38,
            scale: 4,
        },
        Pattern::String => Type::String,
        Pattern::Bytes => Type::Bytes,
        Pattern::Date => Type::Date,
        Pattern::Timestamp => Type::Timestamp,
        Pattern::Duration => Type::Duration,
        _ => return None,
    };
    let days = [-4_371_587, -719_162, -1, 0, 59, 11_016, 20_000, 2_932_896];
    let values = match &ty {
        Type::Bool => vec![Value::Bool(true), Value::Bool(false)],
        Type::Int => [i64::MIN, -1, 0, 1, 2, 3, 12, 60, 255, 2024, i64::MAX]
            .map(Value::Int)
            .to_vec(),
        Type::Float => [
            f64::NAN,
            f64::NEG_INFINITY,
            -2.5,
            -0.0,
            0.5,
            1.0,
            1e19,
            1e308,
            f64::INFINITY,
        ]
        .map(Value::Float)
        .to_vec(),
        Type::Decimal { scale, .. } => [-(10i128.pow(38) - 1), -25_000, -1, 0, 15_000, 10i128.pow(38) - 1]
            .map(|value| Value::Decimal { value, scale: *scale })
            .to_vec(),
        Type::Bytes => [&b""[..], b"a", b"\xff\xfe", b"0123456789abcdef0123456789abcdef!"]
            .map(|bytes| Value::Bytes(bytes.to_vec()))
            .to_vec(),
        Type::Date => days.map(|day| Value::Date(day as i32)).to_vec(),
        Type::Timestamp => days
            .map(|day| Value::Timestamp(day * 86_400_000_000 + 86_399_999_999))
            .to_vec(),
        Type::Duration => [i64::MIN, -1, 0, 1, 900_000_000, i64::MAX]
            .map(Value::Duration)
            .to_vec(),
        _ => [
            "",
            " ",
            "a",
            "ab",
            "ä",
            "12",
            "-7",
            "%41",
            "Europe/Berlin",
            " ÄÖÜ and more than twelve bytes\n",
            "ab,ab,,ß😀 12",
        ]
        .map(|text| Value::String(text.to_string()))
        .to_vec(),
    };
    Some((ty, values))
}

/// The call of `spec` over columns of `rows` hard values and nulls; prepared arguments are those of its first example.
fn hard_call(spec: &FunctionSpec, polymorphic: &Type, rows: usize) -> Option<(Expr, Vec<Vec<Value>>, Vec<Type>)> {
    let example = spec.examples.iter().find(|e| e.call.starts_with(spec.name))?;
    let mut reader = Reader {
        rest: &example.call[spec.name.len()..],
    };
    let constants = if reader.rest.contains("=>") {
        vec![]
    } else {
        reader.args()
    };
    let mut constants: Vec<Option<Term>> = constants.into_iter().map(Some).collect();
    let (mut columns, mut types, mut args) = (vec![], vec![], vec![]);
    for (index, param) in spec.params.iter().enumerate() {
        if index > 0 && (spec.prepare.is_some() || param.ty == Pattern::Regex) {
            if let Some(constant) = constants.get_mut(index).and_then(Option::take) {
                args.push(constant);
            }
            continue;
        }
        let (ty, pool) = hard(&param.ty, polymorphic)?;
        // Steps that have nothing in common with the sizes of the pools meet many combinations.
        let step = [7, 11, 13, 17, 19, 23][index];
        let pick = |row: usize| match (row * step + index) % (pool.len() + 1) {
            0 => Value::Null,
            n => pool[(n - 1 + row / 13) % pool.len()].clone(),
        };
        let field = Field::new(format!("c{index}"), ty.clone(), true);
        args.push(Term::Expr(Expr::column(columns.len(), &field, span())));
        columns.push((0..rows).map(pick).collect());
        types.push(ty);
    }
    Some((call(spec.name, args), columns, types))
}

#[test]
fn a_row_stands_alone_whatever_it_holds() {
    let decimal = Type::Decimal {
        precision: 38,
        scale: 4,
    };
    let polymorphic = [
        Type::Int,
        Type::Float,
        Type::String,
        Type::Bool,
        Type::Date,
        Type::Timestamp,
        decimal,
    ];
    let rows = 150;
    for spec in families().iter().flat_map(|family| family.iter()) {
        for ty in &polymorphic {
            let Some((expr, columns, types)) = hard_call(spec, ty, rows) else {
                continue;
            };
            let together = run(&expr, &columns, &types, rows);
            for row in 0..rows {
                let alone: Vec<Vec<Value>> = columns.iter().map(|column| vec![column[row].clone()]).collect();
                let got = run(&expr, &alone, &types, 1).remove(0);
                assert_eq!(together[row], got, "{} of {alone:?}", spec.name);
                if spec.nulls == Nulls::Propagate && alone.contains(&vec![Value::Null]) {
                    assert_eq!(got, Ok("null".to_string()), "{} of {alone:?}", spec.name);
                }
                assert!(spec.fallible || got.is_ok(), "{} of {alone:?} fails", spec.name);
            }
        }
    }
}
