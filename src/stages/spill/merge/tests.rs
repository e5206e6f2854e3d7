use super::super::floors::merge_floor;
use super::*;
use crate::stages::keys::{Key, KeyBlock, Keys};
use crate::stages::testing::{INT, STRING, int, read_all, schema, text};
use crate::stages::values;
use proptest::prelude::*;
use standpipe_sdk::{Arena, Batch, Column, Disk, Schema, Source, Spill, Value};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

type Row = (i64, String);

fn fields() -> Schema {
    schema(&[("n", INT), ("s", STRING)])
}

fn store(folder: &std::path::Path, budget: &Arc<Budget>) -> Arc<Store> {
    Store::in_budget("sort", budget, &Spill::new(Arc::new(Disk::new(folder, None))))
}

fn by_both() -> Keys {
    let key = |column| Key {
        column,
        descending: column == 0,
        nulls_first: false,
    };
    Keys::new(vec![key(0), key(1)])
}

/// Writes `rows`, whose orders are their positions plus `base`, as a segment in calls of `step` rows.
fn spill(store: &Arc<Store>, rows: &[Row], base: u64, step: usize) {
    let mut sorted: Vec<(usize, &Row)> = rows.iter().enumerate().collect();
    sorted.sort_by(|(_, a), (_, b)| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut writer = store.writer().unwrap();
    for part in sorted.chunks(step) {
        let arena = Arena::new(16 << 20);
        let cells: Vec<Vec<Value>> = part.iter().map(|(_, r)| vec![int(r.0), text(&r.1)]).collect();
        let batch = values::batch(&fields(), &cells, &arena).unwrap();
        let keys = by_both().block(&batch, &arena).unwrap();
        let chunks: Vec<u64> = part.iter().map(|(at, _)| base + *at as u64 / 7).collect();
        let numbers: Vec<u32> = part.iter().map(|(at, _)| *at as u32 % 7).collect();
        writer.make_room(&batch, &keys).unwrap();
        writer.append(&batch, &keys, &chunks, &numbers).unwrap();
    }
    writer.keep().unwrap();
}

fn expected(pieces: &[Vec<Row>]) -> Vec<Row> {
    let mut all: Vec<Row> = pieces.concat();
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    all
}

fn rows_of(got: Vec<Vec<Value>>) -> Vec<Row> {
    got.into_iter()
        .map(|row| match &row[..] {
            [Value::Int(n), Value::String(s)] => (*n, s.clone()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn merged(store: &Arc<Store>, budget: &Arc<Budget>, max_rows: usize) -> Vec<Row> {
    let merge = Merge::new(store, budget).unwrap();
    let source: Arc<dyn Source> = Arc::new(Merged::with(merge, 1000, Arc::default()));
    let got = read_all(&source, &fields(), max_rows);
    assert!(
        got.places
            .iter()
            .enumerate()
            .all(|(at, place)| place.offset == at as u64)
    );
    rows_of(got.rows)
}

fn piece(seed: u64, rows: usize, keys: i64) -> Vec<Row> {
    (0..rows as u64)
        .map(|i| {
            let n = crate::stages::keys::hash(&(seed << 32 | i).to_le_bytes());
            let name = format!("name {}", n % 5);
            (
                (n >> 8) as i64 % keys,
                if n.is_multiple_of(3) { name.repeat(9) } else { name },
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn segments_merge_into_one_order(
        pieces in proptest::collection::vec(
            proptest::collection::vec((-3i64..3, "[ab]{0,3}|[a-z]{30}"), 1..60), 0..7),
        step in 1usize..40,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let budget = Budget::new(16 << 20);
        let store = store(folder.path(), &budget);
        for (at, rows) in pieces.iter().enumerate() {
            spill(&store, rows, at as u64 * 100, step);
        }
        prop_assert_eq!(merged(&store, &budget, step), expected(&pieces));
        prop_assert_eq!(budget.used(), 0);
    }
}

#[test]
fn equal_keys_come_in_the_order_of_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(16 << 20);
    let store = store(folder.path(), &budget);
    // Chunks 0, 2, 4 … in one segment, 1, 3, 5 … in the other; the number says which row it is.
    let mut writers = [store.writer().unwrap(), store.writer().unwrap()];
    for chunk in 0..40u64 {
        let arena = Arena::new(1 << 16);
        let values: Vec<i64> = (0..5).map(|row| (chunk * 5 + row) as i64).collect();
        let columns = [Column::int(&values, None)];
        let batch = Batch::new(&columns, None, 5);
        let keys = KeyBlock::every(b"samesamesamesamesame", 4, 5);
        let rows: Vec<u32> = (0..5).collect();
        let writer = &mut writers[chunk as usize % 2];
        writer.append(&batch, &keys, &[chunk; 5], &rows).unwrap();
        drop(arena);
    }
    for mut writer in writers {
        writer.keep().unwrap();
    }
    let merge = Merge::new(&store, &budget).unwrap();
    let source: Arc<dyn Source> = Arc::new(Merged::with(merge, 1000, Arc::default()));
    let got = read_all(&source, &schema(&[("n", INT)]), 7);
    let want: Vec<Vec<Value>> = (0..200).map(|n| vec![int(n)]).collect();
    assert_eq!(got.rows, want);
}

#[test]
fn too_many_segments_for_the_memory_are_merged_in_passes() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(1 << 20);
    let store = store(folder.path(), &budget);
    let pieces: Vec<Vec<Row>> = (0..60).map(|seed| piece(seed, 700, 1000)).collect();
    for (at, rows) in pieces.iter().enumerate() {
        spill(&store, rows, at as u64 * 1000, 500);
    }
    assert_eq!(merged(&store, &budget, 1 << 20), expected(&pieces));
    let done = store.spill().done();
    assert!(done.segments > 60 && done.merged_rows > 60 * 700, "{done:?}");
    assert!(budget.used() == 0 && budget.peak() <= 1 << 20);
}

#[test]
fn segments_that_are_kept_take_none_of_the_memory_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(1 << 20);
    let store = store(folder.path(), &budget);
    let pieces: Vec<Vec<Row>> = (0..1000).map(|seed| piece(seed, 20, 1000)).collect();
    for (at, rows) in pieces.iter().enumerate() {
        spill(&store, rows, at as u64 * 1000, 20);
        assert_eq!(budget.used(), 0);
    }
    // Others leave so little that not even what is known of them is looked at together.
    let mut others = budget.reserve();
    others.grow((1 << 20) - merge_floor(1 << 20)).unwrap();
    assert_eq!(merged(&store, &budget, 1 << 20), expected(&pieces));
    assert!(store.is_empty());
}

#[test]
fn of_segments_that_follow_one_another_the_last_rows_are_left() {
    for most in [0, 1, 20, 21, 1999, 2000, 2001, 5000] {
        let folder = tempfile::tempdir().unwrap();
        let budget = Budget::new(16 << 20);
        let store = store(folder.path(), &budget);
        // Keys ascend from segment to segment.
        let pieces: Vec<Vec<Row>> = (0..100)
            .map(|at| (0..20).map(|row| (-at, format!("{row:02}"))).collect())
            .collect();
        for (at, rows) in pieces.iter().enumerate() {
            spill(&store, rows, at as u64 * 1000, 20);
        }
        let left = (most as usize).div_ceil(20).min(100);
        assert_eq!(store.leave_last(most).unwrap(), left as u64 * 20);
        assert_eq!(merged(&store, &budget, 1 << 20), expected(&pieces[100 - left..]));
    }
}

#[test]
fn runs_of_equal_keys_are_seen_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(16 << 20);
    let store = store(folder.path(), &budget);
    let pieces: Vec<Vec<Row>> = (0..5).map(|seed| piece(seed, 300, 10)).collect();
    for (at, rows) in pieces.iter().enumerate() {
        spill(&store, rows, at as u64 * 1000, 100);
    }
    let mut merge = Merge::new(&store, &budget).unwrap();
    let mut picks = Picks::default();
    let mut groups: Vec<(Vec<u8>, usize)> = vec![];
    loop {
        merge.next(64, &mut picks).unwrap();
        if picks.is_empty() {
            break;
        }
        for at in 0..picks.len() {
            let (frame, row) = picks.row(at);
            assert_eq!(frame.key(row), picks.key(at));
            match groups.last_mut() {
                Some((key, count)) if key == picks.key(at) => *count += 1,
                _ => groups.push((picks.key(at).to_vec(), 1)),
            }
        }
    }
    let mut want = expected(&pieces);
    assert_eq!(groups.iter().map(|g| g.1).sum::<usize>(), want.len());
    want.dedup();
    assert_eq!(groups.len(), want.len());
}

#[test]
fn lanes_that_hold_all_frames_make_others_wait_and_nobody_forever() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(1 << 20);
    let store = store(folder.path(), &budget);
    let pieces: Vec<Vec<Row>> = (0..4).map(|seed| piece(seed, 4000, 1_000_000)).collect();
    for (at, rows) in pieces.iter().enumerate() {
        spill(&store, rows, at as u64 * 1000, 500);
    }
    let merge = Merge::new(&store, &budget).unwrap();
    let source = Arc::new(Merged::with(merge, 1 << 20, Arc::default()));
    let claims: Mutex<Vec<(u64, Vec<Row>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = source.clone().reader().unwrap();
                while let Some(ticket) = source.ticket() {
                    let mut rows = vec![];
                    let mut more = reader.claim(ticket).unwrap();
                    while more {
                        let arena = Arena::new(4 << 20);
                        let part = reader.decode(&arena, 1000, true).unwrap();
                        for row in 0..part.batch.rows() {
                            let cells = part.batch.columns().iter().map(|c| c.cell(row)).collect::<Vec<_>>();
                            let [standpipe_sdk::Cell::Int(n), standpipe_sdk::Cell::String(s)] = cells[..] else {
                                panic!("{cells:?}")
                            };
                            rows.push((n, s.to_string()));
                        }
                        more = !part.last;
                    }
                    claims.lock().unwrap().push((ticket, rows));
                }
            });
        }
    });
    let mut claims = claims.into_inner().unwrap();
    claims.sort_by_key(|c| c.0);
    let got: Vec<Row> = claims.into_iter().flat_map(|c| c.1).collect();
    assert_eq!(got, expected(&pieces));
}

