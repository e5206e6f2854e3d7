//! `pivot key: k value: sum(v) columns: ["a", "b"] by g`: rows become columns: `aggregate a = sum(v, where: k == "a"), b = …  by g`.
//!
//! The host writes it so; from there on it is `aggregate`, with all its laws.

use super::aggregate;
use standpipe_sdk::spec::{ArgKind, Example, Items, Kind, Memory, Names, Order, Param, Spread, StageSpec, Want};

/// `pivot`.
pub const SPEC: StageSpec = StageSpec {
    name: "pivot",
    about: "One row per group, sorted by the groups, with a column for each value of a key that `columns:` lists; rows with other keys count nowhere, but their groups are there",
    kind: Kind::Breaker,
    by: Items {
        names: Names::Optional,
        ..Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group")
    },
    options: &[
        option("key", Spread::Key, "what tells the columns apart, an expression"),
        option(
            "value",
            Spread::Each,
            "an expression over aggregates of the rows that have the column's key",
        ),
        option(
            "columns",
            Spread::Values,
            "the keys that become columns, in that order: `[a, \"b c\", 7]`; each names its column",
        ),
    ],
    order: Order::Creates,
    memory: Memory::Spill,
    least: aggregate::least,
    examples: &[
        Example {
            script: r#"from rows [{g: "y", k: "a", v: 1}, {g: "x", k: "b", v: 2}, {g: "y", k: "a", v: 3}, {g: "z", k: "c", v: 4}] | pivot key: k value: sum(v) columns: [a, b] by g"#,
            output: "g,a,b\nx,,2\ny,4,\nz,,\n",
        },
        Example {
            script: "from range(1, 10) | pivot key: value % 3 value: count() columns: [0, 1]",
            output: "0,1\n3,4\n",
        },
    ],
    bind: &|call| aggregate::bind_as("pivot", call),
    ..StageSpec::BASE
};

const fn option(name: &'static str, what: Spread, about: &'static str) -> Param {
    Param {
        required: true,
        ..Param::new(name, ArgKind::Spread(what), None, about)
    }
}
