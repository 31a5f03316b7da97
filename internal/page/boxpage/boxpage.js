// Follows logs, and brings the parts of a page that take a moment. What comes from a log
// is put into the page as text alone.
"use strict";
(() => {
  const most = 256 * 1024; // characters of a log that the page keeps

  for (const el of document.querySelectorAll("[data-fragment]")) {
    el.setAttribute("aria-busy", "true");
    fetch(el.dataset.fragment, {credentials: "same-origin"}).then(async (r) => {
      if (!r.ok) throw new Error(r.statusText);
      // The server's own template made this part, and escaped all texts in it.
      const part = new DOMParser().parseFromString(await r.text(), "text/html");
      el.replaceChildren(...part.body.childNodes);
    }).catch(() => {}).finally(() => el.removeAttribute("aria-busy"));
  }

  for (const el of document.querySelectorAll("[data-live]")) {
    let wait = 2000, last = "", since = new Date().toLocaleTimeString();
    const look = async () => {
      if (document.hidden) return setTimeout(look, wait);
      try {
        // A connection that is lost without a word would never answer.
        const r = await fetch(el.dataset.live, {credentials: "same-origin", signal: AbortSignal.timeout(30000)});
        if (!r.ok) throw r.status;
        const html = await r.text();
        if (html !== last) { // else who is there with the keyboard would lose the place for nothing
          const part = new DOMParser().parseFromString(html, "text/html");
          el.replaceChildren(...part.body.childNodes);
        }
        last = html;
        since = new Date().toLocaleTimeString();
        el.querySelector("[data-stale]")?.remove();
        if (r.headers.get("Testbox-Ended") === "1") return;
        wait = r.headers.get("Testbox-Idle") === "1" ? 15000 : 2000;
      } catch (e) { // what is shown may not be so any more, and that must be seen
        wait = Math.min(wait * 2, 30000);
        if (!el.querySelector("[data-stale]")) {
          const p = document.createElement("p");
          p.className = "alert";
          p.dataset.stale = "";
          p.setAttribute("role", "status");
          p.textContent = (e === 401 ? "You are not logged in any more." : "The server does not answer as it should.") +
            ` What is shown is from ${since}, and may have changed.`;
          el.prepend(p);
        }
      }
      setTimeout(look, wait);
    };
    setTimeout(look, wait);
  }

  for (const el of document.querySelectorAll("[data-log]")) {
    const state = el.parentElement.querySelector("[data-log-state]");
    const say = (text) => { if (state) state.textContent = text; };
    const clean = (t) => t.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");
    const url = new URL(el.dataset.log, location.href);
    let at = null, paused = false, wait = 1000, held = "";
    const atEnd = () => el.scrollHeight - el.scrollTop - el.clientHeight < 40;
    const show = (text) => {
      let all = el.textContent + text;
      if (all.length > most) all = all.slice(all.indexOf("\n", all.length - most) + 1);
      el.textContent = all;
      el.scrollTop = el.scrollHeight;
    };
    el.addEventListener("scroll", () => {
      paused = !atEnd();
      if (!paused && held) { show(held); held = ""; }
      say(paused ? "The log waits while you read. Scroll to its end to go on." : "The log is followed.");
    });
    // A page that nobody sees follows nothing: a browser has few connections to a server for all of its pages.
    let quit = new AbortController();
    document.addEventListener("visibilitychange", () => { if (document.hidden) quit.abort(); });
    const seen = () => new Promise((go) => {
      const look = () => { if (!document.hidden) { document.removeEventListener("visibilitychange", look); go(); } };
      document.addEventListener("visibilitychange", look);
      look();
    });
    const follow = async () => {
      await seen();
      quit = new AbortController();
      const from = new URL(url);
      if (at !== null) from.searchParams.set("offset", String(at));
      from.searchParams.set("follow", "true");
      try {
        const r = await fetch(from, {credentials: "same-origin", signal: quit.signal});
        if (!r.ok) throw new Error(r.status === 401 ? "You are not logged in any more." : r.status === 404 ? "There is no log yet." : "The log cannot be read now.");
        const first = Number(r.headers.get("Testbox-Log-Offset") || 0);
        if (at !== null && first !== at) { el.textContent = ""; held = ""; }
        at = first;
        say("The log is followed.");
        wait = 1000;
        const reader = r.body.getReader(), text = new TextDecoder();
        for (;;) {
          const {done, value} = await reader.read();
          if (done) break;
          at += value.length;
          const more = clean(text.decode(value, {stream: true}));
          if (paused) held = (held + more).slice(-most); else show(more);
        }
      } catch (e) {
        if (quit.signal.aborted) return follow();
        say(e instanceof TypeError ? "The server does not answer; it is tried again." : e.message);
        wait = Math.min(wait * 2, 30000);
      }
      setTimeout(follow, wait);
    };
    follow();
  }
})();
