//! Every built-in stage. A new one adds two lines: its `use` and its row.

use super::aggregate;
use super::assert;
use super::cast;
use super::dedup;
use super::derive;
use super::describe;
use super::distinct;
use super::drop;
use super::each;
use super::fill;
use super::filter;
use super::flatten;
use super::from;
use super::join;
use super::merge;
use super::nest;
use super::number;
use super::pivot;
use super::read;
use super::rename;
use super::route;
use super::sample;
use super::select;
use super::set;
use super::skip;
use super::sort;
use super::tail;
use super::take;
use super::tap;
use super::tee;
use super::top;
use super::union;
use super::unnest;
use super::unpivot;
use super::window;
use super::write;
use standpipe_sdk::spec::StageSpec;

/// The built-in stages, by name.
pub fn list() -> &'static [&'static StageSpec] {
    static LIST: &[&StageSpec] = &[
        &aggregate::SPEC,
        &assert::SPEC,
        &cast::SPEC,
        &dedup::SPEC,
        &derive::SPEC,
        &describe::SPEC,
        &distinct::SPEC,
        &drop::SPEC,
        &each::SPEC,
        &fill::SPEC,
        &filter::SPEC,
        &flatten::SPEC,
        &from::SPEC,
        &join::SPEC,
        &merge::SPEC,
        &nest::SPEC,
        &number::SPEC,
        &pivot::SPEC,
        &read::SPEC,
        &rename::SPEC,
        &route::SPEC,
        &sample::SPEC,
        &select::SPEC,
        &set::SPEC,
        &skip::SPEC,
        &sort::SPEC,
        &tail::SPEC,
        &take::SPEC,
        &tap::SPEC,
        &tee::SPEC,
        &top::SPEC,
        &union::SPEC,
        &unnest::SPEC,
        &unpivot::SPEC,
        &window::SPEC,
        &write::SPEC,
    ];
    LIST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_specs_say_something() {
        let names: Vec<_> = list().iter().map(|s| s.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for spec in list() {
            assert!(!spec.about.is_empty() && !spec.about.ends_with('.'), "{}", spec.name);
            for param in spec.options {
                assert!(!param.about.is_empty(), "{} {}", spec.name, param.name);
            }
        }
    }
}
