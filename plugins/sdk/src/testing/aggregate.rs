//! Drives an aggregate.

use super::ROOM;
use super::table::{Output, Reject, Table, at_all_sizes, parts, words};
use crate::arena::Arena;
use crate::combine::{Aggregated, Arguments, CombineSpec, Combined, Groups, Values, Wrong};
use crate::types::{Field, Schema, Type};
use crate::value::Value;
use crate::values;

/// The aggregate `A`.
pub fn aggregate<A: Aggregated>() -> Aggregate {
    let spec = A::SPEC;
    Aggregate {
        constants: vec![None; spec.params.len()],
        grouped: false,
        spec,
    }
}

/// A call of an aggregate: what it is given.
pub struct Aggregate {
    spec: CombineSpec,
    constants: Vec<Option<Value>>,
    grouped: bool,
}

impl Aggregate {
    /// The constant `name: value`. What is not given has its default.
    ///
    /// # Panics
    /// If the aggregate has no such constant.
    #[must_use]
    pub fn constant(mut self, name: &str, value: impl Into<Value>) -> Self {
        let at = self
            .spec
            .params
            .iter()
            .position(|param| param.name == name && param.constant);
        match at {
            Some(at) => self.constants[at] = Some(value.into()),
            None => panic!("`{}` has no constant `{name}`", self.spec.name),
        }
        self
    }

    /// The first column of what is given says the group; it is no argument.
    #[must_use]
    pub fn grouped(mut self) -> Self {
        self.grouped = true;
        self
    }

    /// What it complains of, given columns like these.
    ///
    /// # Panics
    /// If it takes them.
    pub fn refused(&self, given: &Table) -> Wrong {
        match self.bound(given) {
            Err(wrong) => wrong,
            Ok(_) => panic!("`{}` takes that", self.spec.name),
        }
    }

    /// One row per group, in the order in which they come; without [`Aggregate::grouped`] one of all rows. The other columns are the
    /// arguments. A group without a value by `FALLIBLE` is a rejected row.
    ///
    /// # Panics
    /// If it fails, or what comes out depends on the order of rows, where batches end, or which states are put together.
    pub fn run(&self, given: &Table) -> Output {
        let combined = match self.bound(given) {
            Ok(combined) => combined,
            Err(wrong) => panic!("`{}` refuses `{}`: {}", self.spec.name, wrong.param, wrong.message),
        };
        let mut groups: Vec<Value> = vec![];
        let mut rows: Vec<(u32, Vec<Value>)> = vec![];
        for row in given.rows() {
            let (group, args) = row.split_at(usize::from(self.grouped));
            let group = group.first().cloned().unwrap_or(Value::Null);
            let at = groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                groups.push(group);
                groups.len() - 1
            });
            if !args.contains(&Value::Null) {
                rows.push((at as u32, args.to_vec()));
            }
        }
        if !self.grouped {
            groups = vec![Value::Null];
        }
        let columns: Schema = given.schema().fields()[usize::from(self.grouped)..]
            .iter()
            .cloned()
            .collect();
        let run = Run {
            spec: &self.spec,
            combined: &combined,
            columns: &columns,
            groups: &groups,
            key: given.schema().get(0).filter(|_| self.grouped),
        };
        let outcome = at_all_sizes(|size| run.in_batches(&rows, size));
        let outcome = outcome.unwrap_or_else(|what: String| panic!("`{}` fails: {what}", self.spec.name));
        let backwards: Vec<_> = rows.iter().rev().cloned().collect();
        run.same(&outcome, &run.in_batches(&backwards, 3), "the rows come backwards");
        for states in [2, 3, rows.len().max(1)] {
            for last_first in [false, true] {
                let merged = run.merged(&rows, states, last_first);
                run.same(&outcome, &merged, &format!("{states} states are put together"));
            }
        }
        outcome
    }

    fn bound(&self, given: &Table) -> Result<Combined, Wrong> {
        let spec = &self.spec;
        let columns = &given.schema().fields()[usize::from(self.grouped).min(given.schema().width())..];
        assert!(
            columns.len() == spec.columns(),
            "`{}` takes {} columns, and is given {}",
            spec.name,
            spec.columns(),
            columns.len()
        );
        let mut fields = columns.to_vec();
        let mut constants = self.constants.clone();
        for (at, param) in spec.params.iter().enumerate().skip(spec.columns()) {
            let literal = || match param.default {
                Some(text) => literal(text),
                None => panic!("`{}` needs `{}`", spec.name, param.name),
            };
            let value = constants[at].get_or_insert_with(literal);
            if let (Value::Int(v), "float") = (&*value, param.ty) {
                *value = Value::Float(*v as f64);
            }
            fields.push(Field::new(param.name, type_of(value), *value == Value::Null));
        }
        let fields = fields.into_iter().collect();
        (spec.bind)(&Arguments {
            params: spec.params,
            fields: &fields,
            values: &constants,
        })
    }
}

