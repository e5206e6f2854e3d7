//! Aggregates: what combines the values of a group into one.
//!
//! A stage that takes aggregates knows none by name. It numbers its groups, lets each aggregate keep one state per group, and asks
//! for the values at the end. States are columnar: those of one aggregate lie in arrays, and a batch is one loop.
//!
//! Laws
//! - What comes out does not depend on the order of `update` and `merge`: what needs the order of rows (`first`, `collect`) takes
//!   it from [`RowOrder`], not from the calls.
//! - `room` comes before `update` and `room_to_merge` before `merge`. Only they can be refused, and they change nothing that can be
//!   seen; so a stage makes room for all its aggregates, then updates all.
//! - A state leaves as columns (`partial`) and comes back by `merge`, so it can be sent elsewhere.
//! - A state that may be larger than memory can be cut into [`Entry`]s, which are sorted on disk and come back one by one ([`Folds`]):
//!   what is made of them then is what `finish` would have made of the whole.

use crate::arena::Arena;
use crate::bits::Bits;
use crate::budget::Reservation;
use crate::column::Column;
use crate::error::{Code, Result};
use crate::spec::{Say, Setup, say_on_stderr};
use crate::types::{Schema, Type};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What holds for all states of a run.
#[derive(Clone)]
pub struct OfRun {
    /// A value that takes more bytes is a failure of its group.
    pub longest: usize,
    /// Set once the run is over: whoever waits looks at it.
    pub cancelled: Arc<AtomicBool>,
    pub say: Say,
}

impl OfRun {
    pub fn new(setup: &Setup) -> OfRun {
        OfRun {
            longest: setup.max_record,
            cancelled: setup.cancelled.clone(),
            say: setup.say.clone(),
        }
    }

    /// A run that nobody ends.
    pub fn without_end(longest: usize) -> OfRun {
        OfRun {
            longest,
            cancelled: Arc::default(),
            say: say_on_stderr(),
        }
    }
}

/// An aggregate whose argument types are known.
pub trait Aggregate: Send + Sync {
    /// As the script writes it, for messages.
    fn name(&self) -> &str;

    /// The type of what comes out.
    fn ty(&self) -> &Type;

    /// When null comes out.
    fn nulls(&self) -> ResultNulls;

    /// Whether a group can have a value that does not fit (`sum` of ints).
    fn fallible(&self) -> bool;

    /// Whether what comes out depends on the order of the rows (`first`).
    fn ordered(&self) -> bool {
        true
    }

    /// Whether a state takes the same memory however many rows it has.
    fn fixed(&self) -> bool {
        true
    }

    /// The same for groups that all have values, so that none may be null: an aggregate that cannot be believed sees to it.
    fn strict(&self) -> Option<Arc<dyn Aggregate>> {
        None
    }

    /// What all states of this may take together, in bytes, if that is not only the run's memory: what is more is refused, with this as
    /// its limit.
    fn ceiling(&self) -> Option<usize> {
        None
    }

    /// The columns of a partial state.
    fn partial(&self) -> Schema;

    /// No states yet, for a run.
    fn states(&self, run: &OfRun) -> Box<dyn States>;

    /// For states that may be larger than memory: what puts them together again that were cut into entries.
    fn folds(&self, longest: usize) -> Option<Box<dyn Folds>> {
        let _ = longest;
        None
    }
}

/// One of the pieces that a state is cut into.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'e> {
    /// Entries of a group stand in the order of these bytes, and those with the same ones by `order`.
    pub key: &'e [u8],
    pub order: (u64, u32),
    /// How often it came, or how large it is: entries with the same key and order are one with a larger number.
    pub count: u64,
    /// What is not in the key.
    pub value: &'e [u8],
}

/// Groups whose states were cut into entries, one after the other: in memory that does not grow with their number.
///
/// For each group in turn: `begin`, `expect` for each of its states, `entry` for each of their entries in order, `end`.
pub trait Folds: Send {
    /// The next group.
    ///
    /// # Errors
    /// `Memory` if the budget refuses, here and below. The groups since `clear` are lost then.
    fn begin(&mut self, reservation: &mut Reservation) -> Result<()>;

    /// A state of the group has so many entries.
    fn expect(&mut self, entries: u64);

    fn entry(&mut self, entry: Entry<'_>, reservation: &mut Reservation) -> Result<()>;

    fn end(&mut self, reservation: &mut Reservation) -> Result<()>;

    /// The values of all groups that ended. A group whose value does not fit is told to `fault`, and null.
    ///
    /// # Errors
    /// `Memory` if `arena` is full; what `fault` gives.
    fn finish<'a>(&self, arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>>;

    /// Forgets all groups.
    fn clear(&mut self);
}

/// When an aggregate gives null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResultNulls {
    Never,
    /// For a group without any value.
    NoValues,
    /// Also for some groups with values.
    Some,
}

