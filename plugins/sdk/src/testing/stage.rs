//! Drives a row-wise or serial stage.

use super::table::{Output, Reject, Table, at_all_sizes, parts, words};
use super::{ROOM, Refused, schema, setup};
use crate::arena::Arena;
use crate::batch::Batch;
use crate::column::Column;
use crate::error::{Error, Result, Span};
use crate::fault::Faults;
use crate::place::Place;
use crate::plugin::Stage;
use crate::spec::{Arg, ArgKind, Bind, Bound, Call, Complaint, Item, Items, Lineage, Make, Param, Rearrange};
use crate::stage::{Downstream, Emitter, Flow, Prepare, RowWise, Serial};
use crate::types::{Schema, Type};
use crate::value::Value;
use crate::values;
use std::sync::Arc;

/// The stage `S`, whose input has the columns that `input` names.
///
/// # Panics
/// If `input` is no schema.
pub fn stage<S: Stage>(input: &str) -> Drive {
    let spec = S::SPEC;
    stage_of(spec.name, spec.bind, spec.items, spec.options, schema(input))
}

/// A stage by the parts of its spec that matter to a call.
pub fn stage_of(name: &'static str, bind: Bind, takes: Items, options: &'static [Param], input: Schema) -> Drive {
    Drive {
        name,
        bind,
        takes,
        known: options,
        own: input.width(),
        input,
        items: vec![],
        by: vec![],
        options: vec![],
        mode: None,
        as_name: None,
        memory: 64 << 20,
        next: 2,
    }
}

/// A call of a stage: what it is given.
pub struct Drive {
    name: &'static str,
    bind: Bind,
    takes: Items,
    known: &'static [Param],
    input: Schema,
    own: usize,
    items: Vec<Item>,
    by: Vec<Item>,
    options: Vec<(&'static str, Item)>,
    mode: Option<String>,
    as_name: Option<String>,
    memory: usize,
    next: u32,
}

const CALL: Span = Span { start: 0, end: 1 };

impl Drive {
    /// An item: the column called `name`.
    ///
    /// # Panics
    /// If the input has none.
    #[must_use]
    pub fn column(self, name: &str) -> Self {
        let item = self.named(name);
        self.item(item)
    }

    /// An item: a constant.
    #[must_use]
    pub fn value(self, value: impl Into<Value>) -> Self {
        self.item(Arg::Const(value.into()))
    }

    /// An item of any kind.
    #[must_use]
    pub fn item(mut self, arg: Arg) -> Self {
        let item = self.argument(arg);
        self.items.push(item);
        self
    }

    /// `by`: the column called `name`.
    ///
    /// # Panics
    /// If the input has none.
    #[must_use]
    pub fn by(mut self, name: &str) -> Self {
        let arg = self.named(name);
        let item = self.argument(arg);
        self.by.push(item);
        self
    }

