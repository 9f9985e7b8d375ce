//! How the C library's allocator treats pictures and scores, which are large, short-lived, and freed by other threads than the
//! ones that made them.

#![expect(unsafe_code, reason = "a call of the C library")]

/// Has memory given back when it is freed: without this, each thread keeps an arena of its own with what it once needed, and
/// blocks of up to 32 MB that were freed once are kept from then on.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}
