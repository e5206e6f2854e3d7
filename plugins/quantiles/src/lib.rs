//! `quantiles.quantile` and `quantiles.sketch`: quantiles of any number of rows, in memory that does not grow with them, off by a share
//! that the script says.
//!
//! What to look at: [`Combine`] for the two of them, [`histogram`] for what is kept of a group.

mod histogram;

pub use histogram::Histogram;
use histogram::{Precision, ROW_BYTES};
use standpipe_sdk::prelude::*;

/// What both take first.
const X: CombineParam = CombineParam::column("x", "float");
/// What both take last.
const ERROR: CombineParam = CombineParam::constant("error", "float", Some("0.01"));

fn precision(args: &Arguments<'_>) -> Result<Precision, Wrong> {
    let error: f64 = args.constant("error")?;
    Precision::of(error)
        .filter(|_| error < 1.0)
        .ok_or_else(|| Wrong::new("error", format!("it is a share from 0.00001 up to 1, not {error}")))
}

fn update(states: &mut [Histogram], rows: &Values<'_>, precision: Precision) -> Result<()> {
    for (&x, &group) in rows.get::<f64>(0)?.iter().zip(rows.groups) {
        states[group as usize].add(x, precision);
    }
    Ok(())
}

fn read(bytes: &[u8]) -> Result<Histogram, String> {
    Histogram::read(bytes).ok_or_else(|| "these bytes are no histogram".into())
}

/// `quantiles.quantile(x, p, error)`.
pub struct Quantile {
    share: f64,
    precision: Precision,
}

impl Combine for Quantile {
    const NAME: &'static str = "quantile";
    const ABOUT: &'static str = "About the first value, in order, at which the share `p` of all is reached; off by the share `error` of it at most";
    const PARAMS: &'static [CombineParam] = &[X, CombineParam::constant("p", "float", Some("0.5")), ERROR];
    const RETURNS: &'static str = "float";
    const EXAMPLES: &'static [Example] = &[Example {
        script: "use plugin quantiles\nfrom range(1, 1000) | aggregate p95 = round(quantiles.quantile(value, 0.95))",
        output: "p95\n948\n",
    }];
    const ROW_BYTES: usize = ROW_BYTES;
    type State = Histogram;

    fn bind(args: &Arguments<'_>) -> Result<Self, Wrong> {
        let share: f64 = args.constant("p")?;
        if !(0.0..=1.0).contains(&share) {
            return Err(Wrong::new("p", format!("it is a share from 0 to 1, not {share}")));
        }
        Ok(Quantile {
            share,
            precision: precision(args)?,
        })
    }

    fn ty(&self) -> Type {
        Type::Float
    }

    fn start(&self) -> Histogram {
        Histogram::EMPTY
    }

    fn update(&self, states: &mut [Histogram], rows: &Values<'_>) -> Result<()> {
        update(states, rows, self.precision)
    }

    fn merge(&self, state: &mut Histogram, other: Histogram) {
        state.merge(&other);
    }

    fn write(&self, state: &Histogram, out: &mut Vec<u8>) {
        state.write(out);
    }

    fn read(&self, bytes: &[u8]) -> Result<Histogram, String> {
        read(bytes)
    }

    fn room_of(&self, bytes: &[u8]) -> usize {
        Histogram::room_of(bytes)
    }

    fn value(&self, state: &Histogram) -> Result<Option<Value>, String> {
        Ok(state.quantile(self.share, self.precision).map(Value::Float))
    }
}

/// The quantiles of a sketch.
const SHARES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// `quantiles.sketch(x, error)`.
pub struct Sketch {
    precision: Precision,
}

