//! The flags of `serve` that say what jobs may reach: which files, which servers.

use anyhow::{Context, Result};
use clap::ValueEnum;
use dragnet_job::guard::Guard;
use dragnet_objects::{Network, set_network};
use dragnet_run::uri;
use std::path::{Path, PathBuf};

/// What jobs may reach.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "What jobs may read")]
pub(crate) struct ReachArgs {
    /// A folder that dataset files must be in, at any depth, with no link on the way; may be given several times [default:
    /// whatever the service may read; for tenants, the folders of their `--dataset`]
    #[arg(long, hide_short_help = true, value_name = "DIR")]
    data_root: Vec<PathBuf>,
    /// Which servers may be connected to: `any`, or `public` for only those with public addresses [default: `public` if
    /// tenants are defined or other machines can reach the API, and for every tenant but the default one; else `any`]
    #[arg(long, hide_short_help = true, value_name = "WHICH")]
    addresses: Option<Addresses>,
    /// A host, by name or address, that may be connected to even if its address is not public, such as that of `--output` or
    /// a NameNode; may be given several times
    #[arg(long, hide_short_help = true, value_name = "HOST")]
    allow_host: Vec<String>,
    /// A port that may be connected to on public addresses, besides 80 and 443; may be given several times
    #[arg(long, hide_short_help = true, value_name = "PORT")]
    allow_port: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Addresses {
    Any,
    Public,
}

impl ReachArgs {
    /// Sets what this process may connect to; `strangers` says whether others than its own user ask for it.
    pub(crate) fn set(&self, strangers: bool) {
        set_network(self.network(strangers));
    }

    fn network(&self, strangers: bool) -> Network {
        Network {
            public_only: self.is_public(strangers),
            hosts: self.allow_host.clone(),
            ports: self.allow_port.clone(),
        }
    }

    /// The same, for webhooks.
    #[cfg(feature = "webhooks")]
    pub(crate) fn webhooks(&self, strangers: bool) -> dragnet_webhooks::Reach {
        let (own, others) = (self.network(strangers), self.network(true));
        dragnet_webhooks::Reach { owner: dragnet_tenant::DEFAULT.into(), own, others }
    }

    fn is_public(&self, strangers: bool) -> bool {
        self.addresses.map_or(strangers, |which| which == Addresses::Public)
    }

    /// The same, for a mapper.
    pub(crate) fn mapper_flags(&self, strangers: bool) -> Vec<String> {
        let public = self.is_public(strangers).then(|| "--public-addresses".to_owned());
        let hosts = self.allow_host.iter().flat_map(|host| ["--allow-host".to_owned(), host.clone()]);
        let ports = self.allow_port.iter().flat_map(|port| ["--allow-port".to_owned(), port.to_string()]);
        public.into_iter().chain(hosts).chain(ports).collect()
    }

    /// What tenants may read, beside the service's own: a state folder, a store's file and outputs.
    pub(crate) fn guard(&self, state: &Path, store: Option<&Path>, outputs: &[String]) -> Result<Guard> {
        let real = |root: &PathBuf| {
            root.canonicalize().with_context(|| format!("find `--data-root {}`", root.display()))
        };
        let roots: Result<Vec<PathBuf>> = self.data_root.iter().map(real).collect();
        let mut own = outputs.to_vec();
        let mut files = vec![state.to_owned()];
        files.extend(outputs.iter().filter_map(|output| uri::to_path(output).ok()));
        if let Some(database) = store {
            files.extend(
                ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", database.display()))),
            );
        }
        for file in files {
            // A link's name and what it leads to are the same data.
            own.extend(file.canonicalize().ok().map(|real| uri::of_path(&real)));
            own.push(uri::of_path(&file));
        }
        // Whenever a tenant is added: it is a stranger, also to a service that served its own user alone when it started.
        Ok(Guard { roots: roots?, own, public: self.is_public(true), site: self.allow_host.clone() })
    }
}
