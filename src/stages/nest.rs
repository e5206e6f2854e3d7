//! `nest a, b as items by k`: the rows of each group as one row with a list of records; `unnest` the other way.
//!
//! How: a table of groups, `aggregate`'s, collects the records of each group and the place of its first row; what comes out of it,
//! sorted by the keys, goes through a sort by that place. Both spill.
//!
//! Laws
//! - Groups come in the order of their first rows, the records of a group in the order of the input.
//! - Each of the two breakers sets aside what it takes at least before the first row.
//! - A group whose list is longer than `max_record` is an error whatever the memory.

use super::aggregate::{self, Called};
use super::codes::{self, held};
use super::keys::{self, Key};
use super::parts::Parts;
use super::sort;
use super::spill::{lane_floor, merge_floor};
use super::unnest::LEAST_ROOM;
use crate::expr::{Given, aggregate as aggregates};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    AggregateArg, ArgKind, Bound, Call, Complaint, Example, Factory, Item, Items, Kind, Least, Lineage, Make, Memory,
    Names, Room, Setup, StageSpec, Want,
};
use standpipe_sdk::{
    Batch, Breaker, Budget, Column, Columns, Data, Field, Fill, Flow, RecordData, Reservation, Schema, Source, Span,
    Type,
};
use std::sync::Arc;

/// `nest`.
pub const SPEC: StageSpec = StageSpec {
    name: "nest",
    about: "The rows of each group as one row with a list of records; groups come in the order of their first rows, nulls are one group",
    kind: Kind::Breaker,
    items: Items {
        names: Names::Optional,
        ..Items::some(
            ArgKind::Expr(Want::Any),
            0,
            usize::MAX,
            "the fields of the records; without any, all columns that are no keys",
        )
    },
    by: Items {
        names: Names::Optional,
        ..Items::some(
            ArgKind::Expr(Want::Any),
            1,
            usize::MAX,
            "what makes a group: the columns before the list",
        )
    },
    as_name: Some("the name of the list; needed"),
    memory: Memory::Spill,
    least,
    examples: &[
        Example {
            script: r#"from rows [{id: 2, sku: "a", n: 1}, {id: 1, sku: "b", n: 3}, {id: 2, sku: "c", n: 4}] | nest as lines by id"#,
            output: "id,lines\n2,\"[{\"\"sku\"\":\"\"a\"\",\"\"n\"\":1},{\"\"sku\"\":\"\"c\"\",\"\"n\"\":4}]\"\n1,\"[{\"\"sku\"\":\"\"b\"\",\"\"n\"\":3}]\"\n",
        },
        Example {
            script: r#"from rows [{id: 2, n: 1}, {id: 2, n: 4}] | nest n, twice = n * 2 as lines by id | unnest lines as l | flatten l"#,
            output: "id,n,twice\n2,1,2\n2,4,8\n",
        },
    ],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let by = keys::groups(call, &mut complaints);
    let key_fields = fields(call, call.by, &mut complaints);
    let others: Vec<Item>;
    let items = match call.items {
        [] => {
            others = columns_beside(call, &by);
            &others
        }
        items => items,
    };
    if items.is_empty() {
        complaints.push(Complaint::new(
            codes::NOTHING_LEFT,
            call.span,
            "the records of `nest` would have no fields",
            "every column is a key",
        ));
    }
    let record = fields(call, items, &mut complaints);
    let name = call.as_name.unwrap_or_default();
    if call.as_name.is_none() {
        let missing = Complaint::new(
            codes::NEEDS_AS,
            call.span,
            "`nest` needs a name for the list",
            "the name is missing",
        );
        complaints.push(missing.help("`nest a, b as items by k`"));
    }
    if let (true, Some(item)) = (key_fields.iter().any(|field| &*field.name == name), call.by.first()) {
        complaints.push(Complaint::new(
            codes::SAME_NAME_TWICE,
            item.span,
            format!("two columns are called `{name}`"),
            "the list needs a name of its own",
        ));
    }
    let columns: Vec<usize> = items.iter().filter_map(|item| Some(call.column_of(item)?.0)).collect();
    let record = Type::Record(Schema::new(record));
    let collected = called("collect", &record, call.input.width() + RECORD, call.span);
    let first = called("min", &PLACE_TYPE, call.input.width() + PLACE, call.span);
    let (Some(collected), Some(first), true) = (collected, first, complaints.is_empty()) else {
        return Err(complaints);
    };
    let list = Field::new(name, Type::list(record, false), false);
    let schema: Schema = key_fields.iter().cloned().chain([list]).collect();
    let reads = by.iter().chain(&columns).copied().collect();
    let span = call.span;
    let keys = by.len();
    let groups = aggregate::breaker("nest", by, key_fields, vec![first, collected]);
    // Keys, list, place.
    let in_order = sort::breaker(
        "nest",
        vec![Key::ascending(keys + 1)],
        keys::max_width([&PLACE_TYPE]),
        keys + 1,
    );
    let in_order: Arc<Factory<Arc<dyn Breaker>>> = Arc::new(in_order);
    let make = move |setup: &Setup| -> Result<Arc<dyn Breaker>> {
        let floors = aggregate::least_of(setup.budget.limit(), setup.workers.max(1));
        let for_groups = with_floor(setup, floors.takes)?;
        Ok(Arc::new(Nest {
            groups: groups(&for_groups)?,
            of_groups: for_groups.budget,
            gives: floors.takes.max(floors.gives),
            in_order: in_order.clone(),
            columns: columns.clone(),
            keys,
            setup: setup.clone(),
            span,
        }))
    };
    Ok(Bound {
        lineage: vec![Lineage::New; schema.width()],
        schema,
        reads,
        sorted_by: vec![],
        make: Make::Breaker(Box::new(make)),
        needs_places: false,
    })
}

