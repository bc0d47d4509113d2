//! What is asked of a cluster over HTTP: the ResourceManager, ApplicationMasters behind its proxy, and the
//! history server.
//!
//! No redirect is followed: after an application's end the proxy leads to an HTML page, which answers 200 and
//! tells nothing. Every call ends after five seconds.

use crate::Error;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Value as Json, json};
use std::time::Duration;

use super::NAME;
use super::conf::Conf;

/// The longest that a call may take.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(5);

/// A client of one cluster.
#[derive(Debug)]
pub(crate) struct Rest {
    http: reqwest::Client,
    managers: Vec<String>,
    proxies: Vec<String>,
    history: String,
    user: String,
}

/// An application, as the ResourceManager tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) final_status: String,
    #[serde(default)]
    pub(crate) diagnostics: String,
    /// On the ResourceManager's clock; 0 while it runs.
    #[serde(default, rename = "finishedTime")]
    pub(crate) finished_ms: u64,
}

/// Where an application is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It waits for its first container.
    Pending,
    Running,
    Succeeded,
    /// It failed as a whole, or somebody killed it.
    Failed,
}

impl App {
    pub(crate) fn life(&self) -> Life {
        match (self.state.as_str(), self.final_status.as_str()) {
            ("FINISHED", "SUCCEEDED") => Life::Succeeded,
            // Its end is written down a moment before what it came to.
            ("FINISHED", "UNDEFINED") | ("RUNNING", _) => Life::Running,
            ("FINISHED" | "FAILED" | "KILLED", _) => Life::Failed,
            _ => Life::Pending,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.life(), Life::Succeeded | Life::Failed)
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) bytes_read: u64,
    pub(crate) running: u64,
    pub(crate) attempts_failed: u64,
}

/// What came back.
#[derive(Debug)]
enum Reply {
    Json(Json),
    /// 404.
    Missing,
    /// It was understood and not done.
    Refused(String),
    /// A redirect, or a page for people: ask elsewhere.
    Elsewhere,
}

impl Rest {
    pub(crate) fn new(conf: &Conf, user: &str) -> Result<Rest, Error> {
        // Whoever came first has chosen; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CALL_MAX)
            .no_proxy()
            .build()
            .map_err(|e| down(format!("no HTTP client: {}", reason(&e))))?;
        let managers = conf.resource_managers();
        let proxies = conf.web_proxy().map_or_else(|| managers.clone(), |proxy| vec![proxy]);
        Ok(Rest { http, managers, proxies, history: conf.history_server(), user: user.to_owned() })
    }

