//! The codes this room gives out. Never reused; their long texts are in `diag`.

use standpipe_sdk::Code;

/// An operator does not take these types.
pub const OPERATOR: Code = Code(301);
/// A decimal beside a float.
pub const DECIMAL_WITH_FLOAT: Code = Code(303);
/// These types cannot be compared.
pub const COMPARE: Code = Code(302);
/// A condition is not a bool.
pub const CONDITION: Code = Code(304);
/// No function of this name.
pub const FUNCTION: Code = Code(205);
/// Wrong arguments for a function.
pub const ARGUMENT: Code = Code(501);
/// No such field.
pub const FIELD: Code = Code(213);
/// A regular expression that cannot be compiled.
pub const REGEX: Code = Code(117);
/// Branches or elements of different types.
pub const BRANCH: Code = Code(305);
/// A format specification that does not fit.
pub const FORMAT: Code = Code(519);
/// No cast between these types.
pub const CAST: Code = Code(308);
/// No implicit conversion between these types.
pub const CONVERT: Code = Code(301);
/// No decimal type has so many digits.
pub const DECIMAL_TYPE: Code = Code(121);

/// A number that does not fit its type.
pub const OVERFLOW: Code = Code(401);
/// Division by zero.
pub const DIVISION: Code = Code(402);
/// A negative exponent between ints.
pub const EXPONENT: Code = Code(404);
/// An index outside a list.
pub const INDEX: Code = Code(403);
/// A list or text of a group is longer than a record may be.
pub const OVERLONG: Code = Code(410);
/// A field that a json value does not have.
pub const MISSING: Code = Code(416);
/// A function's argument is out of its domain.
pub const DOMAIN: Code = Code(404);
/// A value that the target of a cast cannot hold.
pub const UNFIT: Code = Code(404);
/// A text that is no value of the type.
pub const PARSE: Code = Code(412);
/// A json value of another kind than the cast expects.
pub const JSON_KIND: Code = Code(411);
/// A date or timestamp outside the years -9999 to 9999.
pub const TIME_RANGE: Code = Code(404);
