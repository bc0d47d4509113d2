//! The service's own pages: a dashboard of jobs, the API's reference, and what each kind of problem means.
//!
//! They are files of this crate and fetch nothing from elsewhere; the policy that [`crate::gate`] sends with them lets
//! them run no other script than these.

use crate::answer::tagged;
use crate::kinds::{self, Kind};
use crate::{Problem, openapi};
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, Response};
use std::fmt::Write;
use std::sync::LazyLock;

pub(crate) async fn dashboard() -> Html<&'static str> {
    Html(include_str!("ui/dashboard.html"))
}

pub(crate) async fn reference() -> Html<&'static str> {
    Html(include_str!("ui/reference.html"))
}

pub(crate) async fn style() -> Response {
    tagged("text/css; charset=utf-8", include_str!("ui/style.css"))
}

pub(crate) async fn dashboard_js() -> Response {
    tagged("text/javascript; charset=utf-8", include_str!("ui/dashboard.js"))
}

pub(crate) async fn reference_js() -> Response {
    tagged("text/javascript; charset=utf-8", include_str!("ui/reference.js"))
}

pub(crate) async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", *openapi::DOCUMENT));
    let mut response = tagged("application/json", TEXT.as_str());
    // It is everybody's and no secret: tools on other pages may read it.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

pub(crate) async fn problems() -> Html<String> {
    let mut list = String::from("<h1>Problems</h1><dl>");
    for Kind { name, means, .. } in kinds::KINDS {
        let _ = write!(list, "<dt><a href=\"/problems/{name}\">{name}</a><dd>{}", text(means));
    }
    Html(page("Problems", &(list + "</dl>")))
}

pub(crate) async fn problem(Path(name): Path<String>) -> Result<Html<String>, Problem> {
    let Some(Kind { name, status, means, remedy }) = kinds::find(&name) else {
        let detail = format!("there is no kind of problem `{name}`: `/problems` lists them");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail));
    };
    let comes = match *status {
        "" => "It stands in the <code>error</code> of a job.".into(),
        status => format!("It comes with status {status}."),
    };
    let body = format!("<h1>{name}</h1><p>{}<p>{}<p>{comes}", text(means), text(remedy));
    Ok(Html(page(name, &body)))
}

/// A page that needs no script.
fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title} · Dragnet</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/ui/style.css\">\
         <nav><a href=\"/\">Jobs</a> <a href=\"/docs\">API</a> <a href=\"/problems\">Problems</a></nav>\
         <main>{body}</main></html>\n"
    )
}

/// Our own words as HTML, with code where the backticks are.
fn text(words: &str) -> String {
    let escaped = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let pieces = escaped.split('`').enumerate();
    pieces
        .map(|(n, piece)| if n % 2 == 1 { format!("<code>{piece}</code>") } else { piece.to_owned() })
        .collect()
}
