//! The rows that want logits, on the processor; a device's are held against them in `cuda/tests.rs`.

use super::{reference, wanted};
use crate::kv::PageTable;
use crate::testing::{Numbers, runtimes, tensor, training_step};

#[test]
fn those_rows_in_their_order() {
    let (none, mut numbers) = (PageTable::default(), Numbers(71));
    for runtime in runtimes() {
        for rows in [vec![], vec![0], vec![4], vec![1, 2, 4], vec![0, 1, 2, 3, 4]] {
            let x = numbers.vec(5 * 7);
            let mut step = training_step(&runtime, &[2, 3], &none);
            step.logits_rows = rows.clone();
            let want = reference::wanted(&x, 7, &rows);
            let got = wanted(&mut step, tensor(&runtime, 5, 7, &x)).unwrap();
            assert_eq!((got.rows(), got.cols(), got.host()), (rows.len(), 7, &want[..]));
        }
    }
}
