//! Specs: what a stage, built-in or plugin, says about itself. `const` data that the checker, `explain`, the reference pages,
//! completion and the plugin loader read; nobody reads a stage's name to know what it does.
//!
//! Laws
//! - `bind` is pure: arguments and input schemas in, [`Bound`] or complaints out; no I/O (sources look at their files in
//!   `bind`, which is their schema).
//! - Stages never see expressions: an expression argument reaches a stage as an input column that the host evaluated, behind
//!   the stream's own columns.

use crate::Batch;
use crate::aggregate::Aggregate;
use crate::budget::Budget;
use crate::column::Columns;
use crate::error::{Code, Result, Span};
use crate::spill::Spill;
use crate::stage::{Breaker, Build, Emitter, Flow, RowWise, Serial, Sink, Source};
use crate::types::{Field, Schema, Type};
use crate::value::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A stage as it is declared.
pub struct StageSpec {
    pub name: &'static str,
    /// One line, no trailing dot.
    pub about: &'static str,
    /// What the mode word may be (`join left`): empty = none. A host fills in formats for [`Kind::Source`] and [`Kind::Sink`].
    pub modes: &'static [&'static str],
    pub kind: Kind,
    /// What stands between the name and the first clause.
    pub items: Items,
    /// Whether `by …` is allowed, and what it takes.
    pub by: Items,
    /// Whether `on …` is allowed, and what it takes.
    pub on: Items,
    /// What `as NAME` means here; `None` = not allowed.
    pub as_name: Option<&'static str>,
    pub options: &'static [Param],
    pub block: BlockKind,
    pub order: Order,
    pub memory: Memory,
    /// It gives rows after the last one came in, some that it could have given before: [`Serial::finish`] emits.
    pub holds_back: bool,
    /// All the rows that it gives come after the last one came in, whatever memory there is.
    pub to_the_end: bool,
    /// What it reserves however small its input is.
    pub least: fn(&Room) -> Least,
    /// Scripts that run: printed as documentation, checked as tests.
    pub examples: &'static [Example],
    pub bind: Bind,
    /// Of a call that was bound: what it does to order and memory, where that hangs on its arguments.
    pub class: fn(&Call<'_>) -> Option<Class>,
    /// Of a call that was bound: how many first rows of its input are all of its output, as they come (`take 3`).
    pub first: fn(&Call<'_>) -> Option<u64>,
    /// Of a call that was bound: the breaker to run where only so many first rows of its output are wanted.
    pub limited: fn(&Call<'_>) -> Option<Limited>,
    /// Of a call that was bound: the column it keeps rows by, where it does nothing else.
    pub keeps_by: fn(&Call<'_>) -> Option<KeepsBy>,
    /// Of a call that was bound: which conditions on the rows behind it could as well stand before it.
    pub filters: fn(&Call<'_>) -> Filters,
    /// The same of a call of a [`Kind::Probe`].
    pub meets: fn(&Call<'_>) -> Meets,
    /// Of a call of a [`Kind::Probe`] that was bound: what leaves rows of the second stream out that no row of the first one meets, where
    /// nobody would miss them.
    pub sieve: fn(&Call<'_>) -> Option<Sieve>,
    /// Of a call that was bound: the keys by which it puts all rows in order, where it does nothing else. Rows that are equal in them
    /// keep the order they had.
    pub sorts: fn(&Call<'_>) -> Option<Vec<SortKey>>,
    /// Of a call that was bound: whether its output is the same whatever the order of its input.
    pub unordered: fn(&Call<'_>) -> bool,
    /// Of a call that was bound: what to run instead of its breaker where its input comes sorted.
    pub sorted: fn(&Call<'_>) -> Option<Streaming>,
}

/// What a call does to order and memory: what a [`StageSpec`] says of all of a stage's calls.
#[derive(Clone, Copy)]
pub struct Class {
    pub order: Order,
    pub memory: Memory,
    pub holds_back: bool,
    pub least: fn(&Room) -> Least,
    /// What this call takes beside that, in bytes.
    pub takes_more: usize,
}

impl Class {
    /// Of a stage whose calls are alike.
    pub const fn of(spec: &StageSpec) -> Class {
        Class {
            order: spec.order,
            memory: spec.memory,
            holds_back: spec.holds_back,
            least: spec.least,
            takes_more: 0,
        }
    }
}

/// What a stage keeps rows by: those where a bool column is true.
#[derive(Clone, Copy, Debug)]
pub struct KeepsBy {
    /// Position in [`Call::input`].
    pub column: usize,
    /// Makes the same for another position, and as many columns to pass on.
    pub make: fn(column: usize, own: usize) -> Factory<Box<dyn RowWise>>,
}

/// Which conditions on the rows that a stage gives may be asked of its input instead, so that it never sees the other rows. The
/// host asks that only of conditions that cannot fail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Filters {
    /// None: what becomes of a row hangs on the others.
    #[default]
    Stay,
    /// Those over columns that it passes on: it takes each row for itself, or takes all of them.
    Pass,
    /// Those over these columns, given as position in the output and in [`Call::input`]: of rows that are equal in all of these
    /// columns of the input, what becomes of them does not hang on other rows.
    Keys(Vec<(usize, usize)>),
}

/// What a stage that meets a second stream makes of conditions on the rows it gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meets {
    /// Those over columns of the first stream may be asked of that.
    pub first: bool,
    /// Those over columns of the second stream may be asked of that.
    pub second: bool,
    /// Columns of both streams that are equal where rows meet; what is asked of one stream may be asked of the other too.
    pub keys: Vec<(usize, usize)>,
}

/// What is filled with the first stream of a [`Kind::Probe`], and passes of the second one's rows, as they are, at least those that some
/// row of the first one meets.
#[derive(Clone)]
pub struct Sieve {
    /// Columns whose values it looks at: of [`Call::input`], where it is filled, and of [`Call::beside`].
    pub reads: [Vec<usize>; 2],
    /// Makes it, for a first stream out of so many bytes of files: which rows it passes beyond those may hang on that, and on memory.
    pub make: Arc<dyn Fn(u64) -> Factory<Arc<dyn Build>> + Send + Sync>,
    pub memory: Memory,
    pub least: fn(&Room) -> Least,
}

/// One key of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SortKey {
    /// Position in [`Call::input`].
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// What gives the rows of a breaker without seeing all of them first.
pub struct Streaming {
    /// The input columns that its input must be sorted by, ascending, nulls last.
    pub by: Vec<usize>,
    pub serial: Factory<Box<dyn Serial>>,
    /// For a stage whose own rows can be failures: what runs behind it, carries out the call's policy, and knows what `serial` gives beyond
    /// its columns.
    pub verdicts: Option<Verdicts>,
}

/// Makes what tells the failures among a stage's own rows; asked whether such rows go on, with nulls.
pub type Verdicts = Box<dyn Fn(bool) -> Factory<Box<dyn RowWise>>>;

/// The memory of a run, before it starts, for a stage to say what it cannot do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// What all stages together may reserve, in bytes.
    pub bytes: usize,
    /// The most that an arena of a lane may hand out, in bytes.
    pub share: usize,
    pub workers: usize,
    /// The most that one row may take, in bytes.
    pub max_record: usize,
    /// Columns of the rows that the stage takes.
    pub columns: usize,
}

/// What a stage cannot do without, all lanes together, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Least {
    /// While it takes rows.
    pub takes: usize,
    /// While it gives the rows that it took before: a breaker in the region it drains into, others in addition to what they take,
    /// once they are at the end.
    pub gives: usize,
}

/// Makes a breaker that gives the first rows of what another one would give, and no more than so many.
pub type Limited = Arc<dyn Fn(u64) -> Factory<Arc<dyn Breaker>> + Send + Sync>;

/// What `bind` is: a function, or (a plugin's) a closure that knows its library.
pub type Bind = &'static (dyn Fn(&Call<'_>) -> Result<Bound, Vec<Complaint>> + Send + Sync);

/// An empty spec to build others from with `..StageSpec::BASE`.
impl StageSpec {
    pub const BASE: StageSpec = StageSpec {
        name: "",
        about: "",
        modes: &[],
        kind: Kind::RowWise,
        items: Items::NONE,
        by: Items::NONE,
        on: Items::NONE,
        as_name: None,
        options: &[],
        block: BlockKind::None,
        order: Order::Keeps,
        memory: Memory::Batch,
        holds_back: false,
        to_the_end: false,
        least: |_| Least::default(),
        examples: &[],
        bind: &|_| Err(vec![]),
        class: |_| None,
        first: |_| None,
        limited: |_| None,
        keeps_by: |_| None,
        filters: |_| Filters::Stay,
        meets: |_| Meets {
            first: false,
            second: false,
            keys: vec![],
        },
        sieve: |_| None,
        sorts: |_| None,
        unordered: |_| false,
        sorted: |_| None,
    };
}

/// What a stage is in the graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Source,
    RowWise,
    Serial,
    Breaker,
    /// It gathers the stream that is its first item, then the rows meet it one batch at a time (`join`).
    Probe,
    Sink,
    /// Arms to other streams (`route`), copies (`tee`), streams joined end to end (`union`): edges of the graph, not operators.
    Wiring,
}

/// What a list of items (behind the name, `by` or `on`) may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Items {
    pub arg: ArgKind,
    pub min: usize,
    pub max: usize,
    /// Whether `name = …` may, must or must not stand before an item.
    pub names: Names,
    /// What it is, for the reference and messages: "columns to keep".
    pub about: &'static str,
    /// Each item sees the columns that earlier items made.
    pub progressive: bool,
    /// `*` and `c.*` are allowed.
    pub star: bool,
}

impl Items {
    /// No items.
    pub const NONE: Items = Items {
        arg: ArgKind::Expr(Want::Any),
        min: 0,
        max: 0,
        names: Names::Never,
        about: "",
        progressive: false,
        star: false,
    };

    /// `min..=max` items of one kind without names.
    pub const fn some(arg: ArgKind, min: usize, max: usize, about: &'static str) -> Items {
        Items {
            arg,
            min,
            max,
            about,
            ..Items::NONE
        }
    }
}

/// Whether items are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    Never,
    /// `name = expr`, or a bare column (or a call on one) that names itself.
    Optional,
    Always,
}

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgKind {
    /// A column of the input, by name.
    Column,
    /// An expression over the input row, evaluated by the host.
    Expr(Want),
    /// An expression over `it`, evaluated by the host once for each column that the clause `on` or the option `type:` names: the
    /// results are `Call::columns`.
    PerColumn,
    /// A column or expression with an optional `-` before it: sort order.
    Key,
    /// A constant expression.
    Const(Want),
    /// A plain word that is not looked up.
    Word,
    /// A stream of the script.
    Stream,
    /// A column of both streams of a [`Kind::Probe`], or a comparison of an expression over the first one's rows with one over
    /// the second one's: `a == b`, `a >= b`.
    Match,
    /// A condition on pairs of rows of both streams, evaluated by the host ([`crate::Judge`]).
    Pairs,
    /// A type.
    Type,
    /// A list of words or column names: `[a, b]`.
    Words,
    /// An expression over aggregates. The stage gets each aggregate once, as [`Arg::Aggregate`]; what is made of their values, of
    /// keys (`by`) and of earlier items, the host computes behind the stage. So the stage must give the keys in `by` order,
    /// then one column per aggregate.
    Aggregate,
    /// One of three options that say the items of a stage: [`ArgKind::Aggregate`]s, named like the values.
    Spread(Spread),
    /// An expression over aggregates and functions of rows in their order (`lag`), given as [`Arg::Aggregate`] and [`Arg::Window`],
    /// each once. Without a mode word names outside of calls are the input's columns and earlier items, and the stage must give the
    /// input's own columns, then one column per call. With one, items without a name come first and are constants, names are keys,
    /// [`WINDOW_START`], [`WINDOW_END`] and earlier items, the stage gives these and one column per aggregate.
    Window,
    /// A range of row numbers relative to a row's, each end of which may be open: `-6..0`.
    Frame,
    /// Written `arg0, arg1, …` where each has its own kind.
    Each(&'static [ArgKind]),
}

/// What an [`ArgKind::Spread`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// An expression over the input row.
    Key,
    /// Values of it, constants: `[a, "b", 3]`.
    Values,
    /// An expression over aggregates: an item for each of the values, over the rows of which the key is it.
    Each,
}

