//! The syntax tree of a script: plain owned data with byte spans, nothing resolved.
//!
//! Laws
//! - No stage, function or column is known here by name: `read csv "x"` and `geo.locate p` are both a [`StageCall`].
//! - Every node's span covers its text in the script, parentheses included.
//! - Literals are already values (escapes undone, dates validated); the text is in the script under the span.
//! - What could not be read is [`ExprKind::Error`] or left out; then the parse has an error diagnostic.

use crate::diag::Span;

/// A whole script.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script {
    /// The `##` block at the top, if it documents the script and not its first declaration.
    pub doc: Option<String>,
    /// The statements in the order of the text.
    pub items: Vec<Item>,
    /// The whole text.
    pub span: Span,
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The `##` lines directly above it, without the marks, joined by newlines.
    pub doc: Option<String>,
    /// What it declares or does.
    pub kind: ItemKind,
    /// From its first word to its last.
    pub span: Span,
}

/// The kinds of statement.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemKind {
    /// `use "lib/clean.pipe" as clean`, `use plugin geo (">=1.2, <2")`.
    Use(Use),
    /// `param day: date = @2026-01-31`.
    Param(Param),
    /// `secret pg`.
    Secret(Secret),
    /// `let vat = 0.19`.
    Let(Let),
    /// `schema Order { id: int }`.
    Schema(Schema),
    /// `fn gross(net: float) = net * 1.19`.
    Fn(FnDef),
    /// `stage latest(keys: cols) { sort keys | take 1 by keys }`.
    Stage(StageDef),
    /// `stream paid = read …`.
    Stream(Stream),
    /// `from paid | … | write …`.
    Pipeline(Pipeline),
    /// `test "name" { … }`.
    Test(Test),
    /// `@budget(memory: 256MiB)`.
    Attribute(Attribute),
}

/// A name as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Ident {
    /// Without backticks.
    pub text: String,
    /// Written in backticks: always the column.
    pub quoted: bool,
    /// Backticks included.
    pub span: Span,
}

impl Ident {
    /// Whether it is a plain name with this text.
    pub fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// A string literal where only a string may stand (paths, test names).
#[derive(Debug, Clone, PartialEq)]
pub struct Str {
    /// With the escapes undone.
    pub value: String,
    /// Quotes included.
    pub span: Span,
}

/// Another script or a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// What is used.
    pub target: UseTarget,
    /// `as clean`; scripts need one, a plugin is called by its own name without.
    pub alias: Option<Ident>,
}

/// What a `use` names.
#[derive(Debug, Clone, PartialEq)]
pub enum UseTarget {
    /// A path relative to the using file.
    Script(Str),
    /// A plugin and the versions it may have.
    Plugin {
        /// Its name.
        name: Ident,
        /// `">=1.2, <2"`.
        version: Option<Str>,
    },
}

/// A value from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: Ident,
    /// `None` when choices stand in the type's place.
    pub ty: Option<TypeExpr>,
    /// `param tier: "gold" | "free"`: the literals it may be; empty if a type is given.
    pub choices: Vec<Expr>,
    /// Without one the value is required.
    pub default: Option<Expr>,
}

/// A value that is never shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// Its name.
    pub name: Ident,
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Let {
    /// Its name.
    pub name: Ident,
    /// Its value.
    pub value: Expr,
}

/// A named record type.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Its name.
    pub name: Ident,
    /// Its fields in order.
    pub fields: Vec<FieldDef>,
}

/// `id: int` in a schema or a record type.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldDef {
    /// The field's name.
    pub name: Ident,
    /// The field's type.
    pub ty: TypeExpr,
    /// Name and type.
    pub span: Span,
}

/// A scalar function.
#[derive(Debug, Clone, PartialEq)]
pub struct FnDef {
    /// Its name.
    pub name: Ident,
    /// Its parameters.
    pub params: Vec<FnParam>,
    /// `fn f(x: int): float = …`; inferred from the body if absent.
    pub returns: Option<TypeExpr>,
    /// What it computes.
    pub body: Expr,
}

