//! Cuts a long document into overlapping windows.

use std::ops::Range;

/// A window over a document's tokens, and how many of them no earlier window has covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub tokens: Range<usize>,
    pub fresh: usize,
}

/// Covers `length` tokens with as few windows as `capacity` allows, neighbours sharing at least `overlap` (less than
/// `capacity`). The windows of one document are equally long, to a token: a short rest would be judged without its
/// context, and full windows up to the end would compute many tokens twice. An empty document has one empty window.
///
/// # Panics
/// If `overlap` is not less than `capacity`: the model's manifest is checked for that when it is loaded.
pub fn windows(length: usize, capacity: usize, overlap: usize) -> Vec<Window> {
    assert!(overlap < capacity, "window overlap {overlap} must be less than the capacity {capacity}");
    let count = length.saturating_sub(overlap).div_ceil(capacity - overlap).max(1);
    let size = (length + (count - 1) * overlap).div_ceil(count);
    // From the first window's start to the last one's. Rounding down keeps every step within `size - overlap`.
    let span = length - size.min(length);
    let start = |index: usize| (span * index).checked_div(count - 1).unwrap_or(0);
    let mut covered = 0;
    (0..count)
        .map(|index| {
            let tokens = start(index)..(start(index) + size).min(length);
            let fresh = tokens.end - covered;
            covered = tokens.end;
            Window { tokens, fresh }
        })
        .collect()
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
    fn a_long_document_is_cut_into_equal_windows() {
        let expected =
            [Window { tokens: 0..7, fresh: 7 }, Window { tokens: 4..11, fresh: 4 }, Window { tokens: 8..15, fresh: 4 }];
        assert_eq!(windows(15, 8, 2), expected);
        assert_eq!(windows(9, 8, 2), [Window { tokens: 0..6, fresh: 6 }, Window { tokens: 3..9, fresh: 3 }]);
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
            let computed: usize = windows.iter().map(|window| window.tokens.len()).sum();
            prop_assert!(computed < length + (windows.len() - 1) * overlap + windows.len());
            prop_assert_eq!(windows.first().unwrap().tokens.start, 0);
            prop_assert_eq!(windows.last().unwrap().tokens.end, length);
            for pair in windows.windows(2) {
                prop_assert!(pair[0].tokens.end - pair[1].tokens.start >= overlap);
                prop_assert_eq!(pair[1].tokens.len(), pair[0].tokens.len());
            }
        }
    }
}
