// A log of any length: only the visible lines are in the page. Following, search, links to lines.
"use strict";

(() => {
  const HEIGHT = 20;
  const CHUNK = 500;
  const KEEP = 40;

  class Log {
    constructor(section) {
      section.dataset.taken = "";
      this.base = `/logs/${section.dataset.step}`;
      this.anchor = section.dataset.anchor;
      this.total = Number(section.dataset.total);
      this.chunks = new Map();
      this.waiting = new Set();
      this.matches = [];
      this.at = -1;
      this.section = section;
      this.box = section.querySelector(".lines");
      this.count = section.querySelector(".log-count");
      this.sheet = document.createElement("div");
      this.sheet.className = "sheet";
      this.box.replaceChildren(this.sheet);
      this.box.classList.add("windowed");
      section.querySelector(".log-more")?.remove();
      this.rows = new Map();
      this.tools();
      this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
      new ResizeObserver(() => this.draw()).observe(this.box);
      this.grow();
      const line = this.wanted();
      if (line) this.show(line);
      else this.end();
      if ("follow" in section.dataset) this.follow();
    }

    tools() {
      const tools = this.section.querySelector(".log-tools");
      const button = (text, title, act) => {
        const made = document.createElement("button");
        made.type = "button";
        made.textContent = text;
        made.title = title;
        made.addEventListener("click", act);
        tools.append(made);
        return made;
      };
      this.found = document.createElement("span");
      this.found.setAttribute("role", "status");
      tools.append(this.found);
      this.previous = button("↑", "Previous match", () => this.step(-1));
      this.next = button("↓", "Next match", () => this.step(1));
      button("top", "First line", () => { this.stop(); this.box.scrollTop = 0; });
      button("end", "Last line", () => this.end());
      if ("follow" in this.section.dataset) {
        this.button = button("follow", "Keep the newest line in sight", () => (this.following ? this.stop() : this.end()));
      }
      this.previous.hidden = this.next.hidden = true;
      this.section.querySelector("form").addEventListener("submit", (event) => {
        event.preventDefault();
        const text = event.target.elements.q.value;
        if (text === this.text) this.step(1);
        else this.search(text);
      });
      this.section.querySelector("input").addEventListener("input", (event) => {
        if (event.target.value === "") this.search("");
      });
    }

    // What the page's address asks for: #ANCHOR-L120.
    wanted() {
      const prefix = `#${this.anchor}-L`;
      return location.hash.startsWith(prefix) ? Number(location.hash.slice(prefix.length)) : 0;
    }

    grow() {
      this.sheet.style.height = `${this.total * HEIGHT}px`;
      this.box.style.height = `${Math.max(1, this.total) * HEIGHT + 18}px`;
      this.count.textContent = this.total === 1 ? "1 line" : `${this.total.toLocaleString("en")} lines`;
      if (this.total > 0) this.section.querySelector(".empty")?.remove();
    }

    scrolled() {
      // Set by ourselves when following; anything else is the reader.
      const bottom = this.box.scrollHeight - this.box.clientHeight - this.box.scrollTop;
      if (this.following && bottom > 2 * HEIGHT) this.stop();
      this.draw();
    }

    stop() {
      this.following = false;
      this.button?.setAttribute("aria-pressed", "false");
    }

    end() {
      if (this.button) {
        this.following = true;
        this.button.setAttribute("aria-pressed", "true");
      }
      this.box.scrollTop = this.box.scrollHeight;
      this.draw();
    }

    draw() {
      if (this.drawing) return;
      this.drawing = true;
      requestAnimationFrame(() => {
        this.drawing = false;
        const first = Math.max(1, Math.floor(this.box.scrollTop / HEIGHT) + 1 - KEEP);
        const last = Math.min(this.total, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + KEEP);
        for (const [n, row] of this.rows) {
          if (n < first || n > last) { row.remove(); this.rows.delete(n); }
        }
        for (let n = first; n <= last; n += 1) {
          if (!this.rows.has(n)) this.place(n);
        }
        // Whoever drags the scroll bar passes many parts: only what stays in sight is fetched.
        clearTimeout(this.soon);
        const wait = this.rows.size === 0 && this.chunks.size > 0 ? 40 : 0;
        this.soon = setTimeout(() => {
          for (let c = Math.floor((first - 1) / CHUNK); c <= Math.floor((last - 1) / CHUNK); c += 1) this.fetch(c);
        }, wait);
      });
    }

    line(n) {
      return this.chunks.get(Math.floor((n - 1) / CHUNK))?.[(n - 1) % CHUNK];
    }

    place(n) {
      const line = this.line(n);
      if (!line) return;
      const row = document.createElement("div");
      row.className = "l";
      row.id = `${this.anchor}-L${n}`;
      row.style.top = `${(n - 1) * HEIGHT}px`;
      if (n === this.target) row.classList.add("target");
      if (n === this.matches[this.at]) row.classList.add("match");
      const link = document.createElement("a");
      link.href = `#${row.id}`;
      link.title = `after ${line.t}`;
      link.textContent = n;
      const code = document.createElement("code");
      for (const [text, classes] of line.s) code.append(this.span(text, classes));
      row.append(link, code);
      this.rows.set(n, row);
      this.sheet.append(row);
    }

    span(text, classes) {
      const span = document.createElement("span");
      if (classes) span.className = classes;
      const needle = this.text?.trim().toLowerCase();
      let at = 0;
      if (needle && text.toLowerCase().length === text.length) {
        const lower = text.toLowerCase();
        for (let found = lower.indexOf(needle); found >= 0; found = lower.indexOf(needle, at)) {
          const mark = document.createElement("mark");
          mark.textContent = text.slice(found, found + needle.length);
          span.append(text.slice(at, found), mark);
          at = found + needle.length;
        }
      }
      span.append(text.slice(at));
      return span;
    }

    async fetch(chunk) {
      const have = this.chunks.get(chunk);
      const full = Math.min(CHUNK, this.total - chunk * CHUNK);
      if (this.waiting.has(chunk) || (have && have.length >= full)) return;
      this.waiting.add(chunk);
      try {
        const from = chunk * CHUNK + 1;
        const answer = await fetch(`${this.base}/lines?from=${from}&count=${CHUNK}`);
        if (!answer.ok) return;
        const lines = [];
        for (const line of (await answer.json()).lines) lines[line.n - from] = line;
        this.chunks.set(chunk, lines);
        // Far away parts are given back, so that a day of scrolling costs no memory.
        if (this.chunks.size > 40) this.chunks.delete(this.chunks.keys().next().value);
      } catch { return; } finally { this.waiting.delete(chunk); }
      this.draw();
    }

    follow() {
      const source = new EventSource(`${this.base}/events?from=${this.total + 1}`);
      source.addEventListener("lines", (event) => {
        for (const line of JSON.parse(event.data).lines) {
          const chunk = Math.floor((line.n - 1) / CHUNK);
          const place = (line.n - 1) % CHUNK;
          // A part that was not fetched yet must not look as if it had been.
          if (!this.chunks.has(chunk) && place === 0) this.chunks.set(chunk, []);
          const lines = this.chunks.get(chunk);
          if (lines && lines.length >= place) lines[place] = line;
          this.total = Math.max(this.total, line.n);
        }
        this.grow();
        if (this.following) this.end();
        else this.draw();
      });
      source.addEventListener("end", () => {
        source.close();
        this.stop();
        this.button?.remove();
      });
      addEventListener("pagehide", () => source.close());
    }

    show(n) {
      this.stop();
      this.target = n;
      this.box.scrollTop = Math.max(0, (n - 1) * HEIGHT - this.box.clientHeight / 3);
      this.redraw();
    }

    redraw() {
      for (const row of this.rows.values()) row.remove();
      this.rows.clear();
      this.draw();
    }

    async search(text) {
      this.text = text;
      this.matches = [];
      this.at = -1;
      this.found.textContent = "";
      if (text.trim()) {
        this.found.textContent = "…";
        try {
          const answer = await fetch(`${this.base}/find?q=${encodeURIComponent(text)}`, { headers: { Accept: "application/json" } });
          const told = await answer.json();
          if (this.text !== text) return;
          this.matches = told.matches;
          this.more = told.more;
        } catch { this.found.textContent = "The search failed: is the server up?"; return; }
        if (this.matches.length === 0) this.found.textContent = "no match";
      }
      this.previous.hidden = this.next.hidden = this.matches.length === 0;
      if (this.matches.length > 0) this.step(1);
      else this.redraw();
    }

    step(by) {
      const count = this.matches.length;
      if (count === 0) return;
      this.at = (this.at + by + count) % count;
      this.found.textContent = `${this.at + 1} of ${count}${this.more ? "+" : ""}`;
      this.show(this.matches[this.at]);
    }
  }

  const logs = [];

  function take() {
    for (const section of document.querySelectorAll(".log[data-step]:not([data-taken])")) {
      const details = section.closest("details");
      const begin = () => {
        if (!("taken" in section.dataset)) logs.push(new Log(section));
      };
      if (!details || details.open) begin();
      else details.addEventListener("toggle", begin, { once: true });
    }
  }

  function jump() {
    const match = /^#(.+)-L(\d+)$/.exec(location.hash);
    if (!match) {
      const step = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      const folded = step && step.closest("details.step");
      if (folded) folded.open = true;
      return;
    }
    const details = document.getElementById(decodeURIComponent(match[1]));
    if (details && details.matches("details")) {
      details.open = true;
      take();
      const log = logs.find((l) => l.anchor === match[1]);
      log?.show(Number(match[2]));
      details.scrollIntoView({ block: "nearest" });
    }
  }

  document.addEventListener("exchanged", take);
  addEventListener("hashchange", jump);
  take();
  jump();
})();