/// A default as the language writes it.
fn literal(text: &str) -> Value {
    match text {
        "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if text.starts_with('"') => Value::String(text.trim_matches('"').into()),
        _ => match (text.parse(), text.parse()) {
            (Ok(int), _) => Value::Int(int),
            (_, Ok(float)) => Value::Float(float),
            _ => panic!("`{text}` is no literal"),
        },
    }
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Float(_) => Type::Float,
        Value::String(_) => Type::String,
        Value::Date(_) => Type::Date,
        Value::Timestamp(_) => Type::Timestamp,
        Value::Duration(_) => Type::Duration,
        _ => Type::Null,
    }
}

/// A bound aggregate and what it is tried with.
struct Run<'r> {
    spec: &'r CombineSpec,
    combined: &'r Combined,
    columns: &'r Schema,
    groups: &'r [Value],
    key: Option<&'r Field>,
}

impl Run<'_> {
    /// Gives rows to states, in batches of at most `size`.
    fn update(&self, states: &mut dyn Groups, rows: &[(u32, Vec<Value>)], size: usize) -> Result<(), String> {
        let mut arena = Arena::new(ROOM);
        arena.set_poison(true);
        let cells: Vec<Vec<Value>> = rows.iter().map(|(_, cells)| cells.clone()).collect();
        for (from, part) in parts(&cells, size) {
            let batch = values::batch(self.columns, part, &arena).map_err(|error| words(&error))?;
            let groups: Vec<u32> = rows[from..from + part.len()].iter().map(|(group, _)| *group).collect();
            let rows = Values {
                columns: batch.columns(),
                groups: &groups,
                arena: &arena,
            };
            let room = states.room(self.groups.len());
            room.map_err(|error| error.to_string())?;
            states.update(&rows).map_err(|error| words(&error))?;
            arena.reset();
        }
        Ok(())
    }

    fn in_batches(&self, rows: &[(u32, Vec<Value>)], size: usize) -> Result<Output, String> {
        let mut states = (self.combined.groups)();
        self.update(&mut *states, rows, size)?;
        self.finished(&mut *states)
    }

    /// Deals the rows to several states, which are then put together by their bytes.
    fn merged(&self, rows: &[(u32, Vec<Value>)], count: usize, last_first: bool) -> Result<Output, String> {
        let mut parts = vec![];
        for part in 0..count {
            let mut states = (self.combined.groups)();
            let dealt: Vec<_> = rows.iter().skip(part).step_by(count).cloned().collect();
            self.update(&mut *states, &dealt, usize::MAX)?;
            parts.push(states);
        }
        if last_first {
            parts.reverse();
        }
        let mut whole = (self.combined.groups)();
        for states in &mut parts {
            for group in 0..self.groups.len() as u32 {
                // Through bytes twice: what is read is a state like any other.
                let (mut bytes, mut twice) = (vec![], vec![]);
                states.write(group, &mut bytes);
                let mut again = (self.combined.groups)();
                again.merge(0, &bytes)?;
                again.write(0, &mut twice);
                whole.merge(group, &twice)?;
            }
        }
        self.finished(&mut *whole)
    }

    fn finished(&self, states: &mut dyn Groups) -> Result<Output, String> {
        let value = Field::new("value", self.combined.ty.clone(), true);
        let mut output = Output::new(self.key.into_iter().cloned().chain([value]).collect());
        for (number, group) in self.groups.iter().enumerate() {
            let value = match states.value(number as u32) {
                Ok(value) => value,
                Err(message) if self.spec.fallible => {
                    output.rejects.push(Reject { row: number, message });
                    Value::Null
                }
                Err(message) => return Err(format!("it says that no group fails, and one does: {message}")),
            };
            let key = self.key.map(|_| group.clone());
            output.rows.push(key.into_iter().chain([value]).collect());
        }
        // Panics if a value is not of its type.
        Table::of(output.schema.clone(), output.rows.clone());
        Ok(output)
    }

    fn same(&self, want: &Output, got: &Result<Output, String>, how: &str) {
        match got {
            Ok(got) => assert!(
                format!("{:?}", want.rows) == format!("{:?}", got.rows) && want.rejects == got.rejects,
                "`{}`: what comes out is another where {how}\n-- first:\n{want}-- then:\n{got}",
                self.spec.name
            ),
            Err(what) => panic!("`{}` fails where {how}: {what}", self.spec.name),
        }
    }
}