/// A parameter of a `fn` or of a `stage` fragment (there also of the types `col` and `cols`).
#[derive(Debug, Clone, PartialEq)]
pub struct FnParam {
    /// Its name.
    pub name: Ident,
    /// Its type; `col` and `cols` are [`TypeKind::Named`].
    pub ty: TypeExpr,
    /// Its value when the call leaves it out.
    pub default: Option<Expr>,
    /// Name, type and default.
    pub span: Span,
}

/// A pipeline fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct StageDef {
    /// Its name.
    pub name: Ident,
    /// Its parameters.
    pub params: Vec<FnParam>,
    /// The stages it stands for; never empty.
    pub body: Vec<StageCall>,
}

/// A named stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name.
    pub name: Ident,
    /// What it holds.
    pub pipeline: Pipeline,
}

/// Where rows come from and the stages they go through.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The source.
    pub head: Head,
    /// What stands behind the bars.
    pub stages: Vec<StageCall>,
    /// From the head to the last stage.
    pub span: Span,
}

/// The start of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Which source.
    pub kind: HeadKind,
    /// Its text.
    pub span: Span,
}

/// The sources a pipeline can start with.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadKind {
    /// `from paid`.
    Stream(Ident),
    /// `from table { … }`.
    Table(Table),
    /// `from rows [ {a: 1} ]`: the elements.
    Rows(Vec<Expr>),
    /// `from range(1, 100)`: the arguments.
    Range(Vec<Arg>),
    /// `read csv "x.csv"`: the call's name is `read`.
    Read(StageCall),
}

/// `table { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The names in the first line.
    pub columns: Vec<Ident>,
    /// The lines below; each has as many cells as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// From `table` to the brace.
    pub span: Span,
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// As written, trimmed; of a quoted string the string. In `given` it is read as the replaced column's type.
    pub text: String,
    /// What it is by itself.
    pub value: CellValue,
    /// Without the blanks around; empty for an empty cell.
    pub span: Span,
}

/// What a cell is by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum CellValue {
    /// Nothing between the bars: null.
    Empty,
    /// A literal, a string in quotes among them.
    Literal(Expr),
    /// Bare text.
    Text,
}

/// A stage as written: `name mode? items (as NAME | by … | on … | key: value)* { block }? on error …?`.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCall {
    /// `filter`, `geo.locate`: one or two names.
    pub name: Vec<Ident>,
    /// The one mode word: `csv` in `read csv "x"`, `left` in `join left s`. A lone word as in `write none` is an item.
    pub mode: Option<Ident>,
    /// What stands between commas before the clauses.
    pub items: Vec<StageItem>,
    /// `as c`.
    pub as_name: Option<Ident>,
    /// `by a, d = date(at)`.
    pub by: Vec<StageItem>,
    /// `on -a, b`, `on a == b`.
    pub on: Vec<StageItem>,
    /// `key: value`, in order; `with "…"` is the option `with`.
    pub options: Vec<StageOption>,
    /// `{ when … }`, `{ filter … }`.
    pub block: Option<Block>,
    /// `on error …`.
    pub on_error: Option<OnError>,
    /// From the name to the last clause.
    pub span: Span,
}

impl StageCall {
    /// The name as one text: `geo.locate`.
    pub fn full_name(&self) -> String {
        self.name
            .iter()
            .map(|part| part.text.as_str())
            .collect::<Vec<_>>()
            .join(".")
    }

    /// The span of the name.
    pub fn name_span(&self) -> Span {
        self.name
            .iter()
            .map(|part| part.span)
            .reduce(Span::to)
            .unwrap_or(self.span)
    }

    /// The plugin's word behind the name, `synth.rows` of `read synth.rows`, and how many items it takes up.
    pub fn member(&self) -> Option<(Ident, Ident, usize)> {
        if let Some(mode) = &self.mode {
            let (module, name) = mode.text.split_once('.')?;
            let part = |text: &str, start: u32| Ident {
                text: text.to_owned(),
                quoted: false,
                span: Span {
                    start,
                    end: start + text.len() as u32,
                },
            };
            let name = part(name, mode.span.end.saturating_sub(name.len() as u32));
            return Some((part(module, mode.span.start), name, 0));
        }
        match &self.items.first()?.expr()?.kind {
            ExprKind::Field {
                receiver,
                name,
                optional: false,
            } => Some((receiver.as_name()?.clone(), name.clone(), 1)),
            _ => None,
        }
    }

