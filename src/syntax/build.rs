//! From the pairs of the grammar to the syntax tree.
//!
//! Laws
//! - The grammar has accepted the text: a shape that cannot be is skipped, never a panic.
//! - What the grammar accepts only to refuse it well (`&&`, `'text'`, `a < b < c`) is reported here, and the tree goes on.
//! - No tree is deeper than [`DEPTH`]; what would be is one [`ExprKind::Error`], so whoever walks a tree may recurse.

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use pest::iterators::Pair;
use pest::pratt_parser::{Assoc, Op, PrattParser};

use super::ast::*;
use super::literal::{self, Problem};
use super::parse::Rule;
use super::table;
use crate::diag::{Diagnostic, Span, suggest};

/// Nodes from the root of an expression to its deepest leaf.
const DEPTH: u32 = 500;

type P<'i> = Pair<'i, Rule>;

/// Builds one statement; spans are moved by `base`, where the parsed slice begins in the script.
pub(super) struct Builder<'a> {
    pub(super) text: &'a str,
    pub(super) base: usize,
    pub(super) diagnostics: RefCell<Vec<Diagnostic>>,
    /// The depth of the expression built last.
    depth: Cell<u32>,
    /// Literals of 2^63 that wait for the minus before them.
    minimum: RefCell<Vec<Span>>,
}

/// The children that carry meaning: no punctuation, no keyword that only leads on.
fn kids<'i>(pair: P<'i>) -> impl DoubleEndedIterator<Item = P<'i>> {
    pair.into_inner().filter(|kid| {
        !matches!(
            kid.as_rule(),
            Rule::bar
                | Rule::comma
                | Rule::colon
                | Rule::assign
                | Rule::arrow
                | Rule::dot
                | Rule::opt_dot
                | Rule::open_paren
                | Rule::close_paren
                | Rule::open_bracket
                | Rule::close_bracket
                | Rule::open_brace
                | Rule::close_brace
                | Rule::close_angle
                | Rule::kw_use
                | Rule::kw_as
                | Rule::kw_param
                | Rule::kw_secret
                | Rule::kw_let
                | Rule::kw_schema
                | Rule::kw_fn
                | Rule::kw_stage
                | Rule::kw_stream
                | Rule::kw_from
                | Rule::kw_test
                | Rule::kw_by
                | Rule::kw_on
                | Rule::kw_if
                | Rule::kw_then
                | Rule::kw_match
                | Rule::kw_when
                | Rule::kw_plugin
                | Rule::kw_table
                | Rule::kw_rows
                | Rule::kw_range
                | Rule::kw_given
                | Rule::kw_file
                | Rule::kw_expect
                | Rule::kw_error
                | Rule::kw_limit
                | Rule::kw_peak
                | Rule::kw_memory
                | Rule::kw_plan
                | Rule::kw_snapshot
                | Rule::kw_count
                | Rule::kw_list
                | Rule::kw_decimal
                | Rule::EOI
        )
    })
}

fn pratt() -> &'static PrattParser<Rule> {
    static PRATT: OnceLock<PrattParser<Rule>> = OnceLock::new();
    PRATT.get_or_init(|| {
        let left = |rule| Op::infix(rule, Assoc::Left);
        PrattParser::new()
            .op(left(Rule::or) | left(Rule::bad_or))
            .op(left(Rule::and) | left(Rule::bad_and))
            .op(Op::prefix(Rule::not) | Op::prefix(Rule::bad_not))
            .op(left(Rule::eq)
                | left(Rule::ne)
                | left(Rule::bad_ne)
                | left(Rule::bad_eq)
                | left(Rule::le)
                | left(Rule::ge)
                | left(Rule::lt)
                | left(Rule::gt)
                | left(Rule::not_in)
                | left(Rule::r#in)
                | left(Rule::is_not)
                | left(Rule::is)
                | left(Rule::matches))
            .op(left(Rule::coalesce) | left(Rule::catch))
            .op(left(Rule::range))
            .op(left(Rule::add) | left(Rule::sub))
            .op(left(Rule::mul) | left(Rule::div) | left(Rule::floor_div) | left(Rule::rem))
            .op(Op::prefix(Rule::neg))
            .op(Op::infix(Rule::pow, Assoc::Right))
            .op(Op::postfix(Rule::method)
                | Op::postfix(Rule::field)
                | Op::postfix(Rule::opt_field)
                | Op::postfix(Rule::index))
    })
}

fn binary_op(rule: Rule) -> Option<BinaryOp> {
    Some(match rule {
        Rule::or | Rule::bad_or => BinaryOp::Or,
        Rule::and | Rule::bad_and => BinaryOp::And,
        Rule::eq | Rule::bad_eq => BinaryOp::Eq,
        Rule::ne | Rule::bad_ne => BinaryOp::Ne,
        Rule::lt => BinaryOp::Lt,
        Rule::le => BinaryOp::Le,
        Rule::gt => BinaryOp::Gt,
        Rule::ge => BinaryOp::Ge,
        Rule::r#in => BinaryOp::In,
        Rule::not_in => BinaryOp::NotIn,
        Rule::is => BinaryOp::Is,
        Rule::is_not => BinaryOp::IsNot,
        Rule::matches => BinaryOp::Match,
        Rule::coalesce => BinaryOp::Coalesce,
        Rule::catch => BinaryOp::Catch,
        Rule::add => BinaryOp::Add,
        Rule::sub => BinaryOp::Sub,
        Rule::mul => BinaryOp::Mul,
        Rule::div => BinaryOp::Div,
        Rule::floor_div => BinaryOp::FloorDiv,
        Rule::rem => BinaryOp::Rem,
        Rule::pow => BinaryOp::Pow,
        _ => return None,
    })
}

