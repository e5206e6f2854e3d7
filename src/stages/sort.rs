//! `sort -a, b nulls: first`: all rows in another order, in memory.
//!
//! Each lane keeps its batches and, per row, an entry: the first 16 bytes of the key, and where the row is. Longer keys keep the
//! rest beside the batch. A lane sorts its entries when it is done; the drain merges them into one list of rows, and claims
//! of that list are gathered in parallel.
//!
//! Laws
//! - Rows with equal keys keep the order of their chunks: entries compare by (key, chunk, batch, row).
//! - Everything is reserved before it is allocated: a refusal names the stage and leaves it as it was.
//! - A row's place behind a sort is its number in the output.

use super::codes::{self, held};
use super::groups::{grow, grow_to};
use super::keys::{self, Key, Keys};
use super::picked::{PIECE_BYTES, Picked};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, Example, Factory, Items, Kind, Make, Memory, Order, Param, Setup, StageSpec,
};
use standpipe_sdk::{Batch, Breaker, Budget, Fill, Kept, Reservation, Source};
use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// `sort`.
pub const SPEC: StageSpec = StageSpec {
    name: "sort",
    about: "Orders rows by keys, `-` turning one round; equal rows keep their order",
    kind: Kind::Breaker,
    items: Items::some(ArgKind::Key, 1, usize::MAX, "keys, the most significant first"),
    options: &[Param::new(
        "nulls",
        ArgKind::Word,
        Some("last"),
        "where nulls stand, `first` or `last`, whatever the direction",
    )],
    order: Order::Creates,
    memory: Memory::Held,
    examples: &[
        Example {
            script: r#"from rows [{k: "b", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | sort -k, n"#,
            output: "k,n\nb,1\nb,3\na,2\n",
        },
        Example {
            script: "from rows [{id: 1, n: 2}, {id: 2, n: null}, {id: 3, n: 1}] | sort n nulls: first",
            output: "id,n\n2,\n3,1\n1,2\n",
        },
    ],
    bind: &bind,
    limited: super::top::of_sort,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let nulls_first = match call.option("nulls") {
        None => false,
        Some(option) => match &option.arg {
            Arg::Word(word) if matches!(&**word, "first" | "last") => &**word == "first",
            _ => {
                complaints.push(Complaint::new(
                    codes::WRONG_ARGUMENT,
                    option.span,
                    "`nulls:` is `first` or `last`",
                    "neither of them",
                ));
                false
            }
        },
    };
    let reads = keys::ordered(call, call.items).unwrap_or_else(|mut more| {
        complaints.append(&mut more);
        vec![]
    });
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let keys: Vec<Key> = reads
        .iter()
        .zip(call.items)
        .map(|(&column, item)| Key {
            column,
            descending: item.descending,
            nulls_first,
        })
        .collect();
    let types = reads.iter().filter_map(|&at| call.input.get(at)).map(|f| &f.ty);
    let short = keys::max_width(types).is_some_and(|bytes| bytes <= PREFIX_BYTES);
    let own = call.own;
    let known = keys.iter().take_while(|key| key.column < own);
    let sorted_by = known.map(|key| (key.column, key.descending)).collect();
    let make = breaker("sort", keys, short, own);
    let mut bound = Bound::keeps(call, reads, Make::Breaker(make));
    bound.sorted_by = sorted_by;
    Ok(bound)
}

/// All rows in the order of `keys`, which take no more than an entry if they are `short`; the first `own` columns of them are passed on.
/// `stage` is who says that something does not fit.
pub(super) fn breaker(stage: &'static str, keys: Vec<Key>, short: bool, own: usize) -> Factory<Arc<dyn Breaker>> {
    Box::new(move |setup: &Setup| {
        Ok(Arc::new(Sort {
            stage,
            keys: Keys::new(keys.clone()),
            short,
            own,
            budget: setup.budget.clone(),
            chunk_bytes: setup.chunk_bytes,
            lanes: Mutex::default(),
        }))
    })
}

/// Bytes of a key that an entry holds itself.
const PREFIX_BYTES: usize = 16;

struct Sort {
    stage: &'static str,
    keys: Keys,
    /// Every key fits into an entry.
    short: bool,
    own: usize,
    budget: Arc<Budget>,
    chunk_bytes: usize,
    lanes: Mutex<Vec<Lane>>,
}

/// A row: 16 bytes of its key as numbers, its batch and its number in it.
#[derive(Clone, Copy)]
struct Entry {
    prefix: [u64; 2],
    piece: u32,
    row: u32,
}

/// A batch that is kept, and what its rows' keys have behind the prefix.
struct Piece {
    rows: Kept,
    chunk: u64,
    tails: Tails,
}