/// What stands behind the columns of a row on its way into the groups: its place, and its record.
const PLACE: usize = 0;
const RECORD: usize = 1;
/// A place has more bits than an int: those of a chunk's number, and those of a row's.
const PLACE_TYPE: Type = Type::Decimal {
    precision: 38,
    scale: 0,
};

/// The fields that items make, each with a name of its own.
fn fields(call: &Call<'_>, items: &[Item], complaints: &mut Vec<Complaint>) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![];
    for item in items {
        let Some((_, field)) = call.column_of(item) else {
            continue;
        };
        let name = item.name.as_ref().unwrap_or(&field.name);
        if fields.iter().any(|other| other.name == *name) {
            complaints.push(Complaint::new(
                codes::SAME_NAME_TWICE,
                item.span,
                format!("two columns are called `{name}`"),
                "the second one",
            ));
        }
        fields.push(Field::new(name.clone(), field.ty.clone(), field.nullable));
    }
    fields
}

/// The stream's own columns that are no keys.
fn columns_beside(call: &Call<'_>, by: &[usize]) -> Vec<Item> {
    let item = |at| Item {
        name: None,
        arg: standpipe_sdk::spec::Arg::Column(at),
        descending: false,
        span: call.span,
    };
    (0..call.own).filter(|at| !by.contains(at)).map(item).collect()
}

/// An aggregate of column `column`; there always is one.
fn called(name: &str, ty: &Type, column: usize, span: Span) -> Option<Called> {
    let given = Given {
        ty,
        nullable: false,
        value: None,
        regex: None,
    };
    let aggregate = aggregates(name).find_map(|spec| (spec.bind)(&[given]).ok())?;
    Some(Called {
        arg: AggregateArg {
            aggregate,
            columns: vec![column],
            filter: None,
            nullable: false,
        },
        span,
    })
}

/// What the groups take, and then a way out of them into a sort, which gives its rows once they are gone.
fn least(room: &Room) -> Least {
    let groups = aggregate::least(room);
    let merge = merge_floor(room.bytes);
    let way = lane_floor(room.bytes) + LEAST_ROOM;
    Least {
        takes: groups.takes + room.workers * PLACES_BYTES,
        gives: (groups.takes.max(groups.gives) + way).max(merge),
    }
}

fn with_floor(setup: &Setup, bytes: usize) -> Result<Setup> {
    setup.with_floor(bytes).map_err(|e| held("nest", e))
}

