//! Drives a scalar function.

use super::ROOM;
use super::table::{Output, Reject, Table, at_all_sizes, parts, words};
use crate::arena::Arena;
use crate::error::Result;
use crate::fault::Faults;
use crate::scalar::{Nulls, Rows, Scalar, ScalarSpec};
use crate::types::{Field, Schema};
use crate::value::Value;
use crate::values;

/// The function `F`, that `#[scalar]` has made.
pub fn function<F: Scalar>() -> Function {
    Function { spec: F::SPEC }
}

/// A function to be called.
pub struct Function {
    spec: ScalarSpec,
}

impl Function {
    /// Calls it for each row: column i is argument i. Gives one column, `value`; a rejected row is null.
    ///
    /// # Panics
    /// If the columns are not its parameters, it fails, or what comes out depends on other rows.
    pub fn run(&self, given: &Table) -> Output {
        match self.try_run(given) {
            Ok(output) => output,
            Err(error) => panic!("`{}` fails: {}", self.spec.name, words(&error)),
        }
    }

    /// The same, for a function that is to fail as a whole.
    ///
    /// # Errors
    /// What the function fails with; rows that it rejects are no failure.
    ///
    /// # Panics
    /// As [`Function::run`], but for failures.
    pub fn try_run(&self, given: &Table) -> Result<Output> {
        let spec = &self.spec;
        let params: Schema = (spec.params.iter())
            .map(|param| Field::new(param.name, param.ty.ty(), true))
            .collect();
        let fits = given.schema().width() == params.width()
            && (given.schema().fields().iter().zip(params.fields()))
                .all(|(given, param)| given.ty == param.ty || (given.ty.is_number() && param.ty == crate::Type::Float));
        assert!(fits, "`{}` takes {params}, and is given {}", spec.name, given.schema());
        let is_nullable =
            spec.nullable || spec.nulls == Nulls::Own || given.schema().fields().iter().any(|f| f.nullable);
        let schema: Schema = [Field::new("value", spec.returns.ty(), is_nullable || spec.fallible)]
            .into_iter()
            .collect();
        at_all_sizes(|size| {
            let mut output = Output::new(schema.clone());
            let mut arena = Arena::new(ROOM);
            arena.set_poison(true);
            for (from, part) in parts(given.rows(), size) {
                self.call(&params, part, from, &arena, &mut output)?;
                arena.reset();
            }
            Ok(output)
        })
    }

    fn call(
        &self,
        params: &Schema,
        rows: &[Vec<Value>],
        from: usize,
        arena: &Arena,
        output: &mut Output,
    ) -> Result<()> {
        let spec = &self.spec;
        let batch = values::batch(params, rows, arena)?;
        let faults = Faults::new(arena, false);
        let given = Rows {
            columns: batch.columns(),
            len: rows.len(),
            arena,
            faults: &faults,
        };
        let column = (spec.eval)(&given)?;
        let ty = spec.returns.ty();
        assert!(
            column.len() == rows.len() && column.fits(&ty),
            "`{}` gives {} values for {} rows of `{ty}`, or of another type",
            spec.name,
            column.len(),
            rows.len()
        );
        let is_null = |row: usize| spec.nulls == Nulls::Propagate && rows[row].contains(&Value::Null);
        let bad = faults.by_row()?;
        for row in 0..rows.len() {
            // What stands where an argument is null, or what was rejected, does not count.
            let fault = bad.iter().find(|fault| fault.row as usize == row && !is_null(row));
            output.rejects.extend(fault.map(|fault| Reject {
                row: from + row,
                message: fault.message.to_owned(),
            }));
            let value = match is_null(row) || fault.is_some() {
                true => Value::Null,
                false => Value::of(column.cell(row), &ty),
            };
            assert!(
                value != Value::Null || is_null(row) || fault.is_some() || spec.nullable || spec.nulls == Nulls::Own,
                "`{}` says that it gives no null, and gives one in row {}",
                spec.name,
                from + row
            );
            output.rows.push(vec![value]);
        }
        Ok(())
    }
}
