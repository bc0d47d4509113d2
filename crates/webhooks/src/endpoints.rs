//! Endpoints: who is told. Each belongs to a tenant.

use crate::key::Key;
use crate::sign::{Secret, Unsigned};
use dragnet_pattern::{self as pattern, Statement, Store, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its name, as `list` shows it.
    pub id: String,
    /// Whose works it is told of.
    pub tenant: String,
    /// Where events are posted.
    pub url: String,
    /// Why nothing is sent there any more, if so.
    pub disabled: Option<String>,
    pub(crate) secrets: Vec<Secret>,
}

/// Why an endpoint can't be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no URL that can be posted to.
    #[error(
        "`{0}` is no URL of an endpoint: name one that begins with https:// or http://, without user and password"
    )]
    Url(String),
    /// There is no such endpoint.
    #[error("there is no webhook `{0}` (`dragnet webhook list`)")]
    Missing(String),
    /// Somebody else changed it meanwhile.
    #[error("the webhook `{0}` was changed by somebody else just now: try again")]
    Raced(String),
    /// The kernel gave no randomness.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// Its secrets are made of another key.
    #[error("{0}")]
    Key(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] pattern::Error),
}

impl From<Unsigned> for Error {
    fn from(e: Unsigned) -> Error {
        Error::Key(e.to_string())
    }
}

const COLUMNS: &str = "select id, tenant, url, secrets, disabled from webhook";

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn endpoint(row: &[Value]) -> Endpoint {
    let disabled = Some(row[4].text().to_owned()).filter(|why| !why.is_empty());
    let (id, tenant, url) = (row[0].text().into(), row[1].text().into(), row[2].text().into());
    // What another version wrote and this one does not understand is no secret; nothing is sent without one.
    Endpoint { id, tenant, url, disabled, secrets: serde_json::from_str(row[3].text()).unwrap_or_default() }
}

async fn read(store: &dyn Store, statement: Statement) -> Result<Vec<Endpoint>, pattern::Error> {
    Ok(store.query(statement).await?.iter().map(|row| endpoint(row)).collect())
}

pub(crate) async fn of_tenant(store: &dyn Store, tenant: &str) -> Result<Vec<Endpoint>, pattern::Error> {
    const SQL: &str = "select id, tenant, url, secrets, disabled from webhook where tenant = ?1 order by id";
    read(store, Statement::new(SQL, vec![tenant.into()])).await
}

/// Every endpoint.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &dyn Store) -> Result<Vec<Endpoint>, Error> {
    Ok(read(store, Statement::new(COLUMNS, vec![])).await?)
}

/// Makes an endpoint. Returns it with its secret, which is shown this once.
///
/// # Errors
/// [`Error::Url`], or the store's.
pub async fn add(store: &dyn Store, key: &Key, tenant: &str, url: &str) -> Result<(Endpoint, String), Error> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || url.contains(char::is_whitespace) {
        return Err(Error::Url(url.into()));
    }
    let secret = Secret::random(key)?;
    let shown = secret.shown(key)?;
    let id = format!("hook_{}", uuid::Uuid::new_v4().simple());
    let sql = "insert into webhook (id, tenant, url, secrets, created_ms) values (?1, ?2, ?3, ?4, ?5)";
    let secrets = vec![secret];
    let values = vec![id.as_str().into(), tenant.into(), url.into(), text(&secrets).into(), now_ms().into()];
    store.write(vec![Statement::new(sql, values)]).await?;
    let made = Endpoint { id, tenant: tenant.into(), url: url.into(), disabled: None, secrets };
    Ok((made, shown))
}

fn text(secrets: &[Secret]) -> String {
    // Texts and numbers: it always is JSON.
    serde_json::to_string(secrets).unwrap_or_default()
}

/// Removes an endpoint: nothing more is sent there.
///
/// # Errors
/// [`Error::Missing`], or the store's.
pub async fn remove(store: &dyn Store, id: &str) -> Result<(), Error> {
    let gone = Statement::new("delete from webhook where id = ?1", vec![id.into()]);
    let told = Statement::new("delete from webhook_delivery where webhook_id = ?1", vec![id.into()]);
    changed(store, id, vec![gone, told]).await
}

/// Enables an endpoint again that answered 410.
///
/// # Errors
/// [`Error::Missing`], or the store's.
pub async fn enable(store: &dyn Store, id: &str) -> Result<(), Error> {
    changed(
        store,
        id,
        vec![Statement::new("update webhook set disabled = null where id = ?1", vec![id.into()])],
    )
    .await
}

/// Gives an endpoint a new secret, which is returned; the old ones sign beside it for `overlap`.
///
/// # Errors
/// [`Error::Missing`], or the store's.
pub async fn rotate(store: &dyn Store, key: &Key, id: &str, overlap: Duration) -> Result<String, Error> {
    const SQL: &str = "select id, tenant, url, secrets, disabled from webhook where id = ?1";
    let found = read(store, Statement::new(SQL, vec![id.into()])).await?.pop();
    let mut secrets = found.ok_or_else(|| Error::Missing(id.into()))?.secrets;
    let were = text(&secrets);
    let until = now_ms().saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
    // What is of a key that was lost can sign nothing more.
    secrets.retain(|old| old.until_ms.is_none_or(|ends| ends > now_ms()) && old.shown(key).is_ok());
    secrets.iter_mut().for_each(|old| old.until_ms = Some(old.until_ms.unwrap_or(until).min(until)));
    let new = Secret::random(key)?;
    let shown = new.shown(key)?;
    secrets.insert(0, new);
    let values = vec![id.into(), text(&secrets).into(), were.into()];
    let sql = "update webhook set secrets = ?2 where id = ?1 and secrets = ?3";
    // Of two at once one must not take back what the other has shown.
    if store.write(vec![Statement::new(sql, values)]).await?.first() != Some(&1) {
        return Err(Error::Raced(id.into()));
    }
    Ok(shown)
}

/// Sends the event of a work again to all of its tenant's endpoints, under the same ids.
///
/// # Errors
/// Those of the store.
pub async fn replay(store: &dyn Store, work: &str, topic: &str) -> Result<(), Error> {
    let again = "update webhook_delivery set done_ms = null, attempts = 0, next_ms = 0 where work_id = ?1";
    store.write(vec![Statement::new(again, vec![work.into()])]).await?;
    // It says "look" to whoever listens there, and nobody else finds anything new.
    Ok(store.send(work, topic).await?)
}

async fn changed(store: &dyn Store, id: &str, statements: Vec<Statement>) -> Result<(), Error> {
    match store.write(statements).await?.first() {
        Some(0) | None => Err(Error::Missing(id.into())),
        Some(_) => Ok(()),
    }
}
