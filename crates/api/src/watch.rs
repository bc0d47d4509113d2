//! Waiting for what happens to a job, whichever process makes it happen: by looking at the store, more seldom the
//! longer nothing changes, and for a bounded number of clients at once.

use crate::Problem;
use axum::http::StatusCode;
use dragnet_pattern::{Error, Place, Places, Statement, Status, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Clients that follow events or wait for a job at once in one process: each costs a few reads a second. And of them, of one
/// tenant: it must not keep all others from waiting.
const WATCHERS_MAX: usize = 1000;
const WATCHERS_OF_ONE: usize = 750;
/// The first pause between two looks, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(400));

/// Who waits in this process.
#[derive(Debug, Clone)]
pub(crate) struct Watches {
    places: Arc<Places>,
    stopped: watch::Receiver<bool>,
}

impl Watches {
    pub(crate) fn new(stopped: watch::Receiver<bool>) -> Watches {
        Watches { places: Arc::new(Places::new(WATCHERS_MAX, WATCHERS_OF_ONE)), stopped }
    }

    /// A place among those who wait, and among those of a tenant.
    pub(crate) fn enter(&self, tenant: &str) -> Result<Watch, Problem> {
        let Some(place) = self.places.take(tenant) else {
            let detail = format!(
                "as many clients follow events or wait for jobs as may, {WATCHERS_MAX} in all and {WATCHERS_OF_ONE} of a tenant"
            );
            let title = "Too many clients wait";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-watchers", title, detail)
                .retry_after(5));
        };
        Ok(Watch { _place: place, stopped: self.stopped.clone(), pause: PAUSE.0 })
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Watch {
    _place: Place,
    stopped: watch::Receiver<bool>,
    pause: Duration,
}

impl Watch {
    /// Pauses before the next look, at most until `end`. Returns false when there is none: the time is over, or the
    /// service stops.
    pub(crate) async fn pause(&mut self, end: Option<Instant>) -> bool {
        let now = Instant::now();
        let next = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE.1);
        if end.is_some_and(|end| now >= end) {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep_until(end.map_or(next, |end| end.min(next))) => true,
            // An error means that nobody is left who could stop it, and so no service.
            _ = self.stopped.wait_for(|stopped| *stopped) => false,
        }
    }

    /// Something has changed: more may follow soon.
    pub(crate) fn changed(&mut self) {
        self.pause = PAUSE.0;
    }
}

/// Whether a job has ended, which costs one read by its key. A job that has gone has ended.
pub(crate) async fn has_ended(store: &dyn Store, id: &str) -> Result<bool, Error> {
    let sql = "select status from work where id = ?1";
    let rows = store.query(Statement::new(sql, vec![id.into()])).await?;
    let status = rows.first().and_then(|row| Status::parse(row[0].text()));
    Ok(status.is_none_or(Status::is_terminal))
}
