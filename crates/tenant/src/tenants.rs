//! Tenants and their settings, as they stand in the store.

use crate::audit::{self, Act};
use crate::{DEFAULT, Error, now_ms};
use dragnet_pattern::{self as pattern, Statement, Store, Value};
use serde::{Deserialize, Serialize};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tenant {
    /// Its name, which stands in every path and row.
    pub id: String,
    /// What it may use.
    pub settings: Settings,
    /// When it was removed, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_ms: Option<i64>,
}

/// What a tenant may use; what is left out is not limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Jobs at once that have not ended: those that wait, run or are parked.
    pub jobs_open: Option<u64>,
    /// Jobs that may run at once; others wait, visible.
    pub jobs_running: Option<u64>,
    /// The most stored bytes of one job's plan.
    pub job_bytes: Option<u64>,
    /// Submissions per second, in the long run and within one second.
    pub submissions_per_s: Option<u64>,
    /// What its jobs of one calendar month (UTC) may cost, in millionths of the currency.
    pub budget_micros: Option<u64>,
    /// What its datasets must begin with, such as `s3://bucket/crawl/`, `https://host/` or `file:///data/`; web servers
    /// alone where nothing is said, and [`ANY`] for whatever the service can read.
    pub datasets: Option<Vec<String>>,
}

/// The entry of [`Settings::datasets`] that stands for all.
pub const ANY: &str = "any";

/// What a tenant without a list may read: what everybody can.
pub const PUBLIC: [&str; 2] = ["http://", "https://"];

/// Finds a tenant. [`DEFAULT`] is there even if nobody has made it.
///
/// # Errors
/// Those of the store.
pub async fn find(store: &dyn Store, id: &str) -> Result<Option<Tenant>, pattern::Error> {
    let statement =
        Statement::new("select id, settings, removed_ms from tenant where id = ?1", vec![id.into()]);
    let rows = store.query(statement).await?;
    match rows.first() {
        None if id == DEFAULT => {
            Ok(Some(Tenant { id: id.into(), settings: Settings::default(), removed_ms: None }))
        }
        None => Ok(None),
        Some(row) => tenant(row).map(Some),
    }
}

/// Every tenant that was made, by name; removed ones with them.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &dyn Store) -> Result<Vec<Tenant>, Error> {
    let statement = Statement::new("select id, settings, removed_ms from tenant order by id", vec![]);
    Ok(store.query(statement).await?.iter().map(|row| tenant(row)).collect::<Result<_, _>>()?)
}

fn tenant(row: &[Value]) -> Result<Tenant, pattern::Error> {
    let id = row[0].text().to_owned();
    let removed_ms = if let Value::Int(at) = row[2] { Some(at) } else { None };
    Ok(Tenant { settings: settings(&id, &row[1])?, id, removed_ms })
}

/// Whether anybody has made a tenant: from then on keys are needed.
///
/// # Errors
/// Those of the store.
pub async fn any(store: &dyn Store) -> Result<bool, pattern::Error> {
    Ok(!store.query(Statement::new("select id from tenant limit 1", vec![])).await?.is_empty())
}

/// Makes a tenant.
///
/// # Errors
/// [`Error::Name`] when the name can't stand in a path, [`Error::TenantExists`], [`Error::TenantRemoved`].
pub async fn add(store: &dyn Store, id: &str, settings: &Settings, act: &Act) -> Result<(), Error> {
    if !is_name(id) {
        return Err(Error::Name(id.into()));
    }
    match find_made(store, id).await {
        Err(Error::NoSuchTenant(_)) => {}
        Ok(()) => return Err(Error::TenantExists(id.into())),
        Err(e) => return Err(e),
    }
    let mut settings = settings.clone();
    if id == DEFAULT && settings.datasets.is_none() {
        // Who calls with a key is not who runs the service, for whom no list means all.
        settings.datasets = Some(PUBLIC.map(str::to_owned).to_vec());
    }
    let settings = &settings;
    // Of two at once the second is refused by the primary key, and logged by nobody.
    let insert = Statement::new(
        "insert into tenant (id, settings, created_ms) values (?1, ?2, ?3)",
        vec![id.into(), text(settings).into(), now_ms().into()],
    );
    store.write(vec![insert, act.statement(id, "tenant.add", &text(settings), audit::DONE)]).await?;
    Ok(())
}

/// Removes a tenant: its keys end now, and it gets no others. What it had stays, and so does its name. Returns how many
/// keys were ended.
///
/// # Errors
/// [`Error::NoSuchTenant`], [`Error::TenantRemoved`].
pub async fn remove(store: &dyn Store, id: &str, act: &Act) -> Result<usize, Error> {
    find_made(store, id).await?;
    let now = now_ms();
    let values = || vec![id.into(), now.into()];
    let changed = store
        .write(vec![
            Statement::new(
                "update tenant set removed_ms = ?2 where id = ?1 and removed_ms is null",
                values(),
            ),
            Statement::new(
                "update api_key set revoked_ms = ?2 where tenant = ?1 and revoked_ms is null \
                 and (expires_ms is null or expires_ms > ?2)",
                values(),
            ),
            act.statement(id, "tenant.remove", id, audit::DONE),
        ])
        .await?;
    Ok(changed[1])
}

/// Replaces a tenant's settings.
///
/// # Errors
/// [`Error::NoSuchTenant`], [`Error::TenantRemoved`].
pub async fn set(store: &dyn Store, id: &str, settings: &Settings, act: &Act) -> Result<(), Error> {
    let update = Statement::new(
        "update tenant set settings = ?2 where id = ?1",
        vec![id.into(), text(settings).into()],
    );
    find_made(store, id).await?;
    store.write(vec![update, act.statement(id, "tenant.set", &text(settings), audit::DONE)]).await?;
    Ok(())
}

/// A tenant that somebody has made and nobody removed.
pub(crate) async fn find_made(store: &dyn Store, id: &str) -> Result<(), Error> {
    let statement = Statement::new("select removed_ms from tenant where id = ?1", vec![id.into()]);
    match store.query(statement).await?.first().map(|row| &row[0]) {
        None => Err(Error::NoSuchTenant(id.into())),
        Some(Value::Null) => Ok(()),
        Some(_) => Err(Error::TenantRemoved(id.into())),
    }
}

/// Settings as they are stored. They were checked when they were written; a newer program's may hold more than
/// this one can keep, and must not be taken for less.
pub(crate) fn settings(id: &str, stored: &Value) -> Result<Settings, pattern::Error> {
    serde_json::from_str(stored.text())
        .map_err(|e| pattern::Error::Refused(format!("the settings of the tenant `{id}`: {e}")))
}

fn text(settings: &Settings) -> String {
    // Numbers and strings: it always is JSON.
    let mut json = serde_json::to_value(settings).unwrap_or_default();
    if let Some(members) = json.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    json.to_string()
}

/// Whether a name is safe as a piece of paths and URIs.
fn is_name(id: &str) -> bool {
    let plain = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && id.len() <= 63 && id.starts_with(|c: char| c.is_ascii_lowercase())
}