impl<'a> Builder<'a> {
    pub(super) fn new(text: &'a str, base: usize) -> Builder<'a> {
        Builder {
            text,
            base,
            diagnostics: RefCell::default(),
            depth: Cell::new(0),
            minimum: RefCell::default(),
        }
    }

    pub(super) fn report(&self, diagnostic: Diagnostic) {
        let mut diagnostics = self.diagnostics.borrow_mut();
        // A few more than are shown; a table of a million wrong rows must not fill the memory.
        if diagnostics.len() <= super::parse::MOST_DIAGNOSTICS {
            diagnostics.push(diagnostic);
        }
    }

    /// The pair's text in the script, without the blanks that pest leaves behind an absent optional part.
    fn span(&self, pair: &P<'_>) -> Span {
        let start = pair.as_span().start();
        let mut last = pair.clone();
        while !matches!(last.as_rule(), Rule::fstring | Rule::table | Rule::attribute_name) {
            match last.clone().into_inner().next_back() {
                Some(inner) => last = inner,
                None => break,
            }
        }
        Span::new(self.base + start, self.base + last.as_span().end().max(start))
    }

    fn problem(&self, span: Span, problem: Problem) {
        let start = span.start as usize;
        let place = Span::new(start + problem.at.start, start + problem.at.end);
        self.report(Diagnostic::error(problem.code, place, problem.message).help(problem.help));
    }

    // ---- statements ----

    pub(super) fn item(&self, pair: P<'_>) -> Option<ItemKind> {
        let kind = match pair.as_rule() {
            Rule::use_item => ItemKind::Use(self.use_item(pair)?),
            Rule::param_item => ItemKind::Param(self.param(pair)?),
            Rule::secret_item => ItemKind::Secret(Secret {
                name: self.first_name(pair)?,
            }),
            Rule::let_item => {
                let mut kids = kids(pair);
                ItemKind::Let(Let {
                    name: self.name(&kids.next()?),
                    value: self.expr(kids.next()?),
                })
            }
            Rule::schema_item => {
                let mut kids = kids(pair);
                ItemKind::Schema(Schema {
                    name: self.name(&kids.next()?),
                    fields: self.fields(kids.next()?),
                })
            }
            Rule::fn_item => ItemKind::Fn(self.fn_item(pair)?),
            Rule::stage_item => ItemKind::Stage(self.stage_item(pair)?),
            Rule::stream_item => {
                let mut kids = kids(pair);
                ItemKind::Stream(Stream {
                    name: self.name(&kids.next()?),
                    pipeline: self.pipeline(kids.next()?)?,
                })
            }
            Rule::pipeline => ItemKind::Pipeline(self.pipeline(pair)?),
            Rule::test_item => {
                let mut kids = kids(pair);
                let name = self.str(&kids.next()?);
                ItemKind::Test(Test {
                    name,
                    steps: kids.filter_map(|kid| self.step(kid)).collect(),
                })
            }
            Rule::attribute_item => ItemKind::Attribute(self.attribute(pair)?),
            _ => return None,
        };
        for span in self.minimum.take() {
            let text = span.of(self.text);
            self.problem(span, literal::too_large(text));
        }
        Some(kind)
    }

    pub(super) fn item_span(&self, pair: &P<'_>) -> Span {
        self.span(pair)
    }

    fn first_name(&self, pair: P<'_>) -> Option<Ident> {
        kids(pair).next().map(|kid| self.name(&kid))
    }

    /// A word, or the two of a plugin's `geo.points` as one.
    fn mode(&self, pair: P<'_>) -> Option<Ident> {
        let mut names = kids(pair).map(|kid| self.name(&kid));
        let first = names.next()?;
        Some(names.fold(first, |before, name| Ident {
            text: format!("{}.{}", before.text, name.text),
            quoted: false,
            span: before.span.to(name.span),
        }))
    }

    fn name(&self, pair: &P<'_>) -> Ident {
        let text = pair.as_str();
        let quoted = text.starts_with('`');
        Ident {
            text: text.trim_matches('`').to_owned(),
            quoted,
            span: self.span(pair),
        }
    }

    /// A string literal of any kind but f-strings.
    fn str(&self, pair: &P<'_>) -> Str {
        let span = self.span(pair);
        let text = pair.as_str();
        let value = match pair.as_rule() {
            Rule::raw_string => literal::raw_inside(text).to_owned(),
            _ => {
                let mut problems = Vec::new();
                let inside = text.get(1..text.len().saturating_sub(1)).unwrap_or("");
                let value = literal::unescape(inside, 1, &mut problems);
                for problem in problems {
                    self.problem(span, problem);
                }
                value
            }
        };
        Str { value, span }
    }

    fn use_item(&self, pair: P<'_>) -> Option<Use> {
        let mut kids_of = kids(pair);
        let target = kids_of.next()?;
        let target = match target.as_rule() {
            Rule::use_plugin => {
                let mut kids = kids(target);
                UseTarget::Plugin {
                    name: self.name(&kids.next()?),
                    version: kids.next().map(|kid| self.str(&kid)),
                }
            }
            _ => UseTarget::Script(self.str(&target)),
        };
        let alias = kids_of.next().map(|kid| self.name(&kid));
        if let (UseTarget::Script(path), None) = (&target, &alias) {
            self.report(
                Diagnostic::error("E0104", path.span, "a used script needs a name")
                    .help(format!("`use {} as name`, then `name.f(x)`", path.span.of(self.text))),
            );
        }
        Some(Use { target, alias })
    }

    fn param(&self, pair: P<'_>) -> Option<Param> {
        let mut kids_of = kids(pair);
        let name = self.name(&kids_of.next()?);
        let ty = kids_of.next()?;
        let (ty, choices) = match ty.as_rule() {
            Rule::choices => (None, kids(ty).filter_map(|kid| self.signed_literal(kid)).collect()),
            _ => (self.type_expr(ty), Vec::new()),
        };
        Some(Param {
            name,
            ty,
            choices,
            default: kids_of.next().map(|kid| self.expr(kid)),
        })
    }

    fn fn_item(&self, pair: P<'_>) -> Option<FnDef> {
        let mut kids_of = kids(pair);
        let name = self.name(&kids_of.next()?);
        let params = self.fn_params(kids_of.next()?);
        let mut next = kids_of.next()?;
        let mut returns = None;
        if next.as_rule() == Rule::returns {
            returns = kids(next).next().and_then(|kid| self.type_expr(kid));
            next = kids_of.next()?;
        }
        Some(FnDef {
            name,
            params,
            returns,
            body: self.expr(next),
        })
    }

    fn fn_params(&self, pair: P<'_>) -> Vec<FnParam> {
        let params: Vec<FnParam> = kids(pair)
            .filter_map(|kid| {
                let span = self.span(&kid);
                let mut kids = kids(kid);
                let name = self.name(&kids.next()?);
                let ty = self.type_expr(kids.next()?)?;
                Some(FnParam {
                    name,
                    ty,
                    default: kids.next().map(|kid| self.expr(kid)),
                    span,
                })
            })
            .collect();
        self.once("parameter", params.iter().map(|param| &param.name));
        params
    }

    fn stage_item(&self, pair: P<'_>) -> Option<StageDef> {
        let mut kids_of = kids(pair);
        let name = self.name(&kids_of.next()?);
        let mut next = kids_of.next()?;
        let mut params = Vec::new();
        if next.as_rule() == Rule::fn_params {
            params = self.fn_params(next);
            next = kids_of.next()?;
        }
        Some(StageDef {
            name,
            params,
            body: self.chain(next),
        })
    }

    fn chain(&self, pair: P<'_>) -> Vec<StageCall> {
        kids(pair).filter_map(|kid| self.call(kid)).collect()
    }

    fn fields(&self, pair: P<'_>) -> Vec<FieldDef> {
        let fields: Vec<FieldDef> = kids(pair)
            .filter_map(|kid| {
                let span = self.span(&kid);
                let mut kids = kids(kid);
                Some(FieldDef {
                    name: self.name(&kids.next()?),
                    ty: self.type_expr(kids.next()?)?,
                    span,
                })
            })
            .collect();
        self.once("field", fields.iter().map(|field| &field.name));
        fields
    }

    /// Reports names that stand twice.
    pub(super) fn once<'n>(&self, what: &str, names: impl Iterator<Item = &'n Ident>) {
        let mut seen: std::collections::HashMap<&str, Span> = std::collections::HashMap::new();
        for name in names {
            if let Some(first) = seen.get(name.text.as_str()) {
                self.report(
                    Diagnostic::error("E0119", name.span, format!("{what} `{}` is given twice", name.text))
                        .also(*first, "first here"),
                );
            } else {
                seen.insert(&name.text, name.span);
            }
        }
    }

