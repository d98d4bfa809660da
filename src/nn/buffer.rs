//! Memory for weights and activations.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Zeroed `f32` memory on a cache line boundary; large buffers ask for huge pages, which spare
/// a pass over the weights thousands of page walks.
pub(crate) struct Buffer {
    data: NonNull<f32>,
    len: usize,
}

/// Size of a huge page in bytes.
const HUGE: usize = 2 << 20;

// SAFETY: the buffer owns its memory and hands it out by the usual borrowing rules.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty.
        let data = unsafe { alloc_zeroed(layout) };
        let Some(data) = NonNull::new(data.cast()) else { handle_alloc_error(layout) };
        advise_huge_pages(data, layout.size());
        Self { data, len }
    }

    /// The values of `list`, then zeros up to `len`.
    pub(crate) fn padded(list: &[f32], len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer[..list.len()].copy_from_slice(list);
        buffer
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.max(1) * size_of::<f32>();
        let align = if bytes >= HUGE { HUGE } else { 64 };
        match Layout::from_size_align(bytes, align) {
            Ok(layout) => layout,
            Err(_) => panic!("{len} numbers do not fit into memory"),
        }
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(data: NonNull<f32>, bytes: usize) {
    unsafe extern "C" {
        fn madvise(addr: *mut std::ffi::c_void, length: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    let whole = bytes / HUGE * HUGE;
    if whole > 0 {
        // SAFETY: the range lies in one allocation of ours that starts on a huge page; the
        // advice does not change its contents. A refusal costs speed only.
        unsafe { madvise(data.as_ptr().cast(), whole, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_data: NonNull<f32>, _bytes: usize) {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.data.as_ptr().cast(), Self::layout(self.len)) };
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
