//! Hits as they are given out: paged, counted, redacted.
//!
//! While a job runs, only what has settled is shown, in the order in which it settled, and it is never
//! taken back. A sealed job can also be read in the dataset's order.

use crate::controllers::Job;
use base16ct::lower;
use dragnet_kernel::Hit;
use dragnet_pattern::{Statement, Store, Work};
use dragnet_run::{CommitRecord, Output, Sealed};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::BufRead;

/// In which order hits are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they settled.
    Settled,
    /// As the dataset has them; only of a sealed job.
    Dataset,
}

/// By what hits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountBy {
    /// The match.
    Match,
    /// The pattern's name.
    Pattern,
    /// The host of the URL.
    Host,
    /// The URL.
    Url,
    /// The object's URI.
    Object,
    /// The day of the record's date.
    Date,
}

impl CountBy {
    /// The names, as they are asked for.
    pub const NAMES: [(&'static str, CountBy); 6] = [
        ("match", CountBy::Match),
        ("pattern", CountBy::Pattern),
        ("host", CountBy::Host),
        ("url", CountBy::Url),
        ("object", CountBy::Object),
        ("date", CountBy::Date),
    ];

    fn key(self, hit: &Hit<'_>) -> String {
        let none = String::new;
        match self {
            CountBy::Match => hit.matched.clone().into_owned(),
            CountBy::Pattern => hit.pattern.clone().into_owned(),
            CountBy::Host => hit.url.as_deref().map_or_else(none, |url| host(url).to_owned()),
            CountBy::Url => hit.url.clone().unwrap_or_default().into_owned(),
            CountBy::Object => hit.object.clone().into_owned(),
            CountBy::Date => hit.date.as_deref().map_or_else(none, |date| date.chars().take(10).collect()),
        }
    }
}

fn host(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else { return "" };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Why hits can't be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job has not been sealed, so the dataset's order is not known.
    #[error("the dataset's order is known when the job has ended: until then leave `order` out")]
    NotSealed,
    /// The cursor is none of ours.
    #[error("`{0}` is no cursor of this list: begin without one")]
    Cursor(String),
    /// More different things than are counted.
    #[error(
        "more than {COUNTS_MAX} different things: take the hits themselves, page by page, and count them there"
    )]
    Counts,
    /// They were kept for as long as the service keeps them.
    #[error("the hits of this job are not kept any more; its coverage, its digest and its bill are")]
    Expired,
    /// Where they are is not known.
    #[error("{0}")]
    Output(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] dragnet_pattern::Error),
    /// The output failed.
    #[error(transparent)]
    Run(#[from] dragnet_run::Error),
    /// A part failed.
    #[error("read hits: {0}")]
    Part(#[from] std::io::Error),
}

/// Where a reader of hits stands: which record, and how many bytes of its lines it has had, so that a page
/// deep in a large part is found by a seek.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    record: u64,
    byte: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.record, self.byte)
    }
}

impl std::str::FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Cursor, Error> {
        let parts = text.split_once('.').and_then(|(r, l)| Some((r.parse().ok()?, l.parse().ok()?)));
        let parts = parts.filter(|(record, byte): &(u64, u64)| *record.max(byte) < 1 << 62);
        let (record, byte) = parts.ok_or_else(|| Error::Cursor(text.to_owned()))?;
        Ok(Cursor { record, byte })
    }
}

/// Bytes after which a page ends, however few hits it has.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A page of hits, as JSON lines.
#[derive(Debug, Default)]
pub struct Page {
    /// Lines, each with its line end.
    pub lines: String,
    /// Where the next page begins; `None` when this one reaches what there is now.
    pub next: Option<Cursor>,
    /// Where a later reader finds what comes after this page, also when nothing is there yet.
    pub end: Cursor,
}

/// The records that hold a job's hits, in an order.
async fn records(
    store: &dyn Store,
    output: &Output,
    job: &str,
    order: Order,
    from: u64,
) -> Result<Vec<String>, Error> {
    match order {
        Order::Settled => {
            let sql = "select record from settled where work_id = ?1 and n >= ?2 order by n limit 1000";
            let rows = store.query(Statement::new(sql, vec![job.into(), (from as i64).into()])).await?;
            Ok(rows.into_iter().map(|row| row[0].text().to_owned()).collect())
        }
        Order::Dataset => {
            let sealed = Sealed::read(output)?.ok_or(Error::NotSealed)?;
            Ok(sealed.manifest.records.into_iter().skip(from as usize).take(1000).collect())
        }
    }
}

/// A page of at most `limit` hits from a cursor on.
///
/// # Errors
/// See [`Error`].
pub async fn page(
    store: &dyn Store,
    output: &Output,
    job: &str,
    order: Order,
    from: Cursor,
    limit: usize,
    redacted: bool,
) -> Result<Page, Error> {
    kept(store, job, read_page(store, output, job, order, from, limit, redacted).await).await
}

/// What was read, if all of it was there until it had been read.
async fn kept<T>(store: &dyn Store, job: &str, read: Result<T, Error>) -> Result<T, Error> {
    if have_expired(store, job).await? { Err(Error::Expired) } else { read }
}

