//! What the checks of a model folder tell while they are made.

use albertine::acceptance;

use super::runtime;
use crate::support::models::small_model;

#[test]
fn checks_that_run_the_graphs_tell_how_many_of_their_rows_are_done() {
    let (mut told, mut names) = (Vec::new(), Vec::new());
    let failed = acceptance::verify(
        &small_model("stepped-float32"),
        Ok(runtime().clone()),
        None,
        &mut |name, _| {
            names.push(name);
            Ok(())
        },
        &mut |name, done, rows| told.push((name, done, rows)),
    );
    assert_eq!((failed.unwrap(), &names[..]), (0, &acceptance::CHECKS[..]));
    let each = |name, step, rows| (0..rows).step_by(step).map(move |done| (name, done, rows));
    let expected: Vec<_> =
        each("reference logits", 1, 70).chain(each("unrolled graph", 1, 64)).chain(each("grouping", 8, 64)).collect();
    assert_eq!(told, expected);
}
