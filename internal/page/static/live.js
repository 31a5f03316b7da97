"use strict";
// Keeps a list of boxes as the server has it, and says so when that cannot be done. Every text
// comes from a template of the server, which has escaped it.
(() => {
  const lost = document.getElementById("lost");
  const list = () => document.querySelector("[data-rows]"); // none while no box is like the filter
  document.addEventListener("change", (e) => {
    if (!e.target.matches("[data-all]")) return;
    for (const c of list().querySelectorAll("tbody input[type=checkbox]")) c.checked = e.target.checked;
  });
  const count = () => { // how many boxes are chosen
    const says = document.querySelector("[data-chosen]"), n = list()?.querySelectorAll("tbody input:checked").length;
    if (!says) return;
    says.textContent = !n ? "With the chosen boxes:" : n === 1 ? "With the box that is chosen:" : `With the ${n} boxes that are chosen:`;
  };
  document.addEventListener("change", count);
  count(); // a browser may remember what was chosen
  // On a phone there is room for the boxes, and not for all of the filters.
  if (matchMedia("(max-width: 44rem)").matches) {
    for (const d of document.querySelectorAll("[data-fold]:not([data-used])")) d.open = false;
    document.querySelector("nav [aria-current]")?.scrollIntoView({block: "nearest", inline: "center"});
  }
  if (!document.querySelector("[data-rows], [data-again]")) return;

  let since = Date.now(), away = false, first = true, timer = 0, busy = false, everything = false;
  const changed = new Map(); // boxes, and when it was heard that they have changed
  const fresh = 1000; // ms: what the server says of boxes can be as old as this
  const asOf = () => `What you see is from ${new Date(since).toTimeString().slice(0, 8)}.`;
  const say = (text) => { lost.hidden = text === ""; if (lost.textContent !== text) lost.textContent = text; };

  // out leads to the login when the token has ended.
  const out = (r) => { if (r.status === 401) location.assign("/login?to=" + encodeURIComponent(location.pathname + location.search)); };
  const get = async (url) => {
    const r = await fetch(url, {credentials: "same-origin", signal: AbortSignal.timeout(60000)});
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

  // order is how the server sorts the boxes: those that need somebody first, then by address.
  const order = (row) => {
    const address = row.dataset.box.split(".").map((n) => n.padStart(3, "0"));
    return (row.classList.contains("needs") ? "0" : "1") + address.join(".");
  };

  // into puts a row before another one, or at the end, and leaves the keyboard where it was.
  const into = (body, row, next) => {
    if (row.parentNode === body && row.nextElementSibling === next) return;
    const at = document.activeElement;
    body.insertBefore(row, next);
    if (at !== document.activeElement && at.isConnected) at.focus({preventScroll: true});
  };

  const again = async () => {
    const page = await get(location.href), table = list();
    for (const part of document.querySelectorAll("[data-again]")) {
      const is = page.getElementById(part.id);
      if (is) put(part, is);
    }
    const counts = page.getElementById("counts");
    if (counts) put(document.getElementById("counts"), counts);
    if (!table) return;
    const rows = [...page.querySelectorAll("[data-rows] tbody tr")], ids = new Set(rows.map((r) => r.id));
    const body = table.tBodies[0];
    for (const row of [...body.rows]) if (!ids.has(row.id)) row.remove();
    let next = null;
    for (const row of rows.reverse()) { // those that are new or changed leave the fetched page
      const was = document.getElementById(row.id);
      if (was) put(was, row);
      const is = document.getElementById(row.id) || row;
      into(body, is, next);
      next = is;
    }
  };

  const some = async () => {
    const table = list(), rowOf = (box) => document.getElementById("box-" + box.replaceAll(".", "-"));
    if (!table) {
      changed.clear();
      return again();
    }
    // A box that is not shown may have become like the filter. Where there are more boxes than one page has, it may belong to another page.
    const boxes = [...changed.keys()].filter((b) => "whole" in table.dataset || rowOf(b));
    const start = performance.now();
    for (const [box, heard] of changed) { // the others are asked for once more, since their latest change may be missing
      if (heard <= start - fresh || !boxes.includes(box)) changed.delete(box);
    }
    const page = await get(table.dataset.rows + boxes.map((b) => "&box=" + encodeURIComponent(b)).join(""));
    const body = table.tBodies[0];
    for (const box of boxes) {
      const was = rowOf(box), row = [...page.querySelectorAll("tr[data-box]")].find((r) => r.dataset.box === box);
      if (!row) { // it is not like the filter any more
        if (was) was.remove();
        continue;
      }
      if (was) put(was, row);
      const is = rowOf(box) || row;
      into(body, is, [...body.rows].find((r) => r !== is && order(r) > order(is)) || null);
    }
    put(document.getElementById("counts"), page.getElementById("counts"));
    if (changed.size) later(fresh);
  };

  // work brings the page up to date, at most once in a while, so that a lab at work costs little.
  const work = async () => {
    timer = 0;
    if (busy) return later(500);
    busy = true;
    try {
      if (everything || changed.size > 100) { changed.clear(); everything = false; await again(); } else await some();
      count(); // boxes that were chosen may have left the list
      if (!away) { since = Date.now(); say(""); }
    } catch {
      everything = true;
      say("The server does not answer. " + asOf());
      later(3000);
    }
    busy = false;
  };
  const later = (ms) => { if (!timer) timer = setTimeout(work, ms + Math.random() * ms / 2); };

  // listen follows the changes. A page that nobody sees does not, since a browser has few connections to a
  // server for all of its pages, and a server few streams. Silence means that the connection is lost, although nothing has said so.
  const silence = 45000;
  let events = null, heard = 0;
  const gone = (text) => {
    away = everything = true;
    say(text + " " + asOf());
  };
  const close = () => { if (events) events.close(); events = null; };
  const listen = () => {
    close();
    if (document.hidden) return;
    const is = events = new EventSource("/events");
    heard = Date.now();
    const on = (name, f) => is.addEventListener(name, (e) => { heard = Date.now(); f(e); });
    for (const name of ["job", "box"]) on(name, (e) => {
      try { changed.set(JSON.parse(e.data).box, performance.now()); } catch { everything = true; }
      later(fresh);
    });
    for (const name of ["sight", "boot-test"]) on(name, () => { everything = true; later(2000); });
    on("reset", () => { if (!first) { everything = true; later(10); } });
    on("alive", () => {});
    on("open", () => {
      away = false;
      if (!first) { everything = true; later(10); }
      first = false;
    });
    is.addEventListener("error", () => {
      if (is !== events) return;
      gone("The connection to the server is lost.");
      if (is.readyState !== EventSource.CLOSED) return; // it tries again by itself
      close();
      later(10); // which leads to the login if that is why
      setTimeout(() => { if (!events) listen(); }, 5000 + Math.random() * 5000);
    });
  };
  listen();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close(); else if (!events) listen();
  });
  setInterval(() => {
    if (!events || Date.now() - heard < silence) return;
    gone("The server is not heard any more.");
    listen();
  }, 5000);
  // What has no events, such as work on the store, is looked at now and then while it goes on.
  setInterval(() => { if (!document.hidden && document.querySelector("[data-often]")) { everything = true; later(10); } }, 3000);
  // While nothing has changed, the page is as new as the latest word of the server. Nothing is heard while nobody sees the page.
  setInterval(() => { if (!away && !busy && !timer && events?.readyState === EventSource.OPEN) since = Math.max(since, heard); }, 5000);
})();