    /// The first option of that name.
    pub fn option(&self, name: &str) -> Option<&StageOption> {
        self.options.iter().find(|option| option.name.text == name)
    }
}

/// One item of a stage, of `by` or of `on`.
#[derive(Debug, Clone, PartialEq)]
pub struct StageItem {
    /// `x` of `x = expr`.
    pub name: Option<Ident>,
    /// What it is.
    pub value: ItemValue,
    /// Name and value.
    pub span: Span,
}

/// What an item can be.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemValue {
    /// An expression.
    Expr(Expr),
    /// `*`.
    All,
    /// `c.*`: all fields of the record column.
    AllOf(Ident),
}

impl StageItem {
    /// The expression, `None` for the star forms.
    pub fn expr(&self) -> Option<&Expr> {
        match &self.value {
            ItemValue::Expr(expr) => Some(expr),
            ItemValue::All | ItemValue::AllOf(_) => None,
        }
    }

    /// Whether it is `-something`: in a sort key, descending. `-a + b` is not, `(-a)` is not.
    pub fn descending(&self) -> bool {
        matches!(
            self.expr(),
            Some(Expr {
                kind: ExprKind::Unary { op: UnaryOp::Neg, .. },
                parenthesised: false,
                ..
            })
        )
    }

    /// As a sort key: the expression without the leading `-`, and whether it had one.
    pub fn key(&self) -> Option<(&Expr, bool)> {
        match self.expr()? {
            Expr {
                kind:
                    ExprKind::Unary {
                        op: UnaryOp::Neg,
                        operand,
                        ..
                    },
                parenthesised: false,
                ..
            } => Some((operand, true)),
            expr => Some((expr, false)),
        }
    }
}

/// `key: value` of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageOption {
    /// The key.
    pub name: Ident,
    /// The value.
    pub value: OptionValue,
    /// Key and value.
    pub span: Span,
}

/// The value of an option. Text that can be both is a type if it names a built-in type (`a: int`, `at: date`) and an
/// expression otherwise (`schema: Order`); [`OptionValue::to_expr`] and [`OptionValue::to_type`] read it the way the
/// stage's declaration wants it.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// `true`, `[a, b]`, `-6..0`, `sum(v)`.
    Expr(Expr),
    /// `int`, `list<string?>`, `decimal(10, 2)`.
    Type(TypeExpr),
    /// `1%`.
    Percent {
        /// 1 for `1%`.
        value: f64,
        /// Number and sign.
        span: Span,
    },
    /// `..`, `..0`, `5..`; with both ends it is an expression.
    OpenRange {
        /// The lower end.
        low: Option<Expr>,
        /// The upper end.
        high: Option<Expr>,
        /// From end to end.
        span: Span,
    },
}

impl OptionValue {
    /// Its text.
    pub fn span(&self) -> Span {
        match self {
            OptionValue::Expr(expr) => expr.span,
            OptionValue::Type(ty) => ty.span,
            OptionValue::Percent { span, .. } | OptionValue::OpenRange { span, .. } => *span,
        }
    }

    /// As an expression: a type that is only a name (`date`) is that name, `decimal(10, 2)` is that call.
    pub fn to_expr(&self) -> Option<Expr> {
        match self {
            OptionValue::Expr(expr) => Some(expr.clone()),
            OptionValue::Type(ty) => ty.to_expr(),
            OptionValue::Percent { .. } | OptionValue::OpenRange { .. } => None,
        }
    }

    /// As a type: a name (`Order`, `clean.Order`) or a record of types.
    pub fn to_type(&self) -> Option<TypeExpr> {
        match self {
            OptionValue::Type(ty) => Some(ty.clone()),
            OptionValue::Expr(expr) => expr.to_type(),
            OptionValue::Percent { .. } | OptionValue::OpenRange { .. } => None,
        }
    }
}

/// `{ … }` behind a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// What stands in it.
    pub kind: BlockKind,
    /// Braces included.
    pub span: Span,
}

