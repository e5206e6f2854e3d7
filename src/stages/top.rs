//! `top n on -a, b (by k)`: the first rows of an order, without ordering the others.
//!
//! Each lane keeps, per group, a heap of its best rows so far. For every batch a lower bound of the first 8 bytes of each key is
//! made column-at-a-time ([`heads`]); only rows that this does not rule out get a key of their own. Rows that are
//! kept are copied; once half of the copies are of rows that better ones have pushed out, the others move together.
//!
//! Laws
//! - Of rows with equal keys the first in the input wins: entries compare by (key, chunk, row).
//! - Memory grows with the rows that are kept, never with those that come by.
//! - The output is sorted by the group, then by the keys; a row's place is its number in it.

mod heads;

use super::codes::held;
use super::copies::{Copies, Located, Scratch};
use super::groups::{Groups, grow, grow_to};
use super::heap;
use super::keys::{self, Key, Keys};
use super::picked::Picked;
use super::rowkeys::KeyMaker;
use super::take;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Factory, Item, Items, Kind, Limited, Make, Memory, Order, Setup,
    StageSpec, Want,
};
use standpipe_sdk::{Batch, Breaker, Budget, Fill, Kept, Reservation, Source};
use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// `top`.
pub const SPEC: StageSpec = StageSpec {
    name: "top",
    about: "The first rows in an order; with `by`, of each group, sorted by the groups: `sort` and `take` without the sort; nulls stand last, of equal rows the first ones win",
    kind: Kind::Breaker,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows"),
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    on: Items::some(ArgKind::Key, 1, usize::MAX, "keys, the most significant first"),
    options: &[keys::NULLS],
    order: Order::Creates,
    memory: Memory::Groups,
    examples: &[
        Example {
            script: "from rows [{id: 1, n: 5}, {id: 2, n: 9}, {id: 3, n: null}, {id: 4, n: 9}] | top 2 on -n",
            output: "id,n\n2,9\n4,9\n",
        },
        Example {
            script: r#"from rows [{k: "b", n: 1}, {k: "a", n: 2}, {k: "b", n: 3}] | top 1 on -n by k"#,
            output: "k,n\na,2\nb,3\n",
        },
    ],
    bind: &bind,
    filters: |call| keys::filters(call, call.by),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let rows = take::count(call, "top", &mut complaints);
    let keys = keys::sorting(call, call.on, &mut complaints);
    let by = keys::groups(call, &mut complaints);
    let (Some(rows), true) = (rows, complaints.is_empty()) else {
        return Err(complaints);
    };
    let group = |&column: &usize| Key {
        column,
        descending: false,
        nulls_first: false,
    };
    let order: Vec<Key> = by.iter().map(group).chain(keys.iter().copied()).collect();
    let reads = order.iter().map(|key| key.column).collect();
    let maker = KeyMaker::of(call, &by);
    let make = breaker("top", rows, keys, (!by.is_empty()).then_some(maker), call.own);
    let mut bound = Bound::keeps(call, reads, Make::Breaker(make));
    bound.sorted_by = keys::known_order(call, &order);
    Ok(bound)
}

/// The first rows of a `sort`.
pub(super) fn of_sort(call: &Call<'_>) -> Option<Limited> {
    limited("sort", call, call.items)
}

/// The first rows of a `merge`.
pub(super) fn of_merge(call: &Call<'_>) -> Option<Limited> {
    limited("merge", call, call.by)
}

fn limited(stage: &'static str, call: &Call<'_>, items: &[Item]) -> Option<Limited> {
    let mut complaints = vec![];
    let keys = keys::sorting(call, items, &mut complaints);
    let own = call.own;
    complaints
        .is_empty()
        .then(|| -> Limited { Arc::new(move |rows| breaker(stage, rows, keys.clone(), None, own)) })
}

