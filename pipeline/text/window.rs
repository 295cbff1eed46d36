//! Cuts a long document into overlapping windows.

use std::ops::Range;

/// A window over a document's tokens, and how many of them no earlier window has covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub tokens: Range<usize>,
    pub fresh: usize,
}

/// Covers `length` tokens with windows of at most `capacity`, neighbours sharing `overlap` (less than
/// `capacity`). The last window of a long document is moved back to full length, so that all windows of
/// one document are equally long and none wastes a batch. An empty document has one empty window.
///
/// # Panics
/// If `overlap` is not less than `capacity`: the model's manifest is checked for that when it is loaded.
pub fn windows(length: usize, capacity: usize, overlap: usize) -> Vec<Window> {
    assert!(overlap < capacity, "window overlap {overlap} must be less than the capacity {capacity}");
    let mut windows = Vec::new();
    let mut covered = 0;
    let mut start = 0;
    loop {
        let end = (start + capacity).min(length);
        let begin = if windows.is_empty() { 0 } else { end.saturating_sub(capacity) };
        windows.push(Window { tokens: begin..end, fresh: end - covered });
        covered = end;
        if end == length {
            return windows;
        }
        start = end - overlap;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_document_is_one_window() {
        assert_eq!(windows(5, 8, 2), [Window { tokens: 0..5, fresh: 5 }]);
        assert_eq!(windows(8, 8, 2), [Window { tokens: 0..8, fresh: 8 }]);
        assert_eq!(windows(0, 8, 2), [Window { tokens: 0..0, fresh: 0 }]);
    }

    #[test]
    fn the_last_window_is_moved_back_to_full_length() {
        let expected =
            [Window { tokens: 0..8, fresh: 8 }, Window { tokens: 6..14, fresh: 6 }, Window { tokens: 7..15, fresh: 1 }];
        assert_eq!(windows(15, 8, 2), expected);
    }

    proptest! {
        #[test]
        fn every_token_is_covered_and_counted_once(
            length in 0_usize..5_000,
            capacity in 1_usize..600,
            share in 0.0_f64..0.99,
        ) {
            let overlap = (capacity as f64 * share) as usize;
            let windows = windows(length, capacity, overlap);
            prop_assert_eq!(windows.iter().map(|window| window.fresh).sum::<usize>(), length);
            prop_assert!(windows.iter().all(|window| window.tokens.len() <= capacity));
            prop_assert_eq!(windows.first().unwrap().tokens.start, 0);
            prop_assert_eq!(windows.last().unwrap().tokens.end, length);
            for pair in windows.windows(2) {
                prop_assert!(pair[0].tokens.end - pair[1].tokens.start >= overlap);
                prop_assert_eq!(pair[1].tokens.len(), capacity);
            }
        }
    }
}
