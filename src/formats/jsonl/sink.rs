//! `write jsonl`.

use super::Encoder;
use crate::formats::options;
use crate::formats::out::Out;
use crate::formats::output::{RowEncoder, TextSink, TextSinkPlan};
use standpipe_sdk::spec::{Bound, Call, Complaint, Make, Plan};
use standpipe_sdk::{Batch, Result, Schema};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Lines {
    encoder: Encoder,
    not_finite: Arc<AtomicU64>,
}

impl RowEncoder for Lines {
    fn encode(&mut self, batch: Batch<'_>, out: &mut Out) -> Result<()> {
        let written = self.encoder.encode(&batch, out)?;
        if written.not_finite > 0 {
            self.not_finite.fetch_add(written.not_finite, Relaxed);
        }
        Ok(())
    }
}

pub(super) fn bind_write(call: &Call<'_>, plan: &Plan<'_>) -> Result<Bound, Vec<Complaint>> {
    let schema: Schema = call.own_fields().iter().cloned().collect();
    let path = options::paths(call)
        .first()
        .map_or_else(|| "-".to_string(), |p| (*p).to_string());
    let not_finite = Arc::new(AtomicU64::new(0));
    let counted = not_finite.clone();
    let encoder = move || {
        Box::new(Lines {
            encoder: Encoder::new(&schema),
            not_finite: counted.clone(),
        }) as Box<dyn RowEncoder>
    };
    let notes = Box::new(move || match not_finite.swap(0, Relaxed) {
        0 => vec![],
        n => vec![format!(
            "{n} values that are `nan` or `inf` became null: JSON has no number for them"
        )],
    });
    let plan = Arc::new(TextSinkPlan {
        path,
        folder: plan.folder.into(),
        append: call.flag("append"),
        header: Vec::new(),
        encoder: Box::new(encoder),
        notes,
    });
    Ok(Bound::keeps(
        call,
        vec![],
        Make::Sink(Box::new(move |setup| TextSink::open(plan.clone(), setup))),
    ))
}