#[derive(Default)]
struct Tails {
    bytes: Vec<u8>,
    /// Where row `r`'s tail ends; empty if all keys are short.
    ends: Vec<u32>,
}

impl Tails {
    fn get(&self, row: u32) -> &[u8] {
        let row = row as usize;
        let start = if row == 0 {
            0
        } else {
            self.ends.get(row - 1).map_or(0, |&e| e as usize)
        };
        let end = self.ends.get(row).map_or(0, |&e| e as usize);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// What one lane has collected.
struct Lane {
    entries: Vec<Entry>,
    pieces: Vec<Piece>,
    /// For the kept rows: lives as long as the sorted source.
    kept: Reservation,
    /// For entries and tails: given back once the order is known.
    extra: Reservation,
}

impl Breaker for Sort {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let lane = Lane {
            entries: vec![],
            pieces: vec![],
            kept: self.budget.reserve(),
            extra: self.budget.reserve(),
        };
        Ok(Box::new(Filler {
            lane: Some(lane),
            key: vec![],
            sort: self,
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let sorted = merge(lanes, &self.budget, self.chunk_bytes, self.own).map_err(|e| held(self.stage, e))?;
        Ok(Arc::new(sorted))
    }
}

struct Filler {
    sort: Arc<Sort>,
    /// `None` once it is done.
    lane: Option<Lane>,
    key: Vec<u8>,
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        let Some(lane) = &mut self.lane else {
            return Ok(());
        };
        if batch.rows() == 0 {
            return Ok(());
        }
        lane.take(&self.sort, chunk, &batch, &mut self.key)
            .map_err(|e| held(self.sort.stage, e))
    }

    fn done(&mut self) -> Result<()> {
        let Some(mut lane) = self.lane.take() else {
            return Ok(());
        };
        self.key = vec![];
        let Lane { entries, pieces, .. } = &mut lane;
        entries.sort_unstable_by(|a, b| compare(a, &pieces[a.piece as usize], b, &pieces[b.piece as usize]));
        self.sort
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(lane);
        Ok(())
    }
}

impl Lane {
    fn take(&mut self, sort: &Sort, chunk: u64, batch: &Batch<'_>, key: &mut Vec<u8>) -> Result<()> {
        let rows = batch.rows();
        let too_many = || Error::Memory {
            wanted: rows,
            used: self.pieces.len(),
            limit: u32::MAX as usize,
        };
        let piece = u32::try_from(self.pieces.len()).map_err(|_| too_many())?;
        let kept = batch.with_columns(&batch.columns()[..sort.own]);
        // The places are those of the output: the input's are not kept.
        let kept = Batch::new(kept.columns(), None, rows);
        let bytes = kept.copy_bytes();

        // All room first; entries are taken back if what follows them is refused.
        grow(&mut self.entries, rows, &mut self.extra)?;
        grow(&mut self.pieces, 1, &mut self.extra)?;
        let before = self.entries.len();
        let charged = self.extra.bytes();
        let made = self.encode(sort, batch, piece, key).and_then(|tails| {
            self.kept.grow(bytes + PIECE_BYTES)?;
            let copy = Kept::copy(&kept, bytes);
            if copy.is_err() {
                self.kept.shrink(bytes + PIECE_BYTES);
            }
            Ok((tails, copy?))
        });
        match made {
            Ok((tails, rows)) => {
                self.pieces.push(Piece { rows, chunk, tails });
                Ok(())
            }
            Err(error) => {
                self.entries.truncate(before);
                self.extra.shrink(self.extra.bytes() - charged);
                Err(error)
            }
        }
    }

    /// Adds the entries of a batch, for which there is room, and gives the tails of their keys.
    fn encode(&mut self, sort: &Sort, batch: &Batch<'_>, piece: u32, key: &mut Vec<u8>) -> Result<Tails> {
        let mut tails = Tails::default();
        if !sort.short {
            grow_to(&mut tails.ends, batch.rows(), &mut self.extra)?;
        }
        for row in 0..batch.rows() {
            key.clear();
            sort.keys.encode(batch.columns(), row, key)?;
            let (head, tail) = key.split_at(key.len().min(PREFIX_BYTES));
            let mut prefix = [0u8; PREFIX_BYTES];
            prefix[..head.len()].copy_from_slice(head);
            let prefix = u128::from_be_bytes(prefix);
            self.entries.push(Entry {
                prefix: [(prefix >> 64) as u64, prefix as u64],
                piece,
                row: row as u32,
            });
            if !sort.short {
                grow(&mut tails.bytes, tail.len(), &mut self.extra)?;
                tails.bytes.extend_from_slice(tail);
                let end = u32::try_from(tails.bytes.len()).map_err(|_| Error::Memory {
                    wanted: tail.len(),
                    used: tails.bytes.len(),
                    limit: u32::MAX as usize,
                })?;
                tails.ends.push(end);
            }
        }
        Ok(tails)
    }
}

/// By (key, chunk, batch, row). Batches of one chunk are in one lane, so their numbers compare.
fn compare(a: &Entry, in_a: &Piece, b: &Entry, in_b: &Piece) -> Ordering {
    a.prefix
        .cmp(&b.prefix)
        .then_with(|| in_a.tails.get(a.row).cmp(in_b.tails.get(b.row)))
        .then_with(|| (in_a.chunk, a.piece, a.row).cmp(&(in_b.chunk, b.piece, b.row)))
}

/// One list of all rows, and the batches they are in.
fn merge(mut lanes: Vec<Lane>, budget: &Arc<Budget>, chunk_bytes: usize, width: usize) -> Result<Picked> {
    lanes.retain(|lane| !lane.entries.is_empty());
    let rows: usize = lanes.iter().map(|l| l.entries.len()).sum();
    let mut reservation = budget.reserve();
    let mut order: Vec<Pick> = vec![];
    grow_to(&mut order, rows, &mut reservation)?;
    let mut bases = vec![];
    let mut pieces = 0usize;
    for lane in &lanes {
        bases.push(pieces as u32);
        pieces += lane.pieces.len();
    }
    // A heap of the lanes by their next entries: `heap[0]` holds the least.
    let mut heap: Vec<usize> = (0..lanes.len()).collect();
    let mut next = vec![0usize; lanes.len()];
    let less = |a: usize, b: usize, next: &[usize]| match (lanes[a].entries.get(next[a]), lanes[b].entries.get(next[b]))
    {
        (Some(x), Some(y)) => {
            compare(
                x,
                &lanes[a].pieces[x.piece as usize],
                y,
                &lanes[b].pieces[y.piece as usize],
            ) == Ordering::Less
        }
        (x, _) => x.is_some(),
    };
    let sift = |heap: &mut Vec<usize>, mut at: usize, next: &[usize]| {
        loop {
            let least = [2 * at + 1, 2 * at + 2]
                .into_iter()
                .filter(|&child| child < heap.len())
                .fold(at, |least, child| {
                    if less(heap[child], heap[least], next) {
                        child
                    } else {
                        least
                    }
                });
            if least == at {
                break;
            }
            heap.swap(at, least);
            at = least;
        }
    };
    for at in (0..heap.len() / 2).rev() {
        sift(&mut heap, at, &next);
    }
    for _ in 0..rows {
        let lane = heap[0];
        let entry = lanes[lane].entries[next[lane]];
        order.push((bases[lane] + entry.piece, entry.row));
        next[lane] += 1;
        sift(&mut heap, 0, &next);
    }

    let mut kept = vec![];
    grow_to(&mut kept, pieces, &mut reservation)?;
    let mut reservations = vec![reservation];
    for lane in lanes {
        kept.extend(lane.pieces.into_iter().map(|piece| piece.rows));
        reservations.push(lane.kept);
    }
    Ok(Picked::new(kept, order, width, chunk_bytes, reservations))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::Item;
    use standpipe_sdk::{Arena, Column, Data, Schema, Type, Value};

    fn rows() -> (Schema, Rows) {
        let schema = schema(&[
            ("id", INT),
            ("f", Type::Float),
            ("s", STRING),
            ("l", Type::list(INT, true)),
        ]);
        let floats = [1.5, -0.0, f64::NAN, 0.0, -3.0];
        let rows = (0..500)
            .map(|i: i64| {
                let float = if i % 11 == 4 {
                    NULL
                } else {
                    Value::Float(floats[(i * 7 % 5) as usize])
                };
                let name = if i % 13 == 2 {
                    NULL
                } else {
                    text(&format!("a rather long name, number {}", i * 31 % 17))
                };
                vec![int(i), float, name, Value::List((0..i % 3).map(int).collect())]
            })
            .collect();
        (schema, rows)
    }

    fn rank(value: &Value, nulls_first: bool) -> u8 {
        match value {
            Value::Null if nulls_first => 0,
            Value::Null => 3,
            Value::Float(v) if v.is_nan() => 2,
            _ => 1,
        }
    }

    fn slow(rows: &Rows, keys: &[(usize, bool)], nulls_first: bool) -> Vec<i64> {
        let mut sorted = rows.clone();
        sorted.sort_by(|a, b| {
            keys.iter().fold(Ordering::Equal, |order, &(at, descending)| {
                order.then_with(|| {
                    let (a, b) = (&a[at], &b[at]);
                    let order = match (a, b) {
                        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
                        (Value::String(a), Value::String(b)) => a.cmp(b),
                        (Value::Int(a), Value::Int(b)) => a.cmp(b),
                        _ => Ordering::Equal,
                    };
                    let order = if descending { order.reverse() } else { order };
                    rank(a, nulls_first).cmp(&rank(b, nulls_first)).then(order)
                })
            })
        });
        ids(&sorted)
    }

    fn ids(rows: &Rows) -> Vec<i64> {
        rows.iter()
            .map(|row| {
                if let Value::Int(id) = row[0] {
                    id
                } else {
                    panic!("an int")
                }
            })
            .collect()
    }

    fn keyed(keys: &[(usize, bool)]) -> Vec<Item> {
        keys.iter()
            .map(|&(at, descending)| Item {
                descending,
                ..column(at)
            })
            .collect()
    }

    #[test]
    fn the_order_is_the_languages_and_stable_whatever_the_lanes_and_chunks() {
        let (schema, rows) = rows();
        for keys in [
            &[(1, false)][..],
            &[(1, true)],
            &[(2, false)],
            &[(2, true), (1, false)],
            &[(1, true), (2, true)],
        ] {
            for first in [false, true] {
                let options = [(
                    "nulls",
                    argument(None, Arg::Word(if first { "first" } else { "last" }.into())),
                )];
                let items = keyed(keys);
                let bound = bind(&Call {
                    options: &options,
                    ..call(&schema, 4, &items)
                })
                .unwrap();
                assert_eq!(bound.sorted_by, keys);
                let want = slow(&rows, keys, first);
                for chunk in CHUNKS {
                    let got = run(&bound, &schema, &rows, chunk);
                    assert_eq!(ids(&got.rows), want);
                    assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
                    for row in got.rows.iter().take(50) {
                        let Value::Int(id) = row[0] else { panic!("an int") };
                        assert_eq!(format!("{row:?}"), format!("{:?}", rows[id as usize]));
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_names_the_stage_and_gives_everything_back() {
        let (schema, rows) = rows();
        let items = keyed(&[(2, false)]);
        let bound = bind(&call(&schema, 4, &items)).unwrap();
        let mut refused = 0;
        for limit in (1000..400_000).step_by(9_000) {
            match try_run(&bound, &schema, &rows, 50, limit) {
                Ok(got) => assert_eq!(ids(&got.rows), slow(&rows, &[(2, false)], false)),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("`sort` needs "), "{error}");
                }
            }
        }
        assert!((3..40).contains(&refused), "{refused}");
    }

    #[test]
    fn lists_are_no_keys() {
        let (schema, _) = rows();
        assert_eq!(codes_of(bind(&call(&schema, 4, &[column(3)]))), [codes::NO_KEY]);
        let options = [("nulls", argument(None, Arg::Word("middle".into())))];
        let items = keyed(&[(0, false)]);
        let wrong = Call {
            options: &options,
            ..call(&schema, 4, &items)
        };
        assert_eq!(codes_of(bind(&wrong)), [codes::WRONG_ARGUMENT]);
    }

    #[test]
    fn batches_that_store_other_kinds_are_kept_apart() {
        let budget = Budget::new(1 << 20);
        let sort = Arc::new(Sort {
            stage: "sort",
            keys: Keys::grouping([0]),
            short: true,
            own: 2,
            budget,
            chunk_bytes: 1 << 16,
            lanes: Mutex::default(),
        });
        let arena = Arena::new(1 << 16);
        let views = [standpipe_sdk::View::inline(b"007").unwrap(); 2];
        let texts = standpipe_sdk::Text::inline(&views);
        let verbatim = Column::new(Data::Verbatim(texts), None, 2);
        let mut filler = sort.clone().filler().unwrap();
        for (chunk, second) in [Column::nulls(2), verbatim, Column::int(&[8, 9], None)]
            .into_iter()
            .enumerate()
        {
            let columns = [Column::int(&[1, 2], None), second];
            let columns = arena.copy(&columns).unwrap();
            filler.push(chunk as u64, Batch::new(columns, None, 2)).unwrap();
        }
        filler.done().unwrap();
        let schema = schema(&[("k", INT), ("v", STRING)]);
        let got = read_all(&sort.drain().unwrap(), &schema, 100);
        let seven = Value::Bytes(b"007".to_vec());
        assert_eq!(
            got.rows,
            [
                vec![int(1), NULL],
                vec![int(1), seven.clone()],
                vec![int(1), int(8)],
                vec![int(2), NULL],
                vec![int(2), seven],
                vec![int(2), int(9)],
            ]
        );
    }
}
