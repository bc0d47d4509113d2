//! Which records are searched: by what their headers say, before their bodies are decoded.

use crate::Error;
use crate::records::Head;
use crate::search::PATTERN_BYTES_MAX;
use globset::{Glob, GlobSet, GlobSetBuilder};
use regex_automata::meta::Regex;
use serde::{Deserialize, Serialize};

/// The most globs of a filter.
const GLOBS_MAX: usize = 1000;

/// Conditions on records, as they are written down. Each one that is given must hold; of a list one entry
/// is enough. A record that lacks what is asked for is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSpec {
    /// Record types: `response`, `conversion`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Hosts; `example.org` means its subdomains as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<String>,
    /// Globs over the whole URL; `*` crosses slashes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub url_glob: Vec<String>,
    /// A regular expression that is found in the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_regex: Option<String>,
    /// Media types: `text/html`, or `text/*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mime: Vec<String>,
    /// HTTP status codes: 404, or `"2xx"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<Status>,
    /// The earliest date, as far as it is written: `2024`, `2024-05-20` or `2024-05-20T09:30:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The latest date, as far as it is written: `2024-05` means all of May.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A status code or a class of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Status {
    /// `404`
    Code(u16),
    /// `"2xx"`, or `"404"`
    Class(String),
}

impl FilterSpec {
    /// Whether every record is searched.
    pub fn is_empty(&self) -> bool {
        *self == FilterSpec::default()
    }
}

/// Conditions, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    is_empty: bool,
    types: Vec<String>,
    hosts: Vec<String>,
    globs: Option<GlobSet>,
    regex: Option<Regex>,
    mimes: Vec<String>,
    statuses: Vec<std::ops::RangeInclusive<u16>>,
    from: Option<String>,
    to: Option<String>,
}