    fn pipeline(&self, pair: P<'_>) -> Option<Pipeline> {
        let span = self.span(&pair);
        let mut kids_of = kids(pair);
        let head = kids_of.next()?;
        let head_span = self.span(&head);
        let head = kids(head).next()?;
        let kind = match head.as_rule() {
            Rule::from_table => {
                let table = kids(head).next()?;
                HeadKind::Table(self.table(&table))
            }
            Rule::from_rows => HeadKind::Rows(self.rows(kids(head).next()?)?),
            Rule::from_range => HeadKind::Range(self.args(kids(head).next()?, &mut 0)),
            Rule::from_stream => HeadKind::Stream(self.first_name(head)?),
            Rule::read_call => {
                let mut parts = kids(head);
                let name = self.name(&parts.next()?);
                HeadKind::Read(self.tail(vec![name], parts, head_span))
            }
            _ => return None,
        };
        let stages = kids_of.filter_map(|kid| self.call(kid)).collect();
        Some(Pipeline {
            head: Head { kind, span: head_span },
            stages,
            span,
        })
    }

    fn rows(&self, pair: P<'_>) -> Option<Vec<Expr>> {
        let list = kids(pair).next()?;
        Some(kids(list).map(|kid| self.expr(kid)).collect())
    }

    fn table(&self, pair: &P<'_>) -> Table {
        table::table(self, self.span(pair))
    }

    fn attribute(&self, pair: P<'_>) -> Option<Attribute> {
        let mut kids_of = kids(pair);
        let name = self.first_name(kids_of.next()?)?;
        let args: Vec<AttributeArg> = kids_of
            .filter_map(|kid| {
                let span = self.span(&kid);
                let mut parts = kids(kid);
                let mut next = parts.next()?;
                let mut name = None;
                if next.as_rule() == Rule::option_key {
                    name = self.first_name(next);
                    next = parts.next()?;
                }
                Some(AttributeArg {
                    name,
                    value: self.option_value(next)?,
                    span,
                })
            })
            .collect();
        self.once("argument", args.iter().filter_map(|arg| arg.name.as_ref()));
        Some(Attribute { name, args })
    }

