//! Keys: for whom a client speaks, and what it may ask for.

use crate::audit::{self, Act};
use crate::tenants::{find_made, settings};
use crate::{Error, Presented, Secret, Settings, now_ms};
use dragnet_pattern::{self as pattern, Statement, Store, Value};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How much later a use is noted than the last that was: a note is a write.
const NOTED_MS: i64 = 10 * 60 * 1000;

/// The columns of keys, and what `key` makes of them.
macro_rules! keys {
    ($which:literal) => {
        keys!("", $which)
    };
    ($more:literal, $which:literal) => {
        concat!(
            "select k.id, k.tenant, k.label, k.scopes, k.created_ms, k.expires_ms, k.revoked_ms, k.replaces, \
             k.life_ms, k.used_ms",
            $more,
            " from api_key k ",
            $which
        )
    };
}

/// What a key's holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Post jobs.
    Submit,
    /// See jobs, their hits and their coverage.
    Read,
    /// End jobs, and send parked ones on their way.
    Cancel,
    /// See what jobs cost.
    Bill,
    /// See who did what, and speak for groups beyond the service.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 5] = [Scope::Submit, Scope::Read, Scope::Cancel, Scope::Bill, Scope::Admin];

    /// Its name, as it stands in lists and headers.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Submit => "submit",
            Scope::Read => "read",
            Scope::Cancel => "cancel",
            Scope::Bill => "bill",
            Scope::Admin => "admin",
        }
    }

    /// The scope of a name.
    pub fn parse(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// For whom it speaks.
    pub tenant: String,
    /// What it is for, in its owner's words.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// How long it lives; for ever if not said.
    pub life: Option<Duration>,
}

/// A key as it stands in the store: all but the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Its public part.
    pub id: String,
    /// For whom it speaks.
    pub tenant: String,
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it ends by itself.
    pub expires_ms: Option<i64>,
    /// When somebody ended it.
    pub revoked_ms: Option<i64>,
    /// The key whose successor it is.
    pub replaces: Option<String>,
    /// How long it would have lived had it not been rotated, in milliseconds; 0 for ever.
    #[serde(skip)]
    life_ms: Option<i64>,
    /// When it was last shown, within ten minutes.
    pub used_ms: Option<i64>,
}

impl Key {
    /// Why it is worth nothing, if it is.
    pub fn ended(&self, now_ms: i64) -> Option<&'static str> {
        match (self.revoked_ms, self.expires_ms) {
            (Some(_), _) => Some("revoked"),
            (None, Some(at)) if at <= now_ms => Some("expired"),
            _ => None,
        }
    }

    /// The statement that notes that it was shown now; nothing where that was noted just before.
    pub fn used(&self) -> Option<Statement> {
        let now = now_ms();
        let old = self.used_ms.is_none_or(|at| at < now - NOTED_MS);
        old.then(|| {
            let sql = "update api_key set used_ms = ?2 where id = ?1 and coalesce(used_ms, 0) < ?2";
            Statement::new(sql, vec![self.id.as_str().into(), now.into()])
        })
    }
}

/// Makes a key. The secret is nowhere but in the answer.
///
/// # Errors
/// [`Error::NoSuchTenant`], [`Error::TenantRemoved`], [`Error::NoScope`].
pub async fn add(store: &dyn Store, new: NewKey, act: &Act) -> Result<(Key, Secret), Error> {
    let (key, secret, insert) = make(new, None)?;
    find_made(store, &key.tenant).await?;
    store.write(vec![insert, act.statement(&key.tenant, "key.add", &key.id, audit::DONE)]).await?;
    Ok((key, secret))
}

/// Makes a key's successor, which may do the same and lives as long. The old one ends after `overlap`, or when it
/// would have ended anyway: until then both are taken, so that clients can change over one by one.
///
/// # Errors
/// [`Error::NoSuchKey`], [`Error::KeyEnded`].
pub async fn rotate(
    store: &dyn Store,
    id: &str,
    overlap: Duration,
    act: &Act,
) -> Result<(Key, Secret), Error> {
    let old = one(store, id).await?;
    let now = now_ms();
    if old.ended(now).is_some() {
        return Err(Error::KeyEnded(id.into()));
    }
    // An end that a rotation has set is not how long it was to live.
    let life_ms = old.life_ms.or(old.expires_ms.map(|at| at - old.created_ms)).unwrap_or(0);
    let life = (life_ms > 0).then(|| Duration::from_millis(life_ms.unsigned_abs()));
    let Key { tenant, label, scopes, .. } = old;
    let (key, secret, insert) = make(NewKey { tenant, label, scopes, life }, Some(id))?;
    let end = Statement::new(
        "update api_key set expires_ms = ?2, life_ms = ?3 where id = ?1 and (expires_ms is null or expires_ms > ?2)",
        vec![id.into(), now.saturating_add(ms(overlap)).into(), life_ms.into()],
    );
    let log = act.statement(&key.tenant, "key.rotate", &format!("{id} to {}", key.id), audit::DONE);
    store.write(vec![insert, end, log]).await?;
    Ok((key, secret))
}