/// The two blocks there are.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockKind {
    /// `when cond => target, else => target`; the `else` arm comes last.
    Arms(Vec<RouteArm>),
    /// `filter a | write csv "a.csv"`: stages that get a copy. Never empty.
    Stages(Vec<StageCall>),
}

/// One arm of a `route`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteArm {
    /// `None` for `else`.
    pub condition: Option<Expr>,
    /// The stream it makes; `_` discards and counts.
    pub target: Ident,
    /// The whole arm.
    pub span: Span,
}

/// `on error to rejects limit: 1%`.
#[derive(Debug, Clone, PartialEq)]
pub struct OnError {
    /// What happens to a row that fails.
    pub policy: Policy,
    /// When it is too many.
    pub limit: Option<ErrorLimit>,
    /// From `on` to the limit.
    pub span: Span,
}

/// What happens to a row that fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// The run ends.
    Fail,
    /// The row goes and is counted.
    Skip,
    /// The failing expression or cell is null.
    Null,
    /// The row goes to that stream; `_` discards and counts.
    To(Ident),
}

/// How many failing rows are too many.
#[derive(Debug, Clone, PartialEq)]
pub enum ErrorLimit {
    /// An expression: a literal, a parameter or a value.
    Count(Expr),
    /// 1 for `1%`.
    Percent {
        /// Of a hundred rows.
        value: f64,
        /// Number and sign.
        span: Span,
    },
}

/// `test "name" { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// Its name.
    pub name: Str,
    /// Its lines.
    pub steps: Vec<TestStep>,
}

/// One line of a test.
#[derive(Debug, Clone, PartialEq)]
pub struct TestStep {
    /// What it says.
    pub kind: TestStepKind,
    /// The whole of it.
    pub span: Span,
}

/// The lines a test can have.
#[derive(Debug, Clone, PartialEq)]
pub enum TestStepKind {
    /// `given "orders-*.csv" = table { … }`.
    Given {
        /// What is replaced.
        target: GivenTarget,
        /// By what.
        value: GivenValue,
    },
    /// `with since = @2025-12-31, now = @2026-01-31T00:00:00Z, geo.locate = table { … }`.
    With(Vec<Binding>),
    /// `expect …`.
    Expect(Expect),
}

/// What `given` replaces.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenTarget {
    /// A stream.
    Stream(Ident),
    /// The sources with this path literal.
    Source(Str),
}

/// What `given` puts in its place.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenValue {
    /// `table { … }`.
    Table(Table),
    /// `rows [ … ]`: the elements.
    Rows(Vec<Expr>),
    /// `file "x.csv"`.
    File(Str),
}

/// `name = expr` in `with`, or what stands there for a plugin.
#[derive(Debug, Clone, PartialEq)]
pub enum Binding {
    /// `since = @2025-12-31`.
    Value {
        /// A parameter, or `now`.
        name: Ident,
        /// Its value in this test.
        value: Expr,
    },
    /// `geo.locate = table { … } by lat, lon`.
    Plugged(Plugged),
}

/// What a test puts in the place of a plugin's source, stage or function.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugged {
    /// The plugin's name in the script.
    pub module: Ident,
    /// What of it.
    pub name: Ident,
    /// A table or rows.
    pub value: GivenValue,
    /// The columns by which rows of it are found for rows of the stage.
    pub by: Vec<Ident>,
    /// The whole of it.
    pub span: Span,
}

impl Plugged {
    /// `geo.locate`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.module.text, self.name.text)
    }

    /// Where that stands.
    pub fn name_span(&self) -> Span {
        self.module.span.to(self.name.span)
    }
}

/// What a test looks at: a stream by its name, or what a sink was given by its path.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The name, or the path.
    pub name: Ident,
    /// It is a path.
    pub is_path: bool,
}

