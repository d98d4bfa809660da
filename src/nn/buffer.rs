//! Memory for weights and activations.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use half::f16;
use memmap2::MmapMut;

/// Zeroed `f32` memory on a cache line boundary. Large buffers request huge pages, which save thousands of
/// page walks per pass over the weights.
pub(crate) struct Buffer {
    data: NonNull<f32>,
    len: usize,
    /// Memory of a large buffer; small ones are on the heap.
    map: Option<MmapMut>,
}

/// Size of a huge page in bytes.
const HUGE: usize = 2 << 20;

/// Alignment of small buffers in bytes.
const CACHE_LINE: usize = 64;

// SAFETY: the buffer owns its memory and hands it out by the usual borrowing rules.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        let layout = Self::layout(len);
        if let Some((map, data)) = huge(layout.size()) {
            return Self { data, len, map: Some(map) };
        }
        // SAFETY: the layout is not empty.
        let data = unsafe { alloc_zeroed(layout) };
        let Some(data) = NonNull::new(data.cast()) else { handle_alloc_error(layout) };
        Self { data, len, map: None }
    }

    /// The values of `list`, then zeros up to `len`.
    pub(crate) fn padded(list: &[f32], len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer[..list.len()].copy_from_slice(list);
        buffer
    }

    /// Makes room for `len` numbers. If the buffer was smaller, its contents are lost.
    pub(crate) fn grow(&mut self, len: usize) {
        if self.len < len {
            *self = Self::new(len);
        }
    }

    /// The number of values. (Unlike the length of the slice, it makes no reference to memory that threads
    /// may be writing through [`as_mut_ptr`](Self::as_mut_ptr).)
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Pointer to the numbers, for threads that share them.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_ptr()
    }

    /// The memory as numbers of half precision, two for each of its own.
    pub(crate) fn halves_mut(&mut self) -> &mut [f16] {
        let numbers = &mut self[..];
        // SAFETY: the same memory, borrowed for as long; any bits are a number, and halves need less
        // alignment.
        unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), 2 * numbers.len()) }
    }

    /// The memory as bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let numbers = &mut self[..];
        // SAFETY: the same memory, borrowed for as long; any bytes are numbers.
        unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
    }

    fn layout(len: usize) -> Layout {
        match Layout::array::<f32>(len.max(1)).and_then(|layout| layout.align_to(CACHE_LINE)) {
            Ok(layout) => layout,
            Err(_) => panic!("{len} numbers do not fit into memory"),
        }
    }
}

/// Fresh memory that starts on a huge page. The advice is given before the first use, because pages that were
/// touched before stay small. `None` for less than a huge page, or where the system refuses.
fn huge(bytes: usize) -> Option<(MmapMut, NonNull<f32>)> {
    if bytes < HUGE {
        return None;
    }
    let mut map = MmapMut::map_anon(bytes.checked_add(HUGE)?).ok()?;
    // A refusal costs speed only.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let start = map.as_ptr().align_offset(HUGE);
    let data = NonNull::new(map.get_mut(start..)?.as_mut_ptr().cast())?;
    Some((map, data))
}

impl Default for Buffer {
    /// An empty buffer.
    fn default() -> Self {
        Self::new(0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.data.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised numbers that live as long as the buffer.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_all_memory_is_refused_and_not_wrapped() {
        for len in [usize::MAX, usize::MAX / 4 + 2, isize::MAX as usize / 4 + 1] {
            assert!(std::panic::catch_unwind(|| Buffer::layout(len)).is_err(), "{len}");
        }
        assert_eq!(Buffer::layout(0).size(), 4);
        assert_eq!(Buffer::layout(3).align(), CACHE_LINE);
    }

    #[test]
    fn all_memory_is_halves_and_bytes() {
        for len in [0, 1, 3, HUGE / 4 + 1] {
            let mut buffer = Buffer::new(len);
            assert_eq!((buffer.halves_mut().len(), buffer.bytes_mut().len()), (2 * len, 4 * len));
            buffer.halves_mut().fill(f16::ONE);
            assert!(buffer.iter().all(|number| number.to_bits() == 0x3c00_3c00));
        }
    }
}
