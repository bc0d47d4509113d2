//! How processes tell each other that there is something to do: the database's notices, Kafka, or both. And
//! controllers that live beyond Kafka.

use anyhow::{Result, bail};
use dragnet_pattern::{Controller, Store};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How processes tell each other of messages.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Messages between machines")]
pub(crate) struct MessageArgs {
    /// Kafka brokers that carry messages between machines; no TLS or SASL
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Prefix of all topic and group names in Kafka
    #[arg(long, hide_short_help = true, value_name = "NAME", default_value = "dragnet")]
    kafka_prefix: String,
    /// What notifies processes of messages: `notify` (PostgreSQL's), `kafka` [default: both, if available]
    #[arg(long, hide_short_help = true, value_name = "LIST", value_delimiter = ',', value_enum)]
    hints: Vec<Hint>,
    /// Plug in an external controller over Kafka: NAME is notified of each message of TOPIC (`job.ended`) until it
    /// confirms; may be given several times
    #[arg(long, hide_short_help = true, value_name = "NAME=TOPIC", value_parser = plug)]
    beyond: Vec<Plug>,
    /// Seconds after which an external controller that has not confirmed is notified again
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 30.0)]
    confirm_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Hint {
    Notify,
    Kafka,
}

/// A controller that is plugged in.
#[derive(Debug, Clone)]
struct Plug {
    name: String,
    topic: String,
}

fn plug(text: &str) -> Result<Plug, String> {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        (1..=64).contains(&name.len()) && name.chars().all(allowed)
    };
    match text.split_once('=') {
        Some((name, topic)) if is_name(name) && is_name(topic) => {
            Ok(Plug { name: name.into(), topic: topic.into() })
        }
        _ => Err(
            "it is NAME=TOPIC, such as `audit=job.ended`, of lower-case letters, digits, `-`, `.` and `_`"
                .into(),
        ),
    }
}

impl Default for MessageArgs {
    fn default() -> MessageArgs {
        MessageArgs {
            kafka: None,
            kafka_prefix: "dragnet".into(),
            hints: Vec::new(),
            beyond: Vec::new(),
            confirm_s: 30.0,
        }
    }
}

impl MessageArgs {
    /// Refuses what can't work, before anything is started.
    pub(crate) fn check(&self, own: &[&str]) -> Result<()> {
        if self.kafka.is_some() && cfg!(not(feature = "kafka")) {
            bail!("`--kafka`: Kafka needs the feature `kafka`, which this build does not have");
        }
        if self.kafka.is_none() && self.hints.contains(&Hint::Kafka) {
            bail!("`--hints kafka` needs `--kafka HOST:PORT`");
        }
        for Plug { name, .. } in &self.beyond {
            if self.kafka.is_none() {
                bail!("`--beyond {name}=…` needs `--kafka HOST:PORT`");
            }
            if own.contains(&name.as_str()) {
                bail!("`--beyond {name}=…`: `{name}` is a controller of Dragnet's own");
            }
        }
        Ok(())
    }

    /// Whether the database's notices are used.
    pub(crate) fn has_notices(&self) -> bool {
        self.hints.is_empty() || self.hints.contains(&Hint::Notify)
    }

    /// Whether Kafka is configured.
    pub(crate) fn has_kafka(&self) -> bool {
        self.kafka.is_some()
    }

    /// Kafka's brokers, where it is configured.
    pub(crate) fn brokers(&self) -> Option<&str> {
        self.kafka.as_deref()
    }

    /// Whether controllers are plugged in.
    pub(crate) fn has_beyond(&self) -> bool {
        !self.beyond.is_empty()
    }
}

#[cfg(feature = "kafka")]
impl MessageArgs {
    fn cluster(&self) -> Option<dragnet_kafka::Kafka> {
        let bootstrap = self.kafka.clone()?;
        Some(dragnet_kafka::Kafka { bootstrap, prefix: self.kafka_prefix.clone() })
    }

    /// The controllers that are plugged in.
    pub(crate) fn beyond(&self) -> Vec<Arc<dyn Controller>> {
        let Some(kafka) = self.cluster() else { return Vec::new() };
        let confirm = std::time::Duration::try_from_secs_f64(self.confirm_s).unwrap_or_default();
        let confirm = confirm.max(std::time::Duration::from_millis(100));
        // A controller's name lives as long as the process, which reads its flags once.
        let leak = |text: &String| -> &'static str { text.clone().leak() };
        let controller = |plug: &Plug| -> Arc<dyn Controller> {
            let publisher = dragnet_kafka::Publisher::new(kafka.clone());
            Arc::new(dragnet_kafka::Beyond::new(leak(&plug.name), leak(&plug.topic), publisher, confirm))
        };
        self.beyond.iter().map(controller).collect()
    }

    /// Starts the consumers that wake these controllers, and the relay where this process is one.
    pub(crate) fn start(
        &self,
        on: &Handle,
        store: &Arc<dyn Store>,
        controllers: &[Arc<dyn Controller>],
        relays: bool,
        stop: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let Some(kafka) = self.cluster() else { return Vec::new() };
        let mut tasks = Vec::new();
        if self.hints.is_empty() || self.hints.contains(&Hint::Kafka) {
            for controller in controllers {
                let waker = dragnet_kafka::Waker {
                    controller: controller.name().into(),
                    topic: controller.topic().into(),
                };
                tasks.push(on.spawn(dragnet_kafka::wake(store.clone(), kafka.clone(), waker, stop.clone())));
            }
        }
        if relays {
            tasks.push(on.spawn(dragnet_kafka::relay(store.clone(), kafka, stop.clone())));
        }
        tasks
    }
}

#[cfg(not(feature = "kafka"))]
impl MessageArgs {
    pub(crate) fn beyond(&self) -> Vec<Arc<dyn Controller>> {
        let _ = (self.confirm_s, &self.kafka_prefix, self.beyond.iter().map(|plug| &plug.topic));
        Vec::new()
    }

    pub(crate) fn start(
        &self,
        _on: &Handle,
        _store: &Arc<dyn Store>,
        _controllers: &[Arc<dyn Controller>],
        _relays: bool,
        _stop: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plug_is_a_name_and_a_topic() {
        let table = [
            ("audit=job.ended", true),
            ("audit", false),
            ("=t", false),
            ("a b=t", false),
            ("A=t", false),
            ("a=", false),
        ];
        for (text, is) in table {
            assert_eq!(plug(text).is_ok(), is, "{text}");
        }
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let beyond = |name: &str| vec![Plug { name: name.into(), topic: "job.ended".into() }];
        let kafka = cfg!(feature = "kafka").then(|| "h:1".to_owned());
        let table = [
            (MessageArgs::default(), true),
            (MessageArgs { hints: vec![Hint::Notify], ..MessageArgs::default() }, true),
            (MessageArgs { hints: vec![Hint::Kafka], ..MessageArgs::default() }, false),
            (MessageArgs { beyond: beyond("audit"), ..MessageArgs::default() }, false),
            (
                MessageArgs { beyond: beyond("audit"), kafka: kafka.clone(), ..MessageArgs::default() },
                kafka.is_some(),
            ),
            (MessageArgs { beyond: beyond("launch"), kafka, ..MessageArgs::default() }, false),
        ];
        for (args, is) in table {
            assert_eq!(args.check(&["launch"]).is_ok(), is, "{args:?}");
        }
    }
}
