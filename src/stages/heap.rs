//! A heap of the best values so far, the worst of them first.

/// The last value goes up to where nothing above it is better.
pub(super) fn sift_up<T>(heap: &mut [T], is_worse: impl Fn(&T, &T) -> bool) {
    let Some(mut at) = heap.len().checked_sub(1) else {
        return;
    };
    while at > 0 {
        let above = (at - 1) / 2;
        if !is_worse(&heap[at], &heap[above]) {
            break;
        }
        heap.swap(at, above);
        at = above;
    }
}

/// The first value goes down to where nothing below it is worse.
pub(super) fn sift_down<T>(heap: &mut [T], is_worse: impl Fn(&T, &T) -> bool) {
    let mut at = 0;
    loop {
        let mut worst = at;
        for below in [2 * at + 1, 2 * at + 2] {
            if below < heap.len() && is_worse(&heap[below], &heap[worst]) {
                worst = below;
            }
        }
        if worst == at {
            break;
        }
        heap.swap(at, worst);
        at = worst;
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
}