impl Filter {
    pub(crate) fn compile(spec: &FilterSpec) -> Result<Filter, Error> {
        let wrong = |what: &str, value: &str, why: &str| Error::Filter(format!("{what} `{value}`: {why}"));
        let lower = |list: &[String]| list.iter().map(|s| s.to_ascii_lowercase()).collect();
        if spec.url_glob.len() > GLOBS_MAX {
            let n = spec.url_glob.len();
            return Err(Error::Filter(format!("url_glob: {n} globs, and {GLOBS_MAX} are the most")));
        }
        for (what, text) in spec
            .url_glob
            .iter()
            .map(|glob| ("url_glob", glob))
            .chain(spec.url_regex.iter().map(|regex| ("url_regex", regex)))
        {
            if text.len() > PATTERN_BYTES_MAX {
                let n = text.len();
                return Err(Error::Filter(format!(
                    "{what}: {n} bytes long, and {PATTERN_BYTES_MAX} is the most"
                )));
            }
        }
        let mut globs = GlobSetBuilder::new();
        for glob in &spec.url_glob {
            globs.add(Glob::new(glob).map_err(|e| wrong("url_glob", glob, &e.kind().to_string()))?);
        }
        let globs = globs.build().map_err(|e| Error::Filter(format!("url_glob: {e}")))?;
        let regex = spec.url_regex.as_ref().map(|regex| {
            Regex::builder().configure(Regex::config().nfa_size_limit(Some(1 << 20))).build(regex).map_err(
                |e| wrong("url_regex", regex, &e.syntax_error().map_or(e.to_string(), ToString::to_string)),
            )
        });
        for date in [&spec.from, &spec.to].into_iter().flatten() {
            if !is_date(date) {
                return Err(wrong(
                    "date",
                    date,
                    "write it as 2024, 2024-05, 2024-05-20 or 2024-05-20T09:30:00Z",
                ));
            }
        }
        Ok(Filter {
            is_empty: spec.is_empty(),
            types: lower(&spec.types),
            hosts: lower(&spec.host),
            globs: (!spec.url_glob.is_empty()).then_some(globs),
            regex: regex.transpose()?,
            mimes: lower(&spec.mime),
            statuses: spec
                .status
                .iter()
                .map(|s| statuses(s).ok_or_else(|| wrong("status", &text(s), "write 404 or \"2xx\"")))
                .collect::<Result<_, _>>()?,
            from: spec.from.clone(),
            to: spec.to.clone(),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether a record is searched.
    pub(crate) fn takes(&self, head: &Head<'_>, mime: Option<&[u8]>, status: Option<u16>) -> bool {
        if self.is_empty {
            return true;
        }
        let record_type = head.record_type.as_deref().unwrap_or_default();
        let url = head.url.as_deref().unwrap_or_default();
        let any = |list: &[String], holds: &dyn Fn(&[u8]) -> bool| {
            list.is_empty() || list.iter().any(|entry| holds(entry.as_bytes()))
        };
        any(&self.types, &|t| record_type.eq_ignore_ascii_case(t))
            && any(&self.hosts, &|host| is_host(url, host))
            && any(&self.mimes, &|m| mime.is_some_and(|mime| is_mime(mime, m)))
            && (self.statuses.is_empty()
                || status.is_some_and(|s| self.statuses.iter().any(|r| r.contains(&s))))
            && self.globs.as_ref().is_none_or(|globs| globs.is_match(&*String::from_utf8_lossy(url)))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(url))
            && self.is_in_time(head.date.as_deref())
    }

    /// Dates compare as text, as far as the shorter is written (ISO 8601, UTC).
    fn is_in_time(&self, date: Option<&[u8]>) -> bool {
        let bounds = |bound: &Option<String>, right: fn(&[u8], &[u8]) -> bool| {
            bound.as_ref().is_none_or(|bound| {
                date.is_some_and(|date| {
                    let n = bound.trim_end_matches('Z').len().min(date.len());
                    right(&date[..n], &bound.as_bytes()[..n])
                })
            })
        };
        bounds(&self.from, |date, from| date >= from) && bounds(&self.to, |date, to| date <= to)
    }
}

fn text(status: &Status) -> String {
    match status {
        Status::Code(code) => code.to_string(),
        Status::Class(class) => class.clone(),
    }
}

fn statuses(status: &Status) -> Option<std::ops::RangeInclusive<u16>> {
    let code = match status {
        Status::Code(code) => *code,
        Status::Class(text) => match text.strip_suffix("xx") {
            Some(class) => {
                let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
                return Some(class * 100..=class * 100 + 99);
            }
            None => text.parse().ok()?,
        },
    };
    (100..=999).contains(&code).then_some(code..=code)
}

fn is_date(date: &str) -> bool {
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let right = date.len() <= shape.len()
        && date.bytes().zip(shape).all(|(b, s)| if *s == b'd' { b.is_ascii_digit() } else { b == *s });
    right && matches!(date.len(), 4 | 7 | 10 | 13 | 16 | 19 | 20)
}

/// Whether a URL's host is `host`, or below it.
fn is_host(url: &[u8], host: &[u8]) -> bool {
    let Some(n) = memchr::memmem::find(url, b"://") else { return false };
    let authority = &url[n + 3..];
    let authority =
        &authority[..authority.iter().position(|b| b"/?#".contains(b)).unwrap_or(authority.len())];
    let named = authority.rsplit(|b| *b == b'@').next().unwrap_or(authority);
    let named = match memchr::memrchr(b':', named) {
        Some(n) if named[n + 1..].iter().all(u8::is_ascii_digit) => &named[..n],
        _ => named,
    };
    let Some(before) = named.len().checked_sub(host.len()) else { return false };
    named[before..].eq_ignore_ascii_case(host) && (before == 0 || named[before - 1] == b'.')
}

/// Whether a media type is `wanted`, where `text/*` means all of that kind.
fn is_mime(mime: &[u8], wanted: &[u8]) -> bool {
    match wanted.strip_suffix(b"*") {
        Some(start) => mime.len() >= start.len() && mime[..start.len()].eq_ignore_ascii_case(start),
        None => mime.eq_ignore_ascii_case(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[test]
    fn takes_what_is_asked_for() {
        let head = Head {
            record_type: Some(Cow::Borrowed(b"response")),
            url: Some(Cow::Borrowed(b"https://user@www.Example.org:8080/a/b?c")),
            date: Some(Cow::Borrowed(b"2024-05-20T09:30:00Z")),
            ..Head::default()
        };
        let table = [
            (r#"{}"#, true),
            (r#"{"types":["Response"]}"#, true),
            (r#"{"types":["request","metadata"]}"#, false),
            (r#"{"host":["example.org"]}"#, true),
            (r#"{"host":["www.example.org"]}"#, true),
            (r#"{"host":["ample.org"]}"#, false),
            (r#"{"url_glob":["https://*/a/*"]}"#, true),
            (r#"{"url_glob":["http://*"]}"#, false),
            (r#"{"url_regex":"/b\\?"}"#, true),
            (r#"{"url_regex":"^b"}"#, false),
            (r#"{"mime":["text/*"]}"#, true),
            (r#"{"mime":["text/plain"]}"#, false),
            (r#"{"status":["2xx"]}"#, true),
            (r#"{"status":[404,"5xx"]}"#, false),
            (r#"{"from":"2024-05-20","to":"2024"}"#, true),
            (r#"{"from":"2024-05-21"}"#, false),
            (r#"{"to":"2024-05-20T09:29:59Z"}"#, false),
            (r#"{"types":["response"],"status":[404]}"#, false),
        ];
        for (spec, expected) in table {
            let filter = Filter::compile(&serde_json::from_str(spec).unwrap()).unwrap();
            assert_eq!(filter.takes(&head, Some(b"text/html"), Some(200)), expected, "{spec}");
        }
        for wrong in [
            r#"{"status":["2x"]}"#,
            r#"{"from":"yesterday"}"#,
            r#"{"url_regex":"("}"#,
            r#"{"url_glob":["[" ]}"#,
        ] {
            assert!(Filter::compile(&serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
    }
}
