//! What nearly every plugin needs.

pub use crate::combine::{Arguments, Combine, CombineParam, Values, Wrong};
pub use crate::origin::{Next, Origin, Split, Splits};
pub use crate::outlet::{Opening, Outlet, Output};
pub use crate::plugin::{ColumnArg, FromArg, Params, Stage, Transform};
pub use crate::scalar::Scalar;
pub use crate::spec::{Bound, Call, Complaint, Example, Make, Memory, Setup};
pub use crate::{
    Arena, Batch, Bits, Column, Columns, Data, Emitter, Error, Faults, Field, Flow, Result, RowWise, Schema, Serial,
    Type, Value,
};
pub use standpipe_sdk_macros::{Params, scalar};
