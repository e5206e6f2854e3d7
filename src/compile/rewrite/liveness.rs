//! Which columns are needed where: backwards from the sinks, down to what each source is asked for.
//!
//! How: every node tells what it needs of its input, given what is needed of its output. A column is not needed, needed as text
//! (only text sinks get it, unchecked), needed as far as some fields, or needed.
//!
//! What will bite: a fallible expression is needed even if nobody reads its value, since dropping it would change which rows
//! fail; and a value that is dropped keeps its column, since positions are baked into the stages behind it.

use crate::compile::draft::Draft;
use crate::expr::Expr;
use crate::graph::{Node, OnError, Op, Port};
use standpipe_sdk::spec::{Lineage, Wanted};
use standpipe_sdk::{Schema, Type, Value};
use std::sync::Arc;

/// The column of reject rows that holds the row itself.
const RECORD: usize = 8;

/// Fills in `keep` of every `Compute` and the request of every source; gives what each node needs of its first input.
pub(super) fn spread(draft: &mut Draft) -> Vec<Vec<Wanted>> {
    let mut of_inputs: Vec<Vec<Wanted>> = vec![vec![]; draft.nodes.len()];
    let mut needs: Vec<Vec<Wanted>> = draft
        .nodes
        .iter()
        .map(|node| vec![Wanted::No; node.schema.width()])
        .collect();
    let mut whole_rows = vec![false; draft.nodes.len()];
    for id in (0..draft.nodes.len()).rev() {
        let of_output = std::mem::take(&mut needs[id]);
        let width = draft.input_width(id, 0);
        let input = draft.nodes[id].inputs.first();
        let schema = match input {
            Some(edge) => draft.nodes[edge.from].schema.clone(),
            None => Schema::default(),
        };
        let output = of_output.clone();
        let mut of_input = needs_of_input(draft, id, of_output, width, &schema);
        if whole_rows[id] {
            of_input.iter_mut().for_each(|need| join(need, Wanted::Text));
        }
        let node = &draft.nodes[id];
        if let Some(edge) = node.inputs.iter().find(|edge| edge.port == Port::Built) {
            let mut of_build = std::mem::take(&mut needs[edge.from]);
            needs_of_build(draft, id, &output, &mut of_build);
            needs[edge.from] = of_build;
        }
        if matches!(node.op, Op::Rejects) {
            // What the rows looked like is asked of the nodes that set them aside.
            if of_input.get(RECORD).is_some_and(|need| *need != Wanted::No) {
                for edge in &node.inputs {
                    whole_rows[edge.from] = true;
                }
            }
            continue;
        }
        for edge in node.inputs.iter().filter(|edge| matches!(edge.port, Port::Out(_))) {
            for (need, more) in needs[edge.from].iter_mut().zip(&of_input) {
                join(need, more.clone());
            }
        }
        of_inputs[id] = of_input;
    }
    of_inputs
}

fn needs_of_input(draft: &mut Draft, id: usize, of_output: Vec<Wanted>, width: usize, schema: &Schema) -> Vec<Wanted> {
    let facts = &draft.facts[id];
    let Node { op, policy, .. } = &mut draft.nodes[id];
    match op {
        Op::Source { request, .. } => {
            request.columns.clone_from(&of_output);
            vec![]
        }
        Op::Compute { exprs, keep } => {
            let mut of_input = of_output[..keep.len().min(of_output.len())].to_vec();
            for (keep, need) in keep.iter_mut().zip(&of_input) {
                *keep = *need != Wanted::No;
            }
            let of_values = &of_output[of_input.len()..];
            for (expr, need) in exprs.iter_mut().zip(of_values) {
                // Under `null` a failure is no row error: nobody misses it with the value.
                let may_fail = expr.fallible && policy.on_error != OnError::Null;
                if *need == Wanted::No && !may_fail {
                    *expr = Expr::constant(Value::Null, expr.ty.clone(), expr.span);
                    continue;
                }
                expr.record_paths(&mut |column, path| {
                    if let (Some(need), Some(field)) = (of_input.get_mut(column), schema.get(column)) {
                        join(need, path_of(&field.ty, path));
                    }
                });
            }
            of_input
        }
        Op::Rearrange { picks } => {
            let mut of_input = vec![Wanted::No; width];
            for (&pick, need) in picks.iter().zip(of_output) {
                join(&mut of_input[pick], need);
            }
            of_input
        }
        Op::Route { arms } => {
            let mut of_input = of_output;
            of_input.extend(std::iter::repeat_n(Wanted::Yes, *arms));
            of_input
        }
        Op::Rejects => of_output,
        Op::Drain => vec![],
        Op::Build(_) | Op::Pass => {
            let mut of_input = of_output;
            read(&facts.reads, &mut of_input);
            of_input
        }
        Op::Probe { pairs } => {
            let mut of_input = vec![Wanted::No; width];
            passed_on(&facts.lineage, &of_output, &mut of_input);
            read(&facts.reads, &mut of_input);
            if let Some(pairs) = pairs {
                pairs.condition.record_paths(&mut |column, path| {
                    if let Some(Lineage::From(column)) = pairs.lineage.get(column)
                        && let (Some(need), Some(field)) = (of_input.get_mut(*column), schema.get(*column))
                    {
                        join(need, path_of(&field.ty, path));
                    }
                });
            }
            of_input
        }
        Op::Sink(_) => {
            let mut of_input = vec![Wanted::No; width];
            if facts.text {
                passed_on(&facts.lineage, &vec![Wanted::Text; facts.lineage.len()], &mut of_input);
            }
            read(&facts.reads, &mut of_input);
            of_input
        }
        Op::RowWise(_) | Op::Serial(_) | Op::Breaker(_) => {
            let mut of_input = vec![Wanted::No; width];
            passed_on(&facts.lineage, &of_output, &mut of_input);
            read(&facts.reads, &mut of_input);
            of_input
        }
    }
}

