//! Named crash points: places where a test kills the process as `kill -9` would.
//!
//! Without the feature `crash-points` they are nothing. With it, [`arm`] names one, and the process kills
//! itself when it gets there, after a line on stderr that proves it.

#[cfg(feature = "crash-points")]
static ARMED: std::sync::OnceLock<(String, std::sync::atomic::AtomicU32)> = std::sync::OnceLock::new();

/// Arms one point: `NAME`, or `NAME:N` for the N-th time that it is reached.
///
/// Does nothing without the feature `crash-points`.
pub fn arm(spec: &str) {
    #[cfg(feature = "crash-points")]
    {
        let (name, nth) =
            spec.rsplit_once(':').and_then(|(name, n)| Some((name, n.parse().ok()?))).unwrap_or((spec, 1));
        // A second call would be a mistake of the test that makes it; the first one holds.
        let _ = ARMED.set((name.to_owned(), nth.into()));
    }
    #[cfg(not(feature = "crash-points"))]
    let _ = spec;
}

/// Dies here if the point `scope.place` is armed.
#[inline]
pub fn point(scope: &str, place: &str) {
    #[cfg(feature = "crash-points")]
    if let Some((armed, left)) = ARMED.get() {
        let here = armed.strip_prefix(scope).and_then(|rest| rest.strip_prefix('.')) == Some(place);
        if here && left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            eprintln!("crash point {armed}");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
    #[cfg(not(feature = "crash-points"))]
    let _ = (scope, place);
}
