//! How the C library's allocator treats pictures and scores, which are large, short-lived, and freed by other threads than the
//! ones that made them.

#![expect(unsafe_code, reason = "a call of the C library")]

/// Blocks from this size on, those of large pictures, go back to the system as soon as they are freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 32 << 20;

/// Smaller ones are taken again by the next picture, which saves the system clearing its pages; of those that lie free at
/// the end of the heap, so much is kept.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 64 << 20;

/// Has all threads share what is freed: without this, each keeps an arena of its own with what it once needed.
pub(crate) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
