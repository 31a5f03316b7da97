"use strict";
// Keeps a list of boxes as the server has it, and says so when that cannot be done. Every text
// comes from a template of the server, which has escaped it.
(() => {
  const table = document.querySelector("[data-rows]");
  const lost = document.getElementById("lost");
  const all = document.querySelector("[data-all]");
  if (all) all.addEventListener("change", () => {
    for (const c of table.querySelectorAll("tbody input[type=checkbox]")) c.checked = all.checked;
  });
  if (!document.querySelector("[data-rows], [data-again]")) return;

  const now = () => new Date().toTimeString().slice(0, 8);
  let since = now(), away = false, first = true, timer = 0, busy = false, everything = false;
  const changed = new Set();
  const say = (text) => { lost.hidden = text === ""; if (lost.textContent !== text) lost.textContent = text; };

  // out leads to the login when the token has ended.
  const out = (r) => { if (r.status === 401) location.assign("/login?to=" + encodeURIComponent(location.pathname + location.search)); };
  const get = async (url) => {
    const r = await fetch(url, {credentials: "same-origin"});
    out(r);
    if (!r.ok) throw new Error("status " + r.status);
    return new DOMParser().parseFromString(await r.text(), "text/html");
  };

  // put puts a new element in the place of an old one, and keeps what was chosen and where the keyboard was.
  const put = (was, is) => {
    if (was.outerHTML === is.outerHTML) return;
    const old = was.querySelector("input[type=checkbox]"), fresh = is.querySelector("input[type=checkbox]");
    if (old && fresh) fresh.checked = old.checked;
    const opened = is.querySelectorAll("details");
    was.querySelectorAll("details").forEach((d, i) => { if (opened[i]) opened[i].open = d.open; });
    const able = "a, button, input, select, summary";
    const at = [...was.querySelectorAll(able)].indexOf(document.activeElement);
    was.replaceWith(is);
    if (at >= 0) { const again = is.querySelectorAll(able)[at]; if (again) again.focus({preventScroll: true}); }
  };

  const again = async () => {
    const page = await get(location.href);
    for (const part of document.querySelectorAll("[data-again]")) {
      const is = page.getElementById(part.id);
      if (is) put(part, is);
    }
    if (!table) return;
    const rows = [...page.querySelectorAll("[data-rows] tbody tr")], ids = new Set(rows.map((r) => r.id));
    for (const row of rows) { // those that are new or changed leave the fetched page
      const was = document.getElementById(row.id);
      if (was) put(was, row); else table.tBodies[0].append(row);
    }
    for (const row of [...table.tBodies[0].rows]) if (!ids.has(row.id)) row.remove();
    const counts = page.getElementById("counts");
    if (counts) put(document.getElementById("counts"), counts);
  };

  const some = async () => {
    const boxes = [...changed].filter((b) => document.getElementById("box-" + b.replaceAll(".", "-")));
    changed.clear();
    if (!table) return again();
    const page = await get(table.dataset.rows + "?" + boxes.slice(0, 100).map((b) => "box=" + encodeURIComponent(b)).join("&"));
    for (const row of page.querySelectorAll("tr[data-box]")) {
      const was = document.getElementById(row.id);
      if (was) put(was, row);
    }
    put(document.getElementById("counts"), page.getElementById("counts"));
  };

  // work brings the page up to date, at most once in a while, so that a lab at work costs little.
  const work = async () => {
    timer = 0;
    if (busy) return later(500);
    busy = true;
    try {
      if (everything || changed.size > 100) { changed.clear(); everything = false; await again(); } else await some();
      if (!away) { since = now(); say(""); }
    } catch {
      everything = true;
      say("The server does not answer. What you see is from " + since + ".");
      later(3000);
    }
    busy = false;
  };
  const later = (ms) => { if (!timer) timer = setTimeout(work, ms + Math.random() * ms / 2); };

  const events = new EventSource("/events");
  events.addEventListener("job", (e) => {
    try { changed.add(JSON.parse(e.data).box); } catch { everything = true; }
    later(1000);
  });
  events.addEventListener("sight", () => { everything = true; later(2000); });
  events.addEventListener("reset", () => { if (!first) { everything = true; later(10); } });
  events.onopen = () => {
    away = false;
    if (!first) { everything = true; later(10); }
    first = false;
  };
  events.onerror = () => {
    away = true;
    everything = true;
    say("The connection to the server is lost. What you see is from " + since + ".");
    if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  // What has no events, such as work on the store, is looked at now and then while it goes on.
  setInterval(() => { if (document.querySelector("[data-often]")) { everything = true; later(10); } }, 3000);
  setInterval(() => { if (!away && !busy && !timer) since = now(); }, 5000);
})();