/// What a test expects.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// `expect paid rows [ … ]`.
    Rows {
        /// The stream.
        stream: Subject,
        /// `rows any_order [ … ]`.
        any_order: bool,
        /// The rows; only the named columns are compared.
        rows: Vec<Expr>,
        /// `within: 1e-9`.
        options: Vec<StageOption>,
    },
    /// `expect paid schema { id: int? }`.
    Schema {
        /// The stream.
        stream: Subject,
        /// Its columns.
        fields: Vec<FieldDef>,
    },
    /// `expect rejects count == 0`.
    Count {
        /// The stream.
        stream: Subject,
        /// A comparison.
        op: BinaryOp,
        /// With what.
        value: Expr,
    },
    /// `expect paid snapshot`.
    Snapshot {
        /// The stream.
        stream: Subject,
        /// `redact: {at: "[time]"}`, `digits: {total: 2}`.
        options: Vec<StageOption>,
    },
    /// `expect peak memory < 64MiB`.
    PeakMemory {
        /// A comparison.
        op: BinaryOp,
        /// With what.
        value: Expr,
    },
    /// `expect peak disk < 1GiB`.
    PeakDisk {
        /// A comparison.
        op: BinaryOp,
        /// With what.
        value: Expr,
    },
    /// `expect error E0501`.
    Error {
        /// The code.
        code: Ident,
    },
    /// `expect plan snapshot`.
    PlanSnapshot,
}

/// `@budget(memory: 256MiB)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// `budget`.
    pub name: Ident,
    /// What stands in the parentheses.
    pub args: Vec<AttributeArg>,
}

/// One argument of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributeArg {
    /// `memory` of `memory: 256MiB`.
    pub name: Option<Ident>,
    /// An expression or a percentage.
    pub value: OptionValue,
    /// Name and value.
    pub span: Span,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// It stood in parentheses.
    pub parenthesised: bool,
    /// Parentheses included.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `1_000`, `0xff`. `-9223372036854775808` is one literal, every other `-1` is a [`UnaryOp::Neg`].
    Int(i64),
    /// `1.5`: the nearest float, and the digits without `_` for a decimal.
    Float {
        /// The nearest float.
        value: f64,
        /// `1.50`, `1e-3`.
        text: String,
    },
    /// `"t"`, `r"t"`.
    Str(String),
    /// `f"{x}"`.
    FString(Vec<FPart>),
    /// `b"…"`.
    Bytes(Vec<u8>),
    /// `@2026-01-31`: days since 1970-01-01.
    Date(i32),
    /// `@2026-01-31T10:00Z`: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// `1h30m`: microseconds.
    Duration(i64),
    /// `64MiB`: bytes.
    Size(u64),
    /// `/re/i`.
    Regex {
        /// Between the slashes, `\/` undone.
        pattern: String,
        /// Out of `i`, `m`, `s`.
        flags: String,
    },
    /// `[1, 2]`.
    List(Vec<Expr>),
    /// `{a: 1}`.
    Record(Vec<RecordField>),
    /// A column, a parameter or a value; in backticks always the column.
    Name(Ident),
    /// `param.country`.
    Param(Ident),
    /// `let.vat`.
    Let(Ident),
    /// `a + b`, `x in xs`, `x is null`, `s ~ /re/`, `x ?? y`, `x catch y`.
    Binary {
        /// Which.
        op: BinaryOp,
        /// The operator's own text.
        op_span: Span,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// `-a`, `not a`.
    Unary {
        /// Which.
        op: UnaryOp,
        /// The operator's own text.
        op_span: Span,
        /// What it is applied to.
        operand: Box<Expr>,
    },
    /// `a..b`, both ends included.
    Range {
        /// The lower end.
        low: Box<Expr>,
        /// The upper end.
        high: Box<Expr>,
    },
    /// `f(x, rate: 2)`.
    Call {
        /// The function.
        name: Ident,
        /// Its arguments.
        args: Vec<Arg>,
    },
    /// `x.f(y)`: the same as `f(x, y)`, unless the receiver is the name of a used script or plugin (`clean.gross(x)`).
    Method {
        /// What stands before the dot.
        receiver: Box<Expr>,
        /// The function.
        name: Ident,
        /// Its further arguments.
        args: Vec<Arg>,
    },
    /// `r.f`, `j?.f`; also `clean.vat` where `clean` is a used script.
    Field {
        /// The record.
        receiver: Box<Expr>,
        /// The field.
        name: Ident,
        /// Written `?.`.
        optional: bool,
    },
    /// `xs[0]`.
    Index {
        /// The list.
        receiver: Box<Expr>,
        /// Which element.
        index: Box<Expr>,
    },
    /// `if c then a else b`.
    If {
        /// The condition.
        condition: Box<Expr>,
        /// When true.
        then: Box<Expr>,
        /// When false or null; null if absent.
        otherwise: Option<Box<Expr>>,
    },
    /// `match x { "a" | "b" => 1, else => 3 }`.
    Match {
        /// What is looked at.
        subject: Box<Expr>,
        /// The arms but `else`.
        arms: Vec<MatchArm>,
        /// The `else` arm; null if absent.
        otherwise: Option<Box<Expr>>,
    },
    /// `t => upper(t)`, `(a, b) => a + b`; only as an argument.
    Lambda {
        /// Its parameters.
        params: Vec<Ident>,
        /// What it computes.
        body: Box<Expr>,
    },
    /// A literal with an error that has been reported.
    Error,
}

