//! `write FORMAT path`: rows to files. `write none` discards and counts.
//!
//! Formats bind all modes but `none`.

use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Items, Kind, Make, StageSpec, Want};
use standpipe_sdk::{Batch, Faults, Published, Sink, Writer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `write`; further modes and options are the formats'.
pub const SPEC: StageSpec = StageSpec {
    name: "write",
    about: "Writes rows to a file of a format, which appears when the run succeeds; `-` is standard output",
    modes: &["none"],
    kind: Kind::Sink,
    items: Items::some(ArgKind::Const(Want::String), 0, 1, "the path; none for `write none`"),
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    if call.mode != Some("none") {
        return Err(vec![]);
    }
    Ok(Bound::keeps(call, vec![], Make::Sink(Box::new(|_| Ok(none_sink())))))
}

/// The sink of `write none` and of the arm `_`: it counts the rows and looks at nothing.
pub fn none_sink() -> Arc<dyn Sink> {
    Arc::new(Nowhere::default())
}

#[derive(Default)]
struct Nowhere {
    rows: AtomicU64,
}

impl Sink for Nowhere {
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>> {
        Ok(Box::new(Count { sink: self, rows: 0 }))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn publish(&self) -> Result<Vec<Published>> {
        Ok(vec![Published {
            path: "none".into(),
            rows: self.rows.load(Relaxed),
            bytes: 0,
        }])
    }

    fn discard(&self) {}
}

struct Count {
    sink: Arc<Nowhere>,
    rows: u64,
}

impl Writer for Count {
    fn encode(&mut self, batch: Batch<'_>, _: &Faults<'_>) -> Result<()> {
        self.rows += batch.rows() as u64;
        Ok(())
    }

    fn pending(&self) -> usize {
        // Nothing is kept, but a writer without anything pending is not asked to write.
        usize::from(self.rows > 0)
    }

    fn write(&mut self) -> Result<()> {
        self.sink.rows.fetch_add(std::mem::take(&mut self.rows), Relaxed);
        Ok(())
    }

    fn forget(&mut self) {
        self.rows = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::{Arena, Column};

    #[test]
    fn rows_that_were_forgotten_do_not_count() {
        let arena = Arena::new(1024);
        let faults = Faults::new(&arena, true);
        let columns = [Column::absent(3)];
        let batch = Batch::new(&columns, None, 3);
        let sink = none_sink();
        let mut writer = sink.clone().writer().unwrap();
        writer.encode(batch, &faults).unwrap();
        writer.forget();
        for _ in 0..2 {
            writer.encode(batch, &faults).unwrap();
            writer.encode(batch, &faults).unwrap();
            writer.write().unwrap();
        }
        assert_eq!(sink.publish().unwrap()[0].rows, 12);
    }
}
