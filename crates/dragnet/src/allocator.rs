//! The allocator of the program. A service allocates on some threads and frees on others, which glibc's arenas make slow:
//! a submission took a third more of the processor's time with them.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a mapper needs in its environment, so that its limit counts what it takes and not the gigabyte that mimalloc
/// reserves at once.
pub(crate) const BY_NEED: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");
