//! The registry of diagnostic codes: what `standpipe explain E0204` prints.
//!
//! Laws
//! - A code is never reused and never changes its meaning; a dead one keeps its row.
//! - Families: E01 syntax, E02 names, E03 types, E04 row errors while running, E05 stages and arguments, E06 inputs and outputs,
//!   E07 budget, E08 plugins, E09 not available yet and our own faults, E10 tests, W00 warnings.
//! - The table is sorted by code.

use std::fmt;

/// A code out of [`ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(&'static str);

impl Code {
    /// The code of this text; one that is not in [`ALL`] is a mistake of ours.
    pub fn new(code: &'static str) -> Code {
        debug_assert!(info(code).is_some(), "{code} is not in the registry");
        Code(code)
    }

    /// `E0204`.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Its row of the registry.
    pub fn info(self) -> Option<&'static CodeInfo> {
        info(self.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A row of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeInfo {
    /// `E0204`.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// What it means and what to do, for `standpipe explain`.
    pub text: &'static str,
}

/// The row of a code, upper or lower case.
pub fn info(code: &str) -> Option<&'static CodeInfo> {
    ALL.iter().find(|row| row.code.eq_ignore_ascii_case(code))
}

const fn row(code: &'static str, title: &'static str, text: &'static str) -> CodeInfo {
    CodeInfo { code, title, text }
}

/// Every code there is or was.
pub const ALL: &[CodeInfo] = &[
    row(
        "E0101",
        "the script is not text",
        "A script is UTF-8. The message names the first byte that is not.",
    ),
    row(
        "E0102",
        "the script is too large",
        "A script has at most 16 MiB. Data belongs in files that `read` reads, or in `from table { }` for small ones.",
    ),
    row(
        "E0103",
        "nested too deeply",
        "Brackets, prefix chains such as `- - -`, `**` chains, `else if` chains and f-strings within f-strings go at most 256 deep, an expression as a whole at most 500. `let`, `fn` and `derive` name the parts; a long chain of `x == 1 or x == 2` is `x in [1, 2]`.",
    ),
    row(
        "E0104",
        "syntax error",
        "The text does not follow the grammar at this place. The message says what could stand here and what was found.",
    ),
    row(
        "E0105",
        "reserved word as a name",
        "`use as param secret let schema fn stage stream from read test by on catch and or not in is if then else match when true false null` are reserved. After a dot and before a colon they are ordinary names; elsewhere a column of that name is written in backticks: `` `from` ``.",
    ),
    row(
        "E0106",
        "unterminated literal",
        "A string, an f-string, a regular expression or a name in backticks has no end. Strings may span lines, so the end may be missing far above the place where things go wrong.",
    ),
    row(
        "E0107",
        "invalid escape",
        "Strings know `\\n \\t \\r \\ \\\" \\0 \\u{1F600}`. A raw string `r\"...\"` takes every character as it is.",
    ),
    row(
        "E0108",
        "invalid number",
        "A number is `1_000`, `0xff`, `1.5` or `2e10`. A letter may follow only as a unit: `90s`, `1h30m`, `64MiB`.",
    ),
    row(
        "E0109",
        "int out of range",
        "An int is a 64-bit signed number, from -9223372036854775808 to 9223372036854775807. Identifiers with more digits are strings, amounts are decimals.",
    ),
    row(
        "E0110",
        "invalid date or timestamp",
        "`@2026-01-31` is a date, `@2026-01-31T10:00`, `@2026-01-31T10:00:05.25Z` and `@2026-01-31T10:00+02:00` are timestamps. The day must exist; without an offset it is UTC.",
    ),
    row(
        "E0111",
        "invalid duration or size",
        "Durations are `90s`, `1h30m`, `2d`, `1w` (also `ms` and `us`), the units in falling order. Sizes are `64MiB`, `10kB`, `1GiB`.",
    ),
    row(
        "E0112",
        "operator of another language",
        "`=` is `==`, `&&` is `and`, `||` is `or`, `!` is `not`, `<>` is `!=`.",
    ),
    row(
        "E0113",
        "single quotes",
        "Text stands in double quotes: `\"text\"`. A column with an unusual name stands in backticks.",
    ),
    row(
        "E0114",
        "chained comparison",
        "`a < b < c` compares a truth value with `c`. The range test is `b in a..c`, or `a < b and b < c`.",
    ),
    row(
        "E0115",
        "operand needs parentheses",
        "The right side of `??` and `catch` is a single term; a longer one stands in parentheses: `x ?? (a + b)`.",
    ),
    row(
        "E0116",
        "missing `|`",
        "Stages are separated by `|`. A new stage on a new line needs one too.",
    ),
    row(
        "E0117",
        "invalid regular expression",
        "The pattern between the slashes is not a regular expression of the `regex` crate, or the flags are not out of `i`, `m` and `s`.",
    ),
    row(
        "E0118",
        "invalid table",
        "A `table { }` has one row a line, the first names the columns, and every row has as many cells; `}` stands on its own line.",
    ),
    row(
        "E0119",
        "given twice",
        "A clause, an option, a field or a parameter stands twice where once is all it can.",
    ),
    row(
        "E0120",
        "invalid f-string",
        "In an f-string `{expr}` or `{expr:spec}` is computed; a brace itself is doubled: `{{` and `}}`. Specs are `.2 >10 <10 ^10 010 ,` or a strftime format for dates.",
    ),
    row(
        "E0121",
        "invalid type",
        "Types are `bool int float decimal(p,s) string bytes date timestamp duration list<T> {a: T} json` and names of schemas; `?` allows null. A decimal has 1 to 38 digits and a scale of at most that.",
    ),
    row(
        "E0122",
        "too many errors",
        "After 50 syntax errors the rest of the script is not read.",
    ),
    row("E0123", "empty", "Something that needs at least one element has none."),
    row(
        "E0124",
        "misplaced",
        "This form exists, but not at this place: a lambda stands only as an argument, a percentage only as the value of an option.",
    ),
    row(
        "E0201",
        "name defined twice",
        "Columns, values, functions, stages, streams and types have one namespace each; a name stands in it once.",
    ),
    row(
        "E0202",
        "name not found",
        "No column, parameter or value has this name here.",
    ),
    row(
        "E0203",
        "stream not found",
        "No `stream` and no `on error to` makes a stream of this name.",
    ),
    row(
        "E0204",
        "column not found",
        "The rows at this point have no such column. The note lists those they have; the schema may have changed in an earlier `select`, `drop` or `aggregate`.",
    ),
    row(
        "E0205",
        "function not found",
        "Neither the script nor the built-ins have a function of this name. `standpipe functions` lists them.",
    ),
    row(
        "E0206",
        "stage not found",
        "Neither the script, its plugins nor the built-ins have a stage of this name. `standpipe stages` lists them.",
    ),
    row(
        "E0207",
        "type not found",
        "No built-in type and no `schema` has this name.",
    ),
    row(
        "E0208",
        "ambiguous name",
        "The name is a column here and also a parameter or a value. `` `name` `` is always the column, `param.name` or `let.name` the value.",
    ),
    row(
        "E0209",
        "nothing uses it",
        "A stream, parameter or value that nothing uses is a mistake more often than not. A leading `_` keeps it: `_name`.",
    ),
    row(
        "E0210",
        "cycle",
        "Declarations that need one another can never be computed. The labels show the way round.",
    ),
    row(
        "E0211",
        "recursive function",
        "A `fn` and a `stage` fragment are put in place where they are called, so they cannot call themselves.",
    ),
    row(
        "E0212",
        "module not found",
        "No `use` introduces this name before the dot.",
    ),
    row("E0213", "field not found", "The record has no such field."),
    row(
        "E0214",
        "parameter not found",
        "A value was given for a parameter that the script does not declare.",
    ),
    row(
        "E0215",
        "parameter without a value",
        "A `param` without a default needs a value: `-p name=value`, or `Pipeline::param`.",
    ),
    row(
        "E0216",
        "name not allowed here",
        "A `fn` sees parameters and values, never columns; a constant sees no columns either.",
    ),
    row(
        "E0217",
        "format not found",
        "`read` and `write` need the name of a format first. `standpipe formats` lists them.",
    ),
    row(
        "E0301",
        "wrong type",
        "An operator, a function or a stage got a value of a type that it does not take.",
    ),
    row(
        "E0302",
        "mixed comparison",
        "Values of different types are not compared, int and float apart. The help shows the cast.",
    ),
    row(
        "E0303",
        "decimal with float",
        "A decimal is exact and a float is not; mixing them must be said: `float(d)` or `decimal(f, 18, 2)`. A literal with a point beside a decimal is a decimal.",
    ),
    row(
        "E0304",
        "not a condition",
        "`filter`, `assert`, `if` and `when` take a bool. Numbers and text are compared first: `x != 0`, `s != \"\"`.",
    ),
    row(
        "E0305",
        "branches differ",
        "The branches of `if` and the arms of `match` must have one type; `null` takes the other's.",
    ),
    row(
        "E0306",
        "may be null",
        "A nullable value stands where null is not allowed. `x ?? default` gives it a value.",
    ),
    row(
        "E0307",
        "constant fails",
        "An expression of constants fails on every run, so it is refused before the first.",
    ),
    row("E0308", "no such cast", "This type cannot be cast to that one."),
    row(
        "E0309",
        "not a key",
        "Lists, records, bytes and json cannot be sorted by; json cannot be grouped or joined by either.",
    ),
    row(
        "E0310",
        "not comparable",
        "Values of this type have no order, or no equality.",
    ),
    row(
        "E0311",
        "schemas differ",
        "The streams that meet here have different columns. `missing: null` fills those that one of them lacks.",
    ),
    row("E0312", "no common type", "The values have no type in common."),
    row("E0313", "element types differ", "The elements of a list have one type."),
    row(
        "E0314",
        "wrong null comparison",
        "`x == null` is understood as `x is null`; other operators with a literal null are always null.",
    ),
    row(
        "E0315",
        "not a constant",
        "A value is needed that is known before the run: a literal, a `let`, a `param`.",
    ),
    row(
        "E0316",
        "null has no type",
        "A value that is always null needs a type here: `int(null)`.",
    ),
    row(
        "E0401",
        "integer overflow",
        "The result does not fit into 64 bits. `float(x)` or `decimal(x, 38, 0)` has room.",
    ),
    row(
        "E0402",
        "division by zero",
        "`/`, `//` and `%` by zero fail on ints and decimals. `x / y catch null` or a filter before it handles such rows.",
    ),
    row(
        "E0403",
        "index out of range",
        "Indexes count from 0, negative ones from the end.",
    ),
    row(
        "E0404",
        "value out of range",
        "The value does not fit the type or the function's domain.",
    ),
    row(
        "E0405",
        "assertion failed",
        "The condition of an `assert` was false or null for this row.",
    ),
    row(
        "E0406",
        "null not allowed",
        "A null came where the schema or a parameter says there is none.",
    ),
    row(
        "E0407",
        "ragged row",
        "The row has more or fewer cells than the header. `ragged: pad` fills short rows with nulls.",
    ),
    row(
        "E0408",
        "invalid UTF-8",
        "Input is UTF-8. `encoding: latin1` decodes, `encoding: lossy` replaces what is not.",
    ),
    row(
        "E0409",
        "malformed record",
        "The record breaks the rules of its format, such as a quote without end in CSV or broken JSON.",
    ),
    row(
        "E0410",
        "record too long",
        "A single record is larger than `max_record`.",
    ),
    row(
        "E0411",
        "type conflict in the data",
        "The value does not have the type that was declared, or that the sample showed. `schema:` declares it.",
    ),
    row(
        "E0412",
        "parse failure",
        "Text could not be read as the type asked for. `int(raw) catch 0` gives a value instead, `on error to rejects` keeps the row aside.",
    ),
    row(
        "E0413",
        "decimal does not fit",
        "The result has more digits than a decimal can have.",
    ),
    row(
        "E0414",
        "too many row errors",
        "The `limit` of an `on error` was reached.",
    ),
    row(
        "E0415",
        "not in order",
        "The stage needs its input sorted, and this row comes too late.",
    ),
    row(
        "E0416",
        "missing field",
        "A json value has no such field or element. `?.` makes it null.",
    ),
    row("E0417", "late row", "The row is older than the watermark less `late:`."),
    row(
        "E0418",
        "ambiguous result",
        "More than one value stands where one is allowed.",
    ),
    row(
        "E0419",
        "field not declared",
        "The record has a field that the schema does not, and `extra: error` is set.",
    ),
    row(
        "E0501",
        "wrong argument",
        "The stage or function takes this argument, but not this value.",
    ),
    row("E0502", "argument missing", "A required argument is not given."),
    row(
        "E0503",
        "argument not known",
        "The stage or function has no argument or option of this name.",
    ),
    row(
        "E0504",
        "too many arguments",
        "The call has more arguments than the declaration.",
    ),
    row(
        "E0505",
        "mode not known",
        "The word behind the stage's name is none of its modes. If it is a column, a comma or a `|` is missing.",
    ),
    row(
        "E0506",
        "argument given twice",
        "The same argument is given by position and by name, or twice by name.",
    ),
    row(
        "E0507",
        "column exists already",
        "`derive` adds columns; an existing one is replaced with `set`.",
    ),
    row(
        "E0508",
        "names collide",
        "Two columns of the result would have the same name. `as` puts the right side of a join into one record.",
    ),
    row(
        "E0509",
        "no sink",
        "Only the last pipeline may end without `write` or `route`.",
    ),
    row(
        "E0510",
        "stages behind a sink",
        "`write` and `route` end a pipeline. `tee { }` gives a copy and goes on.",
    ),
    row(
        "E0511",
        "clause not allowed",
        "The stage has no `as`, `by`, `on`, `on error` or block.",
    ),
    row("E0512", "no columns", "The result would have no columns."),
    row(
        "E0513",
        "attribute not known",
        "The script attributes are `@budget`, `@on_error` and `@checkpoint`.",
    ),
    row(
        "E0514",
        "aggregate outside `aggregate`",
        "Aggregate functions stand in `aggregate`, `window` and `pivot`.",
    ),
    row(
        "E0515",
        "item needs a name",
        "An expression that is not a column needs a name: `total = price * qty`.",
    ),
    row(
        "E0516",
        "not an aggregate",
        "Every item of `aggregate` combines aggregate functions of the input.",
    ),
    row(
        "E0517",
        "wrong number of arguments",
        "The function takes another number of arguments.",
    ),
    row(
        "E0518",
        "pipeline too long",
        "A path through the graph has at most 1,000 stages.",
    ),
    row(
        "E0519",
        "invalid pattern",
        "The pattern of `parse` or the spec of an f-string cannot be understood.",
    ),
    row(
        "E0520",
        "input not sorted",
        "The stage needs its input in an order that nothing before it guarantees.",
    ),
    row(
        "E0521",
        "window function elsewhere",
        "`lag`, `lead`, `row_number`, `rank` and `dense_rank` stand in a `window` of rows: `window before = lag(x)`.",
    ),
    row("E0601", "file not found", "The path, or the glob, matches no file."),
    row(
        "E0602",
        "file not readable",
        "The operating system refuses to read the file.",
    ),
    row(
        "E0603",
        "file not writable",
        "The operating system refuses to write the file, or the disk is full.",
    ),
    row(
        "E0604",
        "no schema",
        "The input is empty, so nothing can be inferred. `schema:` declares the columns.",
    ),
    row(
        "E0605",
        "column missing in the input",
        "A declared column is not in the file. `missing: null` reads it as null.",
    ),
    row(
        "E0606",
        "column not declared",
        "The file has a column that the schema does not, and `extra: error` is set.",
    ),
    row(
        "E0607",
        "two writers for one path",
        "Each path is written by one sink; `append: true` or `union` joins the rows.",
    ),
    row(
        "E0608",
        "files differ",
        "All files of one `read` have the same columns.",
    ),
    row(
        "E0609",
        "paths must be constant",
        "The path of `read` and `write` is known before the run: literals, `let` and `param`.",
    ),
    row(
        "E0610",
        "compression fails",
        "The compressed data is damaged or ends early.",
    ),
    row(
        "E0611",
        "standard stream used twice",
        "Standard input is read, and standard output written, by one stage only.",
    ),
    row(
        "E0612",
        "output closed",
        "The reader of the output went away before the end.",
    ),
    row(
        "E0701",
        "out of memory",
        "The run reached its memory limit in a stage that cannot spill. `--memory` or `@budget(memory:)` raises it.",
    ),
    row(
        "E0702",
        "limit too small",
        "The script cannot run within this limit. `explain --memory` shows what it is made of.",
    ),
    row(
        "E0703",
        "out of disk",
        "The run reached its disk limit. `--disk` or `@budget(disk:)` raises it.",
    ),
    row(
        "E0704",
        "spill failed",
        "A spill file could not be written or read back.",
    ),
    row("E0705", "invalid limit", "A limit is a size such as `256MiB`."),
    row(
        "E0801",
        "plugin not found",
        "No plugin of this name is in the project file, or its file is not there. `standpipe plugin list` shows what the project has.",
    ),
    row(
        "E0802",
        "plugin not trusted",
        "The plugin's file is not the one that `standpipe.lock` names, is not in it, can be changed by anyone, or lies outside the project; or anyone can change the project file or the lock. Nothing of it has run. `standpipe plugin list` says what is wrong, `standpipe plugin lock` trusts the files as they are.",
    ),
    row(
        "E0803",
        "plugin does not load",
        "The library cannot be loaded, or has no valid entry point.",
    ),
    row(
        "E0804",
        "plugin version",
        "The plugin's version, or its ABI, does not fit.",
    ),
    row(
        "E0805",
        "plugin failed",
        "The plugin reported an error or broke its contract.",
    ),
    row(
        "E0806",
        "plugin process lost",
        "A plugin with `isolate = \"process\"` crashed, exited, did not answer in time, or took more memory than it may. `timeout` and `memory` beside `isolate` in the project file are its limits.",
    ),
    row(
        "E0901",
        "not available yet",
        "The language has this form and this version cannot run it yet.",
    ),
    row(
        "E0902",
        "stage not available yet",
        "The language has this stage and this version cannot run it yet.",
    ),
    row(
        "E0903",
        "function not available yet",
        "The language has this function and this version cannot run it yet.",
    ),
    row(
        "E0904",
        "format not available yet",
        "The language has this format and this version cannot read or write it yet.",
    ),
    row(
        "E0998",
        "run stopped",
        "The run was interrupted; nothing was published.",
    ),
    row(
        "E0999",
        "internal error",
        "Standpipe itself is wrong here. A report with the script helps.",
    ),
    row(
        "E1001",
        "input is not replaced",
        "A test reads nothing from outside: each input that it needs is replaced by `given`.",
    ),
    row(
        "E1002",
        "nothing to replace",
        "No `read` of the script has the path that `given` names, or nothing uses what `with` replaces of a plugin: the rows would go nowhere.",
    ),
    row(
        "E1003",
        "given rows do not fit",
        "The rows that a test gives lack a column, have one too many, or hold a value that is not of the column's type.",
    ),
    row(
        "E1004",
        "expectation does not fit",
        "What a test expects can never be: a column or an output is not there, or the value is of another type.",
    ),
    row(
        "E1005",
        "not part of a test file",
        "A file of tests holds `test` declarations only; all others belong into its script.",
    ),
    row(
        "E1006",
        "not in the test's table",
        "A test puts a table in the place of a plugin's function or stage, and no row of it has the values asked for: an error of the row.",
    ),
    row(
        "W0001",
        "hides a built-in",
        "The script's own function or stage has the name of a built-in and wins over it.",
    ),
    row("W0002", "always null", "The expression is null for every row."),
    row(
        "W0003",
        "always true or false",
        "The condition does not depend on the row.",
    ),
    row("W0004", "unused column", "The column is computed and nothing uses it."),
    row(
        "W0005",
        "column renamed",
        "An empty or repeated header became another name.",
    ),
    row(
        "W0006",
        "value lost in the format",
        "The output format cannot show this value and writes null.",
    ),
    row(
        "W0007",
        "fields ignored",
        "Fields that first appear after the sample are ignored.",
    ),
    row(
        "W0008",
        "comparison with null",
        "`x == null` is understood as `x is null`.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_something() {
        for pair in ALL.windows(2) {
            // `E` sorts before `W`.
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
        for row in ALL {
            assert!(
                row.code.len() == 5 && (row.code.starts_with('E') || row.code.starts_with('W')),
                "{}",
                row.code
            );
            assert!(!row.title.is_empty() && row.text.ends_with('.'), "{}", row.code);
            assert!(!row.text.to_lowercase().contains(" you"), "{}", row.code);
        }
    }

    #[test]
    fn codes_are_found_in_any_case() {
        assert_eq!(info("e0204").map(|row| row.title), Some("column not found"));
        assert_eq!(info("E9999"), None);
    }
}