/// The first column behind the keys of windows in time.
pub const WINDOW_START: &str = "window_start";
/// The second one.
pub const WINDOW_END: &str = "window_end";

/// What type an argument must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    Any,
    Bool,
    Int,
    /// int, float or decimal.
    Number,
    String,
    List,
    Record,
    Duration,
    /// Any type with an order.
    Ordered,
}

/// An option, `name: value`.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub arg: ArgKind,
    /// As it would be written; `None` = no default.
    pub default: Option<&'static str>,
    pub required: bool,
    pub about: &'static str,
}

impl Param {
    /// An optional option.
    pub const fn new(name: &'static str, arg: ArgKind, default: Option<&'static str>, about: &'static str) -> Param {
        Param {
            name,
            arg,
            default,
            required: false,
            about,
        }
    }

    /// An open set of options, one per column of the input: `cast a: int`. It must be the only one.
    pub const ANY_COLUMN: &'static str = "*";
}

/// What stands in braces behind a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockKind {
    None,
    /// `{ when c => s, else => _ }`
    Route,
    /// `{ pipelines }`
    Tee,
}

/// What a stage does to the order of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Keeps,
    Creates,
}

/// How a stage's memory grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// With the chunk.
    Batch,
    /// Not at all.
    Constant,
    /// With the number of groups.
    Groups,
    /// With a window or a number of rows that the script gives.
    Frame,
    /// With the windows in time that are open.
    Windows,
    /// With the input, within the budget; the rest goes to disk.
    Spill,
    /// With the input, within the budget; what does not fit is an error.
    Held,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// A script and what it prints: documentation and test in one.
