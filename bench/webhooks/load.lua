-- For wrk: signed pings, each with an id of its own. BENCH_BODIES: bodies with signatures; BENCH_RUN: a name that no
-- other run has; BENCH_RESULT: the file that the figures are added to.
local bodies = dofile(os.getenv("BENCH_BODIES"))
local run = os.getenv("BENCH_RUN")
local started = 0

function setup(thread)
  thread:set("number", started)
  started = started + 1
end

local sent = 0

function request()
  sent = sent + 1
  local one = bodies[sent % #bodies + 1]
  return wrk.format("POST", nil, {
    ["Content-Type"] = "application/json",
    ["User-Agent"] = "GitHub-Hookshot/bench",
    ["X-GitHub-Event"] = "ping",
    ["X-GitHub-Delivery"] = string.format("%s-%d-%08d", run, number, sent),
    ["X-Hub-Signature-256"] = one.signature,
  }, one.body)
end

function done(summary, latency)
  local e = summary.errors
  local file = assert(io.open(os.getenv("BENCH_RESULT"), "w"))
  file:write(string.format("%d %.0f %.2f %.2f %.2f %d\n", summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    e.status + e.connect + e.read + e.write + e.timeout))
  file:close()
end
