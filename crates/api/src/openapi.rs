//! The OpenAPI 3.1 document: its paths are the [table of routes](crate::routes), its components a file of JSON.
//!
//! `docs/openapi.json` is a copy, which a test compares, so that every change of the API shows in a review.

use crate::routes::{About, ROUTES, Route};
use serde_json::{Map, Value as Json, json};
use std::sync::LazyLock;

const COMPONENTS: &str = include_str!("components.json");
const DESCRIPTION: &str = "Runs a regular expression over millions of web documents as a long job: post the search, \
                           get an id at once, watch it, and fetch the hits, what was covered and what it cost.";

/// The document.
pub static DOCUMENT: LazyLock<Json> = LazyLock::new(document);

fn document() -> Json {
    let components: Json = serde_json::from_str(COMPONENTS).expect("components.json is tested");
    let mut paths = Map::new();
    for route in ROUTES {
        let Some(about) = &route.about else { continue };
        let methods =
            paths.entry(route.path).or_insert_with(|| json!({ "parameters": path_parameters(route) }));
        methods[route.method.as_str().to_ascii_lowercase()] = operation(route, about);
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Dragnet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    })
}

fn path_parameters(route: &Route) -> Vec<Json> {
    let parameter = |name| {
        let pattern = match name {
            "month" => "^(19[7-9][0-9]|2[0-9]{3})-(0[1-9]|1[0-2])$",
            _ => "^[A-Za-z0-9_.-]+$",
        };
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    route.names().map(parameter).collect()
}

fn operation(route: &Route, about: &About) -> Json {
    let mut answers = Map::new();
    for (status, name) in about.answers {
        answers.insert(status.to_string(), refer("responses", name));
    }
    for status in about.problems.iter().copied().chain(problems_of_all(route)) {
        answers.insert(status.to_string(), refer("responses", "Problem"));
    }
    answers.insert("405".into(), refer("responses", "MethodNotAllowed"));
    let parameters: Vec<Json> = about.parameters.iter().map(|name| refer("parameters", name)).collect();
    let mut operation = json!({
        "operationId": about.name,
        "summary": about.summary,
        "parameters": parameters,
        "responses": answers,
        "security": route.scope.map_or_else(Vec::new, |scope| vec![json!({ "key": [scope.name()] })]),
    });
    if !about.description.is_empty() {
        operation["description"] = about.description.into();
    }
    if let Some(schema) = about.takes {
        let content = json!({ "application/json": { "schema": refer("schemas", schema) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

/// What any such route may answer.
fn problems_of_all(route: &Route) -> impl Iterator<Item = u16> {
    let guarded: &[u16] = if route.scope.is_some() { &[401, 403, 429, 500, 503] } else { &[] };
    guarded.iter().copied().chain([406])
}

fn refer(kind: &str, name: &str) -> Json {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use super::*;
    use dragnet_job::spec::{JobSpec, Limits};
    use dragnet_kernel::{FilterSpec, Pattern};
    use serde::de::DeserializeOwned;
    use std::collections::BTreeSet;

    /// Every `$ref` in a value.
    fn references(value: &Json, found: &mut BTreeSet<String>) {
        match value {
            Json::Object(members) => {
                if let Some(Json::String(to)) = members.get("$ref") {
                    found.insert(to.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Json::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn refers_to_what_is_there_and_leaves_nothing_over() {
        let mut found = BTreeSet::new();
        references(&DOCUMENT, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(DOCUMENT.pointer(pointer).is_some(), "{reference} is not there");
        }
        for kind in ["schemas", "parameters", "headers", "responses"] {
            for name in DOCUMENT["components"][kind].as_object().unwrap().keys() {
                let own = format!("#/components/{kind}/{name}");
                assert!(found.contains(&own), "{own} is used nowhere");
            }
        }
    }

    /// The members that serde knows, from its own words.
    fn members<T: DeserializeOwned>() -> BTreeSet<String> {
        let error = serde_json::from_str::<T>(r#"{ "no such member": 1 }"#).err().unwrap().to_string();
        let (_, known) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn has_the_members_that_the_code_takes() {
        let table = [
            ("JobSpec", members::<JobSpec>()),
            ("Limits", members::<Limits>()),
            ("Filter", members::<FilterSpec>()),
            ("Pattern", members::<Pattern>()),
        ];
        for (name, mut taken) in table {
            taken.remove("output"); // The service's own.
            let properties = DOCUMENT["components"]["schemas"][name]["properties"].as_object().unwrap();
            assert_eq!(
                properties.keys().cloned().collect::<BTreeSet<_>>(),
                taken,
                "{name} in components.json"
            );
        }
    }

    #[test]
    fn is_the_document_in_docs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let served = format!("{:#}\n", *DOCUMENT);
        if std::env::var_os("DRAGNET_UPDATE").is_some() {
            std::fs::write(path, &served).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == served,
            "docs/openapi.json is not what is served: run this test with DRAGNET_UPDATE=1"
        );
    }
}