/// Part of an f-string.
#[derive(Debug, Clone, PartialEq)]
pub enum FPart {
    /// Text, escapes and `{{` undone.
    Text(String),
    /// `{expr:spec}`.
    Expr {
        /// The expression.
        expr: Expr,
        /// What stands behind the colon, as written.
        spec: Option<Str>,
    },
}

/// `a: 1` in a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordField {
    /// The field's name.
    pub name: Ident,
    /// Its value.
    pub value: Expr,
}

/// An argument of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Arg {
    /// `rate` of `rate: 0.2`.
    pub name: Option<Ident>,
    /// Its value.
    pub value: Expr,
}

/// `"a" | "b" => 1`.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchArm {
    /// What stands between the bars; never empty.
    pub patterns: Vec<Pattern>,
    /// The value.
    pub value: Expr,
    /// The whole arm.
    pub span: Span,
}

/// What an arm of `match` accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// What it is.
    pub kind: PatternKind,
    /// Its text.
    pub span: Span,
}

/// The patterns there are.
#[derive(Debug, Clone, PartialEq)]
pub enum PatternKind {
    /// A literal, `null` included.
    Literal(Expr),
    /// `2..5`, `..0`, `10..`: at least one end.
    Range {
        /// The lower end.
        low: Option<Expr>,
        /// The upper end.
        high: Option<Expr>,
    },
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `or`
    Or,
    /// `and`
    And,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `in`; the right side is a list, a range or an expression of a list type
    In,
    /// `not in`
    NotIn,
    /// `is`
    Is,
    /// `is not`
    IsNot,
    /// `~`
    Match,
    /// `??`
    Coalesce,
    /// `catch`
    Catch,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `//`
    FloorDiv,
    /// `%`
    Rem,
    /// `**`
    Pow,
}

impl BinaryOp {
    /// As written.
    pub fn text(self) -> &'static str {
        match self {
            BinaryOp::Or => "or",
            BinaryOp::And => "and",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::In => "in",
            BinaryOp::NotIn => "not in",
            BinaryOp::Is => "is",
            BinaryOp::IsNot => "is not",
            BinaryOp::Match => "~",
            BinaryOp::Coalesce => "??",
            BinaryOp::Catch => "catch",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::FloorDiv => "//",
            BinaryOp::Rem => "%",
            BinaryOp::Pow => "**",
        }
    }

    /// `== != < <= > >= in, not in, is, is not, ~`: those that do not chain.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge | In | NotIn | Is | IsNot | Match)
    }
}

/// Operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `not`
    Not,
}

/// A type as written.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeExpr {
    /// Without the `?`.
    pub kind: TypeKind,
    /// Written with `?`.
    pub nullable: bool,
    /// The `?` included.
    pub span: Span,
}

/// The types there are.
#[derive(Debug, Clone, PartialEq)]
pub enum TypeKind {
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `float`
    Float,
    /// `decimal(p, s)`, `decimal`: 1 ≤ p ≤ 38, 0 ≤ s ≤ p.
    Decimal(Option<(u8, u8)>),
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `date`
    Date,
    /// `timestamp`
    Timestamp,
    /// `duration`
    Duration,
    /// `list<T>`
    List(Box<TypeExpr>),
    /// `{a: T}`
    Record(Vec<FieldDef>),
    /// `json`
    Json,
    /// A schema (`Order`, `clean.Order`), or `col` and `cols` in a fragment's parameters: one or two names.
    Named(Vec<Ident>),
}