/// Rows that are given their places at a time, and what those of a lane take.
const PLACES: usize = 2 << 10;
const PLACES_BYTES: usize = PLACES * size_of::<i128>();

struct Nest {
    /// Rows by key.
    groups: Arc<dyn Breaker>,
    /// Makes what sorts groups by their first row.
    in_order: Arc<Factory<Arc<dyn Breaker>>>,
    /// The groups' part of the memory, and what they cannot do without when they are given.
    of_groups: Arc<Budget>,
    gives: usize,
    /// The columns that make a record.
    columns: Vec<usize>,
    keys: usize,
    setup: Setup,
    span: Span,
}

impl Breaker for Nest {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let mut reservation = self.setup.budget.reserve();
        reservation.set_aside(PLACES_BYTES).map_err(|e| held("nest", e))?;
        Ok(Box::new(Nester {
            filler: self.groups.clone().filler()?,
            chunk: 0,
            before: 0,
            places: vec![],
            reservation,
            nest: self,
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        // What is new comes first: the groups may have all the rest, and can do with less.
        let bytes = self.setup.budget.limit();
        let for_sort = with_floor(&self.setup, lane_floor(bytes))?;
        let for_parts = with_floor(&self.setup, LEAST_ROOM)?;
        let mut parts = Parts::new(&for_parts.budget, LEAST_ROOM).map_err(|e| held("nest", e))?;
        let sorted = (self.in_order)(&for_sort)?;
        let mut filler = sorted.clone().filler()?;
        self.of_groups.set_floor(self.gives).map_err(|e| held("nest", e))?;
        let groups = self.groups.clone().drain()?;
        let mut number = 0;
        parts
            .each(&groups, |rows, arena| {
                let (place, list) = (rows.column(self.keys), rows.column(self.keys + 1));
                self.is_short(&list)?;
                let mut columns = Columns::new(arena, self.keys + 2)?;
                rows.columns()[..self.keys].iter().for_each(|&key| columns.push(key));
                columns.push(list);
                columns.push(place);
                filler.push(number, Batch::new(columns.finish(), None, rows.rows()))?;
                number += 1;
                Ok(Flow::More)
            })
            .map_err(|e| held("nest", e))?;
        drop((groups, parts, for_parts));
        filler.done()?;
        drop(filler);
        let moved = (self.of_groups.set_floor(0)).and_then(|()| for_sort.budget.set_floor(merge_floor(bytes)));
        moved.map_err(|e| held("nest", e))?;
        sorted.drain()
    }
}

impl Nest {
    /// Says so if a list is too long for a record.
    fn is_short(&self, lists: &Column<'_>) -> Result<()> {
        let most = self.setup.max_record;
        if lists.copy_bytes() <= most {
            return Ok(());
        }
        let bytes = |row| lists.slice(row, 1).copy_bytes();
        match (0..lists.len()).map(bytes).find(|&bytes| bytes > most) {
            None => Ok(()),
            Some(bytes) => Err(Error::Failed {
                code: codes::OVERLONG,
                message: format!("`nest` makes a list of {bytes} bytes of one group, and a record has at most {most}"),
                help: Some("fewer fields, keys that make smaller groups, or a larger `max_record`".into()),
                span: Some(self.span),
            }),
        }
    }
}

/// One lane's way into the groups.
struct Nester {
    nest: Arc<Nest>,
    filler: Box<dyn Fill>,
    chunk: u64,
    /// Rows of the chunk so far.
    before: u64,
    /// The places of a batch's rows.
    places: Vec<i128>,
    reservation: Reservation,
}

impl Fill for Nester {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        let rows = batch.rows();
        if self.chunk != chunk {
            (self.chunk, self.before) = (chunk, 0);
        }
        let mut from = 0;
        while from < rows {
            let len = PLACES.min(rows - from);
            self.places.clear();
            if self.places.capacity() < PLACES {
                let room = self.reservation.room_to(&mut self.places, PLACES);
                room.map_err(|e| held("nest", e))?;
            }
            let before = self.before;
            self.places
                .extend((0..len as u64).map(|row| place(chunk, before + row)));
            self.before += len as u64;
            let own: Vec<Column<'_>> = batch.columns().iter().map(|column| column.slice(from, len)).collect();
            let fields: Vec<Column<'_>> = self.nest.columns.iter().map(|&at| own[at]).collect();
            let mut columns = own.clone();
            columns.push(Column::new(Data::Decimal(&self.places), None, len));
            columns.push(Column::new(Data::Record(RecordData::new(&fields)), None, len));
            self.filler.push(chunk, Batch::new(&columns, None, len))?;
            from += len;
        }
        Ok(())
    }

    fn done(&mut self) -> Result<()> {
        self.filler.done()?;
        self.reservation.free(&mut self.places);
        Ok(())
    }
}

/// A number that ascends with the rows of the input: less than 2^112, which 38 digits hold.
fn place(chunk: u64, row: u64) -> i128 {
    const ROW_BITS: u32 = 48;
    i128::from(chunk) << ROW_BITS | i128::from(row)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;
    use standpipe_sdk::Value;

    fn columns() -> Schema {
        schema(&[("k", STRING), ("n", INT), ("s", STRING), ("f", Type::Float)])
    }

    fn bound(items: &[Item], by: &[Item]) -> Bound {
        bind(&Call {
            by,
            as_name: Some("items"),
            ..call(&columns(), 4, items)
        })
        .unwrap()
    }

    /// Each row compared with all groups so far.
    fn slow(rows: &Rows, by: &[usize], fields: &[(&str, usize)]) -> Rows {
        let mut groups: Vec<(Vec<Value>, Vec<Value>)> = vec![];
        for row in rows {
            let key: Vec<Value> = by.iter().map(|&at| row[at].clone()).collect();
            let record = fields.iter().map(|&(name, at)| (name.to_owned(), row[at].clone()));
            let record = Value::Record(record.collect());
            match groups.iter_mut().find(|group| group.0 == key) {
                Some(group) => group.1.push(record),
                None => groups.push((key, vec![record])),
            }
        }
        let row = |(key, list): (Vec<Value>, Vec<Value>)| key.into_iter().chain([Value::List(list)]).collect();
        groups.into_iter().map(row).collect()
    }

    fn row() -> impl Strategy<Value = Vec<Value>> {
        let words = ["", "a", "\u{0}", "a text that is longer than a view holds"];
        let word = || prop_oneof![1 => Just(NULL), 6 => proptest::sample::select(words.map(text).to_vec())];
        let float = prop_oneof![Just(NULL), Just(Value::Float(1.5)), Just(Value::Float(-2.0))];
        (word(), 0..4i64, word(), float).prop_map(|(k, n, s, f)| vec![k, int(n), s, f])
    }

    proptest! {
        #[test]
        fn groups_come_as_their_first_rows_whatever_is_spilled(
            rows in proptest::collection::vec(row(), 0..60),
            which in 0usize..3,
            chunk in 0usize..4,
            every in 1usize..30,
        ) {
            let by = [&[0][..], &[1], &[1, 0]][which];
            let keys: Vec<Item> = by.iter().map(|&at| column(at)).collect();
            let names = ["k", "n", "s", "f"];
            let beside: Vec<(&str, usize)> = (0..4).filter(|at| !by.contains(at)).map(|at| (names[at], at)).collect();
            let bound = bound(&[], &keys);
            let want = slow(&rows, by, &beside);
            let got = run(&bound, &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(&got.rows, &want);
            prop_assert!(got.places.iter().enumerate().all(|(at, place)| place.offset == at as u64));
            prop_assert_eq!(run_spilling(&bound, &columns(), &rows, CHUNKS[chunk], every).rows, want);
        }
    }

    #[test]
    fn places_ascend_through_all_chunks() {
        // A chunk's number has that of its claim in the upper bits; the next claim but 255, and a long chunk before it.
        let chunks = [0, 1, 1 << 24, 255 << 24, 256 << 24, (256 << 24) + 1, 1 << 40, u64::MAX];
        let places: Vec<i128> = chunks
            .iter()
            .flat_map(|&chunk| [0, 1, u64::from(u32::MAX), 1 << 40].map(|row| place(chunk, row)))
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b));
        assert!(places.iter().all(|&place| place >= 0 && place < 10i128.pow(38)));
    }

