//! What a server of objects is asked for by all map tasks of a job together.
//!
//! Map tasks know nothing of each other. So a limit is kept by arithmetic: only so many of them run at once, and each
//! gets its share. Jobs know nothing of each other either: they take turns in a queue of YARN's that runs one at a time.

use dragnet_run::Plan;

/// The most that one server of objects is asked for, over all map tasks of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLimits {
    /// Requests under way at once.
    pub connections: usize,
    /// Bytes per second.
    pub bytes_per_s: Option<u64>,
    /// Map tasks at once, whatever is read. Else a job that reads from web servers (`http:`, `https:`), or any job
    /// under a limit on bytes, has as many as there are connections; other jobs have what their queue gives, as a store
    /// of objects is made for many readers.
    pub maps: Option<usize>,
    /// The queue of jobs whose map tasks are limited, where it is not that of all others. YARN is told to run one of its
    /// applications at a time (`max-parallel-apps`), whoever posted them.
    pub queue: Option<String>,
}

impl HostLimits {
    /// How many map tasks of a plan may run at once, if that is limited.
    pub(crate) fn maps_at_once(&self, plan: &Plan) -> Option<usize> {
        let is_web = |uri: &str| uri.starts_with("http://") || uri.starts_with("https://");
        let of_web = || plan.objects.iter().any(|object| is_web(&object.uri));
        let by_host = self.bytes_per_s.is_some() || of_web();
        self.maps.or_else(|| by_host.then_some(self.connections)).map(|maps| maps.max(1))
    }

    /// What is set for a job of which so many may run at once.
    pub(crate) fn settings(&self, maps_at_once: Option<usize>) -> Vec<(&'static str, String)> {
        let Some(maps) = maps_at_once else { return Vec::new() };
        let queue = self.queue.clone().map(|queue| ("mapreduce.job.queuename", queue));
        [("mapreduce.job.running.map.limit", maps.to_string())].into_iter().chain(queue).collect()
    }

    /// What each of them is told.
    pub(crate) fn share(&self, maps_at_once: Option<usize>) -> Vec<(&'static str, u64)> {
        let Some(maps) = maps_at_once else { return Vec::new() };
        let connections = ("--host-connections", (self.connections / maps).max(1) as u64);
        let bytes = self.bytes_per_s.map(|bytes| ("--host-bytes-s", (bytes / maps as u64).max(1)));
        [connections].into_iter().chain(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_is_shared_by_so_many() {
        let plan = |uri: &str| -> Plan {
            let object = json!({ "uri": uri, "size": 1, "version": "v", "kind": { "format": "warc", "codec": "gzip" } });
            let search = json!({ "patterns": [{ "name": "n", "regex": "n" }], "layers": ["body"] });
            serde_json::from_value(
                json!({ "mapper": "m", "skipped": [], "shards": [], "search": search, "objects": [object] }),
            )
            .unwrap()
        };
        let limits = |connections, bytes_per_s, maps| HostLimits {
            connections,
            bytes_per_s,
            maps,
            queue: Some("q".into()),
        };
        let all = |connections: u64| vec![("--host-connections", connections)];
        let both = |connections: u64, bytes: u64| {
            vec![("--host-connections", connections), ("--host-bytes-s", bytes)]
        };
        let rows = [
            ("s3://b/o", limits(32, None, None), None, vec![]),
            ("https://h/o", limits(32, None, None), Some(32), all(1)),
            ("http://h/o", limits(32, Some(64), Some(4)), Some(4), both(8, 16)),
            ("hdfs://n/o", limits(8, Some(64), None), Some(8), both(1, 8)),
            ("s3://b/o", limits(8, None, Some(64)), Some(64), all(1)),
            ("https://h/o", limits(0, Some(0), None), Some(1), both(1, 1)),
        ];
        for (uri, limits, maps, share) in rows {
            assert_eq!(limits.maps_at_once(&plan(uri)), maps, "{uri} {limits:?}");
            assert_eq!(limits.share(maps), share, "{uri} {limits:?}");
            let set = limits.settings(maps).into_iter().find(|(name, _)| name.ends_with("queuename"));
            assert_eq!(set.is_some(), maps.is_some(), "{uri} {limits:?}");
        }
    }
}