    /// The option `name: value`. What is not given has its default.
    ///
    /// # Panics
    /// If the stage has no such option.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        let Some(param) = self.known.iter().find(|param| param.name == name) else {
            panic!("`{}` has no option `{name}`", self.name);
        };
        let arg = self.given(param, value.into());
        let item = self.argument(arg);
        self.options.push((param.name, item));
        self
    }

    /// `stage mode …`
    #[must_use]
    pub fn mode(mut self, mode: &str) -> Self {
        self.mode = Some(mode.into());
        self
    }

    /// `stage … as name`
    #[must_use]
    pub fn named_as(mut self, name: &str) -> Self {
        self.as_name = Some(name.into());
        self
    }

    /// The last `columns` columns of the input are not the stream's own: the host has computed them for arguments.
    #[must_use]
    pub fn computed(mut self, columns: usize) -> Self {
        self.own = self.input.width().saturating_sub(columns);
        self
    }

    /// The memory for state of the stage's own, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    fn named(&self, name: &str) -> Arg {
        match self.input.position(name) {
            Some(at) => Arg::Column(at),
            None => panic!("there is no column `{name}`, but {}", self.input),
        }
    }

    fn argument(&mut self, arg: Arg) -> Item {
        self.next += 2;
        let name = match &arg {
            Arg::Column(at) => self.input.get(*at).map(|field| field.name.clone()),
            _ => None,
        };
        Item {
            name,
            arg,
            descending: false,
            span: Span {
                start: self.next,
                end: self.next + 1,
            },
        }
    }

    /// A value as the kind of argument that the option is.
    fn given(&self, param: &Param, value: Value) -> Arg {
        match (param.arg, value) {
            (ArgKind::Word, Value::String(word)) => Arg::Word(word.into()),
            (ArgKind::Words, Value::List(words)) => {
                let words = words.into_iter().filter_map(|word| match word {
                    Value::String(word) => Some(Arc::from(word)),
                    _ => None,
                });
                Arg::Words(words.collect())
            }
            (ArgKind::Column | ArgKind::Key | ArgKind::Expr(_), Value::String(name)) => self.named(&name),
            (_, value) => Arg::Const(value),
        }
    }

    /// Binds the stage to its arguments.
    ///
    /// # Errors
    /// What it says is wrong with them.
    pub fn bind(mut self) -> Result<Ready, Refused> {
        let least = self.takes.min;
        if self.items.len() < least {
            let message = format!("{} items are needed, {} are given", least, self.items.len());
            return Err(Refused {
                complaints: vec![(String::new(), message)],
            });
        }
        for param in self.known {
            let is_given = self.options.iter().any(|(name, _)| *name == param.name);
            if let (false, Some(value)) = (is_given, param.default.and_then(literal)) {
                let arg = self.given(param, value);
                let item = self.argument(arg);
                self.options.push((param.name, item));
            }
        }
        let call = Call {
            input: &self.input,
            own: self.own,
            streams: &[],
            beside: None,
            mode: self.mode.as_deref(),
            items: &self.items,
            by: &self.by,
            on: &[],
            as_name: self.as_name.as_deref(),
            options: &self.options,
            columns: &[],
            span: CALL,
        };
        match (self.bind)(&call) {
            Ok(bound) => Ok(Ready {
                name: self.name,
                input: self.input,
                memory: self.memory,
                bound,
            }),
            Err(complaints) => Err(self.refused(complaints)),
        }
    }

    fn refused(&self, complaints: Vec<Complaint>) -> Refused {
        let of = |complaint: Complaint| {
            let option = self.options.iter().find(|(_, item)| item.span == complaint.span);
            let item = self.items.iter().position(|item| item.span == complaint.span);
            let argument = match (option, item) {
                (Some((name, _)), _) => (*name).to_owned(),
                (None, Some(at)) => at.to_string(),
                (None, None) => String::new(),
            };
            let help = complaint.help.map(|help| format!("; {help}")).unwrap_or_default();
            (argument, complaint.message + &help)
        };
        Refused {
            complaints: complaints.into_iter().map(of).collect(),
        }
    }

    /// Binds the stage and gives it these rows.
    ///
    /// # Panics
    /// If it refuses its arguments or fails, or what comes out depends on where batches end.
    pub fn run(self, given: &Table) -> Output {
        let name = self.name;
        match self.bind() {
            Ok(ready) => ready.run(given),
            Err(refused) => panic!("`{name}` refuses its arguments: {refused}"),
        }
    }

    /// Binds the stage, which must refuse its arguments.
    ///
    /// # Panics
    /// If it takes them.
    pub fn refuses(self) -> Refused {
        let name = self.name;
        match self.bind() {
            Ok(_) => panic!("`{name}` takes these arguments"),
            Err(refused) => refused,
        }
    }
}

/// A default as it is written: text in quotes, a number, `true`, `false`, `null`.
fn literal(text: &str) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match serde_json::from_str(text).ok()? {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::String(text),
        Json::Array(_) | Json::Object(_) => return None,
    })
}

/// A bound stage.
pub struct Ready {
    name: &'static str,
    input: Schema,
    memory: usize,
    bound: Bound,
}

enum Work {
    RowWise(Box<dyn RowWise>),
    Serial(Box<dyn Serial>, Option<Box<dyn Prepare>>),
}

impl Ready {
    /// The columns that come out.
    pub fn schema(&self) -> &Schema {
        &self.bound.schema
    }

    /// What `bind` gave.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Gives it these rows, in batches of several sizes.
    ///
    /// # Panics
    /// If it fails, or what comes out depends on where batches end.
    pub fn run(&self, given: &Table) -> Output {
        match self.try_run(given) {
            Ok(output) => output,
            Err(error) => panic!("`{}` fails: {}", self.name, words(&error)),
        }
    }

    /// The same, for a stage that is to fail.
    ///
    /// # Errors
    /// What it fails with; rows that it rejects are no failure.
    ///
    /// # Panics
    /// As [`Ready::run`], but for failures.
    pub fn try_run(&self, given: &Table) -> Result<Output> {
        self.must_fit(given);
        at_all_sizes(|size| self.run_in(given, size))
    }

