//! What is written is read, whatever a column holds; and no frame, however wrong, is read beyond what is shared.

use super::*;
use proptest::prelude::*;
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend;
use standpipe_sdk::{Arena, Batch, Bits, Column, Data, Field, ListData, RecordData, Schema};

/// Shared memory, as far as anybody can tell.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Sink for Memory {
    fn start(&mut self, _: usize) -> Result<u64, Stopped> {
        let at = self.0.len().next_multiple_of(64);
        self.0.resize(at, 0xaa);
        Ok(at as u64)
    }

    fn more(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.0.extend(bytes);
        Ok(())
    }
}

struct Loading<'m, 'a> {
    memory: &'m [u8],
    arena: &'a Arena,
}

impl Land for Loading<'_, '_> {
    fn load(&mut self, at: u64, bytes: usize) -> Result<*const c_void, Stopped> {
        let at = usize::try_from(at).map_err(|_| Stopped::Broken)?;
        let end = at.checked_add(bytes).ok_or(Stopped::Broken)?;
        let bytes = self.memory.get(at..end).ok_or(Stopped::Broken)?;
        // As long as was asked for, and no longer: what is read beyond it is seen by valgrind.
        let copy = self.arena.copy(bytes).map_err(|_| Stopped::NoRoom)?;
        Ok(copy.as_ptr().cast())
    }

    fn room(&mut self, bytes: usize) -> Result<*mut c_void, Stopped> {
        let room = self.arena.fill(bytes.max(1), 0u8).map_err(|_| Stopped::NoRoom)?;
        Ok(room.as_mut_ptr().cast())
    }

    fn release(&self) -> ReleaseArray {
        lend::release_marked
    }
}

fn imported<'a>(array: &ArrowArray, fields: &[Field], arena: &'a Arena) -> standpipe_sdk::Result<&'a [Column<'a>]> {
    let importer = Importer {
        arena,
        lent: None,
        arena_release: Some(lend::release_marked),
        all_lasting: false,
    };
    // SAFETY: `read` sees to it that buffers are as long as the lengths say; they are the arena's.
    unsafe { importer.columns(array, fields) }
}

/// A list of up to two numbers in each row, a record, and a text.
fn columns<'a>(rows: &[(Option<i64>, Option<String>, bool)], arena: &'a Arena) -> Vec<Column<'a>> {
    let len = rows.len();
    let bits = |of: &dyn Fn(usize) -> bool| Some(Bits::collect(arena, len, of).unwrap());
    let ints = arena.collect(len, |row| rows[row].0.unwrap_or(0)).unwrap();
    let int = Column::int(ints, bits(&|row| rows[row].0.is_some()));
    let mut text = standpipe_sdk::build::TextBuilder::new(arena, len, 0).unwrap();
    for row in rows {
        match &row.1 {
            Some(value) => text.push(value).unwrap(),
            None => text.push_empty(),
        }
    }
    let text = Column::string(text.finish().unwrap(), bits(&|row| rows[row].1.is_some()));
    let flag = Column::new(
        Data::Bool(Bits::collect(arena, len, |row| rows[row].2).unwrap()),
        None,
        len,
    );
    let mut at = 0i32;
    let offsets = arena
        .collect(len + 1, |row| {
            let before = at;
            at += rows
                .get(row)
                .map_or(0, |row| row.0.map_or(0, |n| n.rem_euclid(3) as i32));
            before
        })
        .unwrap();
    let child = Column::int(arena.collect(at as usize, |i| i as i64 * 7).unwrap(), None);
    let list = ListData {
        offsets,
        child: arena.one(child).unwrap(),
    };
    let list = Column::new(Data::List(list), None, len);
    let fields = arena.copy(&[int, text]).unwrap();
    let record = Column::new(Data::Record(RecordData::new(fields)), bits(&|row| rows[row].2), len);
    vec![int, text, flag, list, record, Column::nulls(len)]
}