/// What a node needs of the build that it probes or drains.
fn needs_of_build(draft: &Draft, id: usize, of_output: &[Wanted], of_build: &mut [Wanted]) {
    let node = &draft.nodes[id];
    let Some(edge) = node.inputs.iter().find(|edge| edge.port == Port::Built) else {
        return;
    };
    let schema = &draft.nodes[edge.from].schema;
    let lineage = &draft.facts[id].lineage;
    if lineage.is_empty() {
        // A replay: the same rows again.
        of_build
            .iter_mut()
            .zip(of_output)
            .for_each(|(need, more)| join(need, more.clone()));
        return;
    }
    for (lineage, need) in lineage.iter().zip(of_output) {
        match (lineage, need) {
            (Lineage::Beside(column), need) => {
                if let Some(build) = of_build.get_mut(*column) {
                    join(build, need.clone());
                }
            }
            (Lineage::BesideAll, Wanted::No) => {}
            (Lineage::BesideAll, Wanted::Fields(fields)) => {
                of_build
                    .iter_mut()
                    .zip(fields)
                    .for_each(|(need, more)| join(need, more.clone()));
            }
            // Within a record nothing is verbatim.
            (Lineage::BesideAll, _) => {
                of_build.iter_mut().for_each(|need| join(need, Wanted::Yes));
            }
            _ => {}
        }
    }
    if let Op::Probe { pairs: Some(pairs) } = &node.op {
        pairs
            .condition
            .record_paths(&mut |column, path| match pairs.lineage.get(column) {
                Some(&Lineage::Beside(column)) => {
                    if let (Some(need), Some(field)) = (of_build.get_mut(column), schema.get(column)) {
                        join(need, path_of(&field.ty, path));
                    }
                }
                Some(Lineage::BesideAll) => match path {
                    [name, rest @ ..] => {
                        let at = schema.position(name);
                        if let Some((at, field)) = at.and_then(|at| Some((at, schema.get(at)?))) {
                            join(&mut of_build[at], path_of(&field.ty, rest));
                        }
                    }
                    [] => of_build.iter_mut().for_each(|need| join(need, Wanted::Yes)),
                },
                _ => {}
            });
    }
}

fn passed_on(lineage: &[Lineage], of_output: &[Wanted], of_input: &mut [Wanted]) {
    for (lineage, need) in lineage.iter().zip(of_output) {
        if let Lineage::From(column) = *lineage
            && let Some(input) = of_input.get_mut(column)
        {
            join(input, need.clone());
        }
    }
}

fn read(columns: &[usize], of_input: &mut [Wanted]) {
    for &column in columns {
        if let Some(need) = of_input.get_mut(column) {
            *need = Wanted::Yes;
        }
    }
}

/// What reading a path of fields needs of a column of type `ty`.
fn path_of(ty: &Type, path: &[Arc<str>]) -> Wanted {
    match (ty, path) {
        (Type::Record(schema), [name, rest @ ..]) => match schema.position(name) {
            Some(at) => {
                let mut fields = vec![Wanted::No; schema.width()];
                if let Some(field) = schema.get(at) {
                    fields[at] = path_of(&field.ty, rest);
                }
                Wanted::Fields(fields)
            }
            None => Wanted::Yes,
        },
        _ => Wanted::Yes,
    }
}