    /// Refuses every allocation of a batch in turn: the same batch again must give what it gives without a refusal.
    ///
    /// # Panics
    /// If it does not.
    pub fn run_refusing(&self, given: &Table) -> Output {
        let want = self.run(given);
        let fail = |error: Error| -> ! { panic!("`{}` fails: {}", self.name, words(&error)) };
        for allocations in 0.. {
            assert!(allocations < 10_000, "`{}` never has enough memory", self.name);
            let mut work = self.make().unwrap_or_else(|error| fail(error));
            let mut output = Output::new(self.bound.schema.clone());
            let (data, arena) = (Arena::new(ROOM), Arena::new(ROOM));
            let batch = self.batch(given.rows(), 0, &data).unwrap_or_else(|error| fail(error));
            arena.refuse_after(allocations);
            match self.push(&mut work, batch, 0, &arena, &mut output) {
                Ok(()) => {
                    self.finish(&mut work, &mut output).unwrap_or_else(|error| fail(error));
                    want.must_be(&output, given.rows().len());
                    return want;
                }
                Err(Error::Memory { .. }) => {
                    assert!(
                        output.rows.is_empty(),
                        "`{}` gives rows, then wants more memory",
                        self.name
                    );
                    output.rejects.clear();
                    let again = self.push(&mut work, batch, 0, &arena, &mut output);
                    again.unwrap_or_else(|error| fail(error));
                    self.finish(&mut work, &mut output).unwrap_or_else(|error| fail(error));
                    want.must_be(&output, given.rows().len());
                }
                Err(error) => fail(error),
            }
        }
        want
    }

    fn must_fit(&self, given: &Table) {
        let fits = given.schema().width() == self.input.width()
            && (given.schema().fields().iter().zip(self.input.fields()))
                .all(|(given, input)| given.ty == input.ty && (input.nullable || !given.nullable));
        assert!(
            fits,
            "`{}` is bound to {}, and is given {}",
            self.name,
            self.input,
            given.schema()
        );
    }

    fn make(&self) -> Result<Work> {
        let setup = setup(self.memory);
        Ok(match &self.bound.make {
            Make::RowWise(make) => Work::RowWise(make(&setup)?),
            Make::Serial(make) => {
                let stage = make(&setup)?;
                let prepare = stage.prepare();
                Work::Serial(stage, prepare)
            }
            Make::Rearrange => {
                let picks = self.bound.lineage.iter().filter_map(|lineage| match lineage {
                    Lineage::From(at) => Some(*at),
                    _ => None,
                });
                Work::RowWise(Box::new(Rearrange { picks: picks.collect() }))
            }
            _ => panic!("`{}` is neither row-wise nor serial", self.name),
        })
    }

    fn run_in(&self, given: &Table, size: usize) -> Result<Output> {
        let mut work = self.make()?;
        let mut output = Output::new(self.bound.schema.clone());
        let (mut data, mut arena) = (Arena::new(ROOM), Arena::new(ROOM));
        data.set_poison(true);
        arena.set_poison(true);
        for (from, part) in parts(given.rows(), size) {
            let batch = self.batch(part, from, &data)?;
            self.push(&mut work, batch, from, &arena, &mut output)?;
            data.reset();
            arena.reset();
            if output.ended {
                break;
            }
        }
        self.finish(&mut work, &mut output)?;
        Ok(output)
    }

