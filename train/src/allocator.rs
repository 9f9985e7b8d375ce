//! The program's allocator: memory that runs out ends the program with a sentence.
//!
//! Rust's collections abort the process where they find no memory, with a signal that looks like a crash, and in whatever
//! thread that is. States and checkpoints are written atomically, so that ending at once loses no more than an error would.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

use protoseg_train::data::read;
use protoseg_train::run::memory;

/// The system's allocator, which ends the program with exit status 1 where memory runs out, unless the caller can go on
/// without.
pub(crate) struct SentenceAllocator;

// SAFETY: every request goes to the system's allocator unchanged, and so do its answers.
unsafe impl GlobalAlloc for SentenceAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of `GlobalAlloc`.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Passes on memory; where there is none, ends the program without asking for any.
fn checked(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() && !read::asks_for_memory() {
        let [during, advice] = memory::current_phase().words();
        let mut stderr = std::io::stderr();
        // The stream is not buffered, and numbers are formatted in place.
        let _ = writeln!(
            stderr,
            "error: not enough memory{during}: {advice} (an allocation of {size} bytes failed)"
        );
        signal_hook::low_level::exit(1);
    }
    memory
}
