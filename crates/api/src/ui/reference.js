// The API's reference: `/openapi.json`, drawn. All text goes in as text, never as HTML.
"use strict";

let api;

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

// Backticks become code.
function words(text = "") {
  return text.split("`").map((piece, n) => (n % 2 ? element("code", piece) : piece));
}

function resolve(value) {
  if (!value || !value.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((at, name) => at[name], api);
}

function name(reference) {
  return reference.split("/").pop();
}

// A schema in a few words, with a link where it has a name.
function type(schema = {}) {
  if (schema.$ref) {
    const link = element("a", name(schema.$ref));
    link.href = "#" + name(schema.$ref);
    return [link];
  }
  const several = schema.anyOf || schema.oneOf || schema.allOf;
  if (several) {
    const parts = several.map(type);
    return parts.flatMap((part, n) => (n ? [schema.allOf ? " and " : " or ", ...part] : part));
  }
  if (schema.type === "array") return ["list of ", ...type(schema.items)];
  if (schema.enum) return [schema.enum.join(" | ")];
  const bounds = [];
  if (schema.minimum !== undefined) bounds.push("≥ " + schema.minimum);
  if (schema.maximum !== undefined) bounds.push("≤ " + schema.maximum);
  if (schema.default !== undefined) bounds.push("default " + JSON.stringify(schema.default));
  const format = schema.format ? ` (${schema.format})` : "";
  return [[].concat(schema.type || "any").join(" or ") + format, bounds.length ? ", " + bounds.join(", ") : ""];
}

function table(head, rows) {
  const made = element("table", element("tr", ...head.map((cell) => element("th", cell))));
  made.append(...rows.map((cells) => element("tr", ...cells.map((cell) => element("td", ...[].concat(cell))))));
  const wide = element("div", made);
  wide.className = "wide";
  return wide;
}

function members(schema) {
  const rows = Object.entries(schema.properties || {}).map(([key, value]) => {
    const required = (schema.required || []).includes(key) ? "" : " (optional)";
    return [[element("code", key), required], type(value), words(value.description)];
  });
  return rows.length ? [table(["Member", "Type", ""], rows)] : [];
}

function operation(path, method, about, shared) {
  const verb = element("span", method.toUpperCase());
  verb.className = "method";
  const title = element("h3", verb, element("code", path), " ", about.summary);
  const body = element("details", element("summary", title), element("p", ...words(about.description)));
  const scopes = (about.security || []).flatMap((one) => Object.values(one).flat());
  if (scopes.length) body.append(element("p", "Needs the scope ", element("code", scopes.join(", ")), "."));
  const parameters = [...shared, ...(about.parameters || [])].map(resolve);
  if (parameters.length) {
    const rows = parameters.map((one) => [[element("code", one.name)], one.in, type(one.schema), words(one.description)]);
    body.append(table(["Parameter", "In", "Type", ""], rows));
  }
  if (about.requestBody) {
    body.append(element("p", "Takes ", ...type(about.requestBody.content["application/json"].schema), "."));
  }
  const answers = Object.entries(about.responses).map(([status, reference]) => {
    const answer = resolve(reference);
    const content = Object.entries(answer.content || {}).map(([media, { schema }]) =>
      element("div", element("code", media), " ", ...type(schema)));
    return [status, words(answer.description), content, Object.keys(answer.headers || {}).join(", ")];
  });
  body.append(table(["Status", "", "Content", "Headers"], answers));
  return body;
}

async function draw() {
  api = await (await fetch("/openapi.json")).json();
  const main = document.getElementById("main");
  document.getElementById("description").append(api.info.description);
  main.append(element("p", `Version ${api.info.version}, OpenAPI ${api.openapi}.`), element("h2", "Operations"));
  for (const [path, { parameters = [], ...methods }] of Object.entries(api.paths)) {
    for (const [method, about] of Object.entries(methods)) main.append(operation(path, method, about, parameters));
  }
  main.append(element("h2", "Schemas"));
  for (const [title, schema] of Object.entries(api.components.schemas)) {
    const heading = element("h3", title);
    heading.id = title;
    main.append(heading, element("p", ...words(schema.description)));
    const parts = schema.allOf || [schema];
    const text = schema.properties ? [] : type(schema);
    main.append(...(text.length ? [element("p", ...text)] : []), ...parts.flatMap(members));
  }
}

draw().catch((problem) => document.getElementById("description").append(problem.message));