    /// The rows, numbered by their places, with the columns that the stage is to see.
    fn batch<'a>(&self, rows: &[Vec<Value>], from: usize, arena: &'a Arena) -> Result<Batch<'a>> {
        let batch = values::batch(&self.input, rows, arena)?;
        let used = |at: usize| self.bound.reads.contains(&at) || self.bound.lineage.contains(&Lineage::From(at));
        let columns = arena.collect(self.input.width(), |at| match used(at) {
            true => batch.column(at),
            false => Column::absent(rows.len()),
        })?;
        let places = arena.collect(rows.len(), |row| Place {
            source: 0,
            offset: (from + row) as u64,
            sub: 0,
        })?;
        Ok(Batch::new(columns, Some(places), rows.len()))
    }

    fn push<'a>(
        &self,
        work: &mut Work,
        batch: Batch<'a>,
        from: usize,
        arena: &'a Arena,
        output: &mut Output,
    ) -> Result<()> {
        let faults = Faults::new(arena, false);
        let before = output.rows.len();
        let mut made_of = vec![];
        match work {
            Work::RowWise(stage) => {
                let mut down = Collect {
                    stage: self.name,
                    output: &mut *output,
                    row_wise: true,
                    made_of: &mut made_of,
                };
                stage.push(batch, &mut Emitter::new(arena, &faults, &mut down))?;
            }
            Work::Serial(stage, prepare) => {
                let batch = match prepare {
                    Some(prepare) => prepare.prepare(batch, arena)?,
                    None => batch,
                };
                let (rows, flow) = stage.step(batch, arena, &faults)?;
                if let Some(rows) = rows {
                    take(self.name, &rows, output);
                }
                output.ended |= flow == Flow::Done;
                rest(self.name, stage.as_mut(), from, output)?;
            }
        }
        assert!(
            faults.is_empty() || self.bound.needs_places,
            "`{}` rejects rows and did not say so: `Bound::rejecting`",
            self.name
        );
        // The batch's arena may be full, or made to refuse.
        let own = Arena::new(ROOM);
        let bad = faults.by_row_in(&own)?;
        output.rejects.extend(bad.iter().map(|fault| Reject {
            row: from + fault.row as usize,
            message: fault.message.to_owned(),
        }));
        // The host takes bad rows out, whatever was made of them.
        let is_bad = |place: &Place| {
            bad.iter()
                .any(|fault| (from + fault.row as usize) as u64 == place.offset)
        };
        let mut at = 0;
        output.rows.retain(|_| {
            let place = at.max(before) - before;
            at += 1;
            at <= before || !made_of.get(place).is_some_and(is_bad)
        });
        Ok(())
    }

    fn finish(&self, work: &mut Work, output: &mut Output) -> Result<()> {
        let Work::Serial(stage, _) = work else { return Ok(()) };
        let arena = Arena::new(ROOM);
        let faults = Faults::new(&arena, false);
        let mut down = Collect {
            stage: self.name,
            output,
            row_wise: false,
            made_of: &mut vec![],
        };
        stage.finish(&mut Emitter::new(&arena, &faults, &mut down))?;
        rest(self.name, stage.as_mut(), 0, output)
    }
}

/// What a stage left to say behind a batch that begins with row `from`.
fn rest(name: &'static str, stage: &mut dyn Serial, from: usize, output: &mut Output) -> Result<()> {
    if !stage.has_rest() || output.ended {
        return Ok(());
    }
    stage.rest(&mut |_, made, faults| {
        take(name, &made.rows, output);
        let own = Arena::new(ROOM);
        output.rejects.extend(faults.by_row_in(&own)?.iter().map(|fault| {
            let row = fault.row as usize;
            Reject {
                row: from + made.at.map_or(row, |at| at[row] as usize),
                message: fault.message.to_owned(),
            }
        }));
        Ok(Flow::More)
    })
}

/// Takes what a stage emits.
struct Collect<'r> {
    stage: &'static str,
    output: &'r mut Output,
    row_wise: bool,
    /// The places of the rows so far.
    made_of: &'r mut Vec<Place>,
}

impl Downstream for Collect<'_> {
    fn push<'b>(&mut self, port: usize, _: &'b Arena, batch: Batch<'b>, _: bool) -> Result<Flow> {
        assert!(port == 0, "`{}` has one output only", self.stage);
        if self.row_wise && batch.rows() > 0 {
            let Some(places) = batch.origin() else {
                panic!("`{}` loses the places of its rows", self.stage);
            };
            let ascend = places.is_sorted() && self.made_of.last() <= places.first();
            assert!(
                ascend,
                "`{}` gives its rows in another order than it got them",
                self.stage
            );
            self.made_of.extend_from_slice(places);
        }
        take(self.stage, &batch, self.output);
        Ok(Flow::More)
    }
}

fn take(stage: &str, batch: &Batch<'_>, output: &mut Output) {
    let fields = output.schema.fields();
    assert!(
        batch.columns().len() == fields.len(),
        "`{stage}` gives {} columns and declares {}",
        batch.columns().len(),
        output.schema
    );
    for (column, field) in batch.columns().iter().zip(fields) {
        assert!(
            column.fits(&field.ty) && (!column.is_absent() || batch.rows() == 0),
            "`{stage}` declares `{field}` and gives something else, or passes on what it does not say it passes on"
        );
        let has_null = field.ty != Type::Null && !field.nullable && (0..batch.rows()).any(|row| !column.is_valid(row));
        assert!(!has_null, "`{stage}` declares `{field}` without nulls and gives one");
    }
    output.rows.extend(values::rows(batch, &output.schema));
}
