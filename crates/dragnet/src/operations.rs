//! How a service is operated: where its operator looks, how it logs, how much room it leaves, what it keeps.

use crate::retention::RetentionArgs;
use crate::settings::LogFormat;
use std::net::SocketAddr;

/// What an operator sets; a command that has the service inside it leaves all of it out.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Operation")]
pub(crate) struct OperationArgs {
    /// Address for `/metrics`, `/livez` and `/readyz` with reasons, without a key: choose one that only the operator
    /// reaches [default: none]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Format of the log on stderr; $DRAGNET_LOG sets what is logged
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Free MiB on the disks of state and output below which new jobs are refused and running ones wait; 0 turns this off
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub(crate) disk_low_mib: u64,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
}

impl Default for OperationArgs {
    fn default() -> OperationArgs {
        OperationArgs {
            admin_listen: None,
            log_format: LogFormat::Text,
            disk_low_mib: 0,
            retention: RetentionArgs::default(),
        }
    }
}
