//! The ground floor of Standpipe: what a stage, a format or a function is written against, built-in or plugin.
//!
//! A pipeline moves [`Batch`]es of [`Column`]s. Everything in a batch borrows from the [`Arena`] of its chunk, and resetting
//! the arena takes `&mut`: the borrow checker proves that nothing outlives its chunk. Stages are described by `const`
//! [`spec::StageSpec`]s and run as [`RowWise`], [`Serial`], [`Breaker`], [`Source`] or [`Sink`] objects.
//!
//! Laws
//! - Columns have Arrow's layout: LSB-first validity bitmaps (1 = valid), 16-byte string views, 32-bit list offsets.
//! - Every allocation that grows with the data can be refused; nobody here aborts for lack of memory.
//! - Nothing here knows a stage, a format or a function by name.
//!
//! Authors of plugins start at [`plugin`].

// What the macros write names this crate, also in here.
extern crate self as standpipe_sdk;

pub mod aggregate;
pub mod arena;
pub mod batch;
pub mod bits;
pub mod budget;
pub mod build;
pub mod cells;
pub mod column;
pub mod combine;
pub mod counting;
pub mod error;
pub mod fault;
pub mod ffi;
#[doc(hidden)]
pub mod guest;
pub mod interleave;
pub mod kept;
pub mod origin;
pub mod outlet;
pub mod place;
pub mod plugin;
pub mod prelude;
pub mod scalar;
pub mod spec;
pub mod spill;
pub mod stage;
pub mod testing;
pub mod text;
pub mod types;
pub mod value;
pub mod values;

pub use arena::Arena;
pub use batch::Batch;
pub use bits::Bits;
pub use budget::{Budget, Reservation};
pub use cells::{Cells, Grid};
pub use column::{Column, Columns, Data, ListData, RecordData};
pub use error::{Code, Error, Result, RowError, Span};
pub use fault::{Fault, Faults, Verdict};
pub use kept::Kept;
pub use place::{Locator, Place, Trace};
pub use spill::{Disk, DiskReservation, OutOfDisk, Spill, Spilled};
pub use stage::{
    Breaker, Build, Downstream, Emitter, Fill, Flow, Hold, Judge, Made, Part, Prepare, Probe, Published, Reader, Rest,
    RowWise, Serial, Sink, Source, Waiting, Writer,
};
pub use text::{Text, View};
pub use types::{Field, Item, Schema, Type};
pub use value::{Cell, Value};

