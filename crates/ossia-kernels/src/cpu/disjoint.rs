//! One slice, written by many threads in parts that do not overlap.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice whose disjoint parts may be written from several threads.
pub struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out through `part`, whose caller promises that they do not overlap.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the whole slice.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// The part `range`.
    ///
    /// # Safety
    /// While a part lives, no other part that overlaps it does.
    ///
    /// # Panics
    /// Where `range` does not lie inside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: inside the slice, which is borrowed mutably for 'a; the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// Where the part `range` lies, for those who write parts that are not one range. What is done with it is under
    /// the rules of [`Disjoint::part`].
    ///
    /// # Panics
    /// Where `range` does not lie inside the slice.
    pub fn pointer(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        self.pointer.wrapping_add(range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::Disjoint;
    use crate::pool::Pool;

    #[test]
    fn parts_are_written_in_parallel() {
        let mut values = vec![0usize; 100];
        let parts = Disjoint::new(&mut values);
        Pool::new(2).run_ranges(100, 9, |range, _| {
            // SAFETY: ranges of one run do not overlap.
            let part = unsafe { parts.part(range.clone()) };
            part.iter_mut().zip(range).for_each(|(v, i)| *v = i);
        });
        assert!(values.iter().enumerate().all(|(i, &v)| v == i));
    }

    #[test]
    #[should_panic(expected = "of 3")]
    fn a_part_outside_is_refused() {
        let mut values = [0; 3];
        // SAFETY: the only part.
        let _ = unsafe { Disjoint::new(&mut values).part(2..4) };
    }
}
