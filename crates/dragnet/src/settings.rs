//! The environment: the one place that reads it.

use dragnet_tenant::Secret;
use std::io::IsTerminal;
use std::path::PathBuf;

/// How a service logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// An object a line, for programs
    Json,
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// `DRAGNET_STATE`, else `$XDG_STATE_HOME/dragnet`, else `~/.local/state/dragnet`.
    pub(crate) state: PathBuf,
    /// `DRAGNET_SERVER`: the service that client commands talk to.
    pub(crate) server: Option<String>,
    /// `DRAGNET_CONFIG`: the configuration of `serve`.
    pub(crate) config: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME/dragnet/config.toml`, else `~/.config/dragnet/config.toml`: the same where there is one.
    pub(crate) usual_config: PathBuf,
    /// `DRAGNET_API_KEY`: the key that client commands show. An argument would stand in the list of processes.
    pub(crate) api_key: Option<Secret>,
    /// `DRAGNET_LOG`: what is logged, in tracing's filter syntax.
    pub(crate) log: Option<String>,
    /// `DRAGNET_CRASH`: a crash point, for tests; nothing in a build without them.
    pub(crate) crash: String,
    /// `CARGO_HOME`, else `~/.cargo`: where `demo` finds documents.
    pub(crate) cargo_home: PathBuf,
    /// `RUSTUP_HOME`, else `~/.rustup`: the same.
    pub(crate) rustup_home: PathBuf,
}

impl Settings {
    pub(crate) fn read() -> Settings {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = PathBuf::from(var("HOME").unwrap_or_else(|| "/".into()));
        let state_home = var("XDG_STATE_HOME").map_or_else(|| home.join(".local/state"), PathBuf::from);
        let config_home = var("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        Settings {
            config: var("DRAGNET_CONFIG").map(PathBuf::from),
            usual_config: config_home.join("dragnet/config.toml"),
            state: var("DRAGNET_STATE").map_or_else(|| state_home.join("dragnet"), PathBuf::from),
            server: var("DRAGNET_SERVER"),
            api_key: var("DRAGNET_API_KEY").map(Secret::new),
            log: var("DRAGNET_LOG"),
            crash: var("DRAGNET_CRASH").unwrap_or_default(),
            cargo_home: var("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from),
            rustup_home: var("RUSTUP_HOME").map_or_else(|| home.join(".rustup"), PathBuf::from),
        }
    }

    /// Logs go to stderr: a service's, which has a format, from `info` on; a command's only what is wrong.
    pub(crate) fn start_log(&self, service: Option<LogFormat>) {
        let default = if service.is_some() { "info" } else { "error" };
        let filter = tracing_subscriber::EnvFilter::new(self.log.as_deref().unwrap_or(default));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal());
        match service {
            // The step that a line belongs to is its `span`: with work, tenant, controller and attempt.
            Some(LogFormat::Json) => {
                log.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
            }
            Some(LogFormat::Text) | None => log.init(),
        }
    }
}
