//! Keys and values of one layer, in pages of 64 slots.
//!
//! Keys lie as [page, kv head, channel, slot], so that eight neighbouring slots are scored at once without adding
//! across lanes; values as [page, kv head, slot, channel]. Which pages belong to whom is decided above this crate.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::Result;
use crate::cpu::disjoint::Disjoint;
use crate::cuda::{Gpu, Memory};

/// Slots (positions) of a page; pages start at multiples of it.
pub const PAGE: usize = 64;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit floats: the reference.
    F32,
    /// 16-bit IEEE floats.
    F16,
}

impl KvType {
    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }
}

/// The pages of one sequence, for all layers of one kind (windowed or not).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageTable {
    /// Number of the sequence's page that `pages[0]` holds; earlier ones were given back.
    pub first: usize,
    /// Pages in the store.
    pub pages: Vec<u32>,
}

impl PageTable {
    /// Where `position`'s page lies in the store.
    ///
    /// # Panics
    /// Where the table does not cover it: the step was built wrongly.
    pub fn page_of(&self, position: usize) -> usize {
        self.pages[position / PAGE - self.first] as usize
    }
}

/// Numbers of one kind. Pages of zeros cost nothing until they are written.
pub enum Store {
    /// See [`KvType::F32`].
    F32(Vec<f32>),
    /// See [`KvType::F16`]; the bits of each number.
    F16(Vec<u16>),
    /// F16 in a GPU's memory, keys and values both as [page, kv head, slot, channel].
    Cuda(Memory),
}

impl Store {
    fn new(kind: KvType, len: usize) -> Self {
        match kind {
            KvType::F32 => Store::F32(vec![0.0; len]),
            KvType::F16 => Store::F16(vec![0; len]),
        }
    }
}

/// Keys and values of one layer, of all sequences.
pub struct KvLayer {
    kv_heads: usize,
    head_dim: usize,
    keys: Store,
    values: Store,
}

impl KvLayer {
    /// Room for `pages` pages.
    pub fn new(kind: KvType, pages: usize, kv_heads: usize, head_dim: usize) -> Self {
        let len = pages * kv_heads * head_dim * PAGE;
        Self { kv_heads, head_dim, keys: Store::new(kind, len), values: Store::new(kind, len) }
    }

    /// The same in a GPU's memory, always F16.
    pub fn on_gpu(gpu: &Gpu, pages: usize, kv_heads: usize, head_dim: usize) -> Result<Self> {
        let store = || gpu.zeros(pages * kv_heads * head_dim * PAGE * 2).map(Store::Cuda);
        Ok(Self { kv_heads, head_dim, keys: store()?, values: store()? })
    }

    /// Keys and values where they are on a device.
    ///
    /// # Panics
    /// Where they are not.
    pub(crate) fn device(&self) -> (&Memory, &Memory) {
        match (&self.keys, &self.values) {
            (Store::Cuda(keys), Store::Cuda(values)) => (keys, values),
            _ => panic!("keys and values are not on a GPU"),
        }
    }

    /// Puts bytes into both stores on a device.
    #[cfg(test)]
    pub(crate) fn fill_for_test(&mut self, bytes: &[u8]) {
        for store in [&mut self.keys, &mut self.values] {
            let Store::Cuda(memory) = store else { panic!("keys and values are not on a GPU") };
            memory.put(0, bytes).unwrap();
        }
    }

    /// Keys of `page` and `head` start here, [channel, slot]; values too, [slot, channel].
    pub fn offset(&self, page: usize, head: usize) -> usize {
        (page * self.kv_heads + head) * self.head_dim * PAGE
    }

    /// Key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// All keys.
    pub fn keys(&self) -> &Store {
        &self.keys
    }

    /// All values.
    pub fn values(&self) -> &Store {
        &self.values
    }

    /// Copies keys and values of page `from` to page `to`, bit by bit.
    ///
    /// # Panics
    /// Where there is no such page.
    pub fn copy_page(&mut self, from: usize, to: usize) {
        let len = self.kv_heads * self.head_dim * PAGE;
        for store in [&mut self.keys, &mut self.values] {
            match store {
                Store::F32(v) => v.copy_within(from * len..(from + 1) * len, to * len),
                Store::F16(v) => v.copy_within(from * len..(from + 1) * len, to * len),
                // A driver that fails once fails ever after, so the step to come tells it.
                Store::Cuda(memory) => drop(memory.copy_within(2 * from * len, 2 * to * len, 2 * len)),
            }
        }
    }

