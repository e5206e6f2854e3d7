//! `bind` of a plugin's stage: its answer, checked, as what the planner takes.
//!
//! Laws
//! - `unbind` follows every `bind` that gave something, once, after the last instance.
#![allow(unsafe_code)]

use super::meter::Meter;
use super::run::Instance;
use super::{PROCESS_LOST, WRONG_ABI, arguments, code_of, conform, host, said};
use standpipe_sdk::ffi::{self, PLUGIN_FAILED, schema};
use standpipe_sdk::spec::{Bound, Call, Complaint, Lineage, Make, Setup};
use standpipe_sdk::{Code, Error, Field, Result, RowWise, Schema, Serial, Span, Type};
use std::ffi::c_void;
use std::sync::Arc;

/// A value that an argument cannot have.
pub(super) const WRONG_VALUE: Code = Code(501);

/// A stage whose functions are there.
#[derive(Clone, Copy)]
pub(super) struct Vtable {
    pub(super) stage: &'static ffi::Stage,
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) params: Option<&'static str>,
    pub(super) bind: unsafe extern "C" fn(
        *const ffi::Stage,
        *const ffi::Host,
        *const ffi::BindIn,
        *mut ffi::BindOut,
        *mut ffi::ErrorOut,
    ) -> ffi::Status,
    pub(super) create:
        unsafe extern "C" fn(*mut c_void, *const ffi::Call, u32, *mut *mut c_void, *mut ffi::ErrorOut) -> ffi::Status,
    /// There unless it is an aggregate.
    pub(super) process: Option<ffi::Process>,
    pub(super) destroy: unsafe extern "C" fn(*mut c_void),
}

/// What a successful `bind` gave; dropped, it is given back.
pub(super) struct Given {
    pub(super) vtable: Vtable,
    pub(super) bound: *mut c_void,
    pub(super) out: ffi::BindOut,
    /// All columns of the output.
    pub(super) output: Schema,
}

// SAFETY: `bound` is the plugin's own; the header says that it is shared by instances on any threads, and so are the lists in `out`,
// which live as long.
unsafe impl Send for Given {}
// SAFETY: as above.
unsafe impl Sync for Given {}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(unbind) = self.vtable.stage.unbind {
            // SAFETY: `bound` came from `bind`; instances hold what holds this, so the last of them is destroyed.
            unsafe { unbind(self.bound) }
        }
    }
}

/// Why `bind` failed.
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) message: String,
    /// The argument at fault, if the plugin says one.
    pub(super) param: String,
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Refused {
            code: PLUGIN_FAILED,
            message,
            param: String::new(),
        }
    }
}

impl Given {
    /// Calls `bind` with these inputs.
    pub(super) fn new(vtable: Vtable, input: Option<&Schema>, own: usize, config: &str) -> Result<Given, Refused> {
        let exported = input.map(schema::Exported::new).transpose();
        let exported = exported.map_err(message_of)?;
        let inputs: Vec<*const ffi::ArrowSchema> = exported.iter().map(schema::Exported::as_ptr).collect();
        let given = ffi::BindIn {
            struct_size: size_of::<ffi::BindIn>() as u32,
            n_inputs: inputs.len() as u32,
            inputs: inputs.as_ptr(),
            config_json: ffi::Str::new(config),
            max_workers: 0,
            flags: 0,
            n_own: own as u32,
            reserved: 0,
        };
        let (mut out, mut error) = (ffi::BindOut::EMPTY, ffi::ErrorOut::EMPTY);
        // SAFETY: the function keeps to the header (the promise to `contents_of`); all arguments are valid for the call.
        let status = unsafe {
            (vtable.bind)(
                vtable.stage,
                host::host(),
                &raw const given,
                &raw mut out,
                &raw mut error,
            )
        };
        if status < 0 {
            return Err(Refused {
                code: code_of(status),
                message: said(status, &error),
                param: error.param(),
            });
        }
        // From here on the drop unbinds.
        let mut given = Given {
            vtable,
            bound: out.bound,
            out,
            output: Schema::default(),
        };
        if given.out.schema.release.is_none() && vtable.stage.kind == ffi::KIND_SINK {
            // No output needs no schema.
            return Ok(given);
        }
        // SAFETY: `bind` filled it, as Arrow's C Data Interface says, or left it released.
        let output = unsafe { schema::import(&given.out.schema) };
        if let Some(release) = given.out.schema.release {
            // SAFETY: it is not released yet, and nobody else has it.
            unsafe { release(&raw mut given.out.schema) }
        }
        given.output = output.map_err(message_of)?;
        Ok(given)
    }
}