/// The first `rows` rows of each group in the order of `keys`; `stage` is who says that something does not fit.
pub(super) fn breaker(
    stage: &'static str,
    rows: u64,
    keys: Vec<Key>,
    by: Option<KeyMaker>,
    own: usize,
) -> Factory<Arc<dyn Breaker>> {
    Box::new(move |setup: &Setup| {
        Ok(Arc::new(Top {
            stage,
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            order: Keys::new(keys.clone()),
            keys: keys.clone(),
            by: by.clone(),
            own,
            budget: setup.budget.clone(),
            chunk_bytes: setup.chunk_bytes,
            lanes: Mutex::default(),
        }))
    })
}

/// Bytes of a key that an entry holds itself: two numbers with their tags, and more.
const PREFIX_BYTES: usize = 24;
/// Rows of a batch that are looked at together: what bounds the scratch memory.
const BLOCK_ROWS: usize = 4 << 10;
/// What a piece of a key on the heap costs beside its bytes.
const TAIL_BYTES: usize = 16;

struct Top {
    stage: &'static str,
    /// The most rows of a group.
    rows: usize,
    keys: Vec<Key>,
    order: Keys,
    by: Option<KeyMaker>,
    own: usize,
    budget: Arc<Budget>,
    chunk_bytes: usize,
    lanes: Mutex<Vec<Lane>>,
}

/// A row that is kept: its key, where it came from, where it is.
struct Entry {
    prefix: [u64; PREFIX_BYTES / 8],
    /// What the key has behind the prefix.
    tail: Vec<u8>,
    chunk: u64,
    row: u32,
    at: Pick,
}

impl Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.compare_key(&other.prefix, &other.tail)
            .then_with(|| (self.chunk, self.row).cmp(&(other.chunk, other.row)))
    }

    fn compare_key(&self, prefix: &[u64; PREFIX_BYTES / 8], tail: &[u8]) -> Ordering {
        self.prefix.cmp(prefix).then_with(|| (*self.tail).cmp(tail))
    }
}

fn is_worse(a: &Entry, b: &Entry) -> bool {
    a.cmp(b) == Ordering::Greater
}

impl Located for Entry {
    fn at(&self) -> Pick {
        self.at
    }

    fn set(&mut self, at: Pick) {
        self.at = at;
    }
}

/// What one lane has collected.
struct Lane {
    /// `None`: all rows are one group.
    groups: Option<Groups>,
    /// For each group the best rows, the worst of them first.
    heaps: Vec<Vec<Entry>>,
    /// For each group the head of the worst row, once there are as many rows as are wanted.
    cuts: Vec<u64>,
    rows: Copies,
    /// For heaps, cuts and tails.
    extra: Reservation,
}

