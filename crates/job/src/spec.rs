//! What a client posts: patterns, dataset, limits.

use dragnet_kernel::{FilterSpec, Layer, Pattern, Search, SearchSpec};
use dragnet_pattern::PRIORITY_MAX;
use serde::{Deserialize, Serialize};

/// A job as it is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// What is searched for.
    pub patterns: Vec<Pattern>,
    /// What is searched.
    pub dataset: Vec<Source>,
    /// How many of its objects are searched, spread evenly; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// The layers of a record that are searched; `body` where none is given.
    #[serde(default = "body")]
    pub layers: Vec<Layer>,
    /// Which records are searched; all where it is left out.
    #[serde(default, skip_serializing_if = "FilterSpec::is_empty")]
    pub filter: FilterSpec,
    /// Of JSON lines the field that is searched, as `text` or `page.text`; of Parquet the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whether the digests that an archive states are checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Where it runs.
    #[serde(default = "local")]
    pub engine: String,
    /// From 0 to 9, 5 where it is left out: among its tenant's jobs that wait, the highest goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// About how many stored bytes a shard has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_bytes: Option<u64>,
    /// The folder of all jobs' output, set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// Objects to be searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Source {
    /// An absolute path, a `file:` URI, a folder, a glob of paths; or an object on a server, a prefix that ends with `/`,
    /// a glob of keys.
    Uri(String),
    /// A list of objects, a line each.
    Manifest {
        /// The list.
        manifest: String,
        /// What its relative lines are relative to; else the list's own folder, or the root of the host or bucket that
        /// it lies in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
    },
}

/// What a job may use; whatever a limit cuts is named in the coverage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most hits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// The most hits of one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits_per_record: Option<u64>,
    /// The most stored bytes; records that begin past them are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<u64>,
    /// The most money, in millionths of the currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Seconds from acceptance after which the job ends with what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
}

fn body() -> Vec<Layer> {
    vec![Layer::Body]
}

fn local() -> String {
    "local".into()
}

/// Shards of this many stored bytes where nothing else is asked for.
pub const SHARD_BYTES: u64 = 64 << 20;
/// Where a job can run. Whether a service has that engine is Launch's to know.
const ENGINES: [&str; 2] = ["local", "hadoop"];
/// The most patterns of one job.
const PATTERNS_MAX: usize = 1000;
/// The most entries of a dataset; longer lists belong in a manifest.
const SOURCES_MAX: usize = 10_000;

/// The longest time for a job, in seconds: a hundred years.
const DEADLINE_S_MAX: u64 = 100 * 365 * 86_400;

/// What is wrong with a spec, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    /// A JSON pointer (RFC 6901) into the spec.
    pub pointer: String,
    /// What is wrong and what to do.
    pub detail: String,
}

fn invalid<T>(pointer: impl Into<String>, detail: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { pointer: pointer.into(), detail: detail.into() })
}

impl JobSpec {
    /// The search that the mappers run.
    pub fn search(&self) -> SearchSpec {
        SearchSpec {
            patterns: self.patterns.clone(),
            layers: self.layers.clone(),
            filter: self.filter.clone(),
            field: self.field.clone(),
            verify: self.verify,
            hits_per_record: self.limits.hits_per_record,
        }
    }