#[test]
fn a_lane_that_is_done_with_its_claim_keeps_no_frames_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(1 << 20);
    let store = store(folder.path(), &budget);
    let pieces: Vec<Vec<Row>> = (0..4).map(|seed| piece(seed, 4000, 1_000_000)).collect();
    for (at, rows) in pieces.iter().enumerate() {
        spill(&store, rows, at as u64 * 1000, 500);
    }
    let cancelled = Arc::new(AtomicBool::new(false));
    let merge = Merge::new(&store, &budget).unwrap();
    let source = Arc::new(Merged::with(merge, 1 << 20, cancelled.clone()));
    let over = AtomicBool::new(false);
    let rows = std::thread::scope(|scope| {
        // Who waits for frames looks at this again and again: so the test fails instead of hanging.
        scope.spawn(|| {
            for _ in 0..2000 {
                std::thread::sleep(Duration::from_millis(10));
                if over.load(SeqCst) {
                    return;
                }
            }
            cancelled.store(true, SeqCst);
        });
        let mut readers: Vec<_> = (0..40).map(|_| source.clone().reader().unwrap()).collect();
        let mut rows = 0;
        let mut turn = 0;
        while let Some(ticket) = source.ticket() {
            let reader = &mut readers[turn % 40];
            turn += 1;
            let mut more = reader.claim(ticket).expect("nobody holds anything");
            while more {
                let arena = Arena::new(4 << 20);
                let part = reader.decode(&arena, 1000, true).unwrap();
                rows += part.batch.rows();
                more = !part.last;
            }
            reader.let_go();
        }
        over.store(true, SeqCst);
        rows
    });
    assert_eq!(rows, 4 * 4000);
}