impl Breaker for Top {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let groups = |maker: &KeyMaker| Groups::new(self.stage, maker.clone(), &self.budget);
        let lane = Lane {
            groups: self.by.as_ref().map(groups),
            heaps: vec![],
            cuts: vec![],
            rows: Copies::new(self.own, &self.budget),
            extra: self.budget.reserve(),
        };
        Ok(Box::new(Filler {
            lane: Some(lane),
            scratch: Scratch::new(&self.budget),
            key: vec![],
            chosen: Vec::with_capacity(BLOCK_ROWS),
            at: (0, 0),
            top: self,
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let picked = merge(lanes, &self).map_err(|e| held(self.stage, e))?;
        Ok(Arc::new(picked))
    }
}

struct Filler {
    top: Arc<Top>,
    /// `None` once it is done.
    lane: Option<Lane>,
    scratch: Scratch,
    /// The key of the row that is looked at.
    key: Vec<u8>,
    /// The rows of a block that are kept.
    chosen: Vec<u32>,
    /// The chunk and how many of its rows have come.
    at: (u64, u32),
}

impl Fill for Filler {
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()> {
        if self.at.0 != chunk {
            self.at = (chunk, 0);
        }
        if self.top.rows == 0 {
            return Ok(());
        }
        let mut from = 0;
        while from < batch.rows() {
            let rows = BLOCK_ROWS.min(batch.rows() - from);
            self.block(&batch, from, rows).map_err(|e| held(self.top.stage, e))?;
            self.at.1 = self.at.1.saturating_add(rows as u32);
            from += rows;
        }
        Ok(())
    }

    fn done(&mut self) -> Result<()> {
        if let Some(lane) = self.lane.take() {
            self.scratch = Scratch::new(&self.top.budget);
            let mut lanes = self.top.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.push(lane);
        }
        Ok(())
    }
}

impl Filler {
    /// Keeps what may be among the first of rows `from..from + rows`.
    fn block(&mut self, batch: &Batch<'_>, from: usize, rows: usize) -> Result<()> {
        let Filler {
            top,
            lane: Some(lane),
            scratch,
            key,
            chosen,
            at,
        } = self
        else {
            return Ok(());
        };
        scratch.with(|arena| {
            let block = batch.slice(from, rows, arena)?;
            let heads = heads::of(&top.keys, block.columns(), rows, arena)?;
            let ids = match &mut lane.groups {
                Some(groups) => Some(groups.of_unprepared(block, arena)?),
                None => None,
            };
            // From here on the arena is not asked for more, so nothing happens twice.
            lane.choose(top, &block, heads, ids, *at, key, chosen)
                .map_err(|e| held(top.stage, e))
        })?;
        if chosen.is_empty() {
            return Ok(());
        }
        scratch.with(|arena| {
            let block = batch.slice(from, rows, arena)?;
            let rows = block.gather(chosen, top.own, arena)?;
            lane.rows.add(rows).map_err(|e| held(top.stage, e))
        })?;
        if lane.rows.is_wasteful() {
            lane.rows.compact(&mut lane.heaps, scratch)?;
        }
        Ok(())
    }
}

impl Lane {
    /// Offers each row of a block to its group; those that come in are `chosen`, also if another one pushes them out again. `at`: the
    /// chunk, and the first row's number in it.
    fn choose(
        &mut self,
        top: &Top,
        block: &Batch<'_>,
        heads: &[u64],
        ids: Option<&[u32]>,
        at: (u64, u32),
        key: &mut Vec<u8>,
        chosen: &mut Vec<u32>,
    ) -> Result<()> {
        chosen.clear();
        let piece = self.rows.next_piece()?;
        let groups = ids.map_or(1, |ids| ids.iter().max().map_or(0, |&id| id as usize + 1));
        if groups > self.heaps.len() {
            let more = groups - self.heaps.len();
            grow(&mut self.heaps, more, &mut self.extra)?;
            grow(&mut self.cuts, more, &mut self.extra)?;
            self.heaps.resize_with(groups, Vec::new);
            self.cuts.resize(groups, u64::MAX);
        }
        for (row, &head) in heads.iter().enumerate() {
            let group = ids.map_or(0, |ids| ids[row] as usize);
            if head > self.cuts[group] {
                continue;
            }
            key.clear();
            top.order.encode(block.columns(), row, key)?;
            let order = (at.0, at.1.saturating_add(row as u32));
            if self.offer(top.rows, group, key, order, (piece, chosen.len() as u32))? {
                chosen.push(row as u32);
            }
        }
        Ok(())
    }

    /// Takes a row into its group, if it is better than the worst one there; it came later than all of them.
    fn offer(&mut self, most: usize, group: usize, key: &[u8], order: (u64, u32), at: Pick) -> Result<bool> {
        let (head, tail) = key.split_at(key.len().min(PREFIX_BYTES));
        let prefix = prefix_of(head);
        let heap = &mut self.heaps[group];
        let full = heap.len() >= most;
        if full && heap[0].compare_key(&prefix, tail) != Ordering::Greater {
            return Ok(false);
        }
        if !full && heap.len() == heap.capacity() {
            let capacity = most.min((2 * heap.capacity()).max(4));
            grow_to(heap, capacity, &mut self.extra)?;
        }
        let mut rest = vec![];
        if !tail.is_empty() {
            self.extra.grow(tail.len() + TAIL_BYTES)?;
            if rest.try_reserve_exact(tail.len()).is_err() {
                return Err(Error::Memory {
                    wanted: tail.len(),
                    used: self.extra.bytes(),
                    limit: usize::MAX,
                });
            }
            rest.extend_from_slice(tail);
        }
        let entry = Entry {
            prefix,
            tail: rest,
            chunk: order.0,
            row: order.1,
            at,
        };
        if full {
            let gone = std::mem::replace(&mut heap[0], entry);
            if !gone.tail.is_empty() {
                self.extra.shrink(gone.tail.len() + TAIL_BYTES);
            }
            heap::sift_down(heap, is_worse);
        } else {
            heap.push(entry);
            heap::sift_up(heap, is_worse);
        }
        if heap.len() >= most {
            self.cuts[group] = heap[0].prefix[0];
        }
        Ok(true)
    }
}

/// The first bytes of a key as numbers that order like them.
fn prefix_of(head: &[u8]) -> [u64; PREFIX_BYTES / 8] {
    let mut bytes = [0u8; PREFIX_BYTES];
    bytes[..head.len()].copy_from_slice(head);
    let (words, _) = bytes.as_chunks::<8>();
    let mut prefix = [0; PREFIX_BYTES / 8];
    for (to, word) in prefix.iter_mut().zip(words) {
        *to = u64::from_be_bytes(*word);
    }
    prefix
}

/// The first rows of each group over all lanes, groups in order.
fn merge(mut lanes: Vec<Lane>, top: &Top) -> Result<Picked> {
    let mut reservation = top.budget.reserve();
    let mut pieces: Vec<Kept> = vec![];
    let mut bases = vec![];
    let mut held = vec![];
    let count = lanes.iter().map(|lane| lane.rows.pieces().len()).sum();
    grow_to(&mut pieces, count, &mut reservation)?;
    for lane in &mut lanes {
        bases.push(pieces.len() as u32);
        let (more, reservation) = std::mem::replace(&mut lane.rows, Copies::new(top.own, &top.budget)).into_parts();
        pieces.extend(more);
        held.push(reservation);
    }
    // Each lane's groups, so that equal ones of several lanes stand together.
    let mut groups: Vec<(&[u8], u32, &Vec<Entry>)> = vec![];
    grow_to(&mut groups, lanes.iter().map(|l| l.heaps.len()).sum(), &mut reservation)?;
    for (number, lane) in (0..).zip(&lanes) {
        match &lane.groups {
            None => groups.extend(lane.heaps.iter().map(|heap| (&[][..], number, heap))),
            Some(all) => groups.extend(all.keys().zip(&lane.heaps).map(|(key, heap)| (key, number, heap))),
        }
    }
    groups.sort_unstable_by_key(|&(key, ..)| key);
    let mut order: Vec<Pick> = vec![];
    grow_to(
        &mut order,
        lanes.iter().flat_map(|l| &l.heaps).map(Vec::len).sum(),
        &mut reservation,
    )?;
    let mut best: Vec<(u32, &Entry)> = vec![];
    for same in groups.chunk_by(|a, b| a.0 == b.0) {
        best.clear();
        for &(_, lane, heap) in same {
            grow(&mut best, heap.len(), &mut reservation)?;
            best.extend(heap.iter().map(|entry| (lane, entry)));
        }
        best.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
        order
            .extend((best.iter().take(top.rows)).map(|(lane, entry)| (bases[*lane as usize] + entry.at.0, entry.at.1)));
    }
    held.push(reservation);
    Ok(Picked::new(pieces, order, top.own, top.chunk_bytes, held))
}

#[cfg(test)]
mod tests {
    use super::super::codes;
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;
    use standpipe_sdk::spec::Arg;
    use standpipe_sdk::spec::Item;
    use standpipe_sdk::{Arena, Column, Data, Schema, Text, Type, Value, View};

    fn columns() -> Schema {
        schema(&[("id", INT), ("k", STRING), ("f", Type::Float), ("s", STRING)])
    }

    fn keyed(keys: &[(usize, bool)]) -> Vec<Item> {
        keys.iter()
            .map(|&(at, descending)| Item {
                descending,
                ..column(at)
            })
            .collect()
    }

    fn bound(n: i64, keys: &[(usize, bool)], by: &[Item], nulls: &str) -> Bound {
        let options = [("nulls", argument(None, Arg::Word(nulls.into())))];
        bind(&Call {
            on: &keyed(keys),
            by,
            options: &options,
            ..call(&columns(), 4, &[constant(int(n))])
        })
        .unwrap()
    }

    /// Null and NaN at their ends, values in the order of the language.
    fn compare(a: &Value, b: &Value, descending: bool, nulls_first: bool) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Null if nulls_first => 0,
            Value::Null => 3,
            Value::Float(v) if v.is_nan() => 2,
            _ => 1,
        };
        let order = match (a, b) {
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        let order = if descending { order.reverse() } else { order };
        rank(a).cmp(&rank(b)).then(order)
    }

    /// All rows sorted, then the first of each group.
    fn slow(rows: &Rows, n: usize, keys: &[(usize, bool)], by: &[usize], nulls_first: bool) -> Rows {
        let mut sorted = rows.clone();
        sorted.sort_by(|a, b| {
            let groups = by.iter().map(|&at| compare(&a[at], &b[at], false, false));
            let keys = keys
                .iter()
                .map(|&(at, down)| compare(&a[at], &b[at], down, nulls_first));
            groups.chain(keys).fold(Ordering::Equal, Ordering::then)
        });
        let same = |a: &Vec<Value>, b: &Vec<Value>| by.iter().all(|&at| compare(&a[at], &b[at], false, false).is_eq());
        sorted
            .chunk_by(same)
            .flat_map(|group| group.iter().take(n))
            .cloned()
            .collect()
    }

    fn row() -> impl Strategy<Value = Vec<Value>> {
        let float = prop_oneof![
            Just(NULL),
            proptest::sample::select(vec![0.0, -0.0, f64::NAN, 1.5, -3.0, f64::INFINITY]).prop_map(Value::Float),
            any::<f64>().prop_map(Value::Float)
        ];
        let words = [
            "",
            "a",
            "ab",
            "a\0",
            "abc and so on and on, past what an entry holds",
            "abd",
            "\0",
        ];
        let word = proptest::sample::select(words.map(text).to_vec());
        let group = prop_oneof![1 => Just(NULL), 5 => "[a-c]".prop_map(Value::String)];
        (group, float, prop_oneof![1 => Just(NULL), 6 => word]).prop_map(|(k, f, s)| vec![NULL, k, f, s])
    }

    proptest! {
        #[test]
        fn it_is_a_sort_and_the_first_rows(
            rows in proptest::collection::vec(row(), 0..60),
            n in 0usize..12,
            down in any::<bool>(),
            which in 0usize..3,
            group in any::<bool>(),
            nulls_first in any::<bool>(),
            chunk in 0usize..4,
        ) {
            let rows: Rows = rows.into_iter().enumerate().map(|(i, mut row)| {
                row[0] = int(i as i64);
                row
            }).collect();
            let keys = &[vec![(2, down)], vec![(3, down), (2, !down)], vec![(2, down), (3, true)]][which];
            let by = if group { vec![1] } else { vec![] };
            let items: Vec<Item> = by.iter().map(|&at| column(at)).collect();
            let bound = bound(n as i64, keys, &items, if nulls_first { "first" } else { "last" });
            let got = run(&bound, &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(format!("{:?}", got.rows), format!("{:?}", slow(&rows, n, keys, &by, nulls_first)));
            prop_assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
        }
    }

    /// Every row is better than all before it.
    fn rising(count: i64) -> Rows {
        (0..count)
            .map(|i| {
                let name = text(&format!(
                    "a name that takes some room, for it is number {i} of all of them"
                ));
                vec![int(i), text(&format!("{}", i % 3)), Value::Float(i as f64), name]
            })
            .collect()
    }

    #[test]
    fn rows_that_were_pushed_out_take_no_memory() {
        let rows = rising(30_000);
        for by in [&[][..], &[column(1)]] {
            let at: Vec<usize> = by.iter().map(|_| 1).collect();
            for keys in [&[(0, true)][..], &[(3, true)], &[(2, true), (3, false)]] {
                let bound = bound(20, keys, by, "last");
                // The rows take 4 MB.
                let got = try_run(&bound, &columns(), &rows, 500, 1_900_000).unwrap();
                assert_eq!(got.rows, slow(&rows, 20, keys, &at, false));
            }
        }
    }

    #[test]
    fn what_does_not_fit_names_the_stage_and_gives_everything_back() {
        let rows = rising(3000);
        let keys = &[(3, true)];
        let bound = bound(2500, keys, &[], "last");
        let want = slow(&rows, 2500, keys, &[], false);
        let mut refused = 0;
        for limit in (1000..3_000_000).step_by(99_000) {
            match try_run(&bound, &columns(), &rows, 200, limit) {
                Ok(got) => assert_eq!(got.rows, want),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("`top` needs "), "{error}");
                }
            }
        }
        assert!((3..28).contains(&refused), "{refused}");
    }