    async fn call(&self, method: reqwest::Method, url: &str, body: Option<&Json>) -> Result<Reply, Error> {
        let mut request = self.http.request(method, url).header("Accept", "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |e: reqwest::Error| down(format!("{}: {}", origin(url), reason(&e)));
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        let parsed = serde_json::from_str(&text).ok();
        if status.is_server_error() {
            return Err(down(format!("{}: {}", origin(url), said(status, parsed.as_ref()))));
        }
        Ok(match parsed {
            _ if status == reqwest::StatusCode::NOT_FOUND => Reply::Missing,
            parsed if status.is_client_error() => Reply::Refused(said(status, parsed.as_ref())),
            _ if status.is_redirection() => Reply::Elsewhere,
            Some(json) => Reply::Json(json),
            // An accepted submission answers with nothing.
            None if text.trim().is_empty() => Reply::Json(Json::Null),
            None => Reply::Elsewhere,
        })
    }

    /// Asks the ResourceManagers in turn: one that is down or on standby leaves it to the next.
    async fn manager(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Json>,
    ) -> Result<Reply, Error> {
        let mut last = down("no ResourceManager is active");
        for base in &self.managers {
            let mark = if path.contains('?') { '&' } else { '?' };
            let url = format!("{base}/ws/v1/cluster/{path}{mark}user.name={}", self.user);
            match self.call(method.clone(), &url, body).await {
                Ok(Reply::Elsewhere) => {}
                Ok(reply) => return Ok(reply),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Reserves an application's id; nothing else happens.
    pub(crate) async fn new_application(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Reserved {
            application_id: String,
        }
        let reply = self.manager(reqwest::Method::POST, "apps/new-application", None).await?;
        Ok(value::<Reserved>(wanted(reply, "reserve an application")?)?.application_id)
    }

    /// Submits an application under its reserved id. The same id again starts nothing.
    pub(crate) async fn submit(&self, body: &Json) -> Result<(), Error> {
        let reply = self.manager(reqwest::Method::POST, "apps", Some(body)).await?;
        wanted(reply, "submit the application").map(drop)
    }

    /// An application; `None` when the ResourceManager knows none of that id.
    ///
    /// A ResourceManager that starts again answers before it has read what it knew, so its "not found" counts
    /// only after it has said that it is active.
    pub(crate) async fn app(&self, id: &str) -> Result<Option<App>, Error> {
        match self.look(id).await? {
            None => {
                self.active().await?;
                self.look(id).await
            }
            found => Ok(found),
        }
    }

    async fn look(&self, id: &str) -> Result<Option<App>, Error> {
        #[derive(Deserialize)]
        struct One {
            app: App,
        }
        match self.manager(reqwest::Method::GET, &format!("apps/{id}"), None).await? {
            Reply::Missing => Ok(None),
            reply => Ok(Some(value::<One>(wanted(reply, "look at an application")?)?.app)),
        }
    }

    /// Whether a ResourceManager has read what it knew. One on standby answers this too.
    pub(crate) async fn active(&self) -> Result<(), Error> {
        let mut last = down("no ResourceManager is active");
        for base in &self.managers {
            match self.call(reqwest::Method::GET, &format!("{base}/ws/v1/cluster/info"), None).await {
                Ok(Reply::Json(info)) if info["clusterInfo"]["haState"] == "ACTIVE" => return Ok(()),
                Ok(_) => {}
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// All applications with a tag that the ResourceManager remembers.
    pub(crate) async fn tagged(&self, tag: &str) -> Result<Vec<App>, Error> {
        self.active().await?;
        let path = format!("apps?applicationTags={tag}");
        let reply = self.manager(reqwest::Method::GET, &path, None).await?;
        apps_of(wanted(reply, "look for applications")?)
    }

    /// Begins to kill an application; harmless when it has ended.
    pub(crate) async fn kill(&self, id: &str) -> Result<(), Error> {
        let body = json!({ "state": "KILLED" });
        let path = format!("apps/{id}/state");
        match self.manager(reqwest::Method::PUT, &path, Some(&body)).await? {
            Reply::Missing => Ok(()),
            reply => wanted(reply, "kill the application").map(drop),
        }
    }

    /// How far a running job is, by its ApplicationMaster; `None` when that does not answer now.
    pub(crate) async fn live(&self, application: &str) -> Option<Progress> {
        let base = |proxy: &String| format!("{proxy}/proxy/{application}/ws/v1/mapreduce");
        self.progress(self.proxies.iter().map(base).collect(), application).await
    }

    /// What an ended job came to, by the history server; `None` when that does not know it, which it never
    /// does of one that was killed.
    pub(crate) async fn ended(&self, application: &str) -> Option<Progress> {
        self.progress(vec![format!("{}/ws/v1/history/mapreduce", self.history)], application).await
    }

    async fn progress(&self, bases: Vec<String>, application: &str) -> Option<Progress> {
        let job = job_id(application);
        for base in bases {
            let get = async |path: &str| {
                let url = format!("{base}/jobs/{job}{path}");
                match self.call(reqwest::Method::GET, &url, None).await {
                    Ok(Reply::Json(json)) => Some(json),
                    Ok(_) => None,
                    Err(e) => {
                        tracing::debug!(application, error = %e, "a job's counters could not be had");
                        None
                    }
                }
            };
            let Some(state) = get("").await else { continue };
            let counters = get("/counters").await.unwrap_or_default();
            return Some(progress_of(&state, &counters));
        }
        None
    }
}

/// The job of an application.
pub(crate) fn job_id(application: &str) -> String {
    application.replacen("application", "job", 1)
}

pub(crate) fn down(reason: impl Into<String>) -> Error {
    Error::Down { engine: NAME, reason: reason.into() }
}

/// Scheme, host and port: the rest is of no use to who reads it.
fn origin(url: &str) -> String {
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

/// The innermost cause; what is around it repeats the address.
fn reason(e: &reqwest::Error) -> String {
    if e.is_timeout() {
        return format!("no answer in {} s", CALL_MAX.as_secs());
    }
    let mut inner: &dyn std::error::Error = e;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// A status and Hadoop's own words for it.
fn said(status: reqwest::StatusCode, body: Option<&Json>) -> String {
    let message = body.and_then(|body| body["RemoteException"]["message"].as_str()).unwrap_or_default();
    let line: String = message.lines().next().unwrap_or_default().chars().take(300).collect();
    format!("{status} {line}").trim_end().to_owned()
}

fn wanted(reply: Reply, to: &str) -> Result<Json, Error> {
    match reply {
        Reply::Json(json) => Ok(json),
        Reply::Refused(reason) => Err(down(format!("it refused to {to}: {reason}"))),
        Reply::Missing | Reply::Elsewhere => {
            Err(down(format!("could not {to}: no ResourceManager is there")))
        }
    }
}

fn value<T: DeserializeOwned>(json: Json) -> Result<T, Error> {
    serde_json::from_value(json).map_err(|e| down(format!("an answer that makes no sense: {e}")))
}

/// Hadoop writes a list of one as the one, and an empty list as nothing.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        Many(Vec<T>),
        One(T),
    }
    Ok(match Option::deserialize(from)? {
        None => Vec::new(),
        Some(OneOrMany::Many(all)) => all,
        Some(OneOrMany::One(one)) => vec![one],
    })
}

fn apps_of(json: Json) -> Result<Vec<App>, Error> {
    #[derive(Deserialize, Default)]
    struct Apps {
        #[serde(default, deserialize_with = "one_or_many")]
        app: Vec<App>,
    }
    #[derive(Deserialize)]
    struct Answer {
        apps: Option<Apps>,
    }
    Ok(value::<Answer>(json)?.apps.unwrap_or_default().app)
}

/// What it does not say is 0: it is shown and nothing more.
fn progress_of(state: &Json, counters: &Json) -> Progress {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Counters {
        #[serde(deserialize_with = "one_or_many")]
        counter_group: Vec<Group>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Group {
        counter_group_name: String,
        #[serde(default, deserialize_with = "one_or_many")]
        counter: Vec<Counter>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Counter {
        name: String,
        #[serde(default)]
        total_counter_value: u64,
    }
    let groups = Counters::deserialize(&counters["jobCounters"]).unwrap_or_default().counter_group;
    let ours = groups.iter().filter(|group| group.counter_group_name == "dragnet").flat_map(|g| &g.counter);
    let count = |name: &str| state["job"][name].as_u64().unwrap_or(0);
    Progress {
        bytes_read: ours.filter(|c| c.name == "bytes_read").map(|c| c.total_counter_value).sum(),
        running: count("mapsRunning"),
        attempts_failed: count("failedMapAttempts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_many_applications() {
        let app = |id: &str| json!({ "id": id, "state": "RUNNING", "finalStatus": "UNDEFINED", "amNodeLabelExpression": "" });
        let rows = [
            (json!({ "apps": null }), vec![]),
            (json!({ "apps": {} }), vec![]),
            (json!({ "apps": { "app": app("a") } }), vec!["a"]),
            (json!({ "apps": { "app": [app("a"), app("b")] } }), vec!["a", "b"]),
        ];
        for (answer, expected) in rows {
            let ids: Vec<String> = apps_of(answer).unwrap().into_iter().map(|app| app.id).collect();
            assert_eq!(ids, expected);
        }
    }

    #[test]
    fn one_or_many_counters() {
        let counter =
            |name: &str, n: u64| json!({ "name": name, "totalCounterValue": n, "mapCounterValue": n });
        let group = |name: &str, counters: Json| json!({ "counterGroupName": name, "counter": counters });
        let job = json!({ "job": { "mapsRunning": 2, "failedMapAttempts": 1 } });
        let rows = [
            (json!({}), 0),
            (json!({ "jobCounters": { "counterGroup": group("dragnet", counter("bytes_read", 5)) } }), 5),
            (
                json!({ "jobCounters": { "counterGroup": [
                    group("other", json!([counter("bytes_read", 9)])),
                    group("dragnet", json!([counter("hits", 7), counter("bytes_read", 6)])),
                ] } }),
                6,
            ),
        ];
        for (counters, bytes_read) in rows {
            let expected = Progress { bytes_read, running: 2, attempts_failed: 1 };
            assert_eq!(progress_of(&job, &counters), expected, "{counters}");
        }
    }

    #[test]
    fn an_application_s_life() {
        let rows = [
            (("NEW_SAVING", "UNDEFINED"), Life::Pending),
            (("ACCEPTED", "UNDEFINED"), Life::Pending),
            (("RUNNING", "UNDEFINED"), Life::Running),
            (("FINISHED", "UNDEFINED"), Life::Running),
            (("FINISHED", "SUCCEEDED"), Life::Succeeded),
            (("FINISHED", "FAILED"), Life::Failed),
            (("FINISHED", "KILLED"), Life::Failed),
            (("KILLED", "KILLED"), Life::Failed),
            (("FAILED", "FAILED"), Life::Failed),
        ];
        for ((state, final_status), expected) in rows {
            let app = json!({ "id": "a", "state": state, "finalStatus": final_status });
            assert_eq!(value::<App>(app).unwrap().life(), expected, "{state} {final_status}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(job_id("application_17_0001"), "job_17_0001");
        assert_eq!(origin("http://h:1/ws/v1?x"), "http://h:1");
    }
}