#[test]
fn passes_make_do_with_less_where_others_take_memory_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    const LIMIT: usize = 2 << 20;
    let budget = Budget::new(LIMIT);
    let store = store(folder.path(), &budget);
    let pieces: Vec<Vec<Row>> = (0..150).map(|seed| piece(seed, 100, 1000)).collect();
    for turn in 0..10 {
        for (at, rows) in pieces.iter().enumerate() {
            spill(&store, rows, at as u64 * 1000, 100);
        }
        let over = AtomicBool::new(false);
        let got = std::thread::scope(|scope| {
            // Takes everything but what two segments need, gives it back, and so on.
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let mut other = budget.reserve();
                    let free = LIMIT.saturating_sub(budget.used());
                    let _ = other.grow(free.saturating_sub(merge_floor(LIMIT)));
                    (0..100).for_each(|_| std::hint::spin_loop());
                    drop(other);
                    (0..100).for_each(|_| std::hint::spin_loop());
                }
            });
            let merge = Merge::new(&store, &budget);
            over.store(true, SeqCst);
            let merge = merge.unwrap_or_else(|error| panic!("turn {turn}: {error}"));
            let source: Arc<dyn Source> = Arc::new(Merged::with(merge, 1000, Arc::default()));
            rows_of(read_all(&source, &fields(), 1000).rows)
        });
        assert_eq!(got, expected(&pieces));
    }
}

#[test]
fn a_damaged_frame_ends_the_merge_with_the_stage_and_the_place() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(16 << 20);
    let store = store(folder.path(), &budget);
    spill(&store, &piece(1, 5000, 1000), 0, 500);
    let len = store.file().raw().metadata().unwrap().len();
    store.file().raw().write_all_at(&[0xFF; 64], len / 2).unwrap();
    let source = Merge::new(&store, &budget).map(|merge| Arc::new(Merged::with(merge, 1000, Arc::default())));
    let failed = source.and_then(|source| {
        let mut reader = source.clone().reader()?;
        while let Some(ticket) = source.ticket() {
            let mut more = reader.claim(ticket)?;
            while more {
                let arena = Arena::new(4 << 20);
                more = !reader.decode(&arena, 1000, true)?.last;
            }
        }
        Ok(())
    });
    let message = failed.unwrap_err().to_string();
    assert!(
        message.contains("`sort` cannot read its spill file in `") && message.contains("at byte "),
        "{message}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_row_longer_than_a_frame_has_room_made_before() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(8 << 20);
    let store = store(folder.path(), &budget);
    let rows = vec![(1, "x".repeat(300_000)), (2, "short".into()), (1, "y".repeat(200_000))];
    spill(&store, &rows, 0, 3);
    assert_eq!(merged(&store, &budget, 10), expected(&[rows]));
    let small = Budget::new(300_000);
    let store = super::super::Store::in_budget("sort", &small, &Spill::anywhere());
    let mut writer = store.writer().unwrap();
    let arena = Arena::new(4 << 20);
    let batch = values::batch(&fields(), &[vec![int(1), text(&"x".repeat(300_000))]], &arena).unwrap();
    let keys = by_both().block(&batch, &arena).unwrap();
    assert!(matches!(writer.make_room(&batch, &keys), Err(Error::Memory { .. })));
}