    /// A way to write different slots from different threads.
    pub fn writer(&mut self) -> KvWriter<'_> {
        KvWriter {
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            keys: Parts::new(&mut self.keys),
            values: Parts::new(&mut self.values),
        }
    }
}

enum Parts<'a> {
    F32(Disjoint<'a, f32>),
    F16(Disjoint<'a, u16>),
}

impl<'a> Parts<'a> {
    fn new(store: &'a mut Store) -> Self {
        match store {
            Store::F32(v) => Parts::F32(Disjoint::new(v)),
            Store::F16(v) => Parts::F16(Disjoint::new(v)),
            Store::Cuda(_) => unreachable!("a GPU's pages are written by its kernels"),
        }
    }

    /// Puts `values` from number `at` on, `step` numbers apart.
    ///
    /// # Safety
    /// No other thread writes them at the same time.
    unsafe fn put(&self, at: usize, step: usize, values: &[f32]) {
        let end = at + (values.len() - 1) * step + 1;
        match self {
            Parts::F32(all) => {
                for (place, value) in (at..end).step_by(step).zip(values) {
                    // SAFETY: promised by the caller.
                    unsafe { all.part(place..place + 1)[0] = *value };
                }
            }
            Parts::F16(all) => {
                let mut bits = [0; MOST_AT_ONCE];
                let places = (at..end).step_by(step * MOST_AT_ONCE);
                for (first, values) in places.zip(values.chunks(MOST_AT_ONCE)) {
                    let bits = &mut bits[..values.len()];
                    bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values);
                    for (i, bits) in bits.iter().enumerate() {
                        let place = first + i * step;
                        // SAFETY: promised by the caller.
                        unsafe { all.part(place..place + 1)[0] = *bits };
                    }
                }
            }
        }
    }
}

/// Numbers that are rounded at once.
const MOST_AT_ONCE: usize = 64;

/// Writes slots.
pub struct KvWriter<'a> {
    kv_heads: usize,
    head_dim: usize,
    keys: Parts<'a>,
    values: Parts<'a>,
}

impl KvWriter<'_> {
    /// Puts a head's `key` and `value` [head dim] into `slot` of `page`.
    ///
    /// # Safety
    /// No other thread writes this head of this slot at the same time.
    pub unsafe fn write(&self, page: usize, slot: usize, head: usize, key: &[f32], value: &[f32]) {
        assert!(slot < PAGE && head < self.kv_heads && key.len() == self.head_dim && value.len() == self.head_dim);
        let base = (page * self.kv_heads + head) * self.head_dim * PAGE;
        // SAFETY: promised by the caller.
        unsafe {
            self.keys.put(base + slot, PAGE, key);
            self.values.put(base + slot * self.head_dim, 1, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channels: more than are rounded at once, and not a multiple of it.
    const DIM: usize = 67;

    /// A copy has the original's bits, in both kinds of store, and its neighbours keep theirs.
    #[test]
    fn a_page_is_copied_whole() {
        let numbers = |page: usize, slot: usize| -> Vec<f32> {
            (0..DIM).map(|i| (page * 1000 + slot * 7 + i) as f32 / 8.0 - 40.0).collect()
        };
        for kind in [KvType::F32, KvType::F16] {
            let mut layer = KvLayer::new(kind, 3, 2, DIM);
            let write = |layer: &mut KvLayer, page: usize| {
                let writer = layer.writer();
                for (slot, head) in (0..PAGE).flat_map(|slot| [(slot, 0), (slot, 1)]) {
                    let of = |what: usize| numbers(page + what, slot + 64 * head);
                    // SAFETY: there is one thread.
                    unsafe { writer.write(page, slot, head, &of(0), &of(5)) };
                }
            };
            (0..3).for_each(|page| write(&mut layer, page));
            layer.copy_page(0, 2);
            let len = 2 * DIM * PAGE;
            let bits = |store: &Store| -> Vec<u32> {
                match store {
                    Store::F32(v) => v.iter().map(|x| x.to_bits()).collect(),
                    Store::F16(v) => v.iter().map(|&x| u32::from(x)).collect(),
                    Store::Cuda(_) => unreachable!(),
                }
            };
            for store in [&layer.keys, &layer.values] {
                let bits = bits(store);
                assert_eq!(bits[2 * len..], bits[..len], "{kind:?}");
                assert_ne!(bits[len..2 * len], bits[..len], "{kind:?}");
            }
        }
    }
}
