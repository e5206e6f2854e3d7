//! What an author of a source writes: rows of the plugin's own, for `read NAME.…`.
//!
//! Laws
//! - Rows of split i precede those of split i + 1; what a split gives hangs on nothing but the arguments and its number, so that the
//!   bytes are the same for any number of workers.
//! - A split does not move by [`Split::next`]: only [`Split::advance`] says that rows have arrived. After a refusal for memory the
//!   same rows are asked for again, in smaller batches.

use crate::arena::Arena;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::ffi::PLUGIN_FAILED;
use crate::plugin::Params;
use crate::spec::{Call, Complaint, Example, Kind, Memory, Setup, StageSpec};
use crate::types::Schema;
use std::time::Duration;

/// A stage that has rows of its own. Its arguments are constants: there is no input.
pub trait Origin: Params + 'static {
    /// What scripts call it, behind the plugin's name.
    const NAME: &'static str;
    const MEMORY: Memory = Memory::Constant;
    /// Its splits can say where they are: [`Split::save`].
    const SNAPSHOTS: bool = false;
    /// Whole scripts that read from it, printed as documentation.
    const EXAMPLES: &'static [Example] = &[];

    /// Arguments in, columns and splits out. It is pure: checks, `explain` and editors call it.
    ///
    /// # Errors
    /// What is wrong with the arguments: the host underlines it in the script.
    fn bind(self, call: &Call<'_>) -> Result<Splits, Vec<Complaint>>;
}

/// Opens a split.
pub type Open = Box<dyn Fn(&Setup, u32) -> Result<Box<dyn Split>> + Send + Sync>;

/// A bound source.
pub struct Splits {
    pub schema: Schema,
    /// How many there are; one makes it serial. A worker reads one whole: 1 to 16 MiB each are right.
    pub count: u32,
    pub open: Open,
}

/// One piece of a source, read from its beginning to its end by one worker.
pub trait Split: Send {
    /// The rows that come next, at most `max_rows` of them.
    ///
    /// # Errors
    /// `Memory` asks for less; any other ends the run.
    fn next<'a>(&mut self, arena: &'a Arena, max_rows: usize) -> Result<Next<'a>>;

    /// So many rows, those that `next` gave, have arrived.
    fn advance(&mut self, rows: usize);

    /// Where it is, of a source with [`Origin::SNAPSHOTS`]: bytes that [`Split::restore`] takes, perhaps in another process.
    fn save(&self) -> Vec<u8> {
        vec![]
    }

    /// Goes on where another one of the same number was saved. It was just opened.
    ///
    /// # Errors
    /// If the bytes say no such place.
    fn restore(&mut self, _state: &[u8]) -> Result<()> {
        Err(Error::failed(PLUGIN_FAILED, "it takes no snapshots"))
    }
}

/// What a split answers.
pub enum Next<'a> {
    Rows(Batch<'a>),
    /// Nothing now: it is asked again after so long.
    Pending(Duration),
    End,
}

/// A source as the tables have it; [`StageSpec::bind`] of `stage` is not used.
pub struct OriginSpec {
    pub stage: StageSpec,
    pub snapshots: bool,
    pub bind: &'static (dyn Fn(&Call<'_>) -> Result<Splits, Vec<Complaint>> + Sync),
}

/// A type whose source can be exported. Every [`Origin`] is one.
pub trait Exported {
    const SPEC: OriginSpec;
}

impl<T: Origin> Exported for T {
    const SPEC: OriginSpec = OriginSpec {
        stage: StageSpec {
            name: T::NAME,
            about: T::ABOUT,
            kind: Kind::Source,
            items: T::ITEMS,
            options: T::OPTIONS,
            memory: T::MEMORY,
            examples: T::EXAMPLES,
            ..StageSpec::BASE
        },
        snapshots: T::SNAPSHOTS,
        bind: &|call| T::of(call)?.bind(call),
    };
}
