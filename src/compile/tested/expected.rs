//! `expect`: checked against the schemas before the run, as values to compare with after it.

use super::*;
use crate::syntax::ast::{ExprKind, OptionValue, StageOption};

/// One expectation of a test.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Where it stands.
    pub span: Span,
    pub what: What,
}

/// What is expected. Keys are those of [`Testing::capture`], columns are positions.
#[derive(Clone, Debug)]
pub enum What {
    /// These rows and no others; `None` = this row says nothing of the column.
    Rows {
        key: String,
        columns: Vec<usize>,
        rows: Vec<Vec<Option<Value>>>,
        any_order: bool,
        within: Option<f64>,
    },
    /// The columns; `differs` says what is not as expected.
    Schema {
        key: String,
        differs: Vec<String>,
    },
    Count {
        key: String,
        op: Cmp,
        rows: i64,
    },
    /// What the file beside the script shows.
    Snapshot {
        key: String,
        /// Text in the place of values.
        redact: Vec<(usize, String)>,
        /// Digits behind the point of floats.
        digits: Vec<(usize, usize)>,
    },
    PeakMemory {
        op: Cmp,
        bytes: i64,
    },
    PeakDisk {
        op: Cmp,
        bytes: i64,
    },
    Error {
        code: String,
    },
    Plan,
}

/// `id: int, total: float?`
fn shown_schema(schema: &Schema) -> String {
    let fields: Vec<String> = schema.fields().iter().map(ToString::to_string).collect();
    fields.join(", ")
}

/// The comparison of an expectation.
fn comparison(op: BinaryOp) -> Cmp {
    match op {
        BinaryOp::Ne => Cmp::Ne,
        BinaryOp::Lt => Cmp::Lt,
        BinaryOp::Le => Cmp::Le,
        BinaryOp::Gt => Cmp::Gt,
        BinaryOp::Ge => Cmp::Ge,
        _ => Cmp::Eq,
    }
}