    #[test]
    fn batches_that_store_other_kinds_are_kept_apart_when_they_move() {
        let schema = schema(&[("id", INT), ("v", STRING)]);
        let items = [constant(int(300))];
        let bound = bind(&Call {
            on: &keyed(&[(0, true)]),
            ..call(&schema, 2, &items)
        })
        .unwrap();
        let Make::Breaker(make) = &bound.make else {
            panic!("a breaker")
        };
        let setup = setup(64 << 20);
        let top = make(&setup).unwrap();
        let mut filler = top.clone().filler().unwrap();
        let arena = Arena::new(64 << 20);
        const ROWS: usize = 100;
        for chunk in 0..200u64 {
            let ids = arena.collect(ROWS, |i| chunk as i64 * ROWS as i64 + i as i64).unwrap();
            let views = arena.collect(ROWS, |i| View::inline(format!("{}", ids[i]).as_bytes()).unwrap());
            let texts = Text::inline(views.unwrap());
            let second = match chunk % 3 {
                0 => Column::nulls(ROWS),
                1 => Column::new(Data::Verbatim(texts), None, ROWS),
                _ => Column::string(texts, None),
            };
            let columns = arena.copy(&[Column::int(ids, None), second]).unwrap();
            filler.push(chunk, Batch::new(columns, None, ROWS)).unwrap();
        }
        filler.done().unwrap();
        let got = read_all(&top.drain().unwrap(), &schema, 1000);
        let want: Rows = (0..300)
            .map(|i| {
                let id = 19_999 - i;
                let second = match id / 100 % 3 {
                    0 => NULL,
                    1 => Value::Bytes(id.to_string().into_bytes()),
                    _ => text(&id.to_string()),
                };
                vec![int(id), second]
            })
            .collect();
        assert_eq!(got.rows, want);
    }

    #[test]
    fn what_it_says_of_its_output_and_of_wrong_arguments() {
        let known = bound(3, &[(2, true), (0, false)], &[column(1)], "last");
        assert_eq!(known.sorted_by, [(1, false), (2, true), (0, false)]);
        assert_eq!(known.reads, [1, 2, 0]);
        let schema = schema(&[("id", INT), ("l", Type::list(INT, true))]);
        let wrong = bind(&Call {
            on: &[column(1)],
            ..call(&schema, 2, &[constant(int(-1))])
        });
        assert_eq!(codes_of(wrong), [codes::WRONG_ARGUMENT, codes::NO_KEY]);
        let options = [("nulls", argument(None, Arg::Word("middle".into())))];
        let wrong = bind(&Call {
            on: &[column(0)],
            options: &options,
            ..call(&schema, 2, &[constant(int(1))])
        });
        assert_eq!(codes_of(wrong), [codes::WRONG_ARGUMENT]);
    }
}