///
/// `script` is a whole script whose last pipeline has no sink; `output` is its CSV. For `fails` the output is the code.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    pub script: &'static str,
    pub output: &'static str,
}

/// A stage call after the host has resolved it: what `bind` gets.
pub struct Call<'a> {
    /// The input's columns, then the columns the host computes for expression arguments.
    pub input: &'a Schema,
    /// How many of `input` are the stream's own.
    pub own: usize,
    /// Further inputs: the streams named by `ArgKind::Stream` arguments, in order.
    pub streams: &'a [Schema],
    /// For [`Kind::Probe`]: the columns of `streams[0]`, then those the host computes of its rows.
    pub beside: Option<&'a Schema>,
    pub mode: Option<&'a str>,
    pub items: &'a [Item],
    pub by: &'a [Item],
    pub on: &'a [Item],
    pub as_name: Option<&'a str>,
    pub options: &'a [(&'static str, Item)],
    /// For [`Param::ANY_COLUMN`] and [`ArgKind::PerColumn`]: each column as an item of its name, already computed.
    pub columns: &'a [Item],
    pub span: Span,
}

/// One resolved argument.
#[derive(Clone, Debug)]
pub struct Item {
    /// The name written, or the one the item has of itself.
    pub name: Option<Arc<str>>,
    pub arg: Arg,
    pub descending: bool,
    pub span: Span,
}