impl<'a> Builder<'_, 'a> {
    /// The end of the build: what the test expects, what it replaced in vain, what it left open.
    pub(in crate::compile) fn expectations(&mut self) -> Vec<Expected> {
        let Some(testing) = self.checker.options.testing else {
            return vec![];
        };
        let mut expected = vec![];
        for step in &testing.test.steps {
            if let TestStepKind::Expect(expect) = &step.kind
                && let Some(what) = self.expectation(expect)
            {
                expected.push(Expected { span: step.span, what });
            }
        }
        self.given_in_vain();
        self.prune();
        expected
    }

    fn given_in_vain(&self) {
        self.checker.plugged_in_vain();
        for (span, target, _) in self.checker.givens() {
            if self.tested.used.contains(&span) {
                continue;
            }
            match target {
                GivenTarget::Stream(name) => self.report(self.no_stream(name)),
                GivenTarget::Source(path) => {
                    let reads: Vec<&str> = self.tested.reads.iter().map(String::as_str).collect();
                    let near = suggest(&path.value, &reads);
                    let known = match reads.as_slice() {
                        [] => "the script reads no file".to_owned(),
                        reads => format!("it reads {}", list_names(reads, 12)),
                    };
                    self.report(
                        Diagnostic::error("E1002", path.span, format!("no source reads {:?}", path.value))
                            .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                            .note(known),
                    );
                }
            }
        }
    }

    fn no_stream(&self, name: &Ident) -> Diagnostic {
        let names = self.checker.names.borrow();
        let known: Vec<&str> = names.streams.keys().copied().collect();
        let near = suggest(&name.text, &known);
        Diagnostic::error("E0203", name.span, format!("stream `{}` not found", name.text))
            .labelled(near.map_or_else(
                || "no stream has this name".to_owned(),
                |near| format!("`{near}` is close"),
            ))
            .note(match known.as_slice() {
                [] => "the script declares no `stream`".to_owned(),
                known => format!("streams here: {}", list_names(known, 12)),
            })
    }

    /// The columns of what is looked at; nothing where a mistake hides them or was reported.
    fn subject(&self, subject: &Subject) -> Option<Rows> {
        let name = &subject.name;
        if !subject.is_path {
            return match self.ends.get(&name.text) {
                Some(end) => end.as_ref().map(|end| end.rows.clone()),
                None => {
                    self.report(self.no_stream(name));
                    None
                }
            };
        }
        if let Some(rows) = self.tested.written.get(&name.text) {
            return Some(rows.clone());
        }
        let known: Vec<&str> = self.tested.written.keys().map(String::as_str).collect();
        let near = suggest(&name.text, &known);
        self.report(
            Diagnostic::error("E1004", name.span, format!("nothing is written to {:?}", name.text))
                .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                .note(match known.as_slice() {
                    [] => "the script writes no file".to_owned(),
                    known => format!("it writes {}; `-` is what it prints", list_names(known, 12)),
                }),
        );
        None
    }

    fn expectation(&self, expect: &'a Expect) -> Option<What> {
        Some(match expect {
            Expect::Rows {
                stream,
                any_order,
                rows,
                options,
            } => self.expected_rows(stream, *any_order, rows, options)?,
            Expect::Schema { stream, fields } => {
                let is = self.subject(stream)?;
                let wanted = self.checker.fields(fields, &mut vec![])?;
                let (is, wanted) = (shown_schema(&is.schema()), shown_schema(&wanted));
                What::Schema {
                    key: key_of(stream),
                    differs: if is == wanted {
                        vec![]
                    } else {
                        vec![format!("expected {{ {wanted} }}"), format!("     got {{ {is} }}")]
                    },
                }
            }
            Expect::Count { stream, op, value } => {
                self.subject(stream)?;
                What::Count {
                    key: key_of(stream),
                    op: comparison(*op),
                    rows: self.whole_number(value, "a count of rows")?,
                }
            }
            Expect::Snapshot { stream, options } => {
                let rows = self.subject(stream)?;
                let (mut redact, mut digits) = (vec![], vec![]);
                for option in options {
                    match option.name.text.as_str() {
                        "redact" => redact.extend(self.by_column(option, &rows, |value| match value {
                            Value::String(text) => Some(text),
                            _ => None,
                        })),
                        "digits" => digits.extend(self.by_column(option, &rows, |value| match value {
                            Value::Int(digits) => usize::try_from(digits).ok().filter(|digits| *digits <= 17),
                            _ => None,
                        })),
                        _ => self.no_option(option, &["redact", "digits"]),
                    }
                }
                What::Snapshot {
                    key: key_of(stream),
                    redact,
                    digits,
                }
            }
            Expect::PeakMemory { op, value } => What::PeakMemory {
                op: comparison(*op),
                bytes: self.whole_number(value, "bytes")?,
            },
            Expect::PeakDisk { op, value } => What::PeakDisk {
                op: comparison(*op),
                bytes: self.whole_number(value, "bytes")?,
            },
            Expect::Error { code } => {
                if crate::diag::codes::info(&code.text).is_none() {
                    self.report(
                        Diagnostic::error("E1004", code.span, format!("there is no code {}", code.text))
                            .labelled("no run gives it"),
                    );
                    return None;
                }
                What::Error {
                    code: code.text.clone(),
                }
            }
            Expect::PlanSnapshot => What::Plan,
        })
    }

    fn whole_number(&self, value: &'a Expr, what: &str) -> Option<i64> {
        let made = self.checker.constant(value, &Scope::CONSTANT)?;
        match made.as_value() {
            Some(Value::Int(number)) => Some(number),
            _ => {
                self.report(
                    Diagnostic::error("E1004", value.span, format!("{what}: a whole number"))
                        .labelled(format!("this is {}", made.ty)),
                );
                None
            }
        }
    }

    fn no_option(&self, option: &StageOption, known: &[&str]) {
        let near = suggest(&option.name.text, known);
        self.report(
            Diagnostic::error(
                "E0503",
                option.name.span,
                format!("no option `{}` here", option.name.text),
            )
            .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
            .note(format!("options: {}", list_names(known, 9))),
        );
    }

    /// `{column: value, …}`.
    fn by_column<T>(&self, option: &'a StageOption, rows: &Rows, read: impl Fn(Value) -> Option<T>) -> Vec<(usize, T)> {
        let wrong = |span: Span| {
            self.report(
                Diagnostic::error(
                    "E1004",
                    span,
                    format!("`{}:` says something of columns", option.name.text),
                )
                .labelled("`redact: {at: \"[time]\"}`, `digits: {total: 2}`"),
            );
        };
        let OptionValue::Expr(Expr {
            kind: ExprKind::Record(fields),
            ..
        }) = &option.value
        else {
            wrong(option.span);
            return vec![];
        };
        let mut made = vec![];
        for field in fields {
            let place = self.column(&field.name, rows);
            let value = self.checker.constant(&field.value, &Scope::CONSTANT);
            let Some(value) = value.and_then(|value| value.as_value()) else {
                continue;
            };
            match (place, read(value)) {
                (Some(at), Some(value)) => made.push((at, value)),
                (_, None) => wrong(field.value.span),
                (None, _) => {}
            }
        }
        made
    }

    fn column(&self, name: &Ident, rows: &Rows) -> Option<usize> {
        let place = rows.fields.iter().position(|field| *field.name == *name.text);
        if place.is_none() && !rows.unknown {
            self.report(
                Diagnostic::error("E0204", name.span, format!("column `{}` not found", name.text))
                    .labelled(
                        rows.nearest(&name.text)
                            .map_or_else(String::new, |near| format!("`{near}` is close")),
                    )
                    .note(rows.note()),
            );
        }
        place
    }

    fn expected_rows(
        &self,
        stream: &'a Subject,
        any_order: bool,
        rows: &'a [Expr],
        options: &'a [StageOption],
    ) -> Option<What> {
        let known = self.subject(stream)?;
        let reported = self.checker.reported();
        let mut within = None;
        for option in options {
            match (option.name.text.as_str(), &option.value) {
                ("within", OptionValue::Expr(value)) => {
                    let made = self.checker.constant(value, &Scope::CONSTANT)?;
                    within = match made.as_value() {
                        Some(Value::Float(number)) if number >= 0.0 => Some(number),
                        Some(Value::Int(number)) if number >= 0 => Some(number as f64),
                        _ => {
                            self.report(
                                Diagnostic::error("E1004", value.span, "`within:` is a number, not below 0")
                                    .labelled(format!("this is {}", made.ty)),
                            );
                            None
                        }
                    };
                }
                _ => self.no_option(option, &["within"]),
            }
        }
        let mut columns: Vec<usize> = vec![];
        let mut made: Vec<BTreeMap<usize, Value>> = vec![];
        for row in rows {
            let ExprKind::Record(fields) = &row.kind else {
                self.report(
                    Diagnostic::error("E1004", row.span, "a row is a record").labelled("`{name: value, …}` is one"),
                );
                continue;
            };
            let mut cells = BTreeMap::new();
            for field in fields {
                let Some(at) = self.column(&field.name, &known) else {
                    continue;
                };
                let column = &known.fields[at];
                if known.is_guess(at) {
                    continue;
                }
                if !columns.contains(&at) {
                    columns.push(at);
                }
                if let Some(value) = self.checker.value_of_type(&field.value, column, "E1004") {
                    cells.insert(at, value);
                }
            }
            made.push(cells);
        }
        if self.checker.reported() > reported {
            return None;
        }
        let row = |mut cells: BTreeMap<usize, Value>| columns.iter().map(|at| cells.remove(at)).collect();
        Some(What::Rows {
            key: key_of(stream),
            rows: made.into_iter().map(row).collect(),
            columns,
            any_order,
            within,
        })
    }
}
