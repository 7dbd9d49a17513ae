//! A shared, immutable run of bytes: a part of a mapped file, or memory of our own.
//!
//! Weights stay in the form in which their file holds them; a kernel reads them through this. Cloning and slicing
//! never copy. No alignment is promised: files are hostile, so kernels use unaligned loads.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// Anything that can lend its bytes for as long as it lives, from any thread.
type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A shared, immutable run of bytes.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Self { owner: Arc::new(owner), range }
    }

    /// The part `range`, counted from the start of `self`; `None` where it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end).then(|| Self { owner: self.owner.clone(), range: start..end })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

/// Floats that can be lent as [`Bytes`] and changed again once nobody reads them.
#[derive(Clone, Debug, Default)]
pub struct Floats(Arc<Vec<f32>>);

impl Floats {
    /// Takes `values`.
    pub fn new(values: Vec<f32>) -> Self {
        Self(Arc::new(values))
    }

    /// The same numbers as little-endian bytes, without a copy.
    pub fn bytes(&self) -> Bytes {
        Bytes::new(FloatBytes(self.0.clone()))
    }

    /// The numbers, to be changed.
    ///
    /// # Panics
    /// Where bytes of them are still lent.
    pub fn change(&mut self) -> &mut [f32] {
        Arc::get_mut(&mut self.0).expect("weights are changed only between steps, when no model reads them")
    }
}

impl Floats {
    /// The numbers `range`, lent like [`Floats::bytes`]; `None` where it does not lie inside.
    pub fn part(&self, range: Range<usize>) -> Option<FloatPart> {
        (range.start <= range.end && range.end <= self.0.len()).then(|| FloatPart { all: self.0.clone(), range })
    }
}

/// A run of [`Floats`] that is lent.
#[derive(Clone, Debug)]
pub struct FloatPart {
    all: Arc<Vec<f32>>,
    range: Range<usize>,
}

impl Deref for FloatPart {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[self.range.clone()]
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

struct FloatBytes(Arc<Vec<f32>>);

impl AsRef<[u8]> for FloatBytes {
    fn as_ref(&self) -> &[u8] {
        const { assert!(cfg!(target_endian = "little"), "weights are little-endian in every file") };
        // SAFETY: floats have no padding, and bytes need no alignment; the length is theirs.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&self.0[..])) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Floats};

    #[test]
    fn floats_are_lent_and_changed() {
        let mut floats = Floats::new(vec![1.0, -2.5]);
        let bytes = floats.bytes();
        assert_eq!(&bytes[4..], (-2.5f32).to_le_bytes());
        drop(bytes);
        floats.change()[0] = 3.0;
        assert_eq!(floats.bytes()[..4], 3.0f32.to_le_bytes());
    }

    #[test]
    fn parts_stay_inside_and_are_lent() {
        let mut floats = Floats::new(vec![1.0, 2.0, 3.0]);
        let part = floats.part(1..3).unwrap();
        assert_eq!(*part, [2.0, 3.0]);
        assert!(floats.part(2..4).is_none());
        drop(part);
        floats.change()[1] = 5.0;
        assert_eq!(*floats.part(1..2).unwrap(), [5.0]);
    }

    #[test]
    #[should_panic(expected = "between steps")]
    fn floats_that_are_lent_do_not_change() {
        let mut floats = Floats::new(vec![1.0]);
        let _bytes = floats.bytes();
        floats.change();
    }

    #[test]
    fn slices_stay_inside() {
        let all = Bytes::new(vec![0u8, 1, 2, 3, 4]);
        let part = all.slice(1..4).unwrap();
        assert_eq!(&*part, &[1, 2, 3]);
        assert_eq!(&*part.slice(2..3).unwrap(), &[3]);
        assert!(part.slice(2..4).is_none());
        assert!(part.slice(usize::MAX..usize::MAX).is_none());
    }
}