impl Combine for Sketch {
    const NAME: &'static str = "sketch";
    const ABOUT: &'static str = "How many values there are, the least, the greatest, and about the quantiles between; off by the share `error` of each at most";
    const PARAMS: &'static [CombineParam] = &[X, ERROR];
    const RETURNS: &'static str = "record";
    const EXAMPLES: &'static [Example] = &[Example {
        script: "use plugin quantiles\nfrom range(1, 1000) | aggregate s = quantiles.sketch(value) | select n = s.count, least = s.min, half = s.p50, most = s.max",
        output: "n,least,half,most\n1000,1.0,502.0,1000.0\n",
    }];
    const ROW_BYTES: usize = ROW_BYTES;
    type State = Histogram;

    fn bind(args: &Arguments<'_>) -> Result<Self, Wrong> {
        Ok(Sketch {
            precision: precision(args)?,
        })
    }

    fn ty(&self) -> Type {
        let float = |name| Field::new(name, Type::Float, false);
        let ends = [Field::new("count", Type::Int, false), float("min")];
        let fields = ends.into_iter().chain(SHARES.map(|(name, _)| float(name)));
        Type::Record(fields.chain([float("max")]).collect())
    }

    fn start(&self) -> Histogram {
        Histogram::EMPTY
    }

    fn update(&self, states: &mut [Histogram], rows: &Values<'_>) -> Result<()> {
        update(states, rows, self.precision)
    }

    fn merge(&self, state: &mut Histogram, other: Histogram) {
        state.merge(&other);
    }

    fn write(&self, state: &Histogram, out: &mut Vec<u8>) {
        state.write(out);
    }

    fn read(&self, bytes: &[u8]) -> Result<Histogram, String> {
        read(bytes)
    }

    fn room_of(&self, bytes: &[u8]) -> usize {
        Histogram::room_of(bytes)
    }

    fn value(&self, state: &Histogram) -> Result<Option<Value>, String> {
        let count = state.count();
        if count == 0 {
            return Ok(None);
        }
        let float = |name: &str, x: f64| (name.to_owned(), Value::Float(x));
        let ends = [
            ("count".to_owned(), Value::Int(count as i64)),
            float("min", state.least()),
        ];
        let quantile = |(name, share)| float(name, state.quantile(share, self.precision).unwrap_or(f64::NAN));
        let fields = ends.into_iter().chain(SHARES.map(quantile));
        Ok(Some(Value::Record(
            fields.chain([float("max", state.most())]).collect(),
        )))
    }
}

standpipe_sdk::export! {
    id: "org.standpipe.quantiles",
    aggregates: [Quantile, Sketch],
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::table;
    use standpipe_sdk::testing::{self, NULL, Table};

    fn numbers() -> Table {
        table![
            "kind: string, x: float?";
            "a", 1.0; "a", 2.5; "b", -4.0; "a", NULL; "b", 1000.0; "c", NULL; "a", 3.0; "b", 0.0; "b", -4.1; "a", 2.51
        ]
    }

    #[test]
    fn a_quantile_of_each_group() {
        let quantile = testing::aggregate::<Quantile>().grouped();
        insta::assert_snapshot!(quantile.run(&numbers()));
        let quantile = quantile.constant("p", 1.0);
        insta::assert_snapshot!(quantile.run(&numbers()));
    }

    #[test]
    fn a_sketch_of_each_group() {
        insta::assert_snapshot!(testing::aggregate::<Sketch>().grouped().run(&numbers()));
        let none = table!["x: float?"];
        insta::assert_snapshot!(testing::aggregate::<Sketch>().run(&none));
    }

    #[test]
    fn wrong_constants_are_named() {
        let rows = table!["x: float"; 1.0];
        let wrong = |aggregate: testing::Aggregate| {
            let wrong = aggregate.refused(&rows);
            format!("{}: {}", wrong.param, wrong.message)
        };
        let quantile = testing::aggregate::<Quantile>;
        insta::assert_snapshot!(
            [
                wrong(quantile().constant("p", 1.5)),
                wrong(quantile().constant("p", NULL)),
                wrong(quantile().constant("error", 0.0)),
                wrong(testing::aggregate::<Sketch>().constant("error", 1.0)),
            ]
            .join("\n")
        );
    }
}
