//! A window's logits are its own: what it is computed with does not change them.

use albertine::text::tokenize::Tokens;

use super::{ROUNDING_TOLERANCE, distance, goldens, session};

#[test]
fn logits_do_not_depend_on_what_a_window_is_grouped_with() {
    let (goldens, mut session) = (goldens(), session());
    let ids: Vec<Tokens<'_>> = goldens.iter().map(|golden| Tokens::single(&golden.input_ids)).collect();
    let alone: Vec<Vec<f32>> = ids.iter().map(|ids| session.infer(&[*ids]).unwrap().remove(0)).collect();
    let mut largest = 0.0_f32;
    // Groups of neighbours in the file, whose lengths have nothing to do with each other, so most are padded.
    for (ids, alone) in ids.chunks(8).zip(alone.chunks(8)) {
        let together = session.infer(ids).unwrap();
        assert_eq!(together.len(), ids.len(), "one answer a window");
        largest = together.iter().zip(alone).map(|(together, alone)| distance(together, alone)).fold(largest, f32::max);
    }
    println!("largest distance {largest}, tolerance {ROUNDING_TOLERANCE}");
    assert!(largest <= ROUNDING_TOLERANCE, "grouping moved a logit by {largest}");
}

#[test]
fn a_short_window_beside_the_longest_is_answered_as_if_alone() {
    let (goldens, mut session) = (goldens(), session());
    let shortest = goldens.iter().min_by_key(|golden| golden.input_ids.len()).unwrap();
    let longest = goldens.iter().max_by_key(|golden| golden.input_ids.len()).unwrap();
    let padding = longest.input_ids.len() - shortest.input_ids.len();
    assert!(padding > 20, "the golden texts differ by {padding} tokens only: nothing is padded");
    let alone = session.infer(&[Tokens::single(&shortest.input_ids)]).unwrap().remove(0);
    let together =
        session.infer(&[Tokens::single(&longest.input_ids), Tokens::single(&shortest.input_ids)]).unwrap().remove(1);
    let moved = distance(&alone, &together);
    assert!(moved <= ROUNDING_TOLERANCE, "{padding} tokens of padding moved a logit by {moved}");
    // The tolerance tells masked padding from padding that is attended to.
    let unmasked = [&shortest.input_ids[..], &vec![0; padding]].concat();
    let moved = distance(&alone, &session.infer(&[Tokens::single(&unmasked)]).unwrap().remove(0));
    assert!(moved > 2.0 * ROUNDING_TOLERANCE, "padding that is not masked moves a logit only by {moved}");
}

#[test]
fn answers_come_in_the_order_of_the_windows() {
    let (goldens, mut session) = (goldens(), session());
    let (first, second) = (&goldens[0], &goldens[1]);
    assert!(
        distance(&first.logits_int8, &second.logits_int8) > 4.0 * ROUNDING_TOLERANCE,
        "the two texts must differ to tell their order"
    );
    let together = session.infer(&[Tokens::single(&first.input_ids), Tokens::single(&second.input_ids)]).unwrap();
    let swapped = session.infer(&[Tokens::single(&second.input_ids), Tokens::single(&first.input_ids)]).unwrap();
    for (left, right) in [(0, 1), (1, 0)] {
        let distance = distance(&together[left], &swapped[right]);
        assert!(distance <= ROUNDING_TOLERANCE, "window {left} differs by {distance} from itself in the other place");
    }
}