/// The value of an argument.
#[derive(Clone, Debug)]
pub enum Arg {
    /// Position in `Call::input`.
    Column(usize),
    Const(Value),
    Word(Arc<str>),
    Words(Vec<Arc<str>>),
    /// Position in `Call::streams`.
    Stream(usize),
    Type(Type),
    Aggregate(AggregateArg),
    Window(WindowArg),
    /// From so many rows behind a row to so many, `None` where that end is open.
    Frame(Option<i64>, Option<i64>),
    /// Positions in `Call::input` and `Call::beside`, both of one type. `shared`: it was written as one name.
    Match {
        left: usize,
        right: usize,
        shared: bool,
        compare: Compare,
    },
    /// It was given; the host evaluates it.
    Pairs,
}

/// How the sides of an [`Arg::Match`] are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// `==`, or one name.
    Equal,
    /// `>=`
    NotBefore,
}

/// A function of rows in their order that a stage is asked for.
#[derive(Clone, Debug)]
pub struct WindowArg {
    pub function: WindowFunction,
    /// What it is given: position in `Call::input`.
    pub column: Option<usize>,
    /// How many rows away.
    pub rows: u64,
    /// Whether a row's value may be null.
    pub nullable: bool,
}

/// What can be asked of rows in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowFunction {
    /// The value so many rows before.
    Lag,
    /// The value so many rows behind.
    Lead,
    /// The row's number, from 1.
    RowNumber,
    /// The number of the first row with the same value.
    Rank,
    /// How many different values there are up to this one.
    DenseRank,
}