/// Rows as an aggregate sees them.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// One column per argument.
    pub columns: &'a [Column<'a>],
    pub rows: usize,
    /// The rows that count: no argument is null, `where:` is true. `None` = all.
    pub take: Option<Bits<'a>>,
    pub order: RowOrder<'a>,
}

/// Where rows stand in the input: by chunk, then by row within it.
#[derive(Clone, Copy, Default)]
pub struct RowOrder<'a> {
    pub chunk: u64,
    /// The chunk's rows before this batch.
    pub before: u32,
    /// The rows' numbers in their batch; `None` = 0, 1, 2, ….
    pub rows: Option<&'a [u32]>,
}

impl RowOrder<'_> {
    /// The order of row `row`.
    #[inline]
    pub fn of(&self, row: usize) -> (u64, u32) {
        let within = self
            .rows
            .map_or(row as u32, |rows| rows.get(row).copied().unwrap_or_default());
        (self.chunk, self.before.wrapping_add(within))
    }
}

impl Input<'_> {
    /// Calls `f` with every row that counts, ascending.
    #[inline(always)]
    pub fn each(&self, mut f: impl FnMut(usize)) {
        match self.take {
            None => (0..self.rows).for_each(f),
            Some(take) => {
                for w in 0..take.words() {
                    let mut word = take.word(w);
                    while word != 0 {
                        f(w * 64 + word.trailing_zeros() as usize);
                        word &= word - 1;
                    }
                }
            }
        }
    }

    /// How many rows count.
    pub fn count(&self) -> usize {
        self.take.map_or(self.rows, |take| take.count())
    }
}

/// Takes a group's failure: its position in the list of groups, the code, the message.
pub type OnFault<'f> = &'f mut dyn FnMut(usize, Code, &str) -> Result<()>;

/// A step from states to states of the same aggregate: what windows that move are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The group has no values.
    Clear(u32),
    /// The second group's values are the first one's too, instead of those it had.
    Copy(u32, u32),
    /// The second group's values are the first one's too, beside those it had.
    Join(u32, u32),
}

/// The states of one aggregate, one per group.
pub trait States: Send + Sync {
    /// Whether these states take [`States::steps`]: those of a fixed size, and those that are one value of the group.
    fn takes_steps(&self) -> bool {
        false
    }

    /// Takes steps in order, between groups that there is room for. A group that was copied or joined is cleared before it is
    /// updated again.
    fn steps(&mut self, _steps: &[Step]) {}

    /// Takes rows like `update`, for which there is room; `finish` may follow at once, and then further rows.
    ///
    /// # Errors
    /// `Memory` if the budget refuses: the states are of no use then.
    fn update_sealed(&mut self, groups: &[u32], input: &Input<'_>, reservation: &mut Reservation) -> Result<()> {
        self.update(groups, input);
        self.seal(reservation)
    }

    /// Makes room for `groups` groups in all and for what `update` with these rows may add.
    ///
    /// # Errors
    /// `Memory` if the budget refuses; nothing changes then.
    fn room(&mut self, groups: usize, input: &Input<'_>, reservation: &mut Reservation) -> Result<()>;

    /// Row `r` goes to group `groups[r]`.
    fn update(&mut self, groups: &[u32], input: &Input<'_>);

    /// Makes room for `groups` groups in all and for what `merge` with these partial states may add.
    ///
    /// # Errors
    /// `Memory` if the budget refuses; nothing changes then.
    fn room_to_merge(&mut self, groups: usize, partial: &[Column<'_>], reservation: &mut Reservation) -> Result<()>;

    /// Partial state `r` goes to group `groups[r]`.
    fn merge(&mut self, groups: &[u32], partial: &[Column<'_>]);

    /// Nothing more comes: puts in order what `partial` and `finish` need in order. To be called before either.
    ///
    /// # Errors
    /// `Memory` if the budget refuses; nothing changes then.
    fn seal(&mut self, reservation: &mut Reservation) -> Result<()>;

    /// The states of these groups as columns.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    fn partial<'a>(&self, groups: &[u32], arena: &'a Arena) -> Result<&'a [Column<'a>]>;

    /// The values of these groups. A group whose value does not fit is told to `fault`, and null.
    ///
    /// # Errors
    /// `Memory` if `arena` is full; what `fault` gives.
    fn finish<'a>(&self, groups: &[u32], arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>>;

    /// How many entries the state of this group has, of an aggregate with [`Folds`].
    fn entries(&self, group: u32) -> usize {
        let _ = group;
        0
    }

    /// Calls `f` with entry `at` of this group; they are in order.
    fn entry(&self, group: u32, at: usize, f: &mut dyn FnMut(Entry<'_>)) {
        let _ = (group, at, f);
    }

    /// Forgets all groups and keeps the memory.
    fn clear(&mut self);

    /// Forgets all groups and gives the memory back.
    fn release(&mut self, reservation: &mut Reservation);
}
