//! Codes of what the built-in stages complain about; the registry of `diag` has their texts.

use standpipe_sdk::aggregate::Aggregate;
use standpipe_sdk::error::{Code, Error};
use std::sync::Arc;

/// The condition of `assert` is false or null.
pub const ASSERT_FAILED: Code = Code(405);

/// A record that a stage makes is longer than `max_record`.
pub const OVERLONG: Code = Code(410);

/// A row is before one that came before it, where rows must be sorted.
pub const NOT_SORTED: Code = Code(415);

/// A row is further before the latest one than `late:` allows, or has no time.
pub const LATE: Code = Code(417);

/// A column that must exist does not.
pub const NO_SUCH_COLUMN: Code = Code(204);
/// Something else than a list where a list is needed.
pub const NOT_A_LIST: Code = Code(301);
/// Another type than the one that is needed.
pub const OTHER_TYPE: Code = Code(301);
/// The type has no order, or is no key at all.
pub const NO_KEY: Code = Code(309);
/// Streams that cannot be put end to end: other columns.
pub const OTHER_COLUMNS: Code = Code(311);
/// Streams that cannot be put end to end: other types.
pub const OTHER_TYPES: Code = Code(312);

/// A count is negative, an option has a value that it cannot have.
pub const WRONG_ARGUMENT: Code = Code(501);
/// `number` without `as`.
pub const NEEDS_AS: Code = Code(502);
/// A window in time without `on`.
pub const NEEDS_ON: Code = Code(502);
/// A column is named twice.
pub const NAMED_TWICE: Code = Code(506);
/// A new column has the name of one that exists.
pub const COLUMN_EXISTS: Code = Code(507);
/// Two columns of a result have one name.
pub const SAME_NAME_TWICE: Code = Code(508);
/// Every column would be dropped.
pub const NOTHING_LEFT: Code = Code(512);
/// An expression without a name.
pub const NEEDS_NAME: Code = Code(515);

/// What a stage has to hold does not fit into the memory of the run.
pub const HELD_TOO_MUCH: Code = Code(701);
pub use standpipe_sdk::values::BAD_CONSTANT;

/// The refusal of a reservation, said by the stage that needs it.
///
/// It is no longer `Error::Memory`: that would make the runtime try the same rows in smaller batches, and what is held does not
/// get smaller by that.
pub fn held(stage: &str, error: Error) -> Error {
    match error {
        Error::Memory { wanted, used, limit } => Error::Failed {
            code: HELD_TOO_MUCH,
            message: format!("`{stage}` needs {wanted} bytes more beside {used} in use; the limit is {limit}"),
            help: Some("a larger `--memory` or `@budget(memory: …)`".into()),
            span: None,
        },
        other => other,
    }
}

/// The same, of a stage that keeps states of these: one may have a limit of its own.
pub fn held_by<'a>(stage: &str, error: Error, aggregates: impl IntoIterator<Item = &'a Arc<dyn Aggregate>>) -> Error {
    let Error::Memory { wanted, used, limit } = error else {
        return error;
    };
    let Some(limited) = aggregates.into_iter().find(|one| one.ceiling() == Some(limit)) else {
        return held(stage, error);
    };
    Error::Failed {
        code: HELD_TOO_MUCH,
        message: format!(
            "`{stage}` needs {wanted} bytes more for states of `{}` beside {used} in use; the limit of these is {limit}, half of what \
             one of its processes may take",
            limited.name()
        ),
        help: Some("a larger `memory` of the plugin in `standpipe.toml`".into()),
        span: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_text() {
        let rows = [ASSERT_FAILED, OVERLONG, NOT_SORTED, LATE, HELD_TOO_MUCH, BAD_CONSTANT];
        let types = [NO_SUCH_COLUMN, NOT_A_LIST, NO_KEY, OTHER_COLUMNS, OTHER_TYPES];
        let arguments = [
            WRONG_ARGUMENT,
            NEEDS_AS,
            NEEDS_ON,
            NAMED_TWICE,
            COLUMN_EXISTS,
            SAME_NAME_TWICE,
            NOTHING_LEFT,
            NEEDS_NAME,
        ];
        for code in rows.iter().chain(&types).chain(&arguments) {
            assert!(crate::diag::codes::info(&code.to_string()).is_some(), "{code}");
        }
    }
}
