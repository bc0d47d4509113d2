//! The store that an operator's command works on, beside a service or without one.

use crate::service::{make_private, store_at, store_file};
use crate::settings::Settings;
use anyhow::{Result, bail};
use dragnet_pattern::Store;
use dragnet_tenant::audit::{Act, DONE};
use std::path::PathBuf;
use std::sync::Arc;

/// Which store.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AtStore {
    /// The state folder of the service [default: $DRAGNET_STATE, else $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The Status DB: `sqlite:FILE` or `postgres://USER@HOST/DB`; pass a URL with a password in the environment, because
    /// arguments are visible to others [default: dragnet.db in the state folder]
    #[arg(long, value_name = "URL", env = "DRAGNET_STORE", hide_env_values = true)]
    store: Option<String>,
}

/// An open store, and who works on it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) act: Act,
    /// The state folder.
    #[cfg(feature = "webhooks")]
    pub(crate) state: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl AtStore {
    /// As [`AtStore::open`], for what a store that was made just now says nothing of.
    pub(crate) fn open_existing(&self, settings: &Settings) -> Result<Opened> {
        let state = self.state.as_ref().unwrap_or(&settings.state);
        if let Some(file) = store_file(self.store.as_deref(), state).filter(|file| !file.exists()) {
            bail!("there is no Status DB `{}`: name it by `--state` or `--store`", file.display());
        }
        self.open(settings)
    }

    pub(crate) fn open(&self, settings: &Settings) -> Result<Opened> {
        let state = self.state.as_ref().unwrap_or(&settings.state);
        make_private(state)?;
        let store = store_at(self.store.as_deref(), state, false)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // Whoever may open the store may do everything: the log says which of the machine's users it was.
        let actor = format!("uid:{}", rustix::process::getuid().as_raw());
        let act = Act { actor, address: "local".into() };
        Ok(Opened {
            store,
            act,
            #[cfg(feature = "webhooks")]
            state: state.clone(),
            runtime,
        })
    }
}

impl Opened {
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Notes in the audit log what was done just now, where its own transaction knows of no log.
    pub(crate) fn note(&self, tenant: &str, action: &str, target: &str) -> Result<()> {
        let line = self.act.statement(tenant, action, target, DONE);
        Ok(self.wait(self.store.write(vec![line])).map(drop)?)
    }
}
