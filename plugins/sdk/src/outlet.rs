//! What an author of a sink writes: an output of the plugin's own, for `write NAME.…`.
//!
//! Laws
//! - Rows come in order, each once; an output is one object, whatever the workers.
//! - Nothing shows before [`Output::publish`]: a run has several outputs, and all are complete before one of them is published. After
//!   a failed run there is nothing: [`Output::discard`] sees to it.
//!
//! ```
//! use standpipe_sdk::outlet::NewFile;
//! use standpipe_sdk::prelude::*;
//! use standpipe_sdk::Published;
//! use std::io::Write;
//!
//! /// Writes one number per line.
//! #[derive(Params)]
//! struct Numbers {
//!     /// the file
//!     #[param(item)]
//!     path: String,
//!     /// the column with the numbers
//!     of: ColumnArg,
//! }
//!
//! impl Outlet for Numbers {
//!     const NAME: &'static str = "numbers";
//!
//!     fn bind(self, call: &Call<'_>) -> Result<Opening, Vec<Complaint>> {
//!         self.of.must_be(call, &Type::Int)?;
//!         let (path, at) = (self.path, self.of.at);
//!         Ok(Opening::new(vec![at], move |setup| {
//!             let file = NewFile::beside(&setup.folder, &path)?.sync(setup.sync);
//!             Ok(Box::new(Lines { file, at, rows: 0 }))
//!         }))
//!     }
//! }
//!
//! struct Lines {
//!     file: NewFile,
//!     at: usize,
//!     rows: u64,
//! }
//!
//! impl Output for Lines {
//!     fn write(&mut self, batch: Batch<'_>, _: &Faults<'_>) -> Result<()> {
//!         let column = batch.column(self.at);
//!         if let Data::Int(numbers) = column.data() {
//!             for row in (0..batch.rows()).filter(|&row| column.is_valid(row)) {
//!                 self.file.write(format_args!("{}\n", numbers[row]))?;
//!             }
//!         }
//!         self.rows += batch.rows() as u64;
//!         Ok(())
//!     }
//!
//!     fn finish(&mut self) -> Result<()> {
//!         self.file.finish()
//!     }
//!
//!     fn publish(&mut self) -> Result<Vec<Published>> {
//!         Ok(vec![self.file.publish(self.rows)?])
//!     }
//!
//!     fn discard(&mut self) {
//!         self.file.discard();
//!     }
//! }
//!
//! standpipe_sdk::export! { id: "org.example.numbers", sinks: [Numbers] }
//! # fn main() {}
//! ```

mod file;

pub use file::NewFile;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::ffi::PLUGIN_FAILED;
use crate::plugin::Params;
use crate::spec::{Bound, Call, Complaint, Example, Kind, Make, Memory, Setup, StageSpec};
use crate::stage::{Published, Sink, Writer};
use crate::types::Schema;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A stage where rows end. Its arguments are constants and columns.
pub trait Outlet: Params + 'static {
    /// What scripts call it, behind the plugin's name.
    const NAME: &'static str;
    const MEMORY: Memory = Memory::Constant;
    /// Whole scripts that write to it, printed as documentation.
    const EXAMPLES: &'static [Example] = &[];

    /// Arguments and columns in. It is pure: checks, `explain` and editors call it.
    ///
    /// # Errors
    /// What is wrong with the arguments: the host underlines it in the script.
    fn bind(self, call: &Call<'_>) -> Result<Opening, Vec<Complaint>>;
}

/// Opens an output.
pub type Open = Box<dyn Fn(&Setup) -> Result<Box<dyn Output>> + Send + Sync>;

/// A bound sink.
pub struct Opening {
    /// The input columns whose values it looks at; others are absent.
    pub reads: Vec<usize>,
    /// It sets rows aside.
    pub rejects: bool,
    pub open: Open,
}

impl Opening {
    pub fn new(reads: Vec<usize>, open: impl Fn(&Setup) -> Result<Box<dyn Output>> + Send + Sync + 'static) -> Opening {
        Opening {
            reads,
            rejects: false,
            open: Box::new(open),
        }
    }

    /// The same sink, which sets rows aside.
    #[must_use]
    pub fn rejecting(mut self) -> Opening {
        self.rejects = true;
        self
    }
}

/// An output that is being written. One of `publish` and `discard` is the last that is called.
pub trait Output: Send {
    /// Takes the next rows. Bad ones go into `faults` and not into the output.
    ///
    /// # Errors
    /// `Memory` leaves it as it was: the same rows come again in smaller batches. Any other ends the run.
    fn write(&mut self, batch: Batch<'_>, faults: &Faults<'_>) -> Result<()>;

    /// All rows have come: what is left to do before the output is complete, still under no name.
    ///
    /// # Errors
    /// Any ends the run.
    fn finish(&mut self) -> Result<()>;

    /// Every output of the run is complete: from now on this one shows.
    ///
    /// # Errors
    /// Any ends the run.
    fn publish(&mut self) -> Result<Vec<Published>>;

    /// The run failed: leaves nothing behind.
    fn discard(&mut self);

    /// After `publish`: what people should know, as sentences.
    fn notes(&self) -> Vec<String> {
        vec![]
    }
}

/// A type whose sink can be exported. Every [`Outlet`] is one.
pub trait Exported {
    const SPEC: StageSpec;
}

impl<T: Outlet> Exported for T {
    const SPEC: StageSpec = StageSpec {
        name: T::NAME,
        about: T::ABOUT,
        kind: Kind::Sink,
        items: T::ITEMS,
        options: T::OPTIONS,
        memory: T::MEMORY,
        examples: T::EXAMPLES,
        bind: &|call| {
            let Opening { reads, rejects, open } = T::of(call)?.bind(call)?;
            let make = move |setup: &Setup| -> Result<Arc<dyn Sink>> {
                Ok(Arc::new(Single {
                    output: Mutex::new(Some(open(setup)?)),
                }))
            };
            Ok(Bound {
                schema: Schema::default(),
                lineage: vec![],
                reads,
                sorted_by: vec![],
                make: Make::Sink(Box::new(make)),
                needs_places: rejects,
            })
        },
        ..StageSpec::BASE
    };
}

/// The sink of an output: its writers take turns.
struct Single {
    /// Gone once it was published or discarded.
    output: Mutex<Option<Box<dyn Output>>>,
}

impl Single {
    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Output>>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, run: impl FnOnce(&mut dyn Output) -> Result<T>) -> Result<T> {
        match &mut *self.lock() {
            Some(output) => run(&mut **output),
            None => Err(Error::failed(PLUGIN_FAILED, "its output is gone")),
        }
    }
}

impl Sink for Single {
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>> {
        Ok(Box::new(Through(self)))
    }

    fn finish(&self) -> Result<()> {
        self.with(|output| output.finish())
    }

    fn publish(&self) -> Result<Vec<Published>> {
        self.with(|output| output.publish())
    }

    fn notes(&self) -> Vec<String> {
        self.lock().as_ref().map_or_else(Vec::new, |output| output.notes())
    }

    fn discard(&self) {
        if let Some(mut output) = self.lock().take() {
            output.discard();
        }
    }
}

/// One lane's way to the output.
struct Through(Arc<Single>);

impl Writer for Through {
    fn takes_turns(&self) -> bool {
        true
    }

    fn encode(&mut self, batch: Batch<'_>, faults: &Faults<'_>) -> Result<()> {
        self.0.with(|output| output.write(batch, faults))
    }

    fn pending(&self) -> usize {
        0
    }

    fn write(&mut self) -> Result<()> {
        Ok(())
    }

    fn forget(&mut self) {}
}
