//! Settings of glibc's allocator for images and logits: large, short-lived buffers that are freed
//! by other threads than those that allocated them.

#![expect(unsafe_code, reason = "calls mallopt of the C library")]

/// `M_MMAP_THRESHOLD` in bytes: larger blocks return to the system as soon as they are freed.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 32 << 20;

/// `M_TRIM_THRESHOLD` in bytes: free memory kept at the end of the heap for the next image, which
/// saves page faults.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 64 << 20;

/// Shares one arena among all threads; otherwise each keeps its own peak.
pub(crate) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets parameters of the allocator while no other thread runs.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    }
}