    /// Checks all that can be known without looking at the data.
    ///
    /// # Errors
    /// [`Invalid`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.patterns.is_empty() || self.patterns.len() > PATTERNS_MAX {
            return invalid(
                "/patterns",
                format!("{} patterns: give 1 to {PATTERNS_MAX}", self.patterns.len()),
            );
        }
        if let Err(e) = Search::check(&self.search()) {
            let place = match &e {
                dragnet_kernel::Error::Pattern { name, .. } => {
                    self.patterns.iter().rposition(|p| p.name == *name)
                }
                _ => None,
            };
            let pointer = match (place, &e) {
                (Some(n), _) => format!("/patterns/{n}"),
                (None, dragnet_kernel::Error::Filter(_)) => "/filter".into(),
                (None, _) => "/layers".into(),
            };
            return invalid(pointer, e.to_string());
        }
        if self.dataset.is_empty() || self.dataset.len() > SOURCES_MAX {
            let detail = format!("{} entries: give 1 to {SOURCES_MAX}, or a manifest", self.dataset.len());
            return invalid("/dataset", detail);
        }
        for (n, source) in self.dataset.iter().enumerate() {
            let (Source::Uri(uri) | Source::Manifest { manifest: uri, .. }) = source;
            if let Err(e) = crate::dataset::check(uri) {
                return invalid(format!("/dataset/{n}"), e.to_string());
            }
        }
        if !ENGINES.contains(&self.engine.as_str()) {
            let detail = format!("there is no engine `{}`: use one of {}", self.engine, ENGINES.join(", "));
            return invalid("/engine", detail);
        }
        if let Some(priority) = self.priority.filter(|priority| i64::from(*priority) > PRIORITY_MAX) {
            return invalid("/priority", format!("{priority}: give 0 to {PRIORITY_MAX}"));
        }
        let limits = &self.limits;
        let counts = [
            ("hits", limits.hits),
            ("hits_per_record", limits.hits_per_record),
            ("input_bytes", limits.input_bytes),
            ("deadline_s", limits.deadline_s),
        ];
        if let Some(seconds) = limits.deadline_s.filter(|seconds| *seconds > DEADLINE_S_MAX) {
            let detail = format!("`deadline_s` is {seconds}: at most {DEADLINE_S_MAX} are taken");
            return invalid("/limits/deadline_s", detail);
        }
        for (name, limit) in counts {
            if limit == Some(0) {
                return invalid(
                    format!("/limits/{name}"),
                    format!("`{name}` is 0: leave it out for no limit"),
                );
            }
        }
        if self.sample == Some(0) {
            return invalid("/sample", "`sample` is 0: leave it out for all objects");
        }
        if self.shard_bytes == Some(0) {
            return invalid("/shard_bytes", "`shard_bytes` is 0: leave it out for 64 MiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn check(spec: &Json) -> Result<(), Invalid> {
        serde_json::from_value::<JobSpec>(spec.clone()).unwrap().check()
    }

    #[test]
    fn what_is_too_much_is_refused_by_its_limit() {
        let of = |regex: &str| json!({ "patterns": [{ "regex": regex }], "dataset": ["/d"] });
        let filtered =
            |filter: Json| json!({ "patterns": [{ "regex": "x" }], "dataset": ["/d"], "filter": filter });
        let nested = |n: usize| format!("{}x{}", "(".repeat(n), ")".repeat(n));
        let many: Vec<Json> = (0..1001).map(|n| json!({ "name": format!("p{n}"), "regex": "x" })).collect();
        let large: Vec<Json> =
            (0..1000).map(|n| json!({ "name": format!("p{n}"), "regex": r"\w{50}" })).collect();
        let rows: [(&str, Json, &str, &str); 11] = [
            (
                "a deadline",
                json!({ "patterns": [{ "regex": "x" }], "dataset": ["/d"], "limits": { "deadline_s": u64::MAX } }),
                "/limits/deadline_s",
                "are taken",
            ),
            ("length", of(&"x".repeat(10_001)), "/patterns/0", "10001 bytes long, and 10000 is the most"),
            ("nesting", of(&nested(251)), "/patterns/0", "(250)"),
            (
                "compiled size",
                of(r"\w{1000}{100}"),
                "/patterns/0",
                "10485760 bytes are the most for one of 1 patterns",
            ),
            (
                "compiled size of many",
                json!({ "patterns": large, "dataset": ["/d"] }),
                "/patterns/0",
                "one of 1000 patterns",
            ),
            (
                "patterns",
                json!({ "patterns": many, "dataset": ["/d"] }),
                "/patterns",
                "1001 patterns: give 1 to 1000",
            ),
            (
                "entries",
                json!({ "patterns": [{ "regex": "x" }], "dataset": vec!["/d"; 10_001] }),
                "/dataset",
                "10001 entries",
            ),
            (
                "a URL's regex",
                filtered(json!({ "url_regex": "x".repeat(10_001) })),
                "/filter",
                "10000 is the most",
            ),
            ("its compiled size", filtered(json!({ "url_regex": r"\w{1000}{100}" })), "/filter", "url_regex"),
            ("a glob", filtered(json!({ "url_glob": ["x".repeat(10_001)] })), "/filter", "10000 is the most"),
            (
                "globs",
                filtered(json!({ "url_glob": vec!["x"; 1001] })),
                "/filter",
                "1001 globs, and 1000 are the most",
            ),
        ];
        for (name, spec, pointer, part) in rows {
            let wrong = check(&spec).expect_err(name);
            assert_eq!(wrong.pointer, pointer, "{name}: {}", wrong.detail);
            assert!(wrong.detail.contains(part), "{name}: {}", wrong.detail);
        }
        assert_eq!(check(&of(&nested(249))), Ok(()), "what is within the limits is taken");
        assert_eq!(check(&of(&"x".repeat(10_000))), Ok(()));
    }

    #[test]
    fn json_within_json_has_an_end() {
        let deep = format!("{{\"patterns\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        let said = serde_json::from_str::<Json>(&deep).unwrap_err().to_string();
        assert!(said.contains("recursion limit"), "{said}");
    }
}
