//! Holds the versions of `squares` together.

use super::*;
use crate::testing::{Numbers, runtimes};

#[test]
fn equals_the_reference_and_shows_what_is_not_finite() {
    let mut x = Numbers(97).vec(1000);
    let ranges = [0..1, 1..1, 1..700, 700..1000];
    for runtime in runtimes() {
        assert_eq!(forward(&runtime, &x, &ranges).unwrap(), reference::forward(&x, &ranges));
    }
    // The square of the largest f32 is finite in f64.
    (x[3], x[800]) = (f32::MAX, f32::NAN);
    let squares = forward(&runtimes()[0], &x, &ranges).unwrap();
    assert!(squares[2].is_finite() && !squares[3].is_finite());
}