/// Makes a library a plugin: the entry point, the tables behind it, the description that tools read, and a heap that is counted.
///
/// `export! { id: "org.example.geo", functions: [haversine], stages: [Locate] }`; scripts say the last word of the id. Once per
/// library, whose `Cargo.toml` says `crate-type = ["cdylib"]`.
#[macro_export]
macro_rules! export {
    (
        id: $id:literal
        $(, functions: [$($function:path),* $(,)?])?
        $(, stages: [$($stage:ty),* $(,)?])?
        $(, sources: [$($source:ty),* $(,)?])?
        $(, sinks: [$($sink:ty),* $(,)?])?
        $(, aggregates: [$($aggregate:ty),* $(,)?])?
        $(,)?
    ) => {
        #[allow(unsafe_code)]
        const _: () = {
            #[cfg(panic = "abort")]
            ::std::compile_error!("a plugin must be able to catch its panics: `panic = \"abort\"` cannot be");

            use $crate::guest::describe;
            const MANIFEST: describe::Manifest = describe::Manifest {
                id: $id,
                version: ::std::env!("CARGO_PKG_VERSION"),
                license: ::std::env!("CARGO_PKG_LICENSE"),
                functions: &[$($(&<$function as $crate::scalar::Scalar>::SPEC),*)?],
                stages: &[
                    $($(&<$stage as $crate::plugin::Stage>::SPEC,)*)?
                    $($(&<$source as $crate::origin::Exported>::SPEC.stage,)*)?
                    $($(&<$sink as $crate::outlet::Exported>::SPEC,)*)?
                ],
                aggregates: &[$($(&<$aggregate as $crate::combine::Aggregated>::SPEC),*)?],
            };
            static NOTE: [u8; describe::note_len(&MANIFEST)] = describe::note(&MANIFEST);
            static ID: [u8; MANIFEST.id.len() + 1] = describe::with_nul(MANIFEST.id);
            static VERSION: [u8; MANIFEST.version.len() + 1] = describe::with_nul(MANIFEST.version);
            static LICENSE: [u8; MANIFEST.license.len() + 1] = describe::with_nul(MANIFEST.license);
            static TABLE: &[&$crate::guest::Guest] = &[
                $($({
                    const SPEC: &$crate::scalar::ScalarSpec = &<$function as $crate::scalar::Scalar>::SPEC;
                    static NAME: [u8; SPEC.name.len() + 1] = describe::with_nul(SPEC.name);
                    static ABOUT: [u8; SPEC.about.len() + 1] = describe::with_nul(SPEC.about);
                    static PARAMS: [u8; describe::function_params_len(SPEC)] = describe::function_params(SPEC);
                    static GUEST: $crate::guest::Guest = $crate::guest::Guest::function(SPEC, &NAME, &ABOUT, &PARAMS);
                    &GUEST
                },)*)?
                $($({
                    const SPEC: &$crate::spec::StageSpec = &<$stage as $crate::plugin::Stage>::SPEC;
                    static NAME: [u8; SPEC.name.len() + 1] = describe::with_nul(SPEC.name);
                    static ABOUT: [u8; SPEC.about.len() + 1] = describe::with_nul(SPEC.about);
                    static PARAMS: [u8; describe::stage_params_len(SPEC)] = describe::stage_params(SPEC);
                    static GUEST: $crate::guest::Guest = $crate::guest::Guest::stage(SPEC, &NAME, &ABOUT, &PARAMS);
                    &GUEST
                },)*)?
                $($({
                    const SOURCE: &$crate::origin::OriginSpec = &<$source as $crate::origin::Exported>::SPEC;
                    const SPEC: &$crate::spec::StageSpec = &SOURCE.stage;
                    static NAME: [u8; SPEC.name.len() + 1] = describe::with_nul(SPEC.name);
                    static ABOUT: [u8; SPEC.about.len() + 1] = describe::with_nul(SPEC.about);
                    static PARAMS: [u8; describe::stage_params_len(SPEC)] = describe::stage_params(SPEC);
                    static GUEST: $crate::guest::Guest = $crate::guest::Guest::source(SOURCE, &NAME, &ABOUT, &PARAMS);
                    &GUEST
                },)*)?
                $($({
                    const SPEC: &$crate::spec::StageSpec = &<$sink as $crate::outlet::Exported>::SPEC;
                    static NAME: [u8; SPEC.name.len() + 1] = describe::with_nul(SPEC.name);
                    static ABOUT: [u8; SPEC.about.len() + 1] = describe::with_nul(SPEC.about);
                    static PARAMS: [u8; describe::stage_params_len(SPEC)] = describe::stage_params(SPEC);
                    static GUEST: $crate::guest::Guest = $crate::guest::Guest::sink(SPEC, &NAME, &ABOUT, &PARAMS);
                    &GUEST
                },)*)?
                $($({
                    const SPEC: &$crate::combine::CombineSpec = &<$aggregate as $crate::combine::Aggregated>::SPEC;
                    static NAME: [u8; SPEC.name.len() + 1] = describe::with_nul(SPEC.name);
                    static ABOUT: [u8; SPEC.about.len() + 1] = describe::with_nul(SPEC.about);
                    static PARAMS: [u8; describe::aggregate_params_len(SPEC)] = describe::aggregate_params(SPEC);
                    static GUEST: $crate::guest::Guest = $crate::guest::Guest::aggregate(SPEC, &NAME, &ABOUT, &PARAMS);
                    &GUEST
                },)*)?
            ];
            static PLUGIN: $crate::ffi::Plugin = $crate::guest::plugin(&ID, &VERSION, &LICENSE, &NOTE, TABLE);

            #[global_allocator]
            static HEAP: $crate::counting::Counting = $crate::counting::Counting;

            // SAFETY: the name is the one that the ABI reserves for this; a library that exports twice does not link.
            #[unsafe(no_mangle)]
            extern "C" fn standpipe_plugin_entry_v1() -> *const $crate::ffi::Plugin {
                &raw const PLUGIN
            }
        };
    };
}