/// How the rows of the output are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RowsOf {
    /// Row i is made of row i.
    Aligned,
    /// A last child says which row each is made of.
    Listed,
    /// Nothing is said: of a serial stage only.
    Unknown,
}

/// A bound stage: what its instances share.
pub(super) struct Plan {
    pub(super) given: Given,
    pub(super) span: Span,
    /// The input columns that the stage gets, and their types.
    pub(super) used: Vec<usize>,
    pub(super) types: Vec<Type>,
    pub(super) names: Vec<Arc<str>>,
    /// Of the output columns, which are input columns.
    pub(super) from: Vec<Option<usize>>,
    /// The columns that `process` gives: at the end the numbers of rows, if it lists them.
    pub(super) made: Vec<Field>,
    pub(super) rows_of: RowsOf,
    pub(super) serial: bool,
    pub(super) rejects: bool,
    pub(super) meter: Arc<Meter>,
}

impl Plan {
    /// An error with the stage's name and place.
    pub(super) fn failed(&self, what: &str) -> Error {
        self.failed_as(PLUGIN_FAILED, what)
    }

    pub(super) fn failed_as(&self, code: Code, what: &str) -> Error {
        Error::Failed {
            code,
            message: format!("`{}`: {what}", self.given.vtable.name),
            help: None,
            span: Some(self.span),
        }
    }

    /// A failure of the stage's, with its name and place; other errors as they are.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::Failed {
                code: PROCESS_LOST,
                message,
                ..
            } => self.failed_as(PROCESS_LOST, &message),
            Error::Failed { message, .. } => self.failed(&message),
            other => other,
        }
    }
}

/// A complaint about a call, with the plugin's name for it; `this` is what is called.
pub(super) fn complain(
    vtable: &Vtable,
    call: &Call<'_>,
    this: &str,
    code: Code,
    span: Span,
    what: &str,
) -> Vec<Complaint> {
    let message = format!("`{}`: {what}", vtable.name);
    let label = if span == call.span { this } else { "here" };
    vec![Complaint::new(code, span, message, label)]
}

/// Calls `bind` with a call's arguments; what is refused is underlined. With it comes what `bind` was told.
pub(super) fn given(
    vtable: Vtable,
    call: &Call<'_>,
    input: Option<&Schema>,
    this: &str,
) -> Result<(Given, String), Vec<Complaint>> {
    let config =
        arguments::of_call(call).map_err(|what| complain(&vtable, call, this, PLUGIN_FAILED, call.span, &what))?;
    let given = Given::new(vtable, input, call.own, &config).map_err(|refused| {
        let code = match refused.param.as_str() {
            "" => refused.code,
            _ => WRONG_VALUE,
        };
        complain(
            &vtable,
            call,
            this,
            code,
            span_of(&refused.param, call),
            &refused.message,
        )
    })?;
    Ok((given, config))
}

pub(super) fn bind(vtable: Vtable, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    const THIS: &str = "this stage of a plugin";
    let complain = |code: Code, span: Span, what: &str| complain(&vtable, call, THIS, code, span, what);
    let (given, config) = given(vtable, call, Some(call.input), THIS)?;
    conform::bound(vtable, None, call.input, call.own, &config);
    let plan = plan_of(given, call.input, call.span);
    let plan = plan.map_err(|(code, what)| complain(code, call.span, &what))?;
    Ok(bound(plan))
}

/// What a bound stage said, understood. `input`: the columns that it was bound to.
pub(super) fn plan_of(given: Given, input: &Schema, span: Span) -> Result<Plan, (Code, String)> {
    understood(&given.out).map_err(|what| (WRONG_ABI, what))?;
    let (out, flags) = (given.out, given.out.flags);
    let meter = Meter::of(&given.vtable);
    let mut plan = Plan {
        given,
        span,
        used: vec![],
        types: vec![],
        names: vec![],
        from: vec![],
        made: vec![],
        rows_of: match flags {
            _ if flags & ffi::F_ROW_ALIGNED != 0 => RowsOf::Aligned,
            _ if flags & ffi::F_ROW_OF != 0 => RowsOf::Listed,
            _ => RowsOf::Unknown,
        },
        serial: out.parallelism != ffi::PAR_STATELESS,
        rejects: flags & ffi::F_REJECTS != 0,
        meter,
    };
    // SAFETY: as the header says: arrays of these lengths that live as long as `bound`.
    unsafe { plan.columns(&out, input) }.map_err(|what| (PLUGIN_FAILED, what))?;
    Ok(plan)
}

