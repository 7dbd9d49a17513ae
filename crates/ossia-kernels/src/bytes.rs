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

#[cfg(test)]
mod tests {
    use super::Bytes;

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
