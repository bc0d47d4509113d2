//! The flags of `serve` that make Hadoop an engine of the service.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use dragnet_engine::{Engine, Hadoop, HadoopPolicy, HostLimits, Submit};
use std::path::PathBuf;
use std::sync::Arc;

/// Where Hadoop is and how jobs get there.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Hadoop as an engine")]
pub(crate) struct HadoopArgs {
    /// The folder with a Hadoop client's core-site.xml, hdfs-site.xml, mapred-site.xml and yarn-site.xml; jobs with the
    /// engine `hadoop` run on that cluster
    #[arg(long, value_name = "DIR")]
    hadoop_conf: Option<PathBuf>,
    /// How jobs are submitted: through the ResourceManager's REST API, or by the `hadoop` command
    #[arg(
        long,
        hide_short_help = true,
        value_name = "WAY",
        default_value = "rest",
        requires = "hadoop_conf"
    )]
    hadoop_submit: Way,
    /// The `hadoop` command [default: the one in PATH]
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "hadoop_conf")]
    hadoop_command: Option<PathBuf>,
    /// Hadoop Streaming's jar: for the command, and for clusters whose nodes don't have it on their class
    /// path
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "hadoop_conf")]
    hadoop_streaming_jar: Option<PathBuf>,
    /// Owner of jobs and staged files [default: hadoop.http.staticuser.user, else the user of this process]
    #[arg(long, hide_short_help = true, value_name = "NAME", env = "HADOOP_USER_NAME")]
    hadoop_user: Option<String>,
    /// A property of jobs, such as `mapreduce.job.queuename=crawl`; may be given several times
    #[arg(long, hide_short_help = true, value_name = "NAME=VALUE", requires = "hadoop_conf")]
    hadoop_set: Vec<String>,
    /// Map tasks of one job that run at once; they share the limits per object server [default: `--host-connections`, for
    /// jobs that read from web servers or if `--host-mib-s` is given; else as many as the queue gives]
    #[arg(long, hide_short_help = true, value_name = "N", requires = "hadoop_conf")]
    hadoop_maps: Option<usize>,
    /// YARN queue for jobs whose map tasks are limited in this way. Give it `max-parallel-apps` 1, and they take turns
    /// [default: the queue of all jobs, where each job may load a server up to the limits]
    #[arg(long, hide_short_help = true, value_name = "QUEUE", requires = "hadoop_conf")]
    hadoop_turns: Option<String>,
    /// The program that map tasks run on the cluster's machines [default: this program]
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "hadoop_conf")]
    mapper: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Way {
    #[default]
    Rest,
    Command,
}

impl HadoopArgs {
    /// The engine, if the service is to have it. A server of objects may be asked for so many connections at once and
    /// for so many bytes per second.
    pub(crate) fn engine(
        &self,
        connections: usize,
        bytes_per_s: Option<u64>,
        mapper_flags: Vec<String>,
    ) -> Result<Option<Arc<dyn Engine>>> {
        let Some(conf) = self.hadoop_conf.clone() else { return Ok(None) };
        let submit = match (self.hadoop_submit, &self.hadoop_streaming_jar) {
            (Way::Rest, _) => Submit::Rest,
            (Way::Command, Some(streaming)) => {
                let program = self.hadoop_command.clone().unwrap_or_else(|| "hadoop".into());
                Submit::Command { program, streaming: streaming.clone() }
            }
            (Way::Command, None) => bail!("`--hadoop-submit command` needs `--hadoop-streaming-jar FILE`"),
        };
        let mapper = match self.mapper.clone() {
            Some(mapper) => mapper,
            None => std::env::current_exe().context("find this program, which is also the mapper")?,
        };
        let property = |text: &String| {
            let (name, value) = text.split_once('=').context("a property is NAME=VALUE")?;
            Ok((name.to_owned(), value.to_owned()))
        };
        let properties: Result<Vec<_>> = self.hadoop_set.iter().map(property).collect();
        let policy = HadoopPolicy {
            conf,
            submit,
            mapper,
            streaming_jar: self.hadoop_streaming_jar.clone(),
            user: self.hadoop_user.clone(),
            properties: properties.context("`--hadoop-set`")?,
            mapper_flags,
            host: HostLimits {
                connections,
                bytes_per_s,
                maps: self.hadoop_maps,
                queue: self.hadoop_turns.clone(),
            },
        };
        let hadoop = Hadoop::new(policy).context("read `--hadoop-conf`")?;
        Ok(Some(Arc::new(hadoop)))
    }
}
