// The dashboard: what `/v1/jobs` says, drawn. All text goes in as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const STILL = ["accepted", "running"];
let cursor = null;
let next = null;
let chosen = location.hash.slice(1);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function ask(path, init = {}) {
  const headers = { Accept: "application/json", ...init.headers };
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = "Bearer " + key;
  const answer = await fetch(path, { ...init, headers });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || answer.statusText);
  return body;
}

async function shown(work) {
  try {
    await work();
    $("problem").textContent = "";
  } catch (problem) {
    $("problem").textContent = problem.message;
  }
}

// A result opens with the key, which a plain link could not send.
function result(job, name) {
  const button = element("button", name);
  button.onclick = () => shown(async () => {
    const body = await ask(job.links[name]);
    $("json").textContent = JSON.stringify(body, null, 2);
  });
  return button;
}

function wish(job, verb) {
  const button = element("button", verb);
  button.onclick = (event) => {
    event.stopPropagation();
    shown(async () => {
      await ask(`/v1/jobs/${job.id}:${verb}`, { method: "POST" });
      await draw();
    });
  };
  return button;
}

function row(job) {
  const line = element("tr");
  const link = element("a", job.id.slice(0, 18) + "…", "id");
  link.href = "#" + job.id;
  link.title = job.id;
  const status = element("span", job.status.replaceAll("_", " "), "status " + job.status);
  const progress = element("td");
  if (job.progress) {
    const bar = element("progress");
    bar.max = Math.max(job.progress.bytes_total, 1);
    bar.value = job.status.startsWith("completed") ? bar.max : job.progress.bytes_done;
    bar.title = `${job.progress.bytes_done} of ${job.progress.bytes_total} bytes`;
    progress.append(bar);
  }
  const cost = job.cost_micros == null ? "" : (job.cost_micros / 1e6).toFixed(6);
  const wishes = element("td");
  if (STILL.includes(job.status) || job.status === "parked") wishes.append(wish(job, "cancel"));
  if (job.status === "parked") wishes.append(" ", wish(job, "redrive"));
  const cells = [element("td"), element("td"), element("td", new Date(job.created).toLocaleString())];
  cells[0].append(link);
  cells[1].append(status);
  const patterns = job.spec.patterns.map((pattern) => pattern.regex).join(", ");
  const pattern = element("td");
  pattern.append(element("code", patterns.length > 40 ? patterns.slice(0, 40) + "…" : patterns));
  cells.push(pattern, progress, element("td", job.progress ? job.progress.hits.toLocaleString() : "", "number"));
  cells.push(element("td", cost, "number"), wishes);
  line.append(...cells);
  return line;
}

async function drawList() {
  const query = new URLSearchParams({ limit: 20 });
  if ($("status").value) query.set("status", $("status").value);
  if (cursor) query.set("cursor", cursor);
  const list = await ask("/v1/jobs?" + query);
  next = list.next;
  $("older").disabled = !next;
  $("newest").disabled = !cursor;
  // A job of the list has no progress; it is asked for one by one, for a page of 20.
  const jobs = await Promise.all(list.jobs.map((job) => ask(job.links.self)));
  const rows = jobs.map(row);
  if (!rows.length) {
    const none = element("tr");
    const cell = element("td", "No jobs.", "quiet");
    cell.colSpan = 8;
    none.append(cell);
    rows.push(none);
  }
  $("jobs").replaceChildren(...rows);
  return jobs.some((job) => STILL.includes(job.status));
}

async function drawOne() {
  $("one").hidden = !chosen;
  if (!chosen) return;
  const job = await ask("/v1/jobs/" + encodeURIComponent(chosen));
  $("one-id").textContent = job.id;
  const results = ["hits", "coverage", "bill"].map((name) => result(job, name));
  $("results").replaceChildren(...results.flatMap((button) => [button, " "]));
  $("json").textContent = JSON.stringify(job, null, 2);
  const { events } = await ask(job.links.events + "?limit=1000");
  const lines = events.map((event) => {
    const line = element("tr");
    const data = element("td");
    data.append(element("code", JSON.stringify(event.data)));
    line.append(element("td", event.seq, "number"), element("td", event.at), element("td", event.kind), data);
    return line;
  });
  $("events").replaceChildren(...lines);
}

async function draw() {
  const busy = await drawList();
  await drawOne();
  return busy;
}

function turn(to) {
  cursor = to;
  shown(drawList);
}

$("key").value = sessionStorage.getItem("key") || "";
$("key").onchange = () => {
  sessionStorage.setItem("key", $("key").value.trim());
  shown(draw);
};
$("status").onchange = () => turn(null);
$("newest").onclick = () => turn(null);
$("older").onclick = () => turn(next);
addEventListener("hashchange", () => {
  chosen = location.hash.slice(1);
  shown(drawOne);
});

// While something runs, it is looked at again soon; otherwise now and then.
async function again() {
  let busy = false;
  if (!document.hidden) await shown(async () => { busy = await drawList(); });
  setTimeout(again, busy ? 1500 : 10000);
}
shown(draw).then(() => setTimeout(again, 1500));