    #[test]
    fn fields_may_be_named_and_computed() {
        let items = [item("twice", 1), column(2)];
        let by = [item("key", 0)];
        let bound = bound(&items, &by);
        assert_eq!(
            bound.schema.to_string(),
            "key: string?, items: list<{twice: int?, s: string?}>"
        );
        let rows: Rows = (0..20)
            .map(|i| vec![text(&format!("{}", i % 3)), int(i), text("x"), NULL])
            .collect();
        let want = slow(&rows, &[0], &[("twice", 1), ("s", 2)]);
        assert_eq!(run(&bound, &columns(), &rows, 7).rows, want);
    }

    #[test]
    fn what_does_not_fit_is_spilled_and_a_group_too_long_for_a_record_is_an_error() {
        let row = |i: i64, k: i64| {
            let s = format!("a text of some length, so that rows are long: {i}");
            vec![text(&format!("{k}")), int(i), text(&s), NULL]
        };
        let bound = bound(&[column(1), column(2)], &[column(0)]);
        let rows: Rows = (0..20_000).map(|i| row(i, i * 7919 % 5_000)).collect();
        let want = run(&bound, &columns(), &rows, 1000).rows;
        assert_eq!(want.len(), 5_000);
        // The records take 2 MB, the table that collects them more.
        for limit in [1_800_000, 2_500_000, 4_000_000] {
            assert_eq!(
                try_run(&bound, &columns(), &rows, 1000, limit).unwrap().rows,
                want,
                "{limit}"
            );
        }
        // One MiB in tests.
        let hot: Rows = (0..20_000).map(|i| row(i, 1)).collect();
        let error = try_run(&bound, &columns(), &hot, 1000, 64 << 20)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("the list of 20000 values takes ") && error.contains("1048576"),
            "{error}"
        );
    }

    #[test]
    fn a_list_of_a_good_part_of_the_memory_goes_to_disk_without_a_copy() {
        // Every other row is of one group, whose list is about a quarter of the memory.
        let row = |i: i64| {
            let k = if i % 2 == 0 { -1 } else { i };
            vec![
                text(&format!("{k}")),
                int(i),
                text(&format!("a text of some length: {i}")),
                NULL,
            ]
        };
        let rows: Rows = (0..24_000).map(row).collect();
        let bound = bound(&[column(1), column(2)], &[column(0)]);
        let want = run(&bound, &columns(), &rows, 1000).rows;
        assert_eq!(want.len(), 12_001);
        for limit in [3_000_000, 3_500_000, 4_000_000, 4_500_000] {
            let got = try_run(&bound, &columns(), &rows, 1000, limit);
            assert_eq!(got.map_err(|e| e.to_string()).unwrap().rows, want, "{limit}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_arguments() {
        let columns = columns();
        let by = [column(0)];
        let codes = |items: &[Item], by: &[Item], as_name: Option<&str>| {
            codes_of(bind(&Call {
                by,
                as_name,
                ..call(&columns, 4, items)
            }))
        };
        assert_eq!(codes(&[], &by, None), [codes::NEEDS_AS]);
        assert_eq!(codes(&[], &by, Some("k")), [codes::SAME_NAME_TWICE]);
        assert_eq!(
            codes(&[column(1), item("n", 2)], &by, Some("l")),
            [codes::SAME_NAME_TWICE]
        );
        let all: Vec<Item> = (0..4).map(column).collect();
        assert_eq!(codes(&[], &all, Some("l")), [codes::NOTHING_LEFT]);
        let json = schema(&[("j", Type::Json), ("n", INT)]);
        let by = [column(0)];
        let wrong = bind(&Call {
            by: &by,
            as_name: Some("l"),
            ..call(&json, 2, &[])
        });
        assert_eq!(codes_of(wrong), [codes::NO_KEY]);
    }
}
