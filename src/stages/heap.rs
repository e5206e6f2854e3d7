//! A heap: the value that comes before all others is the first. Of the best values so far that is the worst one, of sorted lists the one
//! whose next value is the least.

/// The last value goes up to where nothing above it comes behind it.
pub(super) fn sift_up<T>(heap: &mut [T], is_before: impl Fn(&T, &T) -> bool) {
    let Some(mut at) = heap.len().checked_sub(1) else {
        return;
    };
    while at > 0 {
        let above = (at - 1) / 2;
        if !is_before(&heap[at], &heap[above]) {
            break;
        }
        heap.swap(at, above);
        at = above;
    }
}

/// The first value goes down to where nothing below it comes before it.
#[inline]
pub(super) fn sift_down<T>(heap: &mut [T], is_before: impl Fn(&T, &T) -> bool) {
    sift_from(0, heap, is_before);
}

/// Makes a heap of values in any order.
pub(super) fn build<T>(heap: &mut [T], is_before: impl Fn(&T, &T) -> bool) {
    for at in (0..heap.len() / 2).rev() {
        sift_from(at, heap, &is_before);
    }
}

#[inline]
fn sift_from<T>(mut at: usize, heap: &mut [T], is_before: impl Fn(&T, &T) -> bool) {
    loop {
        let mut first = at;
        for below in [2 * at + 1, 2 * at + 2] {
            if below < heap.len() && is_before(&heap[below], &heap[first]) {
                first = below;
            }
        }
        if first == at {
            break;
        }
        heap.swap(at, first);
        at = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_always_first() {
        let mut heap: Vec<u32> = vec![];
        let values = (0..200u32).map(|i| i * 7919 % 101);
        for value in values.clone() {
            heap.push(value);
            sift_up(&mut heap, |a, b| a > b);
            assert_eq!(heap.first(), heap.iter().max());
        }
        for value in values {
            heap[0] = value / 2;
            sift_down(&mut heap, |a, b| a > b);
            assert_eq!(heap.first(), heap.iter().max());
        }
    }

    #[test]
    fn values_in_any_order_come_out_one_by_one() {
        for len in 0..60u32 {
            let mut heap: Vec<u32> = (0..len).map(|i| i * 7919 % 23).collect();
            let mut want = heap.clone();
            want.sort_unstable();
            build(&mut heap, |a, b| a < b);
            for value in want {
                assert_eq!(heap.first(), Some(&value));
                heap.swap_remove(0);
                sift_down(&mut heap, |a, b| a < b);
            }
        }
    }
}