/// A value; a record field by field.
fn shown(column: &Column<'_>, row: usize) -> String {
    match column.data() {
        Data::Record(record) if column.is_valid(row) => {
            let fields = (0..record.width()).map(|at| shown(&record.field(at, column.len()), row));
            fields.collect::<Vec<_>>().join(", ")
        }
        Data::List(list) if column.is_valid(row) => list
            .range(row)
            .map(|at| shown(list.child, at))
            .collect::<Vec<_>>()
            .join(" "),
        _ => format!("{:?}", column.cell(row)),
    }
}

fn schema() -> Vec<Field> {
    let int = || Field::new("n", Type::Int, true);
    let text = || Field::new("t", Type::String, true);
    let record: Schema = [int(), text()].into_iter().collect();
    vec![
        int(),
        text(),
        Field::new("b", Type::Bool, false),
        Field::new("l", Type::list(Type::Int, false), false),
        Field::new("r", Type::Record(record), true),
        Field::new("z", Type::Null, true),
    ]
}

fn written(columns: &[Column<'_>], arena: &Arena) -> (Writer, Memory) {
    let fields = schema();
    let types: Vec<Type> = fields.iter().map(|field| field.ty.clone()).collect();
    let refs: Vec<&Type> = types.iter().collect();
    let rows = columns[0].len();
    let array = lend::give(columns, &refs, rows, arena, lend::release_marked).unwrap();
    let (mut frame, mut memory) = (Writer::default(), Memory::default());
    // SAFETY: `give` made it of columns of these types.
    unsafe { write(&array, &types, &mut frame, &mut memory).unwrap() }
    (frame, memory)
}

fn rows() -> impl Strategy<Value = Vec<(Option<i64>, Option<String>, bool)>> {
    let text = prop_oneof!["[a-zä]{0,14}", "[a-z]{20,40}"];
    proptest::collection::vec((any::<Option<i64>>(), proptest::option::of(text), any::<bool>()), 0..40)
}

proptest! {
    #[test]
    fn what_is_written_is_read(rows in rows(), from in 0usize..20) {
        let arena = Arena::new(usize::MAX);
        let all = columns(&rows, &arena);
        let from = from.min(rows.len());
        // A slice too: offsets that do not begin at zero, bits that do not begin at a byte.
        let sliced: Vec<Column<'_>> = all.iter().map(|column| column.slice(from, rows.len() - from)).collect();
        for columns in [&all, &sliced] {
            let (frame, memory) = written(columns, &arena);
            let types: Vec<Type> = schema().into_iter().map(|field| field.ty).collect();
            let mut reader = Reader(&frame.0);
            let array = read(&mut reader, &types, &mut Loading { memory: &memory.0, arena: &arena }).unwrap();
            prop_assert!(reader.0.is_empty());
            let got = imported(&array, &schema(), &arena).unwrap();
            let len = columns[0].len();
            let (got, want) = (Batch::new(got, None, len), Batch::new(columns, None, len));
            for at in 0..want.columns().len() {
                for row in 0..len {
                    prop_assert_eq!(shown(&got.column(at), row), shown(&want.column(at), row));
                }
            }
        }
    }

    #[test]
    fn a_wrong_frame_is_refused_or_read_within_bounds(
        rows in rows(),
        changes in proptest::collection::vec((any::<usize>(), prop_oneof![Just(0u8), Just(255), any::<u8>()]), 1..8),
        cut in any::<Option<usize>>(),
    ) {
        let arena = Arena::new(usize::MAX);
        let columns = columns(&rows, &arena);
        let (mut frame, mut memory) = written(&columns, &arena);
        for (at, byte) in changes {
            let all = frame.0.len() + memory.0.len();
            let at = at % all;
            match frame.0.get_mut(at) {
                Some(slot) => *slot = byte,
                None => { let at = at - frame.0.len(); memory.0[at] = byte; }
            }
        }
        if let Some(cut) = cut {
            let cut = cut % (frame.0.len() + 1);
            frame.0.truncate(cut);
        }
        let types: Vec<Type> = schema().into_iter().map(|field| field.ty).collect();
        let read = read(&mut Reader(&frame.0), &types, &mut Loading { memory: &memory.0, arena: &arena });
        if let Ok(array) = read && let Ok(columns) = imported(&array, &schema(), &arena) {
            for column in columns {
                for row in 0..column.len() {
                    let _ = shown(column, row);
                }
            }
        }
    }
}