impl TypeKind {
    /// The word of a type without parts.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            TypeKind::Bool => Some("bool"),
            TypeKind::Int => Some("int"),
            TypeKind::Float => Some("float"),
            TypeKind::Decimal(None) => Some("decimal"),
            TypeKind::String => Some("string"),
            TypeKind::Bytes => Some("bytes"),
            TypeKind::Date => Some("date"),
            TypeKind::Timestamp => Some("timestamp"),
            TypeKind::Duration => Some("duration"),
            TypeKind::Json => Some("json"),
            TypeKind::Decimal(Some(_)) | TypeKind::List(_) | TypeKind::Record(_) | TypeKind::Named(_) => None,
        }
    }

    /// The type a word names, if it names a built-in one.
    pub fn from_word(word: &str) -> Option<TypeKind> {
        Some(match word {
            "bool" => TypeKind::Bool,
            "int" => TypeKind::Int,
            "float" => TypeKind::Float,
            "decimal" => TypeKind::Decimal(None),
            "string" => TypeKind::String,
            "bytes" => TypeKind::Bytes,
            "date" => TypeKind::Date,
            "timestamp" => TypeKind::Timestamp,
            "duration" => TypeKind::Duration,
            "json" => TypeKind::Json,
            _ => return None,
        })
    }
}

impl TypeExpr {
    /// The same text read as an expression, where that is possible.
    pub fn to_expr(&self) -> Option<Expr> {
        if self.nullable {
            return None;
        }
        let ident = |text: &str| Ident {
            text: text.to_owned(),
            quoted: false,
            span: self.span,
        };
        let expr = |kind| {
            Some(Expr {
                kind,
                parenthesised: false,
                span: self.span,
            })
        };
        if let Some(word) = self.kind.word() {
            return expr(ExprKind::Name(ident(word)));
        }
        match &self.kind {
            TypeKind::Decimal(Some((precision, scale))) => {
                let arg = |value: u8| Arg {
                    name: None,
                    value: Expr {
                        kind: ExprKind::Int(value.into()),
                        parenthesised: false,
                        span: self.span,
                    },
                };
                expr(ExprKind::Call {
                    name: ident("decimal"),
                    args: vec![arg(*precision), arg(*scale)],
                })
            }
            TypeKind::Named(path) => match path.as_slice() {
                [name] => expr(ExprKind::Name(name.clone())),
                [module, name] => expr(ExprKind::Field {
                    receiver: Box::new(Expr {
                        kind: ExprKind::Name(module.clone()),
                        parenthesised: false,
                        span: module.span,
                    }),
                    name: name.clone(),
                    optional: false,
                }),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Expr {
    /// The name, if it is nothing but a name.
    pub fn as_name(&self) -> Option<&Ident> {
        match &self.kind {
            ExprKind::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The same text read as a type: a name, `module.Name`, or a record of such.
    pub fn to_type(&self) -> Option<TypeExpr> {
        let kind = match &self.kind {
            ExprKind::Name(name) => match TypeKind::from_word(&name.text) {
                Some(kind) if !name.quoted => kind,
                _ => TypeKind::Named(vec![name.clone()]),
            },
            ExprKind::Field {
                receiver,
                name,
                optional: false,
            } => TypeKind::Named(vec![receiver.as_name()?.clone(), name.clone()]),
            ExprKind::Record(fields) => TypeKind::Record(
                fields
                    .iter()
                    .map(|field| {
                        let ty = field.value.to_type()?;
                        Some(FieldDef {
                            span: field.name.span.to(ty.span),
                            name: field.name.clone(),
                            ty,
                        })
                    })
                    .collect::<Option<_>>()?,
            ),
            _ => return None,
        };
        Some(TypeExpr {
            kind,
            nullable: false,
            span: self.span,
        })
    }
}