/// An aggregate that a stage is asked for.
#[derive(Clone)]
pub struct AggregateArg {
    pub aggregate: Arc<dyn Aggregate>,
    /// Its arguments: positions in `Call::input`.
    pub columns: Vec<usize>,
    /// `where:`, a bool column: position in `Call::input`.
    pub filter: Option<usize>,
    /// Whether a group's value may be null.
    pub nullable: bool,
}

impl std::fmt::Debug for AggregateArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AggregateArg")
            .field("name", &self.aggregate.name())
            .field("columns", &self.columns)
            .field("filter", &self.filter)
            .finish()
    }
}

impl Call<'_> {
    /// The option called `name`, if it was given.
    pub fn option(&self, name: &str) -> Option<&Item> {
        self.options.iter().find(|(n, _)| *n == name).map(|(_, item)| item)
    }

    /// A bool option.
    pub fn flag(&self, name: &str) -> bool {
        matches!(
            self.option(name),
            Some(Item {
                arg: Arg::Const(Value::Bool(true)),
                ..
            })
        )
    }

    /// An int option.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.option(name)?.arg {
            Arg::Const(Value::Int(v)) => Some(v),
            _ => None,
        }
    }

    /// A text option.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.option(name)?.arg {
            Arg::Const(Value::String(v)) => Some(v),
            Arg::Word(v) => Some(v),
            _ => None,
        }
    }

    /// The stream's own fields.
    pub fn own_fields(&self) -> &[Field] {
        &self.input.fields()[..self.own]
    }

    /// The input column of an item that is one.
    pub fn column_of(&self, item: &Item) -> Option<(usize, &Field)> {
        match item.arg {
            Arg::Column(index) => Some((index, self.input.get(index)?)),
            _ => None,
        }
    }
}

/// Why a call is wrong, with the place in the script to underline.
#[derive(Clone, Debug)]
pub struct Complaint {
    pub code: Code,
    pub span: Span,
    pub message: String,
    /// Words under the underlined place.
    pub label: String,
    pub help: Option<String>,
}

impl Complaint {
    /// A complaint without help.
    pub fn new(code: Code, span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        Complaint {
            code,
            span,
            message: message.into(),
            label: label.into(),
            help: None,
        }
    }