async fn read_page(
    store: &dyn Store,
    output: &Output,
    job: &str,
    order: Order,
    from: Cursor,
    limit: usize,
    redacted: bool,
) -> Result<Page, Error> {
    let mut page = Page { end: from, ..Page::default() };
    let mut left = limit;
    loop {
        let names = records(store, output, job, order, page.end.record).await?;
        if names.is_empty() {
            return Ok(page);
        }
        for name in names {
            let mut more = false;
            let read = each_line(output, &name, page.end.byte, &mut |line| {
                if left == 0 || page.lines.len() > PAGE_BYTES_MAX {
                    more = true;
                    return Ok(false);
                }
                left -= 1;
                if redacted {
                    page.lines.push_str(&redact(line))
                } else {
                    page.lines.push_str(line)
                }
                page.lines.push('\n');
                Ok(true)
            })?;
            if more {
                page.end.byte += read;
                page.next = Some(page.end);
                return Ok(page);
            }
            page.end = Cursor { record: page.end.record + 1, byte: 0 };
        }
    }
}

/// The most different things that are counted: each is kept in memory until all are.
const COUNTS_MAX: usize = 1_000_000;

/// Counts all hits that are shown now, most frequent first, equal counts by key.
///
/// # Errors
/// See [`Error`].
pub async fn count(
    store: &dyn Store,
    output: &Output,
    job: &str,
    by: CountBy,
    top: Option<usize>,
    redacted: bool,
) -> Result<Vec<(String, u64)>, Error> {
    kept(store, job, count_all(store, output, job, by, top, redacted).await).await
}

async fn count_all(
    store: &dyn Store,
    output: &Output,
    job: &str,
    by: CountBy,
    top: Option<usize>,
    redacted: bool,
) -> Result<Vec<(String, u64)>, Error> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut from = 0;
    loop {
        let names = records(store, output, job, Order::Settled, from).await?;
        if names.is_empty() {
            break;
        }
        from += names.len() as u64;
        for name in names {
            each_line(output, &name, 0, &mut |line| {
                let hit: Hit<'_> = serde_json::from_str(line)?;
                let key = by.key(&hit);
                let key = if redacted && by == CountBy::Match { veil(&key) } else { key };
                *counts.entry(key).or_default() += 1;
                Ok(counts.len() <= COUNTS_MAX)
            })?;
            if counts.len() > COUNTS_MAX {
                return Err(Error::Counts);
            }
        }
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    counts.truncate(top.unwrap_or(usize::MAX));
    Ok(counts)
}

/// Whether a job's hits have gone before it.
///
/// # Errors
/// Those of the store.
pub async fn have_expired(store: &dyn Store, job: &str) -> Result<bool, dragnet_pattern::Error> {
    let sql = "select removed from hits_expired where work_id = ?1";
    Ok(!store.query(Statement::new(sql, vec![job.into()])).await?.is_empty())
}

/// Removes the hits of a job that has ended, and its commit records, as a few hits stand in the record itself. Plan,
/// coverage and seal stay, and with them digest and bill. It is noted first, so that nobody takes what is left for all;
/// harmless to repeat.
///
/// # Errors
/// [`Error::Output`], [`Error::Run`], [`Error::Store`].
pub async fn expire(store: &dyn Store, work: &Work) -> Result<(), Error> {
    let note = "insert into hits_expired (work_id, removed) values (?1, 0) on conflict (work_id) do nothing";
    store.write(vec![Statement::new(note, vec![work.id.as_str().into()])]).await?;
    let output = Job::of_work(work).map_err(Error::Output)?;
    tokio::task::block_in_place(|| output.clean(Sealed::is_part_of_seal))?;
    let done = "update hits_expired set removed = 1 where work_id = ?1";
    store.write(vec![Statement::new(done, vec![work.id.as_str().into()])]).await?;
    Ok(())
}

/// Calls `take` with each line of a record's hits from a byte on, until it says no. Returns how many bytes of
/// lines were taken. Blocks on the disk, and lets the runtime know.
pub(crate) fn each_line(
    output: &Output,
    name: &str,
    from: u64,
    take: &mut dyn FnMut(&str) -> std::io::Result<bool>,
) -> Result<u64, Error> {
    tokio::task::block_in_place(|| {
        let gone =
            || dragnet_run::Error::Malformed { path: output.name_of(name), reason: "it has gone".into() };
        let record: CommitRecord = output.read_json(name)?.ok_or_else(gone)?;
        // A run serves one search today.
        let Some(totals) = record.searches.first() else { return Ok(0) };
        let mut lines: Box<dyn BufRead> = match &totals.part {
            None => Box::new(totals.inline.as_bytes().get(from as usize..).unwrap_or_default()),
            Some(part) => output.lines(part, from)?,
        };
        let (mut taken, mut line) = (0, String::new());
        loop {
            line.clear();
            let read = lines.read_line(&mut line)? as u64;
            if read == 0 || !take(line.trim_end_matches('\n'))? {
                return Ok(taken);
            }
            taken += read;
        }
    })
}

/// The hit without what it matched: a hash and the first 4 characters stand in its place.
pub fn redact(line: &str) -> String {
    let Ok(mut hit) = serde_json::from_str::<Hit<'_>>(line) else { return "{}".into() };
    hit.matched = veil(&hit.matched).into();
    hit.match_base64 = None;
    hit.captures.clear();
    hit.before = Default::default();
    hit.after = Default::default();
    serde_json::to_string(&hit).unwrap_or_default()
}

fn veil(matched: &str) -> String {
    let hash = lower::encode_string(&Sha256::digest(matched.as_bytes())[..8]);
    format!("{}…sha256:{hash}", matched.chars().take(4).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_host() {
        let table = [
            ("https://a.example/b", "a.example"),
            ("http://u:p@h:8080?q", "h"),
            ("http://[::1]:80/", "[::1]"),
            ("dns:a.example", ""),
        ];
        for (url, expected) in table {
            assert_eq!(host(url), expected, "{url}");
        }
    }
}
