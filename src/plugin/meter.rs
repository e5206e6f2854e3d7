//! What plugins did in one run: calls, rows, time, memory.
//!
//! Laws
//! - A meter belongs to one bound stage or function; [`collect`] gives those that were bound meanwhile on the thread, so a run that
//!   compiles its script anew counts by itself.

use super::bind::Vtable;
use super::isolate::{Isolation, isolation_of};
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts of one bound stage or function.
#[derive(Debug)]
pub struct Meter {
    /// `geo.locate`.
    pub name: &'static str,
    isolation: Option<Isolation>,
    calls: AtomicU64,
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    nanos: AtomicU64,
    reserved: AtomicI64,
    peak: AtomicI64,
}

/// One stage or function of a plugin, in the report of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// `geo.locate`; its part before the dot is the plugin.
    pub name: String,
    /// Batches it was called for.
    pub calls: u64,
    pub rows_in: u64,
    pub rows_out: u64,
    /// The time spent in it, of all workers; what stages behind did meanwhile is not in it.
    pub seconds: f64,
    /// The most bytes that it had declared as its own.
    pub peak_bytes: u64,
    /// That it ran in processes of its own, and with what limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
}

thread_local! {
    static BOUND: RefCell<Vec<Arc<Meter>>> = const { RefCell::new(vec![]) };
}

impl Meter {
    /// A new one, which [`collect`] will give.
    pub(super) fn new(name: &'static str) -> Arc<Meter> {
        Meter::isolated(name, None)
    }

    /// The same of a stage or function of a library.
    pub(super) fn of(vtable: &Vtable) -> Arc<Meter> {
        Meter::isolated(vtable.name, isolation_of(vtable.stage))
    }

    fn isolated(name: &'static str, isolation: Option<Isolation>) -> Arc<Meter> {
        let meter = Arc::new(Meter {
            name,
            isolation,
            calls: AtomicU64::new(0),
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            reserved: AtomicI64::new(0),
            peak: AtomicI64::new(0),
        });
        BOUND.with_borrow_mut(|bound| bound.push(meter.clone()));
        meter
    }

    pub(super) fn called(&self, rows_in: usize, rows_out: usize, time: Duration) {
        self.calls.fetch_add(1, Relaxed);
        self.rows_in.fetch_add(rows_in as u64, Relaxed);
        self.rows_out.fetch_add(rows_out as u64, Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    pub(super) fn reserved(&self, delta: i64) {
        let now = self.reserved.fetch_add(delta, Relaxed) + delta;
        self.peak.fetch_max(now, Relaxed);
    }
}

/// Runs `f`; with what it gave come the meters of everything that was bound.
pub fn collect<T>(f: impl FnOnce() -> T) -> (T, Vec<Arc<Meter>>) {
    let before = BOUND.take();
    let outcome = f();
    (outcome, BOUND.replace(before))
}

/// One row per name, in the order of binding; what was bound and never called is not among them.
pub fn usage(meters: &[Arc<Meter>]) -> Vec<Usage> {
    let mut out: Vec<Usage> = vec![];
    for meter in meters.iter().filter(|meter| meter.calls.load(Relaxed) > 0) {
        let at = out.iter().position(|row| row.name == meter.name).unwrap_or_else(|| {
            out.push(Usage {
                name: meter.name.to_owned(),
                isolation: meter.isolation.map(|limits| limits.to_string()),
                ..Usage::default()
            });
            out.len() - 1
        });
        let row = &mut out[at];
        row.calls += meter.calls.load(Relaxed);
        row.rows_in += meter.rows_in.load(Relaxed);
        row.rows_out += meter.rows_out.load(Relaxed);
        row.seconds += Duration::from_nanos(meter.nanos.load(Relaxed)).as_secs_f64();
        row.peak_bytes += u64::try_from(meter.peak.load(Relaxed)).unwrap_or(0);
    }
    out
}

/// Which of what was bound runs in processes of its own, and with what limits: a line each.
pub fn isolated(meters: &[Arc<Meter>]) -> String {
    let mut seen: Vec<&str> = vec![];
    let mut out = String::new();
    for meter in meters {
        if let Some(limits) = meter.isolation.filter(|_| !seen.contains(&meter.name)) {
            seen.push(meter.name);
            let _ = writeln!(out, "{} runs {limits}", meter.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_of_one_name_are_one_row() {
        let (_, meters) = collect(|| {
            for (rows, bytes) in [(3, 10), (4, 20)] {
                let meter = Meter::new("a.b");
                meter.called(rows, 2 * rows, Duration::from_millis(500));
                meter.reserved(bytes);
                meter.reserved(-bytes);
            }
            Meter::new("a.never");
        });
        let want = Usage {
            name: "a.b".into(),
            calls: 2,
            rows_in: 7,
            rows_out: 14,
            seconds: 1.0,
            peak_bytes: 30,
            isolation: None,
        };
        assert_eq!(usage(&meters), [want]);
        assert!(collect(|| ()).1.is_empty());
    }
}