    /// The same with a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A bound stage: its output and how to make it run.
pub struct Bound {
    pub schema: Schema,
    /// For each output column, where it comes from. The host leaves unread columns `Absent` by this.
    pub lineage: Vec<Lineage>,
    /// Input columns whose values the stage itself looks at, beyond passing them on.
    pub reads: Vec<usize>,
    /// Columns the output rows are sorted by now (position, descending), for `explain` and rewrites. Nulls are last, whatever the
    /// direction.
    pub sorted_by: Vec<(usize, bool)>,
    pub make: Make,
    /// The stage asks for the places of rows.
    pub needs_places: bool,
}

/// Where an output column comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lineage {
    /// An input column, passed on as it is.
    From(usize),
    /// A column of [`Call::beside`], passed on as it is or null.
    Beside(usize),
    /// The columns of `streams[0]` as one record.
    BesideAll,
    /// Made by the stage.
    New,
}

/// What operators are made with.
#[derive(Clone)]
pub struct Setup {
    pub budget: Arc<Budget>,
    /// Where what does not fit goes.
    pub spill: Arc<Spill>,
    /// The most bytes an arena of a lane may hand out.
    pub share: usize,
    pub workers: usize,
    pub chunk_bytes: usize,
    /// The longest record, in bytes; a longer one is a row error.
    pub max_record: usize,
    /// Outputs are synced to disk before they are renamed.
    pub sync: bool,
    /// Where relative paths start; empty = where the process is.
    pub folder: Arc<Path>,
    /// Set once the run is over: whoever waits (for a pipe) looks at it.
    pub cancelled: Arc<AtomicBool>,
    /// Where a stage says things to people (`tap`): the host gives stderr, a test a buffer.
    pub say: Say,
    /// What somebody behind the stage may want to know of the origin of its rows.
    pub asked: Asked,
}

impl Setup {
    /// The same with a part of the budget for which `bytes` are set aside: for one of several things that a stage does at the same time, so
    /// that none takes what another cannot do without.
    ///
    /// # Errors
    /// `Memory` if there is not as much.
    pub fn with_floor(&self, bytes: usize) -> Result<Setup> {
        Ok(Setup {
            budget: self.budget.part(bytes)?,
            ..self.clone()
        })
    }
}

/// What may be asked of a row's origin, for error messages and reject rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Asked {
    /// Nothing: no stage behind can find a row bad.
    #[default]
    Nothing,
    /// File and line.
    Line,
    /// The text of the record too.
    Text,
}

/// Takes whole lines, line feeds included.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Says it on stderr; nobody to hear it is no error.
pub fn say_on_stderr() -> Say {
    Arc::new(|text| {
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
    })
}

/// What the plan wants of a source's column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Nobody reads it: leave it `Absent`.
    No,
    /// Only text sinks get it: it may be `Verbatim`, unchecked.
    Text,
    /// Its values are read.
    Yes,
    /// Of a record, only these fields (one per field of the record's schema).
    Fields(Vec<Wanted>),
}

/// What a source is asked for: one entry per column of its schema, and whether rows need their places.
#[derive(Clone, Debug)]
pub struct Request {
    pub columns: Vec<Wanted>,
    pub places: bool,
}

/// Makes one operator of the bound stage.
pub type Factory<T> = Box<dyn Fn(&Setup) -> Result<T> + Send + Sync>;

/// Makes the source of what the plan asks for.
pub type SourceFactory = Box<dyn Fn(&Setup, &Request) -> Result<Arc<dyn Source>> + Send + Sync>;

/// How a bound stage runs.
pub enum Make {
    /// A copy per lane.
    RowWise(Factory<Box<dyn RowWise>>),
    /// Exactly one.
    Serial(Factory<Box<dyn Serial>>),
    Breaker(Factory<Arc<dyn Breaker>>),
    Probe(Probing),
    Source(SourceFactory),
    Sink(Factory<Arc<dyn Sink>>),
    /// Only picks, renames or reorders columns: `lineage` says all.
    Rearrange,
    /// Wiring, done by the host.
    Wiring,
    /// Streams that are sorted, in one order.
    Merge(Merging),
}

