//! `skip n (by k)`: all but the first rows, of all or of each group.

use super::groups;
use super::take::bind_as;
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Items, Kind, Memory, StageSpec, Want};

/// `skip`.
pub const SPEC: StageSpec = StageSpec {
    name: "skip",
    about: "All but the first rows; with `by`, all but the first of each group",
    kind: Kind::Serial,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows to leave out"),
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    memory: Memory::Groups,
    examples: &[
        Example {
            script: "from range(1, 4) | skip 2",
            output: "value\n3\n4\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | skip 1 by k"#,
            output: "k,n\na,2\n",
        },
    ],
    bind: &bind,
    class: |call| Some(groups::class(&SPEC, call)),
    filters: |call| super::keys::filters(call, call.by),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    bind_as(call, "skip", true)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn what_take_leaves() {
        let schema = schema(&[("id", INT), ("k", INT)]);
        let rows: Rows = (0..60).map(|i| vec![int(i), int(i % 4)]).collect();
        for n in [0, 1, 13, 60, 61] {
            let items = [constant(int(n))];
            let all = bind(&call(&schema, 2, &items)).unwrap();
            let by = [column(1)];
            let each = bind(&Call {
                by: &by,
                ..call(&schema, 2, &items)
            })
            .unwrap();
            for chunk in CHUNKS {
                assert_eq!(run(&all, &schema, &rows, chunk).rows, rows[(n as usize).min(60)..]);
                let first = (4 * n as usize).min(60);
                assert_eq!(run(&each, &schema, &rows, chunk).rows, rows[first..]);
            }
        }
    }
}