/// Ends a key now. Processes that have looked it up may take it for as long as they keep what they know.
///
/// # Errors
/// [`Error::NoSuchKey`], [`Error::KeyEnded`].
pub async fn revoke(store: &dyn Store, id: &str, act: &Act) -> Result<Key, Error> {
    let key = one(store, id).await?;
    let now = now_ms();
    if key.ended(now).is_some() {
        return Err(Error::KeyEnded(id.into()));
    }
    let end = Statement::new(
        "update api_key set revoked_ms = ?2 where id = ?1 and revoked_ms is null",
        vec![id.into(), now.into()],
    );
    store.write(vec![end, act.statement(&key.tenant, "key.revoke", id, audit::DONE)]).await?;
    Ok(Key { revoked_ms: Some(now), ..key })
}

/// The keys of a tenant or of all, ended ones with them, by tenant and age.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &dyn Store, tenant: Option<&str>) -> Result<Vec<Key>, Error> {
    let statement = match tenant {
        Some(tenant) => {
            Statement::new(keys!("where k.tenant = ?1 order by k.created_ms, k.id"), vec![tenant.into()])
        }
        None => Statement::new(keys!("order by k.tenant, k.created_ms, k.id"), vec![]),
    };
    Ok(store.query(statement).await?.iter().map(|row| key(row)).collect())
}

/// Forgets keys that ended before a time. Returns how many. What was done with them stays in the audit log.
///
/// # Errors
/// Those of the store.
pub async fn forget(store: &dyn Store, before_ms: i64) -> Result<usize, pattern::Error> {
    let successors = "update api_key set replaces = null where replaces in \
                      (select id from api_key where coalesce(revoked_ms, expires_ms) < ?1)";
    let gone = "delete from api_key where coalesce(revoked_ms, expires_ms) < ?1";
    let statements = [successors, gone].map(|sql| Statement::new(sql, vec![before_ms.into()]));
    Ok(store.write(statements.into()).await?.last().copied().unwrap_or_default())
}

/// Whether there is a key that is worth something.
///
/// # Errors
/// Those of the store.
pub async fn any(store: &dyn Store) -> Result<bool, pattern::Error> {
    let statement = Statement::new(
        "select id from api_key where revoked_ms is null and (expires_ms is null or expires_ms > ?1) limit 1",
        vec![now_ms().into()],
    );
    Ok(!store.query(statement).await?.is_empty())
}

/// The stored key that was presented, ended or not, and what its tenant may use.
///
/// # Errors
/// Those of the store.
pub async fn presented(
    store: &dyn Store,
    presented: &Presented,
) -> Result<Option<(Key, Settings)>, pattern::Error> {
    let statement = Statement::new(
        keys!(
            ", k.hash, t.settings",
            "join tenant t on t.id = k.tenant where k.id = ?1 and t.removed_ms is null"
        ),
        vec![presented.id.as_str().into()],
    );
    let rows = store.query(statement).await?;
    let Some(row) = rows.first().filter(|row| presented.is(row[10].text())) else { return Ok(None) };
    let key = key(row);
    let settings = settings(&key.tenant, &row[11])?;
    Ok(Some((key, settings)))
}

async fn one(store: &dyn Store, id: &str) -> Result<Key, Error> {
    let statement = Statement::new(keys!("where k.id = ?1"), vec![id.into()]);
    let rows = store.query(statement).await?;
    // Somebody may have pasted a whole key, which must not be said again.
    let public = || Secret::new(id).presented().map_or_else(|_| id.to_owned(), |presented| presented.id);
    rows.first().map(|row| key(row)).ok_or_else(|| Error::NoSuchKey(public()))
}

fn make(new: NewKey, replaces: Option<&str>) -> Result<(Key, Secret, Statement), Error> {
    if new.scopes.is_empty() {
        return Err(Error::NoScope);
    }
    let (secret, presented) = Secret::random()?;
    let created_ms = now_ms();
    let key = Key {
        id: presented.id.clone(),
        tenant: new.tenant,
        label: new.label,
        scopes: Scope::ALL.into_iter().filter(|scope| new.scopes.contains(scope)).collect(),
        created_ms,
        expires_ms: new.life.map(|life| created_ms.saturating_add(ms(life))),
        revoked_ms: None,
        replaces: replaces.map(str::to_owned),
        life_ms: None,
        used_ms: None,
    };
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
    let insert = Statement::new(
        "insert into api_key (id, tenant, label, hash, scopes, created_ms, expires_ms, replaces) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        vec![
            key.id.as_str().into(),
            key.tenant.as_str().into(),
            key.label.as_str().into(),
            presented.hex().into(),
            scopes.join(" ").into(),
            created_ms.into(),
            key.expires_ms.into(),
            replaces.into(),
        ],
    );
    Ok((key, secret, insert))
}

fn key(row: &[Value]) -> Key {
    let time = |value: &Value| if let Value::Int(ms) = value { Some(*ms) } else { None };
    Key {
        id: row[0].text().into(),
        tenant: row[1].text().into(),
        label: row[2].text().into(),
        // A scope that this program does not know allows nothing here.
        scopes: row[3].text().split(' ').filter_map(Scope::parse).collect(),
        created_ms: row[4].int(),
        expires_ms: time(&row[5]),
        revoked_ms: time(&row[6]),
        replaces: Some(row[7].text().to_owned()).filter(|id| !id.is_empty()),
        life_ms: time(&row[8]),
        used_ms: time(&row[9]),
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