/// How a [`Kind::Wiring`] with `by` runs. It is bound twice: with its streams, which gives the columns of all ([`Make::Wiring`]), then
/// without streams to rows with these columns, among which `by` stands.
pub struct Merging {
    /// What the rows of each stream go through first: a check that they are sorted.
    pub check: Factory<Box<dyn Serial>>,
    /// What the rows of all go through, those of the first stream first.
    pub merge: Factory<Arc<dyn Breaker>>,
    /// What a check cannot do without.
    pub least: fn(&Room) -> Least,
}

/// How a [`Kind::Probe`] runs.
pub struct Probing {
    pub build: Factory<Arc<dyn Build>>,
    /// Columns of [`Call::beside`] whose values it looks at, beyond passing them on.
    pub reads: Vec<usize>,
    /// Rows of the build itself come behind those of the first stream.
    pub rest: bool,
    /// What each stream goes through first, in order: a check that it is sorted.
    pub checks: Option<[Factory<Box<dyn Serial>>; 2]>,
}

impl Bound {
    /// A stage whose output columns are all input columns: `picks` gives name and position of each.
    pub fn rearrange(input: &Schema, picks: &[(Arc<str>, usize)]) -> Bound {
        let field = |(name, from): &(Arc<str>, usize)| {
            let field = &input.fields()[*from];
            Field::new(name.clone(), field.ty.clone(), field.nullable)
        };
        Bound {
            schema: picks.iter().map(field).collect(),
            lineage: picks.iter().map(|&(_, from)| Lineage::From(from)).collect(),
            reads: vec![],
            sorted_by: vec![],
            make: Make::Rearrange,
            needs_places: false,
        }
    }

    /// A stage that passes on the stream's own columns with `added` ones behind them, and reads `reads`.
    pub fn adds(call: &Call<'_>, added: &[Field], reads: Vec<usize>, make: Make) -> Bound {
        let mut bound = Bound::keeps(call, reads, make);
        bound.schema = call.own_fields().iter().chain(added).cloned().collect();
        bound.lineage.extend(added.iter().map(|_| Lineage::New));
        bound
    }

    /// The same stage, which sets rows aside.
    #[must_use]
    pub fn rejecting(mut self) -> Bound {
        self.needs_places = true;
        self
    }

    /// A stage that passes on the stream's own columns and reads `reads`.
    pub fn keeps(call: &Call<'_>, reads: Vec<usize>, make: Make) -> Bound {
        Bound {
            schema: call.own_fields().iter().cloned().collect(),
            lineage: (0..call.own).map(Lineage::From).collect(),
            reads,
            sorted_by: vec![],
            make,
            needs_places: false,
        }
    }
}

/// The operator of [`Make::Rearrange`]: output column `i` is input column `picks[i]`.
pub struct Rearrange {
    pub picks: Vec<usize>,
}

impl RowWise for Rearrange {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let mut columns = Columns::new(out.arena(), self.picks.len())?;
        for &from in &self.picks {
            columns.push(batch.column(from));
        }
        out.last(batch.with_columns(columns.finish()))
    }
}

/// A file format: what `read NAME` and `write NAME` do.
pub struct FormatSpec {
    pub name: &'static str,
    pub about: &'static str,
    /// File name endings, for messages.
    pub extensions: &'static [&'static str],
    pub read: Option<FormatSide>,
    pub write: Option<FormatSide>,
}

/// One direction of a format. Paths are `Call::items` (constant strings); `schema:` arrives as an `Arg::Type` record.
pub struct FormatSide {
    pub options: &'static [Param],
    /// Options of every format stand in the host's own list; these are the format's.
    pub bind: fn(&Call<'_>, &Plan<'_>) -> Result<Bound, Vec<Complaint>>,
}

/// What a format needs to know of the plan.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// Where relative paths start.
    pub folder: &'a std::path::Path,
    /// Read nothing but what the schema needs; `false` in tests that replace the input.
    pub look: bool,
    pub warn: &'a dyn Fn(Complaint),
}
