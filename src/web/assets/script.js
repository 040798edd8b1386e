// On every page: relative times, copying on click, parts that follow what happens. Pages work without it.
"use strict";

(() => {
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const steps = [["second", 60], ["minute", 60], ["hour", 24], ["day", 14], ["week", 8], ["month", 18], ["year", Infinity]];
  const sizes = { second: 1, minute: 60, hour: 3600, day: 86400, week: 604800, month: 2629800, year: 31557600 };

  function ago(seconds) {
    for (const [unit, most] of steps) {
      const count = Math.round(seconds / sizes[unit]);
      if (Math.abs(count) < most) return Math.abs(count) < 1 ? "now" : relative.format(count, unit);
    }
    return "";
  }

  function took(ms) {
    const s = Math.max(0, Math.round(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
    return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
  }

  function times() {
    for (const time of document.querySelectorAll("time[datetime]:not(.clock)")) {
      time.textContent = ago((Date.parse(time.dateTime) - Date.now()) / 1000);
    }
    for (const span of document.querySelectorAll("[data-since]")) {
      span.textContent = took(Date.now() - Number(span.dataset.since));
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    event.preventDefault();
    const said = document.createElement("span");
    said.className = "said";
    said.setAttribute("role", "status");
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      said.textContent = "copied";
    } catch {
      // Without a secure address browsers give no clipboard: show all of it, selected, to be copied by hand.
      button.textContent = button.dataset.copy;
      getSelection().selectAllChildren(button);
      said.textContent = "selected";
    }
    button.after(said);
    setTimeout(() => said.remove(), 1200);
  });

  // The server renders; this only exchanges parts that differ.
  function exchange(page) {
    for (const fresh of page.querySelectorAll("[data-live][id]")) {
      const old = document.getElementById(fresh.id);
      if (!old || old.isEqualNode(fresh)) continue;
      if (fresh.dataset.live === "once" && !("empty" in old.dataset)) continue;
      if (old.contains(document.activeElement) && document.activeElement.matches("input, textarea")) continue;
      const open = new Set([...old.querySelectorAll("details[open] > summary")].map((s) => s.textContent));
      const taken = document.importNode(fresh, true);
      for (const summary of taken.querySelectorAll("details > summary")) {
        if (open.has(summary.textContent)) summary.parentElement.open = true;
      }
      old.replaceWith(taken);
    }
    document.title = page.title;
    times();
    document.dispatchEvent(new Event("exchanged"));
  }

  let busy = false;
  let again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok) exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the next event tries again */ }
    await new Promise((done) => setTimeout(done, 300));
    busy = false;
    if (again) { again = false; refresh(); }
  }

  const events = document.body.dataset.events;
  if (events) {
    let lost = false;
    const source = new EventSource(events);
    source.addEventListener("changed", refresh);
    source.addEventListener("error", () => { lost = true; });
    source.addEventListener("open", () => { if (lost) refresh(); lost = false; });
    addEventListener("pagehide", () => source.close());
  }

  times();
  setInterval(times, 1000);
})();