    fn step(&self, pair: P<'_>) -> Option<TestStep> {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::given => {
                let mut parts = kids(pair);
                let target = parts.next()?;
                let target = match target.as_rule() {
                    Rule::name => GivenTarget::Stream(self.name(&target)),
                    _ => GivenTarget::Source(self.str(&target)),
                };
                let value = parts.next()?;
                let value = match value.as_rule() {
                    Rule::table => GivenValue::Table(self.table(&value)),
                    Rule::rows => GivenValue::Rows(self.rows(value)?),
                    _ => GivenValue::File(self.str(&kids(value).next()?)),
                };
                TestStepKind::Given { target, value }
            }
            Rule::with_step => TestStepKind::With(
                kids(pair)
                    .filter_map(|kid| match kid.as_rule() {
                        Rule::binding => {
                            let mut parts = kids(kid);
                            Some(Binding::Value {
                                name: self.name(&parts.next()?),
                                value: self.expr(parts.next()?),
                            })
                        }
                        Rule::plugged => Some(Binding::Plugged(self.plugged(kid)?)),
                        _ => None,
                    })
                    .collect(),
            ),
            Rule::expect => TestStepKind::Expect(self.expect(kids(pair).next()?)?),
            _ => return None,
        };
        Some(TestStep { kind, span })
    }

    fn plugged(&self, pair: P<'_>) -> Option<Plugged> {
        let span = self.span(&pair);
        let mut parts = kids(pair).filter(|part| part.as_rule() != Rule::dot);
        let (module, name, value) = (parts.next()?, parts.next()?, parts.next()?);
        let by = parts.next().map_or_else(Vec::new, |by| {
            let names = kids(by).filter(|kid| kid.as_rule() == Rule::name);
            names.map(|name| self.name(&name)).collect()
        });
        Some(Plugged {
            module: self.name(&module),
            name: self.name(&name),
            value: match value.as_rule() {
                Rule::table => GivenValue::Table(self.table(&value)),
                _ => GivenValue::Rows(self.rows(value)?),
            },
            by,
            span,
        })
    }

    fn expect(&self, pair: P<'_>) -> Option<Expect> {
        let rule = pair.as_rule();
        let mut parts = kids(pair);
        let comparison = |parts: &mut dyn Iterator<Item = P<'_>>| {
            let op = binary_op(parts.next()?.as_rule())?;
            Some((op, self.expr(parts.next()?)))
        };
        match rule {
            Rule::expect_error => Some(Expect::Error {
                code: self.name(&parts.next()?),
            }),
            Rule::expect_peak => {
                let mut parts = parts.peekable();
                let of_disk = parts.next_if(|part| part.as_rule() == Rule::kw_disk).is_some();
                let (op, value) = comparison(&mut parts)?;
                Some(match of_disk {
                    true => Expect::PeakDisk { op, value },
                    false => Expect::PeakMemory { op, value },
                })
            }
            Rule::expect_plan => Some(Expect::PlanSnapshot),
            Rule::expect_stream => {
                let subject = parts.next()?;
                let stream = match subject.as_rule() {
                    Rule::name => Subject {
                        name: self.name(&subject),
                        is_path: false,
                    },
                    _ => {
                        let path = self.str(&subject);
                        Subject {
                            name: Ident {
                                text: path.value,
                                quoted: false,
                                span: path.span,
                            },
                            is_path: true,
                        }
                    }
                };
                let check = parts.next()?;
                match check.as_rule() {
                    Rule::expect_rows => {
                        let (mut any_order, mut rows, mut options) = (false, Vec::new(), Vec::new());
                        for part in kids(check) {
                            match part.as_rule() {
                                Rule::kw_any_order => any_order = true,
                                Rule::list => rows = kids(part).map(|kid| self.expr(kid)).collect(),
                                _ => options.extend(self.option(part)),
                            }
                        }
                        Some(Expect::Rows {
                            stream,
                            any_order,
                            rows,
                            options,
                        })
                    }
                    Rule::expect_schema => Some(Expect::Schema {
                        stream,
                        fields: self.fields(kids(check).next()?),
                    }),
                    Rule::expect_count => {
                        comparison(&mut kids(check)).map(|(op, value)| Expect::Count { stream, op, value })
                    }
                    _ => Some(Expect::Snapshot {
                        stream,
                        options: kids(check).filter_map(|kid| self.option(kid)).collect(),
                    }),
                }
            }
            _ => None,
        }
    }

    // ---- stages ----

    fn call(&self, pair: P<'_>) -> Option<StageCall> {
        let span = self.span(&pair);
        let mut parts = kids(pair);
        let name = kids(parts.next()?).map(|kid| self.name(&kid)).collect();
        Some(self.tail(name, parts, span))
    }

    fn tail<'i>(&self, name: Vec<Ident>, tail: impl Iterator<Item = P<'i>>, span: Span) -> StageCall {
        let mut call = StageCall {
            name,
            mode: None,
            items: Vec::new(),
            as_name: None,
            by: Vec::new(),
            on: Vec::new(),
            options: Vec::new(),
            block: None,
            on_error: None,
            span,
        };
        for part in tail {
            match part.as_rule() {
                Rule::mode => call.mode = self.mode(part),
                Rule::items => call.items = self.items(part),
                _ => {
                    let span = self.span(&part);
                    if let Some(what) = self.clause(&mut call, part) {
                        self.report(Diagnostic::error("E0119", span, format!("{what} is given twice")));
                    }
                }
            }
        }
        self.once("option", call.options.iter().map(|option| &option.name));
        call
    }

    /// Puts a clause in its place, or says which one is there already.
    fn clause(&self, call: &mut StageCall, pair: P<'_>) -> Option<&'static str> {
        match pair.as_rule() {
            Rule::option => call.options.extend(self.option(pair)),
            Rule::as_clause => {
                if call.as_name.is_some() {
                    return Some("`as`");
                }
                call.as_name = self.first_name(pair);
            }
            Rule::by_clause => {
                if !call.by.is_empty() {
                    return Some("`by`");
                }
                call.by = kids(pair).next().map(|kid| self.items(kid)).unwrap_or_default();
            }
            Rule::on_clause => {
                if !call.on.is_empty() {
                    return Some("`on`");
                }
                call.on = kids(pair).next().map(|kid| self.items(kid)).unwrap_or_default();
            }
            Rule::with_clause => {
                let span = self.span(&pair);
                let mut parts = kids(pair);
                let name = self.name(&parts.next()?);
                call.options.push(StageOption {
                    name,
                    value: OptionValue::Expr(self.expr(parts.next()?)),
                    span,
                });
            }
            Rule::block => {
                if call.block.is_some() {
                    return Some("the block");
                }
                let span = self.span(&pair);
                let inside = kids(pair).next()?;
                let kind = match inside.as_rule() {
                    Rule::arms => BlockKind::Arms(self.arms(inside)),
                    _ => BlockKind::Stages(self.chain(inside)),
                };
                call.block = Some(Block { kind, span });
            }
            Rule::on_error => {
                if call.on_error.is_some() {
                    return Some("`on error`");
                }
                call.on_error = self.on_error(pair);
            }
            _ => {}
        }
        None
    }

    fn items(&self, pair: P<'_>) -> Vec<StageItem> {
        kids(pair)
            .filter_map(|kid| {
                let span = self.span(&kid);
                let inside = kids(kid).next()?;
                let (name, value) = match inside.as_rule() {
                    Rule::star => (None, ItemValue::All),
                    Rule::star_of => (None, ItemValue::AllOf(self.first_name(inside)?)),
                    Rule::named => {
                        let mut parts = kids(inside);
                        (
                            Some(self.name(&parts.next()?)),
                            ItemValue::Expr(self.expr(parts.next()?)),
                        )
                    }
                    _ => (None, ItemValue::Expr(self.expr(inside))),
                };
                Some(StageItem { name, value, span })
            })
            .collect()
    }

    fn arms(&self, pair: P<'_>) -> Vec<RouteArm> {
        let arms: Vec<RouteArm> = kids(pair)
            .filter_map(|kid| {
                let span = self.span(&kid);
                let mut parts = kids(kid);
                let first = parts.next()?;
                let condition = (first.as_rule() != Rule::kw_else).then(|| self.expr(first));
                Some(RouteArm {
                    condition,
                    target: self.name(&parts.next()?),
                    span,
                })
            })
            .collect();
        if let Some(at) = arms.iter().position(|arm| arm.condition.is_none())
            && let Some(after) = arms.get(at + 1)
        {
            let message = if after.condition.is_none() {
                "`else` is given twice"
            } else {
                "`when` behind `else`"
            };
            self.report(
                Diagnostic::error("E0124", after.span, message).also(arms[at].span, "nothing gets past this arm"),
            );
        }
        arms
    }

    fn on_error(&self, pair: P<'_>) -> Option<OnError> {
        let span = self.span(&pair);
        let mut parts = kids(pair);
        let first = parts.next()?;
        let policy = match first.as_rule() {
            Rule::kw_null => Policy::Null,
            Rule::kw_to => Policy::To(self.name(&parts.next()?)),
            _ => {
                let word = self.first_name(first)?;
                match word.text.as_str() {
                    "fail" => Policy::Fail,
                    "skip" => Policy::Skip,
                    other => {
                        let near = suggest(other, &["fail", "skip", "null"]).map(|near| format!("`{near}` is close"));
                        self.report(
                            Diagnostic::error("E0104", word.span, format!("`{other}` is no way to treat a row error"))
                                .labelled(near.unwrap_or_default())
                                .help(format!(
                                    "`on error fail`, `skip`, `null`, or `to {other}`: a stream of the rows that fail"
                                )),
                        );
                        Policy::Fail
                    }
                }
            }
        };
        let limit = parts
            .next()
            .and_then(|kid| kids(kid).next())
            .map(|kid| match kid.as_rule() {
                Rule::percent => ErrorLimit::Percent {
                    value: percent(kid.as_str()),
                    span: self.span(&kid),
                },
                _ => ErrorLimit::Count(self.expr(kid)),
            });
        Some(OnError { policy, limit, span })
    }

    fn option(&self, pair: P<'_>) -> Option<StageOption> {
        let span = self.span(&pair);
        let mut parts = kids(pair);
        let name = self.first_name(parts.next()?)?;
        Some(StageOption {
            name,
            value: self.option_value(parts.next()?)?,
            span,
        })
    }

    fn option_value(&self, pair: P<'_>) -> Option<OptionValue> {
        let span = self.span(&pair);
        let mut parts = kids(pair);
        let first = parts.next()?;
        Some(match first.as_rule() {
            // `check: read`, the one reserved word that is a value.
            Rule::kw_read => {
                let name = self.name(&first);
                OptionValue::Expr(Expr {
                    span: name.span,
                    kind: ExprKind::Name(name),
                    parenthesised: false,
                })
            }
            Rule::percent => OptionValue::Percent {
                value: percent(first.as_str()),
                span: self.span(&first),
            },
            Rule::option_type => OptionValue::Type(self.type_expr(first)?),
            Rule::open_range => {
                let high = kids(first).nth(1).map(|kid| self.expr(kid));
                OptionValue::OpenRange { low: None, high, span }
            }
            _ => {
                let low = self.expr(first);
                match parts.next() {
                    Some(_) => OptionValue::OpenRange {
                        low: Some(low),
                        high: None,
                        span,
                    },
                    None => OptionValue::Expr(low),
                }
            }
        })
    }

    // ---- types ----

    fn type_expr(&self, pair: P<'_>) -> Option<TypeExpr> {
        let span = self.span(&pair);
        let mut parts = kids(pair);
        let first = parts.next()?;
        let nullable = parts.next().is_some();
        let kind = match first.as_rule() {
            Rule::list_type => TypeKind::List(Box::new(self.type_expr(kids(first).next()?)?)),
            Rule::fields => TypeKind::Record(self.fields(first)),
            Rule::decimal_type => {
                let span = self.span(&first);
                let mut numbers = kids(first).map(|kid| kid.as_str().replace('_', "").parse::<u8>().unwrap_or(u8::MAX));
                let (precision, scale) = (numbers.next()?, numbers.next()?);
                if !(1..=38).contains(&precision) || scale > precision {
                    self.report(
                        Diagnostic::error("E0121", span, "no such decimal")
                            .help("`decimal(p, s)` has p digits, 1 to 38, of which s stand behind the point"),
                    );
                    TypeKind::Decimal(None)
                } else {
                    TypeKind::Decimal(Some((precision, scale)))
                }
            }
            Rule::builtin => TypeKind::from_word(first.as_str())?,
            Rule::type_name => {
                let path: Vec<Ident> = kids(first).map(|kid| self.name(&kid)).collect();
                match path.as_slice() {
                    [name] if !name.quoted => {
                        TypeKind::from_word(&name.text).unwrap_or_else(|| TypeKind::Named(path.clone()))
                    }
                    _ => TypeKind::Named(path),
                }
            }
            _ => return None,
        };
        Some(TypeExpr { kind, nullable, span })
    }

    // ---- expressions ----

    pub(super) fn expr(&self, pair: P<'_>) -> Expr {
        let whole = self.span(&pair);
        let (expr, depth) = pratt()
            .map_primary(|pair| self.primary(pair))
            .map_prefix(|op, operand| self.prefix(&op, operand))
            .map_postfix(|operand, op| self.postfix(operand, op))
            .map_infix(|left, op, right| self.infix(left, &op, right))
            .parse(pair.into_inner());
        self.depth.set(depth);
        self.checked(expr, depth, whole).0
    }

    /// A deeper tree is one error.
    fn checked(&self, expr: Expr, depth: u32, whole: Span) -> (Expr, u32) {
        if depth <= DEPTH {
            return (expr, depth);
        }
        self.report(
            Diagnostic::error(
                "E0103",
                Span::new(whole.start as usize, whole.start as usize + 1),
                "the expression is too deep",
            )
            .labelled(format!("goes more than {DEPTH} levels deep"))
            .help(
                "parts of it can have a name in `let`, `fn` or `derive`; `x == 1 or x == 2 or …` is `x in [1, 2, …]`",
            ),
        );
        self.depth.set(1);
        (self.error(whole), 1)
    }

    /// A child and the depth it adds.
    fn child(&self, pair: P<'_>, depth: &mut u32) -> Expr {
        let expr = self.expr(pair);
        *depth = (*depth).max(self.depth.get());
        expr
    }

    fn error(&self, span: Span) -> Expr {
        Expr {
            kind: ExprKind::Error,
            parenthesised: false,
            span,
        }
    }

    fn prefix(&self, op: &P<'_>, (operand, depth): (Expr, u32)) -> (Expr, u32) {
        let op_span = self.span(op);
        let span = op_span.to(operand.span);
        let mut minimum = self.minimum.borrow_mut();
        if op.as_rule() == Rule::neg && minimum.last() == Some(&operand.span) && !operand.parenthesised {
            minimum.pop();
            return (
                Expr {
                    kind: ExprKind::Int(i64::MIN),
                    parenthesised: false,
                    span,
                },
                1,
            );
        }
        if op.as_rule() == Rule::bad_not {
            self.foreign(op_span, "!", "not");
        }
        let op = if op.as_rule() == Rule::neg {
            UnaryOp::Neg
        } else {
            UnaryOp::Not
        };
        let expr = Expr {
            kind: ExprKind::Unary {
                op,
                op_span,
                operand: Box::new(operand),
            },
            parenthesised: false,
            span,
        };
        self.checked(expr, depth + 1, span)
    }

    fn foreign(&self, span: Span, found: &str, ours: &str) {
        self.report(
            Diagnostic::error("E0112", span, format!("`{found}` is no operator here")).labelled(format!("`{ours}`")),
        );
    }

    fn infix(&self, (left, left_depth): (Expr, u32), op: &P<'_>, (right, right_depth): (Expr, u32)) -> (Expr, u32) {
        let op_span = self.span(op);
        let span = left.span.to(right.span);
        let depth = left_depth.max(right_depth) + 1;
        let bare = |expr: &Expr| !expr.parenthesised;
        if op.as_rule() == Rule::range {
            if bare(&left) && matches!(left.kind, ExprKind::Range { .. }) {
                self.report(
                    Diagnostic::error("E0104", op_span, "a range has two ends").also(left.span, "is a range already"),
                );
            }
            let kind = ExprKind::Range {
                low: Box::new(left),
                high: Box::new(right),
            };
            return self.checked(
                Expr {
                    kind,
                    parenthesised: false,
                    span,
                },
                depth,
                span,
            );
        }
        let Some(binary) = binary_op(op.as_rule()) else {
            return (self.error(span), 1);
        };
        match op.as_rule() {
            Rule::bad_or => self.foreign(op_span, "||", "or"),
            Rule::bad_and => self.foreign(op_span, "&&", "and"),
            Rule::bad_ne => self.foreign(op_span, "<>", "!="),
            Rule::bad_eq => self.foreign(op_span, "=", "=="),
            _ => {}
        }
        if binary.is_comparison()
            && bare(&left)
            && let ExprKind::Binary {
                op: before,
                op_span: before_span,
                left: first,
                right: middle,
            } = &left.kind
            && before.is_comparison()
        {
            let text = |expr: &Expr| short(expr.span.of(self.text));
            self.report(
                Diagnostic::error("E0114", op_span, "comparisons do not chain")
                    .also(*before_span, "the first comparison")
                    .help(format!(
                        "`{} {} {} and {} {} {}`",
                        text(first),
                        before.text(),
                        text(middle),
                        text(middle),
                        binary.text(),
                        text(&right)
                    )),
            );
        }
        let long = matches!(
            right.kind,
            ExprKind::Binary { .. }
                | ExprKind::Range { .. }
                | ExprKind::If { .. }
                | ExprKind::Unary { op: UnaryOp::Not, .. }
        );
        if matches!(binary, BinaryOp::Coalesce | BinaryOp::Catch) && bare(&right) && long {
            self.report(
                Diagnostic::error(
                    "E0115",
                    right.span,
                    format!("the right side of `{}` needs parentheses", binary.text()),
                )
                .help(format!("`{} ({})`", binary.text(), short(right.span.of(self.text)))),
            );
        }
        let kind = ExprKind::Binary {
            op: binary,
            op_span,
            left: Box::new(left),
            right: Box::new(right),
        };
        self.checked(
            Expr {
                kind,
                parenthesised: false,
                span,
            },
            depth,
            span,
        )
    }

    fn postfix(&self, (operand, mut depth): (Expr, u32), op: P<'_>) -> (Expr, u32) {
        let span = operand.span.to(self.span(&op));
        let rule = op.as_rule();
        let mut parts = kids(op);
        let kind = parts.next().map(|first| match rule {
            Rule::index => {
                let index = self.child(first, &mut depth);
                ExprKind::Index {
                    receiver: Box::new(operand),
                    index: Box::new(index),
                }
            }
            Rule::method => {
                let name = self.name(&first);
                let args = parts.next().map(|kid| self.args(kid, &mut depth)).unwrap_or_default();
                ExprKind::Method {
                    receiver: Box::new(operand),
                    name,
                    args,
                }
            }
            _ => ExprKind::Field {
                receiver: Box::new(operand),
                name: self.name(&first),
                optional: rule == Rule::opt_field,
            },
        });
        let expr = Expr {
            kind: kind.unwrap_or(ExprKind::Error),
            parenthesised: false,
            span,
        };
        self.checked(expr, depth + 1, span)
    }

    fn primary(&self, pair: P<'_>) -> (Expr, u32) {
        let span = self.span(&pair);
        let mut depth = 0;
        if pair.as_rule() == Rule::group {
            let Some(inside) = kids(pair).next() else {
                return (self.error(span), 1);
            };
            let mut expr = self.child(inside, &mut depth);
            if self.minimum.borrow().last() == Some(&expr.span) {
                // `-(9223372036854775808)` is no literal.
                self.minimum.borrow_mut().pop();
                self.problem(expr.span, literal::too_large(expr.span.of(self.text)));
            }
            expr.parenthesised = true;
            expr.span = span;
            return (expr, depth);
        }
        let kind = self.primary_kind(pair, span, &mut depth).unwrap_or(ExprKind::Error);
        self.checked(
            Expr {
                kind,
                parenthesised: false,
                span,
            },
            depth + 1,
            span,
        )
    }

    fn primary_kind(&self, pair: P<'_>, span: Span, depth: &mut u32) -> Option<ExprKind> {
        let rule = pair.as_rule();
        Some(match rule {
            Rule::column => ExprKind::Name(self.first_name(pair)?),
            Rule::param_ref => ExprKind::Param(self.first_name(pair)?),
            Rule::let_ref => ExprKind::Let(self.first_name(pair)?),
            Rule::function => {
                let mut parts = kids(pair);
                ExprKind::Call {
                    name: self.name(&parts.next()?),
                    args: self.args(parts.next()?, depth),
                }
            }
            Rule::list => ExprKind::List(kids(pair).map(|kid| self.child(kid, depth)).collect()),
            Rule::record => {
                let fields: Vec<RecordField> = kids(pair)
                    .filter_map(|kid| {
                        let mut parts = kids(kid);
                        Some(RecordField {
                            name: self.name(&parts.next()?),
                            value: self.child(parts.next()?, depth),
                        })
                    })
                    .collect();
                self.once("field", fields.iter().map(|field| &field.name));
                ExprKind::Record(fields)
            }
            Rule::if_expr => {
                let mut parts = kids(pair);
                let condition = Box::new(self.child(parts.next()?, depth));
                let then = Box::new(self.child(parts.next()?, depth));
                let otherwise = parts.nth(1).map(|kid| Box::new(self.child(kid, depth)));
                ExprKind::If {
                    condition,
                    then,
                    otherwise,
                }
            }
            Rule::match_expr => self.match_expr(pair, depth)?,
            Rule::fstring => ExprKind::FString(self.fstring(pair, depth)),
            _ => self.literal(&pair, span),
        })
    }

    fn match_expr(&self, pair: P<'_>, depth: &mut u32) -> Option<ExprKind> {
        let mut parts = kids(pair);
        let subject = Box::new(self.child(parts.next()?, depth));
        let mut arms = Vec::new();
        let mut otherwise: Option<Box<Expr>> = None;
        for part in parts {
            let span = self.span(&part);
            if let Some(last) = &otherwise {
                self.report(
                    Diagnostic::error("E0124", span, "arm behind `else`").also(last.span, "takes all that is left"),
                );
            }
            let mut patterns = Vec::new();
            let mut is_else = false;
            for kid in kids(part) {
                match kid.as_rule() {
                    Rule::kw_else => is_else = true,
                    Rule::pattern => patterns.extend(self.pattern(kid)),
                    _ => {
                        let value = self.child(kid, depth);
                        if is_else {
                            otherwise = Some(Box::new(value));
                        } else {
                            arms.push(MatchArm {
                                patterns: std::mem::take(&mut patterns),
                                value,
                                span,
                            });
                        }
                    }
                }
            }
        }
        if arms.is_empty() && otherwise.is_none() {
            self.report(
                Diagnostic::error("E0123", subject.span, "`match` without arms")
                    .help("`match x { 1 => \"a\", else => \"b\" }`"),
            );
        }
        Some(ExprKind::Match {
            subject,
            arms,
            otherwise,
        })
    }

    fn pattern(&self, pair: P<'_>) -> Option<Pattern> {
        let span = self.span(&pair);
        let (mut low, mut high, mut range) = (None, None, false);
        for kid in kids(pair) {
            match kid.as_rule() {
                Rule::dots => range = true,
                _ if range => high = self.signed_literal(kid),
                _ => low = self.signed_literal(kid),
            }
        }
        let kind = if range {
            PatternKind::Range { low, high }
        } else {
            PatternKind::Literal(low?)
        };
        Some(Pattern { kind, span })
    }

    pub(super) fn signed_literal(&self, pair: P<'_>) -> Option<Expr> {
        let mut neg = None;
        for kid in kids(pair) {
            if kid.as_rule() == Rule::neg {
                neg = Some(kid);
                continue;
            }
            let span = self.span(&kid);
            let literal = Expr {
                kind: self.literal(&kid, span),
                parenthesised: false,
                span,
            };
            return Some(match neg {
                Some(neg) => self.prefix(&neg, (literal, 1)).0,
                None => literal,
            });
        }
        None
    }

    /// A list, a record or a literal that stands alone in a table's cell.
    pub(super) fn cell(&self, pair: P<'_>) -> Option<Expr> {
        match pair.as_rule() {
            Rule::signed_literal => self.signed_literal(pair),
            Rule::list | Rule::record => Some(self.primary(pair).0),
            _ => None,
        }
    }

    /// Reports the 2^63 that no minus took.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        for span in self.minimum.take() {
            self.problem(span, literal::too_large(span.of(self.text)));
        }
        self.diagnostics.into_inner()
    }

    fn args(&self, pair: P<'_>, depth: &mut u32) -> Vec<Arg> {
        let args: Vec<Arg> = kids(pair)
            .filter_map(|kid| {
                let mut parts = kids(kid);
                let mut next = parts.next()?;
                let mut name = None;
                if next.as_rule() == Rule::option_key {
                    name = self.first_name(next);
                    next = parts.next()?;
                }
                let span = self.span(&next);
                let value = match next.as_rule() {
                    Rule::lambda => self.lambda(next, depth)?,
                    Rule::star => {
                        self.report(
                            Diagnostic::error("E0124", span, "`*` is no argument").help("`count()` counts the rows"),
                        );
                        self.error(span)
                    }
                    _ => self.child(next, depth),
                };
                Some(Arg { name, value })
            })
            .collect();
        self.once("argument", args.iter().filter_map(|arg| arg.name.as_ref()));
        args
    }

    fn lambda(&self, pair: P<'_>, depth: &mut u32) -> Option<Expr> {
        let span = self.span(&pair);
        let mut params = Vec::new();
        let mut body = None;
        for kid in kids(pair) {
            match kid.as_rule() {
                Rule::name => params.push(self.name(&kid)),
                _ => body = Some(self.child(kid, depth)),
            }
        }
        *depth += 1;
        self.once("parameter", params.iter());
        Some(Expr {
            kind: ExprKind::Lambda {
                params,
                body: Box::new(body?),
            },
            parenthesised: false,
            span,
        })
    }

    fn fstring(&self, pair: P<'_>, depth: &mut u32) -> Vec<FPart> {
        let mut parts = Vec::new();
        for kid in pair.into_inner() {
            let span = self.span(&kid);
            match kid.as_rule() {
                Rule::ftext => {
                    let mut problems = Vec::new();
                    let text = self.ftext(kid.as_str(), &mut problems);
                    for problem in problems {
                        self.problem(span, problem);
                    }
                    parts.push(FPart::Text(text));
                }
                _ => {
                    let mut inside = kids(kid);
                    let Some(first) = inside.next() else { continue };
                    let expr = self.child(first, depth);
                    let spec = inside.next().map(|kid| {
                        let span = self.span(&kid);
                        let value = kid.as_str().get(1..).unwrap_or("").to_owned();
                        Str {
                            value,
                            span: Span::new(span.start as usize + 1, span.end as usize),
                        }
                    });
                    parts.push(FPart::Expr { expr, spec });
                }
            }
        }
        parts
    }

    /// Text of an f-string: escapes undone first, doubled braces in what was no escape.
    fn ftext(&self, text: &str, problems: &mut Vec<Problem>) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if text[at..].starts_with("\\u{") => {
                    at += text[at..].find('}').unwrap_or(text.len() - at - 1) + 1;
                }
                b'\\' => at += 2,
                b'{' | b'}' => {
                    out.push_str(&literal::unescape(text.get(from..at).unwrap_or(""), from, problems));
                    out.push(if bytes[at] == b'{' { '{' } else { '}' });
                    at += 2;
                    from = at;
                }
                _ => at += 1,
            }
        }
        out.push_str(&literal::unescape(text.get(from..).unwrap_or(""), from, problems));
        out
    }

    fn literal(&self, pair: &P<'_>, span: Span) -> ExprKind {
        let text = pair.as_str();
        let value = match pair.as_rule() {
            Rule::kw_null => Ok(ExprKind::Null),
            Rule::kw_true => Ok(ExprKind::Bool(true)),
            Rule::kw_false => Ok(ExprKind::Bool(false)),
            Rule::string | Rule::raw_string => Ok(ExprKind::Str(self.str(pair).value)),
            Rule::bytes => {
                let mut problems = Vec::new();
                let inside = text.get(2..text.len().saturating_sub(1)).unwrap_or("");
                let value = literal::unescape_bytes(inside, 2, true, &mut problems);
                for problem in problems {
                    self.problem(span, problem);
                }
                Ok(ExprKind::Bytes(value))
            }
            Rule::bad_string => {
                let inside = text.get(1..text.len().saturating_sub(1)).unwrap_or("");
                self.report(
                    Diagnostic::error("E0113", span, "text stands in double quotes").labelled(format!(
                        "`\"{}\"`",
                        short(&inside.replace("\\'", "'").replace('"', "\\\""))
                    )),
                );
                Ok(ExprKind::Str(literal::unescape(
                    &inside.replace("\\'", "'"),
                    1,
                    &mut Vec::new(),
                )))
            }
            Rule::int => match literal::int(text) {
                Ok(value) => Ok(ExprKind::Int(value)),
                Err(Some(problem)) => Err(problem),
                Err(None) => {
                    self.minimum.borrow_mut().push(span);
                    return ExprKind::Error;
                }
            },
            Rule::hex => literal::hex(text).map(ExprKind::Int),
            Rule::float => literal::float(text),
            Rule::time_span => literal::duration(text).map(ExprKind::Duration),
            Rule::size => literal::size(text).map(ExprKind::Size),
            Rule::timestamp => literal::timestamp(text),
            Rule::bad_date => Err(literal::bad_date(text)),
            Rule::bad_number => Err(literal::bad_number(text)),
            Rule::regex => literal::regex(text),
            _ => return ExprKind::Error,
        };
        value.unwrap_or_else(|problem| {
            self.problem(span, problem);
            ExprKind::Error
        })
    }
}

fn percent(text: &str) -> f64 {
    text.trim_end_matches('%').replace('_', "").parse().unwrap_or(f64::NAN)
}

/// Text for a message: one line, not long.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
