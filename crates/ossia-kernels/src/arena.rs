//! Scratch memory, reserved once before the first token and lent out op by op.
//!
//! A slice returns its range when dropped, and ranges are given first-fit, so steps of the same shape get the same
//! addresses and nothing is asked of the system while tokens flow. What does not fit is an error, never growth.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Result};

/// Every slice starts at a multiple of this: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// Numbers that any bit pattern is valid for, so that reused scratch is always initialised.
///
/// # Safety
/// Implementors have no padding, no invalid bit patterns and an alignment of at most 64.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for u32 {}
// SAFETY: plain numbers.
unsafe impl Plain for i16 {}
// SAFETY: plain numbers.
unsafe impl Plain for i8 {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}

/// The scratch memory of one runtime. Cloning shares it.
#[derive(Clone)]
pub struct Arena(Arc<Region>);

struct Region {
    /// What the system gave, and where in it the first aligned byte is.
    given: NonNull<u8>,
    base: NonNull<u8>,
    capacity: usize,
    ranges: Mutex<Ranges>,
}

// SAFETY: the region is only reached through `Slice`s, whose ranges are disjoint; the range list is behind a mutex.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The lent ranges, sorted by start.
#[derive(Default)]
pub(crate) struct Ranges {
    lent: Vec<(usize, usize)>,
    peak: usize,
}

impl Ranges {
    /// The first gap of `size` bytes.
    pub(crate) fn take(&mut self, size: usize, capacity: usize) -> Option<usize> {
        let mut start = 0;
        let mut at = self.lent.len();
        for (i, &(from, to)) in self.lent.iter().enumerate() {
            if from - start >= size {
                at = i;
                break;
            }
            start = to;
        }
        let end = start.checked_add(size).filter(|&end| end <= capacity)?;
        self.lent.insert(at, (start, end));
        self.peak = self.peak.max(end);
        Some(start)
    }

    /// A range that must be free.
    pub(crate) fn take_at(&mut self, start: usize, size: usize) {
        let at = self.lent.iter().position(|&(from, _)| from >= start).unwrap_or(self.lent.len());
        let free = self.lent.get(at).is_none_or(|&(from, _)| from >= start + size);
        assert!(free && (at == 0 || self.lent[at - 1].1 <= start), "scratch is free where it was before");
        self.lent.insert(at, (start, start + size));
    }

    /// The most bytes that were lent at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    pub(crate) fn give_back(&mut self, start: usize) {
        self.lent.retain(|&(from, _)| from != start);
    }
}

impl Arena {
    /// Reserves `capacity` bytes. The system hands out the pages when they are first touched.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(ALIGN).max(ALIGN);
        let layout = layout(capacity);
        // SAFETY: the layout's size is at least ALIGN.
        let given = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: there are ALIGN bytes more than asked for.
        let base = unsafe { given.add(given.as_ptr().align_offset(ALIGN)) };
        Self(Arc::new(Region { given, base, capacity, ranges: Mutex::default() }))
    }

    /// Bytes reserved.
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Where the whole of it lies.
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }

    /// The most bytes that were lent at once.
    pub fn peak(&self) -> usize {
        self.0.ranges.lock().unwrap_or_else(PoisonError::into_inner).peak()
    }

    /// Bytes that `take::<T>(len)` uses up.
    pub const fn size_of<T>(len: usize) -> usize {
        let bytes = len * size_of::<T>();
        if bytes == 0 { ALIGN } else { bytes.next_multiple_of(ALIGN) }
    }

    /// `len` numbers of scratch, their values left over from earlier use.
    pub fn take<T: Plain>(&self, len: usize) -> Result<Slice<T>> {
        let needed = Self::size_of::<T>(len);
        let mut ranges = self.0.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let capacity = self.0.capacity;
        let start = ranges.take(needed, capacity).ok_or(Error::Scratch { needed, capacity })?;
        Ok(Slice { region: self.0.clone(), start, len, kind: PhantomData })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `Arena::new` with this layout; every slice holds the region alive.
        unsafe { dealloc(self.given.as_ptr(), layout(self.capacity)) }
    }
}

/// Asked for with little alignment: memory that must be aligned further is zeroed by hand, page by page, where the system
/// would give zero pages as they are needed.
fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity + ALIGN, size_of::<usize>()).expect("scratch sizes are far below isize::MAX")
}

/// A run of scratch that nobody else holds.
pub struct Slice<T: Plain> {
    region: Arc<Region>,
    start: usize,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Plain> Slice<T> {
    fn pointer(&self) -> *mut T {
        // SAFETY: start lies inside the region and is a multiple of ALIGN.
        unsafe { self.region.base.as_ptr().add(self.start).cast() }
    }
}

impl<T: Plain> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the range is ours alone, aligned, inside the region and initialised (zeroed at first); T is plain.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len) }
    }
}

impl<T: Plain> DerefMut for Slice<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to the range.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len) }
    }
}

impl<T: Plain> Drop for Slice<T> {
    fn drop(&mut self) {
        self.region.ranges.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_disjoint_and_reused() {
        let arena = Arena::new(1024);
        let mut a = arena.take::<f32>(10).unwrap();
        let mut b = arena.take::<i8>(100).unwrap();
        a.fill(1.0);
        b.fill(-1);
        assert!(a.iter().all(|&v| v == 1.0) && b.iter().all(|&v| v == -1));
        let first = a.as_ptr() as usize;
        assert_eq!(first % ALIGN, 0);
        drop(a);
        let c = arena.take::<u32>(16).unwrap();
        assert_eq!(c.as_ptr() as usize, first, "a freed range is the next to be lent");
    }

    #[test]
    fn too_much_is_an_error_and_empty_slices_are_distinct() {
        let arena = Arena::new(128);
        let _a = arena.take::<f32>(0).unwrap();
        let _b = arena.take::<f32>(0).unwrap();
        assert!(matches!(arena.take::<f32>(1), Err(Error::Scratch { needed: 64, capacity: 128 })));
    }

    #[test]
    fn slices_outlive_the_arena_handle() {
        let slice = Arena::new(64).take::<i32>(4).unwrap();
        assert_eq!(&*slice, &[0; 4]);
    }
}
