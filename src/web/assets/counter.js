// The demo's counter: numbers from server-sent events, and the strip of the last minute.
"use strict";

(() => {
  const canvas = document.getElementById("strip");
  const pen = canvas.getContext("2d");
  const byId = (id) => document.getElementById(id);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const number = (n) => n.toLocaleString("en");
  const ROW = 13;
  let now = null;
  let came = 0;
  let top = 40;
  let lost = 0;

  function took(ms) {
    if (ms < 1000) return `${ms} ms`;
    return ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
  }

  // Columns move smoothly: the newest whole one slides in while the next is counted.
  function draw() {
    requestAnimationFrame(draw);
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!now) return;
    const foot = 18;
    const rows = width < 700 ? 3 : 2;
    const head = rows * ROW + 7;
    const columns = 240;
    const step = width / columns;
    const floor = height - foot;
    const whole = now.strip.slice(0, -1);
    const passed = (performance.now() - came) / now.column_ms;
    const within = (now.now_ms % now.column_ms) / now.column_ms;
    const shift = Math.min(2, within + passed) * step;
    const most = Math.max(10, ...whole.map((c) => c.blue + c.green + c.unknown + c.failed));
    top += (most * 1.1 - top) * 0.06;
    const tall = (count) => (count / top) * (floor - head);
    const x = (index) => width - (whole.length - index) * step - shift + step;

    pen.font = `11px ${colour("--mono")}`;
    pen.textBaseline = "alphabetic";
    pen.fillStyle = colour("--quiet");
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    const mark = niceStep(top * 4);
    for (let rate = mark; rate < top * 4; rate += mark) {
      const y = Math.round(floor - tall(rate / 4)) + 0.5;
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
      pen.fillText(`${rate}/s`, 2, y - 3);
    }
    for (let ago = 0; ago <= 60; ago += width < 500 ? 20 : 10) {
      const at = width - (ago * 1000) / now.column_ms * step;
      pen.textAlign = ago === 0 ? "right" : ago === 60 ? "left" : "center";
      pen.fillText(ago === 0 ? "now" : `${ago} s`, at, height - 4);
    }
    pen.textAlign = "left";

    const parts = [["blue", "--blue"], ["green", "--green"], ["unknown", "--quiet"], ["failed", "--failed"]];
    whole.forEach((column, index) => {
      let y = floor;
      const left = x(index);
      for (const [part, name] of parts) {
        if (!column[part]) continue;
        const high = part === "failed" ? Math.max(4, tall(column[part])) : tall(column[part]);
        pen.fillStyle = colour(name);
        pen.fillRect(left, y - high, Math.max(1, step - 0.6), high);
        y -= high;
      }
    });
    pen.fillStyle = colour("--line");
    pen.fillRect(0, floor, width, 1);

    const marks = now.switches
      .map((s) => ({ at: width - (now.column - s.at_ms / now.column_ms) * step - shift, ms: s.ms }))
      .filter((mark) => mark.at >= 0 && mark.at <= width);
    const placed = labels(marks, width, rows, (text) => pen.measureText(text).width);
    pen.strokeStyle = colour("--ink");
    pen.setLineDash([3, 3]);
    for (const { at, row } of placed) {
      pen.beginPath();
      pen.moveTo(at, row * ROW + 16);
      pen.lineTo(at, floor);
      pen.stroke();
    }
    pen.setLineDash([]);
    for (const { text, from, wide, row } of placed) {
      // The lines of others stop behind the words.
      pen.clearRect(from - 2, row * ROW + 3, wide + 4, ROW);
      pen.fillStyle = colour("--ink");
      pen.fillText(text, from, row * ROW + 13);
    }
  }

  // Words beside the switches' lines, each in the first row where nobody else's are. Where all rows are taken the line
  // stands alone: what happened is told below as well.
  function labels(marks, width, rows, measure) {
    const placed = [];
    for (const { at, ms } of [...marks].sort((a, b) => a.at - b.at)) {
      const words = `switch ${took(ms)}`;
      const wide = measure(words);
      const from = at + 4 + wide <= width ? at + 4 : Math.max(0, at - 4 - wide);
      const taken = (row) => placed.some((p) => p.row === row && from < p.from + p.wide + 8 && p.from < from + wide + 8);
      const free = Array.from({ length: rows }, (_, row) => row).find((row) => !taken(row));
      placed.push(free === undefined ? { at, row: rows - 1, text: "", from: at, wide: 0 } : { at, row: free, text: words, from, wide });
    }
    return placed;
  }

  function niceStep(most) {
    const rough = most / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  }

  function text(id, value) {
    const element = byId(id);
    if (element && element.textContent !== value) element.textContent = value;
  }

  function item(parts, tone) {
    const li = document.createElement("li");
    li.className = tone;
    for (const [tag, content, classes] of parts) {
      const part = document.createElement(tag);
      if (classes) part.className = classes;
      part.textContent = content;
      li.append(part, " ");
    }
    return li;
  }

  let drawn = -1;
  async function release(version) {
    drawn = version;
    try {
      const answer = await fetch("/release");
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      byId("release").replaceChildren(...document.importNode(page.body, true).childNodes);
    } catch { drawn = -1; }
  }

  let told = "";
  let answering = "";
  function show(snapshot) {
    now = snapshot;
    came = performance.now();
    text("total", number(now.total));
    text("failed", number(now.failed));
    text("rate", number(now.per_second));
    text("switch", now.switch_ms === null ? "–" : took(now.switch_ms));
    byId("failed-figure").classList.toggle("bad", now.failed > 0);
    if (now.p50_ms !== null) text("latency", `half within ${now.p50_ms} ms, 99 of 100 within ${now.p99_ms} ms`);
    for (const kind of ["fresh", "kept", "post", "slow"]) text(`kind-${kind}`, number(now.kinds[kind] ?? 0));
    const who = JSON.stringify(now.apps.map((a) => [a.app, a.release, a.colour]));
    if (now.apps.length > 0 && who !== answering) {
      byId("answering").replaceChildren(...now.apps.map((a) => item([["i", ""], ["span", a.app], ["b", a.release], ["span", a.colour, "quiet"]], a.colour)));
      answering = who;
    }
    if (drawn === -1) drawn = now.release;
    else if (drawn !== now.release) release(now.release);
    const lines = JSON.stringify(now.events);
    if (lines !== told) {
      byId("no-events")?.remove();
      byId("events").replaceChildren(...now.events.map((e) => {
        const at = new Date(e.at);
        return item([["time", at.toLocaleTimeString("en-GB"), "clock"], ["span", e.times > 1 ? `${e.text} (×${e.times})` : e.text]], e.tone);
      }));
      told = lines;
    }
  }

  function say(words) {
    const note = byId("told");
    note.textContent = words;
    note.hidden = false;
    clearTimeout(lost);
    lost = setTimeout(() => { note.hidden = true; }, 8000);
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches(".buttons form")) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
      say((await answer.json()).text);
    } catch {
      say("The demo does not answer: has it ended? Start it again with switchover demo.");
    }
    button.disabled = false;
  });

  const source = new EventSource("/events");
  source.addEventListener("snapshot", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => say("The demo does not answer; trying again."));
  addEventListener("pagehide", () => source.close());
  draw();
})();