/// The argument that a plugin means: an option's name, or a number for an item.
pub(super) fn span_of(param: &str, call: &Call<'_>) -> Span {
    let item = match param.parse::<usize>() {
        Ok(at) => call.items.get(at),
        Err(_) => call.option(param),
    };
    item.map_or(call.span, |item| item.span)
}

/// Whether this version can run it.
fn understood(out: &ffi::BindOut) -> Result<(), String> {
    let later = [
        (ffi::F_RETAINS_INPUT, "to keep its input"),
        (ffi::F_THREAD_AFFINE, "to stay on one thread"),
    ];
    if let Some((_, what)) = later.iter().find(|(flag, _)| out.flags & flag != 0) {
        return Err(format!("it wants {what}, which this version does not offer"));
    }
    let unknown = out.flags & ffi::F_MUST_UNDERSTAND & !ffi::F_ROW_OF;
    if unknown != 0 {
        return Err(format!("it needs a newer Standpipe (flags {unknown:#x})"));
    }
    if out.flags & (ffi::F_ROW_ALIGNED | ffi::F_ROW_OF) == 0 && out.parallelism != ffi::PAR_SERIAL {
        return Err("it says neither that it is row-aligned nor which rows it gives, so it must be serial".into());
    }
    match out.parallelism {
        ffi::PAR_SERIAL | ffi::PAR_STATELESS | ffi::PAR_KEYED => Ok(()),
        other => Err(format!("its parallelism {other} is none of a transform's")),
    }
}

impl Plan {
    /// Which columns it reads, and which it passes on.
    unsafe fn columns(&mut self, out: &ffi::BindOut, given: &Schema) -> Result<(), String> {
        let width = given.width();
        let input = |column: i32| usize::try_from(column).ok().filter(|&at| at < width);
        self.used = if out.used_columns.is_null() {
            (0..width).collect()
        } else {
            // SAFETY: the caller's promise.
            let used = unsafe { std::slice::from_raw_parts(out.used_columns, out.n_used_columns as usize) };
            let used = used
                .iter()
                .map(|&c| input(c).ok_or(format!("it uses column {c}, and there are {width}")));
            used.collect::<Result<_, _>>()?
        };
        self.names = self.used.iter().map(|&at| given.fields()[at].name.clone()).collect();
        self.types = self.used.iter().map(|&at| given.fields()[at].ty.clone()).collect();
        let output = self.given.output.clone();
        self.from = vec![None; output.width()];
        let from = match out.from_columns.is_null() || self.rows_of == RowsOf::Unknown {
            true => vec![-1; output.width()],
            // SAFETY: the caller's promise.
            false => unsafe { std::slice::from_raw_parts(out.from_columns, output.width()) }.to_vec(),
        };
        for ((slot, field), column) in self.from.iter_mut().zip(output.fields()).zip(from) {
            if column == -1 {
                self.made.push(field.clone());
                continue;
            }
            let at = input(column).ok_or(format!("it passes column {column} on, and there are {width}"))?;
            let source = &given.fields()[at];
            if source.ty != field.ty || (source.nullable && !field.nullable) {
                return Err(format!(
                    "column `{}` is to be `{source}` unchanged, and is declared as `{field}`",
                    field.name
                ));
            }
            *slot = Some(at);
        }
        if self.rows_of == RowsOf::Listed {
            // 32-bit numbers, as dates are: the one type of ours that has their layout.
            self.made.push(Field::new("row_of", Type::Date, false));
        }
        Ok(())
    }
}

fn bound(plan: Plan) -> Bound {
    let (schema, reads, serial, rejects) = (plan.given.output.clone(), plan.used.clone(), plan.serial, plan.rejects);
    let lineage = plan
        .from
        .iter()
        .map(|from| from.map_or(Lineage::New, Lineage::From))
        .collect();
    let plan = Arc::new(plan);
    let make = if serial {
        Make::Serial(Box::new(move |setup: &Setup| -> Result<Box<dyn Serial>> {
            Ok(Box::new(Instance::new(plan.clone(), setup)?))
        }))
    } else {
        Make::RowWise(Box::new(move |setup: &Setup| -> Result<Box<dyn RowWise>> {
            Ok(Box::new(Instance::new(plan.clone(), setup)?))
        }))
    };
    Bound {
        schema,
        lineage,
        reads,
        sorted_by: vec![],
        make,
        needs_places: rejects,
    }
}

/// The words of an error without its code.
pub(super) fn message_of(error: Error) -> String {
    match error {
        Error::Failed { message, .. } => message,
        other => other.to_string(),
    }
}
