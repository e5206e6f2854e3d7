//! `number as n (by k)`: row numbers from 1, over all rows or within each group.

use super::codes;
use super::groups::{self, Groups};
use super::keys;
use super::rowkeys::KeyMaker;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Items, Kind, Lineage, Make, Memory, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Column, Columns, Faults, Field, Flow, Prepare, Serial, Type};

/// `number`.
pub const SPEC: StageSpec = StageSpec {
    name: "number",
    about: "Adds row numbers from 1; with `by`, within each group",
    kind: Kind::Serial,
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    as_name: Some("the name of the new column"),
    memory: Memory::Groups,
    examples: &[
        Example {
            script: r#"from rows [{k: "a"}, {k: "b"}, {k: "a"}] | number as n"#,
            output: "k,n\na,1\nb,2\na,3\n",
        },
        Example {
            script: r#"from rows [{k: "a"}, {k: "b"}, {k: "a"}] | number as n by k"#,
            output: "k,n\na,1\nb,1\na,2\n",
        },
    ],
    bind: &bind,
    class: |call| Some(groups::class(&SPEC, call)),
    filters: |call| keys::filters(call, call.by),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    match call.as_name {
        None => complaints.push(
            Complaint::new(
                codes::NEEDS_AS,
                call.span,
                "`number` needs a name for its column",
                "no name",
            )
            .help("`number as n`"),
        ),
        Some(name) if call.own_fields().iter().any(|f| &*f.name == name) => complaints.push(Complaint::new(
            codes::COLUMN_EXISTS,
            call.span,
            format!("column `{name}` exists already"),
            "`number` only adds a column",
        )),
        Some(_) => {}
    }
    let reads = keys::groups(call, &mut complaints);
    let (Some(name), true) = (call.as_name, complaints.is_empty()) else {
        return Err(complaints);
    };
    let (own, by) = (call.own, reads.clone());
    let maker = KeyMaker::of(call, &by);
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
        let groups = || Groups::new("number", maker.clone(), &setup.budget);
        Ok(Box::new(Number {
            groups: (!by.is_empty()).then(groups),
            rows: 0,
            own,
        }))
    };
    let mut bound = Bound::keeps(call, reads, Make::Serial(Box::new(make)));
    let number = Field::new(name, Type::Int, false);
    bound.schema = call.own_fields().iter().cloned().chain([number]).collect();
    bound.lineage.push(Lineage::New);
    Ok(bound)
}

struct Number {
    groups: Option<Groups>,
    /// Rows so far, where there are no groups.
    rows: i64,
    own: usize,
}

impl Serial for Number {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        self.groups.as_ref().map(Groups::prepare)
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let mut columns = Columns::new(arena, self.own + 1)?;
        for &column in &batch.columns()[..self.own] {
            columns.push(column);
        }
        // All that can be refused comes before the counting.
        let numbers = match &mut self.groups {
            None => {
                let numbers = arena.collect(batch.rows(), |row| self.rows + 1 + row as i64)?;
                self.rows += batch.rows() as i64;
                numbers
            }
            Some(groups) => {
                let ids = groups.of(&batch, arena)?;
                arena.collect(batch.rows(), |row| groups.count(ids[row]) as i64 + 1)?
            }
        };
        columns.push(Column::int(numbers, None));
        Ok((Some(batch.with_columns(columns.finish())), Flow::More))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn numbers_count_on_from_batch_to_batch() {
        let schema = schema(&[("k", INT)]);
        let rows: Rows = (0..50).map(|i| vec![int(i % 3)]).collect();
        let by = [column(0)];
        let all = bind(&Call {
            as_name: Some("n"),
            ..call(&schema, 1, &[])
        })
        .unwrap();
        let each = bind(&Call {
            as_name: Some("n"),
            by: &by,
            ..call(&schema, 1, &[])
        })
        .unwrap();
        assert_eq!(all.schema.to_string(), "k: int?, n: int");
        for chunk in CHUNKS {
            let want: Rows = (0..50).map(|i| vec![int(i % 3), int(i + 1)]).collect();
            assert_eq!(run(&all, &schema, &rows, chunk).rows, want);
            let want: Rows = (0..50).map(|i| vec![int(i % 3), int(i / 3 + 1)]).collect();
            assert_eq!(run(&each, &schema, &rows, chunk).rows, want);
        }
        every_refusal_can_be_repeated(&each, &schema, &rows);
        every_refusal_can_be_repeated(&all, &schema, &rows);
        assert_eq!(codes_of(bind(&call(&schema, 1, &[]))), [codes::NEEDS_AS]);
        let taken = Call {
            as_name: Some("k"),
            ..call(&schema, 1, &[])
        };
        assert_eq!(codes_of(bind(&taken)), [codes::COLUMN_EXISTS]);
    }
}