/// What satisfies both.
fn join(need: &mut Wanted, more: Wanted) {
    match (&mut *need, more) {
        (_, Wanted::No) | (Wanted::Yes, _) | (Wanted::Text, Wanted::Text) => {}
        (Wanted::No, more) => *need = more,
        (Wanted::Fields(fields), Wanted::Fields(others)) if fields.len() == others.len() => {
            for (field, other) in fields.iter_mut().zip(others) {
                join(field, other);
            }
        }
        // Text beside single fields is the whole record.
        _ => *need = Wanted::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::draft::{NewNode, out};
    use crate::compile::pipelines::source_op;
    use standpipe_sdk::{Error, Field, Span};

    fn schema(fields: &[(&str, Type)]) -> Schema {
        fields
            .iter()
            .map(|(name, ty)| Field::new(*name, ty.clone(), true))
            .collect()
    }

    fn column(schema: &Schema, at: usize) -> Expr {
        Expr::column(at, &schema.fields()[at], Span::default())
    }

    /// source(a, b, c, d) → compute(a as value, fallible b) → sink of text that gets a pick of columns.
    fn asked(fallible: bool, picks: Vec<usize>) -> (Vec<Wanted>, Vec<bool>) {
        let columns = schema(&[
            ("a", Type::Int),
            ("b", Type::Int),
            ("c", Type::String),
            ("d", Type::Int),
        ]);
        let mut draft = Draft::default();
        let op = source_op(Box::new(|_, _| Err(Error::Cancelled)), &columns);
        let source = draft.push(NewNode::new("read", Span::default(), vec![], columns.clone(), op));
        let mut b = column(&columns, 1);
        b.fallible = fallible;
        let wide: Schema = columns
            .fields()
            .iter()
            .cloned()
            .chain([columns.fields()[0].clone(), columns.fields()[1].clone()])
            .collect();
        let op = Op::Compute {
            exprs: vec![column(&columns, 0), b],
            keep: vec![true; 4],
        };
        let compute = draft.push(NewNode::new(
            "derive",
            Span::default(),
            vec![out(source)],
            wide.clone(),
            op,
        ));
        let picked: Schema = picks.iter().map(|&at| wide.fields()[at].clone()).collect();
        let width = picks.len();
        let select = draft.push(NewNode::new(
            "select",
            Span::default(),
            vec![out(compute)],
            picked.clone(),
            Op::Rearrange { picks },
        ));
        let op = Op::Sink(Box::new(|_| Err(Error::Cancelled)));
        let mut sink = NewNode::new("write", Span::default(), vec![out(select)], picked, op);
        sink.facts.text = true;
        sink.facts.lineage = (0..width).map(Lineage::From).collect();
        draft.push(sink);
        spread(&mut draft);
        let (Op::Source { request, .. }, Op::Compute { keep, .. }) =
            (&draft.nodes[source].op, &draft.nodes[compute].op)
        else {
            panic!("the nodes stay what they are");
        };
        (request.columns.clone(), keep.clone())
    }

    #[test]
    fn what_only_a_text_sink_gets_is_text_and_what_nobody_gets_is_skipped() {
        use Wanted::{No, Text, Yes};
        assert_eq!(
            asked(false, vec![2, 4]),
            (vec![Yes, No, Text, No], vec![false, false, true, false])
        );
        assert_eq!(
            asked(false, vec![3]),
            (vec![No, No, No, Text], vec![false, false, false, true])
        );
    }

    #[test]
    fn an_expression_that_can_fail_is_computed_though_nobody_reads_it() {
        use Wanted::{No, Text, Yes};
        assert_eq!(
            asked(true, vec![3]),
            (vec![No, Yes, No, Text], vec![false, false, false, true])
        );
    }

    #[test]
    fn fields_of_records_are_told_apart() {
        let record = Type::Record(schema(&[("x", Type::Int), ("y", Type::Int)]));
        let path = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
        let mut need = path_of(&record, &path(&["y"]));
        assert_eq!(need, Wanted::Fields(vec![Wanted::No, Wanted::Yes]));
        join(&mut need, path_of(&record, &path(&["x"])));
        assert_eq!(need, Wanted::Fields(vec![Wanted::Yes, Wanted::Yes]));
        join(&mut need, Wanted::Text);
        assert_eq!(need, Wanted::Yes);
    }
}
